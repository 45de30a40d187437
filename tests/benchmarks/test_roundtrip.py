# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.roundtrip`: what VAEs lose on a folder, side by side."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.report.model import Source
from benchmarks.report.scores import Wanted
from benchmarks.roundtrip.__main__ import main
from benchmarks.roundtrip.losses import Rounding, deviations, measure_model, shown
from latentwire_codec import read_image
from latentwire_codec.metrics.scores import psnr
from latentwire_codec.networks.pipeline_vae import AutoencoderVectorVAE


def test_a_run_puts_models_side_by_side(roundtrip_run: Path, photographs: Path) -> None:
    run = json.loads((roundtrip_run / "run.json").read_text())
    assert list(run["summary"]["models"]) == ["f8c4", "wide"]
    scores = run["summary"]["models"]["f8c4"]["scores"]["psnr_db"]
    rows = [row["models"]["f8c4"]["scores"]["psnr_db"] for row in run["rows"]]
    assert scores["mean"] == pytest.approx(np.mean(rows))
    assert (scores["lowest"], scores["highest"], scores["count"]) == (min(rows), max(rows), 2)
    model = Source("f8c4", device="cpu").load()
    image = read_image((photographs / "astronaut.png").read_bytes())
    assert rows[0] == pytest.approx(psnr(image, model.decode(model.encode(image), image)), abs=1e-3)


def test_ratios_are_of_all_bytes_together(roundtrip_run: Path) -> None:
    run = json.loads((roundtrip_run / "run.json").read_text())
    sizes = run["summary"]["models"]["f8c4"]["sizes"]
    rows = [row["models"]["f8c4"] for row in run["rows"]]
    raw = 3 * (163 * 170 + 100 * 130)
    assert sum(row["raw_bytes"] for row in rows) == raw
    assert sizes["float16_ratio"] == pytest.approx(raw / (8 * (21 * 22 + 13 * 17)))
    assert sizes["lat_ratio"] == pytest.approx(raw / sum(row["lat_bytes"] for row in rows))


def test_the_table_on_the_terminal_names_the_worst_image(
    photographs: Path, roundtrip_run: Path, wide_kl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "f8c4", str(wide_kl), "--metrics", "psnr_db", "ssimulacra2", "--worst", "1"]
    arguments += ["--rounded", "0.25", "--bfloat16"]
    main([str(photographs), "--out", str(roundtrip_run), *arguments])
    printed = capsys.readouterr().out
    run = json.loads((roundtrip_run / "run.json").read_text())
    worst = min(run["rows"], key=lambda row: float(row["models"]["f8c4"]["scores"]["psnr_db"]))
    assert worst["file"] in printed
    assert "f8c4 (float32) on 2 images of" in printed
    html = (roundtrip_run / "report.html").read_text(encoding="utf-8")
    assert html.count('class="crop"') == 5


def test_an_interrupted_run_says_how_it_goes_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.roundtrip.losses.measure", interrupt)
    with pytest.raises(SystemExit, match="the same command goes on from there"):
        main([str(photographs), "--out", str(tmp_path), "--metrics", "psnr_db"])


def test_an_image_is_framed_to_the_only_size_of_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderVectorVAE(image_size=16, latent_dim=8, width=4).save_pretrained(tmp_path)
    model = Source(str(tmp_path), device="cpu").load()
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    found = measure_model(model, Wanted(("psnr_db",)).scorer(), image, Rounding())
    assert (found["width"], found["height"], found["raw_bytes"]) == (16, 16, 3 * 16 * 16)
    assert found["float16_bytes"] == 2 * 8


def test_coarser_latents_are_multiples_of_the_deviations_of_a_folder(roundtrip_run: Path, photographs: Path) -> None:
    run = json.loads((roundtrip_run / "run.json").read_text())
    model = Source("f8c4", device="cpu").load()
    paths = [photographs / row["file"] for row in run["rows"]]
    images = [read_image(path.read_bytes()) for path in paths]
    latents = [model.encode(image) for image in images]
    spread = np.concatenate([each.reshape(4, -1) for each in latents], axis=1).std(axis=1)
    assert run["parameters"]["rounding"]["deviations"]["f8c4"] == pytest.approx(spread, rel=1e-3)
    multiples = 0.25 * spread[:, None, None]
    coarse = [psnr(image, model.decode(np.round(z / multiples) * multiples, image))
              for image, z in zip(images, latents, strict=True)]  # fmt: skip
    means = run["summary"]["models"]["f8c4"]["psnr_db"]
    assert means["rounded at 0.25"] == pytest.approx(np.mean(coarse), abs=0.02)
    assert means["rounded at 0.25"] < run["summary"]["models"]["f8c4"]["scores"]["psnr_db"]["mean"]
    assert means["in bfloat16"] == pytest.approx(run["summary"]["models"]["f8c4"]["scores"]["psnr_db"]["mean"], abs=0.1)


def test_deviations_can_be_those_of_another_folder(photographs: Path, tmp_path: Path) -> None:
    model = Source("f8c4", device="cpu").load()
    assert len(deviations(model, photographs)) == 4
    Image.new("RGB", (8, 8)).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"do not vary; name another folder with --spread-of"):
        deviations(model, tmp_path)


def test_the_table_has_parameters_worst_images_losses_and_times(
    roundtrip_run: Path, photographs: Path, wide_kl: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (roundtrip_run / "report.md").read_text()
    for row in ("parameters", "PSNR, dB, mean (worst)", "SSIMULACRA2, mean (worst)", "PSNR, dB, rounded at 0.25 (loss)",
                "PSNR, dB, in bfloat16 (loss)", "bits per pixel, .lat cache"):  # fmt: skip
        assert f"| {row} " in text
    assert "7,083,480" in text
    assert "encode 512x512" not in text
    monkeypatch.setattr("benchmarks.report.timing.WARM_UP_S", 0.0)
    monkeypatch.setattr("benchmarks.report.timing.SAMPLE_S", 0.0)
    monkeypatch.setattr("benchmarks.roundtrip.losses.SIDE", 64)
    arguments = ["--model", str(wide_kl), "--metrics", "psnr_db", "--rounded", "--times", "--worst", "0"]
    main([str(photographs), "--out", str(tmp_path), *arguments])
    text = (tmp_path / "report.md").read_text()
    assert "rounded at" not in text.partition("Scores:")[0]
    assert re.search(r"\| decode \d+x\d+, ms \(ratio\) +\| +\d+ \(1\.00\) \|", text)


def test_times_are_beside_those_of_the_first_model() -> None:
    times = {"a": {"encode": [0.1, 0.2, 0.4]}, "b": {"encode": [0.2, 0.4, 0.8]}}
    assert (shown(times, "a", "encode"), shown(times, "b", "encode")) == ("200 (1.00)", "400 (2.00)")
