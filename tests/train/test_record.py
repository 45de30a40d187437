# SPDX-License-Identifier: Apache-2.0
"""The record of a training run: figures are read back equal, whatever ended the process that wrote them."""

import csv
import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentwire_core.errors import DataError
from latentwire_train.config import TrainingConfig
from latentwire_train.data.folder import Problem
from latentwire_train.data.source import open_data
from latentwire_train.record.curves import MAX_POINTS, draw_curves
from latentwire_train.record.log import Log, Row, read_log
from latentwire_train.record.record import Record

WRITER = """
import sys
from collections.abc import Callable
from pathlib import Path
from latentwire_train.record.log import Log

log = Log(Path(sys.argv[1]) / "log.csv")
step = 0
while True:
    step += 1
    log.append(step, {"train/l1": step / 7})
    if step == 5:
        print("ready", flush=True)
"""


def events(folder: Path, name: str) -> list[tuple[int, float]]:
    """The scalars that TensorBoard would show."""
    accumulator = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def figures(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(row.step, dict(row.figures)) for row in read_log(folder / "log.csv")]


# ---------------------------------------------------------------------------------------------------------------------
# log.csv
# ---------------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["train/l1", "train/total", "held_out/psnr", 'a "b", c\nd', "é"]),
            st.floats(allow_nan=False),
        ),
        max_size=6,
    )
)
def test_what_is_recorded_is_read_back_equal_whatever_the_names_and_numbers(
    rows: list[dict[str, float]], tmp_path: Path
) -> None:
    (tmp_path / "log.csv").unlink(missing_ok=True)
    log = Log(tmp_path / "log.csv")
    for step, row in enumerate(rows, 1):
        log.append(step, row)
    assert figures(tmp_path) == list(enumerate(rows, 1))


def test_the_log_is_a_table_with_a_column_for_each_name_and_empty_cells_where_nothing_was_measured(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path / "log.csv")
    log.append(10, {"train/l1": 0.5})
    log.append(10, {"held_out/psnr": 20.25})
    log.append(20, {"train/l1": 0.25, "learning_rate": 1e-4})
    with (tmp_path / "log.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "seconds", "train/l1", "held_out/psnr", "learning_rate"]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["10", "0.5", "", ""],
        ["10", "", "20.25", ""],
        ["20", "0.25", "", "0.0001"],
    ]


