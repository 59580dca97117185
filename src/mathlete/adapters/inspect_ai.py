r"""Mathlete in inspect_ai: the model provider `mathlete/MODEL`, a task over problem files, and a scorer of answers.

    inspect eval mathlete/problems -T path=problems.csv --model mathlete/1.5b -M budget_s=60 -M attempts=8

Knows inspect_ai's public interface, 0.3.280 and later, and Mathlete's own (`mathlete.Solver`). Imported by inspect_ai
through the entry point of this package, and by nothing of ours.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import anyio.to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate
from inspect_ai.tool import ToolChoice, ToolInfo

import mathlete
from mathlete.adapters.batching import Batches
from mathlete.core.errors import InputError
from mathlete.core.record import ProblemRecord
from mathlete.lab.answer_judging import AnswerJudge
from mathlete.lab.tasks import load_tasks
from mathlete.verify.extraction import extract_boxed

MAX_CONNECTIONS = 64  # samples that inspect_ai hands over at once; they are worked on together
_SAMPLING = ("temperature", "top_p", "top_k", "seed")


class AnySolver(Protocol):
    """What is asked of a `mathlete.Solver`."""

    def solve(self, problems: Any, *, budget: float, **options: Any) -> mathlete.Solutions:
        """See `mathlete.Solver.solve`."""

    def stop(self) -> None:
        """See `mathlete.Solver.stop`."""

    def close(self) -> None:
        """See `mathlete.Solver.close`."""


@dataclass(frozen=True, slots=True)
class _Question:
    statement: str
    options: tuple[tuple[str, Any], ...]  # of sampling


@modelapi(name="mathlete")
class MathleteAPI(ModelAPI):
    r"""All of Mathlete as one model: a problem in, its answer out, with attempts, checks and a vote between.

    Its last line is `ANSWER: 42`, after the text of an attempt that gave the answer and `\boxed{42}`. Of a chat, what
    the user says is the problem. It takes no tools: it runs programs of its own.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as inspect_ai's providers have it
        budget_s: float = 60.0,
        out: str = "runs",
        solver: AnySolver | None = None,
        **options: Any,
    ) -> None:
        """Load nothing yet: the first problem does.

        Args:
            model_name: a name of `mathlete models list`, or a path.
            base_url: not used.
            api_key: not used.
            config: of inspect_ai; `max_tokens` is that of an attempt.
            budget_s: seconds for each problem; problems that are asked for together share the sum.
            out: folder for runs.
            solver: solves, in place of a `mathlete.Solver`.
            options: of `mathlete.solve` (`-M` on the command line), such as `attempts`, `policy`, `precision`.
        """
        super().__init__(model_name, base_url, api_key, [], config)
        if config.max_tokens is not None:
            options["max_tokens"] = config.max_tokens
        self._budget_s = budget_s
        self._solver = solver or mathlete.Solver(model_name, out=out, progress=False, **options)
        self._batches: Batches[_Question, ModelOutput] = Batches(self._work, self._solver.stop)
        self._limiter: anyio.CapacityLimiter | None = None
        atexit.register(self._end)

    def max_connections(self) -> int:
        """How many problems may be asked for at once."""
        return MAX_CONNECTIONS

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Solve what the user says.

        Raises:
            InputError: there are tools, or the user says nothing.
            MathleteError: the run failed.
        """
        if tools:
            raise InputError("mathlete runs programs of its own and takes no tools: leave them out of the task")
        statement = "\n\n".join(message.text for message in input if message.role == "user").strip()
        if not statement:
            raise InputError("mathlete needs a problem: the chat has no text of the user's")
        sampling = tuple((name, value) for name in _SAMPLING if (value := getattr(config, name, None)) is not None)
        future = self._batches.ask(_Question(statement, sampling), sampling)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(2 * MAX_CONNECTIONS)
        try:
            return await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True, limiter=self._limiter)
        except BaseException:
            self._batches.give_up(future)  # when inspect_ai gave up on the sample; else it is over anyway
            raise

    async def aclose(self) -> None:
        """Give the model's memory back."""
        await anyio.to_thread.run_sync(self._end)

    def _end(self) -> None:
        atexit.unregister(self._end)
        self._batches.close()
        self._solver.close()

    def _work(self, questions: Sequence[_Question]) -> list[ModelOutput]:
        rows = [{"id": str(number), "problem": asked.statement} for number, asked in enumerate(questions, 1)]
        options = dict(questions[0].options)
        solutions = self._solver.solve(rows, budget=self._budget_s * len(rows), **options)
        return [
            _output(self.model_name, record, str(solutions.folder)) for record in solutions.record.problems.values()
        ]


