from tidegate.v1 import execute_pb2 as _execute_pb2
from tidegate.v1 import listen_pb2 as _listen_pb2
from tidegate.v1 import session_pb2 as _session_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
