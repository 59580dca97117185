"""Joins proposer and depth control to the engine's steps: gives a plan its drafts, and learns what became of them.

Knows plans, requests and constraints; never touches the target's tensors. A draft costs nobody a place: it takes what
a step's token limit and the free blocks leave (`Scheduler.reserve_draft`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.scheduler import Scheduler, StepPlan
from mathlete.ryanstream.speculative.depth_control import DepthControl, DraftLimits, DraftVerdict, MeasuredStep
from mathlete.ryanstream.speculative.draft_states import DrawnGuess, PlannedDraft, allowed_draft
from mathlete.ryanstream.speculative.draft_tree import EMPTY
from mathlete.ryanstream.speculative.proposer import DraftSlot, Proposer


@dataclass(slots=True)
class SpeculationStatistics:
    """Counts since the engine began.

    Attributes:
        num_steps: steps in which some request got a token.
        num_tokens: tokens they gave.
        num_draws: requests that took part, over all these steps: the tokens they would have given without drafts.
        num_drafted: guessed tokens that were computed.
        num_accepted: of these, how many the model drew too.
        propose_s: seconds that proposers took.
    """

    num_steps: int = 0
    num_tokens: int = 0
    num_draws: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    propose_s: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """What a run's trace keeps of it."""
        return {
            "steps": self.num_steps,
            "tokens": self.num_tokens,
            "drafted": self.num_drafted,
            "accepted": self.num_accepted,
            "tokens_per_draw": round(self.num_tokens / max(1, self.num_draws), 3),
        }


class Speculation:
    """One proposer and who says how far it may go."""

    def __init__(self, proposer: Proposer, depth: DepthControl, clock: Callable[[], float] = time.perf_counter) -> None:
        """Join them; `clock` in seconds."""
        self.proposer = proposer
        self.depth = depth
        self.statistics = SpeculationStatistics()
        self._clock = clock
        self._started_s = self._propose_s = 0.0

    def extend(self, plan: StepPlan, scheduler: Scheduler) -> StepPlan:
        """The plan with drafts for the requests that only need their newest token computed."""
        self._started_s, self._propose_s = self._clock(), 0.0
        plan = replace(plan, keeps_hidden=self.proposer.wants_hidden)
        entries = [entry for entry in plan.entries if entry.samples]
        decoding = [entry for entry in entries if entry.end - entry.start == 1]
        if not decoding:
            return plan
        requests = [entry.request for entry in decoding]
        limits = self.depth.limits(requests, self.proposer.step_cost_s)
        slots = self._slots(requests, limits, scheduler, plan)
        if not slots:
            return plan
        drafts = self._drafts(requests, slots)
        copies = (*plan.copies, *scheduler.take_copies())
        planned = tuple(
            replace(entry, draft=draft) if (draft := drafts.get(entry.request)) is not None else entry
            for entry in plan.entries
        )
        return replace(plan, entries=planned, copies=copies)

    def note(self, plan: StepPlan, right: Sequence[tuple[int, ...]], num_tokens: int, hidden: Sequence[Tensor]) -> None:
        """A step is over.

        Args:
            plan: what was computed.
            right: of each entry, the nodes of its draft that the model drew too, from the root down.
            num_tokens: that requests got, all together.
            hidden: of each entry, the hidden states of its rows, where the plan keeps them.
        """
        seconds = self._clock() - self._started_s - self._propose_s
        for entry, nodes, rows in zip(plan.entries, right, hidden, strict=bool(hidden)):
            if entry.request.status is not Status.FINISHED:
                num_known = entry.end - entry.start
                known = [*range(num_known), *(num_known + node for node in nodes)]
                self.proposer.note_hidden(entry.request, entry.start, rows[known])
        verdicts = [
            DraftVerdict(entry.request, entry.draft.tree, nodes)
            for entry, nodes in zip(plan.entries, right, strict=True)
            if entry.draft is not None
        ]
        sampling = [entry for entry in plan.entries if entry.samples]
        if not sampling:
            return
        counts = self.statistics
        counts.num_steps += 1
        counts.num_tokens += num_tokens
        counts.num_draws += len(sampling)
        counts.propose_s += self._propose_s
        for verdict in verdicts:
            counts.num_drafted += verdict.tree.num_nodes
            counts.num_accepted += len(verdict.accepted)
            verdict.request.num_drafted += verdict.tree.num_nodes
            verdict.request.num_accepted += len(verdict.accepted)
        if all(entry.samples and entry.end - entry.start == 1 for entry in plan.entries):
            step = MeasuredStep(seconds, self._propose_s, plan.num_rows, len(sampling), tuple(verdicts))
            self.depth.note(step)

    def forget(self, request: EngineRequest) -> None:
        """The request has ended."""
        self.proposer.forget(request)
        self.depth.forget(request)

    def _slots(
        self, requests: Sequence[EngineRequest], limits: Sequence[DraftLimits], scheduler: Scheduler, plan: StepPlan
    ) -> list[DraftSlot]:
        """Who may have how much, with blocks for it."""
        slots, left = [], scheduler.config.max_step_tokens - plan.num_rows
        for request, limit in zip(requests, limits, strict=True):
            depth = min(limit.max_depth, _room(request, scheduler.config.max_model_len), left)
            nodes = min(limit.max_nodes, left)
            if depth >= 1 and nodes >= 1 and (nodes := scheduler.reserve_draft(request, nodes)):
                slots.append(DraftSlot(request, nodes, min(depth, nodes), limit.min_probability))
                left -= nodes
        return slots

    def _drafts(
        self, requests: Sequence[EngineRequest], slots: Sequence[DraftSlot]
    ) -> dict[EngineRequest, PlannedDraft]:
        start = self._clock()
        proposed = self.proposer.propose(slots)
        self._propose_s = self._clock() - start
        guesses = {slot.request: tree for slot, tree in zip(slots, proposed, strict=True)}
        allowed = {request: allowed_draft(request, tree) for request, tree in guesses.items()}
        trees = [allowed[request].tree if request in allowed else EMPTY for request in requests]
        kept = self.depth.prune(requests, trees)
        drafts = {}
        for request, tree in zip(requests, kept, strict=True):
            guessed = guesses.get(request, EMPTY)
            drawn = tuple(map(DrawnGuess, guessed.token_ids, guessed.drawn_from))
            if tree.num_nodes or drawn:
                whole = allowed[request]
                draft = whole if tree is whole.tree else allowed_draft(request, tree)
                drafts[request] = replace(draft, drawn=drawn)
        return drafts


def _room(request: EngineRequest, max_model_len: int) -> int:
    """How many guesses in a row can become output, with one more token after them."""
    if request.hidden_wanted is not None and request.hidden_wanted.outputs:
        return 0  # the hidden states of output are kept for tokens that are computed one by one
    num_left = min(request.sampling.max_tokens - len(request.output_ids), max_model_len - request.num_tokens)
    return num_left - 1
