"""Attacks by using too much: memory, output, processor time, descriptors, and what all of a machine share."""

from __future__ import annotations

from attack import Attack, ends_with, prints

from mathlete.core.code import CodeLimits

_SHORT = CodeLimits(wall_s=0.5, memory_bytes=1 << 30)
_SMALL = CodeLimits(wall_s=10, memory_bytes=1 << 30)
_FLOOD = CodeLimits(wall_s=10, memory_bytes=1 << 30, output_bytes=20_000)
_SECCOMP = (frozenset({"seccomp"}),)

RESOURCES = (
    Attack(
        "memory_at_once",
        "asks for all memory",
        "x = [0] * 10**11",
        ends_with("memory"),
        limits=_SMALL,
        is_refused=False,
    ),
    Attack(
        "memory_growing",
        "fills memory piece by piece, and goes on when it is refused",
        """
            kept = []
            while True:
                try:
                    kept.append(bytearray(1 << 24))
                except MemoryError:
                    break
            tried('more', lambda: bytearray(1 << 28))
            print(sum(map(len, kept)) < 400 << 20)
            """,
        holds=prints("True\n"),
        limits=CodeLimits(wall_s=10, memory_bytes=400 << 20),
    ),
    Attack(
        "memory_mapped",
        "maps memory: private, shared, of files, locked",
        """
            import mmap
            for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
                tried('map', lambda: mmap.mmap(-1, 1 << 34, flags | mmap.MAP_ANONYMOUS))
                tried('populate', lambda: mmap.mmap(-1, 1 << 31, flags | mmap.MAP_ANONYMOUS | 0x8000))
            tried('mlockall', lambda: call(c.mlockall, 3))
            page = ctypes.create_string_buffer(1 << 16)
            tried('mlock', lambda: call(c.mlock, page, 1 << 16))
            """,
        limits=_SMALL,
    ),
    Attack(
        "memory_of_the_kernel",
        "keeps memory that counts for nobody: segments, queues, memory files, rings",
        """
            tried('shmget', lambda: call(c.shmget, 0, 1 << 20, 0o1600))
            tried('msgget', lambda: call(c.msgget, 0, 0o1600))
            tried('semget', lambda: call(c.semget, 0, 1, 0o1600))
            tried('mq_open', lambda: call(c.mq_open, b'/' + MARK.encode(), 0o102, 0o600, None))
            tried('memfd', lambda: os.memfd_create('x'))
            tried('secret', lambda: system_call((447, 447), 0))
            context = ctypes.c_ulong()
            tried('aio', lambda: system_call((206, 0), 60000, ctypes.byref(context)))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "pipes",
        "keeps as many pipes and sockets as it gets, and makes them large",
        """
            import fcntl
            kept = []
            try:
                while True: kept.append((os.pipe(), socket.socketpair()))
            except OSError as error: print('pipes: refused', error.errno)
            tried('size', lambda: fcntl.fcntl(kept[0][0][1], 1031, 1 << 20))
            print(len(kept) < 64)
            """,
        holds=prints("True\n"),
        needs=_SECCOMP,
        statuses_of_cell=ends_with("ok", "error"),  # the session's process needs a descriptor too
    ),
    Attack(
        "pending_signals",
        "uses up the signals that may wait for a user's processes, by timers",
        """
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, {34})
            n = 0
            while n < 20000 and c.sigqueue(os.getpid(), 34, 0) == 0: n += 1
            timer = ctypes.c_void_p()
            while n < 20000 and c.timer_create(0, None, ctypes.byref(timer)) == 0: n += 1
            print(n <= 2048)
            """,
        holds=prints("True\n"),
        is_refused=False,
    ),
    Attack(
        "output_stdout",
        "prints without end",
        "while True: print('x' * 999)",
        ends_with("output_limit"),
        limits=_FLOOD,
        is_refused=False,
    ),
    Attack(
        "output_stderr",
        "writes errors without end",
        "while True: os.write(2, b'x' * 999)",
        ends_with("output_limit"),
        limits=_FLOOD,
        is_refused=False,
    ),
    Attack(
        "output_both",
        "writes to both at once, from two threads",
        """
            import threading
            for fd in (1, 2):
                threading.Thread(target=lambda fd=fd: [os.write(fd, b'x' * 9999) for _ in iter(int, 1)]).start()
            """,
        ends_with("output_limit"),
        limits=_FLOOD,
        is_refused=False,
        statuses_of_cell=ends_with("ok", "output_limit"),
        spoils_session=True,  # its threads go on with the next cell
    ),
    Attack(
        "output_binary",
        "writes what is no text: broken UTF-8, NUL, surrogates, escapes of a terminal",
        r"""
            os.write(1, bytes(range(256)) + b'\xed\xa0\x80\xf5\0')
            print('\ud800', '\x1b]0;owned\7')
            """,
        holds=lambda result: _no_odd_characters(result.stdout),
        is_refused=False,
    ),
    Attack(
        "output_binary_flood",
        "floods with bytes of which each becomes a character of three",
        "while True: os.write(1, b'\\xff' * 4096)",
        ends_with("output_limit"),
        limits=_FLOOD,
        is_refused=False,
    ),
    Attack(
        "output_one_long_line",
        "keeps a single line in memory for ever",
        "sys.stdout.write('x' * (1 << 26))",
        ends_with("output_limit"),
        limits=_FLOOD,
        is_refused=False,
    ),
    Attack("spin", "computes for ever", "while True: pass", ends_with("timeout"), limits=_SHORT, is_refused=False),
    Attack("sleep", "sleeps past its time", "time.sleep(99)", ends_with("timeout"), limits=_SHORT, is_refused=False),
    Attack(
        "ignore_signals",
        "ignores every signal and every exception",
        """
            import signal
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            while True:
                try: time.sleep(99)
                except BaseException: pass
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "spin_in_c",
        "computes in C, where Python's signals do not reach",
        """
            import re
            re.match('(a*)*' * 20 + 'b', 'a' * 60)
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "big_integers",
        "computes a number that is too large, and prints it",
        "x = 9 ** (9 ** 9)",
        ends_with("timeout", "memory"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "digits",
        "prints a number whose digits take hours",
        """
            sys.set_int_max_str_digits(0)
            print(len(str(7 ** (7 ** 8))))
            """,
        ends_with("timeout", "memory"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "many_threads_spin",
        "takes every processor by threads that compute without the lock",
        """
            import hashlib, threading
            data = bytes(1 << 24)
            for _ in range(8): threading.Thread(target=lambda: [hashlib.sha256(data) for _ in iter(int, 1)]).start()
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
        statuses_of_cell=ends_with("ok", "timeout"),
    ),
    Attack(
        "timers",
        "sets alarms for ever, to interrupt whoever waits for it",
        """
            import signal
            signal.signal(signal.SIGALRM, lambda *rest: None)
            signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_PROF, 1e-4, 1e-4)
            end = time.monotonic() + 0.2
            while time.monotonic() < end: time.sleep(0.01)
            signal.setitimer(signal.ITIMER_REAL, 0)
            """,
        is_refused=False,
    ),
    Attack(
        "alarm",
        "has the kernel end it by an alarm",
        """
            import signal
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(0.3)
            """,
        ends_with("ok", "error"),  # the first process of its own namespace hears only what it has a handler for
        is_refused=False,
    ),
    Attack(
        "stop_itself",
        "stops itself, so that it neither runs nor ends",
        """
            import signal
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(9)
            """,
        # the first process of its own namespace cannot stop itself, and goes on to sleep
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
)


def _no_odd_characters(text: str) -> None:
    text.encode("utf-8")  # no lone surrogate
    assert "\\0" not in text and "\0" not in text
    assert "\ufffd" in text
