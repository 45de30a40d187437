# SPDX-License-Identifier: Apache-2.0
"""A seed in, drawn faces with true attributes out, alone and as a folder."""

import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from latentwire_cli import main
from latentwire_codec.images.files import read_image
from latentwire_core.errors import DataError
from latentwire_core.formats import ImageFormat
from latentwire_lab.faces import ATTRIBUTES, NAMES, Attribute, Face, draw, random_face, write_folder
from latentwire_lab.faces.folder import LABELS, NOTE, PARTITION
from latentwire_lab.faces.sketch import Pose
from latentwire_train.data.celeba import IMAGES, scan_celeba
from latentwire_train.data.crops import area_shrink

# CelebA's 40 names, as its label file writes them.
CELEBA_NAMES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie
Young
"""
COLOURS = {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
# What never goes together, and why is told in attributes.py.
COUPLED = [
    {"Bald", other} for other in (*COLOURS, "Bangs", "Straight_Hair", "Wavy_Hair")
] + [
    {"Gray_Hair", "Young"}, {"Straight_Hair", "Wavy_Hair"},
    {"Wearing_Lipstick", "Goatee"}, {"Wearing_Lipstick", "Mustache"},
    *({first, second} for first in COLOURS for second in COLOURS if first < second),
]  # fmt: skip

HEAD = (-1.4, 1.4, -1.4, 1.6)
MOUTH = (-0.45, 0.45, 0.4, 1.05)
# Where each attribute lives: left, right, top and bottom in half heights of the head, from its middle.
REGIONS = {
    "Bald": HEAD, "Straight_Hair": HEAD, "Wavy_Hair": HEAD, **dict.fromkeys(COLOURS, HEAD),
    "Bangs": (-0.8, 0.8, -1.15, -0.05), "Wearing_Hat": (-1.5, 1.5, -1.7, -0.25),
    "Oval_Face": (-1.6, 1.6, -1.4, 1.6), "Pale_Skin": (-1.1, 1.1, -1.1, 1.65), "Young": (-0.8, 0.8, -0.75, 1.0),
    "Bushy_Eyebrows": (-0.75, 0.75, -0.55, 0.05), "Narrow_Eyes": (-0.7, 0.7, -0.25, 0.3),
    "Eyeglasses": (-1.0, 1.0, -0.35, 0.42), "Rosy_Cheeks": (-0.9, 0.9, 0.0, 0.75),
    "Big_Nose": (-0.4, 0.4, -0.25, 0.65), "Pointy_Nose": (-0.4, 0.4, -0.25, 0.65),
    "Big_Lips": MOUTH, "Wearing_Lipstick": MOUTH, "Smiling": (-0.85, 0.85, 0.1, 1.05), "Goatee": (-0.5, 0.5, 0.6, 1.35),
    "Mustache": (-0.55, 0.55, 0.35, 0.8), "Mouth_Slightly_Open": (-0.9, 0.9, 0.35, 1.45),  # the chin drops with it
    "Wearing_Earrings": (-1.2, 1.2, 0.1, 0.85), "Wearing_Necktie": (-1.7, 1.7, 0.9, 2.0),
}  # fmt: skip

# The attributes of the face (0, 0).
GOLDEN_ATTRIBUTES = {
    "Big_Lips", "Big_Nose", "Brown_Hair", "Eyeglasses", "Mouth_Slightly_Open", "Oval_Face", "Pale_Skin", "Rosy_Cheeks",
    "Straight_Hair", "Young",
}  # fmt: skip
GOLDEN_STRENGTHS = (0.6443840681728986, 0.43459881495776, 0.07065887146233196)
GOLDEN_NUMBERS = {
    "yaw": 0.02099368796740514,
    "skin_red": 0.8320318262338654,
    "hair_part": -0.1658314565693551,
    "backdrop_hue": 0.014673627184543792,
    "light_warmth": -0.9093525056479586,
}
GOLDEN_BLOCKS = [
    [[217, 132, 137], [178, 120, 109], [181, 114, 103], [219, 127, 117]],
    [[218, 151, 147], [172, 144, 134], [165, 136, 124], [213, 129, 120]],
    [[204, 137, 134], [191, 152, 145], [178, 140, 132], [216, 128, 120]],
    [[207, 145, 144], [193, 186, 162], [176, 164, 142], [206, 134, 123]],
]


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    return [random_face(1, n) for n in range(2000)]


def rivals(name: str) -> set[str]:
    """What a face cannot have together with an attribute."""
    return {other for pair in COUPLED if name in pair for other in pair - {name}}


def with_and_without(face: Face, name: str) -> tuple[Face, Face]:
    """The same face twice, as the couplings allow it."""
    face = face.given(remove=rivals(name))
    return face.given(add=[name]), face.given(remove=[name])


# ---------------------------------------------------------------------------------------------------------------------
# Descriptions
# ---------------------------------------------------------------------------------------------------------------------


def test_the_first_face_is_the_one_it_always_was() -> None:
    face = random_face(0, 0)
    assert face.attributes == GOLDEN_ATTRIBUTES
    numbers = [getattr(face, name) for name in GOLDEN_NUMBERS]
    assert numbers == list(GOLDEN_NUMBERS.values())
    assert face.strengths[:3] == GOLDEN_STRENGTHS
    assert hash(face) == hash(random_face(0, 0))


def test_a_face_depends_on_seed_and_number() -> None:
    assert random_face(3, 7) == random_face(3, 7)
    assert len({random_face(seed, n) for seed in range(3) for n in range(20)}) == 60
    with pytest.raises(ValueError, match="seed is -1"):
        random_face(-1, 0)


def test_names_are_celebas_in_its_order() -> None:
    assert [name for name in CELEBA_NAMES.split() if name in NAMES] == list(NAMES)
    assert {attribute.name for attribute in ATTRIBUTES} == set(NAMES) == set(REGIONS)


def test_classes_have_a_gap_between_them(faces: list[Face]) -> None:
    for attribute in ATTRIBUTES:
        width = max(attribute.absent[1] - attribute.absent[0], attribute.present[1] - attribute.present[0])
        # The level of a colour, or of hair's texture, is a shade within the class, and no other class looks like it.
        if attribute.name not in COLOURS | {"Straight_Hair"}:
            gap = max(attribute.present[0] - attribute.absent[1], attribute.absent[0] - attribute.present[1])
            assert gap > 0.25 * width, attribute.name
        levels = {face.level(attribute.name) for face in faces[:200] if attribute.name in face}
        assert all(attribute.present[0] <= level <= attribute.present[1] for level in levels)
        assert attribute.present[0] == attribute.present[1] or len(levels) > 20


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_rates_are_as_stated(faces: list[Face], attribute: Attribute) -> None:
    share = np.mean([attribute.name in face for face in faces])
    assert 0.15 <= attribute.rate <= 0.5
    # Four standard deviations: one run in six hundred would fail by chance, and the faces never change.
    assert abs(share - attribute.rate) < 4 * math.sqrt(attribute.rate * (1 - attribute.rate) / len(faces))


def test_what_excludes_each_other_never_meets_and_nothing_else_is_coupled(faces: list[Face]) -> None:
    has = {name: np.array([name in face for face in faces]) for name in NAMES}
    for first in NAMES:
        for second in NAMES:
            if first < second:
                together = np.mean(has[first] & has[second])
                if {first, second} in COUPLED:
                    assert together == 0, (first, second)
                elif not rivals(first) & ({second} | rivals(second)) and not rivals(second) & {first}:
                    expected = has[first].mean() * has[second].mean()
                    assert abs(together - expected) < 4.5 * math.sqrt(expected / len(faces)), (first, second)


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(KeyError, match="Male"):
        random_face(0, 0).given(add=["Male"])
    with pytest.raises(KeyError, match="Male"):
        random_face(0, 0).level("Male")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def test_the_first_picture_is_nearly_the_one_it_always_was() -> None:
    # Another version of Pillow may round a rim differently: means of 16x16 pixels, and room.
    blocks = draw(random_face(0, 0), 64).reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
    assert np.abs(blocks - np.array(GOLDEN_BLOCKS)).max() < 3


@pytest.mark.parametrize("size", [32, 33, 64, 100, 218, 512])
def test_every_size_shows_the_same_picture(size: int) -> None:
    face = random_face(2, 5)
    pixels = draw(face, size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    small, other = (area_shrink(made, 16, 16).astype(int) for made in (pixels, draw(face, 256)))
    assert np.abs(small - other).mean() < 2.5


@pytest.mark.parametrize("size", [31, 513])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"size is {size}; it must be 32..512"):
        draw(random_face(0, 0), size)


@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_is_seen_where_it_lives_and_nowhere_else(name: str) -> None:
    size = 64
    inside, outside, clearest = [], [], []
    for n in range(12):
        first, second = with_and_without(random_face(3, n), name)
        difference = np.abs(draw(first, size).astype(float) - draw(second, size)).mean(axis=2)
        left, right, top, bottom = REGIONS[name]
        corners = np.array([(left, top), (left, bottom), (right, top), (right, bottom)])
        pose = Pose.of_head(first, size)
        reached = np.concatenate([pose.place(corners, depth) for depth in (0.5, -0.2)]).clip(0, size)
        (low_x, low_y), (high_x, high_y) = np.floor(reached.min(0)), np.ceil(reached.max(0))
        here = np.zeros((size, size), bool)
        here[int(low_y) : int(high_y), int(low_x) : int(high_x)] = True
        inside.append(difference[here].mean())
        outside.append(difference[~here].sum() / size**2)
        clearest.append(np.sort(difference.ravel())[-12:].mean())
    assert min(inside) > 0.6  # of 255, mean of the region
    assert np.median(inside) > 1.1
    assert max(outside) < 0.1
    assert min(clearest) > 10  # the twelve pixels that show it best
    assert np.median(clearest) > 18


def test_a_number_of_the_description_that_matters_changes_the_picture() -> None:
    # One face that wears and grows all that can go together, one that is curly and one that is bald.
    worn = {
        "Eyeglasses",
        "Goatee",
        "Mustache",
        "Wearing_Earrings",
        "Wearing_Hat",
        "Straight_Hair",
        "Mouth_Slightly_Open",
    }
    base = replace(random_face(4, 0), freckles=0.5, tie_kind=0.2)
    faces = [
        base.given(add=worn, remove={"Bald", "Wavy_Hair", "Wearing_Necktie", *COLOURS}),
        base.given(add={"Wearing_Necktie", "Wearing_Lipstick"}, remove={"Bald", "Goatee", "Mustache", "Wearing_Hat"}),
    ]
    unseen = []
    before = [draw(face, 96) for face in faces]
    for part in fields(Face):
        if "range" in part.metadata:
            low, high = part.metadata["range"]
            value = getattr(base, part.name)
            other = high if value < (low + high) / 2 else low
            changed = (draw(replace(face, **{part.name: other}), 96) for face in faces)
            if all(np.array_equal(*pair) for pair in zip(before, changed, strict=True)):
                unseen.append(part.name)
    assert not unseen


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", [ImageFormat.PNG, ImageFormat.JPEG])
def test_a_folder_is_read_without_a_problem_and_says_what_was_drawn(tmp_path: Path, image_format: ImageFormat) -> None:
    root = tmp_path / "drawn"
    steps: list[tuple[int, int]] = []
    drawn = write_folder(root, 30, 40, seed=9, image_format=image_format, progress=lambda *step: steps.append(step))
    assert drawn == 30
    assert steps == [(n, 30) for n in range(1, 31)]
    found = scan_celeba(root)
    assert found.problems == ()
    assert found.attributes == NAMES
    assert [found.name(k) for k in (0, 29)] == [f"000001{image_format.suffix}", f"000030{image_format.suffix}"]
    for n in range(30):
        assert dict(zip(NAMES, found.values[n] == 1, strict=True)) == {
            name: name in random_face(9, n).attributes for name in NAMES
        }
    assert [len(found.indices(part)) for part in ("train", "validation", "test")] == [24, 3, 3]
    expected = draw(random_face(9, 4), 40)
    if image_format is ImageFormat.PNG:
        assert np.array_equal(found.read(4), expected)
    else:
        assert np.abs(found.read(4).astype(int) - expected).mean() < 4
    assert "There is no photograph of a person" in (root / NOTE).read_text()


def test_the_label_file_is_celebas(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 32)
    count, names, *rows = (tmp_path / LABELS).read_text().split("\n")
    assert (count, names) == ("3", " ".join(NAMES) + " ")
    assert rows[0].startswith("000001.png ")
    # Two places for each value, as in the original.
    assert [rows[0][10 + 3 * k : 13 + 3 * k] for k in range(len(NAMES))] == [
        "  1" if name in random_face(0, 0) else " -1" for name in NAMES
    ]
    assert rows[3:] == [""]
    assert (tmp_path / PARTITION).read_text() == "000001.png 0\n000002.png 0\n000003.png 0\n"


def test_a_larger_count_adds_faces_and_changes_none(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 32, seed=5)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / IMAGES).iterdir()}
    labels = (tmp_path / LABELS).read_text().splitlines()[2:]
    assert write_folder(tmp_path, 12, 32, seed=5) == 8
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / IMAGES).iterdir()}
    assert {name: after[name] for name in before} == before
    assert len(after) == 12
    assert (tmp_path / LABELS).read_text().splitlines()[2:6] == labels
    assert scan_celeba(tmp_path).problems == ()
    assert write_folder(tmp_path, 12, 32, seed=5) == 0


def test_stopped_in_the_middle_it_has_no_labels_and_goes_on(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    write_folder(tmp_path, 2, 32)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path, 9, 32, progress=stop)
    with pytest.raises(DataError, match="no list_attr_celeba"):
        scan_celeba(tmp_path)
    assert len(list((tmp_path / IMAGES).iterdir())) == 5
    assert write_folder(tmp_path, 9, 32) == 4
    whole = tmp_path / "whole"
    write_folder(whole, 9, 32)
    for name in (LABELS, PARTITION, NOTE, f"{IMAGES}/000009.png"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("files", "pictures"), [(0, 0), (4, 3), (7, 6), (8, 6)])
def test_killed_at_any_time_it_leaves_no_half_a_file(tmp_path: Path, files: int, pictures: int) -> None:
    # The process dies before the note, the fourth picture, the partition or the labels get their names.
    script = f"""
