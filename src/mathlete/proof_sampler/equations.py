r"""Which equations a running text asserts, and which of them contradict arithmetic or each other.

Bytes in, states out, in any pieces; pure, no processes, no vocabulary. States are immutable, so going back to one costs
nothing. What a text may still become is not judged: a contradiction is told of once the clause it ends in is complete.

**It masks no token, on purpose.** Forbidding what completes a false equation would be unsound: "12 \times 13 = 154."
stands rightly in "Is 12 \times 13 = 154? No", "= 154 + 2", "suppose that ...", "... which is absurd", as does
"5 \cdot 3 = 1" in arithmetic modulo 7, and which of these it is shows only behind the number. It would also come too
late: with the "." masked the text still stands on "= 154". So contradictions are events with a place, and whoever
samples goes back to it.

Two kinds are told. *Arithmetic*: plain integers on both sides of "=", the right one a bare number that ends its clause.
*Value*: in one paragraph a letter was concluded to be two different integers ("so x = 3." ... "hence x = 5."), without
any word between that may open another case. Doubtful sentences (conditions, questions) are left out, a word such as
"contradiction" or "not" close behind takes back what was told just before it, and arithmetic is left alone altogether
from where on it may be meant otherwise: modulo something, in another base, with a sign that was given a meaning, under
a supposition, as somebody's claim.

Glossary: a *clause* ends at a newline, or at one of . , ; : ! ? before white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mathlete.proof_sampler.integer_arithmetic import integer_value

MAX_CLAUSE_BYTES = 2_000
"""A longer clause is cut there and not looked at."""
MAX_KEPT = 64
"""Values and contradictions that a state remembers: the newest."""
TAKE_BACK_BYTES = 240
"""How far before a word of contradiction something told is taken back."""

_BOUNDARY = re.compile(rb"\n|[.,;:!?](?=\s)")
_NUMBER = re.compile(r"(?<![0-9])([1-9][0-9]{0,2})((?:(?:\{,\}|,\\!|,)[0-9]{3})+)(?![0-9])")
_ARITHMETIC_END = re.compile(r"(?:[0-9+\-*/^(){}×·÷\s]|\\(?:times|cdot|div|left|right)(?![A-Za-z]))+$")
_BARE = re.compile(r"\s*(-?[0-9]+)\s*$")
_ENDS_BARE = re.compile(r"\s*(-?[0-9]+)\s*(?:$|[.,;!]|\$(?!\s*[-+*/^!%0-9(])|\\[)\]](?!\s*[-+*/^!%0-9(]))")
_LAST_WORD = re.compile(r"([A-Za-z]+)\W*$")
_EQUATION = re.compile(r"(?<![<>!=:~≠])=(?!=)")
_OPERATION = re.compile(r"[0-9]\D*[-+*/^×·÷tc]\D*[0-9]")
_RANGE_OR_DATE = re.compile(r"[0-9]+[-/][0-9]+")
_DOLLARS = "$\\([ "
"""What opens a formula, and white space."""
_CONCLUDED = re.compile(
    r"\b(?:so|thus|therefore|hence|get|find|obtain|conclude|gives|yields|implies)\b[^=<>]*?(?<![A-Za-z\\^_])"
    r"(?P<letter>[A-Za-z])\s*=\s*(?P<value>-?[0-9]+)\s*(?:\$|\\[)\]])?\s*$",
    re.IGNORECASE,
)
_STANDS_ALONE = re.compile(r"(?:(?<!\\)\b[A-Za-z]{2,}|[,:])\s*(?:\s|\$|\\\()$")
_DOUBT = re.compile(
    r"\b(?:if|suppose|assum\w+|let|unless|whether|when\w*|would|could|should|might|check|test|try|trying|want|need|for|given"
    r"|approx\w*|about|round\w*|estimat\w*)\b|≈|\?",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    r"contradict|imposs|absurd|\bnot\b|n['’]t\b|\bfalse\b|\bfails?\b|\bwrong|incorrect|mistake|\berror|\bnever\b|cannot|\bwait\b"
    r"|\bno\b|inconsisten|invalid|extraneous",
    re.IGNORECASE,
)
_MEANT_OTHERWISE = re.compile(
    r"\bmod(?:ul\w+)?\b|\bxor\b|⊕|\\[bp]?mod\b|\\equiv|≡|\bbases?\b|binary|hexadec|octal|residue|congru|remainder|clock|digits?\b"
    r"|\bsuppos\w*|\bassum\w*|contradict|\bclaim(?:s|ed)\b|\bsays\b|\bsaid\b|\bbelieve[sd]\b|\bthinks\b|\bwr(?:ites|ote)\b"
    r"|\ban?(?: \w+)? (?:student|pupil)\b|\\math\w+\s*\{?\s*[ZF]\s*\}?\s*_|\bdefin\w*|\boperation\b"
    r"|(?<![A-Za-z\\])[A-Za-z]\s*(?:[*∗]|\\ast\b)\s*[A-Za-z]\s*:?=",
    re.IGNORECASE,
)
_OTHER_CASE = re.compile(
    r"\b(?:if|case|cases|suppose|assum\w+|let|or|either|otherwise|another|second|other|also|when\w*|for|each|respectively|"
    r"next|new|now|after\w*|before|initial\w*|step|try|test|check|solutions?|roots?|values?|possib\w*|instead|wait|but|"
    r"however|not|becomes?|increment\w*|say|choose|take|set|similarly|likewise|option\w*|range\w*|minimum|maximum)\b|\|",
    re.IGNORECASE,
)
_MEASURED = re.compile(
    r"[0-9]\s*(?:h|hrs?|hours?|min|minutes?|days?|weeks?|months?|years?|foot|feet|ft|yards?|pounds?|lbs?|dollars?|degrees?)\s*$"
)
_OPERATION_WORDS = frozenset(
    "of twice half double triple times plus minus by from and per over than to square squared cubed divided multiplied "
    "subtract add less more root log ln sin cos tan gcd lcm max min choose mod modulo power base x sqrt frac".split()
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something in the text that cannot be true with the rest of it.

    Attributes:
        kind: "arithmetic" (false by itself) or "value" (a letter was something else before).
        start: place of the equation's first byte in the text.
        end: place behind its last.
        detail: what it is, for a person.
    """

    kind: Literal["arithmetic", "value"]
    start: int
    end: int
    detail: str


