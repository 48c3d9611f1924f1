"""The client against a server of a few lines: wire form, errors, order, positions."""

import base64
import struct
from concurrent import futures
from typing import Any, Iterator, List, Optional, Tuple

import grpc
import pytest
from google.protobuf import any_pb2

import tidegate
from tidegate import _errors, _positions
from tidegate._positions import Positions
from tidegate.v1 import broker_pb2_grpc, context_pb2, execute_pb2, failure_pb2, session_pb2, values_pb2

FAILURE = failure_pb2.Failure(
    code=grpc.StatusCode.ALREADY_EXISTS.value[0],
    message="duplicate key",
    reason="UNIQUE_VIOLATION",
    outcome=failure_pb2.OUTCOME_ROLLED_BACK,
    statement_index=0,
    postgres=failure_pb2.PostgresError(sqlstate="23505"),
)


def part(ids: List[int], header: bool = False, summary: int = -1) -> execute_pb2.ExecuteReadResponse:
    """A message of a result with one bigint column `id`."""
    message = execute_pb2.ExecuteReadResponse(
        rows=values_pb2.RowBatch(row_count=len(ids), columns=[values_pb2.ColumnValues(int64s=ids)])
    )
    if header:
        column = values_pb2.Column(name="id", kind=values_pb2.COLUMN_KIND_INT64, type_name="int8")
        message.header.columns.append(column)
        message.header.receipt.host = "a"
    if summary >= 0:
        message.summary.row_count = summary
        message.summary.position = "token-r"
    return message


def status_details(failure: failure_pb2.Failure) -> bytes:
    """A google.rpc.Status with the failure, as the wire has it."""
    packed = any_pb2.Any()
    packed.Pack(failure)
    status = _errors._Status(details=[packed.SerializeToString()])
    return b"\x08\x06\x12\x01x" + bytes(status.SerializeToString())  # with code and message, which are passed over


class Broker(broker_pb2_grpc.BrokerServiceServicer):
    def __init__(self) -> None:
        self.read: List[execute_pb2.ExecuteReadResponse] = []
        self.asked: List[Any] = []

    def ExecuteRead(self, request: Any, context: Any) -> Iterator[execute_pb2.ExecuteReadResponse]:
        self.asked.append(request)
        yield from self.read

    def ExecuteWrite(self, request: Any, context: Any) -> execute_pb2.ExecuteWriteResponse:
        self.asked.append(request)
        if request.statements[0].sql == "fail":
            context.set_trailing_metadata(
                [("grpc-status-details-bin", status_details(FAILURE)), ("tidegate-position", "token-f")]
            )
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "duplicate key")
        result = execute_pb2.StatementResult(rows_affected=1)
        return execute_pb2.ExecuteWriteResponse(results=[result], position="token-w")

    def Session(self, requests: Any, context: Any) -> Iterator[session_pb2.SessionResponse]:
        yield session_pb2.SessionResponse(notice=session_pb2.SessionNotice(message="hello"))
        for request in requests:
            self.asked.append(request)
            answer = session_pb2.SessionResponse(request_id=request.request_id, last=True)
            kind = request.WhichOneof("request")
            if kind == "open":
                answer.opened.max_unanswered = 8
            elif kind == "read" and request.read.statement.sql == "strange":
                yield session_pb2.SessionResponse(request_id=request.request_id, done=session_pb2.SessionDone())
                answer.read.CopyFrom(part([2], summary=2))
            elif kind == "read":
                first = session_pb2.SessionResponse(request_id=request.request_id, read=part([1], header=True))
                yield first
                answer.read.CopyFrom(part([2], summary=2))
            elif kind == "write" and request.write.statement.sql == "fail":
                answer.failure.CopyFrom(FAILURE)
            elif kind == "write":
                answer.write.rows_affected = 1
                answer.position = f"token-{request.request_id}"
            else:
                answer.done.SetInParent()
            yield answer


@pytest.fixture
def broker() -> Iterator[Any]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    servicer = Broker()
    broker_pb2_grpc.add_BrokerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with tidegate.connect(f"http://127.0.0.1:{port}", database="shop", session_id="s", timeout=10) as client:
        yield servicer, client
    server.stop(None)


def test_a_result_is_read_and_its_token_travels_on(broker: Any) -> None:
    servicer, client = broker
    servicer.read = [part([1, 2], header=True), part([3], summary=3)]
    result = client.read("SELECT id FROM t WHERE a = $1", [7], max_staleness=2)
    assert (result.rows, len(result), result.receipt.host) == ([(1,), (2,), (3,)], 3, "a")
    assert result.dicts()[0] == {"id": 1}
    assert client.positions == ["token-r"]
    asked = servicer.asked[0]
    assert (asked.context.database, asked.context.session_id) == ("shop", "s")
    assert asked.options.consistency == context_pb2.CONSISTENCY_BOUNDED
    assert asked.options.max_staleness.seconds == 2 and asked.options.max_message_bytes == 16 * 1024 * 1024

    assert list(client.stream("SELECT 1")) == result.rows
    assert list(servicer.asked[1].context.positions) == ["token-r"]
    assert client.for_session("other").positions == []


