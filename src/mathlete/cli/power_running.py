"""Reads recorded attempts, has the lab reckon what luck does to them, and shows it: the work of `mathlete power`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mathlete.cli.sandbox import printable
from mathlete.core.errors import InputError
from mathlete.lab.dependence import Agreement, BetaBinomial, answer_agreement, fit_beta_binomial
from mathlete.lab.import_report import ImportReport
from mathlete.lab.pools import AnswerPool, answer_pools
from mathlete.lab.power import (
    LEVEL,
    POWER,
    EffectSize,
    Luck,
    TwoRunSpread,
    Watched,
    effect_size,
    luck_of_pool,
    two_run_spread,
)
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.recordings import read_recordings
from mathlete.report.markup import counted

USUAL_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class PowerFigures:
    """What `mathlete power` prints.

    Attributes:
        num_problems: of the contest that is asked about.
        luck: of identical runs over the pool.
        effects: what each effect takes.
        two_runs: the score of a contest that runs a program twice.
        dependence: whether attempts at a problem are right together.
        agreement: whether they give the same answer.
        notes: on what was read.
    """

    num_problems: int
    luck: Luck
    effects: tuple[EffectSize, ...]
    two_runs: TwoRunSpread
    dependence: BetaBinomial
    agreement: Agreement
    notes: tuple[str, ...]


def show_power(
    traces: Sequence[Path],
    *,
    effects: Sequence[float],
    num_problems: int,
    attempts: int | None,
    mapping: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Read, reckon, print."""
    notes: list[str] = []
    pools = answer_pools(_read(traces, mapping, notes))
    if not pools:
        raise InputError("; ".join(notes) or f"{', '.join(map(str, traces))}: there is no problem that can be used")
    errors = Console(stderr=True)
    figures = power_figures(
        pools,
        effects,
        num_problems,
        attempts,
        seed=seed,
        notes=notes,
        watched=lambda items: track(items, "drawing runs", console=errors, disable=not errors.is_terminal),
    )
    if as_json:
        print(json.dumps(as_data(figures, traces), indent=2))
        return
    console = Console()
    console.print(_table(figures))
    for sentence in sentences(figures):
        console.print(printable(sentence), highlight=False, markup=False)


def _read(traces: Sequence[Path], mapping: str | None, notes: list[str]) -> Iterator[RecordedProblem]:
    console = Console(stderr=True)
    for path in track(traces, "reading", console=console, disable=not console.is_terminal):
        report = ImportReport()
        yield from read_recordings(path, mapping, report=report)  # one by one: runs of the same problems are one pool
        notes += [f"{path}: {note}" for note in report.notes]


def power_figures(
    pools: Sequence[AnswerPool],
    effects: Sequence[float],
    num_problems: int,
    attempts: int | None = None,
    *,
    seed: int = 0,
    notes: Sequence[str] = (),
    watched: Watched = iter,
) -> PowerFigures:
    """All figures of a pool; `attempts` is `usual_attempts` when None.

    Raises:
        InputError: no problem has so many attempts, or an effect is not between 0 and `num_problems`.
    """
    luck = luck_of_pool(pools, attempts or usual_attempts(pools), seed=seed, watched=watched)
    return PowerFigures(
        num_problems=num_problems,
        luck=luck,
        effects=tuple(effect_size(luck, effect, num_problems) for effect in effects),
        two_runs=two_run_spread(luck, num_problems),
        dependence=fit_beta_binomial((sum(pool.correct), len(pool.correct)) for pool in pools),
        agreement=answer_agreement(pools, seed=seed),
        notes=tuple(notes),
    )


