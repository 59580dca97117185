"""The flags of commands that may work on several hosts. Knows their spelling; not what Ray is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mathlete.core.errors import InputError

if TYPE_CHECKING:
    from mathlete.session.crew import OpenCrew

Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster: auto or host:port of one that runs, or local for one of this machine alone.",
    ),
]
NumWorkers = Annotated[int, typer.Option(min=1, help="Engines at work at once; more than one needs Ray.")]

# For `run_options(..., more=...)`.
CLUSTER_FLAGS: dict[str, tuple[Any, Any]] = {"ray": (Ray, None), "num_workers": (NumWorkers, 1)}

FLAGS_OF_WHERE = frozenset(CLUSTER_FLAGS)
"""They say where a run works and not what it does: a resumed run may work elsewhere."""


def crew_of_flags(ray: str | None, num_workers: int) -> OpenCrew | None:
    """Who works on a run: None for this process alone.

    Raises:
        InputError: Ray is wanted and not installed.
    """
    if ray is None and num_workers == 1:
        return None
    try:
        from mathlete.cluster.crew import over_ray
        from mathlete.cluster.slots import ClusterSpec
    except InputError as error:
        error.add_note("Only --ray and --num-workers need it.")
        raise
    return over_ray(ClusterSpec(ray or "local", num_workers))
