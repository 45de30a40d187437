# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.rate_distortion`: every byte counts, nothing is extrapolated, and a refusal has a reason."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.rate_distortion.__main__ import main
from benchmarks.rate_distortion.codecs import FILE_CODECS, FileCodec, LatentCodec, Plan, measure
from benchmarks.rate_distortion.curves import Curve, averaged, bd_rate, read_curve, read_curves, write_curves
from benchmarks.rate_distortion.summary import NOT_REACHABLE, RATES, rate_tables
from benchmarks.report.model import Source
from benchmarks.report.scores import METRICS, Wanted
from latentwire_codec import LatentOptimisation, compress, decompress, read_image

Pixels = npt.NDArray[np.uint8]
PSNR = METRICS[0]
LPIPS = METRICS[-1]
RATE_STEPS = (0.1, 0.2, 0.4, 0.8)


def curve(codec: str, rates: tuple[float, ...], scores: tuple[float, ...]) -> Curve:
    return Curve(codec, rates, {"psnr_db": scores})


def logarithmic(codec: str, rates: tuple[float, ...]) -> Curve:
    """3 dB more with every doubling of the rate, 30 dB at 0.1."""
    return curve(codec, rates, tuple(30 + 3 * math.log2(rate / 0.1) for rate in rates))


def test_a_curve_is_interpolated_over_the_logarithm_of_the_rate() -> None:
    made = logarithmic("a", RATE_STEPS)
    assert made.at(PSNR, 0.2) == pytest.approx(33)
    assert made.at(PSNR, 0.1 * math.sqrt(2)) == pytest.approx(31.5)
    assert [made.at(PSNR, rate) for rate in (0.1, 0.8)] == pytest.approx([30, 39])


@pytest.mark.parametrize("rate", [0.0999, 0.8001])
def test_a_curve_has_no_value_outside_of_what_was_measured(rate: float) -> None:
    assert logarithmic("a", RATE_STEPS).at(PSNR, rate) is None


def test_a_cell_of_the_table_outside_of_it_says_so() -> None:
    (table,) = rate_tables({"a": logarithmic("a", (0.12, 0.2, 0.4))}, [PSNR])
    outside = NOT_REACHABLE
    assert table.rows[0] == ["a", outside, outside, "31.75", "33.97", outside, outside, "0.120 to 0.400"]


def test_half_the_bytes_at_equal_quality_are_minus_fifty_percent() -> None:
    anchor = logarithmic("anchor", RATE_STEPS)
    test = Curve("test", tuple(rate / 2 for rate in anchor.rates), anchor.scores)
    assert bd_rate(anchor, test, PSNR).percent == pytest.approx(-50)
    assert bd_rate(test, anchor, PSNR).percent == pytest.approx(100)


def test_only_qualities_that_both_reach_count() -> None:
    found = bd_rate(logarithmic("a", (0.1, 0.2, 0.4, 0.8)), logarithmic("b", (0.2, 0.4, 0.8, 1.6, 3.2)), PSNR)
    assert [found.low, found.high] == pytest.approx([33, 39])
    assert found.percent == pytest.approx(0, abs=1e-9)


def test_a_distance_is_integrated_in_db() -> None:
    distances = (0.4, 0.3, 0.2, 0.1)
    anchor = Curve("a", RATE_STEPS, {"lpips": distances})
    test = Curve("b", tuple(rate * 3 for rate in RATE_STEPS), {"lpips": distances})
    assert bd_rate(anchor, test, LPIPS).percent == pytest.approx(200)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (curve("b", RATE_STEPS, (10, 11, 12, 13)), "no quality that both reach: 30.00 to 39.00 and 10.00 to 13.00"),
        (curve("b", RATE_STEPS, (30, 33, 32, 36)), "b does not get better with every byte"),
        (curve("b", RATE_STEPS[:3], (30, 33, 36)), "b has 3 points; 4 are needed"),
        (Curve("b", RATE_STEPS, {}), "b has no PSNR, dB"),
    ],
)
def test_a_bd_rate_without_meaning_is_refused_with_the_reason(test: Curve, reason: str) -> None:
    found = bd_rate(logarithmic("a", RATE_STEPS), test, PSNR)
    assert found.percent is None
    assert found.reason == reason


def test_averaged_curves_are_means_at_each_setting() -> None:
    def row(rate: float, psnr: float, ms_ssim: float | None) -> dict[str, Any]:
        scores = {"psnr_db": psnr, "ms_ssim": ms_ssim, "ms_ssim_db": None if ms_ssim is None else 0.0}
        return {"points": [{"codec": "a", "setting": "1", "bits_per_pixel": rate, "scores": scores}]}

    made = averaged([row(0.1, 30, 0.8), row(0.3, 40, 0.9), row(0.2, 35, None)])["a"]
    assert list(made.rates) == pytest.approx([0.2])
    assert list(made.scores["psnr_db"]) == pytest.approx([35])
    assert list(made.scores["ms_ssim"]) == pytest.approx([0.85])
    assert list(made.scores["ms_ssim_db"]) == pytest.approx([-10 * math.log10(0.15)])


