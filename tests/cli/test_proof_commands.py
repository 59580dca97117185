"""Beams and backtracking from the command line to the report, with a scripted model and the real checker of steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Mathlete
from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest
from mathlete.core.seeds import derive_seed
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import RunConfig
from mathlete.session import run_session as session
from watching import stored

Find = Callable[[], Path]


def errs_once(request: GenerateRequest) -> Reply:
    """Its first noise makes a false step, any other a true one."""
    problem_id, _, index = request.request_id.split("/")[0].partition("#")
    wrong = request.sampling.seed == derive_seed(0, problem_id, int(index), 0)
    text = f"We add up and find $17 + 25 = {43 if wrong else 42}$ for the sum.\n\nSo the answer is as we found it.\n\n"
    return Reply.saying(text + f"It is \\boxed{{{43 if wrong else 42}}}.")


@pytest.fixture
def erring(monkeypatch: pytest.MonkeyPatch, mathlete: Mathlete) -> Mathlete:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(errs_once), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    return mathlete


def test_a_false_step_is_taken_back(erring: Mathlete, problems: Path, only_run: Find) -> None:
    called = erring("evaluate", problems, "--attempts", 2, "--backtracking", "on")
    assert called.code == 0, called.err
    folder = only_run()
    assert (folder / "submission.csv").read_text() == "id,answer\na,42\nb,42\nc,42\n"
    record = stored(folder)
    assert record.config["backtracking"] == "on" and record.stats["num_tokens"] > 0
    for problem in record.problems.values():
        for attempt in problem.attempts:
            (back,) = problem.rewindings[attempt.id]
            assert back.reason == "refuted" and "17 + 25 = 43" in back.detail and "= 43" in back.text
            assert attempt.num_discarded == back.num_dropped and "43" not in attempt.turns[0].text
    page = (folder / "report.html").read_text()
    assert page.count("tokens to the 0 that stand: refuted") == 6 and "tokens thrown away" in page


def test_without_it_the_false_step_stands(erring: Mathlete, problems: Path, only_run: Find) -> None:
    assert erring("evaluate", problems, "--attempts", 2).code == 0
    assert (only_run() / "submission.csv").read_text() == "id,answer\na,43\nb,43\nc,43\n"


def test_a_beam_from_problems_to_answers(mathlete: Mathlete, problems: Path, only_run: Find) -> None:
    called = mathlete("evaluate", problems, "--attempts", 2, "--beam-width", 3, "--max-tokens", 100)
    assert called.code == 0, called.err
    record = stored(only_run())
    assert record.finished == "complete" and record.config["beam_width"] == 3 and not record.config["beam_soft_terms"]
    for problem in record.problems.values():
        for attempt in problem.attempts:
            assert (attempt.pillar, attempt.answer, len(attempt.turns)) == ("beam", "42", 2)
            assert attempt.features["beams_finished"] >= 1 and attempt.num_discarded > 0
            assert len(problem.beam_levels[attempt.id]) == 2
    page = (only_run() / "report.html").read_text()
    assert page.count("Let me compute it.") >= 6 and page.count("Beam: 2 levels, ") == 6
    assert record.stats["num_tokens"] == sum(a.num_tokens for p in record.problems.values() for a in p.attempts)
    again = mathlete("evaluate", "--resume", only_run())
    assert again.code == 0 and "the run is complete" in again.err + again.out


def test_soft_terms_count_in_a_beam_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, mathlete: Mathlete, problems: Path, tmp_path: Path
) -> None:
    def sure_or_wordy(request: GenerateRequest) -> Reply:
        """The first of two says it plainly and is surer; the other concludes with a sign that the proof is complete."""
        wordy = request.request_id.split("/")[1].split(".")[2] == "1"
        said = "Therefore, since it is so, \\boxed{2}. Q.E.D." if wordy else "It is \\boxed{1}."
        return Reply(Reply.saying(said).pieces, logprobs=(-0.2 if wordy else -0.1,))

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(sure_or_wordy), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    for number, flags in (("1", ()), ("2", ("--beam-soft-terms",))):
        out = tmp_path / number
        called = mathlete("evaluate", problems, "--attempts", 1, "--beam-width", 2, *flags, "--out", out)
        assert called.code == 0, called.err
        (folder,) = (path.parent for path in out.glob("*/submission.csv"))
        assert (folder / "submission.csv").read_text() == f"id,answer\na,{number}\nb,{number}\nc,{number}\n"
        assert stored(folder).config["beam_soft_terms"] is bool(flags)


def test_constraints_of_a_generator_that_cannot_have_them(mathlete: Mathlete, problems: Path) -> None:
    called = mathlete("solve", problems, "--constraints", "--budget", "1m")
    assert called.code != 0 and "does not tell its vocabulary" in called.err


def test_flags_that_cannot_be_together(mathlete: Mathlete, problems: Path) -> None:
    called = mathlete("evaluate", problems, "--beam-width", 2, "--backtracking", "strict")
    assert called.code != 0 and "--beam-width leaves no use for --backtracking" in called.err
