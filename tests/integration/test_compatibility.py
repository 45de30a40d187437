# SPDX-License-Identifier: Apache-2.0
"""An old client at a new server, and a new client at an old one: latents, payloads and pixels are the same bytes."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
# The last commit before the house was rebuilt; its wheel has neither latentwire_core nor latentwire_cli.
OLD_COMMIT = "a1774db87ff197b1e5ea29d74b11e53b7dc564de"
SIDES = ("old", "new")

# What a client of either side asks for. It prints a digest of each answer, and where its code lies.
CALLS = """
import hashlib, json, sys
import numpy as np
import latentwire_client
from PIL import Image
from latentwire_client import Client

def digest(*arrays):
    return [str(np.shape(array)) + hashlib.sha256(np.asarray(array).tobytes()).hexdigest() for array in arrays]

draws = np.random.default_rng(0)
sizes = ((64, 48), (33, 70), (8, 8))
images = [Image.fromarray(draws.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
found = {}
with Client(sys.argv[1]) as client:
    found["spaces"] = [model.latent_space for model in client.info().models]
    for kind, options in (("mode", {}), ("sample", {"seeds": [7]}), ("moments", {"dtype": "float32"})):
        latents = client.encode(images[0], kind=kind, **options)
        arrays = [latents.values] + ([] if latents.logvar is None else [latents.logvar])
        found[kind] = [digest(*arrays), latents.latent_space, latents.weights_digest, str(latents.image_size)]
    found["decode"] = digest(client.decode(client.encode(images[1])))
    payload = client.compress(images[1])
    found["compress"] = hashlib.sha256(payload).hexdigest()
    found["decompress"] = digest(client.decompress(payload))
    found["encode_stream"] = [digest(item.get().values) for item in client.encode_stream(images).ordered()]
    payloads = [item.get() for item in client.compress_stream(images).ordered()]
    found["compress_stream"] = [hashlib.sha256(payload).hexdigest() for payload in payloads]
    found["decode_stream"] = [digest(item.get()) for item in client.decode_stream(payloads).ordered()]
print(json.dumps({"code": latentwire_client.__file__, "found": found}))
"""


def succeed(*command: object, **options: Any) -> str:
    """Run a command and return its standard output; the test fails where it fails."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return str(result.stdout)


def install(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree, unpack it into a folder, and return the folder."""
    wheels = folder.with_name(f"{folder.name}-wheel")
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, source)
    (wheel,) = wheels.glob("*.whl")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    succeed(sys.executable, "-m", "pip", "install", *quiet, "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Map each side to a folder with its packages; both use the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("sides")
    archive = subprocess.run(["git", "archive", OLD_COMMIT], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(
            f"compatibility was NOT tested: commit {OLD_COMMIT[:10]} is not in this history (git fetch --unshallow)"
        )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder / "source", filter="data")
    return {"old": install(folder / "source", folder / "old"), "new": install(ROOT, folder / "new")}


def surroundings(folder: Path) -> dict[str, str]:
    """Return variables with which Python finds a folder's packages before all others."""
    return {**os.environ, "PYTHONPATH": str(folder)}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Start the server that lies in a folder, and give its address."""
    command = [sys.executable, str(folder / "bin" / "latentwire"), "serve", "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder, env=surroundings(folder)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving "), line
            yield line.split(" on ")[1].split(",")[0].strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def answers(installed: dict[str, Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """Map (client's side, server's side) to digests of the answers."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for server in SIDES:
        with served(installed[server]) as address:
            for client in SIDES:
                folder = installed[client]
                output = succeed(sys.executable, "-c", CALLS, address, cwd=folder, env=surroundings(folder))
                answer = json.loads(output)
                assert Path(answer["code"]).is_relative_to(folder)
                found[client, server] = answer["found"]
    return found


@pytest.mark.parametrize(("client", "server"), [("old", "new"), ("new", "old"), ("new", "new")])
def test_every_answer_is_what_the_old_client_gets_from_the_old_server(
    answers: dict[tuple[str, str], dict[str, Any]], client: str, server: str
) -> None:
    assert answers["old", "old"]["spaces"]
    assert answers[client, server] == answers["old", "old"]


def test_each_answer_of_a_stream_is_another(answers: dict[tuple[str, str], dict[str, Any]]) -> None:
    for stream in ("encode_stream", "compress_stream", "decode_stream"):
        assert len({str(answer) for answer in answers["old", "old"][stream]}) == 3
