"""Bundles: what is written, what is refused, and that damage is found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tiny_wheels import make_wheel

from mathlete.core.errors import InputError, ModelError
from mathlete.kaggle.bundle import BundleRequest, write_bundle
from mathlete.kaggle.bundle_check import check_bundle, require_whole
from mathlete.kaggle.bundle_manifest import MANIFEST_NAME, Manifest, read_manifest
from mathlete.kaggle.bundle_readme import notebook_slug, slug_of, weight_slugs
from mathlete.kaggle.bundle_weights import (
    HARMONY,
    HARMONY_FILE,
    NeededModel,
    engines_of,
    located,
    needed_models,
    settings_with,
    weights_of,
)
from mathlete.kaggle.bundle_wheels import PackageSources, Target, extras_for, is_locked, resolve, run_pip
from mathlete.kaggle.notebook import build_notebook
from mathlete.model_store.store import ModelStore
from mathlete.run_config import EngineSpec, RunConfig, decode_config


def quiet(name: str, done: int, size: int) -> None:
    assert 0 <= done <= size and name


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "cache")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What looks like a checkpoint, with things beside it that an engine does not read."""
    folder = tmp_path / "models" / "tiny-7b"
    (folder / ".git").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "model-00001-of-00001.safetensors").write_bytes(bytes(1000))
    (folder / ".git" / "config.json").write_text("not this")
    (folder / "README.md").write_text("nor this")
    return folder


@pytest.fixture
def request_(model: Path) -> BundleRequest:
    config = RunConfig("solve", None, str(model), 17_400.0)
    return BundleRequest("tiny", 'description = "tiny"\n', config, notebook_only=True)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels that need each other, Mathlete's own apart."""
    folder = tmp_path / "found"
    make_wheel(folder, "tinydep", "1.5")
    make_wheel(folder, "tinygrpc", "2.0", ["tinydep>=1"])
    make_wheel(folder, "tinytorch", "3.0")
    return folder


@pytest.fixture
def own_wheel(tmp_path: Path) -> Path:
    requires = [
        "tinydep>=1", "tinygrpc>=1; extra == 'contest'", "tinytorch==3.0; extra == 'engine'",
        "tinydep; extra == 'tools'",
    ]  # fmt: skip
    return make_wheel(tmp_path / "own", "mathlete", "0.1.0", requires)