def _output(model_name: str, record: ProblemRecord, folder: str) -> ModelOutput:
    """One problem's end as what a model says."""
    chosen = record.selection
    if chosen is None:
        raise InputError(f"problem {record.problem.id} of the run in {folder} was not reached")
    supporting = [attempt for attempt in record.attempts if not attempt.is_check and attempt.answer == chosen.answer]
    text = f"{supporting[0].text.strip()}\n\n" if supporting else ""
    output = ModelOutput.from_content(
        f"mathlete/{model_name}", f"{text}$\\boxed{{{chosen.answer}}}$\n\nANSWER: {chosen.answer}"
    )
    num_tokens = sum(attempt.num_tokens for attempt in record.attempts)
    output.usage = ModelUsage(output_tokens=num_tokens, total_tokens=num_tokens)
    if record.opened_at_s is not None and record.finished_at_s is not None:
        output.time = record.finished_at_s - record.opened_at_s
    output.metadata = {
        "answer": chosen.answer,
        "confidence": chosen.confidence,
        "accepted": chosen.accepted,
        "rule": chosen.rule,
        "num_attempts": sum(not attempt.is_check for attempt in record.attempts),
        "num_votes": len(supporting),
        "run": folder,
        "problem_id": record.problem.id,
    }
    return output


@task
def problems(path: str, limit: int | None = None) -> Task:
    """The problems of a file (`id`, `problem`, `answer`, as `mathlete evaluate` reads them), scored by their answers.

    Args:
        path: a .csv, .jsonl or .parquet file.
        limit: only the first so many.
    """
    loaded = load_tasks(path, require_gold=True, limit=limit)
    samples = [
        Sample(id=item.problem.id, input=item.problem.statement, target=item.gold or "", metadata={"group": item.group})
        for item in loaded.tasks
    ]
    return Task(dataset=MemoryDataset(samples, name=path), solver=[generate()], scorer=answer())


@scorer(metrics=[accuracy(), stderr()])
def answer() -> Scorer:
    r"""Whether the answer is the target: the last `ANSWER:` line, else the last `\boxed{...}`.

    Integers are compared as such, anything else by `verify.equivalence`; what stays open counts as wrong and says so.
    """

    async def score(state: TaskState, target: Target) -> Score:
        given = stated_answer(state.output.completion)
        if given is None:
            return Score(value=INCORRECT, explanation="there is no answer: neither an ANSWER: line nor a box")
        found = await anyio.to_thread.run_sync(partial(_judge, given, target.text))
        return Score(value=CORRECT if found.is_right else INCORRECT, answer=given, explanation=found.why)

    return score


def stated_answer(text: str) -> str | None:
    r"""What stands behind the last `ANSWER:` at the start of a line, else in the last `\boxed{...}`."""
    lines = [line.strip() for line in text.splitlines()]
    stated = [line[len("ANSWER:") :].strip() for line in lines if line.upper().startswith("ANSWER:")]
    return next((answer.strip("$ ") for answer in reversed(stated) if answer), None) or extract_boxed(text)


@dataclass(frozen=True, slots=True)
class _Judged:
    is_right: bool
    why: str


def _judge(given: str, gold: str) -> _Judged:
    with AnswerJudge() as judge:
        is_right = judge.is_right(given, gold)
        why = f"shown neither right nor wrong: {judge.unknown[0]}" if judge.unknown else ""
    return _Judged(is_right, why or f"{given[:100]} against {gold[:100]}")
