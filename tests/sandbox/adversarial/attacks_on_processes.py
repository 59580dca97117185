"""Attacks on other processes: signals, tracing, their limits and priorities, and processes of its own that stay."""

from __future__ import annotations

from attack import Attack, ends_with

from mathlete.core.code import CodeLimits

_SECCOMP = (frozenset({"seccomp"}),)

PROCESSES = (
    Attack(
        "signal_others",
        "kills its parent, its neighbours and everybody",
        """
            import signal
            for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1):
                tried(number, lambda: os.kill(VICTIM, number))
            for pid in OTHERS:
                tried(pid, lambda: os.kill(pid, FATAL))
                tried(pid, lambda: os.killpg(pid, FATAL))
            tried('all', lambda: os.kill(-1, FATAL))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "signal_by_other_calls",
        "sends signals by tkill, tgkill, sigqueue and descriptors of processes",
        """
            for pid in OTHERS:
                tried('tkill', lambda: system_call((200, 130), pid, FATAL))
                tried('tgkill', lambda: system_call((234, 131), pid, pid, FATAL))
                tried('sigqueue', lambda: call(c.sigqueue, pid, FATAL, 0))
                tried('pidfd', lambda: os.pidfd_open(pid))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "signal_own_group",
        "kills its process group, to take along who started it",
        """
            import signal
            os.kill(0, signal.SIGKILL)
            """,
        ends_with("error", "killed"),  # where there is no gate, it takes itself along and nobody else
        is_refused=False,
    ),
    Attack(
        "signal_by_file",
        "has the kernel send signals when a socket or a pipe becomes ready",
        """
            import fcntl, struct
            a, b = socket.socketpair()
            r, w = os.pipe()
            for pid in (PARENT, VICTIM, -PARENT):
                for fd in (a, r, 0, 1):
                    tried('own', lambda: fcntl.fcntl(fd, fcntl.F_SETOWN, pid))
                    tried('own_ex', lambda: fcntl.fcntl(fd, 15, struct.pack('ii', 1, pid)))
                for request in (0x8901, 0x8902):
                    tried('ioctl', lambda: fcntl.ioctl(a, request, struct.pack('i', pid)))
            tried('which', lambda: fcntl.fcntl(a, 10, 9))
            fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)
            b.send(b'x')
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "parent_death_signal",
        "stays when its supervisor dies, and has itself adopted",
        """
            tried('pdeathsig', lambda: call(c.prctl, 1, 0, 0, 0, 0))
            tried('dumpable', lambda: call(c.prctl, 4, 1, 0, 0, 0))
            c.prctl(36, 1, 0, 0, 0)
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "trace_others",
        "traces, reads and writes the memory of other processes",
        """
            here = ctypes.create_string_buffer(64)
            class Span(ctypes.Structure): _fields_ = [('at', ctypes.c_void_p), ('size', ctypes.c_size_t)]
            span = Span(ctypes.addressof(here), 64)
            for pid in OTHERS:
                for request in (0, 16, 0x4206):
                    tried('ptrace', lambda: call(c.ptrace, request, pid, 0, 0))
                tried('readv', lambda: call(c.process_vm_readv, pid, ctypes.byref(span), 1, ctypes.byref(span), 1, 0))
                tried('writev', lambda: call(c.process_vm_writev, pid, ctypes.byref(span), 1, ctypes.byref(span), 1, 0))
                tried('kcmp', lambda: system_call((312, 272), pid, pid, 0, 0, 0))
                tried('getfd', lambda: system_call((438, 438), 3, 0, 0))
                tried('madvise', lambda: system_call((440, 440), 3, ctypes.byref(span), 1, 4, 0))
                tried('pages', lambda: system_call((279, 239), pid, 0, 0, 0, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "limit_others",
        "takes memory, descriptors and processor time from other processes",
        """
            import resource
            for kind in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CORE):
                tried('victim', lambda: resource.prlimit(VICTIM, kind, (1, 1)))
                for pid in OTHERS:
                    tried('others', lambda: resource.prlimit(pid, kind))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "slow_others",
        "lowers the priority of others and ties them to one processor",
        """
            for pid in OTHERS & {VICTIM, os.getppid(), *range(1, 40)} if FATAL else {VICTIM}:
                tried('nice', lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
                tried('processors', lambda: os.sched_setaffinity(pid, [0]))
                tried('idle', lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
                tried('parameters', lambda: os.sched_setparam(pid, os.sched_param(0)))
                tried('disk', lambda: system_call((251, 30), 1, pid, 3 << 13))
            tried('all of the user', lambda: os.setpriority(os.PRIO_USER, 0, os.nice(0)))
            tried('disk of all', lambda: system_call((251, 30), 3, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "be_first",
        "gives itself more of the processors than others get",
        """
            tried('realtime', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
            tried('round robin', lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
            tried('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))
            tried('disk', lambda: system_call((251, 30), 1, 0, 1 << 13))
            """,
    ),
    Attack(
        "fork",
        "starts processes by every way that Python and C have",
        """
            import pty, signal, subprocess, multiprocessing
            tried('fork', os.fork)
            tried('forkpty', pty.fork)
            tried('vfork', lambda: system_call((57, 220), 17, 0))
            tried('clone', lambda: system_call((56, 220), signal.SIGCHLD, 0, 0, 0, 0))
            tried('clone3', lambda: system_call((435, 435), (ctypes.c_uint64 * 11)(), 88))
            tried('spawn', lambda: os.posix_spawn('/bin/true', ['true'], {}))
            tried('run', lambda: subprocess.run(['true']))
            tried('shell', lambda: os.system('true') and 1 / 0)
            tried('popen', lambda: os.popen('true').read())
            tried('pool', lambda: multiprocessing.Pool(2))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "exec",
        "becomes another program",
        r"""
            tried('python', lambda: os.execv(sys.executable, [sys.executable, '-c', 'print("DONE")']))
            tried('shell', lambda: os.execve('/bin/sh', ['sh', '-c', 'echo DONE'], {}))
            tried('fexecve', lambda: os.execve(os.open(os.__file__, os.O_RDONLY), ['x'], {}))
            open('mine', 'wb').write(b'#!/bin/sh\necho DONE\n')
            tried('own', lambda: os.execv('./mine', ['mine']))
            tried('execveat', lambda: system_call((322, 281), -100, b'/bin/sh', 0, 0, 0))
            tried('memory file', lambda: os.memfd_create('program'))
            tried('loader', lambda: os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/bin/echo', 'DONE']))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "fork_bomb",
        "starts processes until none can be started",
        """
            n = 0
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                try: n += os.fork() == 0
                except OSError: pass
            tried('fork', lambda: 1 / n)
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "daemon",
        "leaves a daemon: forks twice, with a session of its own",
        """
            def daemon():
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0: time.sleep(99)
                    os._exit(0)
            tried('daemon', daemon)
            tried('setsid', os.setsid)
            tried('group of the parent', lambda: os.setpgid(0, os.getpgid(PARENT)))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "thread_bomb",
        "starts threads until none can be started",
        """
            import threading
            threading.stack_size(32768)
            while True: threading.Thread(target=time.sleep, args=[99], daemon=True).start()
            """,
        ends_with("killed", "timeout", "memory", "error"),
        limits=CodeLimits(wall_s=1.5, memory_bytes=1 << 30),
        is_refused=False,
    ),
    Attack(
        "threads_that_stay",
        "ends while its threads go on, and has hooks that never end",
        """
            import atexit, threading
            threading.Thread(target=time.sleep, args=[99]).start()
            atexit.register(time.sleep, 99)
            """,
        ends_with("timeout"),
        limits=CodeLimits(wall_s=0.4, memory_bytes=1 << 30),
        is_refused=False,
        statuses_of_cell=ends_with("ok"),  # a cell is over when its main thread is
    ),
)
