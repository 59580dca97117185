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

from mathlete.proof_sampler.answer_format import AnswerFormat, AnswerState
from mathlete.proof_sampler.bracket_states import (
    BACKSLASH,
    BOX_COMMANDS,
    CLOSE,
    DIGITS,
    DOLLAR,
    GROUPS,
    LESS,
    LETTERS,
    LITERAL_DOLLAR,
    MATH_ENDS,
    MATH_ENVIRONMENTS,
    MATH_FRAMES,
    NAME_BYTES,
    NEWLINE,
    NO_DELIMITERS,
    NOT_SPACE,
    OPEN,
    OPENS_MATHEMATICS,
    SPACES,
    START,
    STRUCTURE,
    TEXT_COMMANDS,
    THINK_END,
    THINK_TAG,
    TICK,
    Control,
    Frame,
    Kind,
    State,
    States,
    in_prose,
    is_in,
    is_inline,
    knows_lines,
    longer_name,
)


class BracketTracker:
    """Follows texts. Has no state of its own: states go in and come out."""

    def __init__(self, max_depth: int = 32, answer: AnswerFormat | None = None, forgiving: bool = False) -> None:
        r"""Set the rules.

        Args:
            max_depth: frames open at once, at most.
            answer: what may stand inside `\boxed{...}`; None for anything.
            forgiving: nothing is refused but what stands inside `\boxed{...}`, and the text may end anywhere else.
        """
        self.max_depth = max_depth
        self.forgiving = forgiving
        self._format = answer
        self._handlers = {control: getattr(self, f"_{control.name.lower()}") for control in Control}

    def feed(self, states: States, data: bytes) -> States:
        """The readings after `data`; none when it is refused. Readings that have become the same are one."""
        if len(states) == 1:
            return self._advance(states[0], data)
        found: dict[State, None] = {}
        for state in states:
            found.update(dict.fromkeys(self._advance(state, data)))
        return tuple(found)

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

    def step(self, state: State, byte: int) -> States:
        """The readings after one more byte."""
        at_start = state.line_start
        if byte == NEWLINE:
            if at_start and (state.control in (Control.CODE, Control.CODE_TICKS) or is_inline(state.top)):
                return self._refused(state)
            state = state._replace(line_start=knows_lines(state.top), literal=0 if at_start else state.literal)
        elif at_start and byte not in SPACES:
            state = state._replace(line_start=False)
        after: States = self._handlers[state.control](state, byte, at_start)
        return after or self._refused(state)

    def _advance(self, state: State, data: bytes) -> States:
        """As stepping through `data`, but leaping over what changes nothing."""
        position, end = 0, len(data)
        while position < end:
            if state.control is Control.REST:
                found = STRUCTURE.search(data, position)
                stop = end if found is None else found.start()
                if state.line_start and NOT_SPACE.search(data, position, stop):
                    state = state._replace(line_start=False)
                if found is None:
                    return (state,)
                position = stop
            after = self.step(state, data[position])
            position += 1
            if len(after) != 1:
                return self.feed(after, data[position:]) if after else ()
            state = after[0]
        return (state,)

    def _refused(self, state: State) -> States:
        if not self.forgiving or state.control is Control.ANSWER:
            return ()
        return (START._replace(line_start=False),)

    # What each byte does, by control. Each gives the readings after it, none when it is refused.

    def _rest(self, state: State, byte: int, at_start: bool) -> States:
        top = state.top
        if byte == BACKSLASH:
            return (state._replace(control=Control.BACKSLASH),)
        if byte == OPEN:
            if in_prose(top):
                return (state,)
            return self._push(state, Kind.TEXT_GROUP if is_in(top, Kind.TEXT_GROUP) else Kind.GROUP)
        if byte == CLOSE:
            if top is not None and top.kind in GROUPS:
                return (_popped(state),)
            return (state,) if in_prose(top) else ()
        if byte == DOLLAR:
            return self._dollar_at_rest(state)
        if byte == TICK:
            if in_prose(top):
                control = Control.LINE_TICKS if at_start else Control.TICKS
                return (state._replace(control=control, detail=b"`"),)
            return (state._replace(control=Control.MATH_TICKS, detail=b"`"),)
        if byte == LESS and top is None:
            return (state._replace(control=Control.TAG, detail=b"<"),)
        return (state,)

    def _dollar_at_rest(self, state: State) -> States:
        top = state.top
        if top is None or top.kind is Kind.TEXT_ENV:
            return () if state.literal & LITERAL_DOLLAR else (state._replace(control=Control.DOLLAR),)
        if top.kind is Kind.DOLLAR:
            return (_popped(state),)
        if top.kind is Kind.DOLLARS:
            return (state._replace(control=Control.DOLLARS_END),)
        return () if top.dollar and top.kind is not Kind.TEXT_GROUP else (state,)

    def _backslash(self, state: State, byte: int, at_start: bool) -> States:
        if byte in LETTERS:
            if state.literal & LITERAL_DOLLAR and in_prose(state.top):
                return ()
            return (state._replace(control=Control.NAME, detail=longer_name(b"", byte)),)
        state = _at_rest(state)
        if byte in MATH_FRAMES:
            if in_prose(state.top):
                return self._push(state, MATH_FRAMES[byte][0])
            return (state,) if is_in(state.top, Kind.TEXT_GROUP) else ()
        if byte in MATH_ENDS:
            if is_in(state.top, MATH_ENDS[byte]):
                return (_popped(state),)
            return (state,) if is_in(state.top, Kind.TEXT_GROUP) else ()
        return (state,)

    def _name(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        if byte in LETTERS:
            return (state._replace(detail=longer_name(state.detail, byte)),)
        after = self._named(_at_rest(state), state.detail)
        return after and self._handlers[after[0].control](after[0], byte, at_start)

    def _named(self, state: State, name: bytes) -> States:
        """After a command's name, before whatever ends it."""
        if name == b"begin":
            has_room = state.top is None or state.top.depth < self.max_depth
            return (state._replace(control=Control.BEGIN),) if has_room else ()
        if name == b"end":
            is_open = state.top is not None and state.top.kind in (Kind.MATH_ENV, Kind.TEXT_ENV)
            return (state._replace(control=Control.END),) if is_open else ()
        if name == b"left":
            return tuple(s._replace(control=Control.DELIMITER) for s in self._push(state, Kind.LEFT))
        if name == b"right":
            return (_popped(state)._replace(control=Control.DELIMITER),) if is_in(state.top, Kind.LEFT) else ()
        if name in BOX_COMMANDS:
            return (state._replace(control=Control.BOX_ARGUMENT),)
        if name in TEXT_COMMANDS:
            return (state._replace(control=Control.TEXT_ARGUMENT),)
        return (_wants_argument(state),)

    def _argument(self, state: State, byte: int, at_start: bool) -> States:
        state = _at_rest(state)
        return self._push(state, Kind.TEXT_GROUP) if byte == OPEN else self._rest(state, byte, at_start)

    def _text_argument(self, state: State, byte: int, at_start: bool) -> States:
        if byte in SPACES or byte == NEWLINE:
            return (state,)
        return self._argument(state, byte, at_start)

    def _box_argument(self, state: State, byte: int, at_start: bool) -> States:
        if byte in SPACES or byte == NEWLINE:
            return (state,)
        state = _at_rest(state)
        if byte != OPEN:
            return self._rest(state, byte, at_start)
        text = in_prose(state.top) or is_in(state.top, Kind.TEXT_GROUP)
        opened = self._push(state, Kind.TEXT_GROUP if text else Kind.GROUP)
        if self._format is None:
            return opened
        return tuple(s._replace(control=Control.ANSWER, detail=self._format.start) for s in opened)

    def _answer(self, state: State, byte: int, at_start: bool) -> States:
        assert self._format is not None and isinstance(state.detail, AnswerState)
        if byte == CLOSE and self._format.may_close(state.detail):
            return (_popped(_at_rest(state)),)
        after = self._format.step(state.detail, byte)
        return () if after is None else (state._replace(detail=after),)

    def _delimiter(self, state: State, byte: int, at_start: bool) -> States:
        if byte in SPACES or byte == NEWLINE:
            return (state,)
        if byte == BACKSLASH:
            return (state._replace(control=Control.DELIMITER_BACKSLASH),)
        return () if byte in b"{}$" else (_at_rest(state),)

    def _delimiter_backslash(self, state: State, byte: int, at_start: bool) -> States:
        if byte in LETTERS:
            return (state._replace(control=Control.DELIMITER_NAME, detail=longer_name(b"", byte)),)
        return (_at_rest(state),) if byte in b"{}|" else ()

    def _delimiter_name(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        if byte in LETTERS:
            return (state._replace(detail=longer_name(state.detail, byte)),)
        return () if state.detail in NO_DELIMITERS else self._rest(_at_rest(state), byte, at_start)

    def _begin(self, state: State, byte: int, at_start: bool) -> States:
        if byte == OPEN:
            return (state._replace(control=Control.BEGIN_NAME),)
        return (state,) if byte in SPACES else ()

    def _begin_name(self, state: State, byte: int, at_start: bool) -> States:
        name = state.detail
        assert isinstance(name, bytes)
        if byte in NAME_BYTES:
            return (state._replace(detail=name + bytes([byte])),)
        if byte != CLOSE or not name:
            return ()
        prose = in_prose(state.top) or is_in(state.top, Kind.TEXT_GROUP)
        kind = Kind.TEXT_ENV if prose and name not in MATH_ENVIRONMENTS else Kind.MATH_ENV
        return tuple(_wants_argument(s) for s in self._push(_at_rest(state), kind, name))

    def _end(self, state: State, byte: int, at_start: bool) -> States:
        assert state.top is not None
        if byte == OPEN:
            return (state._replace(control=Control.END_NAME, detail=state.top.name),)
        return (state,) if byte in SPACES else ()

    def _end_name(self, state: State, byte: int, at_start: bool) -> States:
        rest = state.detail
        assert isinstance(rest, bytes)
        if not rest:
            return (_popped(_at_rest(state)),) if byte == CLOSE else ()
        return (state._replace(detail=rest[1:]),) if byte == rest[0] else ()

    def _dollar(self, state: State, byte: int, at_start: bool) -> States:
        state = _at_rest(state)
        if byte == DOLLAR:
            return self._push(state, Kind.DOLLARS)
        found = [s for opened in self._push(state, Kind.DOLLAR) for s in self._rest(opened, byte, at_start)]
        if byte in OPENS_MATHEMATICS:
            return tuple(found)
        if byte in LETTERS:
            return (state._replace(control=Control.WORD, literal=state.literal | LITERAL_DOLLAR), *found)
        literal = (state._replace(control=Control.CURRENCY),) if byte in DIGITS else self._rest(state, byte, at_start)
        return (*literal, *found)

    def _currency(self, state: State, byte: int, at_start: bool) -> States:
        if byte in DIGITS or byte in b".,":
            return (state,)
        return () if byte in b"^_\\" else self._rest(_at_rest(state), byte, at_start)

    def _word(self, state: State, byte: int, at_start: bool) -> States:
        if byte in b"^_\\{}$":
            return ()
        if byte in SPACES or byte == NEWLINE or byte == TICK:
            return self._rest(_at_rest(state), byte, at_start)
        return (state,)

    def _dollars_end(self, state: State, byte: int, at_start: bool) -> States:
        return (_popped(_at_rest(state)),) if byte == DOLLAR else ()

    def _math_ticks(self, state: State, byte: int, at_start: bool) -> States:
        ticks = state.detail
        assert isinstance(ticks, bytes)
        if byte == TICK:
            return (state._replace(detail=b"``"),) if ticks == b"`" else ()
        if state.literal & _tick_bit(ticks):
            return ()  # code spans come before mathematics
        return self._rest(_at_rest(state), byte, at_start)

    def _line_ticks(self, state: State, byte: int, at_start: bool) -> States:
        return self._run(state, byte, at_start, opens_fence=True)

    def _ticks(self, state: State, byte: int, at_start: bool) -> States:
        return self._run(state, byte, at_start, opens_fence=False)

    def _run(self, state: State, byte: int, at_start: bool, opens_fence: bool) -> States:
        """A run of backticks in prose: a fence, or the start of a code span, or just itself."""
        ticks = state.detail
        assert isinstance(ticks, bytes)
        if byte == TICK:
            return (state._replace(detail=ticks + b"`"),)
        if opens_fence and len(ticks) >= 3:
            return self._info(state._replace(control=Control.INFO), byte, at_start)
        bit = _tick_bit(ticks)
        if state.literal & bit:
            return ()  # the run that was taken literally had an end after all
        code = self._code(state._replace(control=Control.CODE, detail=ticks[:3]), byte, at_start)
        return (*self._rest(_at_rest(state)._replace(literal=state.literal | bit), byte, at_start), *code)

    def _info(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        if byte == TICK:  # a fence's line has none: it was a code span
            return self._code(state._replace(control=Control.CODE, detail=state.detail[:3]), byte, at_start)
        if byte != NEWLINE:
            return (state,)
        opened = self._push(_at_rest(state)._replace(literal=0), Kind.FENCE, state.detail)
        return tuple(s._replace(control=Control.FENCE_LINE) for s in opened)

    def _fence_line(self, state: State, byte: int, at_start: bool) -> States:
        if byte == TICK:
            return (state._replace(control=Control.FENCE_TICKS, detail=b"`"),)
        return self._fence_rest(state, byte, at_start) if byte not in SPACES else (state,)

    def _fence_ticks(self, state: State, byte: int, at_start: bool) -> States:
        ticks = state.detail
        assert isinstance(ticks, bytes) and state.top is not None
        if byte == TICK:
            return (state._replace(detail=(ticks + b"`")[: len(state.top.name)]),)
        if ticks != state.top.name:
            return self._fence_rest(state, byte, at_start)
        return self._fence_closed(state, byte, at_start)

    def _fence_closed(self, state: State, byte: int, at_start: bool) -> States:
        if byte == NEWLINE:
            return (_popped(_at_rest(state))._replace(line_start=True),)
        if byte in SPACES:
            return (state._replace(control=Control.FENCE_CLOSED, detail=b""),)
        return self._fence_rest(state, byte, at_start)

    def _fence_rest(self, state: State, byte: int, at_start: bool) -> States:
        control = Control.FENCE_LINE if byte == NEWLINE else Control.FENCE_REST
        return (state._replace(control=control, detail=b""),)

    def _code(self, state: State, byte: int, at_start: bool) -> States:
        if byte != TICK:
            return (state,)
        assert isinstance(state.detail, bytes)
        return (state._replace(control=Control.CODE_TICKS, detail=state.detail + b" `"),)

    def _code_ticks(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        opening, _, closing = state.detail.partition(b" ")
        if byte == TICK:
            longer = closing + b"`"
            return (state._replace(detail=opening + b" " + longer[:4]),)
        if _closes(opening, closing):
            return self._rest(_at_rest(state), byte, at_start)
        return (state._replace(control=Control.CODE, detail=opening),)

    def _tag(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        longer = state.detail + bytes([byte])
        if not THINK_TAG.startswith(longer):
            return self._rest(_at_rest(state), byte, at_start)
        if longer != THINK_TAG:
            return (state._replace(detail=longer),)
        return tuple(s._replace(control=Control.THINK) for s in self._push(_at_rest(state), Kind.THINK))

    def _think(self, state: State, byte: int, at_start: bool) -> States:
        assert isinstance(state.detail, bytes)
        longer = state.detail + bytes([byte])
        if longer == THINK_END:
            return (_popped(_at_rest(state)),)
        return (state._replace(detail=longer if THINK_END.startswith(longer) else b"<" if byte == LESS else b""),)

    def _push(self, state: State, kind: Kind, name: bytes = b"") -> States:
        below = state.top
        depth = 1 if below is None else below.depth + 1
        if depth > self.max_depth:
            return ()
        inherited = 0 if below is None else below.dollar
        dollar = int(kind) if kind in (Kind.DOLLAR, Kind.DOLLARS) else inherited
        top = Frame(kind, name, dollar, depth, below)
        return (state._replace(top=top, line_start=state.line_start and knows_lines(top)),)

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
            return _closes(*detail.split(b" "))
        if control is Control.TICKS or control is Control.LINE_TICKS:
            assert isinstance(detail, bytes)
            is_fence = control is Control.LINE_TICKS and len(detail) >= 3
            return not is_fence and not state.literal & _tick_bit(detail)
        return True


_UNFINISHED = frozenset(
    [Control.DELIMITER, Control.DELIMITER_BACKSLASH, Control.BEGIN, Control.BEGIN_NAME, Control.INFO, Control.CODE]
)
_WANTS_MORE = frozenset([b"begin", b"end", b"left", b"right"])


def _at_rest(state: State) -> State:
    return state._replace(control=Control.REST, detail=b"")


def _wants_argument(state: State) -> State:
    """In prose, only a brace right here opens a group; everywhere else any does."""
    return state._replace(control=Control.ARGUMENT) if in_prose(state.top) else state


def _popped(state: State) -> State:
    """Without the innermost frame. What closes a frame is no space, except the line's end behind a fence."""
    assert state.top is not None
    closed = state._replace(top=state.top.below, line_start=False)
    return _wants_argument(closed) if state.top.kind in GROUPS else closed


def _tick_bit(ticks: bytes) -> int:
    return 1 << (min(len(ticks), 3) - 1)


def _closes(opening: bytes, closing: bytes) -> bool:
    """Whether a run of backticks closes a code span; 3 stands for any number from 3 on."""
    return closing[:3] == opening
