"""The options of calls, from Python's forms of them to the wire's."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from google.protobuf import duration_pb2

from .v1 import context_pb2

_CONSISTENCY = {
    None: context_pb2.CONSISTENCY_UNSPECIFIED,
    "session": context_pb2.CONSISTENCY_SESSION,
    "causal": context_pb2.CONSISTENCY_CAUSAL,
    "bounded": context_pb2.CONSISTENCY_BOUNDED,
    "eventual": context_pb2.CONSISTENCY_EVENTUAL,
    "strong": context_pb2.CONSISTENCY_STRONG,
}
_ISOLATION = {
    None: context_pb2.ISOLATION_UNSPECIFIED,
    "read committed": context_pb2.ISOLATION_READ_COMMITTED,
    "repeatable read": context_pb2.ISOLATION_REPEATABLE_READ,
    "serializable": context_pb2.ISOLATION_SERIALIZABLE,
}


def read(
    consistency: Optional[str],
    max_staleness: Optional[float],
    max_wait: Optional[float],
    max_message_bytes: int,
) -> context_pb2.ReadOptions:
    """The options of a read, from Python's forms of them."""
    if max_staleness is not None and consistency is None:
        consistency = "bounded"
    return context_pb2.ReadOptions(
        consistency=_named(_CONSISTENCY, consistency, "consistency"),
        max_staleness=duration(max_staleness),
        max_wait=duration(max_wait),
        max_message_bytes=max_message_bytes,
    )


def isolation(name: Optional[str]) -> context_pb2.Isolation:
    """An isolation level, by its name in SQL."""
    level: context_pb2.Isolation = _named(_ISOLATION, name, "isolation")
    return level


def duration(seconds: Optional[float]) -> Optional[duration_pb2.Duration]:
    """A duration as the wire has it."""
    if seconds is None:
        return None
    message = duration_pb2.Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def _named(names: Mapping[Optional[str], Any], name: Optional[str], what: str) -> Any:
    if name not in names:
        raise ValueError(f"{what} must be one of {', '.join(known for known in names if known)}")
    return names[name]
