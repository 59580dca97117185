"""Uniform mathematical text and digit-safe tokens: numbers survive, controls cannot come in, twice changes nothing."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import BYTE_LEVEL, engine_tokenizer, sentencepiece_tokenizer

from mathlete.core.errors import ModelError
from mathlete.ryanstream.model.math_tokenizer import (
    _COMMANDS,
    _FRACTIONS,
    _LOWERED,
    _NOTHING,
    _RAISED,
    _SPACES,
    _TABLE,
    MathTokenizer,
    normalize_math_text,
)
from mathlete.ryanstream.model.tokenizer import EngineTokenizer, split_control_tokens

FAMILIES = [*BYTE_LEVEL, "sentencepiece"]
SPECIAL = "".join(map(chr, _TABLE)) + "".join({*_COMMANDS, *_FRACTIONS, *_LOWERED, *_NOTHING, *_RAISED, *_SPACES})
# What rules act on, in any order, among digits of several scripts, letters and LaTeX.
mathematical = st.text(st.sampled_from(SPECIAL + "0123456789٣५𝟗ab \\{}^_/.,\n"), max_size=30) | st.lists(
    st.sampled_from([*SPECIAL, "\\dfrac", "\\tfrac", "\\left(", "12", "3.5", "⁄", "x", " "]), max_size=12
).map("".join)


def read_numbers(text: str) -> list[int]:
    """Integers in the order in which they stand there: runs of digits, raised and lowered runs, parts of a fraction."""
    pieces = re.compile(rf"\d+|[{''.join(_RAISED)}]+|[{''.join(_LOWERED)}]+|[{_FRACTIONS}]").findall(text)
    numbers: list[int] = []
    for piece in pieces:
        plain = unicodedata.normalize("NFKC", piece)
        numbers += [int(run) for run in re.findall(r"\d+", plain)]
    return numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 × 4 ÷ 2 ± 1", r"3 \times 4 \div 2 \pm 1"),
        ("a×b", r"a\times b"),
        ("5−3", "5-3"),
        ("x² + y³ = z¹⁰", "x^{2} + y^{3} = z^{10}"),
        ("10⁻³ aₙ₊₁ x₁²", "10^{-3} a_{n+1} x_{1}^{2}"),
        ("1½ cups, ¾, ³⁄₈", r"1\frac{1}{2} cups, \frac{3}{4}, \frac{3}{8}"),
        ("x ≤ 3, y≥4, z≠5", r"x \leq 3, y\geq 4, z\neq 5"),
        ("3·4", "3·4"),
        ("a·b ⋅ 2", r"a\cdot b \cdot 2"),
        ("１２＋３４＝４６", "12+34=46"),
        ("٣٤٥ and १२", "345 and 12"),
        ("1\u00a0000\u202f000", "1 000 000"),
        ("so\u200bme \ufeffwords", "some words"),
        ("1\u200b2", "1\u200b2"),
        ("“it’s” f′ … 1, 2, …", "\"it's\" f' ... 1, 2, ..."),
        (r"\dfrac{1}{2} \tfrac12 \cfrac{a}{b}", r"\frac{1}{2} \frac12 \frac{a}{b}"),
        (r"\left(\frac{1}{2}\right) \dfracs", r"\left(\frac{1}{2}\right) \dfracs"),
        ("α ∈ ℝ, pages 1–5, √2, 90°, x → ∞", r"α ∈ ℝ, pages 1–5, √2, 90°, x → \infty"),
    ],
)
def test_the_rules(text: str, expected: str) -> None:
    assert normalize_math_text(text) == expected


@settings(max_examples=500)
@given(mathematical)
@example("3·½")
@example("1\u200b\u200b2\u200b")
@example("²⁄3⁄₂")
@example("\\\u200bdfrac1")
@example("₀\u2060₀")
@example("²\u200b⁄₃")
def test_numbers_survive_and_twice_changes_nothing(text: str) -> None:
    once = normalize_math_text(text)
    assert normalize_math_text(once) == once
    assert read_numbers(once) == read_numbers(text)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_is_taken(text: str) -> None:
    once = normalize_math_text(text)
    assert normalize_math_text(once) == once
    assert read_numbers(once) == read_numbers(text)


@given(st.text(st.characters(max_codepoint=127).filter(lambda c: c != "\\")))
def test_plain_ascii_is_left_alone(text: str) -> None:
    assert normalize_math_text(text) == text


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rule_makes_a_control_token(family: str) -> None:
    tokenizer = MathTokenizer(engine_tokenizer(family))
    control = set(tokenizer.control_tokens.values())
    for name in tokenizer.control_tokens:
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)
        for hostile in (name, wide, f"x{name}1", "\u200b".join(name)):
            assert not control & set(tokenizer.encode(normalize_math_text(hostile)))


@pytest.mark.parametrize("family", FAMILIES)
@given(text=mathematical | st.text(max_size=20) | st.from_regex(r"[a-z12]{0,20}", fullmatch=True))
@example(text="x1 x12 1x the12 123456")
def test_encoding_is_digit_safe_and_loses_nothing(family: str, text: str) -> None:
    plain, tokenizer = TOKENIZERS[family], MathTokenizer(TOKENIZERS[family])
    ids = tokenizer.encode(text)
    shown = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    for token_id in ids:
        spelled = plain.decode([token_id])
        assert not (re.search(r"\d", spelled) and re.search(r"[^\W\d_]", spelled)), spelled
    if family == "sentencepiece":
        assert plain.decode(ids) == shown.replace("▁", " ")
    elif unicodedata.is_normalized("NFC", shown):  # Qwen2's tokenizer composes characters
        assert plain.decode(ids) == shown
        assert ids == plain.encode(text), "these cut between letters and digits themselves"


TOKENIZERS = {family: engine_tokenizer(family) for family in FAMILIES}


@given(st.integers(0, 10**30))
def test_digits_of_an_integer(number: int) -> None:
    """Qwen2 takes digits one at a time, Llama 3 up to three from the left: groups are the tokenizer's own."""
    for family, size in (("qwen", 1), ("deepseek-qwen", 1), ("llama3", 3), ("deepseek-llama", 3)):
        tokenizer = TOKENIZERS[family]
        pieces = [tokenizer.decode([i]) for i in MathTokenizer(tokenizer).encode(f"n={number}.")]
        assert "".join(pieces) == f"n={number}."
        digits = [piece for piece in pieces if piece.isdecimal()]
        assert "".join(digits) == str(number)
        assert max(map(len, digits)) <= size


