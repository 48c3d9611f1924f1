"""The Python client of the Tidegate broker: thin over the generated stubs, which are in `tidegate.v1`."""

from ._client import Client, Stream, connect
from ._errors import CutError, Error, Outcome
from ._results import Column, Result, StatementResult, WriteResult
from ._session import Session, Transaction
from ._values import Json
from .v1.context_pb2 import Receipt

__all__ = [
    "Client",
    "Column",
    "CutError",
    "Error",
    "Json",
    "Outcome",
    "Receipt",
    "Result",
    "Session",
    "StatementResult",
    "Stream",
    "Transaction",
    "WriteResult",
    "connect",
]
