"""The client: one channel to a broker, and the context that every call carries."""

from __future__ import annotations

import importlib.resources
from types import TracebackType
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple, Type, Union

import grpc

from . import _errors, _options, _values
from ._positions import Positions
from ._results import Assembly, Column, Result, Rows, WriteResult, public_columns
from ._session import Session
from .v1 import broker_pb2_grpc, context_pb2, execute_pb2

Statement = Union[str, Tuple[str, Sequence[Any]]]


def connect(
    target: str,
    *,
    database: str = "",
    session_id: str = "",
    timeout: Optional[float] = None,
    max_message_bytes: int = 16 * 1024 * 1024,
    positions: Iterable[str] = (),
    remember_positions: bool = True,
    retry_reads: bool = True,
    credentials: Optional[grpc.ChannelCredentials] = None,
) -> Client:
    """A client of the broker at `target`, such as "127.0.0.1:7432". It connects with its first call.

    `session_id`: the session whose writes are seen. `timeout`: seconds a call may take; None: the broker's default.
    `positions`: tokens to begin with, as another service handed them over. `retry_reads`: whether gRPC sends a read again
    that was UNAVAILABLE before its first row, three times at most; writes and sessions are never repeated behind the
    caller's back. `credentials`: for TLS.
    """
    target = target[len("http://") :] if target.startswith("http://") else target
    options: List[Tuple[str, Union[int, str]]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 20_000),  # a broker that died silently is noticed
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if retry_reads:
        options.append(("grpc.service_config", _service_config()))
    else:
        options.append(("grpc.enable_retries", 0))
    if credentials is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, credentials, options)
    context = context_pb2.CallContext(database=database, session_id=session_id)
    return Client(channel, context, timeout, max_message_bytes, Positions(positions, remember_positions))


def _service_config() -> str:
    """What may be repeated, in gRPC's terms: a copy of clients/service_config.json."""
    return importlib.resources.files(__package__).joinpath("service_config.json").read_text(encoding="utf-8")


