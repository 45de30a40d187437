# SPDX-License-Identifier: Apache-2.0
"""The commands that look into a latent space, against fakes whose answers can be worked out by hand."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from latentwire_cli import local
from latentwire_cli.picture import GAP
from latentwire_client import Latents
from latentwire_client.testing import MODEL, FakeServer
from latentwire_core.extras import install_hint
from latentwire_core.noise import seeded_noise
from latentwire_lab import Attributes
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from tests.conftest import Run

Shape = tuple[int, int, int, int]

SIDE = 16
CALLINGS = pb.ModelInfo()
CALLINGS.CopyFrom(MODEL)
CALLINGS.name, CALLINGS.latent_space, CALLINGS.latent_channels, CALLINGS.downsample_factor = (
    "faces",
    "fake-faces@1",
    12,
    SIDE,
)
CALLINGS.fixed_size.CopyFrom(pb.ImageSize(height=SIDE, width=SIDE))


class VectorServer(FakeServer):
    """The fake for images of one size: the means of their four blocks are one vector of 12 numbers."""

    def GetServerInfo(self, request: Any, context: Any) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(version=__version__, limits=pb.Limits(), models=[CALLINGS])

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        request.target_size.CopyFrom(CALLINGS.fixed_size)
        response = super().Encode(request, context)
        latents = response.latents
        latents.latent_space, latents.model = CALLINGS.latent_space, CALLINGS.name
        for tensor in (latents.values, latents.logvar):
            if tensor.shape:
                reshape(tensor, (tensor.shape[0], 12, 1, 1))
        return response

    def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
        values = request.latents.values
        assert tuple(values.shape[1:]) == (12, 1, 1)
        reshape(values, (values.shape[0], 3, 2, 2))
        return super().Decode(request, context)

    def EncodeStream(self, request_iterator: Any, context: Any) -> Iterator[pb.EncodeStreamResponse]:
        for item in request_iterator:
            yield pb.EncodeStreamResponse(id=item.id, result=self.Encode(item.request, context))

    def DecodeStream(self, request_iterator: Any, context: Any) -> Iterator[pb.DecodeStreamResponse]:
        for item in request_iterator:
            yield pb.DecodeStreamResponse(id=item.id, result=self.Decode(item.request, context))


def reshape(tensor: pb.Tensor, shape: Shape) -> None:
    del tensor.shape[:]
    tensor.shape.extend(shape)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def spatial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of spatial latents, f = 8."""
    with FakeServer() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        yield


@pytest.fixture
def vector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of latent vectors, for images of 16x16."""
    with VectorServer() as server:
        monkeypatch.setenv("LATENTWIRE_SERVER", server.target)
        yield


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands above the pictures that are made."""
    found: list[str] = []
    for name in ("sample", "morph", "edit"):
        module = importlib.import_module(f"latentwire_cli.lab.{name}")

        def spy(rows: Any, *, title: str = "", sheet: Any = module.sheet, **texts: Any) -> Image.Image:
            found.append(title)
            picture: Image.Image = sheet(rows, title=title, **texts)
            return picture

        monkeypatch.setattr(module, "sheet", spy)
    return found


def picture(path: str) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def plain(path: str, colour: tuple[int, int, int], width: int = 16, height: int = 16) -> str:
    Image.new("RGB", (width, height), colour).save(path)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# sample
# ---------------------------------------------------------------------------------------------------------------------


