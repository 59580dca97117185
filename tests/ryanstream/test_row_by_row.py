"""The batch-invariant mode on torch: a request's tokens, logprobs and entropies in any company, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import load, run_all
from tiny_qwen import TinyModel

from mathlete.core.generation import SamplingParams

PROMPT = [3 * i % 200 + 1 for i in range(21)]
SAMPLING = SamplingParams(temperature=1.0, top_p=0.95, max_tokens=10, seed=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "w8a8"])
def test_company_changes_nothing(
    tiny: TinyModel, engine_cache: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATHLETE_NATIVE", "0")
    seen = set()
    for num_others, max_step_tokens in ((0, 256), (3, 256), (9, 16)):
        loaded = load(
            tiny.folder, engine_cache, precision=precision, batch_invariant=True, max_step_tokens=max_step_tokens
        )
        others = [[50 + n, *range(1, 4 + 3 * n)] for n in range(num_others)]
        company = [SamplingParams(max_tokens=3 + n, seed=n) for n in range(num_others)]
        request = run_all(loaded.engine, [PROMPT, *others], [SAMPLING, *company]).outputs["0"].request
        seen.add((tuple(request.output_ids), tuple(request.logprobs), tuple(request.entropies)))
    assert len(seen) == 1
