"""`--policy triad` from problems to results: checks, a second round, resuming in each phase, what is told of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Mathlete
from rich.console import Console

from mathlete.cic.registry import make_selector
from mathlete.compose import LoadedGenerator, build_policy
from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.core.generation import GenerateRequest
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.lab.recorded import read_recorded
from mathlete.lab.run_store import RunStore
from mathlete.run_config import RunConfig, decode_config
from mathlete.session import run_session as session
from watching import stored

TRIAD = (
    "--attempts", "4", "--budget", "2m", "--pillars", "code,reasoning",
    "--checks", "enumeration_check,genselect_check", "--second-round", "2",
)  # fmt: skip
Find = Callable[[], Path]


def split(request: GenerateRequest) -> Reply:
    """Four attempts disagree; those of a second round, which have the numbers after them, agree."""
    said = "".join(message.content for message in request.messages)
    if request.continuation:
        return Reply.saying("    return 42\n```\n")
    if "Solution 0:" in said:
        return Reply.saying("The solutions differ, so I look closely. Judgment: 0")
    index = int(request.request_id.partition("#")[2].partition("/")[0])
    answer = 42 if "An attempt found" in said else 41 + index % 4
    return Reply.saying(f"We look at it and find $\\boxed{{{answer}}}$.")


@pytest.fixture
def disagreeing(monkeypatch: pytest.MonkeyPatch, mathlete: Mathlete) -> Mathlete:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(split), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    return mathlete


@pytest.fixture
def whole(disagreeing: Mathlete, tmp_path: Path, only_run: Find) -> Path:
    (tmp_path / "one.csv").write_text("id,problem,answer\na,How many?,42\n")
    called = disagreeing("solve", tmp_path / "one.csv", *TRIAD, "--stop", "never", "--json")
    assert called.code == 0, called.err
    (tmp_path / "told.json").write_text(called.out)
    return only_run()


def events(folder: Path) -> list[TraceEvent]:
    with RunStore.read(folder / "run.sqlite") as store:
        return list(store.events())


def rewrite(folder: Path, kept: list[TraceEvent]) -> None:
    """Make the run one that was killed after these events."""
    for path in folder.iterdir():
        path.unlink()
    with RunStore.create(folder / "run.sqlite") as store:
        store.append_many(kept)


def shape(folder: Path) -> Counter[tuple[str, int]]:
    return Counter((attempt.pillar, attempt.round) for attempt in stored(folder).problems["a"].attempts)


WHOLE = Counter(
    {
        ("code", 1): 2,
        ("reasoning", 1): 2,
        ("code", 2): 2,
        ("enumeration_check", 1): 1,
        ("genselect_check", 1): 1,
    }
)


def test_what_is_told_exported_and_read_back(whole: Path, tmp_path: Path) -> None:
    assert shape(whole) == WHOLE
    record = stored(whole).problems["a"]
    (told,) = json.loads((tmp_path / "told.json").read_text())["problems"]
    assert record.selection is not None and (told["answer"], told["rule"]) == (42, "triad")
    assert (told["num_attempts"], told["num_checks"]) == (6, 2)
    assert told["num_tokens"] == sum(attempt.num_tokens for attempt in record.attempts)
    (back,) = read_recorded(whole / "attempts.jsonl")
    for name in ("triad", "majority"):
        live = make_selector(name).select(record.problem, record.attempts)
        again = make_selector(name).select(back.problem, back.pooled().attempts)
        assert (again.answer, again.accepted) == (live.answer, live.accepted)
        assert again.confidence == pytest.approx(live.confidence, abs=1e-12)
    assert (
        live.answer == "42"
        and record.selection.accepted == make_selector("triad").select(record.problem, record.attempts).accepted
    )


@pytest.mark.parametrize(
    ("kind", "pillar", "round", "nth"),
    [
        ("attempt_started", "code", 1, 2),
        ("attempt_started", "enumeration_check", 1, 1),
        ("attempt_finished", "enumeration_check", 1, 1),
        ("attempt_started", "code", 2, 2),
        ("attempt_finished", "code", 2, 1),
    ],
)
def test_a_run_killed_in_any_phase_goes_on(
    disagreeing: Mathlete, whole: Path, kind: str, pillar: str, round: int, nth: int
) -> None:
    places = [
        place
        for place, event in enumerate(events(whole))
        if event.kind == kind and (of := event.data.get("attempt", event.data))["pillar"] == pillar
        and of["round"] == round
    ]  # fmt: skip
    rewrite(whole, events(whole)[: places[nth - 1] + 1])
    kept = stored(whole).problems["a"].attempts
    assert disagreeing("solve", "--resume", whole.name).code == 0
    record = stored(whole).problems["a"]
    assert record.attempts[: len(kept)] == kept, "nothing finished is lost"
    assert len({attempt.id for attempt in record.attempts}) == len(record.attempts)
    assert shape(whole) == WHOLE, "nothing is made twice or left out"
    assert record.selection is not None and record.selection.answer == "42"


def test_flags_of_the_policy_are_refused_when_a_run_goes_on(disagreeing: Mathlete, whole: Path) -> None:
    for flag, value in {"--policy": "triad", "--checks": "none", "--second-round": "2", "--selector": "cic"}.items():
        called = disagreeing("solve", "--resume", whole.name, flag, value)
        assert called.code == 2 and f"{flag} cannot be changed when a run is resumed" in called.err


@pytest.mark.parametrize(("command", "policy"), [("solve", VotePolicy), ("evaluate", FixedPolicy)])
def test_a_run_of_before_there_were_policies_goes_on_as_it_was(command: str, policy: type) -> None:
    old = decode_config({"command": command, "source": None, "model": "m", "budget_s": 1.0, "attempts": 3})
    built = build_policy(old)
    assert isinstance(built, (FixedPolicy, VotePolicy)) and type(built) is policy
    assert (built.attempts, built.pillars, built.selector.name) == (3, ("code",), "majority")  # type: ignore[attr-defined]
