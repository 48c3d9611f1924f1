"""Results: columns off the wire, turned into rows a batch at a time."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import _values
from ._errors import CutError, broken
from .v1 import execute_pb2, values_pb2
from .v1.context_pb2 import Receipt

Rows = List[Tuple[Any, ...]]


class Column(NamedTuple):
    """One column of a result."""

    name: str
    type_name: str
    type_oid: int
    type_modifier: int


def rows_of(columns: Sequence[values_pb2.Column], batch: values_pb2.RowBatch) -> Rows:
    """The rows of a batch, as tuples."""
    if len(columns) != len(batch.columns):
        raise broken("a batch has another number of columns than its header")
    try:
        decoded = [_values.decode_column(c, v, batch.row_count) for c, v in zip(columns, batch.columns)]
    except ValueError as error:
        raise broken(str(error)) from error
    return list(zip(*decoded)) if decoded else [()] * batch.row_count


def public_columns(columns: Sequence[values_pb2.Column]) -> List[Column]:
    return [Column(c.name, c.type_name, c.type_oid, c.type_modifier) for c in columns]


class Assembly:
    """Puts a result together from its messages, and holds them to the order that the API promises."""

    def __init__(self) -> None:
        self.header: Optional[execute_pb2.ReadHeader] = None
        self.summary: Optional[execute_pb2.ReadSummary] = None
        self.seen = 0

    def accept(self, message: execute_pb2.ExecuteReadResponse) -> Rows:
        """Takes the next message; returns its rows."""
        if self.summary is not None:
            raise broken("a result goes on after its summary")
        if message.HasField("header"):
            if self.header is not None:
                raise broken("a result has two headers")
            self.header = message.header
        if self.header is None:
            raise broken("a result begins without its header")
        rows = rows_of(self.header.columns, message.rows) if message.HasField("rows") else []
        self.seen += len(rows)
        if message.HasField("summary"):
            if message.summary.row_count != self.seen:
                raise broken("a result has another number of rows than its summary says")
            self.summary = message.summary
        return rows

    def finish(self, rows: Rows) -> Result:
        """The whole result."""
        if self.header is None or self.summary is None:
            raise CutError()
        columns = public_columns(self.header.columns)
        return Result(columns, rows, self.header.receipt, self.summary.position)


class Result:
    """The rows of a read: tuples, in `rows` and by iteration; `dicts()` has them by column name."""

    def __init__(self, columns: List[Column], rows: Rows, receipt: Receipt, position: str) -> None:
        self.columns = columns
        self.rows = rows
        self.receipt = receipt
        self.position = position

    def __iter__(self) -> Iterator[Tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def dicts(self) -> List[Dict[str, Any]]:
        """The rows as dicts. Of columns with the same name, the last one is kept."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row)) for row in self.rows]

    def one(self) -> Tuple[Any, ...]:
        """The only row. Raises ValueError if there is none, or more."""
        if len(self.rows) != 1:
            raise ValueError(f"expected one row, got {len(self.rows)}")
        return self.rows[0]

    def value(self) -> Any:
        """The first value of the only row."""
        return self.one()[0]


class StatementResult:
    """What one statement did: `rows_affected`, and the `rows` that it returned, as by RETURNING."""

    def __init__(self, result: execute_pb2.StatementResult) -> None:
        self.rows_affected: int = result.rows_affected
        self.columns = public_columns(result.columns)
        self.rows: Rows = rows_of(result.columns, result.rows) if result.HasField("rows") else []

    def dicts(self) -> List[Dict[str, Any]]:
        """The rows as dicts. Of columns with the same name, the last one is kept."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row)) for row in self.rows]


class WriteResult:
    """A committed transaction: one entry of `results` a statement."""

    def __init__(self, response: execute_pb2.ExecuteWriteResponse) -> None:
        self.results = [StatementResult(result) for result in response.results]
        self.receipt: Receipt = response.receipt
        self.position: str = response.position
        self.replayed: bool = response.replayed
        """Whether these are the stored results of a transaction committed before with the same idempotency key."""

    @property
    def rows_affected(self) -> int:
        """How many rows all statements affected."""
        return sum(result.rows_affected for result in self.results)

    @property
    def rows(self) -> Rows:
        """The rows that the last statement returned."""
        return self.results[-1].rows if self.results else []
