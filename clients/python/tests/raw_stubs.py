"""A client of nothing but what grpcio-tools makes of proto/, against a real broker: a large result, a session with
transactions, and failures. Run by the Rust integration tests: `raw_stubs.py HOST:PORT DATABASE`.
"""

from __future__ import annotations

import pathlib
import queue
import sys
import tempfile
from typing import Any, Iterator

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto"
ROWS = 200_000


def generate(into: str) -> None:
    """Stubs from the .proto files alone, as any caller would make them."""
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    names = [str(path.relative_to(PROTO)) for path in sorted(PROTO.glob("tidegate/v1/*.proto"))]
    arguments = [f"--proto_path={PROTO}", f"--proto_path={well_known}", f"--python_out={into}"]
    assert protoc.main(["protoc", *arguments, f"--grpc_python_out={into}", *names]) == 0, "protoc failed"


with tempfile.TemporaryDirectory() as scratch:
    generate(scratch)
    sys.path.insert(0, scratch)
    from tidegate.v1 import broker_pb2_grpc, context_pb2, execute_pb2, session_pb2, values_pb2

    assert str(broker_pb2_grpc.__file__).startswith(scratch), "these are not the stubs just made"


class Session:
    """The Session stream: a request is sent when its answer before has arrived."""

    def __init__(self, stub: Any, context: Any) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.answers = stub.Session(iter(self.requests.get, None), timeout=30)
        self.last_id = 0
        assert self.ask(open=session_pb2.SessionOpen(context=context)).opened.max_unanswered > 0

    def ask(self, transaction: int = 0, **request: Any) -> Any:
        """The last response to one request."""
        self.last_id += 1
        self.requests.put(session_pb2.SessionRequest(request_id=self.last_id, transaction_id=transaction, **request))
        for answer in self.answers:
            if answer.request_id == self.last_id and answer.last:
                return answer
        raise AssertionError("the session ended")

    def write(self, transaction: int, sql: str, *numbers: int) -> Any:
        return self.ask(transaction, write=session_pb2.SessionWrite(statement=statement(sql, *numbers)))

    def begin(self) -> int:
        assert self.ask(begin=session_pb2.SessionBegin()).HasField("done")
        return self.last_id

    def end(self) -> None:
        self.requests.put(None)
        assert list(self.answers) == [] and self.answers.code() == grpc.StatusCode.OK


def statement(sql: str, *numbers: int) -> Any:
    return values_pb2.Statement(sql=sql, params=[values_pb2.Value(int64_value=n) for n in numbers])


def read(stub: Any, context: Any, sql: str) -> Iterator[Any]:
    request = execute_pb2.ExecuteReadRequest(context=context, statement=statement(sql))
    return iter(stub.ExecuteRead(request, timeout=30))


def check_large_result(stub: Any, context: Any) -> None:
    messages = list(read(stub, context, f"SELECT g, repeat('x', 100) FROM generate_series(1, {ROWS}) AS g"))
    assert [column.type_name for column in messages[0].header.columns] == ["int4", "text"]
    assert not any(message.HasField("header") for message in messages[1:])
    assert not any(message.HasField("summary") for message in messages[:-1])
    assert len(messages) > 100, f"{len(messages)} messages: it did not travel in batches"
    numbers = [n for message in messages for n in message.rows.columns[0].int64s]
    assert numbers == list(range(1, ROWS + 1)) and messages[-1].summary.row_count == ROWS


def check_session(stub: Any, context: Any) -> None:
    session = Session(stub, context)
    transaction = session.begin()
    assert session.write(transaction, "INSERT INTO raw VALUES ($1)", 7).write.rows_affected == 1
    inside = session.ask(transaction, read=session_pb2.SessionRead(statement=statement("SELECT count(*) FROM raw")))
    assert inside.read.rows.columns[0].int64s == [1] and inside.read.HasField("summary")
    committed = session.ask(transaction, commit=session_pb2.SessionCommit())
    assert committed.HasField("done") and committed.position

    transaction = session.begin()
    failed = session.write(transaction, "INSERT INTO raw VALUES ($1)", 7).failure
    assert (failed.reason, failed.postgres.sqlstate) == ("POSTGRES_ERROR", "23505"), failed
    refused = session.ask(transaction, commit=session_pb2.SessionCommit()).failure
    assert refused.reason == "TRANSACTION_FAILED", refused
    assert session.ask(transaction, rollback=session_pb2.SessionRollback()).HasField("done")
    assert session.write(transaction, "INSERT INTO raw VALUES ($1)", 8).failure.reason == "TRANSACTION_NOT_OPEN"
    session.end()


def check_reads_its_write(stub: Any, context: Any) -> None:
    (message,) = read(stub, context, "SELECT id FROM raw")
    assert message.rows.columns[0].int64s == [7] and message.header.receipt.required_lsn


def check_refusal(stub: Any, context: Any) -> None:
    try:
        list(read(stub, context, "DELETE FROM raw"))
    except grpc.RpcError as error:
        details = {key: value for key, value in error.trailing_metadata()}["grpc-status-details-bin"]
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and b"WRITE_IN_READ" in details, error
    else:
        raise AssertionError("a read has written")


def main() -> None:
    target, database = sys.argv[1], sys.argv[2]
    context = context_pb2.CallContext(database=database, session_id="raw")
    with grpc.insecure_channel(target) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        table = execute_pb2.ExecuteWriteRequest(
            context=context, statements=[statement("CREATE TABLE raw (id int PRIMARY KEY)")]
        )
        assert stub.ExecuteWrite(table, timeout=30).receipt.role == context_pb2.HOST_ROLE_PRIMARY
        check_large_result(stub, context)
        check_session(stub, context)
        check_reads_its_write(stub, context)
        check_refusal(stub, context)
    print("raw stubs: all as promised")


if __name__ == "__main__":
    main()
