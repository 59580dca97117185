"""What each byte of Markdown does to what is open: fences, code spans, single backticks, blocks of thinking.

One function for each `Control` (`HANDLERS`); each gives the readings after the byte, none when it is refused. After
CommonMark 0.31, 4.5 (fenced code) and 6.1 (code spans).
"""

from __future__ import annotations

from mathlete.proof_sampler.bracket_states import (
    LESS,
    NEWLINE,
    SPACES,
    THINK_END,
    THINK_TAG,
    TICK,
    Control,
    Handler,
    Kind,
    Rules,
    State,
    States,
    at_rest,
    closes,
    popped,
    pushed,
    tick_bit,
)
from mathlete.proof_sampler.latex_rules import rest


def _math_ticks(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    ticks = state.detail
    assert isinstance(ticks, bytes)
    if byte == TICK:
        return (state._replace(detail=b"``"),) if ticks == b"`" else ()
    if state.literal & tick_bit(ticks):
        return ()  # code spans come before mathematics
    return rest(rules, at_rest(state), byte, at_start)


def _line_ticks(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    return _run(rules, state, byte, at_start, opens_fence=True)


def _ticks(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    return _run(rules, state, byte, at_start, opens_fence=False)


def _run(rules: Rules, state: State, byte: int, at_start: bool, opens_fence: bool) -> States:
    """A run of backticks in prose: a fence, or the start of a code span, or just itself."""
    ticks = state.detail
    assert isinstance(ticks, bytes)
    if byte == TICK:
        return (state._replace(detail=ticks + b"`"),)
    if opens_fence and len(ticks) >= 3:
        return _info(rules, state._replace(control=Control.INFO), byte, at_start)
    bit = tick_bit(ticks)
    if state.literal & bit:
        return ()  # the run that was taken literally had an end after all
    code = _code(rules, state._replace(control=Control.CODE, detail=ticks[:3]), byte, at_start)
    return (*rest(rules, at_rest(state)._replace(literal=state.literal | bit), byte, at_start), *code)


def _info(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    if byte == TICK:  # a fence's line has none: it was a code span
        return _code(rules, state._replace(control=Control.CODE, detail=state.detail[:3]), byte, at_start)
    if byte != NEWLINE:
        return (state,)
    opened = pushed(rules, at_rest(state)._replace(literal=0), Kind.FENCE, state.detail)
    return tuple(s._replace(control=Control.FENCE_LINE) for s in opened)


def _fence_line(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte == TICK:
        return (state._replace(control=Control.FENCE_TICKS, detail=b"`"),)
    return _fence_rest(rules, state, byte, at_start) if byte not in SPACES else (state,)


def _fence_ticks(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    ticks = state.detail
    assert isinstance(ticks, bytes) and state.top is not None
    if byte == TICK:
        return (state._replace(detail=(ticks + b"`")[: len(state.top.name)]),)
    if ticks != state.top.name:
        return _fence_rest(rules, state, byte, at_start)
    return _fence_closed(rules, state, byte, at_start)


def _fence_closed(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte == NEWLINE:
        return (popped(at_rest(state))._replace(line_start=True),)
    if byte in SPACES:
        return (state._replace(control=Control.FENCE_CLOSED, detail=b""),)
    return _fence_rest(rules, state, byte, at_start)


def _fence_rest(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    control = Control.FENCE_LINE if byte == NEWLINE else Control.FENCE_REST
    return (state._replace(control=control, detail=b""),)


def _code(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    if byte != TICK:
        return (state,)
    assert isinstance(state.detail, bytes)
    return (state._replace(control=Control.CODE_TICKS, detail=state.detail + b" `"),)


def _code_ticks(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    opening, _, closing = state.detail.partition(b" ")
    if byte == TICK:
        longer = closing + b"`"
        return (state._replace(detail=opening + b" " + longer[:4]),)
    if closes(opening, closing):
        return rest(rules, at_rest(state), byte, at_start)
    return (state._replace(control=Control.CODE, detail=opening),)


def _tag(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    longer = state.detail + bytes([byte])
    if not THINK_TAG.startswith(longer):
        return rest(rules, at_rest(state), byte, at_start)
    if longer != THINK_TAG:
        return (state._replace(detail=longer),)
    return tuple(s._replace(control=Control.THINK) for s in pushed(rules, at_rest(state), Kind.THINK))


def _think(rules: Rules, state: State, byte: int, at_start: bool) -> States:
    assert isinstance(state.detail, bytes)
    longer = state.detail + bytes([byte])
    if longer == THINK_END:
        return (popped(at_rest(state)),)
    return (state._replace(detail=longer if THINK_END.startswith(longer) else b"<" if byte == LESS else b""),)


HANDLERS: dict[Control, Handler] = {
    Control.MATH_TICKS: _math_ticks,
    Control.LINE_TICKS: _line_ticks,
    Control.TICKS: _ticks,
    Control.INFO: _info,
    Control.FENCE_LINE: _fence_line,
    Control.FENCE_TICKS: _fence_ticks,
    Control.FENCE_CLOSED: _fence_closed,
    Control.FENCE_REST: _fence_rest,
    Control.CODE: _code,
    Control.CODE_TICKS: _code_ticks,
    Control.TAG: _tag,
    Control.THINK: _think,
}
