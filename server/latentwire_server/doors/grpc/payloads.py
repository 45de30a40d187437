# SPDX-License-Identifier: Apache-2.0
"""`.lat` payloads -> a decode job with their latents; the models that make and decode payloads."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.container import read_header
from latentwire_core.errors import BitstreamError
from latentwire_core.formats import PAYLOAD_MODEL
from latentwire_core.identity import same_space
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ServerConfig
from latentwire_server.doors.grpc.convert import OUTPUT_FIELDS, to_output
from latentwire_server.engine.jobs import DecodeJob
from latentwire_server.engine.preparing import check_latents
from latentwire_server.engine.residency import HostedModel
from latentwire_server.errors import InvalidRequest, RequestTooLarge

FIELDS = OUTPUT_FIELDS | {f"image_size.{side}": f"lat.payloads.image_size.{side}" for side in ("height", "width")}
"""Attribute of a job -> the field of a message with payloads that sets it."""


def maker(models: Iterable[str]) -> str:
    """Map the names of the served models to the one that makes payloads where none is named; empty: the default."""
    return PAYLOAD_MODEL if PAYLOAD_MODEL in models else ""


def reader(payloads: Sequence[bytes], models: Mapping[str, HostedModel]) -> str:
    """Map payloads to the name of the served model that decodes them where none is named; empty: the default.

    The model is the one that the first payload names, or else the first one, of those in the payload's latent space.
    The default refuses a payload that is damaged, and one of another space.
    """
    try:
        header = read_header(payloads[0])
    except (IndexError, BitstreamError):
        return ""
    able = [name for name, model in models.items() if same_space(header, model.spec)]
    return header.model if header.model in able else next(iter(able), "")


def to_decode_job(request: pb.DecodeRequest, model: Autoencoder, config: ServerConfig) -> DecodeJob:
    """Map a message with payloads to a job; every header is checked before latents take memory.

    Raises:
        BitstreamError: a payload is not a `.lat` payload as it was written.
        LatentSpaceMismatch, TensorError, RequestTooLarge, InvalidRequest: as their names say.
    """
    payloads = request.lat.payloads
    if not payloads:
        raise InvalidRequest("lat.payloads", "there are no payloads; give one for each image")
    output = to_output(request)
    headers = [read_header(payload) for payload in payloads]
    first = headers[0]
    for index, header in enumerate(headers):
        model.check_latent_space(header, header.model)
        if (header.shape, header.image_size) != (first.shape, first.image_size):
            raise InvalidRequest(
                "lat.payloads",
                f"payload {index} has latents of the shape {header.shape} and the image size {header.image_size}, "
                f"payload 0 {first.shape} and {first.image_size}; send different sizes as items of a stream",
            )
    size = None if first.image_size == (0, 0) else first.image_size
    check_latents((len(headers), *first.shape), size, model.spec, config)
    # A few bytes can stand for many latents: one request has no more than a message could hold as float16.
    numbers, allowed = len(headers) * math.prod(first.shape), config.max_message_bytes // torch.float16.itemsize
    if numbers > allowed:
        raise RequestTooLarge(
            f"the payloads hold {numbers} latents; one request may have {allowed} (serve --max-message-mib); "
            "send fewer payloads at once"
        )
    latents = [decompress_latents(payload, math.prod(first.shape))[0] for payload in payloads]
    return DecodeJob(
        torch.from_numpy(np.stack(latents).astype(np.float32, copy=False)),
        output,
        image_size=size,
        latent_space=first.latent_space,
        weights_digest=first.weights_digest,
    )
