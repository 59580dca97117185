"""What real texts would be refused: problems as people typed them, and recorded solutions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mathlete.proof_sampler.bracket_states import START, States
from mathlete.proof_sampler.bracket_tracker import BracketTracker

pytestmark = pytest.mark.shared


def rows(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        yield from map(json.loads, lines)


def refusal(text: str) -> str | None:
    """Where a text is refused, and what comes before; "(end)" when only its end is."""
    tracker = BracketTracker()
    states: States = (START,)
    for i in range(0, len(text), 7):  # as if cut into tokens
        states = tracker.feed(states, text[i : i + 7].encode("utf-8", "replace"))
        if not states:
            return text[max(0, i - 60) : i + 7]
    return None if tracker.may_end(states) else f"{text[-60:]}(end)"


def test_problem_statements(shared_dir: Path) -> None:
    refused, num_texts = {}, 0
    for path in sorted((shared_dir / "problems").glob("*.jsonl*")):
        for row in rows(path):
            if "problem" in row:
                num_texts += 1
                where = refusal(row["problem"])
                if where is not None:
                    refused[row["id"]] = where
    assert num_texts > 10_000
    # The one: a price's "$" and a number in mathematics run together. LaTeX opens a display there, never closed.
    assert list(refused) == ["amc23-36"], refused


def test_recorded_solutions(shared_dir: Path) -> None:
    """Step by step solutions of four models. None is refused, right or wrong."""
    texts = [
        "\n\n".join(sample["steps"])
        for row in rows(shared_dir / "traces" / "process_birm_math.jsonl")
        for sample in row["samples"]
    ]
    assert len(texts) > 200
    assert [where for text in texts if (where := refusal(text)) is not None] == []


def test_recorded_ends_of_long_solutions(shared_dir: Path) -> None:
    """The last part of solutions, cut at their start: only what closes something opened before the cut is refused."""
    tracker = BracketTracker()
    num_texts, refused = 0, []
    for row in rows(shared_dir / "traces" / "gptoss120b_euler.jsonl"):
        for attempt in row["attempts"]:
            num_texts += 1
            states: States = (START,)
            text = attempt["tail"].encode("utf-8", "replace")
            for i in range(len(text)):
                states = tracker.feed(states, text[i : i + 1])
                if not states:
                    refused.append(text[: i + 1])
                    break
            else:
                assert tracker.may_end(states) or not attempt["features"]["finished"]
    assert num_texts > 1000 and len(refused) < 10
    assert all(text.endswith((b"\\]", b"\\)", b"\\end{")) for text in refused), refused
