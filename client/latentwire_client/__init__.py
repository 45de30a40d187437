# SPDX-License-Identifier: Apache-2.0
"""The light client of a latentwire server: images to VAE latents and back, without torch. Start at `Client`."""

from latentwire_client._images import ImageInput
from latentwire_client._outbox import StreamItem
from latentwire_client.accuracy import HeldOut, Interval
from latentwire_client.aio import AsyncClient
from latentwire_client.attribute_fitting import fit_attributes
from latentwire_client.attributes import Attributes, AttributeVector
from latentwire_client.client import Client
from latentwire_client.config import Limits, Retry, Timeout
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
from latentwire_client.latent_space import along_line, along_sphere, prior_samples
from latentwire_client.latent_statistics import Departure, LatentStatistics, posterior_statistics
from latentwire_client.latents import LatentKind, Latents
from latentwire_client.options import CompressOptions, EncodeOptions
from latentwire_proto import __version__

__all__ = [
    "AsyncClient",
    "AttributeVector",
    "Attributes",
    "Cancelled",
    "Client",
    "CompressOptions",
    "DataLoss",
    "DeadlineExceeded",
    "Departure",
    "EncodeOptions",
    "Execution",
    "HeldOut",
    "ImageInput",
    "Interval",
    "InvalidRequest",
    "LatentKind",
    "LatentSpaceMismatch",
    "LatentStatistics",
    "Latents",
    "LatentwireError",
    "Limits",
    "ModelInfo",
    "Overloaded",
    "Retry",
    "ServerFault",
    "ServerInfo",
    "ServerLimits",
    "StreamItem",
    "Timeout",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownModel",
    "UnsupportedVersion",
    "WeightsChanged",
    "__version__",
    "along_line",
    "along_sphere",
    "fit_attributes",
    "posterior_statistics",
    "prior_samples",
]
