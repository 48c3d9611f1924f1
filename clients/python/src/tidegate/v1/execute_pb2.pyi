from tidegate.v1 import context_pb2 as _context_pb2
from tidegate.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecuteReadRequest(_message.Message):
    __slots__ = ("context", "statement", "options")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    context: _context_pb2.CallContext
    statement: _values_pb2.Statement
    options: _context_pb2.ReadOptions
    def __init__(self, context: _Optional[_Union[_context_pb2.CallContext, _Mapping]] = ..., statement: _Optional[_Union[_values_pb2.Statement, _Mapping]] = ..., options: _Optional[_Union[_context_pb2.ReadOptions, _Mapping]] = ...) -> None: ...

class ReadHeader(_message.Message):
    __slots__ = ("columns", "receipt")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[_values_pb2.Column]
    receipt: _context_pb2.Receipt
    def __init__(self, columns: _Optional[_Iterable[_Union[_values_pb2.Column, _Mapping]]] = ..., receipt: _Optional[_Union[_context_pb2.Receipt, _Mapping]] = ...) -> None: ...

class ReadSummary(_message.Message):
    __slots__ = ("row_count", "position")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    position: str
    def __init__(self, row_count: _Optional[int] = ..., position: _Optional[str] = ...) -> None: ...

class ExecuteReadResponse(_message.Message):
    __slots__ = ("header", "rows", "summary")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    header: ReadHeader
    rows: _values_pb2.RowBatch
    summary: ReadSummary
    def __init__(self, header: _Optional[_Union[ReadHeader, _Mapping]] = ..., rows: _Optional[_Union[_values_pb2.RowBatch, _Mapping]] = ..., summary: _Optional[_Union[ReadSummary, _Mapping]] = ...) -> None: ...

class ExecuteWriteRequest(_message.Message):
    __slots__ = ("context", "statements", "isolation", "idempotency_key", "outside_transaction")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    context: _context_pb2.CallContext
    statements: _containers.RepeatedCompositeFieldContainer[_values_pb2.Statement]
    isolation: _context_pb2.Isolation
    idempotency_key: str
    outside_transaction: bool
    def __init__(self, context: _Optional[_Union[_context_pb2.CallContext, _Mapping]] = ..., statements: _Optional[_Iterable[_Union[_values_pb2.Statement, _Mapping]]] = ..., isolation: _Optional[_Union[_context_pb2.Isolation, str]] = ..., idempotency_key: _Optional[str] = ..., outside_transaction: bool = ...) -> None: ...

class StatementResult(_message.Message):
    __slots__ = ("rows_affected", "columns", "rows")
    ROWS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows_affected: int
    columns: _containers.RepeatedCompositeFieldContainer[_values_pb2.Column]
    rows: _values_pb2.RowBatch
    def __init__(self, rows_affected: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[_values_pb2.Column, _Mapping]]] = ..., rows: _Optional[_Union[_values_pb2.RowBatch, _Mapping]] = ...) -> None: ...

class ExecuteWriteResponse(_message.Message):
    __slots__ = ("results", "receipt", "position", "replayed")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StatementResult]
    receipt: _context_pb2.Receipt
    position: str
    replayed: bool
    def __init__(self, results: _Optional[_Iterable[_Union[StatementResult, _Mapping]]] = ..., receipt: _Optional[_Union[_context_pb2.Receipt, _Mapping]] = ..., position: _Optional[str] = ..., replayed: bool = ...) -> None: ...