class Client:
    """A client of a broker. Made by `connect`; may be used by several threads.

    It remembers the position token of each answer and carries it to its next calls, so a read sees the writes that this
    client made before. For callers that must not see each other's positions use `for_session`. No write is retried.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        context: context_pb2.CallContext,
        timeout: Optional[float],
        max_message_bytes: int,
        positions: Positions,
    ) -> None:
        self._channel = channel
        self._stub = broker_pb2_grpc.BrokerServiceStub(channel)
        self._context = context
        self._timeout = timeout
        self._max_message_bytes = max_message_bytes
        self._positions = positions

    @property
    def positions(self) -> List[str]:
        """The tokens that the next call will carry: usually one, after concurrent calls three at most for each cluster.
        Whoever must see what this client has seen takes all of them."""
        return self._positions.current()

    def for_session(self, session_id: str, positions: Iterable[str] = ()) -> Client:
        """The same channel for another session, with these positions only."""
        context = context_pb2.CallContext(database=self._context.database, session_id=session_id)
        memory = Positions(positions, self._positions.remember)
        return Client(self._channel, context, self._timeout, self._max_message_bytes, memory)

    def read(
        self,
        sql: str,
        params: Optional[Sequence[Any]] = None,
        *,
        consistency: Optional[str] = None,
        max_staleness: Optional[float] = None,
        max_wait: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> Result:
        """Runs one read and returns all its rows.

        `consistency`: "session" (the default), "causal", "bounded", "eventual" or "strong"; `max_staleness`, in seconds,
        means "bounded". `max_wait`, in seconds: how long to wait for a replica to catch up before the primary is asked.
        Raises Error.
        """
        with self.stream(
            sql, params, consistency=consistency, max_staleness=max_staleness, max_wait=max_wait, timeout=timeout
        ) as stream:
            rows: Rows = []
            for batch in stream.batches():
                rows.extend(batch)
            return stream._assembly.finish(rows)

    def stream(
        self,
        sql: str,
        params: Optional[Sequence[Any]] = None,
        *,
        consistency: Optional[str] = None,
        max_staleness: Optional[float] = None,
        max_wait: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> Stream:
        """Runs one read and returns its rows as they arrive. Use it in a `with`, which cancels what is not read."""
        request = execute_pb2.ExecuteReadRequest(
            context=self._context_now(),
            statement=_values.statement(sql, params),
            options=_options.read(consistency, max_staleness, max_wait, self._max_message_bytes),
        )
        call = self._stub.ExecuteRead(request, timeout=self._timeout if timeout is None else timeout)
        return Stream(call, self._positions, list(request.context.positions))

    def write(
        self,
        statements: Union[str, Sequence[Statement]],
        params: Optional[Sequence[Any]] = None,
        *,
        isolation: Optional[str] = None,
        outside_transaction: bool = False,
        idempotency_key: str = "",
        timeout: Optional[float] = None,
    ) -> WriteResult:
        """Runs statements on the primary, as one transaction: `write(sql, params)`, or `write([(sql, params), sql, …])`.

        `isolation`: "read committed", "repeatable read" or "serializable". `outside_transaction`: for VACUUM and its like,
        alone. `idempotency_key`: makes it safe to repeat; a key of its own for each write, the same for its repetitions,
        which answer the first one's results (`replayed`). Raises Error, whose `outcome` says what became of it.
        """
        if isinstance(statements, str):
            statements = [(statements, params or ())]
        elif params is not None:
            raise TypeError("with several statements, each has its own parameters: [(sql, params), …]")
        pairs = [(one, ()) if isinstance(one, str) else one for one in statements]
        request = execute_pb2.ExecuteWriteRequest(
            context=self._context_now(),
            statements=[_values.statement(sql, values) for sql, values in pairs],
            isolation=_options.isolation(isolation),
            outside_transaction=outside_transaction,
            idempotency_key=idempotency_key,
        )
        sent = list(request.context.positions)
        try:
            response = self._stub.ExecuteWrite(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as rpc_error:
            error = _errors.from_rpc(rpc_error)
            self._positions.failed(sent, error.position)
            raise error from rpc_error
        self._positions.answered(sent, response.position)
        return WriteResult(response)

    def session(self) -> Session:
        """Opens an interactive session, for transactions. Use it in a `with`, which ends it."""
        return Session(self._stub, self._context_now(), self._timeout, self._max_message_bytes, self._positions)

    def close(self) -> None:
        """Closes the channel, for the clients made by `for_session` too."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _context_now(self) -> context_pb2.CallContext:
        context = context_pb2.CallContext()
        context.CopyFrom(self._context)
        context.positions.extend(self._positions.current())
        return context


class Stream:
    """The rows of a read, as they arrive: tuples by iteration, lists of them by `batches()`.

    `columns`, `receipt` and `position` are known once the first, and for `position` the last, batch has been taken.
    """

    def __init__(self, call: Any, positions: Positions, sent: Sequence[str]) -> None:
        self._call = call
        self._assembly = Assembly()
        self._positions = positions
        self._sent = sent

    @property
    def columns(self) -> List[Column]:
        return public_columns(self._assembly.header.columns) if self._assembly.header else []

    @property
    def receipt(self) -> Optional[context_pb2.Receipt]:
        return self._assembly.header.receipt if self._assembly.header else None

    @property
    def position(self) -> str:
        return self._assembly.summary.position if self._assembly.summary else ""

    def batches(self) -> Iterator[Rows]:
        """The rows in the lists in which they arrive. Raises Error; CutError if the result ended early."""
        try:
            for message in self._call:
                rows = self._assembly.accept(message)
                if rows:
                    yield rows
        except grpc.RpcError as rpc_error:
            error = _errors.from_rpc(rpc_error)
            self._positions.failed(self._sent, error.position)
            raise error from rpc_error
        if self._assembly.summary is None:
            raise _errors.CutError()
        self._positions.answered(self._sent, self._assembly.summary.position)

    def __iter__(self) -> Iterator[Tuple[Any, ...]]:
        for batch in self.batches():
            yield from batch

    def close(self) -> None:
        """Cancels what has not been read."""
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
