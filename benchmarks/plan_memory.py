"""What `mathlete plan` says of the embedded engine's memory on a CPU, beside what a process of its own takes.

usage: plan_memory.py [MODEL ...] [--precision w8a8,int4,nf4,bf16] [--attempts 1,8,32] [--new 64,512] [--prompt 256]
                      [--no-huge-pages]

Each setting runs in a process of its own: it loads the model, writes that many attempts of that length at once, and
tells its resident set just before the attempts end (Linux' smaps_rollup: torch's libraries and the mapped weights
count in full) and its proportional set (what it shares with other processes counts in part). Checkpoints are converted
first, since that takes memory of its own. Whether a huge page is at hand when one is asked for is the system's luck of
the moment: --no-huge-pages does without. One JSON object a setting on stdout.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mathlete.core.generation import SamplingParams
from mathlete.model_store.store import ModelStore
from mathlete.planning.embedded_memory import EmbeddedLoad, memory_on_cpu
from mathlete.planning.models import find_model
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import load_engine

MAX_STEP_TOKENS = 256
_STATEMENT = (
    "Let a, b and c be positive integers with a + b + c = 2009. Find the number of ways to write it as a sum of three "
    "squares, where the order matters, and the remainder when that number is divided by 1000.\n\nSolution. We go step "
    "by step.\n\nStep 1:"
)
_PR_SET_THP_DISABLE = 41  # linux/prctl.h


def main() -> None:
    """Convert, then measure each setting in a process of its own, and print it beside the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["0.5b"])
    parser.add_argument("--precision", default="w8a8,int4,nf4,bf16")
    parser.add_argument("--attempts", default="1,8,32")
    parser.add_argument("--new", default="64,512")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--no-huge-pages", action="store_true")
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measured(**json.loads(args.one))), flush=True)
        return
    attempts, news = ([int(part) for part in text.split(",")] for text in (args.attempts, args.new))
    for model, precision in itertools.product(args.models, args.precision.split(",")):
        huge = not args.no_huge_pages
        apart({"model": model, "precision": precision, "attempts": 1, "prompt": 64, "new": 2, "huge_pages": huge})
        for count, new in itertools.product(attempts, news):
            setting = {
                "model": model, "precision": precision, "attempts": count, "prompt": args.prompt, "new": new,
                "huge_pages": huge,
            }  # fmt: skip
            print(json.dumps(beside_plan(setting, apart(setting))), flush=True)


def apart(setting: dict[str, Any]) -> dict[str, Any]:
    """What a new process measured."""
    command = [sys.executable, __file__, "--one", json.dumps(setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{setting}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(
    model: str, precision: str, attempts: int, prompt: int, new: int, huge_pages: bool = True
) -> dict[str, Any]:
    """Run the attempts in this process; its memory when all are under way and nearly at their end."""
    if not huge_pages and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "huge pages could not be switched off")
    store = ModelStore()
    config = EngineConfig(
        precision=precision,  # type: ignore[arg-type]  # EngineConfig checks it
        max_running=attempts,
        max_step_tokens=max(MAX_STEP_TOKENS, 2 * attempts),
        max_model_len=prompt + new + 16,
        prompt_cache=False,
    )
    loaded = load_engine(store.ensure(model).path, store.cache_dir, config, lambda what, done, total: None)
    engine = loaded.engine
    text = loaded.tokenizer.encode(_STATEMENT)
    ids = [*(text * (1 + prompt // len(text)))[:prompt]]
    for attempt in range(attempts):
        engine.add(str(attempt), ids, SamplingParams(max_tokens=new, seed=attempt, ignore_eos=True), "one")
    memory = process_memory()
    while engine.has_work:
        if any(output.end is not None for output in engine.step()):
            break
        memory = process_memory()
    loaded.close()
    return memory


def process_memory() -> dict[str, Any]:
    """Bytes of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith("kB")}
    return {"pss": sizes["Pss"], "rss": sizes["Rss"], "anonymous": sizes["Anonymous"]}


def beside_plan(setting: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A setting, what was measured, and what the plan says."""
    shape = find_model(str(ModelStore().ensure(setting["model"]).path))
    length = setting["prompt"] + setting["new"]
    planned = memory_on_cpu(
        shape,
        EmbeddedLoad(
            precisions=(setting["precision"],),
            attempts=setting["attempts"],
            prompt=setting["prompt"],
            length=length,
            max_step_tokens=max(MAX_STEP_TOKENS, 2 * setting["attempts"]),
            max_model_len=length + 16,
            huge_pages=setting["huge_pages"],
        ),
    )
    parts = {
        name: round(getattr(planned, name) / 2**20, 1)
        for name in ("weights", "embedding", "kv", "workspace", "tables", "base", "total")
    }
    return {
        **setting,
        "measured_mib": {name: round(size / 2**20, 1) for name, size in found.items()},
        "planned_mib": parts,
        "planned_over_measured": round(planned.total / found["rss"] - 1, 4),
    }


if __name__ == "__main__":
    main()
