"""The options of a run as people leave them out, made into a whole `RunConfig`.

Knows what depends on what. Does not know how options are spelled: flags and keyword arguments are their callers'.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathlete.model_store.registry import find_model
from mathlete.run_config import RunConfig
from mathlete.triad.policies import TRIAD_CHECKS, TRIAD_SECOND_ROUND


def complete_config(
    options: Mapping[str, Any], *, command: str, source: str | None, precision_is_given: bool
) -> RunConfig:
    """The checked configuration of a new run; paths in it hold wherever the run is resumed from.

    Args:
        options: fields of `RunConfig`, among them `policy`, `precision`, `model`, `budget_s`. None for `pillars`,
            `checks`, `cured` and `second_round` means what the policy does when it is not told otherwise.
        command: "solve" or "evaluate".
        source: the problem file, if there is one.
        precision_is_given: whether a person chose the precision; else it gives way to what needs a fixed one.

    Raises:
        ValueError: an option is out of range; the message begins with its name.
    """
    complete = dict(options)
    is_triad = complete["policy"] == "triad"
    by_default = {"pillars": ("code",), "checks": TRIAD_CHECKS if is_triad else (), "cured": ()}
    for name, names in by_default.items():
        if complete.get(name) is None:
            complete[name] = names
    if complete.get("second_round") is None:
        complete["second_round"] = TRIAD_SECOND_ROUND if is_triad else 0
    needs_fixed = complete.get("batch_invariant") or complete.get("tensor_parallel", 1) > 1
    if needs_fixed and not precision_is_given:
        complete["precision"] = "w8a8" if complete.get("device", "cpu") == "cpu" else "bf16"
    for name in ("model", "draft_model"):
        given = complete.get(name)
        if given is not None and find_model(given) is None and os.path.exists(path := Path(given).expanduser()):
            complete[name] = str(path.absolute())
    return RunConfig(command=command, source=source, **complete)