def test_a_notebook_only(request_: BundleRequest, store: ModelStore, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    manifest = write_bundle(request_, out, store, quiet)
    assert read_manifest(out / "dataset") == replace(manifest, config=json.loads(json.dumps(manifest.config)))
    assert decode_config(dict(manifest.config)) == request_.config
    (weights,) = manifest.weights
    assert [file.name for file in weights.files] == [
        "config.json", "model-00001-of-00001.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert weights.path == str(model) and weights.num_bytes == manifest.num_known_bytes == 1000 + 2 + 13
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "README.md", "dataset/dataset-metadata.json", "dataset/manifest.json", "dataset/recipe.toml",
        "notebook/kernel-metadata.json", "notebook/mathlete.ipynb",
    ]  # fmt: skip
    kernel = json.loads((out / "notebook" / "kernel-metadata.json").read_text())
    assert kernel["enable_internet"] is False and kernel["enable_gpu"] is False
    assert kernel["dataset_sources"] == ["YOUR_NAME/mathlete-tiny", "YOUR_NAME/mathlete-tiny-main"]
    text = (out / "README.md").read_text()
    assert (
        "kaggle datasets create --path dataset" in text and weights.files[1].sha256 in text and "notebook only" in text
    )
    found = check_bundle(out, quiet)
    assert (found.num_compared, found.damaged, found.absent) == (4, (), ())


def test_the_notebook_is_whole_and_the_same_again(request_: BundleRequest, store: ModelStore, tmp_path: Path) -> None:
    manifest = write_bundle(replace(request_, name="a`b\n# c"), tmp_path / "bundle", store, quiet)
    notebook = build_notebook(manifest)
    nbformat.validate(notebook)
    assert notebook == build_notebook(manifest)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        compile(cell["source"], "cell", "exec")
        assert len(cell["source"].splitlines()) <= 18, "cells are short"
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert all(kinds[i - 1] == "markdown" for i, kind in enumerate(kinds) if kind == "code"), "each is explained"
    assert "`a'b # c`" in notebook["cells"][0]["source"]
    assert "--require-hashes" in code[1]["source"] and "--no-index" in code[1]["source"]


def test_pip_pins_what_the_notebooks_machine_takes(
    request_: BundleRequest, store: ModelStore, tmp_path: Path, wheels: Path, own_wheel: Path
) -> None:
    out = tmp_path / "bundle"
    sources = PackageSources(find_links=(str(wheels),), no_index=True)
    request = replace(request_, notebook_only=False, own_wheel=own_wheel, sources=sources)
    manifest = write_bundle(request, out, store, quiet)
    assert [(wheel.name, wheel.version) for wheel in manifest.wheels] == [
        ("mathlete", "0.1.0"), ("tinydep", "1.5"), ("tinygrpc", "2.0"), ("tinytorch", "3.0"),
    ]  # fmt: skip
    assert all(wheel.num_bytes for wheel in manifest.wheels) and "4 of them are in" in (out / "README.md").read_text()
    assert check_bundle(out, quiet).damaged == ()

    def install(target: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(out / "dataset" / "wheels"),
            "--require-hashes", "--requirement", str(out / "dataset" / "wheels.txt"),
            "--target", str(tmp_path / target),
        ]  # fmt: skip
        environment = {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null"}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = install("site")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "site").glob("*.py")} == {
        "mathlete.py", "tinydep.py", "tinygrpc.py", "tinytorch.py",
    }  # fmt: skip
    make_wheel(out / "dataset" / "wheels", "tinydep", "1.5", text="import os  # not what was pinned\n")
    done = install("again")
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr
    found = check_bundle(out, quiet)
    assert len(found.damaged) == 1 and "tinydep-1.5" in found.damaged[0]
    with pytest.raises(InputError, match="1 files of the bundle are damaged"):
        require_whole(found)


def test_a_list_of_wheels_says_how_to_fetch_them(
    request_: BundleRequest, store: ModelStore, tmp_path: Path, wheels: Path, own_wheel: Path
) -> None:
    sources = PackageSources(find_links=(str(wheels),), no_index=True)
    request = replace(request_, notebook_only=False, own_wheel=own_wheel, sources=sources, download=False)
    manifest = write_bundle(request, tmp_path / "bundle", store, quiet)
    assert [wheel.num_bytes is not None for wheel in manifest.wheels] == [True, False, False, False]
    assert "pip download --no-deps" in (tmp_path / "bundle" / "README.md").read_text()
    assert len(check_bundle(tmp_path / "bundle", quiet).absent) == 3


def test_packages_that_cannot_be_found(
    request_: BundleRequest, store: ModelStore, tmp_path: Path, own_wheel: Path
) -> None:
    request = replace(request_, notebook_only=False, own_wheel=own_wheel, sources=PackageSources(no_index=True))
    with pytest.raises(InputError, match=r"pip install failed:\n.*tinydep[\s\S]*--notebook-only"):
        write_bundle(request, tmp_path / "bundle", store, quiet)
    assert not (tmp_path / "bundle").exists(), "nothing half is left"


def test_a_wheel_without_a_hash_is_no_pin(own_wheel: Path) -> None:
    told: list[Any] = []

    def pip(arguments: Any) -> None:
        told.append(arguments)
        report = Path(arguments[arguments.index("--report") + 1])
        item = {
            "metadata": {"name": "x", "version": "1"},
            "download_info": {"url": "https://h/x-1.whl", "archive_info": {}},
        }
        report.write_text(json.dumps({"install": [item]}))

    with pytest.raises(InputError, match="does not know the SHA-256 of x-1.whl"):
        resolve(own_wheel, {"ryanstream"}, Target("3.11"), PackageSources("https://i", ("https://e",)), pip)
    (arguments,) = told
    assert "--constraint" in arguments and "--dry-run" in arguments and "https://e" in arguments
    assert arguments[-1].endswith(".whl[contest,engine,tools]")
    with pytest.raises(InputError, match="SHA-256"):
        resolve(own_wheel, {"vllm"}, Target(), PackageSources(), pip)
    assert "--constraint" not in told[1] and told[1][-1].startswith("vllm==")


def test_what_pip_is_told_of_the_machine() -> None:
    arguments = Target("3.12", "manylinux_2_28_x86_64").pip_arguments()
    for tag in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"):
        assert tag in arguments
    assert "manylinux_2_31_x86_64" not in arguments and arguments[arguments.index("--python-version") + 1] == "3.12"
    for wrong in ({"python": "3"}, {"python": "py3"}, {"platform": "win_amd64"}, {"platform": "manylinux_2_28"}):
        with pytest.raises(ValueError, match="must be like"):
            Target(**wrong)
    assert extras_for({"vllm"}) == ("contest", "server", "tools")
    assert is_locked({"ryanstream"}) and not is_locked({"ryanstream", "vllm"})


def test_pip_tells_what_went_wrong() -> None:
    with pytest.raises(InputError, match="pip download failed"):
        run_pip(["download", "--no-index", "no-such-package-anywhere"])


def test_models_that_engines_need(tmp_path: Path) -> None:
    speculation = {"method": "eagle3", "model": "org/head", "num_speculative_tokens": 3}
    engines = (
        EngineSpec(
            "writer", "vllm", "openai/gpt-oss-120b", settings={"speculative_config": speculation, "revision": "v1"}
        ),
        EngineSpec("coder", "ryanstream", "1.5b", ("code",), settings={"draft_model": "0.5b"}),
    )
    assert needed_models(engines) == (
        NeededModel("writer", "openai/gpt-oss-120b", "v1"), NeededModel("writer/draft", "org/head"),
        NeededModel("coder", "1.5b"), NeededModel("coder/draft", "0.5b"), NeededModel(HARMONY, HARMONY_FILE.name),
    )  # fmt: skip
    places = {"writer/draft": Path("/a/head"), "coder/draft": Path("/a/draft.gguf")}
    assert settings_with(engines[0], places)["speculative_config"] == {**speculation, "model": "/a/head"}
    assert settings_with(engines[1], places) == {"draft_model": "/a/draft.gguf"}
    assert settings_with(engines[1], {}) == {"draft_model": "0.5b"}
    embedded = RunConfig("solve", None, "1.5b", 60.0, speculative_method="draft", draft_model="0.5b")
    assert [model.role for model in needed_models(engines_of(embedded))] == ["main", "main/draft"]
    with pytest.raises(InputError, match="without internet cannot reach"):
        needed_models((EngineSpec("far", "openai_server", "m"),))


def test_models_that_are_not_here(store: ModelStore, tmp_path: Path) -> None:
    named = weights_of(NeededModel("main", "openai/gpt-oss-120b", "v1"), None, store, quiet)
    assert (named.repository, named.revision, named.files, named.path) == ("openai/gpt-oss-120b", "v1", (), None)
    known = weights_of(NeededModel("main", "1.5b"), None, store, quiet)
    assert known.path is None and known.files[0].sha256 == store.find("1.5b").sha256 and known.repository is not None
    vocabulary = weights_of(NeededModel(HARMONY, HARMONY_FILE.name), None, store, quiet)
    assert vocabulary.path is None and vocabulary.files == (HARMONY_FILE,)
    with pytest.raises(InputError, match="is not at /no/such.gguf; say where with --weights main=PATH"):
        weights_of(NeededModel("main", "/no/such.gguf"), None, store, quiet)
    with pytest.raises(InputError, match="no file or folder"):
        weights_of(NeededModel("main", "org/name"), tmp_path / "nope", store, quiet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        weights_of(NeededModel("main", "org/name"), tmp_path / "empty", store, quiet)
    path = store.path_of(store.find("0.5b"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    with pytest.raises(ModelError, match="9 bytes, not 491,400,064"):
        weights_of(NeededModel("main", "0.5b"), None, store, quiet)
    (tmp_path / HARMONY_FILE.name).write_bytes(bytes(HARMONY_FILE.num_bytes))
    with pytest.raises(ModelError, match="its SHA-256 is"):
        weights_of(NeededModel(HARMONY, HARMONY_FILE.name), tmp_path, store, quiet)


def test_weights_are_found_where_kaggle_mounts_them(store: ModelStore, model: Path, tmp_path: Path) -> None:
    weights = replace(weights_of(NeededModel("main", "org/tiny-7b"), model, store, quiet), path="/not/here")
    inputs = tmp_path / "input"
    assert located(weights, [inputs]) is None
    place = inputs / "datasets" / "me" / "tiny" / "v1"
    place.parent.mkdir(parents=True)
    model.rename(place)
    assert located(weights, [inputs]) == place
    (place / "tokenizer.json").write_text("another size")
    assert located(weights, [inputs]) is None
    unknown = weights_of(NeededModel("main", "org/Tiny-7B"), None, store, quiet)
    assert located(unknown, [inputs]) is None
    place.rename(place.with_name("tiny-7b"))
    assert located(unknown, [inputs]) == place.with_name("tiny-7b")
    single = weights_of(
        NeededModel("main", "x"), inputs / "datasets" / "me" / "tiny" / "tiny-7b" / "config.json", store, quiet
    )
    assert single.files[0].name == "config.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "cannot be read"),
        ("\xff", "cannot be read"),
        ("[]", "no manifest"),
        ('{"format": "other"}', "its format is not"),
        ('{"format": "mathlete-bundle/1"}', "wheels"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=words):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="holds no bundle"):
        check_bundle(tmp_path / "nowhere", quiet)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": 5}, "5 is no path of a model"),
        ({"role": None}, "role and name must be text"),
        ({"files": [{"name": "a", "num_bytes": "9", "sha256": "0" * 64}]}, "'9' is no number of bytes"),
        ({"files": [{"name": "a", "num_bytes": -1, "sha256": "0" * 64}]}, "-1 is no number of bytes"),
    ],
)
def test_a_manifest_of_wrong_types(
    request_: BundleRequest, store: ModelStore, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    write_bundle(request_, tmp_path / "bundle", store, quiet)
    path = tmp_path / "bundle" / "dataset" / MANIFEST_NAME
    told = json.loads(path.read_text())
    told["weights"][0] |= change
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match=words):
        check_bundle(tmp_path / "bundle", quiet)


def test_data_sets_have_names_of_their_own(request_: BundleRequest, store: ModelStore, tmp_path: Path) -> None:
    engines = (
        EngineSpec("main", "vllm", "a/b"),
        EngineSpec("мозг", "vllm", "c/d", ("reasoning",)),
        EngineSpec("Main!", "vllm", "e/f", ("beam",)),
        EngineSpec("x" * 60, "vllm", "g/h", ("sympy_check",)),
    )
    config = replace(request_.config, engines=engines)
    for name in ("tiny", "a-recipe-with-a-name-that-is-longer-than-fifty-characters-are"):
        manifest = write_bundle(replace(request_, name=name, config=config), tmp_path / name, store, quiet)
        slugs = [slug_of(manifest), *weight_slugs(manifest).values()]
        assert len(set(slugs)) == 5, slugs
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{4,49}", slug) for slug in (*slugs, notebook_slug(manifest)))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ""])
def test_a_manifest_names_files_in_its_folder_only(
    request_: BundleRequest, store: ModelStore, tmp_path: Path, name: str
) -> None:
    manifest = write_bundle(request_, tmp_path / "bundle", store, quiet)
    path = tmp_path / "bundle" / "dataset" / MANIFEST_NAME
    told = json.loads(path.read_text())
    told["weights"][0]["files"][0]["name"] = name
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="no name of a file in a folder"):
        check_bundle(tmp_path / "bundle", quiet)
    told["weights"][0]["files"][0] |= {"name": "a", "sha256": "abc"}
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="no SHA-256"):
        check_bundle(tmp_path / "bundle", quiet)
    assert isinstance(manifest, Manifest)


def test_damage_is_found(request_: BundleRequest, store: ModelStore, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(request_, out, store, quiet)
    (model / "model-00001-of-00001.safetensors").write_bytes(b"\1" + bytes(999))
    (model / "tokenizer.json").unlink()
    (out / "dataset" / "recipe.toml").write_text("changed")
    found = check_bundle(out / "dataset", quiet)
    assert len(found.damaged) == 2 and "recipe.toml" in found.damaged[0] and "SHA-256" in found.damaged[1]
    assert len(found.absent) == 1 and "tokenizer.json" in found.absent[0]


def test_what_is_in_the_way(request_: BundleRequest, store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(request_, tmp_path / "bundle", store, quiet)  # an empty folder is none
    with pytest.raises(InputError, match="is there already"):
        write_bundle(request_, tmp_path / "bundle", store, quiet)
    with pytest.raises(InputError, match="no such model; there are main"):
        write_bundle(replace(request_, weights={"other": tmp_path}), tmp_path / "b", store, quiet)
