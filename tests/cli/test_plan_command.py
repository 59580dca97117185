"""`mathlete plan`: the recipes that come with Mathlete, exit codes, JSON, and what is wrong with what was given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mathlete.cli.main import app
from mathlete.core.errors import InputError
from mathlete.recipes.loading import recipe_names

RUNNER = CliRunner()


def run(*arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["plan", *arguments], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_the_machines_it_names(name: str) -> None:
    exit_code, out = run(name)
    assert exit_code == 0
    assert "it fits" in out or "nothing runs here" in out


def test_the_specifications_figures_stand_in_the_output() -> None:
    _, out = run("2xh100-qwen72b-r1-32b")
    assert "35.1 GB of 4-bit codes, 4.4 GB of their scales, 5.0 GB that are not packed" in out
    assert "15.6 GB of 4-bit codes" in out


def test_json_holds_all_of_it() -> None:
    exit_code, out = run("h100-gpt-oss-120b", "--json", "--attempts", "4", "--length", "8192")
    data = json.loads(out)
    assert exit_code == 0 and data["fits"] and data["recipe"] == "h100-gpt-oss-120b"
    assert (data["attempts"]["attempts"], data["attempts"]["length"]) == (4, 8192)
    (engine,) = data["engines"]
    assert (
        engine["parameters"]["experts"] > 1e11 and engine["memory"]["kv_room"] > 0 and engine["speeds"][0]["batch"] == 1
    )
    assert data["budget"]["seconds"] == pytest.approx((5 * 3600 - 600) / 50)


def test_what_does_not_fit_exits_with_1_and_says_what_to_change() -> None:
    exit_code, out = run("h100-gpt-oss-120b", "--accelerator", "l4-24gb")
    assert exit_code == 1
    assert "it does not fit" in out and "tensor_parallel_size = " in out


def test_attempts_that_are_too_long_for_the_room() -> None:
    exit_code, out = run("h100-gpt-oss-120b", "--attempts", "64", "--length", "49152")
    assert exit_code == 0
    assert "of 64 attempts only" in out and "shorter attempts" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nosuch",), "there is no recipe 'nosuch'"),
        (("cpu-demo", "--accelerator", "h100"), "accelerator 'h100' is not known"),
        (("h100-gpt-oss-120b", "--length", "1024", "--mean-tokens", "9999"), "mean_new must be from 1"),
        (("cpu-demo", "--count", "2"), "count must be 1 for a CPU"),
        (("cpu-demo", "--attempts", "1" + "0" * 400), "attempts must be from 1 to 1,000,000"),
        (("cpu-demo", "--length", "1" + "0" * 20), "length must be at most"),
        (("cpu-demo", "--accelerator", "h100-sxm-80gb"), "'main' runs on the CPU, and the machines are NVIDIA H100"),
        (("4xl4", "--accelerator", "cpu-2-cores", "--count", "1"), "'main' is planned for GPUs: say which"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        run(*arguments)


def test_a_recipe_with_a_model_nobody_knows(tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text('[engines.main]\ntype = "vllm"\nmodel = "somebody/unheard-of"\n', encoding="utf-8")
    with pytest.raises(InputError, match="knows no model 'somebody/unheard-of'"):
        run(str(recipe))


def test_the_length_of_a_flag_goes_before_what_the_recipe_writes() -> None:
    for name in ("cpu-demo", "h100-gpt-oss-120b"):  # without max_model_len, and with one of 49,152
        data = json.loads(run(name, "--json", "--length", "8192")[1])
        (engine,) = data["engines"]
        assert engine["attempts"]["length"] == 8192 and engine["engine"]["max_model_len"] >= 8192
    exit_code, out = run("cpu-demo", "--length", "65536")
    assert exit_code == 1 and "max_model_len 65,536 is more than the 32,768 positions" in out


def test_what_is_no_want_of_room_gets_no_advice_on_room(tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[engines.main]\ntype = "vllm"\nmodel = "Qwen/Qwen2.5-7B-Instruct"\nmax_model_len = 1000000\n'
        '[hardware]\naccelerator = "h100-sxm-80gb"\n[run]\nattempts = 2\n',
        encoding="utf-8",
    )
    data = json.loads(run(str(recipe), "--json")[1])
    assert not data["fits"] and data["advice"]["main"] == ["lower max_model_len to 32,768, and --length with it"]


def test_gguf_weights_in_vllm_are_not_guessed_at(tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text('[engines.main]\ntype = "vllm"\nmodel = "x.gguf"\n[hardware]\naccelerator = "l4-24gb"\n')
    with pytest.raises(InputError, match="how vLLM keeps the weights of a GGUF file is not counted here"):
        run(str(recipe))


def test_a_recipe_of_a_local_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 8192,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[engines.main]\ntype = "vllm"\nmodel = "./model"\n[hardware]\naccelerator = "t4-16gb"\n', encoding="utf-8"
    )
    exit_code, out = run(str(recipe))
    assert exit_code == 0 and "NVIDIA T4" in out
