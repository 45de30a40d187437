# SPDX-License-Identifier: Apache-2.0
"""The command against a real `latentwire serve` process, and with the model in its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from latentwire_client import Client, Latents
from latentwire_server.app import Server
from tests.conftest import Pixels, Run, files

PROGRAM = str(Path(sys.executable).with_name("latentwire"))
TOKEN = "open sesame"


@pytest.fixture(scope="module")
def address(start_server: Callable[..., AbstractContextManager[tuple[object, str]]], tiny_kl: Path) -> Iterator[str]:
    """The address of a server with the bundled model and a small one, which asks for a token."""
    with start_server("--model", "f8c4", "--model", f"tiny={tiny_kl}", "--token", TOKEN) as (_, address):
        yield address


@pytest.fixture(autouse=True)
def environment(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server and its token are known from variables; relative paths are below a folder of the test's own."""
    monkeypatch.setenv("LATENTWIRE_SERVER", address)
    monkeypatch.setenv("LATENTWIRE_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(astronaut: Pixels) -> Path:
    """A folder with photographs of two sizes, of which one is in a folder of its own."""
    folder = Path("photos")
    (folder / "more").mkdir(parents=True)
    Image.fromarray(astronaut[:96, 100:180]).save(folder / "face.png")
    Image.fromarray(astronaut[200:250, 200:277]).save(folder / "more" / "suit.jpg", quality=95)
    return folder


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# ---------------------------------------------------------------------------------------------------------------------
# encode, decode
# ---------------------------------------------------------------------------------------------------------------------


def test_encode_writes_the_moments_of_every_image_in_a_folder(run: Run, photos: Path) -> None:
    status, out, err = run("encode", str(photos), "-o", "latents")
    assert (status, err) == (0, "")
    assert out.startswith("wrote the latents of 2 of 2 images to latents (")
    assert files("latents") == {"face.safetensors", "more/suit.safetensors"}
    with safe_open(Path("latents/more/suit.safetensors"), framework="numpy") as file:
        assert set(file.keys()) == {"mean", "logvar"}
        assert file.get_tensor("mean").dtype == np.float32
        metadata = file.metadata()
    assert (metadata["shape"], metadata["image_height"], metadata["image_width"]) == ("1x4x7x10", "50", "77")
    assert metadata["model"] == "f8c4"
    assert metadata["latent_space"].startswith("latentwire-f8c4@")
    assert len(metadata["weights_digest"]) == 64


def test_decode_writes_images_of_the_original_size(run: Run, photos: Path) -> None:
    run("encode", str(photos), "-o", "latents")
    status, out, err = run("decode", "latents", "-o", "images")
    assert (status, err) == (0, "")
    assert out.startswith("wrote the images of 2 of 2 files to images (")
    assert size_of("images/face.png") == (80, 96)
    assert size_of("images/more/suit.png") == (77, 50)


@pytest.mark.parametrize(("image_format", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp"), ("avif", ".avif")])
def test_decode_writes_the_format_that_is_asked_for(run: Run, photos: Path, image_format: str, suffix: str) -> None:
    run("encode", str(photos / "face.png"), "-o", "latents")
    assert run("decode", "latents", "-o", "images", "--format", image_format, "--quality", "70")[0] == 0
    with Image.open(f"images/face{suffix}") as image:
        assert (image.format, image.size) == (image_format.upper(), (80, 96))


def test_a_file_of_several_latents_becomes_numbered_images(run: Run, address: str) -> None:
    with Client(address) as client:
        client.encode(np.zeros((3, 16, 24, 3), np.uint8)).save("batch.safetensors")
    status, out, _ = run("decode", "batch.safetensors", "-o", "images", "--json")
    assert status == 0
    names = [f"images/batch-{index}.png" for index in range(3)]
    assert json.loads(out)["results"] == [{"latents": "batch.safetensors", "images": names}]
    assert all(size_of(name) == (24, 16) for name in names)


def test_numbered_images_replace_nothing(run: Run, address: str) -> None:
    with Client(address) as client:
        client.encode(np.zeros((2, 16, 16, 3), np.uint8)).save("a.safetensors")
        client.encode(np.zeros((16, 16, 3), np.uint8)).save("a-1.safetensors")
    Path("images").mkdir()
    Path("images/a-0.png").write_bytes(b"mine")
    status, _, err = run("decode", "a-1.safetensors", "a.safetensors", "-o", "images")
    assert (status, files("images")) == (1, {"a-0.png", "a-1.png"})
    assert (
        err
        == "error: a.safetensors: images/a-0.png exists; --overwrite replaces it, or write to another folder with -o\n"
    )
    status, _, err = run("decode", "a-1.safetensors", "a.safetensors", "-o", "images", "--overwrite")
    assert status == 1
    assert "images/a-1.png was already written for a-1.safetensors" in err
    assert Path("images/a-0.png").read_bytes() == b"mine"


def test_a_sample_depends_on_its_seed_alone(run: Run, photos: Path, address: str) -> None:
    image = str(photos / "face.png")
    assert run("encode", image, "-o", "seven", "--kind", "sample", "--seed", "7", "--scaled")[0] == 0
    assert run("encode", image, "-o", "zero", "--kind", "sample")[0] == 0
    with Client(address) as client:
        for folder, seed, scaled in (("seven", 7, True), ("zero", 0, False)):
            wanted = client.encode(image, kind="sample", seeds=[seed], scaled=scaled, dtype="float32")
            written = Latents.load(f"{folder}/face.safetensors")
            assert written.scaled == scaled
            np.testing.assert_array_equal(written.values, wanted.values)


def test_size_and_dtype_are_passed_on(run: Run, photos: Path) -> None:
    assert run("encode", str(photos), "-o", "latents", "--size", "64x32", "--dtype", "float16")[0] == 0
    latents = Latents.load("latents/face.safetensors")
    assert (latents.image_size, latents.values.shape) == ((32, 64), (1, 4, 4, 8))
    assert latents.values.dtype == np.float16


def test_a_bad_file_is_listed_and_the_others_are_done(run: Run, photos: Path) -> None:
    (photos / "broken.png").write_bytes((photos / "face.png").read_bytes()[:300])
    (photos / "empty.jpg").write_bytes(b"")
    status, out, err = run("encode", str(photos), "missing.png", "-o", "latents")
    assert status == 1
    assert out.startswith("wrote the latents of 2 of 5 images")
    assert files("latents") == {"face.safetensors", "more/suit.safetensors"}
    lines = sorted(err.splitlines())
    assert [line.split(": ")[:2] for line in lines] == [
        ["error", "missing.png"], ["error", "photos/broken.png"], ["error", "photos/empty.jpg"]
    ]  # fmt: skip
    assert "No such file or directory" in lines[0]
    assert "truncated, damaged" in lines[1]
    assert "0 bytes" in lines[2]


def test_json_tells_results_from_failures(run: Run, photos: Path) -> None:
    status, out, _ = run("encode", str(photos / "face.png"), "missing.png", "-o", "latents", "--json")
    document: dict[str, Any] = json.loads(out)
    assert status == 1
    (result,) = document["results"]
    assert (result["image"], result["latents"]) == ("photos/face.png", "latents/face.safetensors")
    assert (result["width"], result["height"], result["latent_shape"]) == (80, 96, [4, 12, 10])
    assert document["failures"] == [{"path": "missing.png", "error": "No such file or directory"}]


def test_a_file_that_holds_no_latents_is_listed(run: Run, photos: Path, tiny_kl: Path) -> None:
    run("encode", str(photos / "face.png"), "-o", "latents")
    Path("latents/junk.safetensors").write_bytes(b"junk")
    foreign = next(tiny_kl.glob("*.safetensors"))
    status, out, err = run("decode", "latents", str(foreign), "-o", "images")
    assert (status, files("images")) == (1, {"face.png"})
    assert "1 of 3 files" in out
    assert err.count("\n") == 2
    assert "cannot be read as safetensors" in err
    assert "latents are 'latentwire.latents/1'" in err


def test_latents_of_another_space_are_refused(run: Run) -> None:
    Latents(np.zeros((1, 4, 4, 4), np.float32), latent_space="sd1").save("sd.safetensors")
    status, out, err = run("decode", "sd.safetensors", "-o", "images")
    assert (status, out) == (1, "")
    assert err.startswith("error: sd.safetensors: ")
    assert "sd1" in err


# ---------------------------------------------------------------------------------------------------------------------
# roundtrip
# ---------------------------------------------------------------------------------------------------------------------


def test_roundtrip_shows_what_is_lost_and_writes_pictures(run: Run, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"junk")
    status, out, err = run("roundtrip", str(photos), "-o", "pictures")
    assert status == 1
    assert err.startswith("error: photos/broken.png: ")
    assert files("pictures") == {"face.roundtrip.png", "more/suit.roundtrip.png"}
    assert max(map(len, out.splitlines())) <= 80
    for words in ("face.png", "80x96", "4x12x10", "23.0 kB", "960 B", "24.0", "PSNR", "SSIM", "compute", "mean"):
        assert words in out, words
    assert "pictures: pictures/*.roundtrip.png" in out
    width, height = size_of("pictures/face.roundtrip.png")
    assert width > 3 * 80
    assert height > 96


def test_roundtrip_numbers_agree_with_each_other(run: Run, photos: Path) -> None:
    status, out, _ = run("roundtrip", str(photos / "more"), "-o", "pictures", "--json")
    assert status == 0
    (result,) = json.loads(out)["results"]
    assert (result["width"], result["height"], result["latent_shape"]) == (77, 50, [4, 7, 10])
    assert (result["raw_bytes"], result["latent_bytes"]) == (77 * 50 * 3, 4 * 7 * 10 * 2)
    assert result["ratio"] == pytest.approx(77 * 50 * 3 / 560)
    assert result["file_bytes"] == (photos / "more" / "suit.jpg").stat().st_size
    assert 15 < result["psnr_db"] < 60
    assert 0.3 < result["ssim"] <= 1
    stages = [result[call][f"{stage}_s"] for call in ("encode", "decode") for stage in ("queue", "compute", "coding")]
    assert all(seconds >= 0 for seconds in stages)
    assert sum(stages) <= result["wall_s"]
    assert result["encode"]["model"] == result["decode"]["model"] == "f8c4"


def test_an_image_too_small_for_ssim_still_has_a_row(run: Run) -> None:
    Image.new("RGB", (5, 3), "red").save("dot.png")
    status, out, err = run("roundtrip", "dot.png", "-o", "pictures")
    assert (status, err) == (0, "")
    assert "5x3" in out
    assert "pictures: pictures/dot.roundtrip.png" in out


# ---------------------------------------------------------------------------------------------------------------------
# Servers and models
# ---------------------------------------------------------------------------------------------------------------------


def test_info_lists_models_and_limits(run: Run, address: str) -> None:
    status, out, _ = run("info")
    assert status == 0
    assert out.splitlines()[0].endswith(f" at {address}")
    for words in ("f8c4", "tiny", "AutoencoderKL", "float32 on cpu, rewritten", "67,108,864"):
        assert words in out
    document = json.loads(run("info", "--json")[1])
    assert [model["name"] for model in document["models"]] == ["f8c4", "tiny"]
    assert document["limits"]["max_image_side"] == 8192


def test_health_is_a_line_and_a_status(run: Run, address: str) -> None:
    assert run("health") == (0, f"serving at {address}\n", "")


def test_another_model_can_be_named(run: Run, photos: Path) -> None:
    assert run("encode", str(photos / "face.png"), "-o", "latents", "--model", "tiny")[0] == 0
    assert Latents.load("latents/face.safetensors").model == "tiny"


@pytest.mark.parametrize("command", ["encode", "roundtrip"])
def test_an_unknown_model_is_said_once(run: Run, photos: Path, command: str) -> None:
    status, out, err = run(command, str(photos), "-o", "out", "--model", "sdxl")
    assert (status, out) == (2, "")
    assert err == "error: no model 'sdxl' is served here; there is f8c4, tiny\n"


def test_a_missing_token_is_one_line(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATENTWIRE_TOKEN")
    status, _, err = run("encode", str(photos), "-o", "latents")
    assert status == 2
    assert err.count("\n") == 1
    assert "token" in err
    assert run("encode", str(photos), "-o", "latents", "--token", TOKEN)[0] == 0


def test_local_needs_no_server_and_gives_the_same_latents(
    run: Run, photos: Path, tiny_kl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(photos / "face.png")
    run("encode", image, "-o", "served", "--model", "tiny")
    monkeypatch.setenv("LATENTWIRE_SERVER", "127.0.0.1:1")
    assert run("encode", image, "-o", "local", "--local", "--model", str(tiny_kl))[0] == 0
    served, local = (Latents.load(f"{folder}/face.safetensors") for folder in ("served", "local"))
    np.testing.assert_allclose(local.values, served.values, atol=1e-5)
    assert local.weights_digest == served.weights_digest


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nothing", "no model 'nothing': it is neither a bundled one (f8c32, f8c4) nor a folder"),
        ("somebody/no-such-vae", "`hf download somebody/no-such-vae`"),
        ("photos", "photos has no config.json"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(run: Run, photos: Path, model: str, words: str) -> None:
    status, out, err = run("encode", str(photos), "-o", "latents", "--local", "--model", model)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def serve(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PROGRAM, "serve", *flags], capture_output=True, text=True, check=False)


def test_a_second_server_on_the_same_port_fails_with_a_clear_line(address: str) -> None:
    ended = serve("--port", address.rpartition(":")[2])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(
        f"error: cannot listen on {address}: Address already in use; choose another with --port"
    )
    assert "Traceback" not in ended.stderr


def test_a_certificate_and_a_key_that_cannot_be_used_fail_with_a_line_that_names_them(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text("no certificate")
    key.write_text("no key")
    ended = serve("--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(
        f"error: cannot use the certificate {certificate} with the key {key}: "
    )
    assert "Traceback" not in ended.stderr


def test_serve_says_how_to_download_a_hub_id_that_is_not_cached() -> None:
    ended = serve("--port", "0", "--model", "somebody/no-such-vae")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "`hf download somebody/no-such-vae`" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_finished_stream_does_not_count_as_cancelled(server: Server, photos: Path) -> None:
    registry = server.metrics.registry

    def cancelled() -> float:
        labels = {"method": "EncodeStream", "code": "CANCELLED"}
        return registry.get_sample_value("latentwire_requests_total", labels) or 0.0

    before = cancelled()
    with Client(f"127.0.0.1:{server.port}") as client:
        assert len(client.encode([photos / "face.png"] * 3, model="tiny")) == 3
    assert cancelled() == before
