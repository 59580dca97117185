r"""What is open in a running text: groups, environments, mathematics, fences; and what can never be right there.

Bytes in, states out; knows no tokens and no vocabulary. Exact and incremental: states are immutable and share what
they have in common, so that going back to one costs nothing.

**Hard** is only what no reader of LaTeX in Markdown accepts: `}` in mathematics that closes nothing, `\end{x}` that
does not match, `\right` without `\left`, a delimiter of mathematics that closes another kind, a single `$` inside `$$`,
a blank line or ``` inside `$...$`, `\(` inside mathematics, more open than a ceiling. The text may not end while a
group (`\boxed{` too), an environment, mathematics, a fence or a block of thinking is open.

**Free** are round and square brackets, in prose and in mathematics: [0, 1), "1) first", "a)", ":)" and ]0, 1[ are
right. So are braces in prose, unless they are the argument of a command. Inside fences, code spans (`...`) and
`<think>` nothing is looked at but their end.

A text is right when *some reading* of it is. Two characters have two: a `$` that is not followed by `\` or an opening
bracket may be just that (a price, but not one like `$5^` or `$5\`; a price of `$x`, if the paragraph goes on without
another `$` and without commands in prose), and a backtick may be just one, if no other run of its length follows in
the paragraph (CommonMark 6.1). All readings that are still possible are followed side by
side (a tuple of `State`); what one of them allows is allowed.

Not followed: `%` comments, `\verb` and verbatim environments, `~~~` fences, mathematics inside text inside mathematics
(`\text{if $x$}`: its braces count, its dollars do not).

Glossary: a *frame* is one thing that is open; `top` is the innermost. *Prose* is where no frame but text environments
is open. `control` says what has been begun and is not decided yet, such as a command's name; `detail` goes with it.
"""

from __future__ import annotations

from mathlete.proof_sampler import latex_rules, markdown_rules
from mathlete.proof_sampler.answer_format import AnswerFormat
from mathlete.proof_sampler.bracket_states import (
    NEWLINE,
    NO_DELIMITERS,
    NOT_SPACE,
    SPACES,
    START,
    STRUCTURE,
    Control,
    Rules,
    State,
    States,
    closes,
    is_inline,
    knows_lines,
    tick_bit,
)


class BracketTracker:
    """Follows texts. Has no state of its own: states go in and come out."""

    def __init__(
        self,
        max_depth: int = 32,
        answer: AnswerFormat | None = None,
        forgiving: bool = False,
        ends_after_answer: bool = False,
    ) -> None:
        r"""Set the rules.

        Args:
            max_depth: frames open at once, at most.
            answer: what may stand inside `\boxed{...}`; None for anything.
            forgiving: nothing is refused but what stands inside `\boxed{...}`, and the text may end anywhere else.
            ends_after_answer: once `\boxed{...}` has been closed outside fences and thinking, and then a line ends
                where nothing is open, only white space may follow.
        """
        self.max_depth = max_depth
        self.forgiving = forgiving
        self._rules = Rules(max_depth, answer, ends_after_answer)

    def feed(self, states: States, data: bytes) -> States:
        """The readings after `data`; none when it is refused. Readings that have become the same are one.

        All readings go on in step, so that they can become one: each by itself to the end would double at every `$`.
        """
        position, end = 0, len(data)
        while position < end and states:
            if all(state.control is Control.REST for state in states):
                states, position = self._leap(states, data, position)
                if position == end:
                    break
            byte = data[position]
            position += 1
            if len(states) == 1:
                states = self.step(states[0], byte)
            else:
                states = tuple(dict.fromkeys(after for state in states for after in self.step(state, byte)))
        return states

    def feed_leniently(self, states: States, data: bytes) -> States:
        """The readings after a text that stands already: where it is refused, everything open is forgotten."""
        after = self.feed(states, data)
        if after:
            return after
        for byte in data:
            after = self.feed(states, bytes([byte]))
            states = after or (START._replace(line_start=byte == NEWLINE),)
        return states

    def may_end(self, states: States) -> bool:
        """Whether the text may end here."""
        return any(self._may_end(state) for state in states)

    def is_done(self, states: States) -> bool:
        """Whether the line of the answer has ended, in one reading at least."""
        return any(state.control is Control.DONE for state in states)

    def step(self, state: State, byte: int) -> States:
        """The readings after one more byte."""
        at_start = state.line_start
        if byte == NEWLINE:
            if at_start and (state.control in (Control.CODE, Control.CODE_TICKS) or is_inline(state.top)):
                return self._refused(state)
            state = state._replace(line_start=knows_lines(state.top), literal=0 if at_start else state.literal)
        elif at_start and byte not in SPACES:
            state = state._replace(line_start=False)
        after: States = _HANDLERS[state.control](self._rules, state, byte, at_start)
        if state.answered and byte == NEWLINE:
            after = tuple(s._replace(control=Control.DONE) if _is_idle(s) else s for s in after)
        return after or self._refused(state)

    def _leap(self, states: States, data: bytes, position: int) -> tuple[States, int]:
        """Over what changes nothing: the readings before the next character that may, and its place."""
        found = STRUCTURE.search(data, position)
        stop = len(data) if found is None else found.start()
        if any(state.line_start for state in states) and NOT_SPACE.search(data, position, stop):
            states = tuple(dict.fromkeys(state._replace(line_start=False) for state in states))
        return states, stop

    def _refused(self, state: State) -> States:
        if not self.forgiving or state.control in (Control.ANSWER, Control.DONE):
            return ()
        return (START._replace(line_start=False, answered=state.answered),)

    def _may_end(self, state: State) -> bool:
        control, detail, top = state.control, state.detail, state.top
        if self.forgiving:
            return control is not Control.ANSWER
        if control in (Control.FENCE_TICKS, Control.FENCE_CLOSED):
            assert top is not None
            return top.below is None and (control is Control.FENCE_CLOSED or detail == top.name)
        if top is not None or control in _UNFINISHED:
            return False
        if control is Control.NAME:
            return detail not in _WANTS_MORE
        if control is Control.DELIMITER_NAME:
            return detail not in NO_DELIMITERS
        if control is Control.CODE_TICKS:
            assert isinstance(detail, bytes)
            return closes(*detail.split(b" "))
        if control is Control.TICKS or control is Control.LINE_TICKS:
            assert isinstance(detail, bytes)
            is_fence = control is Control.LINE_TICKS and len(detail) >= 3
            return not is_fence and not state.literal & tick_bit(detail)
        return True


def _is_idle(state: State) -> bool:
    return state.top is None and state.control is Control.REST


_HANDLERS = {**latex_rules.HANDLERS, **markdown_rules.HANDLERS}
_UNFINISHED = frozenset(
    [Control.DELIMITER, Control.DELIMITER_BACKSLASH, Control.BEGIN, Control.BEGIN_NAME, Control.INFO, Control.CODE]
)
_WANTS_MORE = frozenset([b"begin", b"end", b"left", b"right"])
