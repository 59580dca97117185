"""Running many attacks at once through one pool, beside neighbours that compute and must not notice."""

from __future__ import annotations

import time
from collections.abc import Iterable

from arena import Arena
from attack import Attack

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.sandbox.pool import SandboxPool

_PATIENCE_S = 60.0
_LIMITS = CodeLimits(wall_s=10)
NEIGHBOUR = (
    "import builtins, json, math, os, random, sys\n"
    "names = {'MARK', 'tried', 'mine'} & (set(globals()) | set(vars(builtins)))\n"
    "print(math.sqrt(1764), len('abc'), json.dumps([1]), sorted(names), os.listdir('.'), os.environ.get('POISON'), "
    "os.umask(0o77) & 0o700, 2**61 % 97, sorted({'b', 'a'}))"
)
UNDISTURBED = "42.0 3 [1] [] [] None 0 44 ['a', 'b']\n"


class Campaign:
    """Attacks in a pool; each is followed by a neighbour, which runs beside the next ones."""

    def __init__(self, pool: SandboxPool, arena: Arena, attacks: Iterable[Attack]) -> None:
        """Submit them all; returns at once."""
        self._pool = pool
        self._results: dict[str, ToolResult] = {}
        pool.describe_isolation()
        assert pool._zygote is not None
        self.zygote_pid = pool._zygote.pid
        names = {**arena.names, "ZYGOTE": self.zygote_pid}
        self._attacks = tuple(attacks)
        for attack in self._attacks:
            pool.submit(attack.name, attack.program(names), attack.limits)
            pool.submit(f"beside {attack.name}", NEIGHBOUR, _LIMITS)

    def result(self, run_id: str) -> ToolResult:
        """Of an attack by its name, or of the neighbour that ran beside it; waits for it."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while run_id not in self._results:
            assert time.monotonic() < give_up_s, f"no result for {run_id}"
            self._results |= {done.run_id: done.result for done in self._pool.poll()}
            time.sleep(0.002)
        return self._results[run_id]

    def finish(self) -> None:
        """Wait for everything."""
        for attack in self._attacks:
            self.result(attack.name)
            self.result(f"beside {attack.name}")
