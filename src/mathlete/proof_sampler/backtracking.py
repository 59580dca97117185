"""A generator around a generator that goes back: each request is followed step by step, and one that has written what
cannot be right, or is lost in a loop, goes back to a checkpoint and goes on from there with other noise.

Knows requests, their text and the verdicts of a checker. Knows nothing of engines or attempts; what the problem is, it
takes from the user's messages.

Words: a *checkpoint* is a place between two tokens where a step ended. It costs nothing to keep: the generator goes
back to a number of tokens (`Generator.rewind`), and with them constraint, stop strings and KV cache.

Determined by the seeds alone are repetition, contradiction and entropy. A refuted claim is found by other processes
while the generator goes on, so how much is thrown away depends on when the verdict comes; with `wait` the generator
stands still until the verdicts on its newest steps are there, and a run repeats to the token as long as the checker
needs less than `wait_s` and says the same of the same text.

What a step says depends on what stands before it ("we work modulo 7"), so checker and tracker are told of all of it:
the user's messages, the turn so far, the steps before. A request that has ended is never taken back: its last step is
not judged any more.
"""  # noqa: D205

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from mathlete.core.generation import Finished, GenerateRequest, GeneratorEvent, Rewound, SamplingParams, TokenChunk
from mathlete.core.protocols import Clock, Generator, StepChecker
from mathlete.core.seeds import derive_seed
from mathlete.proof_sampler.dead_ends import (
    CONTRADICTION,
    ENTROPY,
    REFUTED,
    STRICT_RULES,
    DeadEnd,
    DeadEndRules,
    Step,
    ends_in_code,
    find_loop,
    find_repeated_step,
    is_lost,
    next_step,
)
from mathlete.proof_sampler.equations import START, EquationState, EquationTracker

_LOOP_PERIOD = 8  # tokens between two looks for a loop
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class BacktrackingConfig:
    """How often and how far requests go back.

    Attributes:
        max_tries: how often a request goes back to one checkpoint (SPEC A1: 3, strict 5). What is found there after
            that is let through.
        max_rewinds: how often it goes back at all.
        max_discarded: share of its `max_tokens` that may be thrown away; what is thrown away counts towards them.
        min_left: tokens it must have left to be taken back.
        rules: what counts as a dead end.
        wait: wait for the verdicts on a step before more is generated.
        wait_s: how long at most.
    """

    max_tries: int = 3
    max_rewinds: int = 8
    max_discarded: float = 0.4
    min_left: int = 48
    rules: DeadEndRules = field(default_factory=DeadEndRules)
    wait: bool = False
    wait_s: float = 2.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_tries", "max_rewinds", "min_left"):
            if getattr(self, name) < 1:
                raise ValueError(f"BacktrackingConfig.{name} must be >= 1, not {getattr(self, name)}")
        if not 0 <= self.max_discarded <= 1:
            raise ValueError(f"BacktrackingConfig.max_discarded must be in [0, 1], not {self.max_discarded}")
        if not self.wait_s > 0:
            raise ValueError(f"BacktrackingConfig.wait_s must be > 0, not {self.wait_s}")


STRICT = BacktrackingConfig(max_tries=5, max_rewinds=16, max_discarded=0.6, rules=STRICT_RULES)


@dataclass(slots=True)
class _Checkpoint:
    """A place to go back to, and how often that was done."""

    num_tokens: int
    num_chars: int
    num_tries: int = 0
    let_through: bool = False


@dataclass(slots=True)
class _Followed:
    """One request and what it has written so far."""

    request: GenerateRequest
    context: str  # what stands before this request's text: the user's messages and the assistant's turn so far
    in_code: bool  # whether a program is open at the end of it
    states: list[EquationState]  # of the context, and after each step
    text: str = ""
    ends: list[int] = field(default_factory=list)  # characters told up to each token
    entropies: list[float] = field(default_factory=list)
    checkpoints: list[_Checkpoint] = field(default_factory=lambda: [_Checkpoint(0, 0)])
    steps: list[Step] = field(default_factory=list)
    checks: dict[str, Step] = field(default_factory=dict)
    dead_end: DeadEnd | None = None
    num_rewinds: int = 0
    num_discarded: int = 0
    num_looked_at: int = 0  # tokens there were when a loop was last looked for

    def take(self, chunk: TokenChunk) -> None:
        """Add what was told. Only the end of a chunk of several tokens is known as a place in the text."""
        self.ends += [len(self.text)] * (chunk.num_tokens - 1)
        self.text += chunk.text
        self.ends.append(len(self.text))
        self.entropies += chunk.entropies

    def place_of(self, char: int) -> int | None:
        """The number of tokens that spell exactly the first `char` characters, or None."""
        if char == 0:
            return 0
        place = bisect_left(self.ends, char)
        return place + 1 if place < len(self.ends) and self.ends[place] == char else None

    def checkpoint_before(self, char: int) -> _Checkpoint:
        """The last checkpoint at or before a character."""
        return next(point for point in reversed(self.checkpoints) if point.num_chars <= char)

    def note_dead_end(self, found: DeadEnd | None) -> None:
        """Of several, the one that begins first counts."""
        if found is not None and (self.dead_end is None or found.start < self.dead_end.start):
            self.dead_end = found


