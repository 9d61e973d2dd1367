import ctypes
import os
import re
import struct
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from chargpt_lib.files import library_dir

READ, WRITE = 0b1101, 0xFFFF  # execute, read a file, list a folder; or everything
LIST = 0b1000


def landlock_version():
    """How new the kernel's Landlock is; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1), 0)


def landlock(rights):
    """Gives up all files but those below these paths, {path: READ, WRITE or LIST}, and TCP and foreign signals."""
    libc, version = ctypes.CDLL(None, use_errno=True), landlock_version()
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1  # what this version can handle
    attributes = (ctypes.c_uint64 * 3)(
        files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0
    )
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    rules = libc.syscall(444, attributes, size, 0)
    for path, right in rights.items():
        if os.path.exists(path):
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            right &= files if os.path.isdir(path) else files & 0b1100_0000_0000_0111
            rule = bytes(ctypes.c_uint64(right)) + bytes(ctypes.c_int32(folder))
            libc.syscall(445, rules, 1, rule, 0)
            os.close(folder)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    if libc.syscall(446, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock refused")
    os.close(rules)


def around(root, hidden):
    """The folders and files below root that neither contain the hidden folder nor lie in it."""
    if root == hidden or root not in hidden.parents:
        return [root] if root != hidden else []
    return [path for child in sorted(root.iterdir()) for path in around(child, hidden)]


def secrets_home():
    """The folder that no answer may read: the checkout, or where the library is installed."""
    library = library_dir()
    return library.parent if (library.parent / "pyproject.toml").exists() else library


def readable(home, hidden):
    """{path: rights}: Python, torch, and the copied modules in the folder home; nothing of the hidden folder."""
    roots = [
        sys.base_prefix,
        sys.prefix,
        Path(sys.modules["torch"].__file__).parents[1],
        "/usr",
        "/lib",
        "/lib64",
    ]
    roots = {Path(root).resolve() for root in roots if Path(root).is_dir()}
    shown = {path: READ for root in roots for path in around(root, hidden)}
    return {
        **dict.fromkeys(roots, LIST),
        **shown,
        home: READ,
        Path("/dev/urandom"): READ,
        Path(os.devnull): WRITE,
    }


def unshare():
    """An empty network, own mounts and shared memory, and, from the next fork on, an own list of processes.

    Returns whether they were to be had.
    """
    if not sys.platform.startswith("linux"):
        return False
    uid, gid, libc = os.geteuid(), os.getegid(), ctypes.CDLL(None)
    if libc.unshare((0x10000000 if uid else 0) | 0x40000000 | 0x20000000 | 0x08000000 | 0x00020000):
        return False
    with suppress(
        OSError
    ):  # in a namespace of its own a user may mount, once it is said who that is
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            if uid:
                Path("/proc/self", file).write_text(text)
    libc.mount(None, b"/", None, 0x44000, None)  # what is mounted from now on is seen in here alone
    return True


def small_disk(folder):
    """A disk of 16 MB in memory, mounted there; it goes when its last process goes."""
    ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=16m,nr_inodes=1000")


def end_with_parent():
    """Linux kills this process when its parent ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)


def leave_root(uid, reads):
    """Root becomes a nameless user; where reads is true, one who may read whatever files are left to it."""
    libc = ctypes.CDLL(None) if reads else None
    if reads:
        libc.prctl(8, 1, 0, 0, 0)  # keep the capabilities over the change of user
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    if reads:
        header, read = (ctypes.c_uint32 * 2)(0x20080522, 0), 1 << 2
        libc.capset(header, (ctypes.c_uint32 * 6)(read, read, 0, 0, 0, 0))


def limit(memory=2**30, seconds=120, processes=64):
    """Sets limits on memory beyond what is used now, processor time, and the number and size of files."""
    import resource

    statm = Path("/proc/self/statm")
    used = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 2**33
    limits = {"AS": used + memory, "CPU": seconds, "FSIZE": 2**22, "NOFILE": 128, "CORE": 0}
    for name, value in {**limits, **({"NPROC": processes} if processes else {})}.items():
        with suppress(ValueError, OSError):  # macOS has no limit on memory
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


