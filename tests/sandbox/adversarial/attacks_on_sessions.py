"""Attacks that only a cell of a session can try: on its supervisor, its snapshot, and the cells that come after it."""

from __future__ import annotations

from attack import Attack, ends_with

from mathlete.core.code import CodeLimits

_SHORT = CodeLimits(wall_s=0.5, memory_bytes=1 << 30)
# What finds the connection to the supervisor, and sends on it.
_WIRES = """
            import array, json, stat
            def is_socket(fd):
                try: return stat.S_ISSOCK(os.fstat(fd).st_mode)
                except OSError: return False
            wires = [socket.socket(fileno=os.dup(fd)) for fd in range(3, 128) if is_socket(fd)]
            def say(message, *descriptors):
                for wire in wires:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    try: wire.sendmsg([message], rights if descriptors else [], socket.MSG_DONTWAIT)
                    except OSError: pass
"""

SESSIONS = (
    Attack(
        "forge_end",
        "says that it has ended well, goes on, and fails",
        _WIRES
        + """
            say(json.dumps({"ended": 0}).encode())
            time.sleep(0.05)
            raise SystemExit(3)
            """,
        ends_with("ok", "error"),  # it may lie about itself, and "the attack ended" is never printed
        limits=_SHORT,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "forge_reports_of_others",
        "says what only the supervisor or the snapshot may say",
        _WIRES
        + """
            for message in ({"copy": True}, {"failed": "no"}, {"goes_on": True, "exit_code": 0, "keeps": True},
                            {"layers": ["none"]}, {"started": True}, {"ended": True}, {"ended": "0"}, {"ended": 10**9}):
                if "ended" not in message or not isinstance(message["ended"], int): say(json.dumps(message).encode())
            say(b"")
            raise SystemExit(3)
            """,
        ends_with("error", "timeout"),
        limits=_SHORT,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "flood_supervisor",
        "says without end what is no message, with descriptors",
        _WIRES
        + """
            noise = [b"[" * 60000, b"9" * 60000, os.urandom(999), b"{}", b'{"ended": []}', b'{"ended": "1"}', b"null"]
            n = 0
            while True:
                say(noise[n % len(noise)], *([0, 1, 2] if n % 3 == 0 else []))
                n += 1
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "flood_gate",
        "has the supervisor decide on signals without end, from many threads",
        """
            import threading
            threading.stack_size(65536)
            def ask():
                while True: c.kill(os.getpid(), 0), c.kill(1, 0)
            for _ in range(20): threading.Thread(target=ask, daemon=True).start()
            ask()
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "cut_wire",
        "hangs up on its supervisor",
        _WIRES
        + """
            for wire in wires: wire.shutdown(socket.SHUT_RDWR)
            """,
        ends_with("ok", "error", "killed", "timeout"),
        limits=_SHORT,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "steal_snapshot",
        "has what makes the snapshot of the next cell run its own code in it",
        """
            fork = os.fork
            def steal():
                pid = fork()
                if pid == 0:
                    tried('more processes', fork)
                    while True: time.sleep(99)
                return pid
            os.fork = steal
            """,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "break_snapshot",
        "lays a filter by which forks do nothing and seem to succeed",
        r"""
            import struct
            rules = (0x20, 0, 0, 0), (0x15, 0, 1, 56 if os.uname().machine == "x86_64" else 220), (6, 0, 0, 0x50000), (
                6, 0, 0, 0x7FFF0000)
            program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *rule) for rule in rules))
            class Filter(ctypes.Structure): _fields_ = [("size", ctypes.c_ushort), ("at", ctypes.c_void_p)]
            call(c.prctl, 22, 2, ctypes.byref(Filter(len(rules), ctypes.addressof(program))), 0, 0)
            """,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "fork_while_it_may",
        "leaves threads that fork whenever the session's process may make its snapshot",
        """
            import threading
            def bomb():
                while True:
                    try:
                        if os.fork() == 0: time.sleep(99)
                    except OSError: pass
            for _ in range(4): threading.Thread(target=bomb, daemon=True).start()
            """,
        is_refused=False,
    ),
    Attack(
        "kill_the_next",
        "leaves a thread that ends the process when the next cell has begun",
        """
            import threading
            def wait(): time.sleep(0.05); os._exit(0)
            threading.Thread(target=wait, daemon=True).start()
            """,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "hooks_for_the_next",
        "leaves hooks that run in the harness between the cells",
        """
            import builtins, json, random
            def end(*rest, **more): os._exit(0)
            sys.settrace(end)
            sys.setprofile(end)
            for place, name in ((json, 'dumps'), (json, 'loads'), (random, 'getstate'), (os, 'fstat'), (os, 'dup2'),
                                (builtins, 'open'), (builtins, 'compile'), (builtins, 'exec')):
                setattr(place, name, end)
            """,
        ends_with("ok", "error"),
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "exit_process",
        "ends its process, with a code of success",
        "sys.stdout.flush()\nos._exit(0)",
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "memory_that_stays",
        "keeps more from cell to cell than it may have",
        """
            kept = [bytearray(os.urandom(1 << 16)) * 16 for _ in range(600)]
            """,
        ends_with("memory"),
        limits=CodeLimits(wall_s=20, memory_bytes=300 << 20),
        is_refused=False,
    ),
    Attack(
        "files_that_stay",
        "keeps files from cell to cell until there is no more room",
        """
            for i in range(999): open(f'{i}', 'wb').write(bytes(1 << 20))
            """,
        ends_with("error", "memory", "killed"),
        limits=CodeLimits(wall_s=5, memory_bytes=1 << 30, file_bytes=1 << 20),
        is_refused=False,
    ),
)