class BacktrackingGenerator:
    """A `Generator` whose requests go back from dead ends; each time it tells of it with a `Rewound`."""

    def __init__(
        self,
        generator: Generator,
        checker: StepChecker | None,
        config: BacktrackingConfig | None = None,
        equations: EquationTracker | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Drive `generator`, which this closes with itself, as it does the checker.

        Args:
            generator: must be able to go back.
            checker: judges the claims of finished steps; None when nobody does.
            config: how often and how far; the defaults when None.
            equations: finds what cannot all be true in a text; None when nobody does.
            clock: in seconds, for `wait`.
            sleep: waits for the clock.
        """
        self._generator = generator
        self._checker = checker
        self._config = config or BacktrackingConfig()
        self._equations = equations
        self._clock = clock
        self._sleep = sleep
        self._followed: dict[str, _Followed] = {}
        self._check_owner: dict[str, _Followed] = {}
        self._num_submitted = 0
        self._late: set[str] = set()  # checks that took longer than `wait_s`

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` when its prompt can never fit."""
        self._generator.submit(request)
        asked = [message.content + "\n\n" for message in request.messages if message.role == "user"]
        written = "".join(span.text for span in request.continuation)
        context = "".join(asked) + written
        state = START if self._equations is None else self._equations.feed(START, _as_bytes(context))
        self._followed[request.request_id] = _Followed(request, context, ends_in_code(written), [state])

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """As the generator's; then whoever has come to a dead end goes back."""
        events = list(self._generator.events(timeout_s))
        for event in events:
            followed = self._followed.get(event.request_id)
            if followed is None:
                continue
            if isinstance(event, TokenChunk):
                followed.take(event)
            elif isinstance(event, Finished):
                self._forget(event.request_id)
        for request_id in dict.fromkeys(event.request_id for event in events):
            if request_id in self._followed:
                self._look(self._followed[request_id])
        self._take_verdicts()
        for followed in list(self._followed.values()):
            if followed.dead_end is not None:
                events += self._go_back(followed, followed.dead_end)
        return events

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        for key, followed in list(self._followed.items()):
            if key == request_id or (group is not None and followed.request.group == group):
                self._forget(key)
        self._generator.abort(request_id=request_id, group=group)

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a request back, as its owner wants it. From then on it is followed from there only."""
        self._generator.rewind(request_id, num_tokens, sampling)
        followed = self._followed[request_id]
        self._cut(followed, _Checkpoint(num_tokens, followed.ends[num_tokens - 1] if num_tokens else 0))
        followed.request = replace(followed.request, sampling=sampling)
        followed.num_discarded = 0  # the limit that the owner gives is what is left
        followed.dead_end = None

    def close(self) -> None:
        """Close generator and checker. Safe to call twice."""
        self._followed.clear()
        self._check_owner.clear()
        if self._checker is not None:
            self._checker.close()
        self._generator.close()

    def _look(self, followed: _Followed) -> None:
        """Take in the steps that are finished now, and look for dead ends that need no checker."""
        while (step := self._next_step(followed)) is not None:
            place = followed.place_of(step.end)
            if place is None:  # a token goes on beyond it: perhaps it begins with the white space that ends the step
                trimmed = len(followed.text[: step.end].rstrip())
                place = followed.place_of(trimmed) if trimmed > step.start else None
                step = step if place is None else step._replace(end=trimmed)
            followed.steps.append(step)
            self._judge(followed, step)
            self._look_for_contradictions(followed, step)
            if place is not None and place > followed.checkpoints[-1].num_tokens:
                followed.checkpoints.append(_Checkpoint(place, step.end))
        rules = self._config.rules
        if len(followed.ends) - followed.num_looked_at >= _LOOP_PERIOD:
            followed.num_looked_at = len(followed.ends)
            followed.note_dead_end(find_loop(followed.text, rules))
        mean = is_lost(followed.entropies, rules)
        if mean is not None:
            num_before = len(followed.ends) - rules.entropy_tokens
            start = followed.ends[num_before - 1] if num_before else 0
            detail = f"mean entropy {mean:.2f} nats over {rules.entropy_tokens} tokens"
            followed.note_dead_end(DeadEnd(ENTROPY, start, detail))

    def _next_step(self, followed: _Followed) -> Step | None:
        start = followed.steps[-1].end if followed.steps else 0
        return next_step(followed.text, start, in_code=not followed.steps and followed.in_code)

    def _judge(self, followed: _Followed, step: Step) -> None:
        text = followed.text[step.start : step.end]
        if step.is_code:
            return
        written = [followed.text[known.start : known.end] for known in followed.steps]
        followed.note_dead_end(find_repeated_step(written, step.start, self._config.rules))
        if self._checker is not None and "=" in text:
            check_id = f"{followed.request.request_id}/check{self._num_submitted}"
            self._num_submitted += 1
            followed.checks[check_id] = step
            self._check_owner[check_id] = followed
            self._checker.submit(check_id, text, followed.context + followed.text[: step.start])

    def _look_for_contradictions(self, followed: _Followed, step: Step) -> None:
        """Take the newest step's equations in; what they contradict is told of once."""
        if self._equations is None:
            return
        before = followed.states[-1]
        after = self._equations.feed(before, _as_bytes(followed.text[step.start : step.end]))
        followed.states.append(after)
        known = {found.start for found in self._equations.finish(before).contradictions}
        new = [found for found in self._equations.finish(after).contradictions if found.start not in known]
        if new:
            followed.note_dead_end(DeadEnd(CONTRADICTION, step.start, new[0].detail))

    def _take_verdicts(self) -> None:
        """Note what the checker refuted; with `wait`, once it has judged everything."""
        if self._checker is None:
            return
        until_s = self._clock() + self._config.wait_s
        while True:
            for checked in self._checker.poll():
                self._late.discard(checked.check_id)
                followed = self._check_owner.pop(checked.check_id, None)
                if followed is None:
                    continue
                step = followed.checks.pop(checked.check_id)
                for evidence in checked.evidence:
                    if evidence.verdict == "REFUTED":
                        detail = f"{evidence.claim}: {evidence.detail}" if evidence.detail else evidence.claim
                        followed.note_dead_end(DeadEnd(REFUTED, step.start, detail))
            if not self._config.wait or not self._check_owner.keys() - self._late:
                return
            if self._clock() >= until_s:
                self._late |= self._check_owner.keys()  # waited for once, not again
                return
            self._sleep(_POLL_S)

    def _go_back(self, followed: _Followed, found: DeadEnd) -> list[Rewound]:
        """Go back to before the dead end, or let it through; what there is to tell of it."""
        followed.dead_end = None
        request_id, num_tokens = followed.request.request_id, len(followed.ends)
        point = followed.checkpoint_before(found.start)
        num_dropped = num_tokens - point.num_tokens
        refused = self._why_not(followed, point, num_dropped)
        if refused is not None:
            if point.let_through:
                return []
            point.let_through = True
            return [Rewound(request_id, num_tokens, 0, found.reason, f"{found.detail} (let through: {refused})")]
        followed.num_rewinds += 1
        followed.num_discarded += num_dropped
        point.num_tries += 1
        first = followed.request.sampling
        sampling = replace(
            first,
            seed=derive_seed(first.seed, "back", followed.num_rewinds),
            max_tokens=first.max_tokens - followed.num_discarded,
        )
        self._generator.rewind(request_id, point.num_tokens, sampling)
        text = followed.text[point.num_chars :]
        self._cut(followed, point)
        return [Rewound(request_id, point.num_tokens, num_dropped, found.reason, found.detail, text)]

    def _why_not(self, followed: _Followed, point: _Checkpoint, num_dropped: int) -> str | None:
        """Why the request does not go back to this checkpoint, or None if it may."""
        config, max_tokens = self._config, followed.request.sampling.max_tokens
        if point.num_tries >= config.max_tries:
            return f"{point.num_tries} tries there were spent"
        if followed.num_rewinds >= config.max_rewinds:
            return f"it went back {followed.num_rewinds} times"
        discarded = followed.num_discarded + num_dropped
        if discarded > config.max_discarded * max_tokens:
            return f"{followed.num_discarded} tokens were thrown away already"
        if max_tokens - discarded - point.num_tokens < config.min_left:
            return "too few tokens would be left"
        return None

    def _cut(self, followed: _Followed, point: _Checkpoint) -> None:
        """Forget what was written after a checkpoint, and the checks of it."""
        for check_id, step in list(followed.checks.items()):
            if step.end > point.num_chars:
                self._drop_check(followed, check_id)
        followed.text, followed.num_looked_at = followed.text[: point.num_chars], point.num_tokens
        del followed.ends[point.num_tokens :], followed.entropies[point.num_tokens :]
        followed.steps = [step for step in followed.steps if step.end <= point.num_chars]
        del followed.states[len(followed.steps) + 1 :]
        followed.checkpoints = [old for old in followed.checkpoints if old.num_tokens < point.num_tokens] + [point]

    def _forget(self, request_id: str) -> None:
        followed = self._followed.pop(request_id)
        for check_id in list(followed.checks):
            self._drop_check(followed, check_id)

    def _drop_check(self, followed: _Followed, check_id: str) -> None:
        assert self._checker is not None
        del followed.checks[check_id], self._check_owner[check_id]
        self._late.discard(check_id)
        self._checker.cancel(check_id)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")
