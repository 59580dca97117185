"""A stand-in for the Lean REPL that answers from a transcript: for tests, where there is no Lean.

`python -m mathlete.verify.lean.transcript_repl FILE` speaks the REPL's protocol on its input and output. FILE is a
JSON list of exchanges, {"expect": REGEX, "reply": {...}}, where REGEX is searched in the command that comes and
`$name` in the reply stands for what its group `name` matched. "sleep_s" waits before answering, "raw" is said in place
of a reply, "exit" ends the process, "allocate_mib" takes memory, "repeat": true keeps the exchange for later commands.
A command that no exchange expects ends the process with status 3. Environments are numbered as the REPL numbers them.

Transcripts are written after the documented format of github.com/leanprover-community/repl; they are not recordings.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Answer until the input ends, or the transcript says otherwise."""
    exchanges: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    next_env, lines, ballast = 0, [], []
    for line in sys.stdin:
        if line.strip():
            lines.append(line)
            continue
        command = json.loads("".join(lines))
        lines = []
        found = _expected(exchanges, command["cmd"])
        if found is None:
            return 3
        exchange, groups = found
        ballast.append(bytearray(exchange.get("allocate_mib", 0) << 20))
        time.sleep(exchange.get("sleep_s", 0))
        if "exit" in exchange:
            return int(exchange["exit"])
        if not exchange.get("repeat"):
            exchanges.remove(exchange)
        if "raw" in exchange:
            print(exchange["raw"], flush=True)
            continue
        reply = _filled({"env": next_env, **exchange["reply"]}, groups)
        next_env += 1
        print(json.dumps(reply, indent=1, ensure_ascii=False), end="\n\n", flush=True)
    return 0


def _expected(exchanges: list[dict[str, Any]], command: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    for exchange in exchanges:
        if (match := re.search(exchange["expect"], command, re.DOTALL)) is not None:
            return exchange, match.groupdict()
    return None


def _filled(value: Any, groups: dict[str, str]) -> Any:
    """The reply with the groups put in."""
    if isinstance(value, str):
        return re.sub(r"\$(\w+)", lambda name: groups.get(name[1], name[0]), value)
    if isinstance(value, list):
        return [_filled(part, groups) for part in value]
    if isinstance(value, dict):
        return {key: _filled(part, groups) for key, part in value.items()}
    return value


if __name__ == "__main__":
    sys.exit(main())
