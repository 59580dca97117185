"""Draw docs/report.png and docs/report-problem.png: the report of a run as a browser shows it.

    python docs/make_report_picture.py runs/<run of examples/problems.csv> --problem 11

The run must be of problems that may be shown (`examples/problems.csv`). Needs Chromium. Nothing is touched up: the
first picture is the top of the page, the second one problem's section with its story and an attempt unfolded.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from page_picture import shoot

from mathlete.core.record import fold_run
from mathlete.lab.run_store import RunStore
from mathlete.report import render_report

DOCS = Path(__file__).parent
TOP_HEIGHT, PROBLEM_HEIGHT = 2080, 2000


def main() -> None:
    """Read the run, draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--problem", type=int, default=1, help="number of the problem in the second picture")
    given = parser.parse_args()
    with RunStore.read(given.run / "run.sqlite") as store:
        page = render_report(fold_run(store.events()))
    draw(page, DOCS / "report.png", TOP_HEIGHT)
    draw(one_problem(page, given.problem), DOCS / "report-problem.png", PROBLEM_HEIGHT)


def one_problem(page: str, number: int) -> str:
    """The page with nothing but one problem's section, its story and its first attempt unfolded."""
    found = re.search(rf'<section id="problem-{number}".*?(?=<section id="problem-|</main>)', page, re.DOTALL)
    if found is None:
        sys.exit(f"the run has no problem {number}")
    section = found[0].replace('<details class="decisions">', '<details class="decisions" open>')
    section = section.replace('<details class="attempt right', '<details open class="attempt right', 1)
    return re.sub(r"<main>.*</main>", lambda _: f"<main>{section}</main>", page, flags=re.DOTALL)


def draw(page: str, picture: Path, height: int) -> None:
    """Write the picture of the top of a page."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        shoot(source.as_uri(), picture, height)


if __name__ == "__main__":
    main()
