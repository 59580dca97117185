"""Whole numbers in English words: "forty-two", "one hundred and five". Knows words only, and no units or fractions."""

from __future__ import annotations

import re

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MAX_WORDS = 16


def cardinal(text: str) -> int | None:
    """The number that all of `text` spells, or None: for other words, and for "two two" and the like."""
    words = re.split(r"[\s-]+", text.strip().lower())
    if not words[0] or len(words) > _MAX_WORDS:
        return None
    sign = -1 if words[0] in ("minus", "negative") else 1
    words = words[1:] if sign < 0 else words
    total, last_scale, group = 0, 10**12, []
    for word in words:
        if word not in _SCALES:
            group.append(word)
            continue
        value = _below_thousand(group)
        if not value or _SCALES[word] >= last_scale:
            return None
        total, last_scale, group = total + value * _SCALES[word], _SCALES[word], []
    if last_scale == 10**12:
        rest = _below_thousand(group)
        return None if rest is None else sign * rest
    rest = _below_thousand(group[1:] if group[:1] == ["and"] else group) if group else 0
    return None if rest is None or (group and rest == 0) else sign * (total + rest)


def _below_thousand(words: list[str]) -> int | None:
    """Of "three hundred (and) sixty five"."""
    if "hundred" in words:
        place = words.index("hundred")
        head, tail = words[:place], words[place + 1 :]
        if len(head) != 1 or not 1 <= _SMALL.get(head[0], 0) <= 9:
            return None
        rest = _below_hundred(tail[1:] if tail[:1] == ["and"] else tail) if tail else 0
        return None if rest is None or (tail and rest == 0) else 100 * _SMALL[head[0]] + rest
    return _below_hundred(words)


def _below_hundred(words: list[str]) -> int | None:
    if len(words) == 1:
        return _SMALL.get(words[0], _TENS.get(words[0]))
    if len(words) == 2 and words[0] in _TENS and 1 <= _SMALL.get(words[1], 0) <= 9:
        return _TENS[words[0]] + _SMALL[words[1]]
    return None
