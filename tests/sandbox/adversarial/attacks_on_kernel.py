"""Attacks on the fences and the kernel: privileges, namespaces, mounts, and calls with a history."""

from __future__ import annotations

from attack import Attack, ends_with, prints, stderr_has

from mathlete.core.code import CodeLimits

_SECCOMP = (frozenset({"seccomp"}),)

KERNEL = (
    Attack(
        "become_root",
        "takes other users, groups and capabilities",
        """
            header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
            tried('capset', lambda: call(c.capset, header, data))
            tried('ambient', lambda: call(c.prctl, 47, 2, 21, 0, 0))
            tried('keep', lambda: call(c.prctl, 28, 1 << 5, 0, 0, 0))
            tried('groups', lambda: os.setgroups([0]))
            tried('other user', lambda: os.setuid(4242))
            tried('other group', lambda: os.setresgid(4242, 4242, 4242))
            print(data_of := (ctypes.c_uint32 * 6)(), c.capget(header, data_of), list(data_of), c.prctl(39, 0, 0, 0, 0))
            """,
        holds=prints(" 0 [0, 0, 0, 0, 0, 0] 1\n"),
    ),
    Attack(
        "set_uid_program",
        "makes a program that runs as its owner",
        """
            open('mine', 'w')
            tried('chmod', lambda: os.chmod('mine', 0o4755))
            tried('fchmod', lambda: os.fchmod(os.open('mine', os.O_RDWR), 0o4755))
            tried('exec', lambda: os.execv('/usr/bin/su', ['su']))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "new_namespaces",
        "makes namespaces in which it may do everything, and enters others'",
        """
            for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x80, 0x400):
                tried(hex(flag), lambda: call(c.unshare, flag))
                tried('thread', lambda: system_call((56, 220), flag | 17, 0, 0, 0, 0))
            tried('setns', lambda: call(c.setns, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "mounts",
        "mounts, unmounts, and changes its root",
        """
            tried('tmpfs', lambda: call(c.mount, b'x', b'.', b'tmpfs', 0, 0))
            tried('writable', lambda: call(c.mount, 0, b'/', 0, 32 | 4096, 0))
            tried('bind', lambda: call(c.mount, b'/', b'.', 0, 4096, 0))
            tried('umount', lambda: call(c.umount2, b'.', 2))
            tried('pivot', lambda: system_call((155, 41), b'.', b'.'))
            tried('chroot', lambda: os.chroot('/'))
            tried('setattr', lambda: system_call((442, 442), -100, b'/', 0, bytes(32), 32))
            tried('fsopen', lambda: system_call((430, 430), b'tmpfs', 0))
            tried('move', lambda: system_call((429, 429), -100, b'.', -100, b'/', 0))
            tried('tree', lambda: system_call((467, 467), -100, b'/', 1, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "keyrings",
        "reads and leaves keys in the kernel",
        """
            tried('add', lambda: system_call((248, 217), b'user', b'x', b'y', 1, -4))
            tried('get', lambda: system_call((250, 219), 0, -3, 1))
            tried('request', lambda: system_call((249, 218), b'user', b'x', 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "programs_in_the_kernel",
        "loads programs and modules into the kernel",
        """
            tried('bpf', lambda: system_call((321, 280), 0, bytes(64), 64))
            tried('module', lambda: system_call((175, 105), 0, 0, b''))
            tried('module by file', lambda: system_call((313, 273), 0, b'', 0))
            tried('kexec', lambda: system_call((246, 104), 0, 0, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "observe_kernel",
        "measures others by counters of the processor, logs and accounts",
        """
            tried('perf', lambda: system_call((298, 241), bytes(128), 0, -1, -1, 0))
            tried('syslog', lambda: system_call((103, 116), 3, ctypes.create_string_buffer(99), 99))
            tried('acct', lambda: call(c.acct, b'log'))
            tried('mounts', lambda: system_call((458, 458), 0, 0, 0, 0))
            tried('cookie', lambda: system_call((212, 18), 0, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "user_faults",
        "stops the kernel in the middle of a copy, as exploits do",
        """
            tried('userfaultfd', lambda: system_call((323, 282), 0))
            tried('userfaultfd user', lambda: system_call((323, 282), 1))
            tried('personality', lambda: call(c.personality, 0x0040000))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "machine_state",
        "reboots, renames, and sets the clock of the machine",
        """
            tried('reboot', lambda: call(c.reboot, 0))  # harmless where it works: the keys that reboot
            tried('name', lambda: socket.sethostname(socket.gethostname()))
            tried('domain', lambda: call(c.setdomainname, b'(none)', 6))
            tried('clock', lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
            tried('day', lambda: call(c.settimeofday, (ctypes.c_long * 2)(int(time.time()), 0), None))
            tried('adjust', lambda: system_call((159, 171), (ctypes.c_long * 64)(1)))
            tried('swap', lambda: system_call((168, 225), b'/dev/vda'))
            tried('sync', lambda: system_call((162, 81)))
            tried('hang up', lambda: system_call((153, 58)))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "newer_calls",
        "makes calls that are newer than the filter's table",
        """
            for number in range(470, 600):
                tried(number, lambda: system_call((number, number), 0, 0, 0, 0, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "other_numbering",
        "makes calls by the second numbering of 64-bit processors",
        """
            for number in (41, 57, 59, 101):
                tried(number, lambda: call(c.syscall, ctypes.c_long(0x40000000 | number), 0, 0, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "more_filters",
        "puts a filter of its own over the one that is there, and takes both away",
        r"""
            tried('mode 0', lambda: call(c.prctl, 22, 0, 0, 0, 0))
            tried('privileges', lambda: call(c.prctl, 38, 0, 0, 0, 0))
            tried('landlock', lambda: system_call((446, 446), 99, 0))
            allow = ctypes.create_string_buffer(b'\x06\0\0\0\0\0\xff\x7f')
            class Filter(ctypes.Structure): _fields_ = [('size', ctypes.c_ushort), ('at', ctypes.c_void_p)]
            c.prctl(22, 2, ctypes.byref(Filter(1, ctypes.addressof(allow))), 0, 0)
            tried('socket', socket.socket)
            tried('fork', os.fork)
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "raise_limits",
        "raises its own ceilings",
        """
            import resource
            for name in ('AS', 'FSIZE', 'NOFILE', 'MEMLOCK', 'MSGQUEUE', 'CORE', 'NICE', 'RTPRIO', 'SIGPENDING'):
                kind = getattr(resource, 'RLIMIT_' + name)
                soft, hard = resource.getrlimit(kind)
                tried(name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))
                tried(name, lambda: resource.setrlimit(kind, (-1, -1)))
            """,
    ),
    Attack(
        "terminal",
        "writes to the terminal of whoever started it, and types into it",
        """
            import fcntl
            for path in ('/dev/tty', '/dev/pts/0', '/dev/console'):
                tried(path, lambda: open(path, 'r+'))
            for fd in (0, 1, 2):
                for request in (0x5412, 0x541C, 0x540E):
                    tried('ioctl', lambda: fcntl.ioctl(fd, request, b'x'))
            tried('login', os.getlogin)
            """,
        needs=(frozenset({"landlock", "newroot"}),),
    ),
    Attack(
        "stdin",
        "waits for somebody to type",
        """
            print(repr(sys.stdin.read()), repr(os.read(0, 9)))
            tried('input', input)
            """,
        holds=prints("'' b''"),
    ),
    Attack(
        "crash_in_c",
        "crashes by a null pointer",
        "ctypes.string_at(0)",
        ends_with("error"),
        holds=stderr_has("ended by SIGSEGV"),
        is_refused=False,
    ),
    Attack(
        "core_dump",
        "leaves an image of its memory",
        """
            import resource
            tried('core', lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)))
            sys.stdout.flush()
            os.abort()
            """,
        ends_with("error"),
        holds=stderr_has("ended by SIG"),
    ),
    Attack(
        "crash_with_handler",
        "goes on after a crash by handling its signal for ever",
        """
            import faulthandler, signal
            faulthandler.enable()
            signal.signal(signal.SIGSEGV, lambda *rest: None)
            ctypes.string_at(0)
            """,
        ends_with("error", "timeout"),
        limits=CodeLimits(wall_s=0.5, memory_bytes=1 << 30),
        is_refused=False,
    ),
)
