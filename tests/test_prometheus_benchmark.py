"""What the replay of the 2/50 pipeline reckons, on pools whose outcome can be told by hand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.triad.prometheus_answers import FAULTS, NO_FAULTS, Faults

FILE = Path(__file__).parents[1] / "benchmarks" / "prometheus.py"


@pytest.fixture(scope="module")
def prometheus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prometheus_benchmark", FILE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["prometheus_benchmark"] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def attempt(problem_id: str, index: int, answer: str) -> Attempt:
    """Prints its answer with its first program, as a label that a careless reader misses, and then boxes it."""
    result = ToolResult("ok", f"{answer}\n(took -7 s)\n", "", 0.1)
    turns = (Turn("...", "...", result, num_tokens=60), Turn(f"\\boxed{{{answer}}}", num_tokens=40))
    return Attempt(f"{problem_id}#{index}", problem_id, index, "code", 1, 0.8, answer, "boxed", turns, 100, 1.0)


def pools(prometheus: ModuleType) -> list[object]:
    answers = {"a": ["1", "1", "1", "2"], "b": ["5", "6", "6", "6"]}
    golds = {"a": "1", "b": "6"}
    return [
        prometheus.Pool(
            Problem(key, "How many?"), golds[key], key, tuple(attempt(key, i, text) for i, text in enumerate(texts))
        )
        for key, texts in answers.items()
    ]


def test_without_faults_everything_is_looked_at_and_the_vote_is_right(prometheus: ModuleType) -> None:
    done = prometheus.replay(pools(prometheus), NO_FAULTS, 4, 0)
    assert done.right == (1.0, 1.0) and done.tokens == (400.0, 400.0)


def test_the_shortcut_pays_in_tokens_and_costs_answers(prometheus: ModuleType) -> None:
    shortcut = Faults(**{name: name == "one_sample_shortcut" for name in FAULTS})
    done = prometheus.replay(pools(prometheus), shortcut, 64, 0)
    assert done.tokens == pytest.approx((100.0, 100.0))
    assert all(0.6 < share < 0.9 for share in done.right), "three of four attempts are right"


def test_the_whole_old_pipeline_reads_the_wrong_number(prometheus: ModuleType) -> None:
    assert prometheus.replay(pools(prometheus), Faults(), 4, 0).right == (0.0, 0.0)


def test_what_decays_is_the_time_of_later_problems(prometheus: ModuleType) -> None:
    many = [pool for i in range(8) for pool in pools(prometheus)]
    decay = Faults(**{name: name == "time_decay" for name in FAULTS})
    assert sum(prometheus.replay(many, decay, 2, 0).tokens) < sum(prometheus.replay(many, NO_FAULTS, 2, 0).tokens)


def test_the_tables_compare_pairwise_and_say_what_they_cannot_tell(prometheus: ModuleType) -> None:
    cured, alone = prometheus.tables(pools(prometheus), 4, 0)
    assert [row.name for row in cured] == ["all faults", *FAULTS]
    assert [row.name for row in alone] == ["no fault", *FAULTS]
    by_name = {row.name: row for row in cured}
    assert by_name["all faults"].accuracy.value == 0 and by_name["all faults"].change is None
    assert (by_name["all faults"].tokens, by_name["last_printed"].tokens) == (60.0, 240.0)
    assert {row.name for row in alone if row.note} == {
        "no_reasoning",
        "told_wrong",
        "no_symbolic_check",
        "cut_at_think",
    }
    assert next(row for row in alone if row.name == "last_printed").change.value == -1.0


def test_pools_come_from_files_of_attempts(prometheus: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    entries = [{"answer": "6", "tokens": 5}, {"answer": "x+1"}, {"answer": "5", "failure": "interrupted"}]
    rows = [
        {"problem_id": "b", "problem": "How many?", "gold": "6", "attempts": entries},
        {"problem_id": "c", "problem": "Which?", "gold": "x+1", "attempts": entries},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pool,) = prometheus.read_pools(path)
    assert [item.answer for item in pool.attempts] == ["6", None]
    assert prometheus.why_not_replayed("one_pass", [pool]) == "the pool does not tell what programs did"
    path.write_text(json.dumps(rows[1]))
    with pytest.raises(InputError, match="no problem with a gold"):
        prometheus.read_pools(path)
