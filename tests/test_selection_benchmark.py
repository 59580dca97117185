"""What benchmarks/train_selector.py and selection.py reckon: the fit, its folds, and what held-out rules reach."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mathlete.cic.choice_model import NON_NEGATIVE, ChoiceModel, load_model
from mathlete.cic.pool_features import CLASS_FEATURES, OUTSIDE_FEATURES, AnswerClass, PoolFeatures
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection
from mathlete.lab.recorded import RecordedProblem

pytest.importorskip("numpy")
FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("choice_training", "train_selector", "selection")


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ModuleType]]:
    loaded = {}
    for name in NAMES:  # in the order in which they import each other
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    yield loaded
    for name in NAMES:
        del sys.modules[name]


def recorded(name: str, *answers: tuple[str | None, str], gold: str = "1", tokens: int = 10) -> RecordedProblem:
    """A problem with attempts given as (answer, model)."""
    attempts = tuple(
        Attempt(f"{name}#{i}", name, i, "code", i, 0.8, answer, None, (), tokens, 1.0, model=model)
        for i, (answer, model) in enumerate(answers)
    )
    return RecordedProblem(Problem(name, f"How many? {name}"), gold, name, attempts,
                           tuple(attempt.answer == gold for attempt in attempts))  # fmt: skip


def drawn_from_a_known_model(rng: random.Random, training: ModuleType, truth: dict[str, float]) -> Any:
    """A pool of three classes whose right one, or none, is drawn by the weights of `truth`."""
    groups = []
    for answer in "567":
        features = {**dict.fromkeys(CLASS_FEATURES, 0.0)}
        features.update(
            log_votes=rng.choice([0.0, 0.7, 1.4]), entropy=rng.gauss(0, 1), is_zero=float(rng.random() < 0.2)
        )
        groups.append(AnswerClass(answer, (), features))
    outside = {**dict.fromkeys(OUTSIDE_FEATURES, 0.0), "constant": 1.0}
    utilities = [sum(truth[name] * group.features[name] for name in truth if name != "constant") for group in groups]
    place = rng.choices(range(4), [math.exp(u) for u in [*utilities, truth["constant"]]])[0]
    right = tuple(place == index for index in range(3))
    unit = f"{rng.getrandbits(256):064x}"
    return training.TrainingPool(recorded("p"), unit, PoolFeatures(tuple(groups), outside), right, 1.0, False)


def test_a_fit_finds_the_weights_that_made_the_data(programs: dict[str, ModuleType]) -> None:
    training, truth = programs["choice_training"], {"log_votes": 2.0, "entropy": -0.8, "is_zero": -1.5, "constant": 0.5}
    rng = random.Random(1)
    pools = [drawn_from_a_known_model(rng, training, truth) for _ in range(4_000)]
    model = training.fit(pools, l2=1e-3)
    found = {name: {**model.classes, **model.outside}[name].weight for name in truth}
    assert found == pytest.approx(truth, abs=0.15)
    assert not model.classes["tokens"].fitted and model.classes["tokens"].weight == pytest.approx(0)
    assert training.fit(pools, l2=1e-3) == model, "deterministic"


def test_more_votes_cannot_be_learned_to_hurt(programs: dict[str, ModuleType]) -> None:
    training = programs["choice_training"]
    truth = {"log_votes": -2.0, "entropy": 0.0, "is_zero": 0.0, "constant": 0.0}
    rng = random.Random(2)
    model = training.fit([drawn_from_a_known_model(rng, training, truth) for _ in range(500)])
    assert model.classes["log_votes"].weight == 0
    assert all(model.classes[name].weight >= 0 for name in NON_NEGATIVE)


def test_what_no_pool_has_keeps_its_prior(programs: dict[str, ModuleType]) -> None:
    training = programs["choice_training"]
    rng = random.Random(3)
    truth = {"log_votes": 1.0, "entropy": 0.0, "is_zero": 0.0, "constant": 0.0}
    model = training.fit([drawn_from_a_known_model(rng, training, truth) for _ in range(200)])
    shown = {name: model.classes[name].weight for name in training.PRIOR}
    assert shown == pytest.approx(training.PRIOR)
    assert not any(model.classes[name].fitted for name in training.PRIOR)


def test_a_fold_is_judged_by_weights_that_did_not_see_it(programs: dict[str, ModuleType]) -> None:
    training = programs["choice_training"]
    rng = random.Random(4)
    truth = {"log_votes": 1.0, "entropy": -1.0, "is_zero": 0.0, "constant": 0.0}
    pools = [drawn_from_a_known_model(rng, training, truth) for _ in range(300)]
    held_out = [i for i, pool in enumerate(pools) if training.fold_of(pool.unit) == 3]
    assert 10 < len(held_out) < 60
    turned = [replace(pool, right=pool.right[::-1]) if i in held_out else pool for i, pool in enumerate(pools)]
    before, after = training.cross_fitted(pools), training.cross_fitted(turned)
    assert before[3] == after[3] and before[4] != after[4]
    assert training.unit_of("What is $x$?") == training.unit_of("what  is\n \\(x\\)?"), "the same in any typesetting"


def test_problems_without_a_right_answer_teach_nothing_where_golds_were_inferred(
    programs: dict[str, ModuleType],
) -> None:
    training = programs["choice_training"]
    problems = [recorded("a", ("1", "m"), ("2", "m"), ("1", "m")), recorded("b", ("2", "m"), ("3", "m"))]
    whole = training.training_pools(problems)
    ranking = training.training_pools(problems, ranking_only=True)
    assert {pool.recorded.problem.id for pool in whole} == {"a", "b"}
    assert {pool.recorded.problem.id for pool in ranking} == {"a"}
    assert sum(pool.weight for pool in whole) == pytest.approx(2), "a problem counts once, however many pools it gives"
    constant = training.fit(ranking).outside["constant"].weight
    assert constant == 0 < training.fit(whole).outside["constant"].weight


def ensemble(rng: random.Random, number: int) -> RecordedProblem:
    """One member that is right in 9 of 10, four that are right in 3 of 10 and often wrong together."""
    shared = str(rng.randint(2, 9))
    answers = [("1" if rng.random() < 0.9 else str(rng.randint(2, 9)), "strong")]
    answers += [("1" if rng.random() < 0.3 else shared, f"weak {n}") for n in range(4)]
    return recorded(f"q{number}", *answers)


def test_a_run_over_files(programs: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(5)
    path = tmp_path / "five.jsonl"
    with path.open("w") as file:
        for item in (ensemble(rng, number) for number in range(120)):
            attempts = [{"answer": a.answer, "model": a.model, "tokens": a.num_tokens} for a in item.attempts]
            entry = {
                "problem_id": item.problem.id,
                "problem": item.problem.statement,
                "gold": "1",
                "attempts": attempts,
            }
            file.write(json.dumps(entry) + "\n")
    programs["selection"].main([str(path), "--json", str(tmp_path / "out.json")])
    told = json.loads((tmp_path / "out.json").read_text())["five.jsonl"]
    rules = {rule["selector"]: rule for rule in told["rules"]}
    assert set(rules) == {"majority", "triad", "triad_own", "member_vote", "best_member"}
    assert all(rule["n"] == 120 and rule["file"] == "five.jsonl" for rule in rules.values())
    assert rules["member_vote"]["accuracy"] > 0.85 > 0.5 > rules["majority"]["accuracy"]
    assert rules["member_vote"]["gap_closed_ci"][0] > 0.5
    assert rules["best_member"]["accuracy"] == pytest.approx(0.9, abs=0.07)
    assert 0 <= told["calibration"]["ece"] <= 1
    assert "member_vote" in capsys.readouterr().out


def test_training_writes_a_model_with_its_provenance(programs: dict[str, ModuleType], tmp_path: Path) -> None:
    rng = random.Random(6)
    path, out = tmp_path / "five.jsonl", tmp_path / "weights.json"
    lines = []
    for item in (ensemble(rng, number) for number in range(60)):
        attempts = [{"answer": a.answer, "model": a.model} for a in item.attempts]
        entry = {"problem_id": item.problem.id, "problem": item.problem.statement, "gold": "1", "attempts": attempts}
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines))
    programs["train_selector"].main([str(path), "--members", "--out", str(out)])
    model: ChoiceModel = load_model(out.read_text(), out.name)
    assert model.classes["member:strong"].weight > model.classes["member:weak 0"].weight
    (source,) = model.training["files"]
    assert (source["name"], source["problems"], source["attempts"]) == ("five.jsonl", 60, 300)
    assert model.held_out["files"]["five.jsonl"]["all attempts"]["problems"] == 60
    assert "How many" not in out.read_text(), "no text of a problem"


def test_a_problem_is_judged_by_the_selector_of_its_own_fold(programs: dict[str, ModuleType]) -> None:
    selection, training = programs["selection"], programs["choice_training"]
    problems = [recorded(f"q{n}", *(("1", "m") for _ in range(4))) for n in range(40)]
    by_fold = {fold: Says(str(int(fold == 3))) for fold in range(training.NUM_FOLDS)}
    majority, said = selection.rule_figures(
        problems, {"majority": dict.fromkeys(by_fold, Says("1")), "said": by_fold}, None
    )
    in_three = [item for item in problems if training.fold_of(training.unit_of(item.problem.statement)) == 3]
    assert majority.accuracy.value == 1 and 0 < len(in_three) < 40
    assert said.accuracy.value == pytest.approx(len(in_three) / 40)


class Says:
    """A selector with one answer."""

    name = "said"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        return Selection(self.answer, self.name, 0.5)
