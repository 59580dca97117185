"""Running an engine to the end in tests, with its integrity checked after every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.request import RequestOutput, Status


@dataclass
class Ended:
    """What came of the requests of one run, by id, and how many were put aside on the way."""

    outputs: dict[str, RequestOutput] = field(default_factory=dict)
    num_preempted: int = 0

    def ids(self, name: str) -> list[int]:
        return self.outputs[name].request.output_ids


def load(folder: Path, cache: Path, num_blocks: int = 64, **config: object) -> LoadedEngine:
    """A tiny model's engine with exactly `num_blocks` KV blocks of the tiny shape (3 layers, 2 heads of 32)."""
    width = 4 if config.get("precision") == "fp32" else 2
    kv_cache_bytes = num_blocks * 2 * 3 * 2 * 32 * 16 * width
    given = {"max_model_len": 128, "num_threads": 1, "kv_cache_bytes": kv_cache_bytes, **config}
    return load_engine(folder, cache, EngineConfig(**given), lambda what, done, total: None)  # type: ignore[arg-type]


def drive(engine: Engine, max_steps: int = 2000) -> Ended:
    """Step until nothing is left to do."""
    ended, put_aside = Ended(), set[tuple[str, int]]()
    for _ in range(max_steps):
        if not engine.has_work:
            ended.num_preempted = len(put_aside)
            return ended
        for output in engine.step():
            if output.end is not None:
                ended.outputs[output.request.request_id] = output
        engine.check_integrity()
        put_aside |= {
            (r.request_id, len(r.output_ids)) for r in engine._scheduler.waiting if r.status is Status.PREEMPTED
        }
    raise AssertionError(f"{engine.num_unfinished} requests are not done after {max_steps} steps")


def drive_with_preemptions(engine: Engine, every: int = 7) -> Ended:
    """Drive, and put everything that runs aside again and again, whatever the scheduler would do."""
    ended, step = Ended(), 0
    while engine.has_work:
        ended.outputs |= {o.request.request_id: o for o in engine.step() if o.end is not None}
        step += 1
        if step % every == 0:
            for request in list(engine._scheduler.running):
                engine._scheduler._preempt(request)
                ended.num_preempted += 1
        engine.check_integrity()
    return ended


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens)


def run_all(engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sequence[SamplingParams]) -> Ended:
    """Add requests "0", "1", ... and drive."""
    for i, (prompt, params) in enumerate(zip(prompts, sampling, strict=True)):
        engine.add(str(i), prompt, params)
    return drive(engine)
