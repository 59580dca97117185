"""The words in which `bracket_tracker.py` says what is open in a text, and the names that matter there."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from mathlete.proof_sampler.answer_format import AnswerFormat, AnswerState


class _Plain(IntEnum):
    """Hashes as fast as a plain number: states are looked up once a token."""

    __hash__ = int.__hash__


class Kind(_Plain):
    r"""What a frame is. `DOLLARS` is `$$`, `PAREN` is `\(`, `BRACKET` is `\[`; `TEXT_GROUP` is braces around text."""

    GROUP = 0
    TEXT_GROUP = 1
    DOLLAR = 2
    DOLLARS = 3
    PAREN = 4
    BRACKET = 5
    LEFT = 6
    MATH_ENV = 7
    TEXT_ENV = 8
    FENCE = 9
    THINK = 10


class Frame(NamedTuple):
    """One thing that is open.

    Attributes:
        kind: which.
        name: of an environment; the backticks of a fence; `ANSWER_NAME` of a box that ends the text; empty for the
            others.
        dollar: the innermost `DOLLAR` or `DOLLARS` it lies in (or is), else 0.
        depth: how many are open, this one included.
        below: what it lies in.
    """

    kind: Kind
    name: bytes
    dollar: int
    depth: int
    below: Frame | None


class Control(_Plain):
    """What has been begun and is not decided yet; in brackets what `State.detail` is then."""

    REST = 0
    BACKSLASH = 1
    NAME = 2  # a command's name (as far as it may still be one that matters, else b"?")
    ARGUMENT = 3  # a brace now would open an argument
    TEXT_ARGUMENT = 4  # the same, of text, and spaces may come first
    BOX_ARGUMENT = 5
    DELIMITER = 6  # \left or \right wants one
    DELIMITER_BACKSLASH = 7
    DELIMITER_NAME = 8  # (as NAME)
    BEGIN = 9  # \begin wants its brace
    BEGIN_NAME = 10  # (the name so far)
    END = 11
    END_NAME = 12  # (what is left of the name)
    DOLLAR = 13  # a $ in prose
    CURRENCY = 14  # the number behind a $ that is read as a currency sign
    WORD = 15  # the word behind a $ that is taken literally, as in $x
    DOLLARS_END = 16  # the first $ of a closing $$
    TICKS = 17  # (how many backticks in prose, in bytes)
    LINE_TICKS = 18  # the same, first on their line
    MATH_TICKS = 19
    INFO = 20  # the line behind an opening fence (its backticks)
    FENCE_LINE = 21  # only spaces on this line so far
    FENCE_TICKS = 22  # (backticks at the start of a line)
    FENCE_CLOSED = 23  # only spaces may follow on this line
    FENCE_REST = 24
    CODE = 25  # a code span (backticks that opened it, at most 3)
    CODE_TICKS = 26  # (those, b" ", backticks that may close it)
    TAG = 27  # (what there is of <think>)
    THINK = 28  # (what there is of </think>)
    ANSWER = 29  # inside \boxed{} (an AnswerState)
    BOX_START = 30  # the same, where anything may stand, and nothing does yet
    DONE = 31  # the answer's line has ended, and with it the text


class State(NamedTuple):
    """One reading of the text so far.

    Attributes:
        control: what is not decided yet.
        detail: see `Control`.
        top: the innermost frame, or None.
        line_start: only spaces since the last newline; False where that does not matter.
        literal: what was taken literally in this paragraph, and so must have no partner in it: bit n - 1 for a run
            of n backticks (3: or more), `LITERAL_DOLLAR` for a $ before a letter.
        answered: whether a box has been closed that ends the text with its line.
    """

    control: Control
    detail: bytes | AnswerState
    top: Frame | None
    line_start: bool
    literal: int
    answered: bool = False


States = tuple[State, ...]

SPACES = b" \t\r"
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGITS = frozenset(b"0123456789")
NAME_BYTES = LETTERS | DIGITS | frozenset(b"*")
OPENS_MATHEMATICS = frozenset(b"\\{([|")  # behind a dollar sign that is no currency sign
BACKSLASH, OPEN, CLOSE, DOLLAR, TICK, NEWLINE, LESS = b"\\{}$`\n<"

TEXT_COMMANDS = frozenset(
    b"text textbf textit textrm textsf texttt textnormal textsc textup mbox hbox intertext".split()
)
LITERAL_DOLLAR = 8
BOX_COMMANDS = frozenset([b"boxed", b"fbox"])
ANSWER_NAME = b"boxed"
NAMES = frozenset([b"begin", b"end", b"left", b"right", *TEXT_COMMANDS, *BOX_COMMANDS])
"""The commands that matter. All others are the same here."""
MATH_ENVIRONMENTS = frozenset(
    base + star
    for base in b"equation align gather multline flalign alignat eqnarray math displaymath aligned gathered split "
    b"cases array matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix dcases rcases subarray".split()
    for star in (b"", b"*")
)
THINK_TAG, THINK_END = b"<think>", b"</think>"
PREFIXES = frozenset(name[:length] for name in NAMES for length in range(len(name) + 1))
NO_DELIMITERS = frozenset([b"begin", b"end", b"left", b"right"])
OTHER = b"?"
STRUCTURE = re.compile(rb"[\\{}$`\n<]")
NOT_SPACE = re.compile(rb"[^ \t\r]")
GROUPS = frozenset([Kind.GROUP, Kind.TEXT_GROUP])
MATH_FRAMES = {0x28: (Kind.PAREN, 0x29), 0x5B: (Kind.BRACKET, 0x5D)}  # ( and [
MATH_ENDS = {end: kind for kind, end in MATH_FRAMES.values()}

START = State(Control.REST, b"", None, True, 0)
"""Nothing written yet."""


def in_prose(top: Frame | None) -> bool:
    """Whether no frame but text environments is open."""
    return top is None or top.kind is Kind.TEXT_ENV


def is_in(top: Frame | None, kind: Kind) -> bool:
    """Whether the innermost frame is of this kind."""
    return top is not None and top.kind is kind


def is_inline(top: Frame | None) -> bool:
    """Whether all of this lies in `$...$`, where no blank line may be."""
    return top is not None and top.dollar == Kind.DOLLAR


def knows_lines(top: Frame | None) -> bool:
    """Whether it matters here that a line begins."""
    return in_prose(top) or is_inline(top)


def longer_name(name: bytes, letter: int) -> bytes:
    """A command's name with one more letter; `OTHER` when it can no longer be one that matters."""
    longer = name + bytes([letter])
    return longer if longer in PREFIXES else OTHER


