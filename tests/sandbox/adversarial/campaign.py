"""Running many attacks at once through one pool, beside neighbours that compute and must not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

import pytest
from arena import Arena
from attack import Attack
from sandbox_probe import children_of

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


def selected_attacks(request: pytest.FixtureRequest) -> list[Attack]:
    """The attacks of a module's tests that are to be run now."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [item.callspec for item in items if item.module is request.module and hasattr(item, "callspec")]
    found = {call.params["attack"].name: call.params["attack"] for call in calls if "attack" in call.params}
    return list(found.values())


class Campaign:
    """Attacks in a pool; each is followed by a neighbour, which runs beside the next ones."""

    def __init__(self, pool: SandboxPool, arena: Arena, attacks: Iterable[Attack]) -> None:
        """Submit them all; returns at once."""
        self._pool = pool
        self._results: dict[str, ToolResult] = {}
        pool.describe_isolation()
        assert pool._zygote is not None
        self.layers = frozenset(pool.describe_isolation())
        self.zygote_pid = pool._zygote.pid
        names = {
            **arena.names,
            "ZYGOTE": self.zygote_pid,
            "FATAL": int(signal.SIGKILL) if "pidns" in self.layers else 0,
        }
        self._attacks = tuple(attack for attack in attacks if attack.is_held_off_by(self.layers))
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

    def check(self, attack: Attack, arena: Arena) -> None:
        """Fail unless an attack was held off and nobody noticed; skips the test where a layer is missing."""
        if not attack.is_held_off_by(self.layers):
            pytest.skip(f"with no more than {', '.join(sorted(self.layers))} nobody claims that it is held off")
        attack.check(self.result(attack.name), arena.secret)
        beside = self.result(f"beside {attack.name}")
        assert (beside.status, beside.stdout) == ("ok", UNDISTURBED), beside
        arena.check()

    def check_nothing_is_left(self, arena: Arena) -> None:
        """Wait for everything, then fail when a process or a file is left, or the zygote was killed."""
        for attack in self._attacks:
            self.result(attack.name)
            self.result(f"beside {attack.name}")
        arena.check()
        arena.check_no_process()
        assert os.listdir(self._pool._room.name) == []
        assert self._pool._zygote is not None and self._pool._zygote.pid == self.zygote_pid, "the zygote was killed"
        assert children_of(self.zygote_pid) == []
