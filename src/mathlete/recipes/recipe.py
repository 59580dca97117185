"""A recipe as data, and the run that it asks for. Knows which of flag, recipe and default wins; reads no file.

`loading.py` makes recipes of files. Their engines are the run's (`run_config.EngineSpec`), except where the only one is
the embedded engine in this process: that is what a run's other options describe, so its settings become these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.planning.hardware import Hardware
from mathlete.recipes.models import check_model
from mathlete.run_config import EMBEDDED_SETTINGS, EngineSpec, RunConfig
from mathlete.session.configuring import complete_config

# What a command does where neither a flag nor the recipe says otherwise; the rest is as in `RunConfig`.
_OF_COMMAND: Mapping[str, Mapping[str, Any]] = {
    "solve": {"policy": "triad", "precision": "auto", "budget_s": 600.0},
    "evaluate": {"policy": "fixed", "precision": "w8a8", "budget_s": 12 * 3600.0},
}


def command_defaults(command: str) -> Mapping[str, Any]:
    """What "solve" or "evaluate" does where nobody says otherwise, as far as it differs from `RunConfig`'s defaults."""
    return _OF_COMMAND[command]


@dataclass(frozen=True, slots=True)
class ContestSpec:
    """The contest that a recipe is written for.

    Attributes:
        problems: that come.
        hours: of the clock, for all of them.
        reserve_s: seconds of these that are kept back: for loading the model, and for handing in.
    """

    problems: int = 50
    hours: float = 5.0
    reserve_s: float = 600.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.problems < 1:
            raise ValueError(f"problems must be >= 1, not {self.problems}")
        if not 0 < self.hours <= 24 * 366:
            raise ValueError(f"hours must be > 0 and at most a year's, not {self.hours}")
        if not 0 <= self.reserve_s < self.hours * 3600:
            raise ValueError(f"reserve must leave some of the {self.hours:g} hours, and is {self.reserve_s:g} s")

    @property
    def budget_s(self) -> float:
        """Seconds for solving."""
        return self.hours * 3600 - self.reserve_s


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe.

    Attributes:
        name: of the file, without ".toml".
        path: of the file.
        description: one line for a person.
        engines: what writes; empty for the embedded engine as `run` describes it.
        run: options of the run by their names in `RunConfig`, as far as the recipe gives them.
        hardware: what it is written for; None when it does not say.
        contest: likewise.
    """

    name: str
    path: Path
    description: str
    engines: tuple[EngineSpec, ...]
    run: Mapping[str, Any] = field(default_factory=dict)
    hardware: Hardware | None = None
    contest: ContestSpec | None = None

    @property
    def main_engine(self) -> EngineSpec | None:
        """What writes for all pillars that no other engine names; None when there are no engines."""
        return next((engine for engine in self.engines if not engine.pillars), None)

    def run_config(
        self,
        command: str,
        *,
        source: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        check_models: bool = True,
    ) -> RunConfig:
        """What a run by this recipe is to do: what is given here goes before the recipe, and that before defaults.

        Args:
            command: "solve" or "evaluate".
            source: the problem file, if there is one.
            overrides: fields of `RunConfig` that a person gave; with one engine, among them its `model`, and its
                settings where it is the embedded one.
            check_models: refuse models of which the files or their tokenizers are not on this machine.

        Raises:
            ValueError: an option is out of range, or cannot be given beside these engines; its name comes first.
            InputError: a model's file or its tokenizer is not there, or an option of the recipe does not go with what
                is given here.
        """
        given = dict(overrides or {})
        engines = self._engines(given)
        told = {**self.run, **given}
        if len(engines) == 1 and engines[0].type == "ryanstream" and not engines[0].own_process:
            told = {**self.run, "model": engines[0].model, **engines[0].settings, **given}
            engines = ()
        elif engines:
            told["model"] = next(engine.model for engine in engines if not engine.pillars)
        options = {"model": DEFAULT_MODEL, **command_defaults(command), **told}
        if self.contest is not None and "budget_s" not in told:
            options["budget_s"] = self.contest.budget_s
        for engine in engines if check_models else ():
            check_model(engine.type, engine.model, f"the engine {engine.name!r} of the recipe {self.name}")
        try:
            config = complete_config(
                {**options, "engines": engines, "recipe": self.name},
                command=command,
                source=source,
                precision_is_given="precision" in told,
            )
        except ValueError as error:
            if overrides and (name := str(error).partition(" ")[0]) in self.run and name not in overrides:
                raise InputError(f"this does not go with the recipe {self.name}: {error}") from error
            raise
        if check_models and not engines:
            check_model("ryanstream", config.model, f"the recipe {self.name}")
        return config

    def _engines(self, given: dict[str, Any]) -> tuple[EngineSpec, ...]:
        """The engines with what is `given` for them, which is taken out where it became part of one."""
        if not self.engines:
            return ()
        names = ", ".join(engine.name for engine in self.engines)
        copy = "change a copy of the recipe (mathlete recipes copy)"
        if "model" in given and len(self.engines) > 1:
            raise ValueError(f"model cannot say which of the engines {names} is meant: {copy}")
        engine = self.engines[0]
        if "model" in given:
            engine = replace(engine, model=given.pop("model"))
        settings = {name: given[name] for name in EMBEDDED_SETTINGS if name in given}
        if settings and (len(self.engines) > 1 or engine.type != "ryanstream"):
            raise ValueError(
                f"{next(iter(settings))} is a setting of one embedded engine, and the recipe {self.name} has "
                f"{', '.join(f'{one.name} ({one.type})' for one in self.engines)}: {copy}"
            )
        if settings:
            engine = replace(engine, settings={**engine.settings, **settings})
            for name in settings:
                del given[name]
        return (engine, *self.engines[1:])
