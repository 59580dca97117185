"""The section on what failed: problems sorted by cause, with the pool to see and what one could do about it.

Knows a `PostMortem` and how to put it on a page. Judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from mathlete.lab.post_mortem import CAUSES, AttemptToll, Cause, FailedProblem, Overlooked, PostMortem
from mathlete.lab.run_habits import MIN_REASONING_CHARS, Habits, Tally
from mathlete.report.markup import Html, counted, shorten, tag
from mathlete.report.timeline import Link, format_s, in_page

CAUSE_WORDS: dict[Cause, str] = {
    "selection": "Selection",
    "extraction": "Extraction",
    "knowledge": "Knowledge",
    "no_answer": "No answer",
    "tool_error": "Tool error",
    "out_of_time": "Out of time",
    "cut_off": "Cut off",
}
_MEANING: dict[Cause, str] = {
    "selection": "The right answer was in the pool, and another one was chosen.",
    "extraction": "An answer was there and was not read: out of range, or the right number stands in an attempt that "
    "is not credited with it.",
    "knowledge": "Attempts came to answers, and none of them to the right one.",
    "no_answer": "Most attempts came to no answer, or to their limit of tokens.",
    "tool_error": "Most attempts ended with a program that failed.",
    "out_of_time": "The clock ended its attempts, or came before any was made.",
    "cut_off": "A person or a failing generator ended its attempts.",
}
_REMEDY: dict[Cause, str] = {
    "selection": "Another rule may choose better: replay the run under all selectors (mathlete replay). More attempts "
    "help where the right answer leads at more of them; checks help where it does not.",
    "extraction": "Read the attempts named below. If the number was the attempt's answer, the prompt should ask for it "
    "in a box, or the reading is at fault: report it. If it only passed through, this is a matter of knowledge.",
    "knowledge": "A stronger model, another way of working (--pillars), or many more attempts at a higher temperature; "
    "no rule can choose what is not there.",
    "no_answer": "Let attempts write more (--max-tokens), make them come to an end (--thinking-budget), or try a "
    "prompt that suits the model.",
    "tool_error": "Look at what the programs fail with: a missing package, a limit of time or memory that is too "
    "tight, or a model that writes programs that do not run.",
    "out_of_time": "A longer --budget, fewer attempts a problem, or a faster engine.",
    "cut_off": "Resume the run: attempts that were cut off are made again.",
}
_PLACES = {
    "box": "{gold} was boxed in attempt #{attempt}",
    "output": "a program of attempt #{attempt} printed {gold}",
    "last_number": "{gold} is the last number in attempt #{attempt}",
}
_MAX_ANSWERS, _MAX_OVERLOOKED = 8, 3
_MAX_UNFOLDED = 24  # failed problems that are shown without being asked for


def render_post_mortem(found: PostMortem, link: Link = in_page, habits: Habits | None = None) -> Html:
    """The section; empty before any problem has an answer.

    Args:
        found: what failed.
        link: where a problem is shown.
        habits: how the answers were come by; left out when None.
    """
    if not found.num_finished:
        return Html()
    causes = [cause for cause in CAUSES if found.of_cause(cause)]
    return tag(
        "section",
        tag("h2", "What failed, and why"),
        tag("p", _headline(found), class_="headline"),
        _tolls(found),
        *(_group(cause, found, link) for cause in causes),
        _unread(found.num_unread),
        _questions(habits) if habits is not None else "",
        class_="post-mortem",
        id="post-mortem",
    )


def cause_sentence(problem: FailedProblem, overview: str = "") -> Html:
    """Why one problem failed, for its own section; `overview` is the address of the page with all causes."""
    details = _overlooked(problem) if problem.cause == "extraction" else ""
    return tag(
        "p",
        tag("strong", f"{CAUSE_WORDS[problem.cause]}. "),
        _MEANING[problem.cause],
        f" {details}" if details else "",
        " ",
        tag("a", "What to do about it", href=f"{overview}#cause-{problem.cause}"),
        class_="cause",
    )


def _headline(found: PostMortem) -> str:
    if not found.num_graded:
        words = f"{len(found.problems)} of {found.num_finished} problems have no answer."
        return f"{words} Golds are not known, so wrong answers cannot be told."
    ungraded = found.num_finished - found.num_graded
    tail = f" Of {ungraded} more the right answer is not known." if ungraded else ""
    return f"{len(found.problems)} of {found.num_graded if not ungraded else found.num_finished} problems failed.{tail}"


def _tolls(found: PostMortem) -> Html:
    """Problems and attempts by cause, as a table with a bar for the problems."""
    most = max((len(found.of_cause(cause)) for cause in CAUSES), default=0)
    rows = []
    for cause in CAUSES:
        problems, toll = len(found.of_cause(cause)), found.tolls.get(cause, AttemptToll())
        if problems or toll.num_attempts:
            rows.append(_toll_row(cause, problems, toll, most))
    if found.right.num_attempts:
        rows.append(_row(tag("th", "Right", scope="row"), "", "—", found.right))
    if not rows:
        return Html()
    columns = [("Cause", "words"), ("Problems", "num"), ("", "share"), ("Attempts", "num"), ("Their tokens", "num")]
    head = tag(
        "tr", *(tag("th" if name else "td", name, scope="col" if name else None, class_=kind) for name, kind in columns)
    )
    caption = tag("caption", "Failed problems and attempts by cause", class_="hidden")
    table = tag("table", caption, tag("thead", head), tag("tbody", *rows))
    return tag("div", table, class_="scroll", role="region", aria_label="Causes", tabindex=0)


def _toll_row(cause: Cause, problems: int, toll: AttemptToll, most: int) -> Html:
    name = tag("a", CAUSE_WORDS[cause], href=f"#cause-{cause}") if problems else CAUSE_WORDS[cause]
    bar: Html | str = ""
    if problems:
        rect = tag("rect", width=max(1, round(100 * problems / most)), height=10, rx=2)
        bar = tag("svg", rect, viewBox="0 0 100 10", aria_hidden="true")  # the number beside it says the same
    return _row(tag("th", name, scope="row"), bar, str(problems), toll)


def _row(name: Html, bar: Html | str, problems: str, toll: AttemptToll) -> Html:
    return tag(
        "tr",
        name,
        tag("td", problems, class_="num"),
        tag("td", bar, class_="share"),
        tag("td", f"{toll.num_attempts:,}" if toll.num_attempts else "—", class_="num"),
        tag("td", f"{toll.num_tokens:,}" if toll.num_attempts else "—", class_="num"),
    )


def _group(cause: Cause, found: PostMortem, link: Link) -> Html:
    problems = found.of_cause(cause)
    heading = tag("h3", f"{CAUSE_WORDS[cause]} ", tag("span", counted(len(problems), "problem"), class_="quiet"))
    return tag(
        "details",
        tag("summary", heading, tag("span", _MEANING[cause], class_="meaning")),
        tag("p", tag("strong", "What one could do: "), _REMEDY[cause], class_="remedy", id=f"cause-{cause}"),
        tag("ul", *(_problem(problem, link) for problem in problems), class_="failed"),
        class_="cause-group",
        open=len(found.problems) <= _MAX_UNFOLDED,
    )


def _problem(problem: FailedProblem, link: Link) -> Html:
    name = tag("a", f"{problem.number} ", tag("bdi", shorten(problem.problem_id, 60)), href=link(problem.number))
    gold = f", right is {shorten(problem.gold, 24)}" if problem.gold is not None else ""
    parts = [f"chose {shorten(problem.answer, 24)}{gold}", _pool(problem), _overlooked(problem)]
    if not problem.pool and problem.stop_reason:
        parts.append(f"ended because: {shorten(problem.stop_reason, 90)}")
    return tag("li", name, tag("span", " ", "; ".join(part for part in parts if part), class_="quiet"))


def _pool(problem: FailedProblem) -> str:
    """The pool in short: "4 × 18, 2 × 26; 3 without an answer"."""
    shown = [f"{votes} × {shorten(answer, 16)}" for answer, votes in list(problem.pool.items())[:_MAX_ANSWERS]]
    if (num_more := len(problem.pool) - _MAX_ANSWERS) > 0:
        shown.append(f"{num_more} more")
    silent = _silent(problem.attempts, sum(problem.pool.values()))
    return "; ".join(part for part in (f"pool {', '.join(shown)}" if shown else "nobody voted", silent) if part)


def _silent(attempts: Mapping[Cause, int], num_votes: int) -> str:
    shown = [
        f"{count} × {CAUSE_WORDS[cause].lower()}"
        for cause, count in attempts.items()
        if cause not in ("knowledge", "extraction")
    ]
    return ", ".join(shown) if num_votes or shown else ""


def _overlooked(problem: FailedProblem) -> str:
    told = [_place(item, problem.gold or "") for item in problem.overlooked[:_MAX_OVERLOOKED]]
    if (num_more := len(problem.overlooked) - _MAX_OVERLOOKED) > 0:
        told.append(f"and {num_more} more")
    return ", ".join(told)


def _place(item: Overlooked, gold: str) -> str:
    attempt = shorten(item.attempt_id.rpartition("#")[2], 24)
    if item.place == "out_of_range":
        value = shorten(item.value, 24) if item.value else "a number"
        return f"attempt #{attempt} answered {value}, which is out of range"
    return _PLACES[item.place].format(gold=shorten(gold, 24), attempt=attempt)


def _unread(num_unread: int) -> Html:
    if not num_unread:
        return Html()
    words = "is not loaded here and was not searched for the right number."
    return tag("p", f"The text of {counted(num_unread, 'attempt')} {words}", class_="quiet note")


def _questions(habits: Habits) -> Html:
    """What was asked of a run that had failed, asked of this one."""

    def told(tally: Tally) -> str:
        return f"{tally.num}" + (f", {tally.num_right} of them right" if habits.knows_golds and tally.num else "")

    facts = [
        ("Attempts a problem", f"{habits.num_attempts / habits.num_answers:.1f}"),
        ("Answers after one attempt only", told(habits.one_pass)),
        ("Answers that one of several attempts gave", told(habits.one_vote)),
        ("Answers with several votes, but less than half", told(habits.minority)),
        ("Answers that a check supports", told(habits.checked)),
        ("Answers that a check refutes", told(habits.against_check)),
        ("Fallbacks: answers that nobody gave", told(habits.fallbacks)),
    ]
    if habits.num_with_program:
        share = f"{habits.num_straight_to_code:,} of {habits.num_with_program:,} that ran a program"
        facts.append((f"Straight to code, with less than {MIN_REASONING_CHARS} characters before it", share))
    if habits.knows_golds:
        facts.append(("Time on problems that were solved", format_s(habits.solved_s)))
        facts.append(("Time on problems that failed", format_s(habits.failed_s)))
    rows = (tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts)
    return tag(
        "details",
        tag("summary", tag("h3", "How the answers were come by")),
        tag("div", tag("table", tag("tbody", *rows)), class_="scroll", tabindex=0),
        class_="cause-group",
    )
