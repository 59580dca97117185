"""What a check's trials mean, how a check goes about it, and which numbers are decoys: all without running anything."""

from __future__ import annotations

import ast
import json

import pytest

from mathlete.core.code import RunStatus, ToolResult
from mathlete.core.problem import AnswerKind
from mathlete.verify.checks.check_program import Asked, CheckConfig, CheckKind, build_program, parse_check
from mathlete.verify.checks.decoys import choose_decoys
from mathlete.verify.checks.manner import manner_of
from mathlete.verify.checks.trials import Outcome, Trial, Trials, read_trials
from mathlete.verify.checks.verdicts import checker_name, judge, no_evidence, to_evidence

_OUTCOMES: dict[str, Outcome] = {
    "+": "accepted",
    "-": "rejected",
    "!": "raised",
    "t": "timeout",
    "?": "unknown",
    "~": "inconsistent",
    ".": "not_asked",
}
_VERDICTS = {"S": "SUPPORTED", "R": "REFUTED", "U": "UNKNOWN"}


def _trials(candidates: str, decoys: str, others: dict[int, str] | None = None) -> Trials:
    """One character a number; candidates are 0, 1, 2, ..., decoys 100, 101, ..."""
    return Trials(
        tuple(Trial(number, _OUTCOMES[char]) for number, char in enumerate(candidates)),
        tuple(Trial(100 + number, _OUTCOMES[char]) for number, char in enumerate(decoys)),
        others or {},
    )


@pytest.mark.parametrize(
    ("candidates", "decoys", "verdicts"),
    [
        ("+--", "--------", "SRR"),  # tells numbers apart
        ("-+-", "-------+", "RSR"),  # one decoy in eight may slip through
        ("+--", "------++", "UUU"),
        ("+++", "++++++++", "UUU"),  # accepts everything
        ("---", "--------", "UUU"),  # accepts nothing
        ("---", "-------+", "UUU"),  # accepts something else
        ("++-", "--------", "UUR"),  # two candidates alike: only what it rejects is told
        ("+!-", "--------", "SUR"),
        ("+t.", "--------", "SUU"),
        ("+?~", "--------", "SUU"),
        ("!!!", "!!!!!!!!", "UUU"),
        ("+--", "---.....", "UUU"),  # too few decoys judged
        ("+--", "----....", "SRR"),
        ("+--", "----...+", "UUU"),  # one decoy in five is too many
        ("~--", "--------", "UUU"),
        ("+", "--------", "S"),
        ("-", "--------", "U"),
    ],
)
def test_verdicts(candidates: str, decoys: str, verdicts: str) -> None:
    findings = judge(_trials(candidates, decoys), "sympy")
    assert [finding.verdict for finding in findings] == [_VERDICTS[char] for char in verdicts]
    assert [finding.answer for finding in findings] == [str(number) for number in range(len(candidates))]
    assert all(finding.reason for finding in findings)


@pytest.mark.parametrize(("char", "failure"), [("!", "crash"), ("t", "timeout"), (".", "timeout"), ("?", "timeout")])
def test_why_there_is_no_verdict_on_one_number(char: str, failure: str) -> None:
    assert judge(_trials(f"+{char}", "--------"), "sympy")[1].failure == failure


def test_constraints_that_another_integer_meets_tell_nothing() -> None:
    found = judge(_trials("+-", "--------", {0: "17"}), "smt")
    assert [finding.verdict for finding in found] == ["UNKNOWN", "UNKNOWN"]
    assert "17" in found[0].reason
    alone = judge(_trials("+-", "--------", {0: "", 1: "0"}), "smt")
    assert [finding.verdict for finding in alone] == ["SUPPORTED", "REFUTED"]
    assert "no other integer" in alone[0].reason


def test_a_count_supports_who_found_it_and_refutes_the_others() -> None:
    numbers = tuple(Trial(number, "not_asked") for number in (7, 9))
    assert [f.verdict for f in judge(Trials(numbers, counted=9), "enumeration")] == ["REFUTED", "SUPPORTED"]
    assert [f.verdict for f in judge(Trials(numbers, counted=8), "enumeration")] == ["UNKNOWN", "UNKNOWN"]
    failed = judge(Trials(numbers, trouble="timeout"), "enumeration")
    assert [(f.verdict, f.failure) for f in failed] == [("UNKNOWN", "timeout")] * 2


def _result(*lines: object, status: RunStatus = "ok") -> ToolResult:
    return ToolResult(
        status, "\n".join(line if isinstance(line, str) else f"w {json.dumps(line)}" for line in lines), "", 0.1
    )