CALLS = {  # name: its number on x86_64 and on aarch64
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "socketpair": (53, 199),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "fallocate": (285, 47),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "pidfd_send_signal": (424, 424),
    "perf_event_open": (298, 241),
}


def seccomp():
    """The kernel refuses these calls from now on -> does it?"""
    machine = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}.get(
        os.uname().machine
    )
    if not machine or not sys.platform.startswith("linux"):
        return False
    column, architecture, clone = machine
    load, equal, at_least, any_of, end = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, missing, allow = 0x00050001, 0x00050026, 0x7FFF0000  # EPERM, ENOSYS
    numbers = [row[column] for row in CALLS.values() if row[column] is not None]
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (end, 0, 0, refuse),
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000),
        (end, 0, 0, refuse),
    ]
    program += [step for number in numbers for step in ((equal, 0, 1, number), (end, 0, 0, refuse))]
    program += [(equal, 0, 1, 435), (end, 0, 0, missing)]  # clone3: threads then come by clone
    program += [
        (equal, 0, 3, clone),
        (load, 0, 0, 16),
        (any_of, 1, 0, 0x10000),
        (end, 0, 0, refuse),
    ]  # a thread?
    program += [(end, 0, 0, allow)]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filled = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    return libc.prctl(22, 2, filled, 0, 0) == 0


REFUSED = re.compile(
    r"(subprocess|socket|ctypes|pty|mmap|signal)\.|os\.(system|exec|posix_spawn|spawn|fork|kill)"
)
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "os.chflags",
    "os.setxattr",
)


def guard(own, shown):
    """Refuses, from now on, whatever an answer has no business with: PermissionError. own: its folder."""
    own, shown = str(own), tuple(str(path) for path in (*shown, own))
    match, changes, is_a, all_of = REFUSED.match, CHANGES, isinstance, all
    realpath, fsdecode = os.path.realpath, os.fsdecode
    writing, paths_are = (
        os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND,
        (str, bytes, os.PathLike),
    )

    def inside(path, folders):
        path = realpath(fsdecode(path))
        return [
            folder for folder in folders if path == folder or path.startswith(folder + "/")
        ] != []

    def hook(event, args):  # its names are its own: an answer may change os and this module
        refused = match(event)
        if event == "open" and is_a(args[0], paths_are):
            refused = not inside(args[0], (own,) if args[2] & writing else shown)
        elif event in ("os.listdir", "os.scandir"):
            refused = is_a(args[0], paths_are) and not inside(args[0], shown)
        elif event in changes:
            refused = not all_of(
                [inside(path, (own,)) for path in args[:2] if is_a(path, paths_are)]
            )
        if refused:
            raise PermissionError(f"an answer may not do that ({event})")

    sys.addaudithook(hook)


def lock(own, home, hidden, uid, apart=False):
    """Gives up everything that an answer does not need -> {what: was it to be had?}.

    own: the folder to be made for it; uid: who root becomes; apart: is this process in namespaces of its own?
    """
    own.mkdir()
    if apart:
        small_disk(own)
    rights, nobody = readable(home, hidden), os.geteuid() == 0
    if nobody:
        os.chown(own, uid, uid)
    os.chdir(own)
    os.environ.update(HOME=str(own), TMPDIR=str(own))
    tempfile.tempdir = str(own)
    limit(processes=64 if nobody or apart else 0)
    kernel = landlock_version()
    if nobody:
        leave_root(uid, reads=kernel > 0)
    end_with_parent()
    if kernel:
        landlock({**rights, own: WRITE})
    few = seccomp()
    guard(own, [path for path, right in rights.items() if right == READ])
    return {
        "files": kernel > 0,
        "network": apart or few,
        "processes": apart or few,
        "user": os.geteuid() != 0,
    }
