"""Mapping files: what they may say, and what is found at a place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.errors import InputError
from mathlete.lab.mapped_rows import MISSING, found, gold_text
from mathlete.lab.mapping import load_mapping, mapping_of, preset_names

MINIMAL = '[problem]\nstatement = "q"\ngold = "a"\n'


@pytest.mark.parametrize("name", preset_names())
def test_presets_can_be_loaded_and_say_what_they_are(name: str) -> None:
    mapping = load_mapping(name)
    assert mapping.name == name and mapping.description
    assert {"id", "statement", "gold"} <= set(mapping.problem) and "answer" in mapping.attempt


def test_there_are_presets_for_the_common_programs() -> None:
    assert preset_names() == ["inspect", "lm-eval", "nemo-skills", "table"]


def test_a_mapping_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        MINIMAL + '[attempt]\nanswer = ["x.y", "@text"]\n[values]\nright = ["C", 1]\n[where]\nkind = "math"\n'
    )
    mapping = load_mapping(path)
    assert (mapping.name, mapping.layout, mapping.problem) == ("mine", "rows", {"statement": ("q",), "gold": ("a",)})
    assert (mapping.attempt, mapping.right, mapping.where) == (
        {"answer": ("x.y", "@text")},
        ("C", 1),
        {"kind": ("math",)},
    )


BAD = {
    "key": ('layuot = "rows"\n' + MINIMAL, "layuot is unknown; did you mean layout?; known are description, layout"),
    "nested key": (MINIMAL + '[attempt]\nanwser = "a"\n', "attempt.anwser is unknown; did you mean attempt.answer?"),
    "problem key": ('[problem]\nstatment = "q"\n', "problem.statment is unknown; did you mean problem.statement?"),
    "values key": (MINIMAL + '[values]\nrigth = "C"\n', "values.rigth is unknown; did you mean values.right?"),
    "layout": ('layout = "columns"\n' + MINIMAL, "layout must be one of rows, lists, not 'columns'"),
    "type": ("attempts = 3\n" + MINIMAL, "attempts must be text, not 3"),
    "place": (MINIMAL + "[attempt]\nanswer = 3\n", "attempt.answer must be text, not 3"),
    "no place": (MINIMAL + "[attempt]\nanswer = []\n", "attempt.answer must name a place, not none"),
    "table": ('problem = "q"\n', "problem must be a table, [problem], not 'q'"),
    "scalar": (MINIMAL + "[where]\nx = [[1]]\n", "where.x must be text, a number, true or false"),
    "no statement": ('[problem]\nid = "x"\n', "problem.statement is missing"),
    "attempts": ('attempts = "x"\n' + MINIMAL, 'attempts is only for layout = "lists"'),
    "special": (MINIMAL + '[attempt]\ntokens = "@text"\n', "tokens cannot be '@text'"),
    "toml": ("layout = rows\n", "not TOML (Invalid value"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_mapping_is_named(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_mapping(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_mappings_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no mapping 'nemo-skils'; did you mean nemo-skills"):
        load_mapping("nemo-skils")
    with pytest.raises(InputError, match=r"none\.toml: cannot be read \(No such file"):
        load_mapping(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match="not UTF-8 text"):
        load_mapping(tmp_path / "latin.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(InputError, match="longer than 1024 KiB"):
        load_mapping(tmp_path / "long.toml")


@pytest.mark.parametrize(
    ("value", "place", "what"),
    [
        ({"a": {"b": [1, {"c": 2}]}}, "a.b.1.c", 2),
        ({"a": {"b": [1, 2]}}, "a.b.-1", 2),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"x": {"v": 3}, "y": {"v": 4}}}, "a.*.v", 3),
        ({"a": [5, 6]}, "a.*", 5),
        ({"a": None}, "a", None),
        ({"a": {}}, "a.*", MISSING),
        ({"a": []}, "a.*", MISSING),
        ({"a": [1]}, "a.1", MISSING),
        ({"a": [1]}, "a.-2", MISSING),
        ({"a": [1]}, "a.x", MISSING),
        ({"a": [1]}, "a.99999999999999999999", MISSING),
        ({"a": "text"}, "a.0", MISSING),
        ({"a": 1}, "a.b", MISSING),
        ({}, "", MISSING),
    ],
)
def test_places(value: Any, place: str, what: Any) -> None:
    assert found(value, place) is what or found(value, place) == what


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)),
    st.text(),
)
def test_a_place_never_fails(value: Any, place: str) -> None:
    found(value, place)


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        ("48/2 = <<48/2=24>>24\n#### 1,072", "1,072"),
        ("so $x=\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        (" 7 ", "7"),
        (["7", "8"], "7"),
        (7.0, "7"),
        (7, 7),
        (2.5, 2.5),
        (None, None),
        ("boxed in", "boxed in"),
    ],
)
def test_golds(value: Any, gold: Any) -> None:
    assert gold_text(value) == gold


def test_a_mapping_from_a_dictionary_is_checked_too() -> None:
    with pytest.raises(ValueError, match="problem.gould is unknown; did you mean problem.gold"):
        mapping_of({"problem": {"statement": "q", "gould": "a"}}, "mine")
