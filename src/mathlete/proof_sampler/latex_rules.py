r"""What each byte of LaTeX does to what is open: groups, environments, mathematics, `\left` and `\right`, boxes.

One function for each `Control` (`HANDLERS`); each gives the readings after the byte, none when it is refused. What is
hard and what is free is said in `bracket_tracker.py`.
"""

from __future__ import annotations

from mathlete.proof_sampler.answer_format import AnswerState
from mathlete.proof_sampler.bracket_states import (
    ANSWER_NAME,
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
    OPEN,
    OPENS_MATHEMATICS,
    SPACES,
    TEXT_COMMANDS,
    TICK,
    Control,
    Handler,
    Kind,
    Rules,
    State,
    States,
    at_rest,
    in_prose,
    is_in,
    longer_name,
    popped,
    pushed,
    wants_argument,
)


def rest(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    """Where nothing has been begun."""
    top = state.top
    if byte == BACKSLASH:
        return (state._replace(control=Control.BACKSLASH),)
    if byte == OPEN:
        if in_prose(top):
            return (state,)
        return pushed(rules, state, Kind.TEXT_GROUP if is_in(top, Kind.TEXT_GROUP) else Kind.GROUP)
    if byte == CLOSE:
        if top is not None and top.kind in GROUPS:
            return (popped(state),)
        return (state,) if in_prose(top) else ()
    if byte == DOLLAR:
        return _dollar_at_rest(state)
    if byte == TICK:
        if in_prose(top):
            control = Control.LINE_TICKS if at_start else Control.TICKS
            return (state._replace(control=control, detail=b"`"),)
        return (state._replace(control=Control.MATH_TICKS, detail=b"`"),)
    if byte == LESS and top is None:
        return (state._replace(control=Control.TAG, detail=b"<"),)
    return (state,)


def _dollar_at_rest(state: State) -> States:
    top = state.top
    if top is None or top.kind is Kind.TEXT_ENV:
        return () if state.literal & LITERAL_DOLLAR else (state._replace(control=Control.DOLLAR),)
    if top.kind is Kind.DOLLAR:
        return (popped(state),)
    if top.kind is Kind.DOLLARS:
        return (state._replace(control=Control.DOLLARS_END),)
    return () if top.dollar and top.kind is not Kind.TEXT_GROUP else (state,)


def _backslash(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in LETTERS:
        if state.literal & LITERAL_DOLLAR and in_prose(state.top):
            return ()
        return (state._replace(control=Control.NAME, detail=longer_name(b"", byte)),)
    state = at_rest(state)
    if byte in MATH_FRAMES:
        if in_prose(state.top):
            return pushed(rules, state, MATH_FRAMES[byte][0])
        return (state,) if is_in(state.top, Kind.TEXT_GROUP) else ()
    if byte in MATH_ENDS:
        if is_in(state.top, MATH_ENDS[byte]):
            return (popped(state),)
        return (state,) if is_in(state.top, Kind.TEXT_GROUP) else ()
    return (state,)


def _name(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    if byte in LETTERS:
        return (state._replace(detail=longer_name(state.detail, byte)),)
    after = _named(rules, at_rest(state), state.detail)
    return after and HANDLERS[after[0].control](rules, after[0], byte, at_start)


def _named(rules: Rules, state: State, name: bytes) -> States:
    """After a command's name, before whatever ends it."""
    if name == b"begin":
        has_room = state.top is None or state.top.depth < rules.max_depth
        return (state._replace(control=Control.BEGIN),) if has_room else ()
    if name == b"end":
        is_open = state.top is not None and state.top.kind in (Kind.MATH_ENV, Kind.TEXT_ENV)
        return (state._replace(control=Control.END),) if is_open else ()
    if name == b"left":
        return tuple(s._replace(control=Control.DELIMITER) for s in pushed(rules, state, Kind.LEFT))
    if name == b"right":
        return (popped(state)._replace(control=Control.DELIMITER),) if is_in(state.top, Kind.LEFT) else ()
    if name in BOX_COMMANDS:
        return (state._replace(control=Control.BOX_ARGUMENT),)
    if name in TEXT_COMMANDS:
        return (state._replace(control=Control.TEXT_ARGUMENT),)
    return (wants_argument(state),)


def _argument(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    state = at_rest(state)
    return pushed(rules, state, Kind.TEXT_GROUP) if byte == OPEN else rest(rules, state, byte, at_start)


def _text_argument(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in SPACES or byte == NEWLINE:
        return (state,)
    return _argument(rules, state, byte, at_start)


def _box_argument(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in SPACES or byte == NEWLINE:
        return (state,)
    state = at_rest(state)
    if byte != OPEN:
        return rest(rules, state, byte, at_start)
    text = in_prose(state.top) or is_in(state.top, Kind.TEXT_GROUP)
    kind = Kind.TEXT_GROUP if text else Kind.GROUP
    if rules.answer is None:
        opened = pushed(rules, state, kind)
        return tuple(s._replace(control=Control.BOX_START) for s in opened) if rules.ends_after_answer else opened
    opened = pushed(rules, state, kind, ANSWER_NAME if rules.ends_after_answer else b"")
    return tuple(s._replace(control=Control.ANSWER, detail=rules.answer.start) for s in opened)


def _box_start(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert state.top is not None
    if byte in SPACES or byte == NEWLINE:
        return (state,)
    if byte != CLOSE:  # an empty box is no answer: "give it in \boxed{}"
        state = state._replace(top=state.top._replace(name=ANSWER_NAME))
    return rest(rules, at_rest(state), byte, at_start)


def _done(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    return (state,) if byte in SPACES or byte == NEWLINE else ()


def _answer(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert rules.answer is not None and isinstance(state.detail, AnswerState)
    if byte == CLOSE and rules.answer.may_close(state.detail):
        return (popped(at_rest(state)),)
    after = rules.answer.step(state.detail, byte)
    return () if after is None else (state._replace(detail=after),)


def _delimiter(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in SPACES or byte == NEWLINE:
        return (state,)
    if byte == BACKSLASH:
        return (state._replace(control=Control.DELIMITER_BACKSLASH),)
    return () if byte in b"{}$" else (at_rest(state),)


def _delimiter_backslash(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in LETTERS:
        return (state._replace(control=Control.DELIMITER_NAME, detail=longer_name(b"", byte)),)
    return (at_rest(state),) if byte in b"{}|" else ()


def _delimiter_name(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    if byte in LETTERS:
        return (state._replace(detail=longer_name(state.detail, byte)),)
    return () if state.detail in NO_DELIMITERS else rest(rules, at_rest(state), byte, at_start)


def _begin(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte == OPEN:
        return (state._replace(control=Control.BEGIN_NAME),)
    return (state,) if byte in SPACES else ()


def _begin_name(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    name = state.detail
    assert isinstance(name, bytes)
    if byte in NAME_BYTES:
        return (state._replace(detail=name + bytes([byte])),)
    if byte != CLOSE or not name:
        return ()
    prose = in_prose(state.top) or is_in(state.top, Kind.TEXT_GROUP)
    kind = Kind.TEXT_ENV if prose and name not in MATH_ENVIRONMENTS else Kind.MATH_ENV
    return tuple(wants_argument(s) for s in pushed(rules, at_rest(state), kind, name))


def _end(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert state.top is not None
    if byte == OPEN:
        return (state._replace(control=Control.END_NAME, detail=state.top.name),)
    return (state,) if byte in SPACES else ()


def _end_name(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    rest = state.detail
    assert isinstance(rest, bytes)
    if not rest:
        return (popped(at_rest(state)),) if byte == CLOSE else ()
    return (state._replace(detail=rest[1:]),) if byte == rest[0] else ()


def _dollar(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    state = at_rest(state)
    if byte == DOLLAR:
        return pushed(rules, state, Kind.DOLLARS)
    found = [s for opened in pushed(rules, state, Kind.DOLLAR) for s in rest(rules, opened, byte, at_start)]
    if byte in OPENS_MATHEMATICS:
        return tuple(found)
    if byte in LETTERS:
        return (state._replace(control=Control.WORD, literal=state.literal | LITERAL_DOLLAR), *found)
    literal = (state._replace(control=Control.CURRENCY),) if byte in DIGITS else rest(rules, state, byte, at_start)
    return (*literal, *found)


def _currency(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in DIGITS or byte in b".,":
        return (state,)
    return () if byte in b"^_\\" else rest(rules, at_rest(state), byte, at_start)


def _word(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte in b"^_\\{}$":
        return ()
    if byte in SPACES or byte == NEWLINE or byte == TICK:
        return rest(rules, at_rest(state), byte, at_start)
    return (state,)


def _dollars_end(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    return (popped(at_rest(state)),) if byte == DOLLAR else ()


HANDLERS: dict[Control, Handler] = {
    Control.REST: rest,
    Control.BACKSLASH: _backslash,
    Control.NAME: _name,
    Control.ARGUMENT: _argument,
    Control.TEXT_ARGUMENT: _text_argument,
    Control.BOX_ARGUMENT: _box_argument,
    Control.ANSWER: _answer,
    Control.BOX_START: _box_start,
    Control.DONE: _done,
    Control.DELIMITER: _delimiter,
    Control.DELIMITER_BACKSLASH: _delimiter_backslash,
    Control.DELIMITER_NAME: _delimiter_name,
    Control.BEGIN: _begin,
    Control.BEGIN_NAME: _begin_name,
    Control.END: _end,
    Control.END_NAME: _end_name,
    Control.DOLLAR: _dollar,
    Control.CURRENCY: _currency,
    Control.WORD: _word,
    Control.DOLLARS_END: _dollars_end,
}