_ASKED = Asked((5, 6), (10, 11))


def test_trials_are_read_from_lines_of_ours() -> None:
    read = read_trials(
        _result(["sympy", 5, "accepted", ""], ["sympy", 6, "raised", "why"], ["sympy", 10, "rejected", ""]), "w", _ASKED
    )
    assert read.candidates == (Trial(5, "accepted"), Trial(6, "raised", "why"))
    assert read.decoys == (Trial(10, "rejected"), Trial(11, "not_asked"))
    assert read.trouble == ""


@pytest.mark.parametrize(
    "line",
    [
        "w",
        "w ",
        "w {}",
        "w [",
        "w " + "[" * 100_000,
        'w ["sympy", 5, "accepted"]',
        'w ["sympy", "5", "accepted", ""]',
        'w ["sympy", true, "accepted", ""]',
        'w ["sympy", 5.0, "accepted", ""]',
        'w ["sympy", 5, "proved", ""]',
        'w [["sympy"], 5, "accepted", ""]',
        'w ["enumeration", 0, "counted", "five"]',
        'w ["enumeration", 0, "counted", "\u0665"]',
        f'w ["enumeration", 0, "counted", "{"9" * 5_000}"]',
        f'w ["sympy", {"9" * 5_000}, "accepted", ""]',
        ' w ["sympy", 5, "accepted", ""]',
        'x ["sympy", 5, "accepted", ""]',
        '\udc80 \x00 ["sympy", 5, "accepted", ""]',
    ],
)
def test_lines_that_are_not_as_we_write_them_are_passed_over(line: str) -> None:
    read = read_trials(_result(line), "w", _ASKED)
    assert {trial.outcome for trial in read.candidates} == {"not_asked"}
    assert read.counted is None
    assert read.trouble


def test_who_says_two_things_on_a_number_says_nothing() -> None:
    read = read_trials(_result(["sympy", 5, "accepted", ""], ["sympy", 5, "rejected", ""]), "w", _ASKED)
    assert read.candidates[0].outcome == "inconsistent"
    same = read_trials(_result(["sympy", 5, "accepted", ""], ["sympy", 5, "timeout", ""]), "w", _ASKED)
    assert same.candidates[0].outcome == "accepted", "the second time there may have been no time left"


@pytest.mark.parametrize(("status", "trouble"), [("timeout", "timeout"), ("memory", "memory"), ("ok", "ok")])
def test_a_run_that_told_nothing_says_how_it_ended(status: RunStatus, trouble: str) -> None:
    read = read_trials(_result(status=status), "w", _ASKED)
    assert trouble in read.trouble
    findings = judge(read, "sympy")
    assert {finding.failure for finding in findings} == {"timeout" if status == "timeout" else "crash"}


@pytest.mark.parametrize(
    ("manner", "body"),
    [
        ("tested", "return answer % 7 == 3 and answer > 10"),
        ("tested", "return 20 - answer == answer - 6"),
        ("tested", "return answer - 5 == 12"),
        ("tested", "x = answer\n    return x ** 2 == 49"),
        ("tested", "return Eq(x**2 - 49, 0).subs(x, answer) == True"),
        ("tested", "return all(answer % d for d in range(2, answer))"),
        ("tested", "if answer < 0:\n        return False\n    return holds(answer)"),
        ("resolved", "return answer == sum(range(8))"),
        ("resolved", "return sum(range(8)) == answer"),
        ("resolved", "total = 3 * 4\n    return int(answer) == total"),
        ("resolved", "count = 0\n    for n in range(9):\n        count += 1\n    return count == answer"),
        ("resolved", "return abs(answer - pi_ish()) < 1e-9"),
        ("resolved", "return simplify(answer - sqrt(49)) == 0"),
        ("resolved", "return answer in solve(x**2 - 49)"),
        (
            "resolved",
            "a = int(answer)\n    if not isinstance(a, int) or answer < 0:\n        return False\n    return a == f()",
        ),
        ("resolved", "return Eq(answer, sqrt(49))"),
        ("stated", "return answer == 42"),
        ("stated", "return 42 == answer"),
        ("stated", "expected = 42\n    return answer == expected"),
        ("stated", "return answer in [42, 43]"),
        ("stated", "return abs(answer - 42) < 1e-6"),
    ],
)
def test_manner_of_a_test(manner: str, body: str) -> None:
    function = parse_check(f"def check(answer):\n    {body}\n", "sympy")
    assert function is not None
    assert manner_of(function, "sympy") == manner


