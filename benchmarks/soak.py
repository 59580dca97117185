"""Random work for a long time on a real small engine: does anything leak, hang, or come out wrong?

usage: soak.py [MODEL] [--minutes 30] [--seed 0] [--blocks 96]
Siblings arrive in groups, some fork, some are aborted alone or with their group, finished ones come back after a
moment with a tool's output, system prompts are kept on disk, and the KV cache is far too small for all of it. MODEL
is a path or a name of `mathlete models list`; without one, a tiny random model is made on the spot.
Checked: the integrity of all bookkeeping every few steps; that every request ends, and as often as it was asked for;
that a fixed request gives the same tokens whatever runs beside it (native kernels promise that); that the pool is
whole whenever nothing runs; that memory does not grow between the first third and the end. A line a minute, then a
verdict; exit status 1 when something was wrong.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from soak_model import write_random_model

from mathlete.core.generation import SamplingParams
from mathlete.model_store.store import ModelStore, default_cache_dir
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine

MAX_LEN = 512
CHECK_EVERY = 7  # steps
IDLE_EVERY_S = 20.0  # everything is let run out so often, to look at an idle engine
GROWTH_ALLOWED = 0.05
LOADS = (3, 10, 20, 60)  # unfinished requests up to which new ones come; another one every few seconds
LOAD_FOR_S = 7.0
PROBE = "probe"


@dataclass
class Soak:
    """The engine under work, and what was asked of it."""

    loaded: LoadedEngine
    rng: random.Random
    asked: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    comebacks: list[tuple[float, list[int], str]] = field(default_factory=list)  # when, prompt, group
    probe_ids: list[int] | None = None

    def prompt(self, num: int, seed: int) -> list[int]:
        """Tokens that a seed stands for."""
        noise = random.Random(seed)
        return [noise.randrange(200) for _ in range(num)]

    def sampling(self, max_tokens: int) -> SamplingParams:
        """Some way to draw."""
        return SamplingParams(
            temperature=self.rng.choice([0.0, 0.8, 1.0]), max_tokens=max_tokens, seed=self.rng.randrange(1 << 30)
        )

    def add(self, prompt: list[int], group: str, persist_prefix: int) -> None:
        """Queue one request and remember that it must end."""
        name = f"r{self.counts['asked']}"
        self.counts["asked"] += 1
        self.asked.add(name)
        sampling = self.sampling(self.rng.randrange(1, 160))
        self.loaded.engine.add(name, prompt, sampling, group, persist_prefix=persist_prefix)

    def act(self, now_s: float) -> None:
        """One random thing, or what is due."""
        engine, rng = self.loaded.engine, self.rng
        has_room = engine.num_unfinished < LOADS[int(now_s / LOAD_FOR_S) % len(LOADS)]
        due = [comeback for comeback in self.comebacks if comeback[0] <= now_s]
        self.comebacks = [comeback for comeback in self.comebacks if comeback[0] > now_s]
        for _, prompt, group in due:
            self.counts["continued"] += 1
            self.add(prompt, group, 0)
        chance = rng.random()
        if has_room and chance < 0.15:
            system = self.prompt(rng.choice([0, 64, 100, 150]), rng.randrange(12))
            problem = self.counts["asked"]
            prompt = [*system, *self.prompt(rng.randrange(1, 120), problem)]
            for _ in range(rng.choice([1, 2, 4, 8, 16])):
                self.add(prompt, f"g{problem}", len(system))
        elif has_room and chance < 0.25 and self.asked - {PROBE}:
            parent, child = rng.choice(sorted(self.asked - {PROBE})), f"r{self.counts['asked']}"
            engine.fork(parent, child, SamplingParams(max_tokens=300, seed=rng.randrange(1 << 30)))
            self.counts["asked"] += 1
            self.counts["forked"] += 1
            self.asked.add(child)
        elif 0.25 < chance < 0.27 and self.asked:
            engine.abort(request_id=rng.choice(sorted(self.asked)))
        elif 0.27 < chance < 0.275:
            engine.abort(group=f"g{rng.randrange(1 + self.counts['asked'])}")
        elif 0.275 < chance < 0.3 and PROBE not in self.asked:
            self.asked.add(PROBE)
            engine.add(PROBE, self.prompt(50, -1), SamplingParams(max_tokens=40, seed=1, ignore_eos=True))

    def step(self, now_s: float) -> None:
        """One step of the engine; some of those that end come back later."""
        for output in self.loaded.engine.step():
            if output.end is None:
                self.counts["tokens"] += 1
                continue
            request = output.request
            self.asked.remove(request.request_id)  # told once, and only of what was asked
            self.counts[output.end.reason] += 1
            assert output.end.reason != "error", output.end.message
            if request.request_id == PROBE:
                self.note_probe(request.output_ids, output.end.reason)
            elif output.end.reason != "abort" and self.rng.random() < 0.4:
                prompt = [*request.prompt_ids, *request.output_ids, *self.prompt(self.rng.randrange(1, 30), 5)]
                if len(prompt) < MAX_LEN - 170:
                    self.comebacks.append((now_s + self.rng.choice([0.05, 0.5, 2, 5]), prompt, request.group or ""))

    def note_probe(self, ids: list[int], reason: str) -> None:
        """The fixed request has ended: compare."""
        if reason == "abort":
            return
        self.counts["probes"] += 1
        if self.probe_ids is None:
            self.probe_ids = list(ids)
        same = ids == self.probe_ids
        assert same or self.loaded.kernels != "native", "the same request gave other tokens beside other work"

    def run_out(self) -> None:
        """Let everything end and look at the idle engine."""
        engine = self.loaded.engine
        bound = 400 * (10 + engine.num_unfinished)
        for _ in range(bound):
            if not engine.has_work:
                break
            self.step(0.0)
        assert not engine.has_work, f"{engine.num_unfinished} requests have not ended after {bound} steps"
        assert not self.asked, f"never told of: {sorted(self.asked)[:5]}"
        engine.check_integrity()
        assert engine.num_free_blocks == engine.num_blocks, "blocks are held although nothing runs"
        self.counts["idle"] += 1


def main() -> int:
    """Parse the command line, work, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=96)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(load(args.model, args.blocks, Path(folder)), random.Random(args.seed))
        try:
            memory = work(soak, args.minutes * 60)
        except AssertionError as error:
            print(f"FAILED: {error}")
            raise
        third, last = memory[len(memory) // 3], memory[-1]
        growth = last / third - 1
        verdict = growth <= GROWTH_ALLOWED
        print(
            f"{'PASSED' if verdict else 'FAILED'}: {soak.counts['asked']} requests, {soak.counts['tokens']} tokens, "
            f"{soak.counts['probes']} equal probes; memory grew by {growth:.1%} ({third:.0f} -> {last:.0f} MiB)"
        )
        return 0 if verdict else 1


def load(model: str | None, num_blocks: int, folder: Path) -> LoadedEngine:
    """The engine, its cache of `num_blocks`, its stored prompts in `folder`."""
    store = ModelStore()
    if model is None:
        path = folder / "random"
        write_random_model(path)
    else:
        path = store.ensure(model).path
    (folder / "kernels").symlink_to(default_cache_dir() / "kernels")
    config = EngineConfig(max_running=16, max_step_tokens=96, max_model_len=MAX_LEN)
    loaded = load_engine(path, folder, config, lambda what, done, total: None)
    size = num_blocks * loaded.engine.runner.block_bytes
    config = EngineConfig(max_running=16, max_step_tokens=96, max_model_len=MAX_LEN, kv_cache_bytes=size)
    return load_engine(path, folder, config, lambda what, done, total: None)


def work(soak: Soak, seconds: float) -> list[float]:
    """Work for so long. Returns the process's memory, MiB, after each run-out."""
    start = time.monotonic()
    memory: list[float] = []
    minute, next_idle_s, steps = 0, IDLE_EVERY_S, 0
    while (now_s := time.monotonic() - start) < seconds or len(memory) < 3:
        soak.act(now_s)
        if soak.loaded.engine.has_work:
            soak.step(now_s)
            steps += 1
            if steps % CHECK_EVERY == 0:
                soak.loaded.engine.check_integrity()
        if now_s >= next_idle_s or (now_s >= seconds and len(memory) < 3):
            soak.run_out()
            memory.append(rss_mib())
            next_idle_s = now_s + IDLE_EVERY_S
        if now_s >= 60 * (minute + 1):
            minute += 1
            report(soak, minute, steps)
    soak.run_out()
    report(soak, minute + 1, steps)
    return [*memory, rss_mib()]


def report(soak: Soak, minute: int, steps: int) -> None:
    """One line."""
    counts, kv = soak.counts, soak.loaded.engine.kv_statistics
    ends = " ".join(f"{name} {counts[name]}" for name in ("stop", "length", "abort", "forked", "continued", "probes"))
    print(
        f"{minute:3} min: {steps} steps, {counts['tokens']} tokens, {counts['asked']} asked ({ends}); "
        f"blocks found {kv.found}, copied {kv.copied}, evicted {kv.evicted} (forced {kv.forced}, "
        f"protected {kv.forced_protected}); {rss_mib():.0f} MiB, idle {counts['idle']} times",
        flush=True,
    )


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    sys.exit(main())
