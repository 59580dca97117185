"""Why an answer was chosen: reasons, the terms of the rule with what they mean, and what each learned feature adds.

Knows selections. Does not know attempts, nor whether the answer is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from mathlete.core.selection import Selection
from mathlete.report.markup import Html, join, shorten, tag

_NATS, _NEXT_NATS = "nats_", "next_nats_"  # learned rules: what a feature adds to the chosen answer, and to the next
_MAX_FEATURES, _MAX_TERMS = 12, 24
_SCALE = 46  # half the width of a bar's picture, in its units

# Terms whose names do not say what they are: how they are written, and what they mean.
_TERMS: dict[str, tuple[str, str]] = {
    "phi": ("Φ", "cohesion of the attempts' texts"),
    "entropy": ("H", "disorder of the answers"),
    "coherence": ("C multi", "coherence of the answers at three scales"),
    "f": ("F", "Φ − λ H + γ C multi"),
    "nu": ("ν", "distance of Φ and H from their critical values"),
    "certainty": ("certainty", "sum over its votes of what their certainty is worth; breaks ties"),
    "threshold": ("threshold", "attempts less sure than this had no vote"),
    "none_right": ("none right", "chance that no answer of the pool is right"),
    "runner_up": ("runner-up", "chance that the next answer is right"),
    "score": ("score", "of the chosen answer under this rule"),
    "vote_share": ("vote share", "its part of all votes"),
}


def render_why(selection: Selection, stop_reason: str | None) -> Html:
    """The reasons in words, the terms as facts, the learned features as a folded table."""
    reasons = [tag("li", shorten(reason, 600)) for reason in selection.reasons]
    return join(
        [
            tag("h3", "Why"),
            tag("ul", *reasons, class_="reasons") if reasons else tag("p", "No reason was recorded.", class_="quiet"),
            _facts(selection, stop_reason),
            _features(selection.terms),
        ]
    )


def _facts(selection: Selection, stop_reason: str | None) -> Html:
    facts = [("rule", selection.rule, ""), ("confidence", f"{selection.confidence:.2f}", "")]
    plain = [(name, value) for name, value in selection.terms.items() if not _is_of_feature(name)]
    for name, value in plain[:_MAX_TERMS]:
        shown, meaning = _TERMS.get(name, (name.removeprefix("num_").replace("_", " "), ""))
        facts.append((shown, f"{value:.4g}", meaning))
    facts += [
        (f"weight of {shorten(cluster.answer, 20)}", f"{cluster.weight:.4g}", "")
        for cluster in selection.clusters[:5]
        if cluster.weight != len(cluster.attempt_ids)
    ]
    if stop_reason:
        facts.append(("ended", stop_reason, ""))
    rows = (
        tag(
            "div",
            tag("dt", shorten(name, 60)),
            tag("dd", shorten(value, 200), tag("span", f", {meaning}", class_="quiet") if meaning else ""),
        )
        for name, value, meaning in facts
    )
    return tag("dl", *rows, class_="facts")


def _is_of_feature(name: str) -> bool:
    return name.startswith((_NATS, _NEXT_NATS))


def _features(terms: Mapping[str, float]) -> Html:
    """What each feature adds to the chosen answer's utility and to the next one's, the largest differences first."""
    chosen = {name.removeprefix(_NATS): value for name, value in terms.items() if name.startswith(_NATS)}
    other = {name.removeprefix(_NEXT_NATS): value for name, value in terms.items() if name.startswith(_NEXT_NATS)}
    if not chosen and not other:
        return Html()
    gains = {name: chosen.get(name, 0.0) - other.get(name, 0.0) for name in {**chosen, **other}}
    order = sorted(gains, key=lambda name: -abs(gains[name]))
    most = abs(gains[order[0]]) or 1.0
    rows = [
        tag(
            "tr",
            tag("th", shorten(name.replace("_", " "), 60), scope="row"),
            tag("td", f"{chosen.get(name, 0.0):+.2f}", class_="num"),
            tag("td", f"{other.get(name, 0.0):+.2f}" if other else "—", class_="num"),
            tag("td", f"{gains[name]:+.2f}", class_="num"),
            tag("td", _bar(gains[name] / most)),
        )
        for name in order[:_MAX_FEATURES]
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Feature", "Chosen", "Next", "Difference", "")))
    rest = len(order) - _MAX_FEATURES
    return tag(
        "details",
        tag("summary", "What each feature adds"),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll", tabindex=0),
        tag("p", f"In nats of utility.{f' {rest} more add less.' if rest > 0 else ''}", class_="quiet note"),
        class_="features",
    )


def _bar(share: float) -> Html:
    """A bar from the middle, to the right for what speaks for the chosen answer. The number beside it says the same."""
    length = round(abs(share) * _SCALE, 1)
    left = _SCALE if share >= 0 else _SCALE - length
    bar = tag("rect", x=left, y=1, width=max(0.5, length), height=8, class_="for" if share >= 0 else "against")
    middle = tag("path", d=f"M{_SCALE} 0V10", class_="axis")
    return tag("svg", bar, middle, class_="gain", viewBox=f"0 0 {2 * _SCALE} 10", aria_hidden="true")
