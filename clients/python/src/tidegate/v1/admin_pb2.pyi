import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tidegate.v1 import context_pb2 as _context_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FloorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLOOR_STATE_UNSPECIFIED: _ClassVar[FloorState]
    FLOOR_STATE_UNKNOWN: _ClassVar[FloorState]
    FLOOR_STATE_BINDS: _ClassVar[FloorState]
    FLOOR_STATE_PAST: _ClassVar[FloorState]

class HostHealth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOST_HEALTH_UNSPECIFIED: _ClassVar[HostHealth]
    HOST_HEALTH_UNKNOWN: _ClassVar[HostHealth]
    HOST_HEALTH_UP: _ClassVar[HostHealth]
    HOST_HEALTH_SUSPECT: _ClassVar[HostHealth]
    HOST_HEALTH_DOWN: _ClassVar[HostHealth]
    HOST_HEALTH_QUARANTINED: _ClassVar[HostHealth]

class Standing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDING_UNSPECIFIED: _ClassVar[Standing]
    STANDING_TAKES: _ClassVar[Standing]
    STANDING_NOT_NEEDED: _ClassVar[Standing]
    STANDING_NOT_UP: _ClassVar[Standing]
    STANDING_DRAINED: _ClassVar[Standing]
    STANDING_NOT_PRIMARY: _ClassVar[Standing]
    STANDING_OTHER_HISTORY: _ClassVar[Standing]
    STANDING_BEHIND: _ClassVar[Standing]
    STANDING_STALE: _ClassVar[Standing]
    STANDING_OTHER_PRIMARY: _ClassVar[Standing]
FLOOR_STATE_UNSPECIFIED: FloorState
FLOOR_STATE_UNKNOWN: FloorState
FLOOR_STATE_BINDS: FloorState
FLOOR_STATE_PAST: FloorState
HOST_HEALTH_UNSPECIFIED: HostHealth
HOST_HEALTH_UNKNOWN: HostHealth
HOST_HEALTH_UP: HostHealth
HOST_HEALTH_SUSPECT: HostHealth
HOST_HEALTH_DOWN: HostHealth
HOST_HEALTH_QUARANTINED: HostHealth
STANDING_UNSPECIFIED: Standing
STANDING_TAKES: Standing
STANDING_NOT_NEEDED: Standing
STANDING_NOT_UP: Standing
STANDING_DRAINED: Standing
STANDING_NOT_PRIMARY: Standing
STANDING_OTHER_HISTORY: Standing
STANDING_BEHIND: Standing
STANDING_STALE: Standing
STANDING_OTHER_PRIMARY: Standing

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTopologyResponse(_message.Message):
    __slots__ = ("topology",)
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class WatchTopologyRequest(_message.Message):
    __slots__ = ("min_interval",)
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    min_interval: _duration_pb2.Duration
    def __init__(self, min_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchTopologyResponse(_message.Message):
    __slots__ = ("topology",)
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("clusters",)
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterState]
    def __init__(self, clusters: _Optional[_Iterable[_Union[ClusterState, _Mapping]]] = ...) -> None: ...

class ClusterState(_message.Message):
    __slots__ = ("name", "primary", "lease", "conflict", "system_identifier", "timeline", "insert_lsn", "floor", "hosts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    INSERT_LSN_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    primary: str
    lease: _duration_pb2.Duration
    conflict: _containers.RepeatedScalarFieldContainer[str]
    system_identifier: int
    timeline: int
    insert_lsn: str
    floor: FloorState
    hosts: _containers.RepeatedCompositeFieldContainer[HostState]
    def __init__(self, name: _Optional[str] = ..., primary: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., conflict: _Optional[_Iterable[str]] = ..., system_identifier: _Optional[int] = ..., timeline: _Optional[int] = ..., insert_lsn: _Optional[str] = ..., floor: _Optional[_Union[FloorState, str]] = ..., hosts: _Optional[_Iterable[_Union[HostState, _Mapping]]] = ...) -> None: ...

class HostState(_message.Message):
    __slots__ = ("name", "role", "health", "quarantine_left", "share_percent", "lag", "lag_bytes", "lsn", "timeline", "drained", "refused", "pools")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_LEFT_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    LAG_BYTES_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: _context_pb2.HostRole
    health: HostHealth
    quarantine_left: _duration_pb2.Duration
    share_percent: int
    lag: _duration_pb2.Duration
    lag_bytes: int
    lsn: str
    timeline: int
    drained: bool
    refused: str
    pools: _containers.RepeatedCompositeFieldContainer[PoolState]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[_context_pb2.HostRole, str]] = ..., health: _Optional[_Union[HostHealth, str]] = ..., quarantine_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., share_percent: _Optional[int] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lag_bytes: _Optional[int] = ..., lsn: _Optional[str] = ..., timeline: _Optional[int] = ..., drained: bool = ..., refused: _Optional[str] = ..., pools: _Optional[_Iterable[_Union[PoolState, _Mapping]]] = ...) -> None: ...

