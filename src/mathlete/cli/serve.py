"""`mathlete serve`: Mathlete as a server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mathlete.cli.extras import check_installed
from mathlete.cli.options import parse_duration
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, run_options
from mathlete.cli.solve import config_of_flags
from mathlete.core.errors import InputError
from mathlete.run_config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from mathlete.compose import LoadedGenerator
    from mathlete.serving.chat_request import Ceilings
    from mathlete.serving.desk import Lent

_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn"}
_DEFAULT_BUDGET = "2m"
_MIN_CEILING_S = 600.0
_GRACE_S = 60  # for answers to problems that were ended in order; the second Ctrl-C does not wait

Host = Annotated[
    str,
    typer.Option(help="Address to listen on. Any but a loopback address needs a key: --api-key-env, or one is made."),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable with the key that clients must give (their api_key)."),
]
ModelName = Annotated[str, typer.Option("--served-model-name", help="What clients call it.")]
AtOnce = Annotated[int, typer.Option(min=1, max=256, help="Problems worked on at the same time.")]
Queue = Annotated[int, typer.Option(min=0, max=100_000, help="Problems that may wait; more are told to come back.")]
MaxBudget = Annotated[
    str | None, typer.Option(help="Longest time that a request may ask for; 10m, or --budget where that is longer.")
]
MaxAttempts = Annotated[int, typer.Option(min=1, help="Most attempts that a request may ask for.")]


@run_options(
    None,
    without=("resume", "mapping", "limit", "log_to", "as_json"),
    more={
        "host": (Host, "127.0.0.1"),
        "port": (Port, 8000),
        "api_key_env": (ApiKeyEnv, None),
        "served_model_name": (ModelName, "mathlete"),
        "max_problems": (AtOnce, 4),
        "max_queue": (Queue, 64),
        "max_budget": (MaxBudget, None),
        "max_attempts": (MaxAttempts, 64),
    },
)
def serve(ctx: typer.Context) -> None:
    """Serve Mathlete as an OpenAI-compatible model: /v1/chat/completions, /v1/models, /health.

    The last message of a chat is the problem; --budget and --attempts are what a request gets that does not ask for
    others. Each problem is a run under --out, for `mathlete report` and `mathlete view`. Ends with Ctrl-C, in order.
    """
    check_installed("the server", _NEEDED, "view")
    from mathlete.local_server import LOOPBACK, Server, address_of, open_port
    from mathlete.serving.app import ChatServer
    from mathlete.serving.chat_request import Ceilings
    from mathlete.serving.desk import Desk
    from mathlete.serving.keys import key_of, new_key
    from mathlete.session import run_session

    params = ctx.params
    config = _config(ctx)
    ceilings = _ceilings(ctx, config, Ceilings())
    key = key_of(params["api_key_env"])
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    listening = open_port(params["host"], params["port"])  # before the model: a taken port is told at once
    if key is None and params["host"] not in LOOPBACK:
        key = new_key()
        console.print(f"other machines may ask with this key, which is not told again: [bold]{key}[/bold]")
    try:
        engine = SharedEngine(run_session.load_generator(config, console))
    except BaseException:
        listening.close()
        raise
    desk = Desk(
        config,
        engine,
        params["out"],
        num_at_once=params["max_problems"],
        num_waiting=params["max_queue"],
        tell=_teller(console),
    )
    try:
        for warning in engine.warnings:
            console.print(f"warning: {warning}", style="yellow", markup=False)
        console.print(f"serving {params['served_model_name']} on [bold]{address_of(listening)}v1[/bold] (Ctrl-C ends)")
        app = ChatServer(desk, params["served_model_name"], ceilings, key).app()
        Server(app, desk.end, _GRACE_S).serve_until_interrupted(listening)
        desk.close()
        engine.close()
    except KeyboardInterrupt:  # once more, while what is worked on was ended in order
        console.print("stopped at once")
        os._exit(INTERRUPTED_EXIT_CODE)  # threads of problems would be waited for


def _teller(console: Console) -> Callable[[str], None]:
    """Prints lines about problems, until nobody reads them any more: problems go on then."""

    def tell(line: str) -> None:
        try:
            console.print(line, markup=False)
        except (OSError, SystemExit):  # the latter is rich's answer to a broken pipe
            console.quiet = True

    return tell


class SharedEngine:
    """The server's engine, loaded once. See `serving.desk.Engine`."""

    def __init__(self, loaded: LoadedGenerator) -> None:
        """Take over what was loaded."""
        from mathlete.generators.shared import SharedGenerator

        self._loaded = loaded
        self._shared = SharedGenerator(loaded.generator)
        self.warnings = loaded.warnings

    @property
    def failure(self) -> str | None:
        """Why it works no longer."""
        return self._shared.failure

    def lend(self) -> Lent:
        """It, for one problem. What it guessed is not told: it is counted for all problems together."""
        from mathlete.serving.desk import Lent

        client = self._shared.client()
        loaded = replace(
            self._loaded,
            generator=client,
            capabilities=replace(self._loaded.capabilities, rewinding=False),
            take_warnings=lambda: self._shared.call(self._loaded.take_warnings),
            guesses=lambda: None,
        )
        return Lent(loaded, lambda: client.usage)

    def close(self) -> None:
        """End it. Safe to call twice."""
        self._shared.close()
        self._loaded.close()


def _config(ctx: typer.Context) -> RunConfig:
    """What a problem gets whose request does not ask for anything else."""
    given = ctx.params["budget"]
    budget_s = None if given is None else parse_duration(given)
    if budget_s is None and ctx.params["recipe"] is not None:
        from mathlete.recipes.loading import load_recipe

        recipe = load_recipe(ctx.params["recipe"])
        budget_s = recipe.run.get("budget_s")
        if budget_s is None and recipe.contest is not None:
            budget_s = recipe.contest.budget_s / recipe.contest.problems
    config = config_of_flags(ctx, None, budget_s or parse_duration(_DEFAULT_BUDGET), _DEFAULT_BUDGET, "solve")
    if config.backtracking != "off":
        raise InputError(
            "--backtracking is for one run alone: the engine that problems share goes back for none of them"
        )
    return config


def _ceilings(ctx: typer.Context, config: RunConfig, default: Ceilings) -> Ceilings:
    given = ctx.params["max_budget"]
    most_s = parse_duration(given) if given is not None else max(_MIN_CEILING_S, config.budget_s)
    if most_s < config.budget_s:
        raise InputError(f"--max-budget {given} is shorter than --budget, {config.budget_s:g} s")
    if ctx.params["max_attempts"] < config.attempts:
        raise InputError(f"--max-attempts {ctx.params['max_attempts']} is less than --attempts, {config.attempts}")
    return replace(default, budget_s=most_s, attempts=ctx.params["max_attempts"])
