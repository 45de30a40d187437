# SPDX-License-Identifier: Apache-2.0
"""The compiled Open Inference Protocol -> its message classes and its service, in a descriptor pool of their own.

protobuf refuses a second definition of `inference.*` in one pool. The pool of the process stays free of the names, so
that tritonclient, kserve or mlserver may be imported beside the server, before or after it.
"""

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_POOL = DescriptorPool()
_compiled = files("latentwire_proto.inference").joinpath("grpc_service.binpb").read_bytes()
(_file,) = FileDescriptorSet.FromString(_compiled).file
_POOL.AddSerializedFile(_file.SerializeToString())

SERVICE: Any = _POOL.FindServiceByName("inference.GRPCInferenceService")
"""The descriptor of the service."""


def message_class(name: str) -> Any:
    """Map a message's name, without its package, to its class.

    Raises:
        KeyError: the protocol has no message of that name.
    """
    return GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


InferParameter = message_class("InferParameter")
ModelConfig = message_class("ModelConfig")
ModelConfigResponse = message_class("ModelConfigResponse")
ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")
ModelMetadataResponse = message_class("ModelMetadataResponse")
ModelReadyResponse = message_class("ModelReadyResponse")
ModelStatistics = message_class("ModelStatistics")
ModelStatisticsResponse = message_class("ModelStatisticsResponse")
ServerLiveResponse = message_class("ServerLiveResponse")
ServerMetadataResponse = message_class("ServerMetadataResponse")
ServerReadyResponse = message_class("ServerReadyResponse")
