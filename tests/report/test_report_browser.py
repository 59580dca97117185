"""The report in a real browser: its script runs, nothing else does, nothing is refused, everything prints."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import sample_run

from mathlete.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr"
).split()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]


def browse(page: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def test_the_script_runs_and_the_console_is_silent(tmp_path: Path) -> None:
    done = browse(render_report(sample_run()), tmp_path, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    filters = re.search(r'<div class="filters js"[^>]*>', done.stdout)
    assert filters is not None and "hidden" not in filters[0]  # the script has shown what needs it


def test_the_policy_stops_a_script_that_got_in(tmp_path: Path) -> None:
    intruder = "<script>document.title = 'intruded'</script><img src=x onerror=\"document.title = 'intruded'\">"
    page = render_report(sample_run()).replace("</main>", intruder + "</main>")
    assert page.count("intruded") == 2
    done = browse(page, tmp_path, "--dump-dom")
    assert "<title>Mathlete: 6 problems" in done.stdout
    assert "Content Security Policy" in done.stderr


def test_everything_prints_even_without_the_script(tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on the path")
    page = re.sub(r"<script>.*?</script>", "", render_report(sample_run()), flags=re.DOTALL)
    browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    text = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert "NameError: name 'solve' is not defined" in text and text.count("Turn 1") >= 20


@pytest.mark.parametrize("width", [1000, 1100, 1280])
def test_the_table_of_problems_is_not_clipped(tmp_path: Path, width: int) -> None:
    run = sample_run()
    reason = "the leader cannot be caught by 3 outstanding attempts"
    formula = "If $a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r = 1$, find it."  # not broken
    wide = {
        name: replace(
            record,
            problem=replace(record.problem, statement=formula),
            attempts=tuple(replace(item, num_tokens=item.num_tokens + 23_456) for item in record.attempts),
            selection=None if record.selection is None else replace(record.selection, answer="99999", accepted=False),
            opened_at_s=0.0,
            finished_at_s=754.0,
            stop_reason=reason,
        )
        for name, record in run.problems.items()
    }
    measure = (
        "<script>const box = document.querySelector('.problems .scroll');"
        "document.title = `over by ${box.scrollWidth - box.clientWidth}`</script>"
    )
    page = render_report(replace(run, problems=wide)).replace("</main>", "</main>" + measure)
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    done = browse(page, tmp_path, "--dump-dom", f"--window-size={width},900")
    assert "<title>over by 0</title>" in done.stdout
