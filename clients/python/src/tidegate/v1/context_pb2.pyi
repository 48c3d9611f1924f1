import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_SESSION: _ClassVar[Consistency]
    CONSISTENCY_CAUSAL: _ClassVar[Consistency]
    CONSISTENCY_BOUNDED: _ClassVar[Consistency]
    CONSISTENCY_EVENTUAL: _ClassVar[Consistency]
    CONSISTENCY_STRONG: _ClassVar[Consistency]

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_READ_COMMITTED: _ClassVar[Isolation]
    ISOLATION_REPEATABLE_READ: _ClassVar[Isolation]
    ISOLATION_SERIALIZABLE: _ClassVar[Isolation]

class HostRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOST_ROLE_UNSPECIFIED: _ClassVar[HostRole]
    HOST_ROLE_PRIMARY: _ClassVar[HostRole]
    HOST_ROLE_REPLICA: _ClassVar[HostRole]

class RouteReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTE_REASON_UNSPECIFIED: _ClassVar[RouteReason]
    ROUTE_REASON_NO_POSITION: _ClassVar[RouteReason]
    ROUTE_REASON_CAUGHT_UP: _ClassVar[RouteReason]
    ROUTE_REASON_WAITED: _ClassVar[RouteReason]
    ROUTE_REASON_POSITION_EXPIRED: _ClassVar[RouteReason]
    ROUTE_REASON_BEHIND: _ClassVar[RouteReason]
    ROUTE_REASON_NO_REPLICA: _ClassVar[RouteReason]
    ROUTE_REASON_STRONG: _ClassVar[RouteReason]
    ROUTE_REASON_POSITION_UNKNOWN: _ClassVar[RouteReason]
    ROUTE_REASON_POSITION_MAY_BE_LOST: _ClassVar[RouteReason]
    ROUTE_REASON_RULE: _ClassVar[RouteReason]
    ROUTE_REASON_WRITE: _ClassVar[RouteReason]
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_SESSION: Consistency
CONSISTENCY_CAUSAL: Consistency
CONSISTENCY_BOUNDED: Consistency
CONSISTENCY_EVENTUAL: Consistency
CONSISTENCY_STRONG: Consistency
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_READ_COMMITTED: Isolation
ISOLATION_REPEATABLE_READ: Isolation
ISOLATION_SERIALIZABLE: Isolation
HOST_ROLE_UNSPECIFIED: HostRole
HOST_ROLE_PRIMARY: HostRole
HOST_ROLE_REPLICA: HostRole
ROUTE_REASON_UNSPECIFIED: RouteReason
ROUTE_REASON_NO_POSITION: RouteReason
ROUTE_REASON_CAUGHT_UP: RouteReason
ROUTE_REASON_WAITED: RouteReason
ROUTE_REASON_POSITION_EXPIRED: RouteReason
ROUTE_REASON_BEHIND: RouteReason
ROUTE_REASON_NO_REPLICA: RouteReason
ROUTE_REASON_STRONG: RouteReason
ROUTE_REASON_POSITION_UNKNOWN: RouteReason
ROUTE_REASON_POSITION_MAY_BE_LOST: RouteReason
ROUTE_REASON_RULE: RouteReason
ROUTE_REASON_WRITE: RouteReason

class CallContext(_message.Message):
    __slots__ = ("database", "session_id", "positions", "operation", "settings")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    database: str
    session_id: str
    positions: _containers.RepeatedScalarFieldContainer[str]
    operation: str
    settings: _containers.ScalarMap[str, str]
    def __init__(self, database: _Optional[str] = ..., session_id: _Optional[str] = ..., positions: _Optional[_Iterable[str]] = ..., operation: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReadOptions(_message.Message):
    __slots__ = ("consistency", "max_staleness", "max_wait", "max_message_bytes")
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    consistency: Consistency
    max_staleness: _duration_pb2.Duration
    max_wait: _duration_pb2.Duration
    max_message_bytes: int
    def __init__(self, consistency: _Optional[_Union[Consistency, str]] = ..., max_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("cluster", "host", "role", "reason", "timeline", "required_lsn", "replayed_lsn", "staleness", "waited", "attempts", "position_elsewhere")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LSN_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_LSN_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    WAITED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    POSITION_ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    host: str
    role: HostRole
    reason: RouteReason
    timeline: int
    required_lsn: str
    replayed_lsn: str
    staleness: _duration_pb2.Duration
    waited: _duration_pb2.Duration
    attempts: int
    position_elsewhere: str
    def __init__(self, cluster: _Optional[str] = ..., host: _Optional[str] = ..., role: _Optional[_Union[HostRole, str]] = ..., reason: _Optional[_Union[RouteReason, str]] = ..., timeline: _Optional[int] = ..., required_lsn: _Optional[str] = ..., replayed_lsn: _Optional[str] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., waited: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempts: _Optional[int] = ..., position_elsewhere: _Optional[str] = ...) -> None: ...
