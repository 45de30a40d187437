# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share: photographs that packages ship, small models, a server.

Importing this file loads no torch: a fixture that needs torch, diffusers or the server imports them itself.
"""

import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from latentwire_server.app import Server

Pixels = npt.NDArray[np.uint8]
Run = Callable[..., tuple[int, str, str]]

# HYPOTHESIS_PROFILE names one. A test that sets its own number of examples keeps it.
settings.register_profile("dev", deadline=None, max_examples=20)
settings.register_profile("ci", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("nightly", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# What a unit test does without, and the tests that are none: they start servers, measure, or install a wheel.
HEAVY = ("torch", "diffusers")
NOT_UNITS = ("integration", "benchmarks", "fuzz", "test_packaging.py", "train/test_workers.py")


class _LeaveOut:
    """An import hook that skips the test, or the module of tests, that imports a heavy package."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in HEAVY:
            pytest.skip(f"a unit test does without {name}", allow_module_level=True)
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="run what needs no torch, no server process and no wheel")


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what runs in the background ignore Ctrl-C, and each process passes this on to those that it starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--unit"):
        sys.meta_path.insert(0, _LeaveOut())
        return
    from latentwire_codec.runtime import choice

    # What is the fastest differs from machine to machine, and from run to run.
    choice.WAYS = (choice.REFERENCE,)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    left_out = config.getoption("--unit") and collection_path in [Path(__file__).parent / name for name in NOT_UNITS]
    return True if left_out else None


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Undo what a test configures: its log must not go to a stream that ended with it."""
    logger = logging.getLogger("latentwire")
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture(scope="session", autouse=True)
def _no_variables() -> Iterator[None]:
    """No variable of the user's decides a test; a server in a process of its own computes in float32.

    Servers that many tests share start before any fixture of a single test.
    """
    with pytest.MonkeyPatch.context() as variables:
        for name in [name for name in os.environ if name.startswith("LATENTWIRE_")]:
            variables.delenv(name)
        variables.setenv("LATENTWIRE_DTYPE", "float32")
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command: the status, standard output, standard error."""
    from latentwire_cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@contextmanager
def left_to_the_collector() -> Iterator[list[object]]:
    """Give a list that holds, when the block has ended, what it left to the garbage collector."""
    left: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def files(folder: str) -> set[str]:
    """Return the paths of all files below a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def astronaut() -> Pixels:
    """A photograph, uint8 (512,512,3)."""
    from skimage import data

    photograph: Pixels = data.astronaut()
    return photograph


@pytest.fixture(scope="session")
def tiny_kl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small AutoencoderKL with random weights, f = 4, C = 4, saved by diffusers."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8, 16, 16],
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    folder = tmp_path_factory.mktemp("tiny-kl")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(tiny_kl: Path) -> Iterator["Server"]:
    """A server in this process with the bundled model and, as `tiny`, the small AutoencoderKL."""
    from latentwire_server.app import background
    from latentwire_server.config import ModelSource, ServerConfig

    models = (ModelSource("f8c4", "f8c4"), ModelSource("tiny", str(tiny_kl)))
    with background(ServerConfig(models=models, port=0, metrics_port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def target(server: "Server") -> str:
    """The address of the shared server."""
    return f"127.0.0.1:{server.port}"


@contextmanager
def serving(*flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start `latentwire serve --port 0` as a process; give it and its address; kill what is left of it."""
    command = [str(Path(sys.executable).with_name("latentwire")), "serve", "--port", "0", *flags]
    # The log goes to a file: a pipe that nobody reads would stop the server when it is full.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            log.seek(0)
            assert line.startswith("serving "), log.read()
            yield process, line.split(" on ")[1].split(",")[0].strip()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait()
                finally:
                    process.kill()


@pytest.fixture(scope="session")
def start_server() -> Callable[..., object]:
    """Give `serving`, for tests that need a process of their own."""
    return serving
