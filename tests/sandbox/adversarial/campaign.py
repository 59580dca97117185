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
_LIMITS = CodeLimits(wall_s=20)
_NEIGHBOURS = "neighbours"  # a session
_NEIGHBOUR = """
import builtins, json, math, os, random, sys
count = globals().get('count', 0) + 1
names = {'MARK', 'tried', 'mine'} & (set(globals()) | set(vars(builtins)))
print(math.sqrt(1764), len('abc'), json.dumps([1]), sorted(names), os.listdir('.'), os.environ.get('POISON'),
      os.umask(0o77) & 0o700, 2**61 % 97, sorted({'b', 'a'}), count)
"""
_UNDISTURBED = "42.0 3 [1] [] [] None 0 44 ['a', 'b'] {}\n"
_BEFORE = "state_of_session = [40, 2]\ndef add_state(): return sum(state_of_session)"
_AFTER = "print(state_of_session, add_state())"
_KEPT = "[40, 2] 42\n"


def selected_attacks(request: pytest.FixtureRequest) -> list[Attack]:
    """The attacks of a module's tests that are to be run now."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [item.callspec for item in items if item.module is request.module and hasattr(item, "callspec")]
    found = {call.params["attack"].name: call.params["attack"] for call in calls if "attack" in call.params}
    return list(found.values())


class Campaign:
    """Attacks in a pool; each is followed by a neighbour, which runs beside the next ones.

    In sessions, each attack is a cell between two others that share something, and all neighbours are cells of one
    session that counts them.
    """

    def __init__(
        self,
        pool: SandboxPool,
        arena: Arena,
        attacks: Iterable[Attack],
        *,
        in_sessions: bool = False,
        with_neighbours: bool = True,
    ) -> None:
        """Submit them all; returns at once."""
        self._pool = pool
        self._results: dict[str, ToolResult] = {}
        self._in_sessions = in_sessions
        self._with_neighbours = with_neighbours
        self.layers = frozenset(pool.describe_isolation())
        assert pool._zygote is not None
        self.zygote_pid = pool._zygote.pid
        fatal = int(signal.SIGKILL) if "pidns" in self.layers else 0
        names = {**arena.names, "ZYGOTE": self.zygote_pid, "FATAL": fatal}
        self._attacks = tuple(attack for attack in attacks if attack.is_held_off_by(self.layers))
        for attack in self._attacks:
            session = attack.name if in_sessions else None
            if in_sessions:
                pool.submit(f"before {attack.name}", _BEFORE, attack.limits, session)
            pool.submit(attack.name, attack.program(names), attack.limits, session)
            if in_sessions:
                pool.submit(f"after {attack.name}", _AFTER, _LIMITS, session)
            if with_neighbours:
                pool.submit(f"beside {attack.name}", _NEIGHBOUR, _LIMITS, _NEIGHBOURS if in_sessions else None)

    def result(self, run_id: str) -> ToolResult:
        """Of an attack by its name, or of one of its neighbours; waits for it."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while run_id not in self._results:
            assert time.monotonic() < give_up_s, f"no result for {run_id}"
            for done in self._pool.poll():
                self._results[done.run_id] = done.result
                if done.run_id.startswith("after "):
                    self._pool.end_session(done.run_id.removeprefix("after "))
            time.sleep(0.002)
        return self._results[run_id]

    def check(self, attack: Attack, arena: Arena) -> None:
        """Fail unless an attack was held off and nobody noticed; skips the test where a layer is missing."""
        if not attack.is_held_off_by(self.layers):
            pytest.skip(f"with no more than {', '.join(sorted(self.layers))} nobody claims that it is held off")
        attack.check(self.result(attack.name), arena.secret, is_cell=self._in_sessions)
        if self._with_neighbours:
            beside = self.result(f"beside {attack.name}")
            number = self._attacks.index(attack) + 1 if self._in_sessions else 1
            assert (beside.status, beside.stdout) == ("ok", _UNDISTURBED.format(number)), beside
            assert not beside.session_restarted
        if self._in_sessions:
            after = self.result(f"after {attack.name}")
            assert attack.spoils_session or (after.stdout, after.session_restarted) == (_KEPT, False), after
        arena.check()

    def check_nothing_is_left(self, arena: Arena) -> None:
        """Wait for everything, then fail when a process or a file is left, or the zygote was killed."""
        for attack in self._attacks:
            self.result(attack.name)
            if self._with_neighbours:
                self.result(f"beside {attack.name}")
        if self._in_sessions:
            self._pool.end_session(_NEIGHBOURS)
        give_up_s = time.monotonic() + 10
        while os.listdir(self._pool._room.name) and time.monotonic() < give_up_s:
            time.sleep(0.01)
        arena.check()
        arena.check_no_process()
        assert os.listdir(self._pool._room.name) == []
        assert self._pool._zygote is not None and self._pool._zygote.pid == self.zygote_pid, "the zygote was killed"
        assert children_of(self.zygote_pid) == []
