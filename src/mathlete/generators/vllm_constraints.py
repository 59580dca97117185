r"""Constraints under vLLM: the same `TextConstraint`s, as one of its custom logits processors.

    llm = LLM(model, logits_processors=["mathlete.generators.vllm_constraints:ConstraintLogitsProcessor"])
    args = constraint_args(ConstraintSpec(), problem.answer_kind)
    llm.chat(messages, SamplingParams(max_tokens=1024, extra_args=args))

Knows vLLM's side (vllm.v1.sample.logits_processor, read in 0.32) and nothing of what is demanded of texts. Requests
without such arguments are left alone. Two limits are vLLM's: it refuses custom logits processors together with
speculative decoding; and 0.32's CPU build ends on a request with a `seed` ("CPU Generator does not use offset"), so
leave that out there.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from mathlete.core.errors import EngineError
from mathlete.generators.constraint_arguments import ARGUMENT, constraint_args, constraint_request
from mathlete.generators.vllm_tokenizer import engine_tokenizer
from mathlete.proof_sampler.token_constraint import TextConstraint
from mathlete.proof_sampler.vocabulary import Vocabulary

__all__ = ["ARGUMENT", "ConstraintLogitsProcessor", "constraint_args"]


class _Row:
    """A request of the batch: its constraint, and vLLM's own list of its output, which grows."""

    def __init__(self, constraint: TextConstraint, output_ids: list[int]) -> None:
        self.constraint = constraint
        self._output_ids = output_ids
        self._num_taken = 0

    def catch_up(self) -> None:
        """Take in what was drawn since.

        Raises:
            EngineError: when the constraint refuses a token: something else than its mask has chosen it.
        """
        new = self._output_ids[self._num_taken :]
        if not self.constraint.accept(new):
            place = self._num_taken + self.constraint.validate(new)
            raise EngineError(
                f"a constrained request's output token {place} (id {self._output_ids[place]}) is one that its "
                "constraint had masked. Do not combine constraints with what forces tokens"
            )
        self._num_taken += len(new)


class ConstraintLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks what the constraint of each request does not allow."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise `ValueError` for what cannot be read or not be kept to; vLLM refuses the request then."""
        asked = constraint_request(sampling_params.extra_args)
        if asked is not None and sampling_params.thinking_token_budget is not None:
            raise ValueError("a constrained request cannot have a thinking_token_budget: it forces tokens")

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """Sort the model's vocabulary; called by vLLM.

        Raises:
            EngineError: when vLLM has no tokenizer, or one that is not of the `tokenizers` library.
        """
        self._device = device
        self._pins = is_pin_memory
        self._vocabulary = _vocabulary(vllm_config)
        self._rows: dict[int, _Row] = {}
        self._words = memoryview(bytearray(4 * self._vocabulary.num_words)).cast("I")

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token may be masked."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow what has become of the batch: removed, added, moved, in this order."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, _, output_ids in batch_update.added:
            self._rows.pop(index, None)
            asked = constraint_request(params.extra_args)
            constraint = None if asked is None else asked.build(self._vocabulary)
            if constraint is not None:
                self._rows[index] = _Row(constraint, output_ids)
        for source, target, direction in batch_update.moved:
            moved, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                self._rows[source] = replaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask, in place, the rows of logits [num_requests, vocab_size] that have a constraint.

        The newest tokens are read here and not in `update_state`: with asynchronous scheduling they are not known then.
        """
        if not self._rows:
            return logits
        forbidden = torch.empty((len(self._rows), logits.shape[1]), dtype=torch.bool, pin_memory=self._pins)
        for place, row in enumerate(self._rows.values()):
            row.catch_up()
            row.constraint.fill_mask(self._words)
            bits = np.unpackbits(np.frombuffer(self._words, dtype=np.uint8), bitorder="little")
            forbidden[place] = True
            forbidden[place, : self._vocabulary.size] = torch.from_numpy(bits[: self._vocabulary.size]) == 0
        rows = torch.tensor(list(self._rows), device=logits.device)
        logits[rows] = logits[rows].masked_fill(forbidden.to(self._device, non_blocking=True), -torch.inf)
        return logits


def _vocabulary(vllm_config: VllmConfig) -> Vocabulary:
    model_config = vllm_config.model_config
    tokenizer = engine_tokenizer(
        cached_tokenizer_from_config(model_config), model_config.try_get_generation_config() or {}
    )
    return Vocabulary(tokenizer.token_bytes(model_config.get_vocab_size()), tokenizer.eos_token_ids)