def test_llama3_takes_a_whole_word_that_is_a_token() -> None:
    """Whatever its merges say (`ignore_merges`): "45" is reached by a merge, "123" would be cut after "12" without."""
    tokenizer = TOKENIZERS["llama3"]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("12345 the")] == ["123", "45", " the"]
    assert [tokenizer.decode([i]) for i in TOKENIZERS["qwen"].encode("12345")] == ["1", "2", "3", "4", "5"]


@given(st.text(st.characters(codec="utf-8"), max_size=20))
@example("the  x12\n\ttab é 😀")
def test_sentencepiece_equals_transformers(text: str) -> None:
    """Transformers puts a space before a text, here the caller does; else pieces of a chat would come back changed."""
    theirs = SENTENCEPIECE(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []
    ours = TOKENIZERS["sentencepiece"].encode(f" {text}" if text and text[0] not in " ▁" else text)
    assert ours == theirs


SENTENCEPIECE = sentencepiece_tokenizer()


def test_sentencepiece_names_of_bytes_are_text() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    assert tokenizer.decode(tokenizer.encode("<0x0A> é")) == "<0x0A> é"
    assert tokenizer.token_bytes(300)[3 + 0x0A] == b"\n"


def test_a_sentencepiece_tokenizer_that_would_lose_text_is_refused() -> None:
    content = json.loads(SENTENCEPIECE.backend_tokenizer.to_str())
    del content["model"]["vocab"]["<0xC3>"]
    split = split_control_tokens(json.dumps(content))
    with pytest.raises(ModelError, match="without a token for each byte"):
        EngineTokenizer(split.tokenizer_json, split.control_tokens, ())


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": []}', '{"model": {"vocab": 3, "merges": []}}'])
def test_another_file_is_no_tokenizer(text: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json is not in the `tokenizers` format"):
        split_control_tokens(text)


@pytest.mark.shared
def test_no_number_of_a_real_problem_changes(shared_dir: Path) -> None:
    """Of 3,492 statements 132 change: typographic quotes and spaces, `\\dfrac` and one ¾. None loses a number."""
    num_statements, changed = 0, 0
    for path in sorted((shared_dir / "problems").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = json.loads(line).get("problem", "")
            once = normalize_math_text(text)
            num_statements, changed = num_statements + bool(text), changed + (once != text)
            assert normalize_math_text(once) == once
            assert read_numbers(once) == read_numbers(text), path.name
    assert num_statements > 3000 and 0 < changed < num_statements / 10
