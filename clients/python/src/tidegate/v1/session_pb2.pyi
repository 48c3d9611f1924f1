import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tidegate.v1 import context_pb2 as _context_pb2
from tidegate.v1 import execute_pb2 as _execute_pb2
from tidegate.v1 import failure_pb2 as _failure_pb2
from tidegate.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_POSTGRES: _ClassVar[NoticeKind]
    NOTICE_KIND_DRAINING: _ClassVar[NoticeKind]
    NOTICE_KIND_TRANSACTION_LOST: _ClassVar[NoticeKind]
    NOTICE_KIND_CLOSING: _ClassVar[NoticeKind]
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_POSTGRES: NoticeKind
NOTICE_KIND_DRAINING: NoticeKind
NOTICE_KIND_TRANSACTION_LOST: NoticeKind
NOTICE_KIND_CLOSING: NoticeKind

class SessionRequest(_message.Message):
    __slots__ = ("request_id", "transaction_id", "timeout", "operation", "traceparent", "positions", "open", "read", "write", "begin", "commit", "rollback", "savepoint", "cancel", "copy_in", "copy_out", "copy_data", "copy_end")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    SAVEPOINT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    COPY_IN_FIELD_NUMBER: _ClassVar[int]
    COPY_OUT_FIELD_NUMBER: _ClassVar[int]
    COPY_DATA_FIELD_NUMBER: _ClassVar[int]
    COPY_END_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    transaction_id: int
    timeout: _duration_pb2.Duration
    operation: str
    traceparent: str
    positions: _containers.RepeatedScalarFieldContainer[str]
    open: SessionOpen
    read: SessionRead
    write: SessionWrite
    begin: SessionBegin
    commit: SessionCommit
    rollback: SessionRollback
    savepoint: SessionSavepoint
    cancel: SessionCancel
    copy_in: SessionCopy
    copy_out: SessionCopy
    copy_data: CopyData
    copy_end: CopyEnd
    def __init__(self, request_id: _Optional[int] = ..., transaction_id: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., operation: _Optional[str] = ..., traceparent: _Optional[str] = ..., positions: _Optional[_Iterable[str]] = ..., open: _Optional[_Union[SessionOpen, _Mapping]] = ..., read: _Optional[_Union[SessionRead, _Mapping]] = ..., write: _Optional[_Union[SessionWrite, _Mapping]] = ..., begin: _Optional[_Union[SessionBegin, _Mapping]] = ..., commit: _Optional[_Union[SessionCommit, _Mapping]] = ..., rollback: _Optional[_Union[SessionRollback, _Mapping]] = ..., savepoint: _Optional[_Union[SessionSavepoint, _Mapping]] = ..., cancel: _Optional[_Union[SessionCancel, _Mapping]] = ..., copy_in: _Optional[_Union[SessionCopy, _Mapping]] = ..., copy_out: _Optional[_Union[SessionCopy, _Mapping]] = ..., copy_data: _Optional[_Union[CopyData, _Mapping]] = ..., copy_end: _Optional[_Union[CopyEnd, _Mapping]] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _context_pb2.CallContext
    def __init__(self, context: _Optional[_Union[_context_pb2.CallContext, _Mapping]] = ...) -> None: ...

class SessionRead(_message.Message):
    __slots__ = ("statement", "options")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    statement: _values_pb2.Statement
    options: _context_pb2.ReadOptions
    def __init__(self, statement: _Optional[_Union[_values_pb2.Statement, _Mapping]] = ..., options: _Optional[_Union[_context_pb2.ReadOptions, _Mapping]] = ...) -> None: ...

class SessionWrite(_message.Message):
    __slots__ = ("statement", "idempotency_key")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    statement: _values_pb2.Statement
    idempotency_key: str
    def __init__(self, statement: _Optional[_Union[_values_pb2.Statement, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SessionBegin(_message.Message):
    __slots__ = ("isolation", "read_only", "deferrable", "idempotency_key", "options")
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    DEFERRABLE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    isolation: _context_pb2.Isolation
    read_only: bool
    deferrable: bool
    idempotency_key: str
    options: _context_pb2.ReadOptions
    def __init__(self, isolation: _Optional[_Union[_context_pb2.Isolation, str]] = ..., read_only: bool = ..., deferrable: bool = ..., idempotency_key: _Optional[str] = ..., options: _Optional[_Union[_context_pb2.ReadOptions, _Mapping]] = ...) -> None: ...

class SessionCommit(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionRollback(_message.Message):
    __slots__ = ("to_savepoint",)
    TO_SAVEPOINT_FIELD_NUMBER: _ClassVar[int]
    to_savepoint: str
    def __init__(self, to_savepoint: _Optional[str] = ...) -> None: ...

class SessionSavepoint(_message.Message):
    __slots__ = ("name", "release")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    name: str
    release: bool
    def __init__(self, name: _Optional[str] = ..., release: bool = ...) -> None: ...

class SessionCancel(_message.Message):
    __slots__ = ("target_request_id",)
    TARGET_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    target_request_id: int
    def __init__(self, target_request_id: _Optional[int] = ...) -> None: ...

class SessionCopy(_message.Message):
    __slots__ = ("sql",)
    SQL_FIELD_NUMBER: _ClassVar[int]
    sql: str
    def __init__(self, sql: _Optional[str] = ...) -> None: ...

class CopyData(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class CopyEnd(_message.Message):
    __slots__ = ("abort_reason",)
    ABORT_REASON_FIELD_NUMBER: _ClassVar[int]
    abort_reason: str
    def __init__(self, abort_reason: _Optional[str] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("request_id", "last", "position", "receipt", "failure", "opened", "read", "write", "done", "copy_data", "notice")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    COPY_DATA_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    last: bool
    position: str
    receipt: _context_pb2.Receipt
    failure: _failure_pb2.Failure
    opened: SessionOpened
    read: _execute_pb2.ExecuteReadResponse
    write: _execute_pb2.StatementResult
    done: SessionDone
    copy_data: CopyData
    notice: SessionNotice
    def __init__(self, request_id: _Optional[int] = ..., last: bool = ..., position: _Optional[str] = ..., receipt: _Optional[_Union[_context_pb2.Receipt, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., read: _Optional[_Union[_execute_pb2.ExecuteReadResponse, _Mapping]] = ..., write: _Optional[_Union[_execute_pb2.StatementResult, _Mapping]] = ..., done: _Optional[_Union[SessionDone, _Mapping]] = ..., copy_data: _Optional[_Union[CopyData, _Mapping]] = ..., notice: _Optional[_Union[SessionNotice, _Mapping]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("max_unanswered", "transaction_idle_timeout", "max_lifetime")
    MAX_UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    max_unanswered: int
    transaction_idle_timeout: _duration_pb2.Duration
    max_lifetime: _duration_pb2.Duration
    def __init__(self, max_unanswered: _Optional[int] = ..., transaction_idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_lifetime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionDone(_message.Message):
    __slots__ = ("rows_affected", "replayed")
    ROWS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    rows_affected: int
    replayed: bool
    def __init__(self, rows_affected: _Optional[int] = ..., replayed: bool = ...) -> None: ...

class SessionNotice(_message.Message):
    __slots__ = ("kind", "message", "postgres", "closes_in")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_FIELD_NUMBER: _ClassVar[int]
    CLOSES_IN_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    message: str
    postgres: _failure_pb2.PostgresError
    closes_in: _duration_pb2.Duration
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., message: _Optional[str] = ..., postgres: _Optional[_Union[_failure_pb2.PostgresError, _Mapping]] = ..., closes_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
