# SPDX-License-Identifier: Apache-2.0
"""`--skip-existing`: what an earlier run wrote is left out where it is what is asked for, as far as it tells."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from latentwire_cli.local import served_name
from latentwire_client import Latents
from latentwire_client.testing import FakeServer
from latentwire_codec.lat.payload import Provenance, compress_latents
from tests.conftest import Run

REMEDY = "--overwrite replaces it, or write to another folder with -o"
ENCODE = ("encode", "a.png", "-o", "out")
COMPRESS = ("compress", "a.png", "-o", "out", "--skip-existing")
LEFT_OUT = (0, "", "note: 1 of 1 files were written to out before; they are left out\n")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A server, an image of 8x8 and a folder to write to."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    Path("out").mkdir()
    with FakeServer() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        yield


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ([], ["--kind", "mode"], "the kind moments, and mode is asked for"),
        (["--kind", "mode"], ["--kind", "mode", "--scaled"], "the scale raw, and scaled is asked for"),
        ([], ["--dtype", "float16"], "the dtype float32, and float16 is asked for"),
        (["--dtype", "float16"], ["--dtype", "bfloat16"], "the dtype float16, and float32 is asked for"),
        ([], ["--size", "16x8"], "the image size 8x8, and 16x8 is asked for"),
        ([], ["--model", "other"], "the model fake, and other is asked for"),
        ([], ["--local", "--model", "./runs/other"], "the model fake, and other is asked for"),
    ],
)
def test_latents_that_are_not_what_is_asked_for_are_refused(
    run: Run, before: list[str], now: list[str], difference: str
) -> None:
    assert run(*ENCODE, *before)[0] == 0
    assert run(*ENCODE, *before, "--skip-existing") == LEFT_OUT
    expected = f"error: out/a.safetensors was written with {difference}; {REMEDY}\n"
    assert run(*ENCODE, *now, "--skip-existing") == (2, "", expected)


def test_latents_that_differ_are_replaced_where_that_is_asked_for(run: Run) -> None:
    both = ("--skip-existing", "--overwrite")
    run(*ENCODE)
    assert run(*ENCODE, *both) == LEFT_OUT
    status, _, err = run(*ENCODE, *both, "--kind", "mode")
    assert (status, err) == (0, "")
    assert Latents.load("out/a.safetensors").kind == "mode"


def test_what_latents_do_not_tell_is_let_through(run: Run) -> None:
    Latents(np.zeros((1, 3, 1, 1), np.float32)).save("out/a.safetensors")
    assert run(*ENCODE, "--kind", "mode", "--size", "8x8", "--model", "fake", "--skip-existing") == LEFT_OUT


def test_a_file_that_holds_no_latents_is_refused(run: Run) -> None:
    path = Path("out/a.safetensors")
    path.write_bytes(b"junk")
    status, _, err = run(*ENCODE, "--skip-existing")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: out/a.safetensors holds no latents (")
    save_file({"weight": np.zeros(3, np.float32)}, path)
    expected = f"error: out/a.safetensors holds no latents (its format is None); {REMEDY}\n"
    assert run(*ENCODE, "--skip-existing") == (2, "", expected)


@pytest.mark.parametrize("option", ["--skip-existing", "--overwrite"])
def test_a_folder_in_the_place_of_a_file_is_refused(run: Run, option: str) -> None:
    Path("out/a.safetensors").mkdir()
    expected = "error: out/a.safetensors is a folder; remove it, or write to another folder with -o\n"
    assert run(*ENCODE, option) == (2, "", expected)


def test_payloads_that_are_not_what_is_asked_for_are_refused(run: Run) -> None:
    path = Path("out/a.lat")
    provenance = Provenance(model="fake")
    path.write_bytes(compress_latents(np.zeros((3, 1, 1), np.float32), provenance=provenance))
    for same in ([], ["--quality", "low"], ["--bytes", "900"], ["--model", "fake"]):
        assert run(*COMPRESS, *same) == LEFT_OUT
    expected = f"error: out/a.lat was written with the kind quantized, and float16 is asked for; {REMEDY}\n"
    assert run(*COMPRESS, "--quality", "lossless") == (2, "", expected)
    expected = f"error: out/a.lat was written with the model fake, and other is asked for; {REMEDY}\n"
    assert run(*COMPRESS, "--model", "other") == (2, "", expected)
    path.write_bytes(compress_latents(np.zeros((3, 1, 1), np.float16), "lossless", provenance=provenance))
    assert run(*COMPRESS, "--quality", "lossless") == LEFT_OUT
    expected = f"error: out/a.lat was written with the kind float16, and quantized is asked for; {REMEDY}\n"
    assert run(*COMPRESS, "--psnr", "30") == (2, "", expected)


def test_a_file_that_holds_no_payload_is_refused(run: Run) -> None:
    Path("out/a.lat").write_bytes(b"mine")
    status, out, err = run(*COMPRESS)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: out/a.lat holds no payload (")
    assert err.endswith(f"; {REMEDY}\n")


def test_a_local_model_is_known_by_the_name_that_it_is_served_under() -> None:
    assert [served_name(model) for model in ("", "f8c4", "tiny=/x/y", "/x/sd.safetensors")] == [
        "",
        "f8c4",
        "tiny",
        "sd",
    ]