def test_samples_are_the_decoded_noise_of_their_seeds(run: Run, spatial: None, titles: list[str]) -> None:
    status, out, err = run("sample", "-o", "s.png", "--count", "3", "--seed", "5", "--height", "96", "--width", "200")
    assert (status, out, err) == (0, "picture: s.png\n", "")
    shown = picture("s.png")
    assert shown.shape[1] == max(480, 2 * 200 + GAP) + 2 * GAP
    first = np.rint((seeded_noise(5, (3, 12, 25)) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    blocks = first.repeat(8, axis=1).repeat(8, axis=2).transpose(1, 2, 0)
    above = shown.shape[0] - 2 * 96 - 2 * GAP
    np.testing.assert_array_equal(shown[above : above + 96, GAP : GAP + 200], blocks)
    assert titles[0].startswith("fake: raw latents drawn from N(0, I), decoded; seeds 5 to 7\n")
    assert "gives texture. Images need a diffusion model as prior." in titles[0]


def test_samples_of_a_vector_model_have_its_size_and_no_warning(run: Run, vector: None, titles: list[str]) -> None:
    status, out, _ = run("sample", "-o", "s.png", "--count", "1", "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["latent_shape"], result["spatial"], result["seeds"]) == ([12, 1, 1], False, [0])
    assert (result["model"], result["latent_space"]) == ("faces", "fake-faces@1")
    assert titles == ["faces: raw latents drawn from N(0, I), decoded; seed 0"]
    # 16 pixels a side would hardly be seen.
    assert picture("s.png").shape[0] > 96


def test_a_vector_model_has_no_other_size(run: Run, vector: None) -> None:
    status, out, err = run("sample", "-o", "s.png", "--height", "32")
    assert (status, out) == (2, "")
    assert "faces makes images of 16x16 only; leave it out" in err
    assert not Path("s.png").exists()


def test_samples_stay_the_same_and_are_not_written_over(run: Run, spatial: None) -> None:
    assert run("sample", "-o", "deep/s.png", "--count", "2", "--height", "8", "--width", "8")[0] == 0
    before = Path("deep/s.png").read_bytes()
    status, _, err = run("sample", "-o", "deep/s.png", "--count", "2", "--height", "8", "--width", "8")
    assert (status, err) == (
        2, "error: deep/s.png exists; --overwrite replaces it, or give another name with -o\n",
    )  # fmt: skip
    run("sample", "-o", "deep/s.png", "--count", "2", "--height", "8", "--width", "8", "--overwrite")
    assert Path("deep/s.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "-o", "s.jpg"], "s.jpg does not end in .png"),
        (["sample", "-o", "folder.png"], "folder.png is a folder; give another name"),
        (
            ["sample", "-o", "s.png", "--height", str(10**11)],
            "256x100000000000; each side must be <= 8192 (serve --max-side)",
        ),
        (["sample", "-o", "s.png", "--height", "8192", "--width", "8192"], "at most 16777216 pixels are allowed"),
        (["sample", "-o", "s.png", "--count", "0"], "greater than or equal to 1"),
        (["sample", "-o", "s.png", "--seed", "-1"], "0..2^64-1"),
        (["sample", "-o", "s.png", "--seed", str(2**64 - 1), "--count", "2"], "0..2^64-1"),
        (["sample", "-o", "s.png", "--model", "other"], "has no model 'other'; it has fake"),
        (["morph", "a.png", "b.png", "-o", "m.png", "--steps", "1"], "greater than or equal to 2"),
        (["morph", "a.png", "b.png", "-o", "m.gif"], "m.gif does not end in .png"),
        (["latents-report", "folder.png", "-o", "r.png"], "folder.png holds no file of the kinds looked for"),
        (["latents-report", "a.png", "-o", "r.png", "--seed", "-1"], "0..2^64-1"),
        (["attributes", "fit", "faces", "-o", "a.st"], "a.st does not end in .safetensors"),
        (["attributes", "fit", "faces", "-o", "a.safetensors", "--held-out", "1"], "1.0 is not between 0 and 1"),
        (["attributes", "fit", "faces", "-o", "a.safetensors", "--method", "svm"], "'svm'"),
    ],
)
def test_wrong_arguments_are_one_line(run: Run, spatial: None, arguments: list[str], words: str) -> None:
    Path("folder.png").mkdir()
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


# ---------------------------------------------------------------------------------------------------------------------
# morph
# ---------------------------------------------------------------------------------------------------------------------


def test_a_morph_shows_both_ways_and_moves_there_and_back(run: Run, spatial: None, titles: list[str]) -> None:
    a, b = plain("a.png", (255, 0, 128), 128, 96), plain("b.png", (0, 255, 128), 50, 40)
    status, out, err = run("morph", a, b, "-o", "out/m.png", "--steps", "5")
    assert (status, out, err) == (0, "pictures: out/m.png, out/m.gif\n", "")
    assert titles[0].startswith("fake: from a.png to b.png (50x40, scaled and cropped to 128x96)\n")
    assert "fades into the other" in titles[0]
    strip = picture("out/m.png")
    assert strip.shape[1] == 5 * (128 + GAP) + GAP
    lower = strip[-GAP - 50, GAP + 64 :: 128 + GAP]
    np.testing.assert_allclose(lower[[0, -1]], [[255, 0, 128], [0, 255, 128]], atol=1)
    above = strip[-GAP - 96 - GAP - 70]
    # Half-way along the line both have half the colour; the sphere keeps the norm, and so more of it.
    assert abs(int(above[GAP + 2 * (128 + GAP) + 64, 0]) - 127) <= 1
    with Image.open("out/m.gif") as animation:
        assert animation.n_frames == 2 * 25 - 2  # type: ignore[attr-defined]
        assert animation.width == 2 * 128 + 3 * GAP


def test_a_morph_of_vectors_needs_no_resizing_by_the_client(run: Run, vector: None, titles: list[str]) -> None:
    a, b = plain("a.png", (255, 0, 0), 20, 20), plain("b.png", (0, 0, 255), 50, 40)
    status, out, _ = run("morph", a, b, "-o", "m.png", "--steps", "30", "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["latent_shape"], result["resized"], result["frames"]) == ([12, 1, 1], False, 30)
    assert result["norms"] == pytest.approx([12**0.5] * 2)
    assert titles[0] == "faces: from a.png to b.png"


def test_large_images_are_shown_small(run: Run, spatial: None) -> None:
    a, b = plain("a.png", (255, 0, 0), 800, 400), plain("b.png", (0, 0, 255), 800, 400)
    assert run("morph", a, b, "-o", "m.png", "--steps", "2")[0] == 0
    assert picture("m.png").shape[1] == 2 * 256 + 3 * GAP
    with Image.open("m.gif") as animation:
        assert animation.width == 2 * 192 + 3 * GAP


def test_an_image_that_cannot_be_used_is_named(run: Run, spatial: None) -> None:
    Path("broken.png").write_bytes(b"junk")
    good = plain("a.png", (1, 2, 3))
    status, out, err = run("morph", good, "broken.png", "-o", "m.png")
    assert (status, out) == (1, "")
    assert err.startswith("error: broken.png: ")
    status, _, err = run("morph", good, "missing.png", "-o", "m.png")
    assert (status, err) == (1, "error: missing.png: No such file or directory\n")
    assert not Path("m.png").exists()


def test_neither_file_of_a_morph_is_written_over(run: Run, spatial: None) -> None:
    Path("m.gif").write_bytes(b"mine")
    status, _, err = run("morph", "a.png", "b.png", "-o", "m.png")
    assert status == 2
    assert "m.gif exists; --overwrite replaces it" in err
    assert Path("m.gif").read_bytes() == b"mine"


# ---------------------------------------------------------------------------------------------------------------------
# latents-report
# ---------------------------------------------------------------------------------------------------------------------


def noisy_images(folder: str, count: int, side: int = 16) -> str:
    Path(folder).mkdir()
    for number in range(count):
        # Uniform with a standard deviation of 1: in the fake's latents, which are means of [-1, 1], about 1 / 8.
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{number:03d}.png")
    return folder


def test_a_report_says_what_the_statistics_say(run: Run, spatial: None) -> None:
    folder = noisy_images("images", 6, 64)
    Path("images/x.png").write_bytes(b"junk")
    status, out, err = run("latents-report", folder, "-o", "r.png", "--json")
    assert status == 1
    result = json.loads(out)
    assert err.startswith("error: images/x.png: ")
    assert (result["images"], result["observations"], result["spatial"]) == (6, 6 * 64, True)
    assert [result["failures"][0]["path"], len(result["failures"])] == ["images/x.png", 1]
    # The mean of 64 uniform numbers, and a posterior that is as good as a point.
    assert result["std"] == pytest.approx([3**-0.5 / 8] * 3, rel=0.1)
    assert result["total_kl_nats"] == pytest.approx(3 * 64 * (30 - 1) / 2, rel=0.01)
    assert (result["active_dimensions"], result["is_close"]) == (0, False)
    assert np.abs(result["neighbour_correlation"]).max() < 0.2
    assert np.shape(result["correlation"]) == (3, 3)
    assert min(picture("r.png").shape[:2]) > 500


def test_a_report_of_vectors_says_its_verdict_in_a_line(run: Run, vector: None) -> None:
    folder = noisy_images("images", 40)
    status, out, err = run("latents-report", folder, "-o", "r.png")
    assert (status, err) == (0, "")
    verdict, where = out.splitlines()
    assert verdict.startswith("faces: not close to N(0, I): |std - 1| ")
    assert where == "picture: r.png"
    assert picture("r.png").std() > 20


def test_a_report_of_nothing_fails_with_the_reason(run: Run, vector: None) -> None:
    Path("broken.png").write_bytes(b"junk")
    status, _, err = run("latents-report", "missing.png", "-o", "r.png")
    assert (status, err) == (1, "error: missing.png: No such file or directory\n")
    status, _, err = run("latents-report", plain("a.png", (1, 2, 3)), "-o", "r.png")
    assert (status, err.count("\n")) == (1, 1)
    assert "1 observations of each dimension; 2 are needed" in err


def test_a_report_needs_the_extra_that_it_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    status, _, err = run("latents-report", "a.png", "-o", "r.png")
    assert (status, err) == (2, f"error: this needs the lab extra: {install_hint('lab')}\n")


# ---------------------------------------------------------------------------------------------------------------------
# attributes, edit
# ---------------------------------------------------------------------------------------------------------------------

RED, CYAN = (200, 100, 100), (100, 120, 120)


@pytest.fixture
def faces() -> str:
    """60 images in CelebA's layout: red or not, by a coin, and an attribute that all have; the last are the test."""
    folder = Path("faces")
    (folder / "img_align_celeba").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows, parts = [], []
    for number in range(60):
        name = f"{number:06d}.png"
        red, coin = number % 2, generator.integers(2)
        pixels = np.array(RED if red else CYAN) + generator.integers(-20, 21, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "img_align_celeba" / name)
        rows.append(f"{name},{2 * red - 1},{2 * coin - 1},1")
        parts.append(f"{name} {0 if number < 40 else 2}")
    (folder / "list_attr_celeba.csv").write_text("image_id,Red,Coin,Human\n" + "\n".join(rows) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return str(folder)


@pytest.mark.parametrize("method", ["means", "logistic"])
def test_a_true_attribute_is_told_from_a_coin(run: Run, vector: None, faces: str, method: str) -> None:
    status, out, err = run("attributes", "fit", faces, "-o", "a.safetensors", "--method", method)
    assert status == 1  # one cannot be fitted; the others are all the same
    assert err == "error: Human: 40 of the 40 images to fit to have it; both kinds are needed\n"
    assert max(map(len, out.splitlines())) <= 100
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].isalpha()}
    assert "100.0" in rows["Red"]
    assert "chance" not in rows["Red"]
    assert rows["Coin"].rstrip().endswith("chance")
    assert "attribute vectors: a.safetensors" in out
    found = Attributes.load("a.safetensors")
    assert (list(found.vectors), found.method, found.image_size) == (["Red", "Coin"], method, (16, 16))
    assert (found.model, found.latent_space) == ("faces", "fake-faces@1")
    held_out = found.vectors["Red"].held_out
    assert (held_out.with_all, held_out.without_all, found.vectors["Red"].fitted_with) == (10, 10, 20)


def test_the_table_of_a_file_can_be_seen_again(run: Run, vector: None, faces: str) -> None:
    _, fitted, _ = run("attributes", "fit", faces, "-o", "a.safetensors", "--json")
    status, shown, _ = run("attributes", "show", "a.safetensors", "--json")
    assert status == 0
    one, other = json.loads(fitted), json.loads(shown)
    assert one["attributes"] == other["attributes"]
    assert other["attributes"][0]["balanced_accuracy"]["low"] > 0.5
    assert (other["attributes"][0]["beats_chance"], other["attributes"][1]["beats_chance"]) == (True, False)
    assert "balanced" in run("attributes", "show", "a.safetensors")[1]


def test_a_share_can_be_held_out_by_name_and_images_left_out(run: Run, vector: None, faces: str) -> None:
    arguments = ("attributes", "fit", faces, "-o", "a.safetensors", "--held-out", "0.5", "--limit", "30", "--json")
    status, out, _ = run(*arguments)
    result = json.loads(out)["attributes"][0]
    measured = result["held_out"]["with_all"] + result["held_out"]["without_all"]
    assert result["fitted_with"] + result["fitted_without"] + measured == 30
    assert 8 < measured < 22
    assert json.loads(run(*arguments, "--overwrite")[1])["attributes"][0] == result
    assert status == 1


def test_damaged_images_and_labels_are_named_and_left_out(run: Run, spatial: None, faces: str) -> None:
    good = Path(faces, "img_align_celeba", "000000.png")
    good.write_bytes(good.read_bytes()[:300])  # the header is whole: found only when it is encoded
    Path(faces, "img_align_celeba", "extra.png").write_bytes(good.read_bytes())
    status, _, err = run("attributes", "fit", faces, "-o", "a.safetensors")
    assert status == 1
    assert "note: left out or odd in faces: extra.png: has no usable row in list_attr_celeba.csv" in err
    assert "error: faces/img_align_celeba/000000.png: " in err
    assert Attributes.load("a.safetensors").vectors["Red"].fitted_without == 19


def test_images_of_other_sizes_are_given_that_of_the_first(run: Run, spatial: None, faces: str) -> None:
    plain(f"{faces}/img_align_celeba/000003.png", RED, 40, 24)
    run("attributes", "fit", faces, "-o", "a.safetensors")
    found = Attributes.load("a.safetensors")
    assert (found.image_size, found.latent_shape) == ((16, 16), (3, 2, 2))


def test_a_folder_in_another_layout_is_refused(run: Run, spatial: None) -> None:
    noisy_images("images", 1)
    status, out, err = run("attributes", "fit", "images", "-o", "a.safetensors")
    assert (status, out, err) == (1, "", "error: images has no folder img_align_celeba; give the folder above it\n")


def test_where_nothing_can_be_fitted_nothing_is_written(run: Run, spatial: None, faces: str) -> None:
    path = Path(faces, "list_attr_celeba.csv")
    path.write_text(
        "\n".join(line.rsplit(",", 3)[0] + "," + line.rsplit(",", 1)[1] for line in path.read_text().split())
    )
    status, out, err = run("attributes", "fit", faces, "-o", "a.safetensors")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: Human: ")
    assert not Path("a.safetensors").exists()


def test_an_edit_shows_original_decoded_and_edited(run: Run, vector: None, faces: str, titles: list[str]) -> None:
    run("attributes", "fit", faces, "-o", "a.safetensors")
    image = plain("cyan.png", CYAN, 24, 20)
    status, out, err = run(
        "edit", image, "--attributes", "a.safetensors", "--attribute", "Red=+1", "--attribute", "Coin=0", "-o", "e.png"
    )
    assert (status, out, err) == (0, "picture: e.png\n", "")
    shown = picture("e.png")
    assert titles == [
        "faces: cyan.png, Red +1 (100% balanced accuracy); "
        f"Coin +0 ({Attributes.load('a.safetensors').vectors['Coin'].held_out.balanced_accuracy.value:.0%} "
        "balanced accuracy, no better than chance)"
    ]
    # 16 pixels, shown as 96; a column is at least as wide as its caption.
    colours = {tuple(map(int, colour)) for colour in shown[-GAP - 48, ::16]}
    assert CYAN in colours
    assert any(np.abs(np.subtract(colour, RED)).max() <= 8 for colour in colours)


def test_a_sweep_goes_from_minus_to_plus(run: Run, vector: None, faces: str) -> None:
    run("attributes", "fit", faces, "-o", "a.safetensors")
    image = plain("grey.png", (150, 110, 110))
    status, out, _ = run(
        "edit", image, "--attributes", "a.safetensors", "--attribute", "Red=0.5", "-o", "e.png", "--sweep", "--json"
    )
    assert status == 0
    assert json.loads(out)["pictures"] == ["e.png", "e.gif"]
    reds = picture("e.png")[-GAP - 48, GAP + 48 :: 96 + GAP, 0].astype(int)
    assert len(reds) == 9
    assert (np.diff(reds) > 0).all()
    assert (reds[0], reds[4], reds[-1]) == pytest.approx((100, 150, 200), abs=8)
    with Image.open("e.gif") as animation:
        assert animation.n_frames == 48  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (["Red"], "'Red' is not of the form NAME=STRENGTH"),
        (["Red=much"], "'Red=much' is not of the form"),
        (["Red=nan"], "'Red=nan' is not of the form"),
        (["=1"], "'=1' is not of the form"),
        (["Smiling=1"], "Smiling is not one of Red, Coin"),
        (["Red=1", "Red=2"], "Red is given twice"),
    ],
)
def test_an_edit_that_means_nothing_is_refused(
    run: Run, vector: None, faces: str, attribute: list[str], words: str
) -> None:
    run("attributes", "fit", faces, "-o", "a.safetensors")
    options = [part for each in attribute for part in ("--attribute", each)]
    status, out, err = run("edit", "x.png", "--attributes", "a.safetensors", *options, "-o", "e.png")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_vectors_of_another_model_are_refused(run: Run, spatial: None) -> None:
    vectors = Attributes.load(other_models_vectors()).vectors
    assert list(vectors) == ["Red"]
    status, out, err = run(
        "edit", plain("a.png", RED), "--attributes", "other.safetensors", "--attribute", "Red=1", "-o", "e.png"
    )
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "'latentwire-fake@1'" in err
    assert "'other@1'" in err
    assert not Path("e.png").exists()


def other_models_vectors() -> Path:
    from latentwire_lab import fit_attributes

    values = np.random.default_rng(0).normal(size=(20, 3, 2, 2)).astype(np.float32)
    labels = np.where(np.arange(20) % 2, 1, -1)
    latents = Latents(values, image_size=(16, 16), latent_space="other@1")
    return fit_attributes(latents, {"Red": labels}, np.arange(20) % 5 < 2).save("other.safetensors")


# ---------------------------------------------------------------------------------------------------------------------
# Light
# ---------------------------------------------------------------------------------------------------------------------


def test_all_of_it_works_without_torch(faces: str) -> None:
    image = f"{faces}/img_align_celeba/000001.png"
    script = f"""
import sys
from latentwire_cli import main
from latentwire_client.testing import FakeServer
with FakeServer() as server:
    for command in (
        "sample -o s.png --count 2", "morph {image} {image} -o m.png", "latents-report {image} -o r.png",
        "attributes fit {faces} -o a.safetensors", "edit {image} --attributes a.safetensors --attribute Red=1 -o e.png",
    ):
        status = main([*command.split(), "--server", server.target])
        assert status == (1 if "fit" in command else 0), (command, status)
assert not {{"torch", "diffusers", "latentwire_server.app"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
