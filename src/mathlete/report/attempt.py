"""One attempt as a foldable block: a line of facts, then its turns in full.

Knows attempts and how much detail to show. Does not know votes or selections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mathlete.core.attempt import Attempt, BeamLevel, Rewinding, Turn
from mathlete.report.beam import render_beam
from mathlete.report.checks import render_evidence, verdicts_in_short
from mathlete.report.confidence import Curve, draw_curve
from mathlete.report.detail import Detail
from mathlete.report.markup import Html, join, shorten, shorten_middle, tag
from mathlete.report.program import render_program, render_result
from mathlete.report.prose import render_prose
from mathlete.report.summary import FAILURE_WORDS
from mathlete.report.timeline import format_s

_ABOUT = {True: "asked about", False: "was shown"}
_NOT_LOADED = "What it wrote is not loaded here: the run's store has it."
_SOURCES = {"boxed": "boxed", "stdout": "printed"}


@dataclass(frozen=True, slots=True)
class AttemptView:
    """What is needed to show one attempt.

    Attributes:
        label: short name, e.g. "3".
        attempt: the attempt when it has finished.
        turns: its turns, also when it has not.
        curve: entropies along it, if recorded.
        detail: how much to show.
        rewindings: where it went back, and why.
        beam_levels: what its beam decided.
        is_right: whether its answer is; None when it has none or golds are not known.
    """

    label: str
    attempt: Attempt | None
    turns: tuple[Turn, ...]
    curve: Curve | None
    detail: Detail
    rewindings: tuple[Rewinding, ...] = ()
    beam_levels: tuple[BeamLevel, ...] = ()
    is_right: bool | None = None


def render_attempt(view: AttemptView, ceiling: float) -> Html:
    """The block of one attempt; `ceiling` is the entropy at the top of its curve, nats."""
    kind = _kind(view)
    body = [_settings(view.attempt)] if view.attempt is not None else []
    if view.attempt is not None and view.attempt.is_check:
        body.append(render_evidence(view.attempt.evidence, view.detail))
    if view.curve is not None and view.detail.typeset:
        body.append(_confidence(view.curve, ceiling))
    if view.beam_levels:
        body.append(render_beam(view.beam_levels, view.detail))
    for place, turn in enumerate(view.turns):
        body.append(_turn(turn, place + 1, view.detail))
        body.extend(_rewinding(item, view.detail) for item in view.rewindings if _place(item, view) == place)
    if not view.turns:
        body.append(tag("p", _NOT_LOADED if _is_outline(view.attempt) else "Nothing was written.", class_="quiet"))
        body.extend(_rewinding(item, view.detail) for item in view.rewindings)
    return tag(
        "details",
        _facts(view, kind, ceiling),
        tag("div", *body, class_="body"),
        class_=f"attempt {kind}",
    )


def _is_outline(attempt: Attempt | None) -> bool:
    """Whether what it wrote is left where it is kept: tokens were sampled, and no turn is here."""
    return attempt is not None and not attempt.turns and attempt.num_tokens > 0


def _kind(view: AttemptView) -> str:
    attempt = view.attempt
    if attempt is None:
        return "unfinished"
    if attempt.is_check:
        return "check"
    if attempt.answer is None:
        return "silent"
    if view.is_right is None:
        return "voted"
    return "right" if view.is_right else "wrong"


def _facts(view: AttemptView, kind: str, ceiling: float) -> Html:
    attempt = view.attempt
    mark = {"right": "✓", "wrong": "✗"}.get(kind, "")
    if attempt is not None and attempt.is_check:
        answer = attempt.pillar.removesuffix("_check")
    else:
        answer = "—" if attempt is None or attempt.answer is None else shorten(attempt.answer, 24)
    num_tokens = sum(turn.num_tokens for turn in view.turns) if attempt is None else attempt.num_tokens
    return tag(
        "summary",
        tag("span", "#", view.label, class_="index"),
        tag("span", answer, " ", tag("span", mark, class_="mark", aria_label=kind) if mark else "", class_="answer"),
        tag("span", _origin(attempt), _pillar(attempt), _round(attempt), class_="origin"),
        draw_curve(view.curve, ceiling, "spark") if view.curve is not None else tag("span", class_="spark"),
        tag("span", f"{num_tokens:,} tokens", class_="tokens"),
        tag("span", "" if attempt is None else format_s(attempt.elapsed_s), class_="seconds"),
    )


def _origin(attempt: Attempt | None) -> str:
    if attempt is None:
        return "unfinished"
    if attempt.is_check:
        return verdicts_in_short(attempt.evidence)
    if attempt.answer is None:
        return FAILURE_WORDS[attempt.failure or "no_answer"]
    return _SOURCES.get(attempt.answer_source or "", attempt.answer_source or "")


def _pillar(attempt: Attempt | None) -> str:
    """How it worked; a check says so already."""
    return "" if attempt is None or attempt.is_check else f" · {shorten(attempt.pillar, 24)}"


def _round(attempt: Attempt | None) -> Html:
    """A mark on attempts that were shown what others found: their votes are not independent."""
    if attempt is None or attempt.round <= 1:
        return Html()
    return join([" ", tag("span", f"round {attempt.round}", class_="badge")])


def _settings(attempt: Attempt) -> Html:
    facts = [
        ("pillar", attempt.pillar),
        *([("round", str(attempt.round))] if attempt.round > 1 else []),
        *(
            [(_ABOUT[attempt.is_check], ", ".join(shorten(answer, 24) for answer in attempt.about[:8]))]
            if attempt.about
            else []
        ),
        ("temperature", f"{attempt.temperature:g}"),
        ("seed", str(attempt.seed)),
        *((name.replace("_", " "), f"{value:.3g}") for name, value in attempt.features.items() if math.isfinite(value)),
    ]
    if attempt.num_discarded:
        facts.append(("tokens thrown away", f"{attempt.num_discarded:,}"))
    if attempt.parent_id is not None:
        facts.append(("continues", attempt.parent_id))
    # One element and no list: a page has thousands of attempts, and each element costs time to load.
    return tag("p", " · ".join(f"{name} {value}" for name, value in facts), class_="quiet attempt-facts")


def _confidence(curve: Curve, ceiling: float) -> Html:
    caption = (
        f"Entropy along the tokens: mean {curve.mean:.2f}, highest {curve.highest:.2f} nats. "
        f"Full height is {ceiling:.2f}."
    )
    return tag("figure", draw_curve(curve, ceiling, "curve"), tag("figcaption", caption))


def _turn(turn: Turn, number: int, detail: Detail) -> Html:
    parts: list[Html] = [tag("p", f"Turn {number}", tag("span", f" · {turn.num_tokens:,} tokens"), class_="label")]
    if turn.text.strip():
        shown = shorten_middle(turn.text, detail.max_chars)
        parts.append(tag("div", render_prose(shown), class_="prose") if detail.typeset else _plain(shown))
    if turn.code is not None and turn.code.strip() not in turn.text:
        shown = shorten_middle(turn.code, detail.max_chars)
        parts.append(render_program(shown) if detail.typeset else _plain(shown))
    if turn.result is not None:
        parts.append(render_result(turn.result, detail.max_chars))
    if turn.tool_text and _says_more(turn):
        heading = tag("p", "Put back into the attempt", class_="label")
        parts.append(tag("div", heading, _plain(shorten_middle(turn.tool_text, detail.max_chars)), class_="result"))
    return tag("div", *parts, class_="turn")


def _place(item: Rewinding, view: AttemptView) -> int:
    """The turn under which it is shown: its own, or the last where its own was never closed."""
    return min(item.turn, len(view.turns) - 1)


def _rewinding(item: Rewinding, detail: Detail) -> Html:
    """What was thrown away and why; folded, as it is no part of the attempt."""
    if item.num_dropped:
        words = f"Went back by {item.num_dropped:,} tokens to the {item.num_kept:,} that stand: {item.reason}"
    else:
        words = f"Went on all the same after {item.num_kept:,} tokens: {item.reason}"
    why = tag("p", shorten(item.detail, 600), class_="quiet") if item.detail else ""
    text = _plain(shorten_middle(item.text, detail.max_chars)) if item.text.strip() else ""
    return tag("details", tag("summary", words), why, text, class_="rewinding")


def _says_more(turn: Turn) -> bool:
    """Whether the text put back is not just the output that is shown already."""
    if turn.result is None or turn.tool_text is None:
        return True
    shown = (turn.result.stdout.strip(), turn.result.stderr.strip())
    return not any(text and text in turn.tool_text for text in shown)


def _plain(text: str) -> Html:
    return tag("pre", text, class_="plain")