def test_a_curve_of_compressai_is_read(tmp_path: Path) -> None:
    path = tmp_path / "codec.json"
    results = {"bpp": [0.3, 0.1], "psnr-rgb": [31.5, 28.0], "ms-ssim-rgb": [0.96, 0.9], "encoding_time": [1, 2]}
    path.write_text(json.dumps({"name": "hyperprior", "results": results}))
    made = read_curve(path)
    assert (made.codec, made.rates) == ("hyperprior, read", (0.1, 0.3))
    assert made.scores["psnr_db"] == (28.0, 31.5)
    assert made.scores["ms_ssim_db"][0] == pytest.approx(10)


def test_curves_that_are_written_are_read_back(tmp_path: Path) -> None:
    scores: dict[str, tuple[float, ...]] = {
        "psnr_db": (28.0, 31.5),
        "ms_ssim": (0.9, 0.96),
        "ssimulacra2": (10.5, 40.0),
    }
    scores["ms_ssim_db"] = tuple(-10 * math.log10(1 - each) for each in scores["ms_ssim"])
    written = [Curve("latentwire f8c4, refined 20", (0.1, 0.3), scores), curve("JPEG XL", RATE_STEPS, (1, 2, 3, 4))]
    paths = write_curves(written, "on 2 images", tmp_path / "curves")
    assert [path.name for path in paths] == ["latentwire-f8c4-refined-20.json", "jpeg-xl.json"]
    again = read_curves(paths)
    assert [made.codec for made in again] == [f"{made.codec}, read" for made in written]
    assert [made.rates for made in again] == [made.rates for made in written]
    for made, before in zip(again, written, strict=True):
        assert made.scores.keys() == before.scores.keys()
        for name, values in made.scores.items():
            assert values == pytest.approx(before.scores[name])


def test_a_run_writes_what_the_plot_tool_of_compressai_reads(rate_distortion_run: Path) -> None:
    run = json.loads((rate_distortion_run / "run.json").read_text())
    curves = run["summary"]["curves"]
    paths = sorted((rate_distortion_run / "curves").iterdir())
    assert [path.name for path in paths] == ["jpeg.json", "latentwire-f8c4.json", "webp.json"]
    for path in paths:
        found = json.loads(path.read_text())
        assert set(found) == {"name", "description", "results"}
        assert found["results"]["bpp"] == curves[found["name"]]["rates"]
        assert found["results"]["psnr-rgb"] == curves[found["name"]]["scores"]["psnr_db"]
        assert found["results"]["ms-ssim-rgb"] == curves[found["name"]]["scores"]["ms_ssim"]
        assert all(isinstance(column, list) for column in found["results"].values())


def test_curves_of_one_name_are_refused(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("one.json", "two.json"):
        (tmp_path / file).write_text(json.dumps({"name": "hyperprior", "results": {"bpp": [0.3], "psnr": [31.5]}}))
    files = [str(tmp_path / file) for file in ("one.json", "two.json")]
    with pytest.raises(SystemExit) as ended:
        main([str(photographs), "--out", str(tmp_path), "--compressai", *files])
    assert ended.value.code == 2
    assert "two curves have one name: hyperprior, read; hyperprior, read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "a"}', '{"name": "a", "results": {"bpp": [1], "psnr-rgb": []}}'])
def test_a_file_that_is_no_curve_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "codec.json").write_text(text)
    with pytest.raises(ValueError, match=r"codec\.json is no result of CompressAI"):
        read_curve(tmp_path / "codec.json")


@pytest.mark.parametrize("codec", FILE_CODECS, ids=lambda codec: codec.name)
def test_every_format_keeps_odd_sizes_and_grows_with_its_settings(codec: FileCodec, astronaut: Pixels) -> None:
    image = np.ascontiguousarray(astronaut[:77, 200:301])
    files = dict(codec.encode(image, codec.settings))
    assert list(files) == list(codec.settings)
    lengths = [len(payload) for payload in files.values()]
    assert lengths == sorted(lengths)
    for payload in (files[codec.settings[0]], files[codec.settings[-1]]):
        assert codec.decode(payload, image).shape == image.shape


def test_jpeg_2000_transforms_colours(astronaut: Pixels) -> None:
    (codec,) = (codec for codec in FILE_CODECS if codec.name == "JPEG 2000")
    ((_, payload),) = codec.encode(astronaut[:64, :64], codec.settings[:1])
    # The marker COD: its length, style, progression and layers, then the multiple component transformation.
    assert payload[payload.index(b"\xff\x52") + 8] == 1


def test_small_images_fit_every_format() -> None:
    image = np.full((3, 2, 3), 99, np.uint8)
    for codec in FILE_CODECS:
        ((_, payload),) = codec.encode(image, codec.settings[-1:])
        assert codec.decode(payload, image).shape == image.shape


def test_a_latent_file_is_what_compress_gives(astronaut: Pixels) -> None:
    codec = LatentCodec(Source("f8c4", device="cpu").load())
    image = np.ascontiguousarray(astronaut[:50, 200:277])
    ((_, payload),) = codec.encode(image, ["0.5"])
    assert payload == compress(image, model="f8c4", quality=0.5)
    assert (codec.decode(payload, image) == decompress(payload)).all()


