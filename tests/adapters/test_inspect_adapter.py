"""Mathlete scored by inspect_ai itself: its `eval`, its log, its metrics."""

from __future__ import annotations

import gc
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from scripted_model import ScriptedModel

pytest.importorskip("inspect_ai", reason="needs the extra `inspect`")
pytestmark = pytest.mark.filterwarnings("ignore")  # inspect_ai's and its packages' own

import anyio  # noqa: E402
from inspect_ai import Task, eval  # noqa: E402
from inspect_ai.dataset import MemoryDataset, Sample  # noqa: E402
from inspect_ai.log import EvalLog, read_eval_log  # noqa: E402
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model  # noqa: E402
from inspect_ai.scorer import match  # noqa: E402
from inspect_ai.tool import tool  # noqa: E402

from mathlete.adapters import inspect_ai as adapter  # noqa: E402
from mathlete.core.errors import InputError  # noqa: E402
from mathlete.lab.tasks import load_tasks  # noqa: E402

ROOT = Path(__file__).parents[2]
PROBLEMS = "id,problem,answer\na,How many?,42\nb,How much?,7\nc,How long?,42\nd,How far?,42\n"
MODEL = "mathlete/scripted"


@pytest.fixture(autouse=True)
def left_behind() -> Iterator[None]:
    """What inspect_ai leaves open is collected here, and is no complaint about the test that comes next."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def evaluate(task: Any, tmp_path: Path, model: str = MODEL, **model_args: Any) -> EvalLog:
    """Evaluate as `inspect eval` does, and read the log that was written."""
    (log,) = eval(
        task, model=model, model_args={"attempts": 2, "policy": "vote", "out": str(tmp_path / "runs"), **model_args},
        log_dir=str(tmp_path / "logs"), display="none", fail_on_error=True,
    )  # fmt: skip
    assert log.status == "success", log.error
    return read_eval_log(log.location)


def accuracy_of(log: EvalLog) -> float:
    assert log.results is not None
    return log.results.scores[0].metrics["accuracy"].value


def test_a_file_of_problems_is_scored(scripted: ScriptedModel, tmp_path: Path) -> None:
    (tmp_path / "four.csv").write_text(PROBLEMS)
    log = evaluate(adapter.problems("four.csv"), tmp_path)
    assert accuracy_of(log) == 0.75
    samples = {sample.id: sample for sample in log.samples or ()}
    assert {key: sample.scores["answer"].value for key, sample in samples.items() if sample.scores} == {
        "a": "C", "b": "I", "c": "C", "d": "C",
    }  # fmt: skip
    output = samples["a"].output
    assert output.model == MODEL and output.completion.endswith("$\\boxed{42}$\n\nANSWER: 42")
    assert output.usage is not None and output.usage.output_tokens > 0
    assert output.metadata is not None and output.metadata["num_votes"] == 2 and output.metadata["accepted"] is False
    assert len(scripted.configs) == 1  # loaded once
    runs = {sample.output.metadata["run"] for sample in samples.values() if sample.output.metadata}
    assert len(runs) == 1 and (tmp_path / runs.pop() / "report.html").is_file()  # and solved in one run


def test_scorers_of_others_find_the_answer(scripted: ScriptedModel, tmp_path: Path) -> None:
    samples = [Sample(input="How many?", target="42"), Sample(input="How much?", target="43")]
    log = evaluate(Task(dataset=MemoryDataset(samples), scorer=match(numeric=True)), tmp_path)
    assert accuracy_of(log) == 0.5


def test_settings_reach_the_run(scripted: ScriptedModel, tmp_path: Path) -> None:
    (log,) = eval(
        Task(dataset=MemoryDataset([Sample(input="How many?", target="42")]), scorer=adapter.answer()),
        model=MODEL, model_args={"attempts": 1, "policy": "fixed", "budget_s": 30, "precision": "bf16"},
        temperature=0.3, seed=5, max_tokens=99, log_dir=str(tmp_path), display="none",
    )  # fmt: skip
    assert log.status == "success", log.error
    (config,) = scripted.configs
    assert (config.model, config.attempts, config.policy, config.precision) == ("scripted", 1, "fixed", "bf16")
    assert (config.budget_s, config.temperature, config.seed, config.max_tokens) == (30.0, 0.3, 5, 99)


def test_a_chat_is_what_the_user_says(scripted: ScriptedModel) -> None:
    model = get_model(MODEL, attempts=1, policy="fixed")
    said = ChatMessageSystem(content="Be brief.")
    chat = [said, ChatMessageUser(content="How many?")]
    assert anyio.run(model.generate, chat).completion.endswith("ANSWER: 42")
    with pytest.raises(InputError, match="no text of the user's"):
        anyio.run(model.generate, [said])

    @tool
    def clock() -> Any:
        async def execute() -> str:
            """Tell the time."""
            return "noon"

        return execute

    with pytest.raises(InputError, match="takes no tools"):
        anyio.run(model.generate, chat, [clock()])


def test_a_run_that_fails_is_an_error_and_no_wrong_answer(scripted: ScriptedModel, tmp_path: Path) -> None:
    def fail(number: int) -> None:
        raise RuntimeError("the engine is gone")

    scripted.on_request = fail
    task = Task(dataset=MemoryDataset([Sample(input="How many?", target="42")]), scorer=adapter.answer())
    (log,) = eval(task, model=MODEL, log_dir=str(tmp_path), display="none", max_retries=0)
    assert log.status == "error" and log.error is not None and "the engine is gone" in log.error.message


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\n\n$\\boxed{41}$\n\nANSWER: 42", "42"),
        ("Answer: $\\frac{1}{2}$", "\\frac{1}{2}"),
        ("ANSWER: 1\nno, wait\nANSWER: 2\nANSWER:", "2"),
        ("it is \\boxed{7}.", "7"),
        ("it is 7.", None),
    ],
)
def test_where_an_answer_stands(text: str, answer: str | None) -> None:
    assert adapter.stated_answer(text) == answer


@pytest.mark.parametrize(
    ("given", "gold", "is_right"),
    [("042", "42", True), ("\\frac{2}{4}", "1/2", True), ("x^2+2x+1", "(x+1)^2", True), ("41", "42", False)],
)
def test_answers_are_judged_by_the_verifier(given: str, gold: str, is_right: bool) -> None:
    assert adapter._judge(given, gold).is_right is is_right


def test_the_entry_point_of_the_package_registers_provider_and_task(tmp_path: Path) -> None:
    """A process of its own, with the package's metadata made from pyproject.toml, as an installation has it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["inspect_ai"]
    assert EntryPoint("mathlete", declared["mathlete"], "inspect_ai").load() is adapter
    info = tmp_path / "as_installed-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: as-installed\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[inspect_ai]", *lines, ""]))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from inspect_ai.model import ModelOutput, ModelUsage, get_model\n"
        "print(type(get_model('mathlete/0.5b').api).__name__)\n"
        "import inspect_ai\n"
        "wrong = ModelOutput.from_content('mockllm/model', 'nothing')\n"
        "wrong.usage = ModelUsage()\n"  # else the double fetches a tokenizer to count
        "model = get_model('mockllm/model', custom_outputs=[wrong] * 4)\n"
        "(log,) = inspect_ai.eval('mathlete/problems', task_args={'path': 'four.csv'}, model=model,\n"
        "    log_dir='logs', display='none')\n"
        "print(log.status, log.results.scores[0].name, log.results.scores[0].metrics['accuracy'].value)\n"
    )
    (tmp_path / "four.csv").write_text(PROBLEMS)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["MathleteAPI", "success answer 0.0"], done.stderr


@pytest.mark.model
def test_a_real_model_is_scored(small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.csv").write_text("id,problem,answer\na,What is $6 \\cdot 7$?,42\nb,What is $5 + 8$?,13\n")
    log = evaluate(adapter.problems("two.csv"), tmp_path, f"mathlete/{small_model_path}", max_tokens=200, budget_s=60)
    golds = {item.problem.id: item.gold for item in load_tasks(tmp_path / "two.csv").tasks}
    right = 0
    for sample in log.samples or ():
        assert sample.output.metadata is not None and sample.scores is not None
        is_right = sample.output.metadata["answer"] == golds[str(sample.id)]
        assert sample.scores["answer"].value == ("C" if is_right else "I")
        right += is_right
    assert accuracy_of(log) == right / 2