def test_numbers_that_are_not_finite_are_recorded_too(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv")
    log.append(1, {"train/l1": math.nan, "train/kl": math.inf})
    ((_, row),) = figures(tmp_path)
    assert math.isnan(row["train/l1"])
    assert row["train/kl"] == math.inf


def test_a_resumed_run_drops_what_came_after_its_checkpoint_and_goes_on_below(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv")
    for step in (10, 20, 30, 40):
        log.append(step, {"train/l1": float(step)})
    log.append(40, {"held_out/psnr": 1.0})
    log = Log(tmp_path / "log.csv", resume_step=20)
    log.append(30, {"train/l1": 300.0})
    assert figures(tmp_path) == [(10, {"train/l1": 10.0}), (20, {"train/l1": 20.0}), (30, {"train/l1": 300.0})]


def test_a_run_that_begins_again_from_the_start_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        log = Log(tmp_path / "log.csv")
        log.append(0, {"held_out/psnr": 1.0})
        log.append(10, {"train/l1": 2.0})
        assert figures(tmp_path) == [(0, {"held_out/psnr": 1.0}), (10, {"train/l1": 2.0})]


@pytest.mark.parametrize("torn", [b"30,1", b"30,1.5,0.1", b"\0\0\0\0\n", b"30,1.5,0.x\n40,2.0,0.25\n", b"30\n", b"\n"])
def test_a_torn_end_is_dropped(torn: bytes, tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv")
    for step in (10, 20):
        log.append(step, {"train/l1": float(step)})
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(torn)
    log = Log(tmp_path / "log.csv", resume_step=1000)
    log.append(1010, {"train/l1": 1.0})
    assert [step for step, _ in figures(tmp_path)] == [10, 20, 1010]


def test_seconds_go_on_from_the_last_row_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,seconds,train/l1\n10,1000.0,0.5\n20,2000.0,0.5\n")
    log = Log(tmp_path / "log.csv", resume_step=10)
    log.append(20, {"train/l1": 0.25})
    assert [row.seconds >= 1000 for row in read_log(tmp_path / "log.csv")] == [True, True]
    assert read_log(tmp_path / "log.csv")[1].seconds < 2000


def test_a_file_that_is_no_log_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("name,age\nx,1\n")
    with pytest.raises(DataError, match=r"log\.csv is not the log of a training run; move it away"):
        Log(tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == "name,age\nx,1\n"


def test_a_process_that_is_killed_while_it_records_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    log = Log(tmp_path / "log.csv", resume_step=4)
    log.append(5, {"train/l1": -1.0})
    expected = [(step, {"train/l1": step / 7}) for step in range(1, 5)]
    assert figures(tmp_path) == [*expected, (5, {"train/l1": -1.0})]


# ---------------------------------------------------------------------------------------------------------------------
# TensorBoard, curves, skipped files
# ---------------------------------------------------------------------------------------------------------------------

Open = Callable[..., Record]


@pytest.fixture
def record(tiny: Callable[..., TrainingConfig], photos: Path, tmp_path: Path) -> Open:
    """What opens the record of a run in `tmp_path`."""
    config = tiny()
    data = open_data(photos, config.data)
    return lambda resume_step=0: Record(tmp_path, config, data, resume_step)


def test_tensorboard_shows_the_figures_and_after_resuming_not_those_that_were_dropped(
    record: Open, tmp_path: Path
) -> None:
    first = record()
    for step in (10, 20, 30, 40):
        first.figures(step, {"train/l1": float(step)})
    first.close()
    second = record(resume_step=20)
    second.figures(30, {"train/l1": 300.0})
    second.close()
    assert events(tmp_path, "train/l1") == [(10, 10.0), (20, 20.0), (30, 300.0)]
    assert figures(tmp_path) == [(step, {"train/l1": value}) for step, value in events(tmp_path, "train/l1")]


def test_tensorboard_shows_what_comes_after_a_torn_event(record: Open, tmp_path: Path) -> None:
    first = record()
    for step in (10, 20):
        first.figures(step, {"train/l1": float(step)})
    first.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    second = record(resume_step=10)
    second.figures(20, {"train/l1": 200.0})
    second.close()
    assert events(tmp_path, "train/l1") == [(10, 10.0), (20, 200.0)]


def training_row(step: int) -> Row:
    decay = 1 / step
    figures = {"train/total": 0.05 + decay, "train/l1": 0.04 + decay, "train/adversarial": -decay, "train/kl": decay}
    return Row(step, step / 10, figures | {"train/psnr": 27 - decay, "learning_rate": 1e-3, "images_per_s": 80.0})


def size(rows: list[Row]) -> tuple[int, int]:
    picture = draw_curves(rows)
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        return image.size


def test_curves_have_room_for_what_was_measured_only() -> None:
    held_out = Row(2, 1.0, {"held_out/psnr": 26.0, "held_out/loss": 0.06, "held_out/kl": 0.5})
    whole = size([training_row(1), training_row(2), held_out])
    assert whole[0] > 1000
    assert size([Row(1, 1.0, {"train/psnr": 20.0})])[1] < whole[1] / 2


def test_curves_are_drawn_of_one_row_of_very_many_and_of_numbers_that_are_not_finite() -> None:
    assert size([training_row(1)])
    assert size([training_row(step) for step in range(1, 5 * MAX_POINTS + 2)])
    assert size([Row(1, 1.0, {"train/l1": math.nan}), Row(2, 2.0, {"train/l1": 0.0}), Row(3, 3.0, {"train/l1": 0.5})])
    assert draw_curves([Row(1, 1.0, {"train/l1": math.nan, "something else": 1.0})]) is None


def test_skipped_files_are_named_line_by_line(record: Open, tmp_path: Path) -> None:
    opened = record()
    assert not (tmp_path / "skipped.txt").exists()
    opened.problem(Problem("a.jpg", "is 8x8"))
    opened.problem(Problem(os.fsdecode(b"\xff\n.jpg"), "is cut"))
    opened.close()
    assert (tmp_path / "skipped.txt").read_bytes() == b"a.jpg: is 8x8\n\xff .jpg: is cut\n"
