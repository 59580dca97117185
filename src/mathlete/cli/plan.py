"""`mathlete plan`: whether a recipe fits its machines, how fast it would be, and what a problem gets.

Reads the recipe and models' configurations, never weights; loads neither torch nor an engine.
"""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A name of `mathlete recipes list`, or a .toml file.")
]
Attempts = Annotated[int | None, typer.Option(min=1, metavar="N", help="Attempts of a problem, at once.")]
Length = Annotated[
    int | None, typer.Option(min=32, metavar="TOKENS", help="Of an attempt at its longest, prompt included.")
]
MeanNew = Annotated[
    int | None,
    typer.Option("--mean-tokens", min=1, metavar="TOKENS", help="That an attempt writes on average; else half of it."),
]
AcceleratorName = Annotated[
    str | None, typer.Option("--accelerator", metavar="NAME", help="Another one than the recipe's: h100-sxm-80gb, ...")
]
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="Of them in each host.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

DOES_NOT_FIT_EXIT_CODE = 1


def plan(
    recipe: RecipeName,
    attempts: Attempts = None,
    length: Length = None,
    mean_tokens: MeanNew = None,
    accelerator: AcceleratorName = None,
    count: Count = None,
    as_json: AsJson = False,
) -> None:
    """Compute from models' configurations whether a recipe fits its machines, and what to change if it does not.

    Memory of weights, keys and values, and work on the fullest GPU; the layout; tokens a second between what engines
    reach at worst and at best, beside the roofline; and the tokens that a problem of the contest gets. The exit code
    is 1 when it does not fit.
    """
    from mathlete.cli.plan_running import show_plan

    fits = show_plan(
        recipe,
        attempts=attempts,
        length=length,
        mean_new=mean_tokens,
        accelerator=accelerator,
        count=count,
        as_json=as_json,
    )
    if not fits:
        raise typer.Exit(DOES_NOT_FIT_EXIT_CODE)
