"""The interactive session: one request at a time, each awaited; transactions as context managers."""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Any, Iterator, List, Optional, Sequence, Type

import grpc

from . import _errors, _options, _values
from ._positions import Positions, SessionPositions
from ._results import Assembly, Result, Rows, StatementResult
from .v1 import context_pb2, session_pb2


class Session:
    """An interactive session; from `Client.session`. One thread at a time may use it. Ending it rolls back what is open.

    `notices` collects what the broker says unasked, such as that it is shutting down.
    """

    def __init__(
        self,
        stub: Any,
        context: context_pb2.CallContext,
        timeout: Optional[float],
        max_message_bytes: int,
        positions: Positions,
    ) -> None:
        self._requests: queue.SimpleQueue[Optional[session_pb2.SessionRequest]] = queue.SimpleQueue()
        self._timeout = timeout
        self._max_message_bytes = max_message_bytes
        self._positions = positions
        self._brought = SessionPositions()
        self._brought.brings(1, context.positions)
        self._last_id = 0
        self._ended = False
        self.notices: List[session_pb2.SessionNotice] = []
        self._responses = stub.Session(iter(self._requests.get, None))
        try:
            opened = self._answer(self._send(0, open=session_pb2.SessionOpen(context=context)))
        except _errors.Error:
            self._abandon()
            raise
        if opened.WhichOneof("response") != "opened":
            self._abandon()
            raise _errors.broken("a session's first answer does not open it")
        self.opened: session_pb2.SessionOpened = opened.opened

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
        """Runs a read outside of a transaction and returns all its rows; as `Client.read`."""
        options = _options.read(consistency, max_staleness, max_wait, self._max_message_bytes)
        return self._read(0, sql, params, options, timeout)

    def write(
        self, sql: str, params: Optional[Sequence[Any]] = None, *, timeout: Optional[float] = None
    ) -> StatementResult:
        """Runs one statement on the primary, as a transaction of its own."""
        return self._write(0, sql, params, timeout)

    def begin(
        self, *, isolation: Optional[str] = None, read_only: bool = False, deferrable: bool = False
    ) -> Transaction:
        """Begins a transaction on the primary. In a `with`, it is committed at the end, or rolled back by an exception."""
        level = _options.isolation(isolation)
        begin = session_pb2.SessionBegin(isolation=level, read_only=read_only, deferrable=deferrable)
        transaction_id = self._send(0, begin=begin)
        self._answer(transaction_id)
        return Transaction(self, transaction_id)

    def close(self) -> None:
        """Ends the session, and waits until the broker has ended it too."""
        if self._ended:
            return
        self._ended = True
        self._requests.put(None)
        try:
            for _ in self._responses:
                pass
        except grpc.RpcError as rpc_error:
            raise _errors.from_rpc(rpc_error) from rpc_error

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        self._ended = True
        self._requests.put(None)
        self._responses.cancel()

    def _send(self, transaction_id: int, timeout: Optional[float] = None, **request: Any) -> int:
        if self._ended:
            raise _errors.Error(grpc.StatusCode.UNAVAILABLE, "the session has ended")
        # The first request brings the context's. Where a transaction runs was decided at its begin: a token that is refused
        # would only keep it from its end.
        bare = transaction_id or not self._last_id
        news = [] if bare else self._brought.missing(self._positions.current())
        self._last_id += 1
        self._brought.brings(self._last_id, news)
        timeout = self._timeout if timeout is None else timeout
        self._requests.put(
            session_pb2.SessionRequest(
                request_id=self._last_id,
                transaction_id=transaction_id,
                timeout=_options.duration(timeout),
                positions=news,
                **request,
            )
        )
        return self._last_id

    def _answers(self, request_id: int) -> Iterator[session_pb2.SessionResponse]:
        """The answers to a request, the last one last. What is left of earlier requests is passed over."""
        try:
            for response in self._responses:
                self._learn(response)
                if response.request_id == 0:
                    self.notices.append(response.notice)
                if response.request_id != request_id:
                    continue
                if response.WhichOneof("response") == "failure":
                    raise _errors.from_failure(response.failure)
                yield response
                if response.last:
                    return
        except grpc.RpcError as rpc_error:
            self._ended = True
            self._requests.put(None)
            error = _errors.from_rpc(rpc_error)
            self._positions.failed([], error.position)  # of what is on its way it may cover nothing
            raise error from rpc_error
        self._ended = True
        raise _errors.Error(grpc.StatusCode.UNAVAILABLE, "the session has ended")

    def _answer(self, request_id: int) -> session_pb2.SessionResponse:
        answers = list(self._answers(request_id))
        return answers[-1]

    def _learn(self, response: session_pb2.SessionResponse) -> None:
        token = response.position or response.failure.position or response.read.summary.position
        if token:
            self._positions.answered(self._brought.covered(response.request_id, token), token)
        elif response.WhichOneof("response") == "failure":
            # The broker's failures have a token whenever it has taken in any.
            self._brought.refused(response.request_id)
        else:
            self._brought.taken_in(response.request_id)

    def _read(
        self,
        transaction_id: int,
        sql: str,
        params: Optional[Sequence[Any]],
        options: context_pb2.ReadOptions,
        timeout: Optional[float],
    ) -> Result:
        read = session_pb2.SessionRead(statement=_values.statement(sql, params), options=options)
        assembly = Assembly()
        rows: Rows = []
        for response in self._answers(self._send(transaction_id, timeout, read=read)):
            if response.WhichOneof("response") != "read":
                raise _errors.broken("an answer of another kind than its request")
            rows.extend(assembly.accept(response.read))
        return assembly.finish(rows)

    def _write(
        self, transaction_id: int, sql: str, params: Optional[Sequence[Any]], timeout: Optional[float]
    ) -> StatementResult:
        write = session_pb2.SessionWrite(statement=_values.statement(sql, params))
        response = self._answer(self._send(transaction_id, timeout, write=write))
        if response.WhichOneof("response") != "write":
            raise _errors.broken("an answer of another kind than its request")
        return StatementResult(response.write)