def test_refined_files_are_named_and_made_as_such(astronaut: Pixels) -> None:
    model = Source("f8c4", device="cpu").load()
    plan = Plan((), Wanted(("psnr_db",)), (), LatentOptimisation(2))
    plain, refined = plan.codecs([model])
    assert (plain.name, refined.name) == ("latentwire f8c4", "latentwire f8c4, refined 2")
    assert refined.settings == ("0.17", "0.35", "0.6", "1.2")
    assert "fitted to each image by 2 iterations" in refined.counted
    image = np.ascontiguousarray(astronaut[:50, 200:277])
    ((setting, payload),) = refined.encode(image, ["0.35"])
    assert (setting, payload) == (
        "0.35",
        compress(image, model="f8c4", quality="high", optimisation=LatentOptimisation(2)),
    )


def test_fitted_latents_are_not_limited_by_what_was_encoded(astronaut: Pixels) -> None:
    model = Source("f8c4", device="cpu").load()
    plan = Plan((), Wanted(("psnr_db",)), (), LatentOptimisation(1))
    row = measure(plan.codecs([model]), plan.wanted.scorer(), np.ascontiguousarray(astronaut[:40, 200:240]))
    assert {point["codec"] for point in row["points"]} == {"latentwire f8c4", "latentwire f8c4, refined 1"}
    assert list(row["unquantized"]) == ["latentwire f8c4"]


def test_every_byte_of_a_file_counts(rate_distortion_run: Path, photographs: Path) -> None:
    run = json.loads((rate_distortion_run / "run.json").read_text())
    image = read_image((photographs / "astronaut.png").read_bytes())
    points = {(p["codec"], p["setting"]): p for p in run["rows"][0]["points"]}
    for codec in FILE_CODECS[:2]:
        for setting, payload in codec.encode(image, codec.settings):
            point = points[codec.name, setting]
            assert point["bytes"] == len(payload)
            assert point["bits_per_pixel"] == pytest.approx(8 * len(payload) / (163 * 170))


def test_the_record_says_what_is_needed_to_repeat_the_run(rate_distortion_run: Path) -> None:
    run = json.loads((rate_distortion_run / "run.json").read_text())
    assert (run["benchmark"], run["format"], run["images"]) == ("rate_distortion", 1, 2)
    assert run["machine"]["cores"] >= 1
    assert {"python", "pillow", "torch", "AVIF in Pillow"} <= set(run["versions"])
    assert len(run["sources"]) == 16
    (model,) = run["parameters"]["models"]
    assert (model["name"], model["channels"], len(model["weights_digest"])) == ("f8c4", 4, 64)
    assert run["parameters"]["codecs"]["JPEG"] == list(FILE_CODECS[0].settings)
    assert [failure["file"] for failure in run["failures"]] == ["not <b>an image.png"]
    assert [row["file"] for row in run["rows"]] == ["astronaut.png", "below/chelsea.png"]
    for row in run["rows"]:
        for point in row["points"]:
            assert set(point) == {"codec", "setting", "bytes", "bits_per_pixel", "scores"}
            assert set(point["scores"]) == {"psnr_db", "ms_ssim", "ms_ssim_db"}
    # The second photograph is too small for MS-SSIM.
    assert run["rows"][1]["points"][0]["scores"]["ms_ssim"] is None
    assert "Butteraugli" in run["summary"]["absent_metrics"]
    assert set(run["summary"]["at_rates"]["psnr_db"]["JPEG"]) == {f"{rate:g}" for rate in RATES}
    assert set(run["summary"]["bd_rates"]["latentwire f8c4"]) == {"JPEG", "WebP"}


def test_the_report_needs_nothing_else(rate_distortion_run: Path) -> None:
    html = (rate_distortion_run / "report.html").read_text(encoding="utf-8")
    assert "http" not in html
    assert "<script" not in html
    assert "url(" not in html
    assert "not &lt;b&gt;an image.png" in html
    assert "prefers-color-scheme: dark" in html
    assert html.count("data:image/svg+xml;base64,") == 2 * 2
    assert html.count('media="(prefers-color-scheme: dark)"') == 2


def test_the_same_command_again_measures_nothing(
    rate_distortion_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (rate_distortion_run / "rows.jsonl").read_bytes()
    monkeypatch.setattr("benchmarks.rate_distortion.codecs.measure", lambda *_: pytest.fail("measured again"))
    arguments = ["--codecs", "JPEG", "WebP", "--metrics", "psnr_db", "ms_ssim", "butteraugli", "--strips", "0"]
    main([str(photographs), "--out", str(rate_distortion_run), *arguments])
    assert (rate_distortion_run / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere/at-all"], "nowhere/at-all"),
        (["--workers", "0"], "--workers: it is 0; it must be at least 1"),
        (["--model", "f8c4", "f8c4"], "two models have one name"),
        (["--compressai", "missing.json"], "missing.json"),
    ],
)
def test_a_wrong_argument_ends_with_its_reason(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(photographs), "--out", str(tmp_path), *arguments])
    assert message in f"{ended.value}{capsys.readouterr().err}"