class EquationState(NamedTuple):
    """All that is known of a text; equal states go on alike.

    Attributes:
        num_bytes: fed so far, those pending included.
        pending: bytes of the clause that is not complete.
        is_cut: that clause is too long, and its beginning is gone.
        in_code: a fenced block is open.
        is_line_start: the pending clause begins its line.
        follows_number: a number and a comma stand right before the pending clause: "14, 400 / 80".
        is_doubtful: its sentence has a condition, a question or the like in it.
        may_mean_otherwise: something modular, defined, supposed or claimed by others stands anywhere in the text.
        values: (letter, value) concluded in this paragraph, without another case since.
        contradictions: found so far, in order, without those taken back.
    """

    num_bytes: int = 0
    pending: bytes = b""
    is_cut: bool = False
    in_code: bool = False
    is_line_start: bool = True
    follows_number: bool = False
    is_doubtful: bool = False
    may_mean_otherwise: bool = False
    values: tuple[tuple[str, int], ...] = ()
    contradictions: tuple[Contradiction, ...] = ()


START = EquationState()
"""Nothing written yet."""


class EquationTracker:
    """Follows texts. Has no state of its own: states go in and come out."""

    def feed(self, state: EquationState, data: bytes) -> EquationState:
        """The state after `data`; the same for every way of cutting a text into pieces."""
        buffer = state.pending + data
        state = state._replace(num_bytes=state.num_bytes + len(data))
        place = state.num_bytes - len(buffer)
        consumed = 0
        while True:
            boundary = _BOUNDARY.search(buffer, consumed, consumed + MAX_CLAUSE_BYTES + 1)
            if boundary is not None and boundary.end() <= consumed + MAX_CLAUSE_BYTES:
                clause = buffer[consumed : boundary.end()]
                state = self._closed(state, clause, place + consumed)
                consumed = boundary.end()
            elif len(buffer) - consumed > MAX_CLAUSE_BYTES:
                state = state._replace(is_cut=True, is_line_start=False)
                consumed += MAX_CLAUSE_BYTES
            else:
                return state._replace(pending=buffer[consumed:])

    def finish(self, state: EquationState) -> EquationState:
        """The state when the text ends here: its last clause is complete."""
        return self.feed(state, b"\n")

    def _closed(self, state: EquationState, raw: bytes, start: int) -> EquationState:
        """After a complete clause, its boundary included."""
        text = raw.decode("utf-8", errors="replace")
        ends_line = raw.endswith(b"\n")
        if state.is_line_start and text.lstrip().startswith("```"):
            return state._replace(in_code=not state.in_code, is_line_start=ends_line, is_cut=False)
        if state.in_code or state.is_cut:
            return state._replace(is_line_start=ends_line, is_cut=state.is_cut and not ends_line)
        if state.is_line_start and not text.strip():  # a blank line: another paragraph
            return state._replace(values=(), is_doubtful=False)
        state = state._replace(
            may_mean_otherwise=state.may_mean_otherwise or _MEANT_OTHERWISE.search(text) is not None,
            is_doubtful=state.is_doubtful or _DOUBT.search(text) is not None,
        )
        state = _judged(_taken_back(state, text, start), text, start, start + len(raw))
        ends_sentence = raw[-1:] in (b"\n", b".", b"!", b"?")
        return state._replace(
            is_line_start=ends_line,
            is_doubtful=state.is_doubtful and not ends_sentence,
            follows_number=raw[-1:] == b"," and raw[-2:-1].isdigit(),
        )


