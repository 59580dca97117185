"""What a step costs by its rows: learnt from few widths, through noise and drift; and the file it is kept in."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from speculation_world import CPU, GPU, STEEP

from mathlete.ryanstream.speculative.step_cost import KNOTS, StepCostModel, StepCurve, remembered_curve

ROWS = (1, 2, 4, 8, 16, 32)


def measured(curve: StepCurve, rows: tuple[int, ...] = ROWS) -> StepCurve:
    return StepCurve(rows, tuple(curve.at(num) for num in rows))


def test_a_curve_is_interpolated_and_goes_on_as_it_ended() -> None:
    curve = StepCurve((2, 4, 8), (1.0, 2.0, 3.0))
    assert [curve.at(rows) for rows in (1, 2, 3, 8, 16)] == [1.0, 1.0, 1.5, 3.0, 5.0]
    assert StepCurve((1, 2), (2.0, 1.0)).at(9) == 1.0, "a curve that fell at its end goes on falling"


@pytest.mark.parametrize(
    ("rows", "seconds", "said"),
    [
        ((), (), "as many rows"),
        ((1, 2), (1.0,), "as many rows"),
        ((2, 2), (1.0, 1.0), "rise"),
        ((0, 2), (1.0, 1.0), "rise"),
        ((1,), (math.inf,), "positive"),
    ],
)
def test_what_is_no_curve_is_refused(rows: tuple[int, ...], seconds: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StepCurve(rows, seconds)


def test_before_the_first_step_the_curve_holds() -> None:
    model = StepCostModel(measured(CPU, KNOTS))
    assert [model.seconds(rows) for rows in KNOTS] == pytest.approx([CPU.at(rows) for rows in KNOTS])


@pytest.mark.parametrize("curve", [CPU, GPU, STEEP])
def test_an_unknown_curve_is_learnt_from_the_steps(curve: StepCurve) -> None:
    model, noise = StepCostModel(), random.Random(0)
    for _ in range(300):
        rows = noise.choice((1, 2, 4, 8, 16, 32))
        model.note(rows, curve.at(rows) * noise.lognormvariate(0, 0.1) * (3 if noise.random() < 0.05 else 1))
    for rows in (1, 2, 3, 4, 8, 16, 32):
        assert model.seconds(rows) == pytest.approx(curve.at(rows), rel=0.12), rows


def test_plain_steps_alone_tell_how_fast_the_machine_is() -> None:
    model = StepCostModel(measured(CPU))
    for _ in range(60):
        model.note(1, 2 * CPU.at(1))
    for rows in (1, 4, 16, 32):
        assert model.seconds(rows) == pytest.approx(2 * CPU.at(rows), rel=0.1), "other widths were left behind"


def test_a_hiccup_says_little() -> None:
    model = StepCostModel(measured(CPU))
    for _ in range(20):
        model.note(1, CPU.at(1))
    model.note(1, 100 * CPU.at(1))
    assert model.seconds(1) == pytest.approx(CPU.at(1), rel=0.15)


def test_plain_steps_put_right_what_was_taken_for_drift() -> None:
    """Steps of four rows are dearer than measured; while there are only those, they look like a slow machine."""
    model = StepCostModel(measured(CPU))
    for _ in range(100):
        model.note(4, 1.3 * CPU.at(4))
    before = model.seconds(1)
    for _ in range(8):
        model.note(1, CPU.at(1))
    assert before > 1.1 * CPU.at(1)
    assert model.seconds(4) / model.seconds(1) == pytest.approx(1.3 * CPU.at(4) / CPU.at(1), rel=0.1)


def test_more_rows_never_cost_less() -> None:
    model, noise = StepCostModel(), random.Random(1)
    for _ in range(200):
        model.note(noise.randrange(1, 400), noise.lognormvariate(0, 0.5))
        assert np.all(np.diff(model.table(500)) > -1e-12)


def test_it_looks_as_far_as_it_is_asked() -> None:
    model = StepCostModel(measured(CPU))
    assert len(model.table(5000)) > 5000
    assert model.seconds(640) == pytest.approx(2 * model.seconds(320))
    model.note(1000, 3.0)
    assert math.isfinite(model.seconds(1000))


@pytest.mark.parametrize(("rows", "seconds"), [(0, 1.0), (1, 0.0), (1, math.nan), (1, math.inf)])
def test_no_step_is_like_that(rows: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="a step has rows and takes time"):
        StepCostModel().note(rows, seconds)


def test_a_curve_is_measured_once_and_kept(tmp_path: Path) -> None:
    path, calls = tmp_path / "calibration" / "curve.json", []

    def measure() -> StepCurve:
        calls.append(1)
        return measured(CPU)

    assert remembered_curve(path, ROWS, measure) == remembered_curve(path, ROWS, measure) == measured(CPU)
    assert len(calls) == 1 and [file.name for file in path.parent.iterdir()] == ["curve.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [1], "seconds": [1]}', '{"rows": [1, 2], "seconds": [1, -1]}'])
def test_a_file_that_is_of_no_use_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(content)
    assert remembered_curve(path, ROWS, lambda: measured(GPU)) == measured(GPU)
    assert remembered_curve(path, ROWS, lambda: measured(CPU)) == measured(GPU)


def test_where_nothing_can_be_written_it_is_measured(tmp_path: Path) -> None:
    (tmp_path / "calibration").write_text("a file where the folder should be")
    assert remembered_curve(tmp_path / "calibration" / "curve.json", ROWS, lambda: measured(CPU)) == measured(CPU)