def test_a_result_without_a_summary_is_cut(broker: Any) -> None:
    servicer, client = broker
    servicer.read = [part([1], header=True)]
    with pytest.raises(tidegate.CutError):
        client.read("SELECT 1")
    servicer.read = []
    with pytest.raises(tidegate.CutError):
        client.read("SELECT 1")


@pytest.mark.parametrize(
    "messages",
    [
        [part([1], summary=1)],
        [part([1], header=True, summary=2)],
        [part([1], header=True), part([1], header=True)],
        [part([1], header=True, summary=1), part([1])],
    ],
)
def test_results_that_contradict_themselves_are_errors(broker: Any, messages: Any) -> None:
    servicer, client = broker
    servicer.read = messages
    with pytest.raises(tidegate.Error, match="protocol"):
        client.read("SELECT 1")


def test_failures_are_decoded(broker: Any) -> None:
    servicer, client = broker
    with pytest.raises(tidegate.Error) as raised:
        client.write([("fail", [1]), "SELECT 1"])
    error = raised.value
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "UNIQUE_VIOLATION")
    assert (error.outcome, error.sqlstate) == (tidegate.Outcome.ROLLED_BACK, "23505")
    assert (error.statement_index, error.retry_delay, error.receipt) == (0, None, None)
    assert "23505" in str(error) and "ROLLED_BACK" in str(error)
    assert client.positions == ["token-f"]
    assert client.write("INSERT", [1]).rows_affected == 1
    assert client.positions == ["token-w"]


def test_no_broker_is_unavailable() -> None:
    with tidegate.connect("127.0.0.1:1", timeout=2) as client, pytest.raises(tidegate.Error) as raised:
        client.write("SELECT 1")
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")
    assert raised.value.outcome == tidegate.Outcome.UNKNOWN


def test_a_session_commits_and_rolls_back(broker: Any) -> None:
    servicer, client = broker
    with client.session() as session:  # 1
        assert session.notices[0].message == "hello"
        with session.begin() as transaction:  # 2
            assert transaction.write("INSERT", [None]).rows_affected == 1  # 3
            assert transaction.read("SELECT 1").rows == [(1,), (2,)]  # 4, 5: commit
        with pytest.raises(tidegate.Error) as raised:
            with session.begin(isolation="serializable", read_only=True) as transaction:  # 6
                transaction.write("fail")  # 7, 8: rollback
        assert raised.value.sqlstate == "23505"
        assert session.write("INSERT").rows_affected == 1  # 9
    asked = [(one.request_id, one.transaction_id, one.WhichOneof("request")) for one in servicer.asked]
    assert asked == [
        (1, 0, "open"),
        (2, 0, "begin"),
        (3, 2, "write"),
        (4, 2, "read"),
        (5, 2, "commit"),
        (6, 0, "begin"),
        (7, 6, "write"),
        (8, 6, "rollback"),
        (9, 0, "write"),
    ]
    assert servicer.asked[1].timeout.seconds == 10
    assert client.positions == ["token-9"]
    with pytest.raises(tidegate.Error, match="ended"):
        session.write("INSERT")


def test_concurrent_calls_keep_both_tokens_until_one_call_carried_them() -> None:
    positions = Positions(["a"])
    first, second = positions.current(), positions.current()
    positions.answered(first, "ab")
    positions.answered(second, "ac")
    assert positions.current() == ["ab", "ac"]
    positions.answered(positions.current(), "abc")
    assert positions.current() == ["abc"]
    positions.failed(positions.current(), "")
    assert positions.current() == ["abc"]


def test_a_memory_that_is_off_keeps_what_it_was_given_only() -> None:
    positions = Positions(["a"], remember=False)
    positions.answered(["a"], "b")
    assert positions.current() == ["a"]


def test_a_session_that_is_left_by_an_exception_ends(broker: Any) -> None:
    _, client = broker
    with pytest.raises(KeyError):
        with client.session() as session:
            raise KeyError
    with pytest.raises(tidegate.Error):
        session.write("INSERT")
    assert session._responses.done()


