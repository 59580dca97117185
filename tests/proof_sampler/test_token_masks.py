from __future__ import annotations

import random
import re
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bracket_tracker import PIECES

from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.answer_format import AnswerFormat
from mathlete.proof_sampler.bracket_states import START, Control, Kind, State, States
from mathlete.proof_sampler.bracket_tracker import BracketTracker
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.token_constraint import TextConstraint
from mathlete.proof_sampler.token_masks import TokenMasks
from mathlete.proof_sampler.vocabulary import Vocabulary, canonical

EOS = (256, 257)
MORE = [
    "*\n", "1\n", "x\n",
    "12", "0", "{1", "{ 12", "{-", "{-1}", "{0}$", "{   ", "ed{99999", "\\boxed{123", "\\boxed{4}", "}.", "}$", " 7",
    "{,}", "\\,", "\\!", "-", "gin{equation}$", "{align}$", "}\\end{cases}", "nd{cases}", "d{ca", "ses}", "se",
    "in{cases}x\\end", "think>", "<th", "/think>$", "ightarrow", "ight)", "!", "*", "=", "><", "(i", " \n\n \n",
    "}}}", "}}}}$", "xt{", "x^{2}$", ")}{(", "~~", "`x`", "\n\n\n\n", "%$", "a_b", "<|", "\\\\\\", "x{equation}$",
]  # fmt: skip


