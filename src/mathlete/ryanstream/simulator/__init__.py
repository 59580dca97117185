"""Scheduling without a model: the engine's own scheduler and KV pool, driven by recorded or made-up lengths.

Glossary: a *trace* is what is asked (requests with their arrival and their true output length); a *request-step* is
one request in one step; a *stall* is a request-step spent waiting while a slot, the blocks and a part of the step's
tokens were there to serve the request; a vote is *settled* when no answer still to come can change it, or four
attempts agree.
"""

from mathlete.ryanstream.simulator.compare import PolicyResult, compare_policies
from mathlete.ryanstream.simulator.cost import StepCost, StepSample, collect_step_samples, fit_step_cost
from mathlete.ryanstream.simulator.run import SimulationConfig, SimulationResult, simulate
from mathlete.ryanstream.simulator.trace import (
    LengthModel,
    Trace,
    TraceRequest,
    fit_length_model,
    synthetic_trace,
    trace_from_attempts,
)

__all__ = [
    "LengthModel",
    "PolicyResult",
    "SimulationConfig",
    "SimulationResult",
    "StepCost",
    "StepSample",
    "Trace",
    "TraceRequest",
    "collect_step_samples",
    "compare_policies",
    "fit_length_model",
    "fit_step_cost",
    "simulate",
    "synthetic_trace",
    "trace_from_attempts",
]