@pytest.mark.parametrize(
    ("manner", "body"),
    [
        ("tested", "return sum(1 for n in range(9) if n % 2)"),
        ("tested", "n = 1\n    while n % 7:\n        n += 1\n    return n"),
        ("stated", "return 42"),
        ("stated", "return 6 * 7"),
    ],
)
def test_manner_of_an_enumeration(manner: str, body: str) -> None:
    function = parse_check(f"def brute_force():\n    {body}\n", "enumeration")
    assert function is not None
    assert manner_of(function, "enumeration") == manner


def test_an_equation_with_a_solvers_variable_is_a_condition() -> None:
    function = parse_check("def constraints(answer):\n    return [x + x == 4, x == answer]\n", "smt")
    assert function is not None
    assert manner_of(function, "smt") == "tested"
    assert [checker_name("sympy", m) for m in ("tested", "resolved")] == ["sympy_check", "sympy_check:resolved"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def check(answer): return True", "smt"),
        ("def check(): return True", "sympy"),
        ("def check(answer, other): return True", "sympy"),
        ("def brute_force(n): return n", "enumeration"),
        ("def check(answer) return True", "sympy"),
        ("check = lambda answer: True", "sympy"),
        ("async def check(answer): return True", "sympy"),
        ("\0", "sympy"),
        ("(" * 100_000, "sympy"),
        ("", "sympy"),
        ("class A:\n    def check(answer): return True", "sympy"),
    ],
)
def test_a_source_without_a_function_to_call_is_no_check(source: str, kind: CheckKind) -> None:
    assert parse_check(source, kind) is None


def test_a_check_may_have_defaults_and_the_last_definition_counts() -> None:
    assert parse_check("def check(answer, tolerance=0): return True", "sympy") is not None
    assert parse_check("def check(answer): return True\ndef check(): return True", "sympy") is None


@pytest.mark.parametrize("num", [1, 8, 13])
@pytest.mark.parametrize("candidates", [(0,), (99_999,), (7, 8, 9), (336, 12)])
def test_decoys_are_admissible_distinct_and_no_candidates(candidates: tuple[int, ...], num: int) -> None:
    for seed in range(20):
        decoys = choose_decoys(candidates, {1, 2}, AnswerKind(), num, seed)
        assert len(decoys) == len(set(decoys)) == num
        assert all(AnswerKind().admits(decoy) for decoy in decoys)
        assert not {*candidates, 1, 2} & {*decoys}
        assert decoys == choose_decoys(candidates, {1, 2}, AnswerKind(), num, seed)
        assert num == 1 or any(abs(decoy - value) <= 12 for decoy in decoys for value in candidates)


def test_a_small_range_has_few_decoys() -> None:
    assert set(choose_decoys((1,), {2}, AnswerKind(low=0, high=4), 8, 0)) == {0, 3, 4}


def test_the_program_is_python_and_holds_the_source_as_data() -> None:
    source = "def check(answer):\n    return '\"\"\" \\' \udc80 \\n' == answer  # \u2028\n"
    program = build_program("sympy", source, _ASKED, AnswerKind(), "w", CheckConfig())
    call = ast.parse(program).body[-1]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    job = ast.literal_eval(call.value.args[0])
    assert job["source"] == source
    assert [number for _, number in job["asked"]] == [5, 6, 10, 11, 5, 6]
    assert program.isascii()


def test_evidence_is_told_of_each_answer_asked_for_and_of_others_only_with_a_verdict() -> None:
    findings = judge(_trials("+-!", "--------"), "sympy")
    told = to_evidence(findings, ("1",), "sympy", "resolved", "def check(answer): ...", 0.5)
    assert [(item.answer, item.verdict, item.checker) for item in told] == [
        ("0", "SUPPORTED", "sympy_check:resolved"),
        ("1", "REFUTED", "sympy_check:resolved"),
    ]
    assert all("def check" in item.detail and item.elapsed_s == 0.5 for item in told)
    silent = no_evidence(("1", "2"), "smt", "unparsable", "nothing")
    assert [(item.answer, item.verdict, item.failure) for item in silent] == [
        ("1", "UNKNOWN", "unparsable"),
        ("2", "UNKNOWN", "unparsable"),
    ]


@pytest.mark.parametrize("field", ["max_tokens", "num_decoys", "call_s", "total_s"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        CheckConfig(**{field: 0})  # type: ignore[arg-type]
