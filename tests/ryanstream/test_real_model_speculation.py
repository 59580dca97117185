"""A real model, each proposer, chains and trees, with and without constraints: token for token what it says plainly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from drafting import save_random_head
from driving import drive

from mathlete.core.generation import Message, SamplingParams
from mathlete.core.problem import AnswerKind
from mathlete.generators.chat_format import chat_ids
from mathlete.model_store.store import default_cache_dir
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.request import EngineRequest

pytestmark = [pytest.mark.model, pytest.mark.slow]

NEW = 32
ASKED = r"Write \[x^2 - 5x + 6 = (x - 2)(x - 3)\] twice, then the roots $\{2, 3\}$, then their sum in \boxed{}."
MODEL = "the draft model"
HEAD = "a random head"

Told = dict[str, tuple[list[int], list[float], list[float]]]


@dataclass(frozen=True)
class Way:
    """A way to guess.

    Attributes:
        method: as the engine knows it.
        width: of a draft's tree.
        draft_model: `MODEL`, `HEAD` or None.
        exit_layer: with "early_exit".
    """

    method: str
    width: int = 1
    draft_model: str | None = None
    exit_layer: int | None = None


WAYS = [
    Way("ngram"),
    Way("suffix"),
    Way("draft", 1, MODEL),
    Way("draft", 3, MODEL),
    Way("early_exit", 1, exit_layer=6),
    Way("early_exit", 3, exit_layer=6),
    Way("eagle", 1, HEAD),
]


@dataclass
class Models:
    """The target, what guesses for it, and what it says without guesses.

    Attributes:
        target: the model's file.
        draft: a smaller model's, or the same one's.
        head: a folder for an EAGLE head.
    """

    target: Path
    draft: Path
    head: Path

    def load(self, **settings: object) -> LoadedEngine:
        """Weights are mapped files: all engines share them."""
        config = EngineConfig(max_running=6, max_model_len=256, kv_cache_bytes=32 << 20, **settings)  # type: ignore[arg-type]
        return load_engine(self.target, default_cache_dir(), config, lambda what, done, total: None)

    @cached_property
    def plain(self) -> LoadedEngine:
        """Guesses nothing."""
        loaded = self.load()
        save_random_head(self.head, loaded.config)
        return loaded

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What constraints know of the tokens."""
        return Vocabulary(self.plain.token_bytes, tuple(self.plain.tokenizer.eos_token_ids))

    @cached_property
    def expected(self) -> Told:
        """What is said without guesses."""
        return told(self.run(self.plain))

    def run(self, loaded: LoadedEngine) -> list[EngineRequest]:
        """Two groups, one free and one constrained, of three requests: one greedy, two at temperature 0.8."""
        prompt = chat_ids(loaded.tokenizer, [Message("user", ASKED)])
        for group in ("free", "constrained"):
            for i, temperature in enumerate((0.0, 0.8, 0.8)):
                held = build_constraint(ConstraintSpec(), self.vocabulary, AnswerKind())
                constraint = held if group == "constrained" else None
                sampling = SamplingParams(temperature, 0.95, seed=i, max_tokens=NEW)
                loaded.engine.add(f"{group} {i}", prompt, sampling, group, constraint=constraint)
        return [output.request for output in drive(loaded.engine).outputs.values()]


def told(requests: Sequence[EngineRequest]) -> Told:
    """Tokens, log-probabilities and entropies."""
    return {request.request_id: (request.output_ids, request.logprobs, request.entropies) for request in requests}


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(small_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Both the 0.5B; MATHLETE_TEST_TARGET=FILE.gguf names a larger target with the same tokens."""
    target = os.environ.get("MATHLETE_TEST_TARGET")
    return Models(Path(target) if target else small_model_path, small_model_path, tmp_path_factory.mktemp("head"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.method} {way.width}")
def test_a_real_model_says_the_same_with_guesses(models: Models, way: Way) -> None:
    """Bit for bit, and guesses were made and, where they can be good, kept."""
    expected = models.expected
    assert all(len(tokens) == NEW for tokens, _, _ in expected.values())
    loaded = models.load(
        speculative=way.method,
        num_speculative_tokens=3,
        draft_width=way.width,
        draft_model={MODEL: models.draft, HEAD: models.head, None: None}[way.draft_model],
        exit_layer=way.exit_layer,
        adaptive_depth=False,
    )
    if loaded.kernels != "native":
        pytest.skip(f"needs the native kernels, whose sums do not depend on the number of rows: {loaded.kernels}")
    requests = models.run(loaded)
    assert told(requests) == expected
    for group in ("free", "constrained"):
        assert sum(request.num_drafted for request in requests if request.group == group) > 0
    if way.method in ("suffix", "draft"):
        assert sum(request.num_accepted for request in requests) > NEW // 2
