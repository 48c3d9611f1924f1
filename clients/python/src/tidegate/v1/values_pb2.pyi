from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NullValue(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NULL_VALUE_UNSPECIFIED: _ClassVar[NullValue]

class ColumnKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLUMN_KIND_UNSPECIFIED: _ClassVar[ColumnKind]
    COLUMN_KIND_BOOL: _ClassVar[ColumnKind]
    COLUMN_KIND_INT64: _ClassVar[ColumnKind]
    COLUMN_KIND_DOUBLE: _ClassVar[ColumnKind]
    COLUMN_KIND_TEXT: _ClassVar[ColumnKind]
    COLUMN_KIND_BYTES: _ClassVar[ColumnKind]
    COLUMN_KIND_NESTED: _ClassVar[ColumnKind]
    COLUMN_KIND_RAW: _ClassVar[ColumnKind]
NULL_VALUE_UNSPECIFIED: NullValue
COLUMN_KIND_UNSPECIFIED: ColumnKind
COLUMN_KIND_BOOL: ColumnKind
COLUMN_KIND_INT64: ColumnKind
COLUMN_KIND_DOUBLE: ColumnKind
COLUMN_KIND_TEXT: ColumnKind
COLUMN_KIND_BYTES: ColumnKind
COLUMN_KIND_NESTED: ColumnKind
COLUMN_KIND_RAW: ColumnKind

class Value(_message.Message):
    __slots__ = ("null_value", "bool_value", "int64_value", "double_value", "text_value", "bytes_value", "array_value", "row_value")
    NULL_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    TEXT_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    ARRAY_VALUE_FIELD_NUMBER: _ClassVar[int]
    ROW_VALUE_FIELD_NUMBER: _ClassVar[int]
    null_value: NullValue
    bool_value: bool
    int64_value: int
    double_value: float
    text_value: str
    bytes_value: bytes
    array_value: ArrayValue
    row_value: RowValue
    def __init__(self, null_value: _Optional[_Union[NullValue, str]] = ..., bool_value: bool = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., text_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ..., array_value: _Optional[_Union[ArrayValue, _Mapping]] = ..., row_value: _Optional[_Union[RowValue, _Mapping]] = ...) -> None: ...

class ArrayValue(_message.Message):
    __slots__ = ("elements", "dimensions", "lower_bounds")
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    LOWER_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    elements: _containers.RepeatedCompositeFieldContainer[Value]
    dimensions: _containers.RepeatedScalarFieldContainer[int]
    lower_bounds: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, elements: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., dimensions: _Optional[_Iterable[int]] = ..., lower_bounds: _Optional[_Iterable[int]] = ...) -> None: ...

class RowValue(_message.Message):
    __slots__ = ("fields",)
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, fields: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("sql", "params")
    SQL_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    sql: str
    params: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, sql: _Optional[str] = ..., params: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "kind", "type_oid", "type_name", "type_modifier")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TYPE_OID_FIELD_NUMBER: _ClassVar[int]
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_MODIFIER_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ColumnKind
    type_oid: int
    type_name: str
    type_modifier: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ColumnKind, str]] = ..., type_oid: _Optional[int] = ..., type_name: _Optional[str] = ..., type_modifier: _Optional[int] = ...) -> None: ...

class RowBatch(_message.Message):
    __slots__ = ("row_count", "columns")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    columns: _containers.RepeatedCompositeFieldContainer[ColumnValues]
    def __init__(self, row_count: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[ColumnValues, _Mapping]]] = ...) -> None: ...

class ColumnValues(_message.Message):
    __slots__ = ("nulls", "bools", "int64s", "doubles", "texts", "blobs", "nested")
    NULLS_FIELD_NUMBER: _ClassVar[int]
    BOOLS_FIELD_NUMBER: _ClassVar[int]
    INT64S_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    NESTED_FIELD_NUMBER: _ClassVar[int]
    nulls: bytes
    bools: _containers.RepeatedScalarFieldContainer[bool]
    int64s: _containers.RepeatedScalarFieldContainer[int]
    doubles: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    blobs: _containers.RepeatedScalarFieldContainer[bytes]
    nested: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, nulls: _Optional[bytes] = ..., bools: _Optional[_Iterable[bool]] = ..., int64s: _Optional[_Iterable[int]] = ..., doubles: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., blobs: _Optional[_Iterable[bytes]] = ..., nested: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...
