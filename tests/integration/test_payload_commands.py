# SPDX-License-Identifier: Apache-2.0
"""`compress`, `decompress` and `inspect` against a real server, and with the model in their own process."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentwire_client import Client
from latentwire_codec import compress_latents
from latentwire_codec.metrics.scores import psnr
from tests.conftest import Pixels, Run, files


@pytest.fixture(autouse=True)
def environment(target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server is known from a variable; relative paths are below a folder of the test's own."""
    monkeypatch.setenv("LATENTWIRE_SERVER", target)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(astronaut: Pixels) -> Path:
    """A folder with photographs of two sizes, of which one is in a folder of its own."""
    folder = Path("photos")
    (folder / "more").mkdir(parents=True)
    Image.fromarray(astronaut[:96, 100:180]).save(folder / "face.png")
    Image.fromarray(astronaut[200:250, 200:277]).save(folder / "more" / "suit.png")
    return folder


def pixels_of(path: str | Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_file_of_another_kind_is_refused_with_the_command_for_it(run: Run, photos: Path) -> None:
    assert run("compress", str(photos / "face.png"), "-o", "lat", "--model", "tiny")[0] == 0
    status, _, err = run("decode", "lat/face.lat", "-o", "images", "--model", "tiny")
    assert status == 1
    assert "face.lat: it is a .lat payload; `latentwire decompress` decodes it" in err
    status, _, err = run("decode", str(photos / "face.png"), "-o", "images", "--model", "tiny")
    assert status == 1
    assert "face.png: it is an image; `latentwire encode` makes latents of it" in err
    Path("face.safetensors").write_bytes(b"")
    status, _, err = run("decompress", "face.safetensors", "-o", "images", "--model", "tiny")
    assert status == 1
    assert "face.safetensors: it holds uncompressed latents; `latentwire decode` decodes them" in err


def test_a_server_that_is_an_url_is_refused_with_the_address_to_give(run: Run, photos: Path) -> None:
    status, _, err = run("compress", str(photos / "face.png"), "-o", "lat", "--server", "http://localhost:1")
    assert (status, err) == (
        2, "error: the server is 'http://localhost:1'; gRPC takes HOST:PORT: give 'localhost:1'\n",
    )  # fmt: skip


# Compressing


def test_every_image_of_a_folder_becomes_a_payload_and_an_image_of_its_size_again(run: Run, photos: Path) -> None:
    status, out, err = run("compress", str(photos), "-o", "lat", "--model", "tiny")
    assert (status, err) == (0, "")
    assert out.startswith("compressed 2 of 2 images to lat (")
    assert files("lat") == {"face.lat", "more/suit.lat"}
    status, out, err = run("decompress", "lat", "-o", "images", "--model", "tiny")
    assert (status, err) == (0, "")
    assert out.startswith("wrote the images of 2 of 2 files to images (")
    assert pixels_of("images/face.png").shape == (96, 80, 3)
    assert pixels_of("images/more/suit.png").shape == (50, 77, 3)


@pytest.mark.parametrize("quality", ["cache", "low", "lossless", "0.7"])
def test_the_quality_is_passed_on(run: Run, photos: Path, target: str, quality: str) -> None:
    image = photos / "face.png"
    assert run("compress", str(image), "-o", "lat", "--quality", quality, "--model", "tiny")[0] == 0
    with Client(target, model="tiny") as client:
        wanted = client.compress(image, quality=float(quality) if quality == "0.7" else quality)
    assert Path("lat/face.lat").read_bytes() == wanted


def test_json_tells_what_each_image_costs(run: Run, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"junk")
    status, out, err = run("compress", str(photos), "-o", "lat", "--model", "tiny", "--json")
    document: dict[str, Any] = json.loads(out)
    assert status == 1
    assert err.startswith("error: photos/broken.png: ")
    assert [failure["path"] for failure in document["failures"]] == ["photos/broken.png"]
    face = document["results"][0]
    count = Path("lat/face.lat").stat().st_size
    assert (face["image"], face["payload"], face["bytes"]) == ("photos/face.png", "lat/face.lat", count)
    assert (face["width"], face["height"], face["latent_shape"]) == (80, 96, [4, 24, 20])
    assert face["bits_per_pixel"] == pytest.approx(8 * count / (80 * 96))
    assert files("lat") == {"face.lat", "more/suit.lat"}


def test_what_exists_is_kept_replaced_or_left_out_as_it_is_said(run: Run, photos: Path) -> None:
    arguments = ("compress", str(photos / "face.png"), "-o", "lat", "--model", "tiny")
    assert run(*arguments, "--quality", "low")[0] == 0
    written = Path("lat/face.lat").read_bytes()
    status, _, err = run(*arguments)
    assert status == 2
    assert "--overwrite" in err
    left_out = "note: 1 of 1 files were written to lat before; they are left out\n"
    assert run(*arguments, "--skip-existing") == (0, "", left_out)
    assert Path("lat/face.lat").read_bytes() == written
    assert run(*arguments, "--overwrite")[0] == 0
    assert Path("lat/face.lat").read_bytes() != written


@pytest.mark.parametrize("most", [400, 900])
def test_a_number_of_bytes_is_met(run: Run, photos: Path, most: int) -> None:
    status, _, err = run("compress", str(photos / "face.png"), "-o", "lat", "--bytes", str(most), "--model", "tiny")
    assert (status, err) == (0, "")
    assert 0.93 * most <= Path("lat/face.lat").stat().st_size <= most


def test_bits_for_each_pixel_are_met_whatever_the_size(run: Run, photos: Path) -> None:
    status, out, _ = run("compress", str(photos), "-o", "lat", "--bpp", "0.75", "--model", "tiny", "--json")
    assert status == 0
    for result in json.loads(out)["results"]:
        assert 0.93 * 0.75 <= result["bits_per_pixel"] <= 0.75


def test_a_psnr_is_met_with_fewer_bytes_than_a_higher_one(run: Run, photos: Path) -> None:
    image = photos / "face.png"
    assert run("compress", str(image), "-o", "fine", "--quality", "0.1")[0] == 0
    assert run("decompress", "fine", "-o", "fine")[0] == 0
    best = psnr(pixels_of("fine/face.png"), pixels_of(image))
    sizes = []
    for wanted in (best - 1, best - 3):
        assert run("compress", str(image), "-o", "lat", "--psnr", f"{wanted:.3f}", "--overwrite")[0] == 0
        assert run("decompress", "lat", "-o", "lat", "--overwrite")[0] == 0
        assert wanted - 0.001 <= psnr(pixels_of("lat/face.png"), pixels_of(image)) < wanted + 0.5
        sizes.append(Path("lat/face.lat").stat().st_size)
    assert sizes[1] < sizes[0] < Path("fine/face.lat").stat().st_size


@pytest.mark.parametrize(
    ("target_option", "number", "words"),
    [("--bytes", "20", "20 bytes cannot be reached"), ("--psnr", "90", "90 cannot be reached; the finest payload")],
)
def test_a_target_out_of_reach_is_said_for_each_image(
    run: Run, photos: Path, target_option: str, number: str, words: str
) -> None:
    status, out, err = run("compress", str(photos), "-o", "lat", target_option, number, "--model", "tiny")
    assert (status, out, files("lat")) == (1, "", set())
    assert [line.split(": ")[1] for line in err.splitlines()] == ["photos/face.png", "photos/more/suit.png"]
    assert words in err


def test_local_needs_no_server_and_gives_the_same_payload(
    run: Run, photos: Path, tiny_kl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(photos / "more" / "suit.png")
    assert run("compress", image, "-o", "served", "--bytes", "500", "--model", "tiny")[0] == 0
    monkeypatch.setenv("LATENTWIRE_SERVER", "127.0.0.1:1")
    local = ("--local", "--model", f"tiny={tiny_kl}")
    assert run("compress", image, "-o", "local", "--bytes", "500", *local)[0] == 0
    assert Path("local/suit.lat").read_bytes() == Path("served/suit.lat").read_bytes()
    assert run("decompress", "local", "-o", "images", *local)[0] == 0
    assert pixels_of("images/suit.png").shape == (50, 77, 3)


def test_compressing_through_a_server_needs_neither_torch_nor_coder(photos: Path) -> None:
    script = """
import sys
for name in ("torch", "numba", "diffusers"):
    sys.modules[name] = None
from latentwire_cli import main
for wanted in (["--quality", "low"], ["--bpp", "1"], ["--psnr", "5"]):
    assert main(["compress", "photos/face.png", "-o", "lat", "--model", "tiny", "--overwrite", *wanted]) == 0
assert main(["decompress", "lat", "-o", "lat", "--model", "tiny"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Decompressing


@pytest.mark.parametrize(("image_format", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp"), ("avif", ".avif")])
def test_images_have_the_format_that_is_asked_for(run: Run, photos: Path, image_format: str, suffix: str) -> None:
    run("compress", str(photos / "face.png"), "-o", "lat", "--model", "tiny")
    arguments = ("decompress", "lat", "-o", "images", "--format", image_format, "--quality", "70", "--model", "tiny")
    assert run(*arguments)[0] == 0
    with Image.open(f"images/face{suffix}") as image:
        assert (image.format, image.size) == (image_format.upper(), (80, 96))


def test_a_bad_file_is_listed_and_the_others_are_decompressed(run: Run, photos: Path) -> None:
    run("compress", str(photos), "-o", "lat", "--model", "tiny")
    whole = Path("lat/face.lat").read_bytes()
    Path("lat/cut.lat").write_bytes(whole[:-3])
    Path("lat/junk.lat").write_bytes(b"junk")
    Path("lat/other.lat").write_bytes(compress_latents(np.zeros((16, 2, 2), np.float32)))
    status, out, err = run("decompress", "lat", "missing.lat", "-o", "images", "--model", "tiny", "--json")
    assert status == 1
    results = json.loads(out)["results"]
    assert results[0] == {"payload": "lat/face.lat", "images": ["images/face.png"]}
    assert files("images") == {"face.png", "more/suit.png"}
    failed = {line.split(": ")[1]: line for line in err.splitlines()}
    assert set(failed) == {"lat/cut.lat", "lat/junk.lat", "lat/other.lat", "missing.lat"}
    assert "header announces" in failed["lat/cut.lat"]
    assert "begins with" in failed["lat/junk.lat"]
    assert "(1, 16, 2, 2)" in failed["lat/other.lat"]


# Inspecting


def test_inspect_shows_what_a_payload_holds_and_needs_no_server(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("compress", str(photos / "face.png"), "-o", "lat", "--model", "tiny")
    monkeypatch.setenv("LATENTWIRE_SERVER", "127.0.0.1:1")
    status, out, err = run("inspect", "lat")
    assert (status, err) == (0, "")
    for words in (
        "lat/face.lat",
        "80x96",
        "4x24x20, quantized",
        "tiny",
        "bits per pixel",
        "bytes of symbols",
        "checksums right",
    ):
        assert words in out, words
    (result,) = json.loads(run("inspect", "lat/face.lat", "--json")[1])["results"]
    count = Path("lat/face.lat").stat().st_size
    assert result["bytes"] == sum(result["sections"].values()) == count
    assert result["bits_per_pixel"] == pytest.approx(8 * count / (80 * 96))
    assert result["bits_per_latent"] == pytest.approx(8 * count / (4 * 24 * 20))
    assert (len(result["steps"]), result["fault"]) == (4, None)
    coded = sum(result["sections"][name] for name in ("symbols", "escapes", "low_bits"))
    assert len(result["channel_bits"]) == 4
    assert sum(result["channel_bits"]) == pytest.approx(8 * coded, abs=128)


def test_inspect_still_says_what_a_damaged_file_is(run: Run, photos: Path) -> None:
    run("compress", str(photos), "-o", "lat", "--model", "tiny", "--quality", "lossless")
    whole = bytearray(Path("lat/face.lat").read_bytes())
    whole[-20] ^= 4
    Path("lat/face.lat").write_bytes(whole)
    Path("lat/junk.lat").write_bytes(b"\x89LAT\x01junk")
    status, out, err = run("inspect", "lat", "missing.lat")
    assert status == 1
    assert err.count("\n") == 3
    assert "4x24x20, float16, bit for bit" in out
    assert re.search(r"state +fault: ChecksumMismatch\n", out)
    assert re.search(r"state +fault: Truncated\n", out)
    assert out.count("right") == 1
    document = json.loads(run("inspect", "lat", "missing.lat", "--json")[1])
    assert [failure["path"] for failure in document["failures"]] == ["lat/face.lat", "lat/junk.lat", "missing.lat"]
    states = {result["payload"]: result for result in document["results"]}
    assert states["lat/face.lat"]["latent_shape"] == [4, 24, 20]
    assert states["lat/junk.lat"].keys() == {"payload", "bytes", "fault", "problem"}
    assert "header" in states["lat/junk.lat"]["problem"]
    assert states["lat/more/suit.lat"]["fault"] is None


def test_inspect_tells_an_unknown_version_from_damage(run: Run) -> None:
    payload = compress_latents(np.zeros((2, 3, 4), np.float32))
    Path("new.lat").write_bytes(payload[:4] + b"\x02" + payload[5:])
    status, out, err = run("inspect", "new.lat")
    assert status == 1
    assert "fault: UnsupportedVersion" in out
    assert err.startswith("error: new.lat: the payload is of version 2")


def test_inspect_shows_latents_of_unknown_origin(run: Run) -> None:
    Path("bare.lat").write_bytes(compress_latents(np.zeros((2, 3, 4), np.float32)))
    status, out, _ = run("inspect", "bare.lat")
    assert status == 0
    for words in ("all that is decoded", "unnamed or unknown", "2x3x4"):
        assert words in out, words


def test_inspect_loads_no_torch() -> None:
    Path("bare.lat").write_bytes(compress_latents(np.zeros((2, 3, 4), np.float32)))
    script = (
        "import sys; from latentwire_cli import main; status = main(['inspect', 'bare.lat']); "
        "sys.exit(status or any(name in sys.modules for name in ('torch', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_inspect_leaves_out_the_channels_where_the_coder_is_not_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bare.lat").write_bytes(compress_latents(np.zeros((2, 3, 4), np.float32)))
    assert "of channels" in run("inspect", "bare.lat")[1]
    monkeypatch.setitem(sys.modules, "numba", None)
    status, out, _ = run("inspect", "bare.lat")
    assert status == 0
    assert "of channels" not in out
    assert json.loads(run("inspect", "bare.lat", "--json")[1])["results"][0]["channel_bits"] is None


def test_inspect_of_many_channels_stays_readable(run: Run) -> None:
    Path("many.lat").write_bytes(compress_latents(np.zeros((40, 3, 4), np.float32)))
    out = run("inspect", "many.lat")[1]
    assert re.search(r"of channels +\S+ to \S+\n", out)
    assert max(map(len, out.splitlines())) <= 80