def test_tokens_of_a_refused_session_request_are_kept_and_brought_again(broker: Any) -> None:
    servicer, client = broker
    with client.session() as session:  # 1
        client.write("INSERT")
        with pytest.raises(tidegate.Error):
            session.write("fail")  # 2: without a token, as when one that it brought is refused
        assert client.positions == ["token-w"]
        session.write("INSERT")  # 3
        assert client.positions == ["token-3"]
        session.write("INSERT")  # 4
    brought = [list(one.positions) for one in servicer.asked if isinstance(one, session_pb2.SessionRequest)]
    assert brought == [[], ["token-w"], ["token-w"], []]


def test_what_is_left_of_an_earlier_answer_covers_nothing_that_came_later(broker: Any) -> None:
    servicer, client = broker
    with client.session() as session:  # 1
        with pytest.raises(tidegate.Error, match="protocol"):
            session.read("strange")  # 2: the second half of its answer is left over
        client.write("INSERT")
        with pytest.raises(tidegate.Error) as raised:
            session.write("fail")  # 3
        assert raised.value.reason == "UNIQUE_VIOLATION"
        assert client.positions == ["token-w", "token-r"]
    assert list(servicer.asked[-1].positions) == ["token-w"]


def test_no_token_keeps_a_transaction_from_its_end(broker: Any) -> None:
    servicer, client = broker
    with client.session() as session:  # 1
        with session.begin() as transaction:  # 2
            client.write("INSERT")
            transaction.write("INSERT")  # 3, 4: commit
        assert client.positions == ["token-w", "token-3"]
        session.write("INSERT")  # 5
        assert client.positions == ["token-5"]
    brought = [list(one.positions) for one in servicer.asked if isinstance(one, session_pb2.SessionRequest)]
    assert brought == [[], [], [], [], ["token-w"]]


def test_the_tokens_that_a_session_is_opened_with_are_brought_once(broker: Any) -> None:
    servicer, client = broker
    client.write("INSERT")
    with client.session() as session:  # 1
        session.write("INSERT")  # 2
    opened, asked = servicer.asked[1:]
    assert (list(opened.open.context.positions), list(opened.positions)) == (["token-w"], [])
    assert list(asked.positions) == []
    assert client.positions == ["token-2"]


def test_names_that_do_not_exist_are_refused(broker: Any) -> None:
    _, client = broker
    with pytest.raises(ValueError, match="consistency"):
        client.read("SELECT 1", consistency="stronk")
    with pytest.raises(ValueError, match="isolation"):
        client.write("SELECT 1", isolation="none")
    with pytest.raises(TypeError):
        client.write(["SELECT $1"], [1])


def token(*positions: Tuple[str, int, int, int, Optional[int]]) -> str:
    """A token signed by nobody: clusters (of system identifier 7), timelines, LSNs, times, and since when primary-only."""
    data = b"\x01"
    for name, timeline, lsn, written, since in positions:
        data += struct.pack(">BQIQQ", since is not None, 7, timeline, lsn, written)
        data += b"" if since is None else struct.pack(">Q", since)
        data += bytes([len(name)]) + name.encode()
    return base64.urlsafe_b64encode(data + bytes(16)).rstrip(b"=").decode()


def test_the_form_of_a_token_is_the_brokers() -> None:
    # As the broker's own tests have it.
    text = "AQEAAAAAAAAABwAAAAIAAAAWs3TYSAAAAYvP5WgAAAABi8_laAAEbWFpbkRk3GmMZVkovmUlDrkwxCQ"
    assert _positions._demands(text) == {
        (b"main", 7, "point"): (2, 0x16_B374_D848),
        (b"main", 7, "written"): (1_700_000_000_000, 0),
        (b"main", 7, "primary only"): (1_700_000_000_000, 0),
    }
    assert token(("main", 2, 0x16_B374_D848, 1_700_000_000_000, 1_700_000_000_000))[:57] == text[:57]


def test_of_many_concurrent_answers_those_are_kept_that_stand_for_all() -> None:
    positions = Positions()
    for n in range(1000):
        lsn = n * 389 % 1000
        # Answered out of order; the position that was written last is not the highest.
        positions.answered([], token(("main", 1, lsn, 2000 if lsn == 500 else 1000, None)))
    needed = [token(("main", 1, 500, 2000, None)), token(("main", 1, 999, 1000, None))]
    assert sorted(positions.current()) == needed
    newer, primary_only, own = ("main", 2, 1, 3000, None), ("main", 1, 0, 0, 1), ("own", 1, 1, 1, None)
    assert Positions([*needed, token(newer)]).current() == [token(newer)]
    several = [token(primary_only), token(own), token(newer)]
    assert Positions([*several, *needed]).current() == several
    assert Positions([*several, token(newer, primary_only, own)]).current() == [token(newer, primary_only, own)]


def test_a_token_that_cannot_be_read_is_kept() -> None:
    high = token(("main", 9, 9, 9, None))
    for other in ["", "a token", "AgEA", "é", high[:-4]]:
        assert Positions([other, high]).current() == [other, high]
