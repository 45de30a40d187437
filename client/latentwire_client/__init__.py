# SPDX-License-Identifier: Apache-2.0
"""The light client of a latentwire server: images to VAE latents and back, without torch. Start at `Client`."""

from latentwire_client._images import ImageInput
from latentwire_client._outbox import StreamItem
from latentwire_client.aio import AsyncClient
from latentwire_client.client import Client
from latentwire_client.config import CompressOptions, EncodeOptions, Limits, Retry, Timeout
from latentwire_client.errors import (
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    LatentSpaceMismatch,
    LatentwireError,
    Overloaded,
    ServerFault,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnsupportedVersion,
    WeightsChanged,
)
from latentwire_client.info import Execution, ModelInfo, ServerInfo, ServerLimits
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_proto import __version__

__all__ = [
    "AsyncClient", "Cancelled", "Client", "CompressOptions", "DataLoss", "DeadlineExceeded", "EncodeOptions",
    "Execution", "ImageInput", "InvalidRequest", "LatentKind", "LatentSpaceMismatch", "Latents", "LatentwireError",
    "Limits", "ModelInfo", "Overloaded", "Retry", "ServerFault", "ServerInfo", "ServerLimits", "StreamItem",
    "Timeout", "TooLarge", "Unauthenticated", "Unavailable", "UnknownModel", "UnsupportedVersion", "WeightsChanged",
    "__version__",
]  # fmt: skip
