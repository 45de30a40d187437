# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: rows that resume, workers, scores, plots, and reports that load nothing."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks.__main__ import benchmarks, main
from benchmarks.report.environment import source_digest
from benchmarks.report.model import Source
from benchmarks.report.page import Block, Lines, Page, Plots, Strip, Strips, Table, table, write_page
from benchmarks.report.pictures import detailed_part, difference, picture
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row, RowFile, image_files, measure_folder
from benchmarks.report.scores import CAP_DB, NAMES, Wanted, to_db
from benchmarks.roundtrip.losses import Plan
from benchmarks.roundtrip.summary import Summary
from latentwire_core.formats import IMAGE_SUFFIXES

Pixels = npt.NDArray[np.uint8]
BROKEN = "not <b>an image.png"


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Counting:
    """A measurement that remembers which images it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def prepare(self) -> Callable[[Pixels], Row]:
        def measure(image: Pixels) -> Row:
            self.seen.append(image.shape)
            return {"sum": int(image.sum())}

        return measure


def test_rows_are_read_back_by_their_settings(tmp_path: Path) -> None:
    with RowFile(tmp_path / "rows.jsonl", "first") as kept:
        kept.append("a", {"value": 1})
    with RowFile(tmp_path / "rows.jsonl", "second") as kept:
        assert kept.read() == {}
        kept.append("a", {"value": 2})
        assert kept.read() == {"a": {"value": 2}}
    with RowFile(tmp_path / "rows.jsonl", "first") as kept:
        assert kept.read() == {"a": {"value": 1}}


def test_a_line_that_a_killed_run_left_half_written_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowFile(path, "s") as kept:
        kept.append("a", {"value": 1})
        kept.append("b", {"value": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with RowFile(path, "s") as kept:
        assert kept.read() == {"a": {"value": 1}}
        kept.append("b", {"value": 2})
        assert kept.read() == {"a": {"value": 1}, "b": {"value": 2}}
    assert path.read_bytes() == whole


def test_an_interrupted_run_goes_on_where_it_was(photographs: Path, tmp_path: Path) -> None:
    files = [file for file in image_files(photographs) if file.name != BROKEN]
    first = Counting()
    with RowFile(tmp_path / "rows.jsonl", "s") as kept:
        measure_folder(files[:1], first.prepare, kept)
    second = Counting()
    with RowFile(tmp_path / "rows.jsonl", "s") as kept:
        measured = measure_folder(files, second.prepare, kept)
    assert (len(first.seen), len(second.seen)) == (1, 1)
    assert [row["file"] for row in measured.rows] == ["astronaut.png", "below/chelsea.png"]


def test_a_file_that_changed_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    sums = []
    for seed in (0, 1):
        Image.fromarray(noise(9, 9, seed)).save(path)
        os.utime(path, ns=(seed, seed))
        with RowFile(tmp_path / "rows.jsonl", "s") as kept:
            sums.append(measure_folder(image_files(tmp_path), Counting().prepare, kept).rows[0]["sum"])
    assert sums == [int(noise(9, 9, seed).sum()) for seed in (0, 1)]


def test_a_broken_file_does_not_end_a_run_and_is_named(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RowFile(tmp_path / "rows.jsonl", "s") as kept:
        measured = measure_folder(image_files(photographs), Counting().prepare, kept)
    assert len(measured.rows) == 2
    assert [failure.file for failure in measured.failures] == [BROKEN]
    assert "save it again" in measured.failures[0].error
    assert BROKEN in capsys.readouterr().err


def test_an_error_of_the_benchmark_itself_ends_the_run(photographs: Path, tmp_path: Path) -> None:
    def measure(image: Pixels) -> Row:
        raise KeyError("a mistake")

    with RowFile(tmp_path / "rows.jsonl", "s") as kept, pytest.raises(KeyError):
        measure_folder(image_files(photographs), lambda: measure, kept)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match="no image in"):
        image_files(tmp_path)


def test_images_have_the_suffixes_that_the_command_line_client_takes(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"image{suffix.upper()}").touch()
    assert {file.path.suffix.lower() for file in image_files(tmp_path)} == IMAGE_SUFFIXES


@pytest.mark.parametrize("change", [{"latent_units": [1.0] * 32}, {"norm_num_groups": 2}])
def test_a_model_of_the_same_weights_and_another_configuration_is_another(
    wide_kl: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Rows of one model must not be taken for rows of the other."""
    folder = shutil.copytree(wide_kl, tmp_path / wide_kl.name)
    before, again = (Source(str(path), device="cpu").load().description for path in (wide_kl, folder))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    after = Source(str(folder), device="cpu").load().description
    assert json.dumps(before) == json.dumps(again) != json.dumps(after)
    assert before["weights_digest"] == after["weights_digest"]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a codec and benchmarks of a few modules, in place of the real ones."""
    for name in ("codec/__init__.py", "codec/tiling/sweep.py", "codec/weights/prior.safetensors", "report/page.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("latentwire_codec.__file__", str(tmp_path / "codec" / "__init__.py"))
    monkeypatch.setattr("benchmarks.report.environment.__file__", str(tmp_path / "report" / "environment.py"))
    return tmp_path


@pytest.mark.parametrize("name", ["codec/tiling/sweep.py", "codec/tiling/new/deep.py", "mine/below/measuring.py"])
def test_an_edit_of_a_module_in_any_folder_changes_the_digest_of_the_sources(sources: Path, name: str) -> None:
    before = source_digest("mine")
    (sources / name).parent.mkdir(parents=True, exist_ok=True)
    (sources / name).write_text("edited")
    assert source_digest("mine") != before


def test_a_module_in_another_folder_changes_the_digest_of_the_sources(sources: Path) -> None:
    before = source_digest("mine")
    (sources / "codec/tiling/sweep.py").rename(sources / "codec/sweep.py")
    assert source_digest("mine") != before


def test_what_only_shows_is_not_in_the_digest_of_the_sources(sources: Path) -> None:
    before = source_digest("mine")
    (sources / "report/page.py").write_text("edited")
    assert source_digest("mine") == before


def test_workers_measure_the_same_as_one_process(photographs: Path, tmp_path: Path) -> None:
    plan = Plan((Source("f8c4", device="cpu"),), Wanted(("psnr_db",)))
    results = []
    for workers in (1, 2):
        with RowFile(tmp_path / f"{workers}.jsonl", "s") as kept:
            results.append(measure_folder(image_files(photographs), plan.prepare, kept, workers))
    assert [row["file"] for row in results[1].rows] == ["astronaut.png", "below/chelsea.png"]
    assert results[0].failures == results[1].failures
    for one, two in zip(results[0].rows, results[1].rows, strict=True):
        ours, theirs = (row["models"]["f8c4"] for row in (one, two))
        assert ours["lat_bytes"] == pytest.approx(theirs["lat_bytes"], abs=4)
        assert ours["scores"]["psnr_db"] == pytest.approx(theirs["scores"]["psnr_db"], abs=1e-3)


def test_a_summary_leaves_out_images_without_the_number() -> None:
    summary = Summary.of([4.0, None, 1.0, 3.0, 2.0])
    assert summary is not None
    assert (summary.count, summary.mean, summary.lowest, summary.highest) == (4, 2.5, 1.0, 4.0)
    assert summary.percentiles[2] == 2.5
    assert Summary.of([None]) is None


def test_metrics_that_cannot_be_had_are_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = Wanted(NAMES)
    absent = wanted.absent()
    assert set(absent) == {"Butteraugli", "LPIPS", "DISTS"}
    assert "--lpips-weights" in absent["LPIPS"]
    assert "vgg16" in Wanted(NAMES, tmp_path).absent()["LPIPS"]
    assert [metric.name for metric in wanted.present()] == ["psnr_db", "ssim", "ms_ssim", "ms_ssim_db", "ssimulacra2"]


def test_butteraugli_comes_from_its_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "butteraugli_main"
    tool.write_text("#!/bin/sh\necho 5.5\necho '3-norm: 1.25'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    scorer = Wanted(("butteraugli",)).scorer()
    assert scorer(noise(16, 16), noise(16, 16, 1)) == {"butteraugli": 1.25}
    tool.write_text("#!/bin/sh\necho no such image >&2\nexit 1\n")
    with pytest.raises(OSError, match="no such image"):
        scorer(noise(16, 16), noise(16, 16, 1))


def test_equal_images_have_a_score_that_a_mean_can_take() -> None:
    image = noise(170, 170)
    scores = Wanted(("psnr_db", "ms_ssim")).scorer()(image, image)
    assert scores == {"psnr_db": CAP_DB, "ms_ssim": 1.0, "ms_ssim_db": CAP_DB}
    assert to_db(0.9) == pytest.approx(10)


def test_an_image_too_small_for_a_metric_has_no_such_score() -> None:
    scores = Wanted(("psnr_db", "ssim", "ms_ssim")).scorer()(noise(40, 10), noise(40, 10, 1))
    assert scores["psnr_db"] is not None
    assert (scores["ssim"], scores["ms_ssim"], scores["ms_ssim_db"]) == (None, None, None)


def test_the_part_that_is_enlarged_is_the_one_with_most_detail() -> None:
    image = np.full((300, 400, 3), 128, np.uint8)
    image[150:294, 200:344] = noise(144, 144)
    part = detailed_part(image)
    assert abs(part.top - 150) <= 1
    assert abs(part.left - 200) <= 1
    assert part.of(image).shape == (144, 144, 3)
    assert detailed_part(image[:5, :9]).side == 5


def test_differences_are_grey_where_there_are_none() -> None:
    image = noise(8, 8)
    assert (difference(image, image) == 128).all()
    brighter = np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)
    assert difference(image, brighter).max() == 128 + 12


def svg(address: str) -> ElementTree.Element:
    """Parse the drawing of a plot."""
    kind, _, data = address.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(data))


def test_a_plot_is_drawn_for_light_and_for_dark_pages() -> None:
    lines = [Line("first", (0.1, 1.0), (1, 2), 0), Line("second", (0.1, 1.0), (2, 3), 1), Line("", (0.1, 1), (2, 2), 0)]
    plot = line_plot(lines, "x", "y", ticks=(0.1, 1))
    light, dark = (ElementTree.tostring(svg(address), encoding="unicode") for address in (plot.light, plot.dark))
    assert plot.title == "y against x"
    assert light != dark
    assert all(f"#{colour}" in drawing for drawing, colour in ((light, "1f77b4"), (dark, "8dd3c7")))
    # The ground is transparent: that of the page shows.
    assert "fill: #ffffff" not in light
    assert "fill: #000000" not in dark


def test_the_same_lines_give_the_same_bytes() -> None:
    lines = [Line("a", (0.1, 1.0), (1, 2), 0)]
    assert line_plot(lines, "x", "y") == line_plot(lines, "x", "y")


def test_a_plot_has_a_legend_where_there_is_a_choice() -> None:
    one, other = (Line(label, (0.1, 1.0), (1, 2), 0) for label in ("one", "other"))
    heights = [float(svg(line_plot(lines, "x", "y").light).attrib["height"].removesuffix("pt"))
               for lines in ([one], [one, other, one, other], [one, other, one, other, one, other])]  # fmt: skip
    assert heights == sorted(set(heights))


def test_a_table_is_aligned_markdown() -> None:
    made = table("t", [("a|b", 1.5), ("c", 22.25)], {"name": lambda item: item[0], "n": lambda item: f"{item[1]:g}"})
    assert made.markdown().splitlines() == [
        "| name |     n |",
        "| ---- | ----: |",
        "| a\\|b |   1.5 |",
        "| c    | 22.25 |",
    ]


def test_the_text_of_a_page_has_its_tables_and_open_lists() -> None:
    blocks: list[Block] = [
        Table("first", ["a", "b"], [["x", "1"]], "a note"),
        Lines("second", ["one"]),
        Lines("third", ["two"], True),
    ]
    text = Page("title", "lead", blocks).markdown()
    assert text.startswith("# title\n\nlead\n\n## first\n\n| a ")
    assert "a note\n\n## second\n\n- one\n" in text
    assert "third" not in text


def test_a_page_escapes_what_it_is_given_and_loads_nothing(tmp_path: Path) -> None:
    shown = picture(noise(20, 30), detailed_part(noise(20, 30)), "one", warning="too <large>")
    assert shown.whole.startswith("data:image/webp;base64,")
    blocks: list[Block] = [
        Table("t", ["a", "b|c"], [["<script>", "1"], ["*kept* [as](it) `is`", "a|b"]], "note"),
        Lines("l", [BROKEN]),
        Lines("closed", ["hidden"], folded=True),
        Plots("p", [line_plot([Line("a", (0, 1), (1, 2), 0)], "<x>", "y")]),
        Strips("s", [Strip("photograph", [shown])]),
    ]
    run = {"commit": "", "sources": "0", "machine": {"cores": 2}, "versions": {}, "parameters": {}, "created": "now"}
    write_page(Page("<i>title", "lead & more", blocks), run, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "not &lt;b&gt;an image.png" in html
    assert "<td>*kept* [as](it) `is`</td>" in html
    assert ">a|b</td>" in html
    assert ">b|c</th>" in html
    assert "&lt;x&gt;" in html
    assert "too &lt;large&gt;" in html
    assert "no checkout" in html
    assert "<summary>closed</summary>" in html
    assert html.count("<img") == 3
    assert "http" not in html
    assert html.count('src="data:') == html.count('src="')


def test_the_benchmarks_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    found = benchmarks()
    assert {"demo", "latent_cache", "latent_space", "rate_distortion", "roundtrip", "serving", "throughput"} <= set(
        found
    )
    assert all(found.values())
    main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in found)
