"""The figures of `mathlete bench` as tables and as JSON. Knows rows; does not know how they were measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]

_DIGITS = 4


def print_json(rows: Sequence[Row]) -> None:
    """A list of objects, numbers to four significant digits."""
    typer.echo(json.dumps([{name: _rounded(value) for name, value in row.items()} for row in rows], indent=2))


def print_engine(rows: Sequence[Row], console: Console) -> None:
    """One line a workload, the roofline beside the figure."""
    if not rows:
        return
    table = _table("precision", "attempts", "tokens/s", "decode", "roofline", "first", "step", "p95")
    for row in rows:
        share = row["decode_tokens_per_s"] / row["roofline_tokens_per_s"]
        size = f"{row['problems']} x {row['attempts']}" if row["problems"] > 1 else str(row["attempts"])
        table.add_row(
            _precision(row),
            size,
            f"{row['tokens_per_s']:.1f}",
            f"{row['decode_tokens_per_s']:.1f}",
            f"{row['roofline_tokens_per_s']:.0f} ({share:.0%})",
            f"{row['first_token_s']:.2f} s",
            f"{1000 * row['step_s']:.0f} ms",
            f"{1000 * row['step_p95_s']:.0f} ms",
        )
    console.print(table)
    for line in dict.fromkeys(_machine_line(row) for row in rows):
        console.print(line, highlight=False, soft_wrap=True)
    first = rows[0]
    console.print(
        f"{first['prompt_tokens']} prompt + {first['new_tokens']} new tokens, medians of {first['repeats']}, "
        f"{first['threads']} threads, {first['kernels']} kernels, {first['model']}",
        highlight=False,
        soft_wrap=True,
    )


def print_starts(rows: Sequence[Row], console: Console) -> None:
    """One line a kind of start, medians."""
    if not rows:
        return
    table = _table("precision", "start", "loaded", "first token", "of")
    for precision, start in dict.fromkeys((row["precision"], row["start"]) for row in rows):
        group = [row for row in rows if (row["precision"], row["start"]) == (precision, start)]
        loaded, token = (statistics.median(row[name] for row in group) for name in ("load_s", "first_token_s"))
        table.add_row(precision, start, f"{loaded:.2f} s", f"{token:.2f} s", str(len(group)))
    console.print(table)


def print_speculation(rows: Sequence[Row], console: Console) -> None:
    """One line a method; the ratio is to the same attempts without guessing, with its 95 % interval."""
    if not rows:
        return
    table = _table("method", "off", "on", "ratio [95 %]", "worst", "tokens/step", "accepted", "drafted")
    for row in rows:
        if "speedup" not in row:
            table.add_row(row["method"], *["-"] * 7)
            continue
        table.add_row(
            row["method"],
            f"{row['off_tokens_per_s']:.1f}",
            f"{row['tokens_per_s']:.1f}",
            f"{row['speedup']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            f"{row['worst_speedup']:.2f}",
            f"{row['tokens_per_draw']:.2f}",
            f"{row['acceptance']:.0%}",
            f"{row['drafted_share']:.0%}",
        )
    console.print(table)
    first = rows[0]
    lines = [f"{row['method']}: {row['guesses']}" for row in rows]
    lines.append(
        f"off, on: tokens/s of {first['attempts']} attempts at once, {first['new_tokens']} tokens each; accepted: of "
        f"the drafted; drafted: of all; {first['threads']} threads, {first['kernels']} kernels, {first['model']}"
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _precision(row: Row) -> str:
    """With "auto", what it chose for this many attempts."""
    return f"auto ({row['weights']})" if row["precision"] == "auto" else str(row["precision"])


def _machine_line(row: Row) -> str:
    products = ""
    if row["peak_gop_per_s"] is not None:
        products = f", multiplies {row['peak_gop_per_s']:.0f} GOP/s ({row['gop_per_s']:.0f} used)"
    return (
        f"{_precision(row)}, {row['attempts']} at once: this machine reads {row['read_gb_per_s']:.1f} GB/s "
        f"({row['weight_gb_per_s']:.1f} used){products}; {row['kv_bytes_per_attempt'] / 2**20:.1f} MiB of keys and "
        "values each"
    )


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def print_policies(rows: Sequence[Row], console: Console) -> None:
    """One line a policy; the ratio is to first-come-first-served, with its 95 % interval."""
    table = _table("policy", "settled", "of fcfs's [95 %]", "latency", "stalls", "fair")
    for row in rows:
        ratio = row["settled_ratio"]
        table.add_row(
            row["policy"],
            f"{row['settled_s']['mean']:.1f} s",
            f"{ratio['mean']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
            f"{row['latency_s']['mean']:.1f} s",
            f"{row['stalls']:.0f}",
            f"{row['jain']:.2f}",
        )
    console.print(table)
    console.print(
        "settled: mean time to a problem's first settled vote; stalls: request-steps waiting though they could be "
        "served; fair: Jain's index over problems at half of the work",
        highlight=False,
        soft_wrap=True,
    )
