"""What a policy of eviction costs: tokens computed anew when attempts come back from their tool calls.

usage: kv_eviction.py [--problems 16] [--seeds 5]
No model: the engine's own scheduler and pool, steps of a fixed length on a clock of their own, requests of random
length. Several problems are open at once, 8 attempts each; an attempt runs 3 turns and its program a few seconds in
between. The pool is given various sizes, as multiples of what the running requests hold when full. Compared: the least
recently freed block first (`KVBlockPool`), and `KVCacheManager` with several values of its policy. Prints a JSON
object for each: tokens computed over tokens that had to be (medians over the seeds), preemptions, forced evictions.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
from dataclasses import asdict, dataclass, replace

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.kv_cache import KVBlockPool, blocks_for
from mathlete.ryanstream.kv_manager import SPEC_A4, EvictionPolicy, KVCacheManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import Scheduler, SchedulerConfig

STEP_S = 0.1
ATTEMPTS, TURNS, OPEN_PROBLEMS, MAX_RUNNING = 8, 3, 4, 16
MEAN_TURN, PROMPT, OUTPUT_OF_TOOL = 150, (150, 400), 40
SIZES = (0.45, 0.7, 1.0)
PLAIN = EvictionPolicy(num_protected=0, reference_credit_s=0)


class LeastRecentlyFreed(KVCacheManager):
    """The plain pool's choice behind the manager's methods."""

    def _make_room(self, num: int) -> None:
        KVBlockPool._make_room(self, num)


@dataclass
class Attempt:
    """One attempt: its tokens so far, how many it has in each turn still to come, and where it belongs."""

    problem: int
    tokens: list[int]
    turns: list[int]
    name: str


@dataclass(frozen=True)
class Outcome:
    """What a simulated run came to."""

    computed_over_needed: float
    preemptions: int
    evicted: int
    forced: int


def main() -> None:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    policies = {
        "least recently freed": None,
        "default": EvictionPolicy(),
        "SPEC A4": SPEC_A4,
        "only its 70 %": replace(PLAIN, forced_occupancy=SPEC_A4.forced_occupancy),
        "only its protection": replace(PLAIN, num_protected=SPEC_A4.num_protected, protect_for_s=SPEC_A4.protect_for_s),
        "only its score": replace(PLAIN, reference_credit_s=SPEC_A4.reference_credit_s),
    }
    full = MAX_RUNNING * blocks_for(PROMPT[1] + TURNS * (MEAN_TURN + OUTPUT_OF_TOOL))
    for size in SIZES:
        for name, policy in policies.items():
            runs = [simulate(policy, int(full * size), args.problems, seed) for seed in range(args.seeds)]
            columns = {key: [asdict(run)[key] for run in runs] for key in asdict(runs[0])}
            medians = {key: round(statistics.median(values), 3) for key, values in columns.items()}
            print(json.dumps({"policy": name, "pool": size, **medians}), flush=True)


def simulate(policy: EvictionPolicy | None, num_blocks: int, num_problems: int, seed: int) -> Outcome:
    """Serve all problems' attempts, a few problems at a time."""
    rng = random.Random(seed)
    now_s = 0.0
    pool = (LeastRecentlyFreed if policy is None else KVCacheManager)(num_blocks, policy, lambda: now_s)
    scheduler = Scheduler(SchedulerConfig(MAX_RUNNING, 256, 4096), pool)
    system = [rng.randrange(1 << 20) for _ in range(100)]
    problems = [
        [*system, *(rng.randrange(1 << 20) for _ in range(rng.randrange(*PROMPT)))] for _ in range(num_problems)
    ]
    lengths = [[[_turn(rng) for _ in range(TURNS)] for _ in range(ATTEMPTS)] for _ in range(num_problems)]
    returning: list[tuple[float, int, Attempt]] = []
    running: dict[str, Attempt] = {}
    left: dict[int, int] = {}
    opened = arrivals = computed = 0

    def submit(attempt: Attempt) -> None:
        nonlocal arrivals
        sampling = SamplingParams(max_tokens=attempt.turns.pop(0))
        running[attempt.name] = attempt
        scheduler.add(EngineRequest(attempt.name, tuple(attempt.tokens), sampling, str(attempt.problem), arrivals))
        arrivals += 1

    while opened < num_problems or left:
        while opened < num_problems and len(left) < OPEN_PROBLEMS:
            left[opened] = ATTEMPTS
            for i in range(ATTEMPTS):
                submit(Attempt(opened, list(problems[opened]), list(lengths[opened][i]), f"{opened}/{i}"))
            opened += 1
        while returning and returning[0][0] <= now_s:
            submit(heapq.heappop(returning)[2])
        now_s += STEP_S
        for entry in scheduler.schedule().entries:
            request = entry.request
            computed += entry.end - entry.start
            scheduler.note_computed(entry)
            if not entry.samples:
                continue
            request.output_ids.append(rng.randrange(1 << 20))
            if len(request.output_ids) < request.sampling.max_tokens:
                continue
            scheduler.finish(request)
            attempt = running.pop(request.request_id)
            if attempt.turns:
                tool = [rng.randrange(1 << 20) for _ in range(OUTPUT_OF_TOOL)]
                attempt.tokens = [*request.prompt_ids, *request.output_ids, *tool]
                heapq.heappush(returning, (now_s + rng.choice([0.3, 1.0, 1.0, 3.0, 10.0]), arrivals, attempt))
                arrivals += 1
            elif left[attempt.problem] == 1:
                del left[attempt.problem]
            else:
                left[attempt.problem] -= 1
    pool.check_integrity([])
    own = sum(sum(turns) + (TURNS - 1) * OUTPUT_OF_TOOL for attempts in lengths for turns in attempts)
    needed = own + len(system) + sum(len(problem) - len(system) for problem in problems)
    statistics_ = pool.statistics
    return Outcome(computed / needed, scheduler.num_preemptions, statistics_.evicted, statistics_.forced)


def _turn(rng: random.Random) -> int:
    return 1 + min(600, int(rng.expovariate(1 / MEAN_TURN)))


if __name__ == "__main__":
    main()
