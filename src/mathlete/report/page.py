"""The report of a run: one HTML document that needs nothing beside itself.

Knows a `RunRecord` and how its page is put together. The page fetches nothing, and its content
security policy allows the one style sheet and the one script by their hashes; the script is a
convenience, and without it everything can be read.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mathlete.core.attempt import Attempt
from mathlete.core.errors import StorageError
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.post_mortem import post_mortem
from mathlete.lab.rightness import attempt_is_right
from mathlete.lab.run_habits import habits_of
from mathlete.report.attempt import AttemptView
from mathlete.report.confidence import curve_of, shared_ceiling
from mathlete.report.course_section import render_course
from mathlete.report.detail import plan_detail
from mathlete.report.markup import Html, join, tag
from mathlete.report.overview import render_overview, render_title
from mathlete.report.post_mortem import render_post_mortem
from mathlete.report.problem import render_problem
from mathlete.report.summary import ProblemSummary, summarise_run

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M2 13V3l6 7 6-7v10' fill='none' stroke='%230b6e69' stroke-width='2.4'/%3E%3C/svg%3E"
)

SKIP_LINK = tag("a", "Skip to the problems", href="#problems", class_="skip")
"""First on a page: whoever goes by keyboard need not pass all that is above the table."""


def render_report(run: RunRecord) -> str:
    """The report of a run, finished or not, as a complete HTML document. Pure; never raises on hostile text."""
    summary = summarise_run(run)
    pools = attempt_views(summary.problems)
    ceiling = shared_ceiling([view.curve for views in pools for view in views if view.curve is not None])
    num_plain = sum(not view.detail.typeset for views in pools for view in views)
    dissected = post_mortem(run)
    failed = {problem.number: problem for problem in dissected.problems}
    sections = [
        render_problem(problem, views, ceiling, failed=failed.get(problem.number))
        for problem, views in zip(summary.problems, pools, strict=True)
    ]
    findings = join([render_course(run), render_post_mortem(dissected, habits=habits_of(run))])
    overview = render_overview(run, summary, num_plain, findings)
    return render_document(render_title(run), join([SKIP_LINK, tag("main", overview, *sections)]))


def page_policy(live_script: Html | None = None) -> str:
    """The content security policy of a document of `render_document`."""
    scripts = [_asset("script.js"), *([] if live_script is None else [live_script])]
    quoted = " ".join(f"'{_digest(script)}'" for script in scripts)
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(_asset('style.css'))}'",
            f"script-src {quoted}",
            "img-src data:",
            *([] if live_script is None else ["connect-src 'self'"]),
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def render_document(title: str, body: Html, live_script: Html | None = None) -> str:
    """A complete document around `body`, with the report's style, script and content security policy.

    Args:
        title: of the document.
        body: what is in it.
        live_script: of a page that is served and may ask its server for what is new; None for one that fetches nothing.
    """
    style, script = _asset("style.css"), _asset("script.js")
    more = "" if live_script is None else tag("script", live_script)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=page_policy(live_script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("link", rel="icon", href=Html(_ICON)),
        tag("style", style),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body, tag('script', script), more), lang='en')}\n"


def write_report(run: RunRecord, path: Path | str) -> None:
    """Write the report to `path`, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_document(render_report(run), path)


def write_document(document: str, path: Path | str) -> None:
    """Write a document to `path`, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(document.encode())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(
            f"the report could not be written to {target}: {error.strerror or error}. "
            "Nothing of the run is lost: free some space or choose another folder, then write the report again."
        ) from error


def attempt_views(problems: Sequence[ProblemSummary]) -> list[list[AttemptView]]:
    """What is shown of every attempt, finished ones first, each problem's in the order of launching."""
    pools = []
    for problem in problems:
        finished = sorted(problem.record.attempts, key=lambda attempt: attempt.index)
        unfinished = problem.record.unfinished.items()
        pools.append(
            [(attempt.id, attempt, attempt.turns) for attempt in finished]
            + [(name, None, turns) for name, turns in unfinished]
        )
    plan = plan_detail([[turns for _, _, turns in pool] for pool in pools])
    return [
        [
            AttemptView(
                name.rpartition("#")[2],
                attempt,
                turns,
                curve_of([turn.entropies for turn in turns]),
                detail,
                tuple(problem.record.rewindings.get(name, ())),
                tuple(problem.record.beam_levels.get(name, ())),
                _is_right(problem.record, attempt),
            )
            for (name, attempt, turns), detail in zip(pool, details, strict=True)
        ]
        for problem, pool, details in zip(problems, pools, plan, strict=True)
    ]


def _is_right(record: ProblemRecord, attempt: Attempt | None) -> bool | None:
    if attempt is None or attempt.answer is None:
        return None
    return attempt_is_right(record, attempt)


def _asset(name: str) -> Html:
    return Html(resources.files("mathlete.report").joinpath(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
