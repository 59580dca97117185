"""Progress in words: what is told once, what is told again, and what is not."""

from __future__ import annotations

from mathlete.serving.telling import Glimpse, news
from mathlete.triad.progress import ProblemProgress


def glimpse(at_s: float, **row: object) -> Glimpse:
    return Glimpse(None, ProblemProgress("p", "open", **row), at_s, 120 - at_s)  # type: ignore[arg-type]


def test_a_place_in_the_queue() -> None:
    assert news(None, Glimpse(3)) == "Waiting: 3 problems first.\n"
    assert news(Glimpse(3), Glimpse(3)) is None
    assert news(Glimpse(3), Glimpse(1)) == "Waiting: 1 problem first.\n"
    assert news(Glimpse(1), Glimpse(None)) is None  # its turn has come; it begins in a moment
    assert news(None, Glimpse(None)) is None


def test_what_happens() -> None:
    begun = glimpse(0.4, num_in_flight=4)
    assert news(Glimpse(1), begun) == "Begun; 1:59 left at most.\n[0:00] 4 attempts begun.\n"
    assert news(begun, glimpse(5, num_in_flight=4, num_tokens=90)) is None
    first = glimpse(7, num_in_flight=3, num_finished=1, num_tokens=150, votes=(("42", 1),))
    assert news(begun, first) == "[0:07] 1 attempt finished, 3 going on; votes: 42 ×1; 1:53 left.\n"
    more = glimpse(9, num_in_flight=5, num_finished=1, num_tokens=160, votes=(("42", 1),))
    assert news(first, more) == "[0:09] 2 more begun.\n"
    votes = tuple((str(answer), 1) for answer in range(6))
    checked = glimpse(65, num_in_flight=0, num_finished=8, num_checks=2, votes=votes)
    told = news(more, checked)
    assert told is not None and "8 attempts finished" in told and "2 checks done; votes: 0 ×1, 1 ×1" in told
    assert "and 2 more; 0:55 left" in told and "[1:05]" in told


def test_when_nothing_happens_the_time_left_is_told_now_and_then() -> None:
    before = glimpse(10, num_in_flight=4)
    assert news(before, glimpse(20, num_in_flight=4, num_tokens=1500)) is None
    told = news(before, glimpse(26, num_in_flight=4, num_tokens=1500))
    assert told == "[0:26] 1,500 tokens written; 1:34 left.\n"


def test_attempts_without_answers() -> None:
    told = news(glimpse(1, num_in_flight=1), glimpse(2, num_finished=1))
    assert told == "[0:02] 1 attempt finished, 0 going on; no answer yet; 1:58 left.\n"
