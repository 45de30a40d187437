# SPDX-License-Identifier: Apache-2.0
"""The commands that look into a latent space, with real models: the bundled one, and a small one of latent vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_cli.picture import GAP
from latentwire_client import Client
from latentwire_codec import AutoencoderVectorVAE
from latentwire_lab import Attributes, posterior_statistics
from tests.conftest import Pixels, Run

SIDE, DIMENSIONS = 32, 24


@pytest.fixture(scope="session")
def vector_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small untrained VAE of latent vectors, for images of 32x32."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vector-vae")
    AutoencoderVectorVAE(image_size=SIDE, latent_dim=DIMENSIONS, width=4).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def environment(target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTWIRE_SERVER", target)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(astronaut: Pixels) -> tuple[str, str]:
    """Two photographs of two sizes."""
    Image.fromarray(astronaut[:96, 100:180]).save("face.png")
    Image.fromarray(astronaut[200:250, 200:277]).save("suit.png")
    return "face.png", "suit.png"


@pytest.fixture
def labelled(astronaut: Pixels) -> str:
    """A folder in CelebA's layout: pieces of a photograph, some darkened."""
    folder = Path("labelled")
    (folder / "img_align_celeba").mkdir(parents=True)
    rows = []
    for number in range(48):
        top, left = 10 * (number % 24), 15 * (number % 24)
        piece = astronaut[top : top + SIDE, left : left + SIDE].astype(np.float64)
        dark = number >= 24
        Image.fromarray((piece * (0.3 if dark else 1)).astype(np.uint8)).save(
            folder / "img_align_celeba" / f"{number}.png"
        )
        rows.append(f"{number}.png {1 if dark else -1}")
    (folder / "list_attr_celeba.txt").write_text("48\nDark\n" + "\n".join(rows) + "\n")
    return str(folder)


def test_samples_of_the_bundled_model_are_texture_of_the_size_asked_for(run: Run) -> None:
    status, out, err = run("sample", "-o", "s.png", "--count", "2", "--height", "97", "--width", "100", "--json")
    assert (status, err) == (0, "")
    assert (json.loads(out)["latent_shape"], json.loads(out)["spatial"]) == ([4, 13, 13], True)
    with Image.open("s.png") as picture:
        assert np.asarray(picture)[-60, :200].std() > 10


def test_a_morph_of_photographs_begins_and_ends_with_their_reconstructions(
    run: Run, target: str, photos: tuple[str, str]
) -> None:
    assert run("morph", *photos, "-o", "m.png", "--steps", "3", "--model", "f8c4")[0] == 0
    with Client(target) as client:
        pixels = np.asarray(client.decode(client.encode("face.png", dtype="float32"))).astype(int)
    with Image.open("m.png") as image:
        picture = np.asarray(image).astype(int)
    # The first image of the lower row, shown twice as large.
    found = picture[-GAP - 2 * 96 : -GAP : 2, GAP : GAP + 2 * 80 : 2]
    assert np.abs(found - pixels).max() <= 1


def test_the_report_agrees_with_statistics_of_the_clients_moments(
    run: Run, target: str, photos: tuple[str, str]
) -> None:
    status, out, err = run("latents-report", *photos, "-o", "r.png", "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    with Client(target) as client:
        expected = posterior_statistics(client.encode(list(photos), kind="moments", dtype="float32"))
    assert result["ks"] == pytest.approx(expected.ks.tolist(), abs=1e-5)
    assert result["total_kl_nats"] == pytest.approx(expected.total_kl)
    assert result["observations"] == 12 * 10 + 7 * 10
    assert (result["is_close"], result["model"]) == (False, "f8c4")


def test_an_attribute_of_spatial_latents_is_found_and_edited(run: Run, labelled: str) -> None:
    status, out, _ = run("attributes", "fit", labelled, "-o", "a.safetensors", "--held-out", "0.3")
    assert status == 0
    assert "Dark" in out
    attributes = Attributes.load("a.safetensors")
    assert (attributes.model, attributes.latent_shape) == ("f8c4", (4, 4, 4))
    assert attributes.vectors["Dark"].held_out.beats_chance
    image = f"{labelled}/img_align_celeba/5.png"
    status, _, err = run("edit", image, "--attributes", "a.safetensors", "--attribute", "Dark=1", "-o", "e.png")
    assert (status, err) == (0, "")
    status, _, err = run(
        "edit", image, "--attributes", "a.safetensors", "--attribute", "Dark=1", "-o", "f.png", "--model", "tiny"
    )
    assert (status, err.count("\n")) == (1, 1)
    assert "latentwire-f8c4@" in err


def test_a_model_of_latent_vectors_is_looked_into_on_this_machine(
    run: Run, vector_vae: Path, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATENTWIRE_SERVER")
    here = ("--local", "--model", str(vector_vae))
    images = f"{labelled}/img_align_celeba"
    status, out, _ = run("sample", "-o", "s.png", "--count", "3", "--json", *here)
    assert (status, json.loads(out)["latent_shape"]) == (0, [DIMENSIONS, 1, 1])
    status, out, _ = run("morph", f"{images}/1.png", f"{images}/7.png", "-o", "m.png", "--json", *here)
    assert (status, json.loads(out)["resized"]) == (0, False)
    status, out, _ = run("latents-report", images, "-o", "r.png", "--json", *here)
    result = json.loads(out)
    assert (status, result["images"], result["observations"]) == (0, 48, 48)
    assert (len(result["kl_nats"]), result["neighbour_correlation"]) == (DIMENSIONS, None)
    assert run("attributes", "fit", labelled, "-o", "a.safetensors", "--method", "logistic", *here)[0] == 0
    attributes = Attributes.load("a.safetensors")
    assert (attributes.image_size, attributes.latent_shape) == ((SIDE, SIDE), (DIMENSIONS, 1, 1))
    # The untrained network's latents are the lowest frequencies of the image, so that brightness is one of them.
    assert attributes.vectors["Dark"].held_out.beats_chance
    arguments = ("--attributes", "a.safetensors", "--attribute", "Dark=2", "-o", "e.png")
    assert run("edit", f"{images}/5.png", *arguments, *here)[0] == 0
    assert {path.name for path in Path().glob("*.png")} == {"s.png", "m.png", "r.png", "e.png"}
