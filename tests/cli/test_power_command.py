"""`mathlete power` and `mathlete compare` on small recordings and on a recorded run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Mathlete


def write_recordings(path: Path, *, chance: float, seed: int, attempts: int = 8) -> Path:
    rng = random.Random(seed)
    rows = []
    for number in range(30):
        ours = min(1.0, chance * rng.choice([0.5, 1.0, 1.5]))
        answers = ["1" if rng.random() < ours else rng.choice("23") for _ in range(attempts)]
        entries = [{"answer": answer, "correct": answer == "1", "tokens": 100, "seconds": 2.0} for answer in answers]
        rows.append({"problem_id": f"p{number}", "problem": f"What is {number}?", "gold": "1", "attempts": entries})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "pool.jsonl", chance=0.5, seed=1)


def test_power_as_data(mathlete: Mathlete, recordings: Path) -> None:
    called = mathlete("power", recordings, "--effect", 1, "--effect", 3, "--attempts", 4, "--json")
    assert called.code == 0, called.err
    told = json.loads(called.out)
    assert told["pool"] == {"problems": 30, "too_few_attempts": 0, "drawn_apart": 30}
    assert (told["attempts"], told["problems"], told["power"], told["level"]) == (4, 50, 0.8, 0.05)
    one, three = told["effects"]
    assert one["effect"] == 1 and three["effect"] == 3
    assert one["runs"] > three["runs"] > 0
    assert one["runs"] == pytest.approx(2 * told["spread"] ** 2 * 7.849, abs=1)
    assert told["two_runs"]["spread"] == pytest.approx(told["spread"] / 2**0.5)
    assert 1 <= told["dependence"]["effective_attempts"] <= 4
    assert any(f"you need {one['runs']} runs of each way" in sentence for sentence in told["answer"])


def test_power_in_words(mathlete: Mathlete, recordings: Path) -> None:
    called = mathlete("power", recordings)
    text = " ".join(called.out.split())
    assert called.code == 0, called.err
    assert all(f"To tell +{effect} of 50 from luck" in text for effect in (1, 2, 5))
    assert "by a plain vote of 4 attempts" in text, "half of what there are, so that two runs draw apart"
    assert "right together with correlation" in text


def test_power_pools_recordings_of_the_same_problems(mathlete: Mathlete, recordings: Path, tmp_path: Path) -> None:
    again = write_recordings(tmp_path / "again.jsonl", chance=0.5, seed=2)
    alone = mathlete("power", recordings, "--attempts", 8)
    both = mathlete("power", recordings, again, "--attempts", 8)
    assert "luck is understated" in " ".join(alone.out.split())
    assert "luck is understated" not in " ".join(both.out.split())


def test_power_says_what_it_lacks(mathlete: Mathlete, recordings: Path) -> None:
    called = mathlete("power", recordings, "--attempts", 9)
    assert called.code == 2 and "ask for 1 to 8 attempts" in called.err
    called = mathlete("power", recordings, "--effect", 99)
    assert called.code == 2 and "at most the 50 problems" in called.err
    assert mathlete("power", recordings, "--seed", -1).code == 2
    assert mathlete("compare", recordings, recordings, "--seed", -1).code == 2
    Path("none.jsonl").write_text('{"problem_id": "a", "problem": "?", "gold": "1", "attempts": []}\n')
    called = mathlete("power", "none.jsonl")
    assert called.code == 2 and "too few attempts" in " ".join(called.err.split())
    called = mathlete("power", "nowhere.jsonl")
    assert called.code == 2 and "nowhere.jsonl" in called.err


def test_compare_recordings(mathlete: Mathlete, recordings: Path, tmp_path: Path) -> None:
    better = write_recordings(tmp_path / "better.jsonl", chance=0.9, seed=3)
    called = mathlete("compare", recordings, better, "--json")
    assert called.code == 0, called.err
    told = json.loads(called.out)
    assert told["num_problems"] == 30 and told["left_out"] == []
    scores = told["scores"]
    assert scores["difference"]["value"] == pytest.approx(scores["second"]["value"] - scores["first"]["value"])
    assert scores["mcnemar"]["only_second"] > scores["mcnemar"]["only_first"]
    assert told["tokens"]["ratio"]["value"] == 1
    assert {flip["change"] for flip in told["flips"]} >= {"gained"}
    shown = " ".join(mathlete("compare", recordings, better, "--flips", 2).out.split())
    assert told["verdict"] in shown and "exact McNemar p" in shown and "more; --json has them all" in shown


def test_compare_a_run_with_its_own_attempts(mathlete: Mathlete, problems: Path, only_run: Callable[[], Path]) -> None:
    assert mathlete("evaluate", problems, "--attempts", 2).code == 0
    folder = only_run()
    called = mathlete("compare", "latest", folder / "attempts.jsonl", "--json")
    assert called.code == 0, called.err
    told = json.loads(called.out)
    assert told["num_problems"] == 3
    assert told["scores"]["difference"] == {"value": 0, "low": 0, "high": 0, "method": "bootstrap"}
    assert told["tokens"]["first"] == told["tokens"]["second"] > 0
    called = mathlete("compare", folder, "nothing-of-that-name")
    assert called.code == 2 and "there is no run" in called.err