import os, pathlib
from latentwire_lab.faces import write_folder
replace, names = os.replace, []
def dying(source, target):
    names.append(target)
    if len(names) > {files}:
        os._exit(9)
    replace(source, target)
os.replace = dying
write_folder(pathlib.Path({str(tmp_path)!r}), 6, 32)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr
    images = tmp_path / IMAGES
    assert sorted(path.name for path in images.glob("[!.]*")) == [f"00000{n + 1}.png" for n in range(pictures)]
    assert all(read_image(path.read_bytes()).shape == (32, 32, 3) for path in images.glob("[!.]*"))
    assert not (tmp_path / LABELS).exists()
    assert write_folder(tmp_path, 6, 32) == 6 - pictures
    assert scan_celeba(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 48}, "size 48"),
        ({"seed": 1}, "seed 1"),
        ({"image_format": ImageFormat.JPEG}, "format JPEG"),
        ({"count": 2}, "000003.png, which is not among the first 2 faces"),
    ],
)
def test_a_folder_of_other_drawn_faces_is_refused(tmp_path: Path, options: dict[str, object], words: str) -> None:
    write_folder(tmp_path, 3, 32)
    labels = (tmp_path / LABELS).read_bytes()
    with pytest.raises(DataError, match=words):
        write_folder(tmp_path, **{"count": 3, "size": 32, **options})  # type: ignore[arg-type]
    assert (tmp_path / LABELS).read_bytes() == labels