class Transaction:
    """An open transaction of a session. After a failed statement only a rollback helps, as in PostgreSQL."""

    def __init__(self, session: Session, transaction_id: int) -> None:
        self._session = session
        self._id = transaction_id
        self._open = True

    def read(
        self, sql: str, params: Optional[Sequence[Any]] = None, *, timeout: Optional[float] = None
    ) -> Result:
        """Runs a read in the transaction, on the host where that is."""
        options = context_pb2.ReadOptions(max_message_bytes=self._session._max_message_bytes)
        return self._session._read(self._id, sql, params, options, timeout)

    def write(
        self, sql: str, params: Optional[Sequence[Any]] = None, *, timeout: Optional[float] = None
    ) -> StatementResult:
        """Runs a write in the transaction."""
        return self._session._write(self._id, sql, params, timeout)

    def commit(self) -> None:
        """Commits. Raises Error, whose `outcome` says what became of the transaction."""
        self._end(commit=session_pb2.SessionCommit())

    def rollback(self) -> None:
        """Rolls back."""
        self._end(rollback=session_pb2.SessionRollback())

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if not self._open:
            return
        if error is None:
            self.commit()
        elif not self._session._ended:
            self._roll_back_quietly()

    def _end(self, **request: Any) -> None:
        self._open = False
        try:
            self._session._answer(self._session._send(self._id, **request))
        except _errors.Error:
            if "commit" in request and not self._session._ended:
                self._roll_back_quietly()  # a failed commit may leave it open
            raise

    def _roll_back_quietly(self) -> None:
        """Rolls back; if that fails too, the error that led here is the one to report."""
        self._open = False
        try:
            self._session._answer(self._session._send(self._id, rollback=session_pb2.SessionRollback()))
        except _errors.Error:
            pass
