"""A run to look at: six problems, and one of everything that can come of a problem.

Problems from GSM8K (openai/grade-school-math) and MATH (Hendrycks et al.), both MIT. The attempts are
written by hand in the manner of a small model.
"""

from __future__ import annotations

import random
from dataclasses import replace

from mathlete.cic.majority import Majority
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import Moment, ProblemRecord, RunRecord

STARTED = 1_764_096_000.0
ISOLATION = ("process", "rlimits", "no-network")


def entropies(num_tokens: int, seed: int, level: float = 0.25) -> tuple[float, ...]:
    """A plausible course: low mostly, with bursts at decisions."""
    noise = random.Random(seed)
    values, burst = [], 0.0
    for _ in range(num_tokens):
        burst = burst * 0.8 + (noise.random() * 2.2 if noise.random() < 0.06 else 0.0)
        values.append(min(4.0, noise.expovariate(1 / level) * 0.6 + burst))
    return tuple(values)


def turn(
    text: str,
    code: str | None = None,
    stdout: str = "",
    stderr: str = "",
    status: str = "ok",
    seconds: float = 0.21,
    seed: int = 0,
) -> Turn:
    num_tokens = max(8, len(text) // 3)
    result = None if code is None else ToolResult(status, stdout, stderr, seconds, ISOLATION)
    tool_text = None if code is None else f"\n```output\n{(stdout or stderr).strip()}\n```\n"
    course = entropies(num_tokens, seed)
    return Turn(text, code, result, tool_text, num_tokens, tuple(-value for value in course), course)


def attempt(
    problem_id: str, index: int, turns: tuple[Turn, ...], answer: str | None, seconds: float, **fields
) -> Attempt:
    course = [value for one in turns for value in one.entropies]
    features = {"mean_entropy": sum(course) / len(course), "mean_logprob": -sum(course) / len(course)} if course else {}
    source = None if answer is None else fields.pop("source", "boxed")
    return Attempt(
        id=f"{problem_id}#{index}",
        problem_id=problem_id,
        index=index,
        pillar="code",
        seed=7_000 + index,
        temperature=0.8,
        answer=answer,
        answer_source=source,
        turns=turns,
        num_tokens=sum(one.num_tokens for one in turns),
        elapsed_s=seconds,
        features=features,
        **fields,
    )


DUCKS = """Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her \
friends every day with four. She sells the remainder at the farmers' market daily for $2 per fresh duck egg. How much \
in dollars does she make every day at the farmers' market?"""

DUCKS_RIGHT = """Let's work through this step by step.

1. **Eggs laid** each day: $16$.
2. **Eggs used**: $3 + 4 = 7$ (breakfast and muffins).
3. **Eggs sold**: $16 - 7 = 9$, at $2 each.

So she earns

\\[
9 \\times 2 = 18
\\]

dollars, which is $18 a day. The answer is \\boxed{18}."""

DUCKS_PROGRAM = """eggs = 16
used = 3 + 4          # breakfast, then muffins
price = 2
print((eggs - used) * price)
"""

DUCKS_WRONG = """She has 16 eggs and eats 3, so she has $16 - 3 = 13$ eggs to sell. At $2 an egg, that is $26.

Final answer: $\\boxed{26}$"""

PAVEMENT = """For how many positive integers $n$ with $1 \\le n \\le 2{,}000$ is
\\[
\\sum_{k=1}^{n} k^3 = \\left( \\frac{n(n+1)}{2} \\right)^2
\\]
divisible by $7$, and what is the remainder of that number of integers when it is divided by $1{,}000$?"""

PAVEMENT_TEXT = """## Setting up

We know that $\\sum_{k=1}^{n} k^3 = \\left( \\frac{n(n+1)}{2} \\right)^2$. Since 7 is prime, it divides the square
if and only if it divides $\\frac{n(n+1)}{2}$, that is, if $n \\equiv 0 \\pmod 7$ or $n \\equiv -1 \\pmod 7$:

$$
\\begin{aligned}
7 \\mid n(n+1) &\\iff 7 \\mid n \\text{ or } 7 \\mid n+1 \\\\
&\\iff n \\equiv 0, 6 \\pmod{7}.
\\end{aligned}
$$

| residue | count up to 2000 |
|---|---|
| $n \\equiv 0$ | $\\lfloor 2000/7 \\rfloor = 285$ |
| $n \\equiv 6$ | $\\lfloor 2001/7 \\rfloor = 285$ |

Let me verify this with a short program.

```python
from sympy import Rational

def count(limit: int, prime: int = 7) -> int:
    \"\"\"How many n <= limit have prime | (n(n+1)/2)^2.\"\"\"
    total = 0
    for n in range(1, limit + 1):
        if (n * (n + 1) // 2) ** 2 % prime == 0:
            total += 1
    return total

print(count(2000) % 1000)
```"""

PAVEMENT_PROGRAM = PAVEMENT_TEXT.split("```python\n")[1].removesuffix("```")

POLAR = """Let $p(x)$ be a polynomial of degree 4 such that $p(n) = \\dfrac{1}{n^2}$ for $n = 1, 2, 3, 4, 5.$ \
If $p(6) = \\dfrac{a}{b}$ in lowest terms, find $a + b$ when $a, b > 0$; otherwise enter the value of
\\[f(x) = \\begin{cases} x^2 + 1 & \\text{if } x > 0, \\\\ -x & \\text{otherwise} \\end{cases}\\]
at $x = \\sqrt[3]{8} + \\binom{4}{2}.$"""

TRACE = """Traceback (most recent call last):
  File "program.py", line 4, in <module>
    solution = solve(equations, symbols)
               ^^^^^
NameError: name 'solve' is not defined"""

SLOW_PROGRAM = """from itertools import permutations

best = 0
for order in permutations(range(14)):
    best = max(best, sum(i * j for i, j in enumerate(order)))
print(best)
"""


def _problem(problem_id: str, statement: str, source: str, low: int = 0) -> Problem:
    return Problem(problem_id, statement, AnswerKind(low=low), source=source)


def _ducks() -> ProblemRecord:
    name = "gsm8k-test-0"
    with_code = turn(f"Compute it directly.\n\n```python\n{DUCKS_PROGRAM}```", DUCKS_PROGRAM, "18\n", seed=3)
    pool = (
        attempt(name, 0, (turn(DUCKS_RIGHT, seed=1),), "18", 4.1),
        attempt(name, 1, (turn(DUCKS_WRONG, seed=2),), "26", 3.2),
        attempt(name, 2, (with_code, turn("The program printed 18, so \\boxed{18}.", seed=4)), "18", 6.4),
        attempt(name, 3, (with_code,), "18", 5.0, source="stdout"),
        attempt(name, 4, (turn(DUCKS_RIGHT, seed=5),), "18", 4.4),
        attempt(name, 5, (turn(DUCKS_WRONG[:60], seed=6),), None, 2.2, failure="stopped"),
    )
    return _finished(_problem(name, DUCKS, "GSM8K"), pool, 0.4, 9.6, "18", "leader cannot be caught")


def _sums() -> ProblemRecord:
    name = "cubes-mod-7"
    checked = turn(PAVEMENT_TEXT, PAVEMENT_PROGRAM, "570\n", seed=11, seconds=0.64)
    guess = "Half of the residues work, so about $2000 \\cdot \\frac{2}{7} \\approx 571$. Hence $\\boxed{571}$."
    pool = (
        attempt(name, 0, (checked, turn("So the remainder is $\\boxed{570}$.", seed=12)), "570", 12.8),
        attempt(name, 1, (turn(guess, seed=13),), "571", 3.9),
        attempt(name, 2, (turn(guess, seed=14),), "571", 4.4),
        attempt(name, 3, (turn(guess, seed=15),), "571", 4.1),
        attempt(name, 4, (turn("We get $285 + 286 = 571$, hmm, or $285$?", seed=16),), None, 5.0, failure="no_answer"),
        attempt(name, 5, (turn("Counting:\n\n" + "$n = 7k$, then " * 60, seed=17),), None, 21.0, failure="length"),
        attempt(name, 6, (checked,), "570", 12.1, source="stdout"),
        attempt(name, 7, (turn("By symmetry $\\boxed{286}$.", seed=18),), "286", 2.6),
    )
    return _finished(_problem(name, PAVEMENT, "MATH-500, adapted"), pool, 9.8, 34.0, "570", "all attempts finished")


def _polynomial() -> ProblemRecord:
    name = "math500-polynomial"
    program = "from sympy import symbols\nx = symbols('x')\nequations = [x**2 - 1]\nsolution = solve(equations, x)\n"
    failing = turn(
        f"Use *Lagrange interpolation*:\n\n```python\n{program}```", program, "", TRACE, "error", 0.33, seed=21
    )
    slow = turn(f"```python\n{SLOW_PROGRAM}```", SLOW_PROGRAM, "", "", "timeout", 10.0, seed=22)
    pool = (
        attempt(
            name,
            0,
            (failing, turn("I forgot the import. Let me think again.", seed=23)),
            None,
            9.0,
            failure="tool_error",
        ),
        attempt(name, 1, (slow,), None, 14.5, failure="out_of_time"),
        attempt(name, 2, (turn("The value is $\\boxed{123456789}$.", seed=24),), None, 2.0, failure="out_of_range"),
    )
    return _finished(_problem(name, POLAR, "MATH-500, adapted"), pool, 34.1, 61.0, "65", "time share used up")


def _divisors() -> ProblemRecord:
    name = "math500-3"
    text = "Since $196 = 2^2 \\cdot 7^2$, the number of divisors is $(2+1)(2+1) = \\boxed{9}$."
    pool = tuple(attempt(name, i, (turn(text, seed=31 + i),), "9", 2.0 + i / 7) for i in range(4))
    statement = "How many positive whole-number divisors does 196 have?"
    return _finished(_problem(name, statement, "MATH-500"), pool, 61.2, 66.5, "9", "posterior 0.969")


def _running() -> ProblemRecord:
    name = "math500-speed"
    statement = (
        "The results of a training run are graphed below. Which runner, by number, is fastest? "
        '[asy]\nfor (int i = 1; i <= 7; ++i)\n{\n draw((i,0)--(i,6));\n}\nlabel("$O$", (0,0), SW);\n[/asy]\n\n'
        "Prices are \\$5 and $7 a ticket; ignore them."
    )
    done = attempt(name, 0, (turn("Runner 4 covers the most ground: \\boxed{4}", seed=41),), "4", 3.0)
    begun = (turn("Let me look at the slopes first: $\\frac{5}{4} > \\frac{4}{5}$ and", seed=42),)
    return ProblemRecord(
        problem=_problem(name, statement, "MATH-500, adapted"),
        attempts=(done,),
        opened_at_s=66.8,
        unfinished={f"{name}#1": begun, f"{name}#2": ()},
    )


def _waiting() -> ProblemRecord:
    statement = (
        "A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total does it take?"
    )
    return ProblemRecord(problem=_problem("gsm8k-test-1", statement, "GSM8K"))


def _finished(
    problem: Problem, pool: tuple[Attempt, ...], opened: float, ended: float, gold: str, reason: str
) -> ProblemRecord:
    return ProblemRecord(
        problem=problem,
        attempts=pool,
        selection=Majority().select(problem, pool),
        stop_reason=reason,
        opened_at_s=opened,
        finished_at_s=ended,
        gold=gold,
        group=problem.id,
        moments=_moments(pool, opened, ended, reason),
    )


def _moments(pool: tuple[Attempt, ...], opened: float, ended: float, reason: str) -> tuple[Moment, ...]:
    """All attempts launched at once, ending one after another, the last one as the problem does."""
    ends = [opened + (ended - opened) * (place + 1) / len(pool) for place in range(len(pool))]
    launch = {"action": "launch", "n": len(pool), "pillar": "code", "temperature": 0.8, "about": [], "round": 1}
    return (
        Moment(opened, "problem_opened", None, {"budget_s": 20.0, "affordable": 8}),
        Moment(opened, "decision", None, launch),
        *(Moment(opened, "attempt_started", item.id) for item in pool),
        *(Moment(at_s, "attempt_finished", item.id) for item, at_s in zip(pool, ends, strict=True)),
        Moment(ended, "decision", None, {"action": "stop", "reason": reason}),
        Moment(ended, "problem_finished"),
    )


def sample_run() -> RunRecord:
    """Interrupted while its fifth problem was open; right, wrong in the pool, never in the pool, right."""
    records = (_ducks(), _sums(), _polynomial(), _divisors(), _running(), _waiting())
    return RunRecord(
        config={
            "command": "mathlete evaluate examples/problems.csv --budget 2m",
            "model": "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M as W8A8",
            "budget_s": 120.0,
            "attempts": 8,
            "seed": 20251125,
            "version": "0.1.0",
            "temperature": 0.8,
            "top_p": 0.95,
        },
        problems={record.problem.id: record for record in records},
        elapsed_s=74.2,
        warnings=("The sandbox runs without a network namespace: unprivileged user namespaces are off here.",),
        started_wall_time=STARTED,
    )


def finished_run_without_gold() -> RunRecord:
    """The finished problems of the sample, as `solve` leaves them: no gold answers."""
    run = sample_run()
    records = {name: replace(record, gold=None) for name, record in run.problems.items() if record.selection}
    return replace(run, problems=records, finished="complete", warnings=())


def large_run(num_problems: int, num_attempts: int, num_tokens: int) -> RunRecord:
    """Many long attempts of about `num_tokens` tokens each."""
    text = (PAVEMENT_TEXT.split("```python")[0] + "\n\n") * max(1, num_tokens * 3 // 900)
    course = entropies(num_tokens, 0)
    shared = replace(turn(text, PAVEMENT_PROGRAM, "570\n"), entropies=course, num_tokens=num_tokens)
    records = []
    for number in range(num_problems):
        name = f"large-{number}"
        pool = tuple(
            attempt(name, i, (replace(shared, text=f"Attempt {i}. {text}"),), str(570 + i % 3), 30.0)
            for i in range(num_attempts)
        )
        problem = _problem(name, PAVEMENT, "MATH-500, adapted")
        records.append(_finished(problem, pool, 10.0 * number, 10.0 * number + 9, "570", "all attempts finished"))
    return RunRecord(
        config={"model": "large"},
        problems={record.problem.id: record for record in records},
        elapsed_s=10.0 * num_problems,
        finished="complete",
        started_wall_time=STARTED,
    )
