"""The viewer in a real browser: a page follows a run without being loaded again, by keyboard too, and in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from driven_browser import CHROMIUM, browsing
from test_viewer_live import served
from written_run import create, write_steps

from mathlete.viewer.index import Catalogue

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]
TAB, ENTER = ("Tab", 9), ("Enter", 13)


def test_a_run_is_followed(tmp_path: Path) -> None:
    with create(tmp_path) as store, served(Catalogue(folders=[tmp_path])) as address, browsing(tmp_path) as browser:
        steps = write_steps(store, hostile=True)
        next(steps), next(steps)
        browser.go(f"{address}runs/r1")
        browser.wait_for("document.querySelector('#live').classList.contains('running')")
        browser.value("window.notLoadedAgain = true; document.querySelector('.scroll').focus()")
        next(steps)
        browser.wait_for(
            "document.querySelector('#row-1 .num').textContent === '0 of 2' || "
            "document.querySelector('#row-1').textContent.includes('0 of 2')"
        )
        for _ in steps:
            pass
        browser.wait_for("document.querySelector('#live').textContent === 'Over.'")
        browser.wait_for("document.querySelector('#row-1').textContent.includes('right')")
        assert browser.value("window.notLoadedAgain === true")
        math = "document.querySelector('#row-1 math').getBoundingClientRect()"
        assert browser.value(f"{math}.width > 10 && {math}.height > 5")

        # By keyboard alone: to the first problem, and open one of its attempts.
        for _ in range(60):
            browser.press(*TAB)
            if browser.value("(document.activeElement.getAttribute('href') || '').endsWith('/problems/1')"):
                break
        browser.press(*ENTER)
        browser.wait_for("location.pathname === '/runs/r1/problems/1' && document.readyState === 'complete'")
        browser.value("document.querySelector('details.attempt summary').focus()")
        browser.press(*ENTER)
        browser.wait_for("document.querySelector('details.attempt').open")
        assert browser.value("document.title !== 'intruded' && document.querySelectorAll('img').length === 0")
        assert browser.complaints == []


def test_what_is_open_stays_open_while_attempts_come_in(tmp_path: Path) -> None:
    with create(tmp_path) as store, served(Catalogue(folders=[tmp_path])) as address, browsing(tmp_path) as browser:
        steps = write_steps(store)
        next(steps), next(steps)
        browser.go(f"{address}runs/r1/problems/1")
        browser.wait_for("document.querySelectorAll('details.attempt').length === 1")
        browser.value(
            "document.querySelector('details.attempt').open = true;"
            "document.querySelector('details.attempt summary').focus()"
        )
        next(steps)
        browser.wait_for("document.querySelectorAll('details.attempt').length === 2")
        assert browser.value("document.querySelector('details.attempt').open")
        assert browser.value("document.activeElement === document.querySelector('details.attempt summary')")
        assert not browser.value("document.querySelectorAll('details.attempt')[1].open")
        assert browser.complaints == []


def test_a_filter_stays_while_rows_change(tmp_path: Path) -> None:
    with create(tmp_path) as store, served(Catalogue(folders=[tmp_path])) as address, browsing(tmp_path) as browser:
        steps = write_steps(store)
        next(steps), next(steps)
        browser.go(f"{address}runs/r1")
        browser.wait_for("document.querySelector('[data-show=running]') !== null")
        browser.value("document.querySelector('[data-show=running]').click()")
        assert browser.value("document.querySelector('#row-2').hidden && !document.querySelector('#row-1').hidden")
        next(steps)
        browser.wait_for("document.querySelector('#row-1').textContent.includes('0 of 2')")
        assert browser.value("document.querySelector('#row-2').hidden && !document.querySelector('#row-1').hidden")


def test_a_viewer_that_is_gone_is_told(tmp_path: Path) -> None:
    with create(tmp_path) as store, browsing(tmp_path) as browser:
        next(write_steps(store))
        with served(Catalogue(folders=[tmp_path])) as address:
            browser.go(f"{address}runs/r1")
            browser.wait_for("document.querySelector('#live').classList.contains('running')")
        browser.wait_for("document.querySelector('#live').textContent.includes('No connection')")
