"""Attacks on what runs the program: the harness in its process, the interpreter, and its reports."""

from __future__ import annotations

from attack import Attack, ends_with, prints

from mathlete.core.code import CodeLimits

_SHORT = CodeLimits(wall_s=0.5, memory_bytes=1 << 30)
_SMALL = CodeLimits(wall_s=10, memory_bytes=1 << 30)

PYTHON = (
    Attack(
        "forge_reports",
        "writes reports of success to every descriptor that it finds",
        r"""
            n = 0
            report = {'wait_status': 0, 'layers': [], 'elapsed_s': 0, 'cpu_s': 0, 'max_rss_bytes': 0,
                      'too_many_threads': False, 'status': 'ok', 'ok': True}
            import json
            forged = json.dumps(report).encode() + b'\n'
            for fd in range(3, 4096):
                try: n += os.write(fd, forged) > 0
                except OSError: pass
            print('written', n)
            raise SystemExit(3)
            """,
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "close_everything",
        "closes every descriptor, those of the harness among them",
        """
            os.closerange(0, 4096)
            open('still', 'w').write('alive')
            raise SystemExit(3)
            """,
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "replace_everything",
        "puts something else on every descriptor",
        """
            r, w = os.pipe()
            for fd in range(3, 120):
                if fd not in (r, w): os.dup2(w, fd)
            print('replaced')
            """,
        ends_with("ok", "error"),
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "read_descriptors",
        "reads whatever waits on descriptors that it inherited",
        """
            import select
            for fd in range(3, 256):
                try: ready = select.select([fd], [], [], 0)[0]
                except (OSError, ValueError): continue
                if ready: tried(fd, lambda: os.read(fd, 1 << 16).decode() + '' or 1 / 0)
            tried('none', lambda: os.read(255, 1))
            """,
        spoils_session=True,
    ),
    Attack(
        "delete_tools",
        "deletes modules, builtins and the functions that end it",
        """
            import builtins, threading, atexit
            names = [name for name in sys.modules if name not in ('sys', 'builtins', 'os')]
            for name in names: del sys.modules[name]
            threading._shutdown = None
            atexit._run_exitfuncs = None
            os._exit = os.write = None
            keep = print
            for name in dir(builtins):
                if name not in ('print', 'delattr'): delattr(builtins, name)
            keep('deleted')
            """,
        ends_with("ok", "error", "killed"),
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "patch_harness",
        "finds the harness by frames and the garbage collector and replaces its functions",
        """
            import gc, types
            frame = sys._getframe()
            while frame.f_back:
                frame = frame.f_back
                for name, value in list(frame.f_globals.items()):
                    if isinstance(value, types.FunctionType): frame.f_globals[name] = lambda *a, **k: 0
            for one in gc.get_objects():
                if isinstance(one, types.FunctionType) and 'mathlete' in str(one.__module__):
                    one.__code__ = (lambda *a, **k: 0).__code__
            for module in gc.get_objects():
                if isinstance(module, types.ModuleType) and module.__name__.startswith('mathlete'):
                    for name in list(vars(module)): setattr(module, name, None)
            raise SystemExit(3)
            """,
        ends_with("error", "killed"),
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "secrets_in_memory",
        "prints what it finds of the process that it was forked from: frames, objects, the heap",
        """
            import gc
            frame = sys._getframe()
            while frame.f_back:
                frame = frame.f_back
                print(str(frame.f_locals)[:5000].replace('DONE', ''), len(str(frame.f_globals)))
            for one in gc.get_objects():
                if isinstance(one, dict) and 'PATH' in one: print(str(one)[:2000].replace('DONE', ''))
            heap = ctypes.addressof(ctypes.create_string_buffer(64)) & ~4095
            print(ctypes.string_at(heap, 4096).count(b'secret-'))
            """,
        holds=prints("\n0\n"),
        is_refused=False,
    ),
    Attack(
        "exit_values",
        "ends with values that are no exit codes",
        """
            class Odd(int):
                def __and__(self, other): raise KeyError('odd')
                def __str__(self): raise KeyError('odder')
            raise SystemExit(Odd(7))
            """,
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "exit_in_hook",
        "ends the process in an exit hook, with a code of success, after it failed",
        """
            import atexit
            atexit.register(os._exit, 0)
            1 / 0
            """,
        ends_with("ok", "error"),
        is_refused=False,
    ),
    Attack(
        "exception_bomb",
        "raises an error that cannot be shown",
        """
            class Bad(Exception):
                def __str__(self): raise self
                __repr__ = __str__
                @property
                def __cause__(self): raise SystemExit(0)
            raise Bad from Bad()
            """,
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "value_bomb",
        "ends in a value whose picture harms, and replaces print and stdout",
        """
            class Bad:
                def __repr__(self): os._exit(0)
                write = flush = property(lambda self: 1 / 0)
            sys.stdout = sys.stderr = sys.__stdout__ = Bad()
            sys.excepthook = sys.unraisablehook = None
            def print(*rest): pass
            """,
        ends_with("ok", "error"),
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "unpickle",
        "opens pickles that call functions and that grow without end",
        r"""
            import pickle
            class Run:
                def __reduce__(self): return os.system, ('touch ' + FOLDER + '/' + MARK,)
            tried('call', lambda: pickle.loads(pickle.dumps(Run())) and 1 / 0)
            class Open:
                def __reduce__(self): return open, (CANARY,)
            tried('open', lambda: pickle.loads(pickle.dumps(Open())))
            bomb = b'(lp0\n' + b'(g0\nl' * 0 + b'cbuiltins\nbytearray\n(I99999999999\ntR.'
            tried('grow', lambda: pickle.loads(bomb))
            """,
        needs=(frozenset({"landlock", "newroot"}), frozenset({"seccomp"})),
        limits=_SMALL,
    ),
    Attack(
        "recursion",
        "overflows the stack in Python, in C and in destructors",
        """
            sys.setrecursionlimit(10**9)
            def f(n): return f(n + 1)
            f(0)
            """,
        ends_with("memory", "error", "timeout"),
        limits=CodeLimits(wall_s=2, memory_bytes=1 << 30),
        is_refused=False,
    ),
    Attack(
        "compile_bombs",
        "crashes the compiler, and has it compute",
        """
            tried('nested', lambda: eval('(' * 9999 + ')' * 9999))
            tried('minus', lambda: eval('-' * 10**6 + '1'))
            tried('attributes', lambda: compile('x' + '.x' * 10**5, '', 'eval') and 1 / 0)
            """,
        ends_with("ok", "error", "memory"),
        limits=_SMALL,
        is_refused=False,
    ),
    Attack(
        "source_bomb",
        "is itself too deep for the compiler",
        "x = " + "(" * 500 + ")" * 500,
        ends_with("error", "memory"),
        is_refused=False,
    ),
    Attack(
        "collector_bomb",
        "raises and computes in destructors and weak references at the end",
        """
            import weakref
            class Bad:
                def __del__(self):
                    time.sleep(99)
            kept = Bad()
            kept.me = kept
            del kept
            import gc
            gc.collect()
            """,
        ends_with("timeout"),
        limits=_SHORT,
        is_refused=False,
    ),
    Attack(
        "audit_and_trace",
        "hooks every call, to run in what comes after it",
        """
            sys.settrace(lambda *rest: None)
            sys.setprofile(lambda *rest: None)
            sys.addaudithook(lambda name, rest: os._exit(0) if name == 'open' and False else None)
            import signal
            signal.set_wakeup_fd(-1)
            sys.setswitchinterval(99)
            """,
        is_refused=False,
        spoils_session=True,
    ),
    Attack(
        "poison_preloaded",
        "changes libraries that the next program gets from the same process",
        """
            import builtins, json, math, random
            math.sqrt = lambda x: 42
            builtins.len = lambda x: 42
            random.seed(1)
            json.dumps = None
            os.environ['POISON'] = '1'
            os.umask(0)
            """,
        is_refused=False,
        spoils_session=True,
        statuses_of_cell=ends_with("ok", "error"),  # what runs the cell uses them too
    ),
)
