"""A warm start of the engine beside transformers' from safetensors: a new process each, up to its first token.

usage: loader.py --model FILE.gguf --hf DIR [--precision w8a8] [--repeat 5] [--threads 2] [--cold]
DIR is what `hf_folder.py` made of FILE.gguf. Both find their files in the system's cache (read once before), and ours
its converted checkpoint; `--cold` adds a start of ours that converts first. Seconds by the parent's clock from the
start of the process: `imported` (its libraries), `loaded` (ready for a request), `first_token`.
JSON lines, alternating A B A B; the last holds the medians and how much less time ours takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT_IDS = list(range(1000, 1064))


def main() -> None:
    """Time starts in turn; with `--child` be one of them."""
    args = _parse()
    if args.child:
        {"ryanstream": _ryanstream, "transformers": _transformers}[args.child](args)
        return
    rows = []
    if args.cold:
        with tempfile.TemporaryDirectory() as cache:
            _start("ryanstream", args, {"MATHLETE_CACHE": cache})  # compiles the kernels, converts
            for checkpoint in Path(cache).glob("checkpoints/*/*"):
                checkpoint.unlink()
            print(json.dumps({"start": "cold", **_start("ryanstream", args, {"MATHLETE_CACHE": cache})}), flush=True)
    for engine in ("ryanstream", "transformers"):  # not counted: fills the system's cache
        _start(engine, args, {})
    for repeat in range(args.repeat):
        for engine in ("ryanstream", "transformers"):
            rows.append({"start": "warm", "repeat": repeat, **_start(engine, args, {})})
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(_medians(rows)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--hf", type=Path, required=True)
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--child", choices=["ryanstream", "transformers"], help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(engine: str, args: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """One process; the moments at which it says what it has reached."""
    command = [sys.executable, __file__, "--child", engine, "--model", str(args.model), "--hf", str(args.hf)]
    command += ["--precision", args.precision, "--threads", str(args.threads)]
    start = time.perf_counter()
    moments: dict[str, Any] = {"engine": engine}
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            moments[f"{line.strip()}_s"] = round(time.perf_counter() - start, 3)
    if "first_token_s" not in moments:
        sys.exit(f"{engine} did not start; to see why: {' '.join(command)}")
    return moments


def _ryanstream(args: argparse.Namespace) -> None:
    from mathlete.core.generation import SamplingParams
    from mathlete.model_store.store import ModelStore
    from mathlete.ryanstream.engine_config import EngineConfig
    from mathlete.ryanstream.loading import load_engine

    _tell("imported")
    config = EngineConfig(precision=args.precision, num_threads=args.threads)
    loaded = load_engine(args.model, ModelStore().cache_dir, config, lambda what, done, total: None)
    _tell("loaded")
    loaded.engine.add("start", PROMPT_IDS, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    while loaded.engine.has_work:
        loaded.engine.step()
    _tell("first_token")


def _transformers(args: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _tell("imported")
    torch.set_num_threads(args.threads)
    AutoTokenizer.from_pretrained(args.hf)  # ours loads its tokenizer too
    model = AutoModelForCausalLM.from_pretrained(args.hf, dtype=torch.bfloat16)
    _tell("loaded")
    model.generate(torch.tensor([PROMPT_IDS]), max_new_tokens=1, do_sample=False)
    _tell("first_token")


def _tell(moment: str) -> None:
    print(moment, flush=True)


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for moment in ("imported_s", "loaded_s", "first_token_s"):
        ours, theirs = (
            statistics.median(row[moment] for row in rows if row["engine"] == engine)
            for engine in ("ryanstream", "transformers")
        )
        found[moment] = {"ryanstream": ours, "transformers": theirs, "less_time": round(1 - ours / theirs, 3)}
    return found


if __name__ == "__main__":
    main()
