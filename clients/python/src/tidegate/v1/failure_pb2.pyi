import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tidegate.v1 import context_pb2 as _context_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_NOT_EXECUTED: _ClassVar[Outcome]
    OUTCOME_ROLLED_BACK: _ClassVar[Outcome]
    OUTCOME_COMMITTED: _ClassVar[Outcome]
    OUTCOME_UNKNOWN: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_NOT_EXECUTED: Outcome
OUTCOME_ROLLED_BACK: Outcome
OUTCOME_COMMITTED: Outcome
OUTCOME_UNKNOWN: Outcome

class Failure(_message.Message):
    __slots__ = ("code", "message", "reason", "outcome", "retry_delay", "field", "statement_index", "postgres", "position", "receipt")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    outcome: Outcome
    retry_delay: _duration_pb2.Duration
    field: str
    statement_index: int
    postgres: PostgresError
    position: str
    receipt: _context_pb2.Receipt
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., field: _Optional[str] = ..., statement_index: _Optional[int] = ..., postgres: _Optional[_Union[PostgresError, _Mapping]] = ..., position: _Optional[str] = ..., receipt: _Optional[_Union[_context_pb2.Receipt, _Mapping]] = ...) -> None: ...

class PostgresError(_message.Message):
    __slots__ = ("sqlstate", "severity", "message", "detail", "hint", "position", "schema", "table", "column", "data_type", "constraint", "truncated", "context", "internal_query", "internal_position", "file", "line", "routine")
    SQLSTATE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_QUERY_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_POSITION_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    ROUTINE_FIELD_NUMBER: _ClassVar[int]
    sqlstate: str
    severity: str
    message: str
    detail: str
    hint: str
    position: int
    schema: str
    table: str
    column: str
    data_type: str
    constraint: str
    truncated: bool
    context: str
    internal_query: str
    internal_position: int
    file: str
    line: int
    routine: str
    def __init__(self, sqlstate: _Optional[str] = ..., severity: _Optional[str] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ..., position: _Optional[int] = ..., schema: _Optional[str] = ..., table: _Optional[str] = ..., column: _Optional[str] = ..., data_type: _Optional[str] = ..., constraint: _Optional[str] = ..., truncated: bool = ..., context: _Optional[str] = ..., internal_query: _Optional[str] = ..., internal_position: _Optional[int] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., routine: _Optional[str] = ...) -> None: ...
