"""Replay of selectors over recorded attempts: by hand, against live selection, and over processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.cic.choice_model import shipped_model
from mathlete.cic.majority import Majority
from mathlete.cic.registry import SELECTORS
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.selection import FALLBACK, Selection
from mathlete.lab.file_replay import Progress, line_pieces, replay_file, unpacked_size
from mathlete.lab.in_sample import trained_on
from mathlete.lab.policy_replay import PolicyReplay, replay_policy
from mathlete.lab.recorded import RecordedProblem, read_recorded
from mathlete.lab.replay_figures import policy_outcome, selector_figures
from mathlete.lab.selector_replay import ReplayPlan, ScoredProblem, make_selectors, pools_of, replay_problem
from mathlete.lab.stop_replay import stop_figures

SLICE = Path(__file__).parents[2] / "benchmarks" / "data" / "math_attempts.jsonl.gz"


def recorded(name: str, *answers: str | None, gold: str = "1") -> RecordedProblem:
    attempts = tuple(
        Attempt(f"{name}#{i}", name, i, "code", i, 0.8, answer, None, (), 10, 1.0) for i, answer in enumerate(answers)
    )
    correct = tuple(answer == gold for answer in answers)
    return RecordedProblem(Problem(name, f"How many? {name}"), gold, name, attempts, correct)


def scored(item: RecordedProblem, *selectors: str, **settings: object) -> ScoredProblem:
    plan = ReplayPlan(selectors or ("majority",), **settings)  # type: ignore[arg-type]
    return replay_problem(item, plan, make_selectors(plan))


def test_scores_of_a_problem_by_hand() -> None:
    found = scored(recorded("a", "1", "2", None, "1", "2", None, None), "majority", "majority_larger", "majority_null")
    (scores,) = found.scores
    assert scores is not None and found.num_attempts == 7
    assert scores.majority == 0.5, "a tie counts by its split, and no answer is no vote"
    assert scores.majority_null == 0, "three attempts without an answer outvote two and two"
    assert scores.oracle == 1
    assert scores.selectors == (0.5, 0.0, 0.0), "the larger of 1 and 2 is wrong; no answer is the fallback"


def test_votes_for_nothing_are_counted_apart() -> None:
    (scores,) = scored(recorded("a", "0", "0", "0", "1", "0.0")).scores
    assert scores is not None
    assert (scores.majority, scores.majority_nonzero) == (0, 1)


class Fixed:
    """A selector that always says the same."""

    name = "fixed"

    def __init__(self, answer: str, rule: str = "fixed") -> None:
        self.answer, self.rule = answer, rule
        self.pools: list[Sequence[Attempt]] = []

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        self.pools.append(attempts)
        return Selection(self.answer, self.rule, 0.5)


@pytest.mark.parametrize(
    ("answer", "rule", "score"),
    [("1", "fixed", 1.0), ("2", "fixed", 0.0), ("+1", "fixed", 1.0), ("1", FALLBACK, 0.0)],
    ids=["given and right", "given and wrong", "given by nobody, the gold", "a fallback that happens to be the gold"],
)
def test_what_counts_as_right(answer: str, rule: str, score: float) -> None:
    found = replay_problem(recorded("a", "1", "2", "2", "2"), ReplayPlan(("fixed",)), {"fixed": Fixed(answer, rule)})
    assert found.scores[0] is not None and found.scores[0].selectors == (score,)


def test_the_recordings_word_counts_more_than_the_text() -> None:
    item = replace(recorded("a", "1", "2", "2", "2"), correct=(False, True, True, True))
    right = replay_problem(item, ReplayPlan(("fixed",)), {"fixed": Fixed("1")})
    assert right.scores[0] is not None and right.scores[0].selectors == (0,)


def ids(pool: Sequence[Attempt]) -> tuple[str, ...]:
    return tuple(attempt.id for attempt in pool)


def test_all_attempts_come_as_recorded_and_k_of_them_are_nested_draws() -> None:
    item = recorded("a", *"1123456")
    watcher = Fixed("1")
    replay_problem(item, ReplayPlan(("fixed",)), {"fixed": watcher})
    assert watcher.pools == [item.attempts], "once, in the recorded order"
    watcher.pools.clear()
    plan = ReplayPlan(("fixed",), ks=(2, 4), num_orders=5, seed=3)
    replay_problem(item, plan, {"fixed": watcher})
    twos, fours = watcher.pools[:5], watcher.pools[5:]
    assert [pool[:2] for pool in fours] == twos and all(len(set(ids(pool))) == 4 for pool in fours)
    assert len(set(map(ids, fours))) > 1, "orders differ"
    again = Fixed("1")
    replay_problem(item, plan, {"fixed": again})
    assert again.pools == watcher.pools, "and are the same every time"
    other = Fixed("1")
    replay_problem(item, replace(plan, seed=4), {"fixed": other})
    assert other.pools != watcher.pools


def test_checks_are_shown_and_have_no_vote() -> None:
    item = recorded("a", "1", "2", "2", "1", "2")
    check = replace(item.attempts[0], id="a#9", pillar="sympy_check", answer=None)
    watcher = Fixed("1")
    found = replay_problem(replace(item, checks=(check,)), ReplayPlan(("fixed",), ks=(2,)), {"fixed": watcher})
    assert found.num_attempts == 5
    assert all(pool[2:] == (check,) for pool in watcher.pools)
    pooled = replay_problem(
        replace(item, checks=(check,)).pooled(), ReplayPlan(("fixed",), ks=(2,)), {"fixed": watcher}
    )
    assert pooled == found


def test_too_few_attempts_are_left_out() -> None:
    plan = ReplayPlan(("majority",), ks=(2, 5, None), min_attempts=3)
    few, some = scored(recorded("a", "1", "2"), ks=plan.ks, min_attempts=3), scored(recorded("b", *"1234"), ks=plan.ks)
    assert few.scores == (None, None, None)
    assert some.scores[0] is not None and some.scores[1] is None and some.scores[2] is not None
    figures = selector_figures([few, some], plan)
    assert [(item.k, item.num_problems, item.num_left_out) for item in figures] == [(2, 1, 1), (None, 1, 1)]


def test_figures_are_paired_and_their_gap_is_a_ratio() -> None:
    problems = [recorded(f"p{i}", *(["1", "2", "2"] if i % 2 else ["1", "1", "2"])) for i in range(40)]
    plan = ReplayPlan(("majority", "fixed"), min_attempts=3)
    rules = {"majority": Majority(), "fixed": Fixed("1")}
    majority, fixed = selector_figures([replay_problem(item, plan, rules) for item in problems], plan)
    assert (majority.accuracy.value, majority.difference.value, majority.gap_closed is not None) == (0.5, 0, True)
    assert majority.gap_closed is not None and majority.gap_closed.value == 0
    assert (fixed.accuracy.value, fixed.accuracy.low) == (1, 1)
    assert fixed.difference.value == 0.5
    assert fixed.difference.low == pytest.approx(1 - majority.accuracy.high), "the same draws"
    assert fixed.gap_closed is not None
    assert (fixed.gap_closed.value, fixed.gap_closed.low, fixed.gap_closed.high) == (1, 1, 1)
    assert (fixed.num_better, fixed.num_worse) == (20, 0)
    told = fixed.as_dict("f.jsonl")
    assert {"selector", "file", "n", "k", "accuracy", "ci", "majority", "oracle", "gap_closed", "vs_majority"} <= set(
        told
    )
    assert told["vs_majority"]["diff"] == 0.5 and told["k"] is None and told["n"] == 40
    assert json.loads(json.dumps(told)) == told


def test_without_a_gap_nothing_is_closed() -> None:
    plan = ReplayPlan(("majority",))
    (figures,) = selector_figures([scored(recorded("a", *"1111"))], plan)
    assert figures.gap_closed is None and figures.as_dict("f")["gap_closed"] is None


def test_one_attempt_leaves_no_gap() -> None:
    plan = ReplayPlan(("majority",), (1, 2))
    items = [recorded(f"p{i}", *"1234") for i in range(9)]
    one, two = selector_figures([replay_problem(item, plan, make_selectors(plan)) for item in items], plan)
    assert one.oracle.value > one.majority.value, "of 8 draws, and of all: luck"
    assert one.gap_closed is None and two.gap_closed is not None
    figures = replay_policy(items, PolicyReplay(policy="fixed", attempts=1, orders=8))
    assert policy_outcome(items, figures).gap_closed is None


def test_every_selector_chooses_what_it_chooses_live() -> None:
    """One by one on lists, where nothing is remembered from rule to rule, against all on one pool."""
    plan = ReplayPlan(tuple(SELECTORS))
    shared_rules = make_selectors(plan)
    for item in list(read_recorded(SLICE))[:12]:
        found = replay_problem(item, plan, shared_rules)
        assert found.scores[0] is not None
        right = {a.answer for a, ok in zip(item.attempts, item.correct, strict=True) if ok}
        for name, score in zip(plan.selectors, found.scores[0].selectors, strict=True):
            if name != "majority":
                alone = SELECTORS[name]().select(item.problem, list(item.attempts))
                assert score == (alone.answer in right or alone.answer == item.gold), name


def test_processes_do_not_change_the_result_and_end_with_it() -> None:
    plan = ReplayPlan(("huikang", "triad"), ks=(8, None))
    told: list[Progress] = []
    one = replay_file(SLICE, plan, num_processes=1, tell=told.append)
    before = multiprocessing.active_children()
    two = replay_file(SLICE, plan, num_processes=2)
    assert one.scored == two.scored and len(one.scored) == 40
    assert multiprocessing.active_children() == before
    assert told[-1] == Progress(40, unpacked_size(SLICE)), "the progress ends at the end"
    assert len(list(line_pieces(SLICE))) > 1


def lines(*problems: RecordedProblem) -> str:
    rows = []
    for item in problems:
        attempts = [{"answer": a.answer, "correct": ok} for a, ok in zip(item.attempts, item.correct, strict=True)]
        fields = {"problem_id": item.problem.id, "problem": item.problem.statement, "gold": item.gold}
        rows.append(json.dumps(fields | {"attempts": attempts}))
    return "\n".join(rows)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_bad_rows_are_named_and_the_others_replayed(tmp_path: Path, num_processes: int) -> None:
    path = tmp_path / "some.jsonl"
    good = lines(recorded("a", *"1112"), recorded("b", *"2221"))
    path.write_text(
        good + "\nnot json\n" + '{"problem_id": "c", "problem": "?", "gold": "1", "attempts": [3]}\n' + good
    )
    found = replay_file(path, ReplayPlan(("majority",)), num_processes=num_processes)
    assert [item.id for item in found.scored] == ["a", "b"]
    message = found.bad.message
    assert found.bad.num == 4
    assert "line 3: not a line of JSON" in message and "line 4, attempt 0: " in message
    assert "line 5: problem 'a' was in line 1 already" in message


def test_other_forms_are_replayed_too(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("problem_id,problem,gold,answer\n" + "".join(f"a,How many?,1,{n}\n" for n in (1, 1, 2, 1)))
    found = replay_file(path, ReplayPlan(("majority",)), num_processes=2)
    assert [(item.id, item.num_attempts) for item in found.scored] == [("a", 4)]
    assert found.scored[0].scores[0] is not None and found.scored[0].scores[0].majority == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selectors": ()}, "at least one"),
        ({"selectors": ("majority", "majority")}, "only once"),
        ({"selectors": ("majority",), "ks": (0,)}, "k must be"),
        ({"selectors": ("majority",), "num_orders": 0}, "order"),
        ({"selectors": ("majority",), "min_attempts": 0}, "min_attempts"),
    ],
)
def test_a_plan_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReplayPlan(**settings)  # type: ignore[arg-type]


def test_unknown_selectors_are_told_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="no selector 'best'"):
        replay_file(SLICE, ReplayPlan(("best",)), num_processes=2)


def test_what_a_rule_was_trained_on_is_known_by_name_and_by_content(tmp_path: Path) -> None:
    name = shipped_model().training["files"][0]["name"]
    (tmp_path / name).write_text("changed since")
    found = trained_on(tmp_path / name, ("majority", "triad"))
    assert set(found) == {"triad"}
    assert found["triad"].held_out[None] == shipped_model().held_out["files"][name]["all attempts"]["accuracy"]
    assert trained_on(SLICE, ("triad",)) == {}
    assert trained_on(tmp_path, ("triad",)) == {}, "a folder"


def test_what_stopping_rules_save_where_attempts_come_one_by_one() -> None:
    problems = [recorded(f"p{i}", *("1" * 8 if i % 2 else "21212121")) for i in range(20)]
    never, four, strict = stop_figures(problems, ["never", "four_equal", "uncatchable_strict"], num_orders=3)
    assert (never.used.value, never.difference.value, never.accuracy.value) == (1, 0, 0.75)
    assert four.used.value == pytest.approx((4 / 8 + four_of(problems[0])) / 2)
    assert strict.difference.value == strict.difference.low == 0, "it cannot change the vote"
    assert strict.used.value < 1
    again = stop_figures(problems, ["four_equal"], num_orders=3)
    assert again == [four]
    with pytest.raises(ValueError, match="enough attempts"):
        stop_figures(problems, ["never"], min_attempts=9)


def four_of(item: RecordedProblem) -> float:
    """Share of its attempts, by counting in the orders that are replayed."""
    shares = []
    for number in range(20):
        if number % 2 == 0:
            for order in pools_of(replace(item, problem=replace(item.problem, id=f"p{number}")), range(8), 12, ORDERS):
                seen = [item.attempts[i].answer for i in order]
                shares.append(next(n for n in range(1, 9) if max(map(seen[:n].count, "12")) == 4 or n == 8) / 8)
    return sum(shares) / len(shares)


ORDERS = ReplayPlan(("four_equal",), (12,), 3)


def test_a_policys_figures_stand_beside_the_oracle() -> None:
    problems = [recorded(f"p{i}", *"2122") for i in range(5)]
    figures = replay_policy(problems, PolicyReplay(policy="fixed", attempts=2, orders=0))
    told = policy_outcome(problems, figures).as_dict("f.jsonl")
    assert (told["n"], told["k"], told["oracle"]) == (5, 2, 0.5)
    assert told["majority"] == 0.5 and told["gap_closed"] is None, (
        "one of the first two is right, and so it is of any two"
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "problems", "majority", "low", "high", "nonzero", "oracle"),
    [
        ("gptoss120b_euler.jsonl", 71, 0.732, 0.638, 0.826, 0.804, 1.000),
        ("zeroeval_math_l5.jsonl", 647, 0.723, 0.690, 0.756, 0.729, 0.969),
        ("faithfulcot_gsm8k.jsonl.gz", 1319, 0.876, 0.858, 0.893, 0.878, 0.990),
        ("openai_gsm8k4.jsonl.gz", 1319, 0.482, 0.458, 0.506, 0.482, 0.672),
    ],
)
def test_figures_of_real_recordings(
    shared_dir: Path, name: str, problems: int, majority: float, low: float, high: float, nonzero: float, oracle: float
) -> None:
    plan = ReplayPlan(("majority",))
    replayed = replay_file(shared_dir / "traces" / name, plan)
    (figures,) = selector_figures(replayed.scored, plan)
    assert figures.num_problems == problems and replayed.bad.num == 0
    assert figures.majority.value == figures.accuracy.value == pytest.approx(majority, abs=5e-4)
    assert (figures.majority.low, figures.majority.high) == pytest.approx((low, high), abs=6e-3)
    assert figures.majority_nonzero.value == pytest.approx(nonzero, abs=1e-3)
    assert figures.oracle.value == pytest.approx(oracle, abs=5e-4)
