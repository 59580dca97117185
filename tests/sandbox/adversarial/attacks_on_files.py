"""Attacks on what lies outside: reading it, writing it, finding it, the environment and other processes' /proc."""

from __future__ import annotations

from attack import Attack, ends_with, prints

from mathlete.core.code import CodeLimits

_HIDDEN = (frozenset({"landlock", "newroot"}),)
_WRITES = (*_HIDDEN, frozenset({"seccomp"}))

READING = (
    Attack("read_absolute", "reads the secret by its path", "tried('open', lambda: read(CANARY))", needs=_HIDDEN),
    Attack(
        "read_dotdot",
        "climbs out of the working directory",
        """
            tried('open', lambda: read('../' * 40 + CANARY.lstrip('/')))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_symlink",
        "puts a link to the secret into its directory and follows it",
        """
            os.symlink(CANARY, 'link')
            tried('open', lambda: read('link'))
            os.symlink('/', 'slash')
            tried('open', lambda: read('slash' + CANARY))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_hard_link",
        "links or renames the secret into its directory",
        """
            tried('link', lambda: os.link(CANARY, 'mine') or read('mine'))
            tried('rename', lambda: os.rename(CANARY, 'mine') or read('mine'))
            tried('exchange', lambda: system_call((316, 276), -100, CANARY.encode(), -100, b'mine', 2))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_proc_root",
        "reaches the root by way of /proc",
        """
            for place in ('self', 'thread-self', '1', str(PARENT), str(VICTIM)):
                for way in ('root', 'cwd'):
                    tried(place, lambda: read(f'/proc/{place}/{way}' + CANARY))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_proc_processes",
        "reads memory, environment and descriptors of every process",
        """
            for place in ['self', '1', str(PARENT), str(VICTIM), *map(str, range(1, 30))]:
                for name in ('environ', 'mem', 'maps', 'cmdline', 'auxv', 'stack', 'pagemap', 'status'):
                    tried(place, lambda: read(f'/proc/{place}/{name}'))
                for name in ('fd', 'fdinfo', 'map_files', 'task'):
                    tried(place, lambda: os.listdir(f'/proc/{place}/{name}'))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_own_memory_file",
        "writes its own memory by file, past every protection of pages",
        """
            tried('mem', lambda: open('/proc/self/mem', 'r+b'))
            tried('pid', lambda: open(f'/proc/{os.getpid()}/mem', 'wb'))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_by_descriptor",
        "opens paths relative to descriptors, some of which it inherited",
        """
            inner = os.open('.', os.O_RDONLY)
            tried('dir_fd', lambda: os.open('../' * 40 + CANARY.lstrip('/'), os.O_RDONLY, dir_fd=inner))
            for fd in range(0, 64):
                tried(fd, lambda: os.open(CANARY.lstrip('/'), os.O_RDONLY, dir_fd=fd))
            outside = None
            tried('path descriptor', lambda: read(f'/proc/self/fd/{os.open(CANARY, os.O_PATH)}'))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_openat2",
        "opens by openat2, by handle, and by mapping a file into memory",
        """
            how = (ctypes.c_uint64 * 3)(0, 0, 0)
            tried('openat2', lambda: system_call((437, 437), -100, CANARY.encode(), how, 24))
            handle = (ctypes.c_uint32 * 40)(128, 0)
            mount = ctypes.c_int()
            to_handle = lambda: system_call((303, 264), -100, CANARY.encode(), handle, ctypes.byref(mount), 0)
            tried('name_to_handle_at', to_handle)
            tried('open_by_handle_at', lambda: system_call((304, 265), -100, handle, 0))
            tried('open_tree', lambda: system_call((428, 428), -100, b'/', 1))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_io_uring",
        "has the kernel open the secret by a ring that filters do not see",
        """
            parameters = (ctypes.c_uint32 * 30)()
            tried('io_uring', lambda: system_call((425, 425), 8, parameters))
            """,
        needs=(frozenset({"seccomp"}),),
    ),
    Attack(
        "read_secret_by_c",
        "opens by libc, past everything that Python could check",
        """
            c.fopen.restype = ctypes.c_void_p
            tried('fopen', lambda: call(c.fopen, CANARY.encode(), b'r'))
            tried('open', lambda: call(c.open, CANARY.encode(), 0))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_system",
        "reads what tells of the machine and its users",
        """
            for path in ('/etc/passwd', '/etc/shadow', '/proc/kcore', '/dev/mem', '/dev/kmsg',
                         '/proc/net/tcp', '/proc/mounts', '/proc/self/mountinfo', '/proc/cmdline',
                         '/proc/config.gz', '/proc/1/environ'):
                tried(path, lambda: read(path))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "list_folders",
        "lists the folders that lead to it and to its libraries",
        """
            for path in ('..', '../..', '/', '/tmp', '/etc', '/dev', '/usr', os.path.dirname(sys.prefix)):
                tried(path, lambda: os.listdir(path))
            """,
        needs=(frozenset({"landlock"}),),
    ),
    Attack(
        "list_elsewhere",
        "lists folders in which it has no business",
        """
            for path in (FOLDER, '/home', '/proc', '/sys', '/run', '/var', '/var/tmp', '/dev/shm',
                         '/boot', '/opt'):
                tried(path, lambda: os.listdir(path))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "read_our_files",
        "reads the files of the project that runs it, and uses its modules",
        """
            tried('source', lambda: read(OUR_FILE))
            tried('pool', lambda: __import__('mathlete.sandbox.pool').sandbox.pool.SandboxPool().describe_isolation())
            """,
        needs=_WRITES,
    ),
    Attack(
        "read_environment",
        "looks for secrets in the environment, C's own included",
        """
            environ = ctypes.POINTER(ctypes.c_char_p).in_dll(c, 'environ')
            found, i = [], 0
            while environ[i]:
                found.append(environ[i])
                i += 1
            print('TOKEN' in str(found), 'TOKEN' in str(os.environ), len(found) < 20)
            print(found)
            """,
        holds=prints("False False True\n"),
        is_refused=False,
    ),
    Attack(
        "read_old_environment_block",
        "looks for what the environment was when the process began, above the stack",
        """
            block = ctypes.cast(ctypes.POINTER(ctypes.c_char_p).in_dll(c, '__environ')[0], ctypes.c_void_p).value
            near = ctypes.string_at(block & ~4095, 4096)
            print('TOKEN' in str(near))
            """,
        holds=prints("False\n"),
        is_refused=False,
    ),
    Attack(
        "look_outside",
        "asks what there is outside, how large it is and where links lead, without opening anything",
        """
            tried('stat', lambda: os.stat(CANARY))
            tried('access', lambda: os.access(CANARY, os.F_OK) or 1 / 0)
            tried('attributes', lambda: os.listxattr(CANARY) and os.getxattr(CANARY, 'user.canary'))
            tried('chdir', lambda: os.chdir(FOLDER))
            tried('disk', lambda: os.statvfs(FOLDER))
            tried('link', lambda: os.readlink(f'/proc/{PARENT}/exe'))
            tried('own link', lambda: os.readlink('/proc/self/exe'))
            tried('socket', lambda: os.stat(STREAM_SOCKET))
            for path in ('/etc/passwd', '/home', '/proc', '/sys', '/run', '/var', '/dev/shm', OUR_FILE):
                tried(path, lambda: os.lstat(path))
            """,
        needs=(frozenset({"newroot"}),),
    ),
    Attack(
        "watch_folder",
        "watches what others do in a folder outside",
        """
            tried('inotify', lambda: call(c.inotify_init))
            tried('inotify1', lambda: call(c.inotify_init1, 0))
            for fd in range(64):
                tried('watch', lambda: call(c.inotify_add_watch, fd, FOLDER.encode(), 0xFFF))
            tried('fanotify', lambda: system_call((300, 262), 0, 0))
            import fcntl
            tried('dnotify', lambda: fcntl.fcntl(os.open(FOLDER, os.O_RDONLY), fcntl.F_NOTIFY, 1))
            """,
        needs=_WRITES,
    ),
)

WRITING = (
    Attack(
        "write_absolute",
        "overwrites, appends to, truncates and removes what lies outside",
        """
            for mode in ('w', 'a', 'r+', 'x'):
                tried(mode, lambda: open(CANARY, mode).write('x'))
            tried('truncate', lambda: os.truncate(CANARY, 0))
            tried('remove', lambda: os.remove(CANARY))
            tried('new', lambda: open(FOLDER + '/' + MARK, 'w'))
            tried('mkdir', lambda: os.mkdir(FOLDER + '/' + MARK))
            tried('rmdir', lambda: os.rmdir(FOLDER))
            tried('fifo', lambda: os.mkfifo(FOLDER + '/' + MARK))
            """,
        needs=_WRITES,
    ),
    Attack(
        "write_by_link",
        "writes through links, and links things of its own to the outside",
        """
            os.symlink(CANARY, 'link')
            tried('open', lambda: open('link', 'w'))
            open('mine', 'w').write('mine')
            tried('rename', lambda: os.rename('mine', FOLDER + '/' + MARK))
            tried('replace', lambda: os.replace('mine', CANARY))
            tried('link', lambda: os.link('mine', FOLDER + '/' + MARK))
            tried('symlink', lambda: os.symlink('/', FOLDER + '/' + MARK))
            """,
        needs=_WRITES,
    ),
    Attack(
        "write_attributes",
        "changes mode, owner, times and attributes, which Landlock does not cover",
        """
            tried('chmod', lambda: os.chmod(CANARY, 0o777))
            tried('chown', lambda: os.chown(CANARY, 1, 1))
            tried('utime', lambda: os.utime(CANARY, (0, 0)))
            tried('xattr', lambda: os.setxattr(CANARY, 'user.x', b'x'))
            tried('rmattr', lambda: os.removexattr(CANARY, 'user.canary'))
            tried('stdin', lambda: os.fchmod(0, 0o777))
            tried('futimens', lambda: os.utime(0, (0, 0)))
            tried('fchmodat2', lambda: system_call((452, 452), -100, CANARY.encode(), 0o777, 0))
            tried('file_setattr', lambda: system_call((469, 469), -100, CANARY.encode(), bytes(64), 64, 0))
            """,
        needs=_WRITES,
    ),
    Attack(
        "write_shared_places",
        "leaves files where every program may write",
        """
            for place in ('/tmp', '/var/tmp', '/dev/shm', '/run', '/dev/mqueue'):
                tried(place, lambda: open(f'{place}/{MARK}', 'w'))
            from multiprocessing import shared_memory
            tried('shm', lambda: shared_memory.SharedMemory(MARK, create=True, size=4096))
            """,
        needs=_WRITES,
    ),
    Attack(
        "write_libraries",
        "rewrites and removes the libraries that the next program imports",
        """
            import json, shutil, sysconfig
            tried('write', lambda: open(os.__file__, 'a'))
            tried('rename', lambda: os.rename(os.__file__, os.__file__))
            tried('mode', lambda: os.chmod(os.__file__, os.stat(os.__file__).st_mode))
            for folder in (sysconfig.get_path('purelib'), os.path.dirname(json.__file__)):
                tried('mode', lambda: os.chmod(folder, os.stat(folder).st_mode))
                tried('file', lambda: open(folder + '/' + MARK, 'x'))
                tried('folder', lambda: os.mkdir(folder + '/' + MARK))
            if not os.path.exists(folder + '/' + MARK):  # or this test would harm whoever runs it
                before = sorted(os.listdir(folder))
                shutil.rmtree(folder, ignore_errors=True)
                tried('rmtree', lambda: 1 / (sorted(os.listdir(folder)) != before))
            """,
        needs=_WRITES,
    ),
    Attack(
        "write_kernel_settings",
        "writes to /proc and /sys",
        """
            for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/self/oom_score_adj',
                         '/proc/self/uid_map', '/sys/kernel/mm/ksm/run', '/proc/self/comm',
                         '/proc/sys/vm/drop_caches', '/sys/fs/cgroup/cgroup.procs', '/proc/self/attr/current'):
                tried(path, lambda: open(path, 'w'))
            """,
        needs=_WRITES,
    ),
    Attack(
        "lock_outside",
        "locks files that others wait for",
        """
            import fcntl
            tried('flock', lambda: fcntl.flock(os.open(CANARY, os.O_RDONLY), fcntl.LOCK_EX))
            tried('lease', lambda: fcntl.fcntl(os.open(CANARY, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK))
            """,
        needs=_HIDDEN,
    ),
    Attack(
        "device_nodes",
        "makes a device of its own for a disk, and opens devices",
        """
            tried('mknod', lambda: os.mknod('disk', 0o60600, os.makedev(254, 0)))
            tried('char', lambda: os.mknod('mem', 0o20600, os.makedev(1, 1)))
            for path in ('/dev/tty', '/dev/console', '/dev/ptmx', '/dev/tty0', '/dev/pts/0', '/dev/fuse',
                         '/dev/kvm', '/dev/loop-control', '/dev/net/tun', '/dev/vda', '/dev/sda'):
                tried(path, lambda: open(path, 'r+b', 0))
            """,
        needs=_WRITES,
    ),
    Attack(
        "deep_directories",
        "makes directories so deep that who removes them runs out of stack",
        """
            for _ in range(1200):
                os.mkdir('d')
                os.chdir('d')
            os.chmod
            """,
        ends_with("ok", "killed"),  # on a disk each takes room
        is_refused=False,
    ),
    Attack(
        "unremovable_directories",
        "leaves a directory that may not be entered, with odd names in it",
        r"""
            os.mkdir('a', 0o700)
            os.mkdir('a/b')
            for name in (b'\xff\xfe', b'-rf', b'new\nline', b'*', b'x' * 255):
                open(b'a/b/' + name, 'w')
            os.symlink(FOLDER, 'a/b/link')
            os.umask(0o777)
            os.mkdir('closed')
            os.symlink('loop', 'loop')
            """,
        is_refused=False,
    ),
    Attack(
        "big_file",
        "fills the disk with one file",
        "open('big', 'wb').write(bytes(2 << 20))",
        ends_with("error"),
        is_refused=False,
    ),
    Attack(
        "many_big_files",
        "fills the disk with files of the largest size",
        """
            for i in range(99):
                open(f'{i}', 'wb').write(bytes(1 << 20))
            """,
        ends_with("error", "killed"),  # killed where it is watched instead of bounded
        is_refused=False,
    ),
    Attack(
        "many_files",
        "uses up the numbers that files have on a disk",
        """
            for i in range(9999):
                open(f'{i}', 'w').close()
            """,
        ends_with("error", "killed", "timeout"),  # killed where it is watched instead of bounded
        is_refused=False,
    ),
    Attack(
        "sparse_file",
        "claims more of a disk than there is, without writing",
        """
            tried('truncate', lambda: open('big', 'wb').truncate(1 << 40))
            tried('allocate', lambda: os.posix_fallocate(os.open('more', os.O_RDWR | os.O_CREAT), 0, 1 << 40))
            """,
        limits=CodeLimits(wall_s=5, memory_bytes=1 << 30, file_bytes=1 << 20),
    ),
)
