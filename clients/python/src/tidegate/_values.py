"""Python values to parameters, and columns of results to Python values."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import json
import re
import uuid
from typing import Any, Callable, Dict, List, Optional, Sequence

from .v1 import values_pb2 as pb

_INT64 = range(-(2**63), 2**63)


class Json:
    """Marks a parameter as JSON where Python's type does not say so: `Json([1, 2])`. A dict needs no mark."""

    def __init__(self, value: Any) -> None:
        self.value = value


def encode(value: Any) -> pb.Value:
    """A parameter. A type without an exact counterpart travels as PostgreSQL's text form.

    Raises TypeError for a type that has none, ValueError for a nested list that is not rectangular.
    """
    if value is None:
        return pb.Value(null_value=pb.NULL_VALUE_UNSPECIFIED)
    if isinstance(value, bool):  # before int, whose subclass it is
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        return pb.Value(int64_value=value) if value in _INT64 else pb.Value(text_value=str(value))
    if isinstance(value, float):
        return pb.Value(double_value=value)
    if isinstance(value, str):
        return pb.Value(text_value=value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return pb.Value(bytes_value=bytes(value))
    if isinstance(value, (list, tuple)):
        return pb.Value(array_value=_encode_array(value))
    return pb.Value(text_value=_text(value))


def statement(sql: str, params: Optional[Sequence[Any]]) -> pb.Statement:
    """A statement with its parameters."""
    if isinstance(params, (str, bytes)):
        raise TypeError("params is a list of values, one for each of $1, $2, …")
    return pb.Statement(sql=sql, params=[encode(value) for value in params or ()])


def _text(value: Any) -> str:
    if isinstance(value, Json):
        return json.dumps(value.value)
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, _AS_STR):
        return str(value)
    raise TypeError(f"no SQL value for a Python {type(value).__name__}: pass its text form as a str")


_AS_STR = (
    decimal.Decimal,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


def _encode_array(value: Sequence[Any]) -> pb.ArrayValue:
    dimensions: List[int] = []
    elements: Sequence[Any] = value
    length = len(value)
    while length:
        dimensions.append(length)
        nested = [isinstance(element, (list, tuple)) for element in elements]
        if not any(nested):
            return pb.ArrayValue(elements=[encode(element) for element in elements], dimensions=dimensions)
        length = len(elements[nested.index(True)])
        if not all(nested) or any(len(element) != length for element in elements):
            raise ValueError("the lists of a nested list must all have the same length")
        elements = [inner for element in elements for inner in element]
    return pb.ArrayValue()  # PostgreSQL has one empty array


Convert = Callable[[Any], Any]

_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:([+-])(\d\d)(?::(\d\d))?)?")


def _timestamp(text: str) -> Any:
    """A timestamp with or without a zone; what Python's cannot hold (infinity, BC, year 10000) stays text."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return text
    *parts, fraction, sign, hours, minutes = match.groups()
    zone = None
    if sign:
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes or 0))
        zone = datetime.timezone(-offset if sign == "-" else offset) if offset else datetime.timezone.utc
    microsecond = int((fraction or "").ljust(6, "0"))
    try:
        year, month, day, hour, minute, second = map(int, parts)
        return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone)
    except ValueError:
        return text


def _date(text: str) -> Any:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return text


def _time(text: str) -> Any:
    whole, _, fraction = text.partition(".")
    try:
        time = datetime.time.fromisoformat(whole)
        return time.replace(microsecond=int(fraction.ljust(6, "0"))) if fraction else time
    except ValueError:  # 24:00:00
        return text


_BY_TYPE: Dict[str, Convert] = {
    "numeric": decimal.Decimal,
    "uuid": uuid.UUID,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "json": json.loads,
    "jsonb": json.loads,
}


def decode_column(column: pb.Column, values: pb.ColumnValues, row_count: int) -> Sequence[Any]:
    """One column of a batch as Python values, NULL as None. Raises ValueError if the batch contradicts itself."""
    kind = column.kind
    decoded: List[Any]
    if kind == pb.COLUMN_KIND_BOOL:
        decoded = list(values.bools)
    elif kind == pb.COLUMN_KIND_INT64:
        decoded = list(values.int64s)
    elif kind == pb.COLUMN_KIND_DOUBLE:
        decoded = list(values.doubles)
    elif kind == pb.COLUMN_KIND_TEXT:
        decoded = list(values.texts)
    elif kind in (pb.COLUMN_KIND_BYTES, pb.COLUMN_KIND_RAW):
        decoded = list(values.blobs)
    elif kind == pb.COLUMN_KIND_NESTED:
        decoded = list(values.nested)
    else:
        raise ValueError(f"column {column.name} is of an unknown kind")
    if len(decoded) != row_count:
        raise ValueError(f"column {column.name} has {len(decoded)} values in a batch of {row_count} rows")
    convert = _converter(column)
    nulls = values.nulls
    if not nulls:
        return decoded if convert is None else [convert(value) for value in decoded]
    if len(nulls) * 8 < row_count:
        raise ValueError(f"column {column.name}: its nulls are too short")
    if convert is None:
        return [None if nulls[i >> 3] >> (i & 7) & 1 else value for i, value in enumerate(decoded)]
    return [None if nulls[i >> 3] >> (i & 7) & 1 else convert(value) for i, value in enumerate(decoded)]


def _converter(column: pb.Column) -> Optional[Convert]:
    if column.kind == pb.COLUMN_KIND_TEXT:
        return _BY_TYPE.get(column.type_name)
    if column.kind == pb.COLUMN_KIND_NESTED:
        element = _BY_TYPE.get(column.type_name[1:]) if column.type_name.startswith("_") else None
        return lambda value: decode(value, element)
    return None


def decode(value: pb.Value, convert: Optional[Convert] = None) -> Any:
    """A nested value: arrays as lists, composite values as tuples. `convert` is for the texts of an array."""
    kind = value.WhichOneof("kind")
    if kind == "null_value":
        return None
    if kind == "text_value":
        return convert(value.text_value) if convert else value.text_value
    if kind == "array_value":
        array = value.array_value
        elements = [decode(element, convert) for element in array.elements]
        for length in reversed(array.dimensions[1:]):
            elements = [elements[i : i + length] for i in range(0, len(elements), length)]
        return elements
    if kind == "row_value":
        return tuple(decode(field) for field in value.row_value.fields)
    if kind is None:
        raise ValueError("a value is unset")
    return getattr(value, kind)
