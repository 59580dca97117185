"""The report of a run as one self-contained HTML page. Never imports torch."""

from mathlete.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
