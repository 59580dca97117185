"""Runs without a model: answers by statement, so that a run takes a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import RunConfig


@dataclass
class ScriptedModel:
    """In place of a model.

    Attributes:
        answers: what is boxed for a statement that holds the key; 42 for all others.
        token_s: seconds a token takes.
        on_request: called with the number of each request, before it is answered.
        configs: of each time that it was loaded.
        num_closed: how often one of its generators was closed.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    token_s: float = 0.0
    on_request: Callable[[int], None] = lambda number: None
    configs: list[RunConfig] = field(default_factory=list)
    num_requests: int = 0
    num_closed: int = 0

    def load(self, config: RunConfig, console: Console) -> LoadedGenerator:
        self.configs.append(config)
        model = self

        class Counted(ScriptedGenerator):
            def close(self) -> None:
                model.num_closed += 1
                super().close()

        return LoadedGenerator(Counted(self.reply), "scripted")

    def reply(self, request: GenerateRequest) -> Reply:
        self.num_requests += 1
        self.on_request(self.num_requests)
        asked = request.messages[-1].content
        boxed = next((answer for key, answer in self.answers.items() if key in asked), "42")
        return Reply.saying(rf"It follows that it is $\boxed{{{boxed}}}$.", token_s=self.token_s)
