"""The replay of recorded attempts in benchmarks/suffix_drafts.py counts what speculation would have done."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.ryanstream.speculative.depth_control import DraftLimits
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree
from mathlete.ryanstream.speculative.ngram import NgramProposer
from mathlete.ryanstream.speculative.sibling_suffix import SiblingSuffixProposer

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "suffix_drafts.py"
LIMITS = DraftLimits(max_nodes=4, max_depth=4)


@pytest.fixture(scope="module")
def replaying() -> ModuleType:
    spec = importlib.util.spec_from_file_location("suffix_drafts_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def test_a_draft_is_accepted_as_far_as_it_is_right(replaying: ModuleType) -> None:
    tree = DraftTree((5, 6, 7, 8), (ROOT, ROOT, 1, 2), (0.2, 0.7, 0.7, 0.7))
    tally = replaying.Tally()
    assert replaying.accepted(tree, [6, 7, 9, 8], tally) == 2
    assert tally.bins[2] == [1, 0.2, 0]
    assert tally.bins[7] == [3, pytest.approx(2.1), 2]
    assert replaying.accepted(tree, [6], tally) == 1


@pytest.mark.parametrize("together", [False, True])
def test_a_repeated_attempt_takes_a_fifth_of_the_steps(replaying: ModuleType, together: bool) -> None:
    said = replaying.Passage([*range(1000, 1100)], is_given=False)
    given = replaying.Passage([*range(50)], is_given=True)
    problem = replaying.Problem((1, 2, 3), [[said, given, said]])
    tally = replaying.replay([problem], NgramProposer, together, LIMITS)
    assert tally.num_tokens == 200
    assert tally.num_steps == 100 + 1 + 20  # All anew, one to be back in the text, then five at a time.


def test_siblings_one_after_another_help_each_other(replaying: ModuleType) -> None:
    said = replaying.Passage([*range(1000, 1100)], is_given=False)
    problem = replaying.Problem((1, 2, 3), [[said], [said]])
    alone = replaying.replay([problem, problem], NgramProposer, False, LIMITS)
    assert (alone.num_tokens, alone.num_steps, alone.num_nodes) == (400, 400, 0)
    helped = replaying.replay([problem], SiblingSuffixProposer, False, LIMITS)
    assert (helped.num_tokens, helped.num_steps) == (200, 120)
