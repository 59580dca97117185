"""The beam over steps as a state machine: who survives, what it costs, and when it ends."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.selection import Verdict
from mathlete.proof_sampler.beam import Beam, BeamConfig, BeamStep, Expansion, ProofBeamSearch

Write = Callable[[Expansion], BeamStep]


def step(name: str, logprob: float = -1.0, num_tokens: int = 20, ends: bool = False, **fields: object) -> BeamStep:
    return BeamStep(name, f"{name}. ", logprob, num_tokens, ends, **fields)  # type: ignore[arg-type]


def drive(search: ProofBeamSearch, write: Write, max_levels: int = 100) -> list[list[Expansion]]:
    """Run it to its end; the expansions of each level."""
    levels = []
    while not search.done and len(levels) < max_levels:
        expansions = search.expansions()
        if not expansions:
            break
        levels.append(expansions)
        for expansion in expansions:
            search.add(expansion, write(expansion))
    return levels


def test_the_best_survive_and_share_the_next_level() -> None:
    search = ProofBeamSearch(BeamConfig(width=5, expand=2))
    first = search.expansions()
    assert [(item.parent, item.child, item.steps) for item in first] == [(0, child, ()) for child in range(5)]
    for item, logprob in zip(first, (-4.0, -1.0, -5.0, -2.0, -3.0), strict=True):
        assert not search.levels
        search.add(item, step(item.name, logprob))
    assert [beam.steps[0].name for beam in search.live] == ["0.0.1", "0.0.3", "0.0.4"]
    second = search.expansions()
    assert [(item.steps[0].name, item.child) for item in second] == [
        ("0.0.1", 0), ("0.0.1", 1), ("0.0.3", 0), ("0.0.3", 1), ("0.0.4", 0),
    ]  # fmt: skip
    assert search.num_tokens == 100


def test_the_score_is_gnmt_s() -> None:
    beam = Beam((step("a", -2.0, 7), step("b", -4.0, 20, reward=0.5)))
    assert beam.score(0.6) == pytest.approx(-6.0 / (32 / 6) ** 0.6 + 0.5)
    assert beam.score(0.0) == -5.5 and Beam().score(0.6) == 0.0


def test_finished_beams_keep_their_place() -> None:
    def write(expansion: Expansion) -> BeamStep:
        ends = expansion.child == 0 and expansion.parent == 0
        return step(expansion.name, -1.0 - expansion.child - expansion.parent, ends=ends)

    search = ProofBeamSearch(BeamConfig(width=4, expand=2))
    levels = drive(search, write)
    assert [len(level) for level in levels] == [4, 3, 2, 1]
    assert len(search.finished) == 4 and all(beam.ended for beam in search.finished) and search.done
    assert [len(beam.steps) for beam in search.finished] == [1, 2, 3, 4]
    assert search.ranked()[0] == max(search.finished, key=search.score)


def test_a_refuted_step_goes_unless_there_is_no_other() -> None:
    def write(verdicts: dict[int, Verdict]) -> Write:
        return lambda item: step(item.name, -1.0 - item.child, verdict=verdicts.get(item.child, "UNKNOWN"))

    search = ProofBeamSearch(BeamConfig(width=3, expand=1))
    for item in search.expansions():
        search.add(item, write({0: "REFUTED"})(item))
    assert [beam.steps[0].name for beam in search.live] == ["0.0.1", "0.0.2"] and search.count("refuted") == 1
    search = ProofBeamSearch(BeamConfig(width=3, expand=1))
    for item in search.expansions():
        search.add(item, write(dict.fromkeys(range(3), "REFUTED"))(item))
    assert [beam.steps[0].name for beam in search.live] == ["0.0.0"] and search.count("refuted") == 2


def test_what_says_the_same_is_one() -> None:
    search = ProofBeamSearch(BeamConfig(width=4, expand=1))
    for item, text in zip(search.expansions(), ("x = 1\n\n", "x = 1 \n\n", "x = 2\n\n", "x =  1"), strict=True):
        search.add(item, BeamStep(item.name, text, -1.0 - item.child, 20))
    assert [beam.text for beam in search.live] == ["x = 1\n\n", "x = 2\n\n"] and search.count("repeated") == 2


def test_reward_decides_among_equals() -> None:
    search = ProofBeamSearch(BeamConfig(width=4, expand=4))
    for item in search.expansions():
        search.add(item, step(item.name, reward=float(item.child == 2)))
    assert [beam.steps[0].name for beam in search.live] == ["0.0.2"]


def test_what_cannot_be_written_leaves_its_beam_as_it_is() -> None:
    search = ProofBeamSearch(BeamConfig(width=2, expand=1))
    for item in search.expansions():
        search.add(item, step(item.name))
    for item in search.expansions():
        search.drop(item, 3)
    assert search.done and [len(beam.steps) for beam in search.finished] == [1, 1] and search.num_tokens == 46
    empty = ProofBeamSearch(BeamConfig(width=2))
    for item in empty.expansions():
        empty.drop(item, 0)
    assert empty.done and empty.ranked() == []


def test_each_level_is_told_with_what_became_of_its_candidates() -> None:
    search = ProofBeamSearch(BeamConfig(width=5, expand=5))
    first = search.expansions()
    for item, logprob, text, verdict in zip(
        first, (-2.0, -1.0, -3.0, -0.5), ("a", "b", "b ", "c"), ("UNKNOWN", "SUPPORTED", "UNKNOWN", "REFUTED"),
        strict=False,
    ):  # fmt: skip
        search.add(item, BeamStep(item.name, text, logprob, 20, verdict=verdict, detail=text * 2))  # type: ignore[arg-type]
    search.drop(first[4], 3)
    for item in search.expansions():
        search.add(item, step(item.name))
    level, second = search.levels
    assert (level.level, second.level) == (0, 1)
    assert [
        (item.name, item.parent, item.num_tokens, item.verdict, item.detail, item.fate) for item in level.candidates
    ] == [
        ("0.0.0", None, 20, "UNKNOWN", "aa", "outscored"),
        ("0.0.1", None, 20, "SUPPORTED", "bb", "kept"),
        ("0.0.2", None, 20, "UNKNOWN", "b b ", "repeated"),
        ("0.0.3", None, 20, "REFUTED", "cc", "refuted"),
        ("0.0.4", None, 3, "UNKNOWN", "", "lost"),
    ]
    assert level.candidates[0].score == pytest.approx(-2.0 / (25 / 6) ** 0.6) and level.candidates[4].score is None
    assert [item.parent for item in second.candidates] == ["0.0.1"] * 5


def test_the_first_step_is_written_however_few_tokens_there_are() -> None:
    search = ProofBeamSearch(BeamConfig(width=4, max_total_tokens=3))
    (only,) = search.expansions()
    assert only.max_tokens == 3
    search.add(only, step(only.name, num_tokens=3))
    assert search.expansions() == [] and [beam.num_tokens for beam in search.ranked()] == [3]


@given(
    st.integers(0, 2**32),
    st.builds(
        BeamConfig,
        width=st.integers(1, 6),
        expand=st.integers(1, 4),
        max_tokens=st.integers(1, 200),
        max_total_tokens=st.integers(1, 500),
        max_steps=st.integers(1, 6),
        max_step_tokens=st.integers(1, 60),
        min_step_tokens=st.integers(1, 20),
    ),
)
def test_it_ends_within_its_limits(seed: int, config: BeamConfig) -> None:
    noise, spent = random.Random(seed), 0
    search = ProofBeamSearch(config)

    def write(item: Expansion) -> BeamStep:
        nonlocal spent
        assert item.max_tokens >= 1
        num = noise.randint(1, item.max_tokens)
        spent += num
        verdict: Verdict = noise.choice(["UNKNOWN", "UNKNOWN", "REFUTED", "SUPPORTED"])
        return BeamStep(item.name, noise.choice("abcdef"), -noise.random() * num, num, noise.random() < 0.1, verdict)

    levels = drive(search, write)
    assert search.num_tokens == spent <= config.max_total_tokens
    assert all(len(level) <= config.width for level in levels)
    assert [len(level.candidates) for level in search.levels] == list(map(len, levels))
    assert sum(item.num_tokens for level in search.levels for item in level.candidates) == spent
    assert all(any(item.fate == "kept" for item in level.candidates) for level in search.levels)
    for beam in search.ranked():
        assert beam.num_tokens <= config.max_tokens and len(beam.steps) <= config.max_steps
        assert math.isfinite(search.score(beam))
    ends = [beam.ended for beam in search.ranked()]
    assert ends == sorted(ends, reverse=True), "those whose text is over come first"


@pytest.mark.parametrize(
    "given_", [{"width": 0}, {"expand": 0}, {"max_steps": 0}, {"length_penalty": 3.0}, {"min_step_tokens": 0}]
)
def test_limits_of_a_beam_are_checked(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"BeamConfig.{next(iter(given_))}"):
        BeamConfig(**given_)  # type: ignore[arg-type]
