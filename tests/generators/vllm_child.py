"""Runs vLLM's CPU build on a folder, in a process of its own: `python vllm_child.py FOLDER < jobs.json`.

Jobs: [{"prompt": [ids], "max_tokens": n, "temperature": t, "text_so_far": text}], under constraints where the text is
not null. Prints, as the last line, the output ids of each, and what vLLM says of arguments that cannot be read. Needs
vLLM and Mathlete's `src` on the path.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(min(os.sched_getaffinity(0))))
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from mathlete.core.problem import AnswerKind
    from mathlete.generators.vllm_constraints import constraint_args
    from mathlete.proof_sampler.config import ConstraintSpec

    jobs = json.load(sys.stdin)
    processor = "mathlete.generators.vllm_constraints:ConstraintLogitsProcessor"
    llm = LLM(
        sys.argv[1],
        dtype="float32",
        max_model_len=256,
        max_num_seqs=4,
        enforce_eager=True,
        logits_processors=[processor],
    )
    params = [
        SamplingParams(
            temperature=job["temperature"],
            max_tokens=job["max_tokens"],
            extra_args=None
            if job["text_so_far"] is None
            else constraint_args(ConstraintSpec(), AnswerKind("integer", 0, 999), job["text_so_far"]),
        )
        for job in jobs
    ]
    prompts = [TokensPrompt(prompt_token_ids=job["prompt"]) for job in jobs]
    outputs = [list(result.outputs[0].token_ids) for result in llm.generate(prompts, params, use_tqdm=False)]
    refused = ""
    try:
        llm.generate(prompts[:1], SamplingParams(extra_args={"mathlete_constraint": {"spec": {}}}), use_tqdm=False)
    except Exception as error:  # its own kind of error, which is not imported before the environment is set
        refused = str(error)
    print(json.dumps({"outputs": outputs, "refused": refused}), file=answers, flush=True)


if __name__ == "__main__":
    main()
