"""Unions of intervals, joined where they touch. Knows intervals whose ends are rational or infinite."""

from __future__ import annotations

from fractions import Fraction

from mathlete.verify.answer_forms import Form, Infinite, Listed
from mathlete.verify.answer_values import Value
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.exact_values import exact_value


def interval_ends(part: Form) -> tuple[tuple[int, Fraction], tuple[int, Fraction]] | None:
    """Where an interval begins and ends, as keys that sort; None for what is no interval of known ends."""
    if not isinstance(part, Listed) or part.kind != "ordered" or len(part.elements) != 2:
        return None
    low, high = _end(part.elements[0]), _end(part.elements[1])
    return None if low is None or high is None else (low, high)


def _end(form: Form) -> tuple[int, Fraction] | None:
    if isinstance(form, Infinite):
        return form.sign, Fraction(0)
    if not isinstance(form, Value):
        return None
    try:
        return 0, exact_value(form.expression)
    except Refusal:
        return None


def joined_parts(listed: Listed) -> tuple[Form, ...]:
    """The parts of a union in ascending order, intervals that touch joined; as they stand where an end is not known."""
    parts = listed.elements if listed.kind == "union" else (listed,)
    intervals = [part for part in parts if isinstance(part, Listed) and interval_ends(part) is not None]
    if len(intervals) != len(parts):
        return parts
    joined: list[Listed] = []
    for part in sorted(intervals, key=_lower_end):
        if joined and _touch(joined[-1], part):
            last = joined[-1]
            end = part if _upper_end(part) > _upper_end(last) else last
            joined[-1] = Listed("ordered", (last.elements[0], end.elements[1]), last.brackets[0] + end.brackets[1])
        else:
            joined.append(part)
    return tuple(joined)


def _lower_end(interval: Listed) -> tuple[tuple[int, Fraction], bool]:
    """Sorts by the end, a closed one first."""
    ends = interval_ends(interval)
    assert ends is not None
    return ends[0], interval.brackets[0] == "("


def _upper_end(interval: Listed) -> tuple[tuple[int, Fraction], bool]:
    """Sorts by the end, a closed one last."""
    ends = interval_ends(interval)
    assert ends is not None
    return ends[1], interval.brackets[1] == "]"


def _touch(left: Listed, right: Listed) -> bool:
    """Whether no number lies between two intervals, of which the left one begins first."""
    (high, is_closed), (low, is_open) = _upper_end(left), _lower_end(right)
    return low < high or (low == high and (is_closed or not is_open))