class Rules(NamedTuple):
    """How deep a text may go, what may stand inside a box (None: anything), and whether a box ends the text."""

    max_depth: int
    answer: AnswerFormat | None
    ends_after_answer: bool


Handler = Callable[[Rules, State, int, bool], States]
"""The readings after one more byte; the flag says that only spaces came before it on its line."""


def at_rest(state: State) -> State:
    """With nothing begun."""
    return state._replace(control=Control.REST, detail=b"")


def wants_argument(state: State) -> State:
    """In prose, only a brace right here opens a group; everywhere else any does."""
    return state._replace(control=Control.ARGUMENT) if in_prose(state.top) else state


def pushed(rules: Rules, state: State, kind: Kind, name: bytes = b"") -> States:
    """With one more frame; none when there are too many."""
    below = state.top
    depth = 1 if below is None else below.depth + 1
    if depth > rules.max_depth:
        return ()
    inherited = 0 if below is None else below.dollar
    dollar = int(kind) if kind in (Kind.DOLLAR, Kind.DOLLARS) else inherited
    top = Frame(kind, name, dollar, depth, below)
    return (state._replace(top=top, line_start=state.line_start and knows_lines(top)),)


def popped(state: State) -> State:
    """Without the innermost frame. What closes a frame is no space, except the line's end behind a fence."""
    assert state.top is not None
    answered = state.answered or (state.top.kind in GROUPS and state.top.name == ANSWER_NAME)
    closed = state._replace(top=state.top.below, line_start=False, answered=answered)
    return wants_argument(closed) if state.top.kind in GROUPS else closed


def tick_bit(ticks: bytes) -> int:
    """The bit of `State.literal` for a run of backticks."""
    return 1 << (min(len(ticks), 3) - 1)


def closes(opening: bytes, closing: bytes) -> bool:
    """Whether a run of backticks closes a code span; 3 stands for any number from 3 on."""
    return closing[:3] == opening