def usual_attempts(pools: Sequence[AnswerPool]) -> int:
    """8, or half of what most problems have when that is less: so that two runs can draw apart."""
    sizes = sorted(len(pool.answers) for pool in pools)
    return min(USUAL_ATTEMPTS, max(1, sizes[len(sizes) // 2] // 2)) if sizes else 1


def as_data(figures: PowerFigures, traces: Sequence[Path]) -> dict[str, Any]:
    """The figures as JSON-able data."""
    luck, num, attempts = figures.luck, figures.num_problems, figures.luck.attempts
    rho, agreement = figures.dependence, figures.agreement
    return {
        "files": [str(path) for path in traces],
        "problems": num,
        "attempts": attempts,
        "rule": "majority",
        "level": LEVEL,
        "power": POWER,
        "pool": {"problems": len(luck.problems), "too_few_attempts": luck.num_short, "drawn_apart": luck.num_apart},
        "accuracy": luck.accuracy,
        "expected": num * luck.accuracy,
        "spread": luck.spread(num),
        "spread_of_contests": luck.spread_of_contests(num),
        "effects": [asdict(item) for item in figures.effects],
        "two_runs": asdict(figures.two_runs),
        "dependence": {**asdict(rho), "effective_attempts": rho.effective_attempts(attempts)},
        "agreement": {**asdict(agreement), "effective_attempts": agreement.effective_attempts(attempts)},
        "answer": list(sentences(figures)),
    }


def _table(figures: PowerFigures) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    num = figures.num_problems
    for name in (f"of {num}", "runs of each", "or problems, once each", "seen by one run of each", "luck alone"):
        table.add_column(name, justify="right")
    for item in figures.effects:
        table.add_row(
            f"+{item.effect:g}",
            f"{item.runs:,}",
            f"{item.problems:,}",
            f"{item.power_of_one:.0%}",
            f"{item.by_luck:.0%}",
        )
    return table


def sentences(figures: PowerFigures) -> Iterator[str]:
    """The answer in words."""
    luck, num = figures.luck, figures.num_problems
    attempts = counted(luck.attempts, "attempt")
    yield (
        f"A run that answers {num} such problems by a plain vote of {attempts} gets {num * luck.accuracy:.1f} right, "
        f"give or take {luck.spread(num):.1f} by luck alone: the standard deviation over identical runs of the same "
        f"problems. With other problems of this kind each time it is {luck.spread_of_contests(num):.1f}."
    )
    for item in figures.effects:
        yield (
            f"To tell +{item.effect:g} of {num} from luck you need {counted(item.runs, 'run')} of each way over the "
            f"same {num} problems, or one run of each over {counted(item.problems, 'problem')}; two identical runs "
            f"differ by {item.effect:g} or more in {item.by_luck:.0%} of all cases."
        )
    two = figures.two_runs
    yield (
        f"Run twice and scored 1, 0.5 or 0 a problem: {two.expected:.1f} of {num}, give or take {two.spread:.1f}; "
        f"both runs right on {two.both:.1f} problems, one on {two.one:.1f}, none on {two.none:.1f}."
    )
    yield from _on_dependence(figures.dependence, figures.agreement, luck.attempts)
    if luck.num_short:
        yield f"{counted(luck.num_short, 'problem')} with fewer than {attempts} left out."
    if luck.num_apart < len(luck.problems):
        yield (
            f"{len(luck.problems) - luck.num_apart} of {len(luck.problems)} problems have fewer than "
            f"{2 * luck.attempts} attempts, so both runs drew from the same ones with replacement: luck is understated."
        )
    yield from figures.notes


def _on_dependence(rho: BetaBinomial, agreement: Agreement, attempts: int) -> Iterator[str]:
    if rho.rho is None:
        yield f"Whether attempts at a problem are right together cannot be told: {rho.note}."
    else:
        yield (
            f"Attempts at a problem are right together with correlation {rho.rho:.2f} [{rho.rho_low:.2f}, "
            f"{rho.rho_high:.2f}]: {attempts} of them tell of the mean what {rho.effective_attempts(attempts):.1f} at "
            f"different problems do{f' ({rho.note})' if rho.note else ''}."
        )
    if agreement.kappa is not None and agreement.among_wrong is not None:
        yield (
            f"Two answers to a problem agree in {agreement.within:.0%} of all cases, two wrong ones in "
            f"{agreement.among_wrong:.0%}; {attempts} votes are {agreement.effective_attempts(attempts):.1f} "
            "independent voices."
        )
