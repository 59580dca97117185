"""`mathlete replay`: what other selectors would have made of recorded attempts, in seconds and without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Traces = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRACES...",
        help="Recorded attempts: interchange files (.jsonl, .jsonl.gz), run folders, or what --mapping reads.",
    ),
]
SelectorNames = Annotated[
    list[str],
    typer.Option(
        "--selector",
        metavar="NAME",
        help="A rule that chooses the answer, or 'all'; may be repeated. By default all, and majority where the whole "
        "decision is replayed.",
    ),
]
Ks = Annotated[
    list[str],
    typer.Option(
        "--k",
        metavar="K",
        help="Attempts drawn of each problem: a number, 'all', or 'curve' for 1, 2, 4, ... and all. May be repeated.",
    ),
]
Orders = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Random orders that a figure is the mean over. By default all attempts come once, as recorded, and k of "
        "them are drawn from 8 orders.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the orders and of the intervals.")]
MinAttempts = Annotated[int, typer.Option(min=1, help="Problems with fewer attempts are left out.")]
Mapping = Annotated[
    str | None, typer.Option(help="What the columns of foreign files mean: a preset's name, or a .toml file.")
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        help="fixed, vote, triad or pipeline: replay the whole decision, when to stop included, with the real driver "
        "on a simulated clock. 'vote' when --stop is given, 'triad' when only a budget is."
    ),
]
ScorerName = Annotated[
    str, typer.Option("--scorer", metavar="NAME", help="What --policy pipeline scores attempts by; docs/recipes.md.")
]
StopName = Annotated[
    str | None, typer.Option("--stop", metavar="NAME", help="The rule that says when a vote is settled.")
]
Budget = Annotated[
    str | None,
    typer.Option(help="Time for all problems of a file together: 90s, 10m, 5h; several for a curve: 1m,5m,30m."),
]
TokenBudget = Annotated[int | None, typer.Option(min=1, help="Tokens for all problems of a file together.")]
Slots = Annotated[
    int | None, typer.Option(min=1, help="Attempts generating at once on the simulated clock. By default 32.")
]
TokensPerS = Annotated[
    float | None,
    typer.Option(help="Tokens a second of one attempt on the simulated clock; by default attempts take their seconds."),
]
Processes = Annotated[
    int | None, typer.Option("--processes", "-j", min=1, help="For selectors alone. By default one a core, 8 at most.")
]
HalfSpeedAt = Annotated[
    float | None,
    typer.Option(
        "--half-speed-at", metavar="N", help="Attempts beyond the first at which each runs at half of --tokens-per-s."
    ),
]
ContestProblems = Annotated[
    int | None,
    typer.Option(
        "--contest",
        metavar="N",
        min=1,
        help="Hold contests of N problems, strictly in turn, against --budget (5h), with stalls, late steps and "
        "generators that die; --slots is 8 by default.",
    ),
]
Runs = Annotated[int, typer.Option(min=1, max=2, help="Runs of a contest; 2 for the score 1 / 0.5 / 0 a problem.")]
Contests = Annotated[int, typer.Option(min=1, help="Contests that are drawn.")]
WithoutFaults = Annotated[bool, typer.Option("--no-faults", help="Contests in which nothing goes wrong.")]
Redecide = Annotated[
    bool,
    typer.Option(
        "--redecide",
        help="TRACES are runs: ask their own policy again at every recorded moment, hold each session again, and name "
        "what is not as it was recorded.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: an object, or a list when there are several.")]


def replay(
    traces: Traces,
    selector: SelectorNames = [],  # noqa: B006 - typer wants a list, and nobody changes it
    k: Ks = ["all"],  # noqa: B006
    orders: Orders = None,
    seed: Seed = 0,
    min_attempts: MinAttempts = 4,
    mapping: Mapping = None,
    policy: PolicyName = None,
    scorer: ScorerName = "available",
    stop: StopName = None,
    budget: Budget = None,
    token_budget: TokenBudget = None,
    slots: Slots = None,
    tokens_per_s: TokensPerS = None,
    half_speed_at: HalfSpeedAt = None,
    contest: ContestProblems = None,
    runs: Runs = 2,
    contests: Contests = 100,
    no_faults: WithoutFaults = False,
    redecide: Redecide = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded attempts under other rules, without a model.

    The rules are the very objects that decide in a live run. Intervals are 95 % bootstraps over groups of problems;
    whatever is replayed is compared with the plain vote on the same attempts. With --policy, --stop or a budget the
    whole decision is replayed, attempt by attempt; otherwise only the choice of an answer.
    """
    from mathlete.cli.replay_running import Asked, replay_policies, replay_selectors

    if redecide:
        from mathlete.cli.replay_fidelity import redecide_runs

        redecide_runs(tuple(traces), as_json=as_json)
        return
    is_choice = all(flag is None for flag in (policy, stop, budget, token_budget, contest))
    asked = Asked(
        traces=tuple(traces),
        selectors=tuple(selector) or (("all",) if is_choice else ("majority",)),
        ks=tuple(k),
        num_orders=orders,
        seed=seed,
        min_attempts=min_attempts,
        mapping=mapping,
        policy=policy,
        scorer=scorer,
        stop=stop,
        budget=budget,
        token_budget=token_budget,
        slots=slots or (32 if contest is None else 8),
        tokens_per_s=tokens_per_s,
        half_speed_at=half_speed_at,
        num_processes=processes,
        as_json=as_json,
    )
    if contest is not None:
        from mathlete.cli.replay_contests import Contests as AskedContests
        from mathlete.cli.replay_contests import hold_contests

        hold_contests(asked, AskedContests(contest, runs, contests, not no_faults))
        return
    (replay_policies if asked.is_policy else replay_selectors)(asked)