class PoolState(_message.Message):
    __slots__ = ("kind", "open", "in_use", "waiting", "limit")
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    open: int
    in_use: int
    waiting: int
    limit: int
    def __init__(self, kind: _Optional[str] = ..., open: _Optional[int] = ..., in_use: _Optional[int] = ..., waiting: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ExplainRouteRequest(_message.Message):
    __slots__ = ("context", "options", "write")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    context: _context_pb2.CallContext
    options: _context_pb2.ReadOptions
    write: bool
    def __init__(self, context: _Optional[_Union[_context_pb2.CallContext, _Mapping]] = ..., options: _Optional[_Union[_context_pb2.ReadOptions, _Mapping]] = ..., write: bool = ...) -> None: ...

class ExplainRouteResponse(_message.Message):
    __slots__ = ("cluster", "reason", "hosts", "waits", "rejection", "required_lsn", "binding", "standings", "rule")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LSN_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    STANDINGS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    reason: _context_pb2.RouteReason
    hosts: _containers.RepeatedScalarFieldContainer[str]
    waits: bool
    rejection: str
    required_lsn: str
    binding: str
    standings: _containers.RepeatedCompositeFieldContainer[HostStanding]
    rule: str
    def __init__(self, cluster: _Optional[str] = ..., reason: _Optional[_Union[_context_pb2.RouteReason, str]] = ..., hosts: _Optional[_Iterable[str]] = ..., waits: bool = ..., rejection: _Optional[str] = ..., required_lsn: _Optional[str] = ..., binding: _Optional[str] = ..., standings: _Optional[_Iterable[_Union[HostStanding, _Mapping]]] = ..., rule: _Optional[str] = ...) -> None: ...

class HostStanding(_message.Message):
    __slots__ = ("host", "standing")
    HOST_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    host: str
    standing: Standing
    def __init__(self, host: _Optional[str] = ..., standing: _Optional[_Union[Standing, str]] = ...) -> None: ...

class HostName(_message.Message):
    __slots__ = ("cluster", "host")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    host: str
    def __init__(self, cluster: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class DrainHostRequest(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostName
    def __init__(self, host: _Optional[_Union[HostName, _Mapping]] = ...) -> None: ...

class DrainHostResponse(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostState
    def __init__(self, host: _Optional[_Union[HostState, _Mapping]] = ...) -> None: ...

class RestoreHostRequest(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostName
    def __init__(self, host: _Optional[_Union[HostName, _Mapping]] = ...) -> None: ...

class RestoreHostResponse(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostState
    def __init__(self, host: _Optional[_Union[HostState, _Mapping]] = ...) -> None: ...

class SettlePrimaryConflictRequest(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostName
    def __init__(self, host: _Optional[_Union[HostName, _Mapping]] = ...) -> None: ...

class SettlePrimaryConflictResponse(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: ClusterState
    def __init__(self, cluster: _Optional[_Union[ClusterState, _Mapping]] = ...) -> None: ...

class GetRolloutRequest(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class GetRolloutResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class SetRolloutRequest(_message.Message):
    __slots__ = ("database", "use_own", "percentage")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    USE_OWN_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    database: str
    use_own: bool
    percentage: float
    def __init__(self, database: _Optional[str] = ..., use_own: bool = ..., percentage: _Optional[float] = ...) -> None: ...

class SetRolloutResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("database", "origin_cluster", "own_cluster", "use_own", "reuse_primary", "percentage")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    OWN_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    USE_OWN_FIELD_NUMBER: _ClassVar[int]
    REUSE_PRIMARY_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    database: str
    origin_cluster: str
    own_cluster: str
    use_own: bool
    reuse_primary: bool
    percentage: float
    def __init__(self, database: _Optional[str] = ..., origin_cluster: _Optional[str] = ..., own_cluster: _Optional[str] = ..., use_own: bool = ..., reuse_primary: bool = ..., percentage: _Optional[float] = ...) -> None: ...

class ReloadConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadConfigResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[ConfigChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[ConfigChange, _Mapping]]] = ...) -> None: ...

class ConfigChange(_message.Message):
    __slots__ = ("key", "what")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    key: str
    what: str
    def __init__(self, key: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...