def contradictions_in(text: str) -> tuple[str, ...]:
    """The contradictions of a whole text, in words; one stays as it is when the text goes on behind it."""
    tracker = EquationTracker()
    state = tracker.finish(tracker.feed(START, text.encode("utf-8", errors="replace")))
    return tuple(f"{found.detail} (byte {found.start})" for found in state.contradictions)


def _taken_back(state: EquationState, text: str, start: int) -> EquationState:
    """Without what was told close before a word such as "contradiction"."""
    if not state.contradictions or not _TAKES_BACK.search(text):
        return state
    kept = tuple(found for found in state.contradictions if found.end < start - TAKE_BACK_BYTES)
    return state._replace(contradictions=kept)


def _judged(state: EquationState, text: str, start: int, end: int) -> EquationState:
    """After the equations of one clause."""
    if _OTHER_CASE.search(text):
        state = state._replace(values=())
    if "=" not in text or state.is_doubtful or _TAKES_BACK.search(text):
        return state
    plain = _NUMBER.sub(lambda match: match[1] + re.sub(r"[^0-9]", "", match[2]), text.rstrip().rstrip(".,;:!?"))
    found: list[Contradiction] = []
    if not state.may_mean_otherwise and not (state.follows_number or _ends_in_number_and_comma(text)):
        found.extend(_false_arithmetic(_EQUATION.split(plain), start, end))
    concluded = _conclusion(plain) if text[-1:] in (".", "\n", ";") and not _OTHER_CASE.search(text) else None
    if concluded is not None:
        letter, value = concluded
        before = dict(state.values).get(letter, value)
        if before != value:
            found.append(Contradiction("value", start, end, f"{letter} = {value}, but {letter} = {before} before"))
        state = state._replace(values=(*(v for v in state.values if v[0] != letter), concluded)[-MAX_KEPT:])
    return state._replace(contradictions=(*state.contradictions, *found)[-MAX_KEPT:])


def _conclusion(clause: str) -> tuple[str, int] | None:
    """The letter and the integer that a clause concludes it to be: "hence $x = 5$"; None where it does not."""
    found = _CONCLUDED.search(clause)
    if found is None or not _STANDS_ALONE.search(clause, 0, found.start("letter")):
        return None
    return found["letter"], int(found["value"])


def _ends_in_number_and_comma(text: str) -> bool:
    """Whether the clause may break off inside a number: "14, 400"."""
    return re.search(r"[0-9],\s*$", text) is not None


def _false_arithmetic(sides: list[str], start: int, end: int) -> Iterator[Contradiction]:
    for index, (left, right) in enumerate(zip(sides, sides[1:], strict=False)):
        is_last = index == len(sides) - 2
        told = (_ENDS_BARE.match if is_last else _BARE.match)(right)
        if told is None:
            continue
        expression = _arithmetic_at_end(left)
        value = None if expression is None else integer_value(expression)
        if expression is not None and value is not None and value != int(told[1]):
            detail = f"{' '.join(expression.split())} = {told[1]}, but it is {value}"
            yield Contradiction("arithmetic", start, end, detail)


def _arithmetic_at_end(side: str) -> str | None:
    """The arithmetic that a side ends with, where it is one whole computation; None otherwise."""
    found = _ARITHMETIC_END.search(side)
    if found is None:
        return None
    start = found.start() + (found[0].startswith("(") and side[: found.start()].endswith("\\"))  # "\\(" is no bracket
    text = side[start:].replace(r"\left", "").replace(r"\right", "")
    before = side[:start] + text[: len(text) - len(text.lstrip())]
    text = text.strip()
    if not _OPERATION.search(text) or _RANGE_OR_DATE.fullmatch(text):
        return None
    if before.strip() and (text[0] not in "0123456789(" or not _may_begin_behind(before)):
        return None
    return text


def _may_begin_behind(before: str) -> bool:
    """Whether a computation may begin behind `before`, rather than go on with what stands there."""
    opened = before.rstrip(_DOLLARS)
    word = _LAST_WORD.search(opened)
    if word is None or not opened.endswith(word[1]):
        begins = before.rstrip().endswith((":", "$", "\\(", "\\["))
        return begins and not re.search(r"[0-9+\-*/^=]\s*$", before.rstrip().rstrip(_DOLLARS + ":"))
    is_part = len(word[1]) == 1 or word[1].lower() in _OPERATION_WORDS or before[-1] not in " $([{\\\n\t"
    return not is_part and not _MEASURED.search(before)  # 2 hours 20 + 10
