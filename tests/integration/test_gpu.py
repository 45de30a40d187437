# SPDX-License-Identifier: Apache-2.0
"""On a GPU: the same answers within a stated tolerance, and images that share batches."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from latentwire_client import Client
from latentwire_client.info import Execution
from latentwire_codec import load_autoencoder
from latentwire_codec.metrics import scores
from latentwire_server.app import background
from latentwire_server.config import ServerConfig
from tests.conftest import Pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here: the GPU is untested"),
]


@pytest.fixture
def crops(astronaut: Pixels) -> Pixels:
    """16 parts of the photograph, uint8 (16,128,128,3)."""
    corners = [(y, x) for y in range(0, 512, 128) for x in range(0, 512, 128)]
    return np.stack([astronaut[y : y + 128, x : x + 128] for y, x in corners])


@pytest.fixture
def executions() -> list[Execution]:
    return []


@pytest.fixture(params=["float32", "auto"])
def client(request: pytest.FixtureRequest, executions: list[Execution]) -> Iterator[Client]:
    config = ServerConfig(port=0, device="cuda:0", dtype=request.param, max_delay_ms=50)
    with (
        background(config) as server,
        Client(f"127.0.0.1:{server.port}", on_execution=executions.append) as client,
    ):
        yield client


def test_images_of_one_size_share_batches_and_an_answer_hardly_depends_on_them(
    client: Client, crops: Pixels, executions: list[Execution]
) -> None:
    together = client.encode(crops, dtype="float32").values
    assert executions[-1].batch_size == len(crops)
    alone = np.concatenate([client.encode(crop, dtype="float32").values for crop in crops])
    half = client.info().models[0].dtype != "float32"
    np.testing.assert_allclose(together, alone, atol=5e-2 if half else 1e-3)


def test_images_decode_as_on_the_cpu_in_float32(client: Client, crops: Pixels) -> None:
    moments = client.encode(crops, kind="moments", dtype="float32")
    on_gpu = client.decode_array(moments)
    model = load_autoencoder("f8c4", device="cpu")
    levels = (model.decode(torch.from_numpy(moments.values)).permute(0, 2, 3, 1) + 1) * 127.5
    on_cpu = levels.round().clamp(0, 255).to(torch.uint8).numpy()
    half = client.info().models[0].dtype != "float32"
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert scores.psnr(gpu, cpu) >= (45 if half else 60)
