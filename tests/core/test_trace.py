"""What is encoded into the trace comes back as it was, through JSON text."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.attempt import Attempt, BeamCandidate, BeamLevel, Failure, Fate, Turn
from mathlete.core.code import RunStatus, ToolResult
from mathlete.core.problem import AnswerKind, AnswerType, Problem
from mathlete.core.selection import AnswerCluster, Selection, Verdict
from mathlete.core.trace import (
    decode_attempt,
    decode_beam_level,
    decode_problem,
    decode_selection,
    decode_turn,
    encode,
    encode_ending,
    encode_problem,
)

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False)
names = st.text(min_size=1, max_size=8).filter(str.strip)
arrays = st.lists(numbers, max_size=4).map(tuple)
features = st.dictionaries(names, numbers, max_size=3)
results = st.builds(
    ToolResult,
    status=st.sampled_from(get_args(RunStatus)),
    stdout=texts,
    stderr=texts,
    elapsed_s=numbers,
    isolation=st.lists(names, max_size=2).map(tuple),
)
turns = st.builds(
    Turn,
    text=texts,
    code=st.none() | texts,
    result=st.none() | results,
    tool_text=st.none() | texts,
    num_tokens=st.integers(0, 9999),
    logprobs=arrays,
    entropies=arrays,
    top_means=arrays,
)
attempts = st.builds(
    Attempt,
    id=names,
    problem_id=names,
    index=st.integers(0, 99),
    pillar=names,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0, 2),
    answer=st.none() | texts,
    answer_source=st.sampled_from([None, "boxed", "stdout"]),
    turns=st.lists(turns, max_size=3).map(tuple),
    num_tokens=st.integers(0, 9999),
    elapsed_s=numbers,
    features=features,
    failure=st.sampled_from([None, *get_args(Failure)]),
    parent_id=st.none() | names,
)
candidates = st.builds(
    BeamCandidate,
    name=names,
    parent=st.none() | names,
    num_tokens=st.integers(0, 9999),
    score=st.none() | numbers,
    verdict=st.sampled_from(get_args(Verdict)),
    detail=texts,
    fate=st.sampled_from(get_args(Fate)),
)
levels = st.builds(BeamLevel, level=st.integers(0, 99), candidates=st.lists(candidates, max_size=3).map(tuple))
clusters = st.builds(AnswerCluster, answer=texts, weight=numbers, attempt_ids=st.lists(names, max_size=3).map(tuple))
selections = st.builds(
    Selection,
    answer=texts,
    rule=names,
    confidence=st.floats(0, 1),
    clusters=st.lists(clusters, max_size=3).map(tuple),
    terms=features,
    reasons=st.lists(texts, max_size=2).map(tuple),
)
kinds = st.tuples(st.sampled_from(get_args(AnswerType)), st.integers(), st.integers()).map(
    lambda t: AnswerKind(t[0], min(t[1:]), max(t[1:]))
)
problems = st.builds(
    Problem,
    id=names,
    statement=names,
    answer_kind=kinds,
    formal_statement=st.none() | texts,
    source=st.none() | texts,
)


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(json.dumps(data))
    return decoded


@given(turns)
def test_turns(turn: Turn) -> None:
    assert decode_turn(through_json(encode(turn))) == turn


@given(levels)
def test_beam_levels(level: BeamLevel) -> None:
    assert decode_beam_level(through_json(encode(level))) == level


@given(attempts)
def test_attempts(attempt: Attempt) -> None:
    assert decode_attempt(through_json(encode(attempt))) == attempt


@given(attempts)
def test_the_end_of_an_attempt_is_recorded_without_its_turns(attempt: Attempt) -> None:
    ending = through_json(encode_ending(attempt))
    assert "turns" not in ending
    assert decode_attempt(ending, attempt.turns) == attempt


@given(selections)
def test_selections(selection: Selection) -> None:
    assert decode_selection(through_json(encode(selection))) == selection


@given(problems)
def test_problems(problem: Problem) -> None:
    assert decode_problem(through_json(encode_problem(problem))) == problem


def test_a_turn_written_before_a_field_existed_has_its_default() -> None:
    assert decode_turn({"text": "x"}) == Turn("x")
    first = {"text": "x", "code": None, "result": None, "tool_text": None, "num_tokens": 1, "logprobs": [-0.5]}
    assert decode_turn({**first, "entropies": [0.1]}) == Turn("x", num_tokens=1, logprobs=(-0.5,), entropies=(0.1,))


def test_a_field_from_elsewhere_is_refused() -> None:
    with pytest.raises(TypeError, match="surprise"):
        decode_turn({"text": "x", "surprise": 1})
