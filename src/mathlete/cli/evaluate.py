"""`mathlete evaluate`: every attempt of every task, and what they are worth."""

from __future__ import annotations

from pathlib import Path

import typer

from mathlete.cli.solve import (
    AsJson,
    Attempts,
    Backtracking,
    BatchInvariant,
    BeamSoftTerms,
    BeamWidth,
    Budget,
    CodeTimeout,
    Constraints,
    Device,
    DraftModel,
    DraftWidth,
    KVCacheDtype,
    Limit,
    MaxInFlight,
    MaxTokens,
    MinP,
    Model,
    NormalizeMath,
    NumSpeculativeTokens,
    Out,
    Precision,
    Resume,
    Seed,
    Source,
    SpeculativeMethod,
    Temperature,
    TensorParallel,
    ThinkingBudget,
    Threads,
    TopK,
    TopP,
    run_command,
)
from mathlete.model_store.registry import DEFAULT_MODEL


def evaluate(
    ctx: typer.Context,
    tasks: Source = None,
    budget: Budget = None,
    attempts: Attempts = 8,
    seed: Seed = 0,
    model: Model = DEFAULT_MODEL,
    out: Out = Path("runs"),
    resume: Resume = None,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    max_tokens: MaxTokens = 1024,
    max_in_flight: MaxInFlight = 32,
    precision: Precision = "w8a8",
    kv_cache_dtype: KVCacheDtype = "bf16",
    batch_invariant: BatchInvariant = False,
    tensor_parallel: TensorParallel = 1,
    device: Device = "cpu",
    thinking_budget: ThinkingBudget = None,
    normalize_math: NormalizeMath = False,
    speculative_method: SpeculativeMethod = "off",
    num_speculative_tokens: NumSpeculativeTokens = 8,
    draft_width: DraftWidth = 1,
    draft_model: DraftModel = None,
    constraints: Constraints = False,
    backtracking: Backtracking = "off",
    beam_width: BeamWidth = 0,
    beam_soft_terms: BeamSoftTerms = False,
    threads: Threads = None,
    code_timeout: CodeTimeout = "10s",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Run tasks that have answers: all attempts of each, none stopped early; prints accuracy with intervals.

    Every step is computed in one precision, w8a8 unless another is given, so that a run repeats to the token.
    Rows without an answer are refused; rows marked `"integer": false` are left out and counted.
    """
    run_command(ctx, tasks, default_budget="12h", require_gold=True)
