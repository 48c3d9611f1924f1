"""Values, both ways."""

import datetime as dt
import decimal
import json
import uuid
from typing import Any

import pytest

from tidegate import Json
from tidegate import _values as values
from tidegate.v1 import values_pb2 as pb

UTC = dt.timezone.utc


@pytest.mark.parametrize(
    "value, kind, sent",
    [
        (None, "null_value", 0),
        (True, "bool_value", True),
        (-5, "int64_value", -5),
        (2**63 - 1, "int64_value", 2**63 - 1),
        (2**63, "text_value", "9223372036854775808"),
        (1.5, "double_value", 1.5),
        ("x", "text_value", "x"),
        (b"\x00", "bytes_value", b"\x00"),
        (bytearray(b"a"), "bytes_value", b"a"),
        (decimal.Decimal("1.10"), "text_value", "1.10"),
        (dt.date(2024, 2, 29), "text_value", "2024-02-29"),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 6, UTC), "text_value", "2024-01-02T03:04:05.000006+00:00"),
        (dt.timedelta(days=-1, seconds=2), "text_value", "-1 days 2 seconds 0 microseconds"),
        (uuid.UUID(int=1), "text_value", "00000000-0000-0000-0000-000000000001"),
        ({"a": [1]}, "text_value", '{"a": [1]}'),
        (Json([1, 2]), "text_value", "[1, 2]"),
    ],
)
def test_parameters(value: Any, kind: str, sent: Any) -> None:
    encoded = values.encode(value)
    assert encoded.WhichOneof("kind") == kind
    assert getattr(encoded, kind) == sent


def test_arrays_keep_their_dimensions() -> None:
    array = values.encode([[1, None, 3], (4, 5, 6)]).array_value
    assert list(array.dimensions) == [2, 3]
    assert values.decode(pb.Value(array_value=array)) == [[1, None, 3], [4, 5, 6]]
    empties: "list[Any]" = [[], [[], []]]
    for empty in empties:
        assert values.encode(empty) == pb.Value(array_value=pb.ArrayValue())
    assert values.encode([{"a": 1}]).array_value.elements[0].text_value == '{"a": 1}'


@pytest.mark.parametrize("ragged", [[[1], [2, 3]], [1, [2]], [[1], 2]])
def test_ragged_lists_are_refused(ragged: Any) -> None:
    with pytest.raises(ValueError):
        values.encode(ragged)


def test_what_has_no_sql_value_is_refused() -> None:
    with pytest.raises(TypeError):
        values.encode(object())
    with pytest.raises(TypeError):
        values.statement("SELECT $1", "abc")


def text_column(type_name: str, texts: "list[str]", nulls: bytes = b"") -> "list[Any]":
    column = pb.Column(name="c", kind=pb.COLUMN_KIND_TEXT, type_name=type_name)
    return list(values.decode_column(column, pb.ColumnValues(texts=texts, nulls=nulls), len(texts)))


@pytest.mark.parametrize(
    "type_name, text, value",
    [
        ("text", "1", "1"),
        ("numeric", "12345678901234567890.123", decimal.Decimal("12345678901234567890.123")),
        ("uuid", "00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
        ("date", "2024-02-29", dt.date(2024, 2, 29)),
        ("date", "infinity", "infinity"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("time", "01:02:03.5", dt.time(1, 2, 3, 500_000)),
        ("time", "24:00:00", "24:00:00"),
        ("timestamp", "2024-01-02 03:04:05", dt.datetime(2024, 1, 2, 3, 4, 5)),
        ("timestamp", "2024-01-02 03:04:05.12", dt.datetime(2024, 1, 2, 3, 4, 5, 120_000)),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamp", "10000-01-01 00:00:00", "10000-01-01 00:00:00"),
        ("timestamptz", "2024-01-02 03:04:05+00", dt.datetime(2024, 1, 2, 3, 4, 5, 0, UTC)),
        (
            "timestamptz",
            "2024-01-02 03:04:05-05:30",
            dt.datetime(2024, 1, 2, 3, 4, 5, 0, dt.timezone(-dt.timedelta(hours=5, minutes=30))),
        ),
        ("timestamptz", "0001-01-01 00:00:00+00 BC", "0001-01-01 00:00:00+00 BC"),
        ("interval", "1 mon", "1 mon"),
        ("jsonb", '{"a": 1}', {"a": 1}),
        ("json", "null", None),
    ],
)
def test_texts_by_type(type_name: str, text: str, value: Any) -> None:
    (decoded,) = text_column(type_name, [text])
    assert decoded == value
    assert type(decoded) is type(value)


def test_nulls_are_not_converted() -> None:
    assert text_column("numeric", ["1", "", "3"], nulls=b"\x02") == [1, None, 3]
    column = pb.Column(kind=pb.COLUMN_KIND_INT64)
    nulls = bytes([0, 0b10])
    decoded = values.decode_column(column, pb.ColumnValues(int64s=range(10), nulls=nulls), 10)
    assert decoded == [0, 1, 2, 3, 4, 5, 6, 7, 8, None]


def test_nested_columns() -> None:
    numbers = values.encode([decimal.Decimal("1.5"), None])
    row = pb.Value(row_value=pb.RowValue(fields=[values.encode(1), values.encode([True])]))
    column = pb.Column(kind=pb.COLUMN_KIND_NESTED, type_name="_numeric")
    decoded = values.decode_column(column, pb.ColumnValues(nested=[numbers, pb.Value()], nulls=b"\x02"), 2)
    assert decoded == [[decimal.Decimal("1.5"), None], None]
    column = pb.Column(kind=pb.COLUMN_KIND_NESTED, type_name="pair")
    assert values.decode_column(column, pb.ColumnValues(nested=[row]), 1) == [(1, [True])]


@pytest.mark.parametrize(
    "kind, column, rows",
    [
        (pb.COLUMN_KIND_UNSPECIFIED, pb.ColumnValues(), 0),
        (pb.COLUMN_KIND_INT64, pb.ColumnValues(int64s=[1]), 2),
        (pb.COLUMN_KIND_BOOL, pb.ColumnValues(bools=[True] * 9, nulls=b"\x01"), 9),
        (pb.COLUMN_KIND_NESTED, pb.ColumnValues(nested=[pb.Value()]), 1),
    ],
)
def test_batches_that_contradict_themselves_are_refused(kind: Any, column: pb.ColumnValues, rows: int) -> None:
    with pytest.raises(ValueError):
        values.decode_column(pb.Column(kind=kind), column, rows)


def test_json_round_trip() -> None:
    document = {"a": [1, 2.5, None, "x"]}
    assert text_column("jsonb", [values.encode(document).text_value]) == [json.loads(json.dumps(document))]