def vocabulary(seed: int, num_mixed: int = 400) -> Vocabulary:
    """Every byte, two ends of text, nothing, and mixtures of pieces, characters cut in half among them."""
    noise = random.Random(seed)
    pieces = [piece.encode() for piece in PIECES + MORE]
    mixed = [b"".join(noise.choices(pieces, k=noise.randint(1, 3))) for _ in range(num_mixed)]
    cut = [token[: noise.randint(1, len(token))] for token in mixed[: num_mixed // 4]]
    return Vocabulary([*(bytes([i]) for i in range(256)), b"", b"<eos>", b"", *pieces, *mixed, *cut], EOS)


VOCABULARY = vocabulary(1)
TRACKERS = [
    BracketTracker(max_depth=4),
    BracketTracker(max_depth=6, answer=AnswerFormat(0, 99_999)),
    BracketTracker(max_depth=6, answer=AnswerFormat(-7, 123), forgiving=True),
    BracketTracker(max_depth=6, ends_after_answer=True),
    BracketTracker(max_depth=6, answer=AnswerFormat(0, 9), forgiving=True, ends_after_answer=True),
]
MASKS = [TokenMasks(VOCABULARY, tracker) for tracker in TRACKERS]
STARTS = ["\\boxed{5}", "\\boxed{", "\\boxed{1", "\\begin{", "\\begin{ca", "\\begin{cases}\\end{", "1"]
PIECES_OF_TEXTS = st.lists(st.sampled_from([*PIECES, *MORE, *STARTS, *STARTS]), max_size=12)


def bits(mask: memoryview, size: int) -> list[bool]:
    return [bool(mask[i // 32] >> (i % 32) & 1) for i in range(size)]


def living(tracker: BracketTracker, pieces: list[str]) -> States:
    """The readings after those of the pieces, in order, that are not refused."""
    states: States = (START,)
    for piece in pieces:
        states = tracker.feed(states, piece.encode()) or states
    return states


@given(PIECES_OF_TEXTS, st.sampled_from(range(len(TRACKERS))))
@settings(max_examples=150)
def test_a_token_is_allowed_exactly_when_its_bytes_are_accepted(pieces: list[str], which: int) -> None:
    tracker, masks = TRACKERS[which], MASKS[which]
    states = living(tracker, pieces)
    slow = [bool(token) and bool(tracker.feed(states, token)) for token in VOCABULARY.token_bytes]
    for token_id in EOS:
        slow[token_id] = tracker.may_end(states)
    fast = bits(masks.mask(states), VOCABULARY.size)
    wrong = [VOCABULARY.token_bytes[i] for i in range(VOCABULARY.size) if slow[i] != fast[i]]
    assert not wrong, (states, wrong)


@given(PIECES_OF_TEXTS, st.sampled_from(range(len(TRACKERS))))
@settings(max_examples=300)
def test_every_text_can_be_finished(pieces: list[str], which: int) -> None:
    """From wherever a model has got to: what is open is closed one after the other, then the text may end."""
    tracker = TRACKERS[which]
    states = living(tracker, pieces)
    for _ in range(40):
        if tracker.may_end(states):
            return
        ways = [
            number(tracker, state) if state.control is Control.ANSWER else way_on(state)
            for state in sorted(states, key=lambda state: 0 if state.top is None else state.top.depth)
        ]
        states = next(after for after in (tracker.feed(states, way) for way in ways) if after)
    raise AssertionError(states)


def way_on(state: State) -> bytes:
    """What ends what has been begun, or closes the innermost frame."""
    top, detail = state.top, state.detail
    assert isinstance(detail, bytes)
    name = b"" if top is None else top.name
    begun = {
        Control.BACKSLASH: b" ", Control.NAME: b"z ", Control.DELIMITER: b".", Control.DELIMITER_BACKSLASH: b"|",
        Control.DELIMITER_NAME: b"z ", Control.BEGIN: b"{x}", Control.BEGIN_NAME: b"x}",
        Control.END: b"{" + name + b"}",
        Control.END_NAME: detail + b"}", Control.DOLLARS_END: b"$", Control.INFO: b"\n",
        Control.CODE: b" " + detail + b" ",
        Control.CODE_TICKS: b" ", Control.FENCE_TICKS: b" ", Control.MATH_TICKS: b" ", Control.LINE_TICKS: b" \n",
    }  # fmt: skip
    if state.control in begun:
        return begun[state.control]
    if top is None:
        return b" x\n\n"
    closing = {
        Kind.GROUP: b"}", Kind.TEXT_GROUP: b"}", Kind.DOLLAR: b"$", Kind.DOLLARS: b"$$", Kind.PAREN: b"\\)",
        Kind.BRACKET: b"\\]",
        Kind.LEFT: b"\\right.", Kind.MATH_ENV: b"\\end{" + name + b"}", Kind.TEXT_ENV: b"\n\n\\end{" + name + b"}",
        Kind.FENCE: b"\n" + name + b"\n", Kind.THINK: b"</think>",
    }  # fmt: skip
    return closing[top.kind]


def number(tracker: BracketTracker, state: State) -> bytes:
    """Digits and the brace that lead out of a box."""
    todo, seen = [(b"", state)], {state}
    while todo:
        way, place = todo.pop(0)
        for byte in b"}0123456789!,":
            for after in tracker.step(place, byte):
                if after.control is not Control.ANSWER:
                    return way + bytes([byte])
                if after not in seen:
                    seen.add(after)
                    todo.append((way + bytes([byte]), after))
    raise AssertionError(state)


@given(st.binary(max_size=12), PIECES_OF_TEXTS)
@settings(max_examples=300)
def test_tokens_of_one_canonical_spelling_are_allowed_alike(token: bytes, pieces: list[str]) -> None:
    tracker = TRACKERS[0]
    state = living(tracker, pieces)[0]
    if state.control.name not in ("BEGIN_NAME", "END_NAME"):  # there, letters count
        assert bool(tracker.feed((state,), token)) == bool(tracker.feed((state,), canonical(token)))


def constraint(text: str = "", spec: ConstraintSpec | None = None, kind: AnswerKind | None = None) -> TextConstraint:
    built = build_constraint(spec or ConstraintSpec(), VOCABULARY, kind or AnswerKind(), text)
    assert built is not None
    return built


def allowed(of: TextConstraint, num_extra_words: int = 0) -> list[bool]:
    mask = memoryview(bytearray(b"\xff" * 4 * (VOCABULARY.num_words + num_extra_words))).cast("I")
    of.fill_mask(mask)
    assert not any(bits(mask, 32 * len(mask))[VOCABULARY.size :])
    return bits(mask, VOCABULARY.size)


@given(st.lists(st.integers(-1, VOCABULARY.size), max_size=30))
@settings(max_examples=200)
def test_accept_validate_mask_and_rollback_agree(token_ids: list[int]) -> None:
    text = constraint()
    states, masks = [text.states], [allowed(text)]
    for token_id in token_ids:
        can = 0 <= token_id < VOCABULARY.size and masks[-1][token_id]
        assert text.validate((token_id,)) == can
        assert text.accept((token_id,)) == can
        if can:
            states.append(text.states)
            masks.append(allowed(text, num_extra_words=1))
    assert text.states == states[-1]
    twin = text.copy()
    for num_back in (0, 1, len(states) // 2):
        if num_back < len(states):
            text.rollback(num_back)
            del states[len(states) - num_back :], masks[len(masks) - num_back :]
            assert (text.states, allowed(text)) == (states[-1], masks[-1])
    text.rollback(len(states) - 1)
    assert text.states == constraint().states
    assert twin.validate((0,)) in (0, 1) and twin.states is not None


def test_several_tokens_are_accepted_together_or_not_at_all() -> None:
    text = constraint("Let $")
    before = text.states
    ids = list(b"x}y")
    assert text.validate(ids) == 1
    assert not text.accept(ids)
    assert text.states == before
    assert text.accept(ids[:1])


def test_the_end_of_text() -> None:
    text = constraint()
    assert text.accept(list(b"$\\frac12"))
    assert not any(allowed(text)[i] for i in EOS) and not text.accept((256,))
    assert text.accept(list(b"$")) and all(allowed(text)[i] for i in EOS)
    assert text.accept((257,)) and text.terminated
    assert [i for i, can in enumerate(allowed(text)) if can] == list(EOS)
    assert not text.accept((32,)) and text.accept((256,))
    text.rollback(2)
    assert not text.terminated and text.accept((32,))


def test_control_tokens_that_end_nothing_are_not_written() -> None:
    assert not allowed(constraint())[258]
    assert not constraint().accept((258,))


def test_going_back_too_far_is_said() -> None:
    text = constraint()
    assert text.accept((32,))
    for num in (-1, 2):
        with pytest.raises(ValueError, match=rf"cannot take back {num} tokens: 1 were accepted"):
            text.rollback(num)


def test_copies_go_their_own_ways() -> None:
    text = constraint()
    text.accept(list(b"\\boxed{"))
    twin = text.copy()
    assert twin.accept(list(b"12}")) and text.accept(list(b"7"))
    assert allowed(twin)[256] and not allowed(text)[256]
    twin.rollback(10)
    assert twin.states == constraint().states


def test_a_copy_of_a_long_text_costs_no_more_than_one_of_a_short_one() -> None:
    text = constraint()
    assert text.accept(list(b"word " * 4_000))
    tracemalloc.start()
    try:
        twins = [text.copy() for _ in range(10)]
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 10_000
    twins[0].rollback(20_000)
    assert twins[0].states == constraint().states and twins[1].states == text.states
    del text, twins  # a chain of 20,000 places goes without recursion


def test_the_text_may_be_made_to_end_with_the_line_of_its_answer() -> None:
    spec = ConstraintSpec(ends_after_answer=True)
    for written in (
        "so \\boxed{5}", "so $x = \\boxed{5}$.", "\\[ x = \\boxed{5} \\]", "$$\nx = \\boxed{5}\n$$ (as claimed).",
        "<think>\\boxed{1}\n</think>\n\\boxed{5}", "`\\boxed{1}` \\boxed{5}", "$3 is \\boxed{5} dollars",
    ):  # fmt: skip
        text = constraint(spec=spec)
        assert text.accept(list(written.encode())) and not text.terminated
        assert text.validate(list(b" and more")) == len(b" and more")
        assert text.accept(list(b"\n")) and text.terminated
        assert [i for i, can in enumerate(allowed(text)) if can] == list(EOS)
        text.rollback(1)
        assert not text.terminated and text.accept(list(b"z"))
    several = VOCABULARY.token_bytes.index(b" \n\n \n")
    assert constraint("\\boxed{5}", spec).accept((several,))
    assert constraint("\\boxed{5}\n", spec).terminated


def test_programs_their_output_empty_boxes_and_thinking_end_nothing() -> None:
    spec = ConstraintSpec(answer_format=False, ends_after_answer=True)
    program = "```python\nprint(r'\\boxed{5}')\n```\n"
    output = "```output\n\\boxed{5}\n```\n"
    for written in (
        program,
        program + output,
        "In \\boxed{} or \\boxed{ }.\n",
        "<think>\n\\boxed{5}\n",
        "`\\boxed{5}`\n",
    ):
        text = constraint(spec=spec)
        assert text.accept(list(written.encode())) and not text.terminated, written
        for followed in (text, constraint(written, spec)):
            assert not followed.terminated and followed.validate(list(b"so on")) == len(b"so on"), written
    assert constraint(program + output, spec).accept(list(b"so $\\boxed{\\frac12}$\n"))
    alone = ConstraintSpec(brackets=False, answer_format=False, ends_after_answer=True)
    text = constraint(spec=alone)
    assert text.accept(list(b"} \\right) \\boxed{x} } \\right)\n")) and text.terminated
    off = constraint()
    assert off.accept(list(b"\\boxed{5}\n and more\n"))


SOLUTION = """Let $x_1 = \\frac{{{a}}}{{{b}}}$ and $y = \\left( {a} + \\sqrt{{{b}}} \\right)$. Then, by Vieta,
\\[ \\sum_{{i=1}}^{{{a}}} i^2 = \\begin{{cases}} {b} & \\text{{if $n$ is even}} \\\\ {a} \\end{{cases}} \\]

1) In the interval [0, {a}) this costs $5 and `x = {b}`:
```python
total = {{i: i**2 for i in range({a})}}
print(total)
```
\\begin{{align*}}
x &= {a}x^{{2}} + {b} \\\\
\\end{{align*}}
So the answer is $\\boxed{{{a}}}$.
"""


def test_few_masks_are_worked_out_over_a_vocabulary_of_realistic_size() -> None:
    """150,000 tokens: a loop over them in each step would take as long as the step. Masks are found again."""
    noise = random.Random(3)
    words = ["".join(noise.choices("abcdefghijklmnopqrstuvwxyz", k=noise.randint(3, 9))) for _ in range(70_000)]
    texts = [SOLUTION.format(a=noise.randint(1, 99), b=noise.randint(1, 99)) for _ in range(30)]
    texts = [text.replace("Vieta", " ".join(noise.choices(words, k=40))) for text in texts]
    pieces = re.compile(r"\\[A-Za-z]+|[A-Za-z]+\{?| ?[A-Za-z]+|[0-9]|[^A-Za-z0-9]{1,2}")
    cut = [pieces.findall(text) for text in texts]
    spelt = dict.fromkeys([*words, *(" " + word for word in words), *(piece for text in cut for piece in text)])
    tokens = [*VOCABULARY.token_bytes, *(piece.encode() for piece in spelt)]
    ids = {token: i for i, token in enumerate(tokens)}
    masks = TokenMasks(Vocabulary(tokens, EOS), BracketTracker(answer=AnswerFormat(0, 99_999)))
    assert masks.vocabulary.size > 130_000 and len(masks.vocabulary.groups) < 2_000
    mask = memoryview(bytearray(4 * masks.vocabulary.num_words)).cast("I")
    num_tokens, kinds = 0, []
    for _ in range(2):
        for text in cut:
            walk = TextConstraint(masks)
            for piece in text:
                walk.fill_mask(mask)
                assert walk.accept((ids[piece.encode()],)), piece
                num_tokens += 1
        kinds.append(masks.num_kinds)
    assert num_tokens > 10_000
    assert kinds[1] == kinds[0] < 200


def test_a_character_cut_in_two_is_no_obstacle() -> None:
    text = constraint()
    for byte in "$\\text{Größe} ≤ 5$".encode():
        assert allowed(text)[byte]
        assert text.accept((byte,))
    assert allowed(text)[256]


def test_the_text_so_far_is_gone_on_with() -> None:
    assert not allowed(constraint("```python\nx = {"))[256]
    assert allowed(constraint("```python\nx = {"))[ord("}")]
    assert not constraint("so $\\frac{1}{").validate(list(b"$"))
    wrong = constraint("\\right) } \\end{x} and $\\frac{1}$ is ")
    assert allowed(wrong)[256]
    with pytest.raises(ValueError):
        wrong.rollback(1)


def test_only_what_the_spec_says_is_demanded() -> None:
    wrong = list(b"\\right) \\boxed{x}")
    assert constraint(spec=ConstraintSpec(brackets=False)).validate(wrong) == len(b"\\right) \\boxed{")
    assert constraint(spec=ConstraintSpec(answer_format=False)).validate(wrong) == len(b"\\right")
    free = constraint(kind=AnswerKind("expression"))
    assert free.validate(wrong[8:]) == len(wrong) - 8
    assert build_constraint(ConstraintSpec(brackets=False), VOCABULARY, AnswerKind("proof")) is None
    with pytest.raises(ValueError, match="ConstraintSpec.max_depth must be in"):
        ConstraintSpec(max_depth=3)


def test_a_mask_that_is_too_short_and_an_end_outside_the_vocabulary_are_said() -> None:
    with pytest.raises(ValueError, match="has 27 words, not 1"):
        text = TextConstraint(TokenMasks(Vocabulary([b"a"] * 850, [0]), BracketTracker()))
        text.fill_mask(memoryview(bytearray(4)).cast("I"))
    with pytest.raises(ValueError, match="eos_ids names 7"):
        Vocabulary([b"a"], [7])


def test_trackers_need_no_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from mathlete.proof_sampler import bracket_tracker, answer_format, config\n"
        "t = bracket_tracker.BracketTracker()\n"
        "print(bool(t.feed((bracket_tracker.START,), b'$x}')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