def test_a_folder_of_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / IMAGES).mkdir()
    with pytest.raises(DataError, match=r"holds other things than drawn faces \(it has no DRAWN.txt\)"):
        write_folder(tmp_path, 3, 32)
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        write_folder(tmp_path / "file", 3, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count is 0; it must be 1..999999"),
        ({"count": 1, "size": 16}, "size is 16"),
        ({"count": 1, "seed": -1}, "seed is -1"),
        ({"count": 1, "image_format": ImageFormat.WEBP}, "image_format is WEBP; it must be PNG or JPEG"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        write_folder(tmp_path / "new", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def test_the_command_draws_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "draw-faces",
        str(tmp_path / "faces"),
        "--count",
        "3",
        "--size",
        "32",
        "--seed",
        "7",
        "--format",
        "jpg",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("holds 3 faces of 32x32 with 26 attributes (3 drawn now)\n")
    assert scan_celeba(tmp_path / "faces").name(2) == "000003.jpg"
    assert main(arguments) == 0
    assert "(0 drawn now)" in capsys.readouterr().out
    assert main([*arguments[:-1], "png"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "holds other faces" in captured.err


@pytest.mark.parametrize("arguments", [["--size", "31"], ["--count", "0"], ["--seed", "-1"], ["--format", "gif"]])
def test_the_command_refuses_what_is_out_of_range(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw-faces", str(tmp_path / "faces"), *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()


def test_drawing_loads_no_model_package(tmp_path: Path) -> None:
    script = f"""
import sys
from latentwire_cli import main
assert main(["draw-faces", "--help"]) == 0
assert "latentwire_codec" not in sys.modules
assert main(["draw-faces", {str(tmp_path / "faces")!r}, "--count", "1"]) == 0
assert not {{"torch", "diffusers", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
