"""`mathlete evaluate`: every attempt of every task, and what they are worth."""

from __future__ import annotations

import typer

from mathlete.cli.cluster_options import CLUSTER_FLAGS
from mathlete.cli.run_options import run_options
from mathlete.cli.solve import run_command


@run_options("tasks", more=CLUSTER_FLAGS, budget=None, precision="w8a8", policy="fixed")
def evaluate(ctx: typer.Context) -> None:
    """Run tasks that have answers: all attempts of each, none stopped early; prints accuracy with intervals.

    Every step is computed in one precision, w8a8 unless another is given, so that a run repeats to the token.
    Rows without an answer that the verifier can match are listed and left out, as rows marked `"integer": false` are.
    """
    run_command(ctx, ctx.params["tasks"], default_budget="12h", require_gold=True)
