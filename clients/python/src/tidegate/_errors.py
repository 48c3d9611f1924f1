"""What can go wrong with a call, and the broker's own account of it out of grpc-status-details-bin."""

from __future__ import annotations

import enum
from typing import Any, Mapping, Optional

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

from .v1 import failure_pb2
from .v1.context_pb2 import Receipt

POSITION_TRAILER = "tidegate-position"
_DETAILS_TRAILER = "grpc-status-details-bin"


class Outcome(enum.IntEnum):
    """What became of the work that failed."""

    NOT_EXECUTED = failure_pb2.OUTCOME_NOT_EXECUTED
    ROLLED_BACK = failure_pb2.OUTCOME_ROLLED_BACK
    COMMITTED = failure_pb2.OUTCOME_COMMITTED
    UNKNOWN = failure_pb2.OUTCOME_UNKNOWN


class Error(Exception):
    """A call failed.

    `code` is a grpc.StatusCode; `reason` is stable and for programs ("" where the broker gave none); `outcome` says what
    became of the work; `retry_delay` is in seconds, None where a retry as such does not help.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, failure: Optional[failure_pb2.Failure] = None, position: str = ""
    ) -> None:
        failure = failure or failure_pb2.Failure()
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason: str = failure.reason
        self.outcome = _OUTCOMES.get(int(failure.outcome), Outcome.UNKNOWN)
        self.field: str = failure.field
        self.statement_index: Optional[int] = (
            failure.statement_index if failure.HasField("statement_index") else None
        )
        self.retry_delay: Optional[float] = (
            failure.retry_delay.ToTimedelta().total_seconds() if failure.HasField("retry_delay") else None
        )
        self.postgres: Optional[failure_pb2.PostgresError] = failure.postgres if failure.HasField("postgres") else None
        self.position: str = position or failure.position
        self.receipt: Optional[Receipt] = failure.receipt if failure.HasField("receipt") else None

    @property
    def sqlstate(self) -> Optional[str]:
        """PostgreSQL's SQLSTATE, where the failure is PostgreSQL's."""
        return self.postgres.sqlstate if self.postgres else None

    def __str__(self) -> str:
        known = [self.reason or self.code.name, f"outcome {self.outcome.name}"]
        if self.sqlstate:
            known.append(f"SQLSTATE {self.sqlstate}")
        return f"{self.message} ({', '.join(known)})"


class CutError(Error):
    """A result ended before its summary: the rows that arrived are not all."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.DATA_LOSS, "the result was cut: it ended without its summary")


_OUTCOMES: Mapping[int, Outcome] = {int(outcome): outcome for outcome in Outcome}
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def broken(message: str) -> Error:
    """The broker sent what its API does not allow."""
    return Error(grpc.StatusCode.INTERNAL, f"the broker broke its protocol: {message}")


def from_failure(failure: failure_pb2.Failure) -> Error:
    """A failure that came as a message of a session."""
    return Error(_CODES.get(failure.code, grpc.StatusCode.UNKNOWN), failure.message, failure)


def from_rpc(error: grpc.RpcError) -> Error:
    """A failure that came as the status of a call."""
    trailers = dict(error.trailing_metadata() or ())
    position = trailers.get(POSITION_TRAILER, "")
    return Error(error.code(), error.details() or "", _failure(trailers.get(_DETAILS_TRAILER)), position)


def _failure(details: Optional[bytes]) -> Optional[failure_pb2.Failure]:
    if not details:
        return None
    try:
        for packed in _Status.FromString(details).details:
            any_message = any_pb2.Any.FromString(packed)
            if any_message.type_url.endswith("/tidegate.v1.Failure"):
                return failure_pb2.Failure.FromString(any_message.value)
    except Exception:  # protobuf's DecodeError has moved between its versions; a proxy may have sent anything
        return None
    return None


def _status_class() -> Any:
    """google.rpc.Status, in a pool of its own: the real one belongs to a package that applications may also have."""
    file = descriptor_pb2.FileDescriptorProto(name="tidegate_status.proto", package="tidegate.local", syntax="proto3")
    message = file.message_type.add(name="Status")
    message.field.add(
        name="details",
        number=3,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,  # of google.protobuf.Any
        label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tidegate.local.Status"))


_Status = _status_class()
