# SPDX-License-Identifier: Apache-2.0
"""Limits that only models of many channels meet; the others are met through the engine."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from latentwire_codec.lat.payload import compress_latents
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine import coding
from latentwire_server.engine.jobs import PayloadJob
from latentwire_server.errors import RequestTooLarge
from tests.server.specs import spec_with


def test_payloads_of_few_pixels_and_many_latents_are_refused_before_they_are_decoded() -> None:
    payload = compress_latents(np.zeros((64, 60, 60), np.float32))
    spec = spec_with(latent_channels=64, downsample_factor=2)
    model = cast(Any, SimpleNamespace(spec=spec, check_latent_space=lambda *told: None))
    config = ServerConfig(models=(ModelSource("many", "many"),), max_message_mib=1)
    with pytest.raises(RequestTooLarge, match="hold 691200 latents; one request may have 524288"):
        coding.decompress(PayloadJob("many", (payload,) * 3, torch.uint8), model, config)
