"""The beam on the engine: siblings compute what they share once, and a request that goes back finds its prefix."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from driving import load
from tiny_qwen import TinyModel

from mathlete.core.generation import Finished
from mathlete.core.problem import Problem
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.proof_sampler.beam import BeamConfig
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.beam_attempt import BeamAttempt
from mathlete.triad.pillar import Continue, Done, Step


def test_siblings_share_prompt_and_steps(tiny: TinyModel, engine_cache: Path) -> None:
    """Of a level's candidates the first computes what is new in the continuation, its siblings find it in the cache."""
    loaded = load(tiny.folder, engine_cache, num_blocks=1024, precision="fp32", max_model_len=4096)
    generator = RyanStreamGenerator(loaded)
    beam = BeamConfig(width=4, max_tokens=96, max_total_tokens=384, max_step_tokens=24)
    attempt = BeamAttempt(Problem("p", "How many?"), 0, 7, 1.0, 0.0, AttemptConfig(96), beam)
    levels: dict[str, list[Finished]] = defaultdict(list)
    step: Step = Continue()
    while not isinstance(step, Done):
        if isinstance(step, Continue):
            for request in attempt.next_requests():
                generator.submit(request)
        for event in list(generator.events(0.0)):
            if isinstance(event, Finished):
                levels[event.request_id.split("/")[1].split(".")[0]].append(event)
                step = attempt.take(event, 1.0)
    usages = {level: [event.completion.usage for event in events] for level, events in levels.items()}
    assert len(usages) >= 3
    num_prompt = usages["0"][0].prompt
    assert sorted(usage.cached for usage in usages["0"]) == [0, *[(num_prompt - 1) // 16 * 16] * 3]
    for told in usages.values():  # the random model's control tokens are not taken over, so a parent's end may be anew
        for num_prompt in {usage.prompt for usage in told}:
            cached = sorted(usage.cached for usage in told if usage.prompt == num_prompt)
            assert cached[0] >= (usages["0"][0].prompt - 1) // 16 * 16 or cached[0] == 0 < len(cached) - 1
            assert set(cached[1:]) == {(num_prompt - 1) // 16 * 16}, "siblings find all that the first computed"
    assert isinstance(step, Done) and step.attempt.num_tokens == sum(u.output for told in usages.values() for u in told)
    loaded.engine.check_integrity()
    assert loaded.engine.num_free_blocks == loaded.engine.num_blocks
    generator.close()
