"""Isolation: how a process gives up, for ever, every right that an answer does not need.

Whoever grades runs code that somebody else wrote, on the machine where the answers and the marks lie. So no answer runs
in the process that judges it, and the process in which it runs has given up everything but the right to compute.

| what is given up                          | on Linux                                   | on macOS             |
|-------------------------------------------|--------------------------------------------|----------------------|
| files but its own folder, Python, modules | Landlock (kernel 5.13 and newer)           | the audit hook       |
| network and sockets                       | seccomp, and an empty network namespace    | the audit hook       |
| disk                                      | a tmpfs of 16 MB                           | files of at most 4 MB|
| other processes                           | seccomp, and a process namespace           | the audit hook       |
| memory, processor time, number of files   | resource limits                            | limits but on memory |
| the user root                             | an unprivileged user                       | the same             |

The layers overlap on purpose: each is tested with others switched off. Windows has none of them, and there the grader
does not start; it does inside WSL. What no layer stops: an answer may use the processor until its limit, may learn what
this machine's Python and its packages are, and may exploit a fault of the kernel itself.

Constants have the names and numbers of the kernel's headers (include/uapi/linux and arch/*/include/uapi/asm), because
Python has no wrapper for these calls.
"""

import ctypes
import errno
import os
import re
import signal
import struct
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from chargpt_lib.files import checkout_dir, library_dir

# ---------------------------------------------------------------- files: Landlock

# Three system calls, which have these numbers on every architecture.
SYS_landlock_create_ruleset = 444
SYS_landlock_add_rule = 445
SYS_landlock_restrict_self = 446

LANDLOCK_CREATE_RULESET_VERSION = 1 << 0
LANDLOCK_RULE_PATH_BENEATH = 1

LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
LANDLOCK_ACCESS_FS_REMOVE_DIR = 1 << 4
LANDLOCK_ACCESS_FS_REMOVE_FILE = 1 << 5
LANDLOCK_ACCESS_FS_MAKE_CHAR = 1 << 6
LANDLOCK_ACCESS_FS_MAKE_DIR = 1 << 7
LANDLOCK_ACCESS_FS_MAKE_REG = 1 << 8
LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9
LANDLOCK_ACCESS_FS_MAKE_FIFO = 1 << 10
LANDLOCK_ACCESS_FS_MAKE_BLOCK = 1 << 11
LANDLOCK_ACCESS_FS_MAKE_SYM = 1 << 12
LANDLOCK_ACCESS_FS_REFER = 1 << 13  # ABI 2 and newer
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14  # ABI 3 and newer
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15  # ABI 5 and newer

LANDLOCK_ACCESS_NET_BIND_TCP = 1 << 0  # both: ABI 4 and newer
LANDLOCK_ACCESS_NET_CONNECT_TCP = 1 << 1

LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # both: ABI 6 and newer
LANDLOCK_SCOPE_SIGNAL = 1 << 1

PR_SET_NO_NEW_PRIVS = 38

# The first version of the ABI, which is the kernel's interface, knows these rights.
FS_RIGHTS_OF_ABI_1 = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_READ_DIR
    | LANDLOCK_ACCESS_FS_REMOVE_DIR
    | LANDLOCK_ACCESS_FS_REMOVE_FILE
    | LANDLOCK_ACCESS_FS_MAKE_CHAR
    | LANDLOCK_ACCESS_FS_MAKE_DIR
    | LANDLOCK_ACCESS_FS_MAKE_REG
    | LANDLOCK_ACCESS_FS_MAKE_SOCK
    | LANDLOCK_ACCESS_FS_MAKE_FIFO
    | LANDLOCK_ACCESS_FS_MAKE_BLOCK
    | LANDLOCK_ACCESS_FS_MAKE_SYM
)
# The kernel refuses a rule for a file that names a right which only folders have.
FS_RIGHTS_OF_FILES = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)

# What an answer may do below a path.
LIST = LANDLOCK_ACCESS_FS_READ_DIR
READ = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR
WRITE = (
    FS_RIGHTS_OF_ABI_1
    | LANDLOCK_ACCESS_FS_REFER
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)


class _RulesetAttr(ctypes.Structure):
    """struct landlock_ruleset_attr: what is forbidden unless a rule allows it."""

    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),  # ABI 4 and newer
        ("scoped", ctypes.c_uint64),  # ABI 6 and newer
    ]


def _landlock_abi():
    """The version of the kernel's Landlock; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None)
    version = libc.syscall(
        SYS_landlock_create_ruleset, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION
    )
    return max(version, 0)  # -1: the kernel does not know the call, or has it switched off


def _apply_landlock(rights):
    """Leaves this process and its children only these files: {path: LIST, READ or WRITE, for all below it}.

    It stops reading, writing, listing and running all other files, by whatever code: Python, C, a program that the
    answer starts. From ABI 4 on it also stops TCP, from ABI 6 on signals to other processes and abstract sockets.

    It does not stop the use of files that are already open, stat() and chmod() of files whose path is known, UDP, or
    memory and processor time.

    Raises: OSError where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = _landlock_abi()

    # A kernel refuses rights that are newer than its ABI, and a struct that is longer.
    handled = FS_RIGHTS_OF_ABI_1
    if abi >= 2:
        handled |= LANDLOCK_ACCESS_FS_REFER
    if abi >= 3:
        handled |= LANDLOCK_ACCESS_FS_TRUNCATE
    if abi >= 5:
        handled |= LANDLOCK_ACCESS_FS_IOCTL_DEV
    attributes = _RulesetAttr(handled_access_fs=handled)
    size = _RulesetAttr.handled_access_net.offset
    if abi >= 4:
        attributes.handled_access_net = (
            LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP
        )
        size = _RulesetAttr.scoped.offset
    if abi >= 6:
        attributes.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL
        size = ctypes.sizeof(_RulesetAttr)
    ruleset = libc.syscall(
        SYS_landlock_create_ruleset, ctypes.byref(attributes), ctypes.c_size_t(size), 0
    )

    for path, allowed in rights.items():
        if not os.path.exists(path):
            continue
        allowed &= handled
        if not os.path.isdir(path):
            allowed &= FS_RIGHTS_OF_FILES
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        # struct landlock_path_beneath_attr, packed: __u64 allowed_access, __s32 parent_fd
        rule = struct.pack("=Qi", allowed, descriptor)
        # A rule that the kernel refuses gives nothing free, so its answer need not be looked at.
        libc.syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)

    # Landlock is for processes that can gain no privileges by starting a set-user-ID program.
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(SYS_landlock_restrict_self, ruleset, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses to apply Landlock")
    os.close(ruleset)


def _paths_except(root, hidden_dir):
    """The folders and files below root, as few as possible, that leave out hidden_dir and all in it.

    Landlock knows no "all but", so the neighbours of what is hidden must be named one by one.
    """
    if root == hidden_dir:
        return []
    if root not in hidden_dir.parents:
        return [root]
    paths = []
    for child in sorted(root.iterdir()):
        paths += _paths_except(child, hidden_dir)
    return paths


def default_hidden_dir():
    """The folder that no answer may read: the checkout, or the library where it is installed from a wheel."""
    checkout = checkout_dir()
    if checkout is not None:
        return checkout
    return library_dir()


def _allowed_paths(pool_dir, hidden_dir):
    """{path: rights} of what an answer needs: Python, torch, and the copied modules in pool_dir; not hidden_dir."""
    torch_dir = Path(sys.modules["torch"].__file__).parents[1]
    roots = set()
    for root in (sys.base_prefix, sys.prefix, torch_dir, "/usr", "/lib", "/lib64"):
        if Path(root).is_dir():
            roots.add(Path(root).resolve())
    rights = {}
    for root in roots:
        rights[root] = (
            LIST  # Python lists the folders of its path, even those that hold what is hidden
        )
    for root in roots:
        for path in _paths_except(root, hidden_dir):
            rights[path] = READ
    rights[pool_dir] = READ
    rights[Path("/dev/urandom")] = READ
    rights[Path(os.devnull)] = WRITE
    return rights


# ---------------------------------------------------------------- network, processes, mounts: namespaces

CLONE_NEWNS = 0x00020000  # mounts
CLONE_NEWIPC = 0x08000000  # shared memory, semaphores, message queues of System V
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_REC = 1 << 14
MS_PRIVATE = 1 << 18


def unshare_namespaces():
    """Moves this process into namespaces of its own, and returns whether the system allows that.

    It stops the network, since the new one is empty; shared memory with others; and, for processes forked from now on,
    seeing other processes and sending them signals.

    It does not stop reading files, or starting new processes inside the namespaces. Some distributions and containers
    refuse namespaces to unprivileged users: then seccomp has to stop the network and signals.
    """
    if not sys.platform.startswith("linux"):
        return False
    uid = os.geteuid()
    gid = os.getegid()
    libc = ctypes.CDLL(None)
    flags = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNS
    if uid != 0:
        flags |= CLONE_NEWUSER  # only inside a user namespace may an ordinary user make the others
    if libc.unshare(flags):
        return False
    if uid != 0:
        # Inside the user namespace this user may mount, but only after the kernel was told who that is outside. It
        # accepts a map of groups only from a process that can no longer change its groups.
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    # Mounts made from now on are seen in here alone, also where the system shares mounts between namespaces.
    libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    return True


def _mount_tmpfs(folder):
    """Mounts a disk of 16 MB in memory at a folder; it goes when the last process of the namespace goes.

    It stops an answer from filling the disk with many files. Without it, only the size of each file is limited.
    """
    libc = ctypes.CDLL(None)
    libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=16m,nr_inodes=1000")


# ---------------------------------------------------------------- the end of the grader, and the user root

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_LINUX_CAPABILITY_U32S_3 = 2
CAP_DAC_READ_SEARCH = 2  # read files and list folders whatever their permissions


class _CapUserHeader(ctypes.Structure):
    """struct __user_cap_header_struct"""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapUserData(ctypes.Structure):
    """struct __user_cap_data_struct"""

    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def die_with_parent():
    """Makes Linux kill this process when its parent ends, however that ends.

    It stops answers from outliving a grader that was killed. A change of user takes it back, so it is called again
    after `drop_root`. Other systems have nothing like it.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _drop_root(uid, keep_read_access):
    """Turns root into the user and group `uid`, who should own nothing on this machine.

    It stops all that only root may do, and writing to files of others. With keep_read_access the process may still read
    every file that Landlock leaves to it, because Python itself may lie in root's home; without Landlock this must be
    False, or an answer could read everything.
    """
    libc = ctypes.CDLL(None)
    if keep_read_access:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)  # keeps the permitted capabilities over setuid
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    if keep_read_access:
        only_read = 1 << CAP_DAC_READ_SEARCH
        header = _CapUserHeader(version=_LINUX_CAPABILITY_VERSION_3, pid=0)
        # Capabilities are 64 bits in two halves; all of the second one are given up.
        data = (_CapUserData * _LINUX_CAPABILITY_U32S_3)(
            _CapUserData(effective=only_read, permitted=only_read, inheritable=0),
            _CapUserData(effective=0, permitted=0, inheritable=0),
        )
        libc.capset(ctypes.byref(header), data)


# ---------------------------------------------------------------- what grows: resource limits

EXTRA_MEMORY_BYTES = 2**30  # beyond what the process has when the limit is set
CPU_SECONDS = 120
MAX_FILE_BYTES = 2**22
MAX_OPEN_FILES = 128
MAX_PROCESSES = 64  # threads are counted, too


def _set_rlimits(limit_processes):
    """Limits memory, processor time, the size and number of files, and, if asked, the number of processes.

    It stops an answer from taking all memory or from running for ever once the grader has lost sight of it.

    It does not limit memory on macOS, nor the sum of what several processes take. RLIMIT_NPROC counts all processes of
    a user: it is of use only where the worker has a user or a namespace of its own.
    """
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        used_bytes = int(statm.read_text().split()[0]) * resource.getpagesize()
    else:
        used_bytes = 2**33  # not known; torch alone maps several GB
    limits = {
        resource.RLIMIT_AS: used_bytes + EXTRA_MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if limit_processes:
        limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
    for name, value in limits.items():
        with suppress(ValueError, OSError):  # macOS refuses a limit on memory
            resource.setrlimit(name, (value, value))


# ---------------------------------------------------------------- system calls: seccomp

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_AARCH64 = 0xC00000B7
X32_SYSCALL_BIT = 0x40000000  # marks the calls of x86_64's second set, the x32 ABI

CLONE_THREAD = 0x00010000

# Instructions of the Berkeley Packet Filter, the little machine that runs the filter.
BPF_LD = 0x00
BPF_JMP = 0x05
BPF_RET = 0x06
BPF_W = 0x00
BPF_ABS = 0x20
BPF_JEQ = 0x10
BPF_JGE = 0x30
BPF_JSET = 0x40
BPF_K = 0x00

# Offsets in struct seccomp_data, which the filter reads.
OFFSET_NR = 0
OFFSET_ARCH = 4
OFFSET_ARGS_0 = 16

# The calls that no answer needs: {name: (number on x86_64, number on aarch64)}.
REFUSED_SYSCALLS = {
    # network, and sockets of this machine
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "socketpair": (53, 199),
    # new processes and programs; clone and clone3 are dealt with in the filter
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # memory outside the limits
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "fallocate": (285, 47),
    # ways around this filter, and parts of the kernel that often had faults
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    # ways out of the namespaces, and around the paths that Landlock knows
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
}
SYS_clone = (56, 220)
SYS_clone3 = 435


class _SockFilter(ctypes.Structure):
    """struct sock_filter: one instruction. jt and jf: how many instructions to skip if true and if false."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class _SockFprog(ctypes.Structure):
    """struct sock_fprog: a program and its length."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _seccomp_program(architecture):
    """The filter for "x86_64" or "aarch64", as a list of instructions."""

    def load(offset):
        return _SockFilter(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)

    def jump_if(condition, k, skip_if_true, skip_if_false):
        return _SockFilter(BPF_JMP | condition | BPF_K, skip_if_true, skip_if_false, k)

    def end_with(result):
        return _SockFilter(BPF_RET | BPF_K, 0, 0, result)

    refuse = end_with(SECCOMP_RET_ERRNO | errno.EPERM)
    column, audit_arch = {
        "x86_64": (0, AUDIT_ARCH_X86_64),
        "aarch64": (1, AUDIT_ARCH_AARCH64),
    }[architecture]

    # Calls of another architecture (32 bit) and of x32 have other numbers, so all of them are refused.
    program = [
        load(OFFSET_ARCH),
        jump_if(BPF_JEQ, audit_arch, 1, 0),
        refuse,
        load(OFFSET_NR),
        jump_if(BPF_JGE, X32_SYSCALL_BIT, 0, 1),
        refuse,
    ]
    for numbers in REFUSED_SYSCALLS.values():
        if numbers[column] is not None:
            program += [jump_if(BPF_JEQ, numbers[column], 0, 1), refuse]
    # New threads and new processes come from the same call. The filter cannot read clone3's flags, which lie in memory;
    # where clone3 seems to be missing, the C library takes clone, whose flags are its first argument.
    program += [jump_if(BPF_JEQ, SYS_clone3, 0, 1), end_with(SECCOMP_RET_ERRNO | errno.ENOSYS)]
    program += [
        jump_if(BPF_JEQ, SYS_clone[column], 0, 3),
        load(OFFSET_ARGS_0),
        jump_if(BPF_JSET, CLONE_THREAD, 1, 0),
        refuse,
    ]
    program.append(end_with(SECCOMP_RET_ALLOW))
    return program


def _apply_seccomp():
    """Makes the kernel refuse REFUSED_SYSCALLS from now on, and returns whether it does.

    It stops sockets, new processes, signals to others and memory outside the limits, by whatever code.

    It does not stop reading and writing files (Landlock does), threads, or the use of what is already open. It knows
    two architectures; on others it does nothing.
    """
    architecture = os.uname().machine
    if not sys.platform.startswith("linux") or architecture not in ("x86_64", "aarch64"):
        return False
    instructions = _seccomp_program(architecture)
    array = (_SockFilter * len(instructions))(*instructions)
    program = _SockFprog(len(instructions), ctypes.cast(array, ctypes.c_void_p))
    libc = ctypes.CDLL(None)
    # The condition under which anybody may set a filter.
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0


# ---------------------------------------------------------------- Python itself: the audit hook

REFUSED_EVENTS = re.compile(
    r"(subprocess|socket|ctypes|pty|mmap|signal)\.|os\.(system|exec|posix_spawn|spawn|fork|kill)"
)
PATH_CHANGING_EVENTS = (
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


def _install_audit_hook(scratch_dir, readable_paths):
    """Makes Python raise PermissionError for whatever an answer has no business with.

    It stops what Python code does in the usual ways: opening files but those in readable_paths and scratch_dir, changing
    files outside scratch_dir, sockets, programs, new processes, ctypes. A hook cannot be taken away again (PEP 578).

    It does not stop C code, like torch.from_file, nor somebody who knows Python's insides. It is the only layer on
    macOS besides the limits; on Linux it is the one that says in plain words what was refused.
    """
    scratch = str(scratch_dir)
    readable = (*(str(path) for path in readable_paths), scratch)
    write_flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    path_types = (str, bytes, os.PathLike)
    # The hook uses no global names: an answer may change this module and os, but not these variables.
    is_refused_event = REFUSED_EVENTS.match
    path_changing_events = PATH_CHANGING_EVENTS
    is_instance = isinstance
    realpath = os.path.realpath
    fsdecode = os.fsdecode

    def is_inside(path, folders):
        path = realpath(fsdecode(path))
        for folder in folders:
            if path == folder or path.startswith(folder + "/"):
                return True
        return False

    def hook(event, args):
        refused = is_refused_event(event)
        if event == "open":
            if is_instance(args[0], path_types):  # else it is a descriptor, which is open already
                writes = args[2] & write_flags
                refused = not is_inside(args[0], (scratch,) if writes else readable)
        elif event in ("os.listdir", "os.scandir"):
            refused = is_instance(args[0], path_types) and not is_inside(args[0], readable)
        elif event in path_changing_events:
            refused = False
            for path in args[:2]:  # os.rename and os.link have two paths
                if is_instance(path, path_types) and not is_inside(path, (scratch,)):
                    refused = True
        if refused:
            raise PermissionError(f"not allowed while grading: {event}")

    sys.addaudithook(hook)


# ---------------------------------------------------------------- all layers


def isolate(scratch_dir, pool_dir, hidden_dir, uid, namespaces=False):
    """Gives up everything that an answer does not need, and returns {what: does the system itself stop it?}.

    scratch_dir: the folder to be made for the answer, which may write there. pool_dir: the copied modules. hidden_dir:
    what it may not read although it lies among Python's packages. uid: the user that root becomes. namespaces: did
    `unshare_namespaces` succeed in a parent of this process?

    What is False in the result is stopped by Python's audit hook alone.

    Raises: OSError where the kernel has Landlock and refuses to apply it.
    """
    # The order matters: a process that has given up a right cannot do what needs it.
    scratch_dir.mkdir()
    if namespaces:
        _mount_tmpfs(scratch_dir)
    rights = _allowed_paths(pool_dir, hidden_dir)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(scratch_dir, uid, uid)
    os.chdir(scratch_dir)
    os.environ["HOME"] = str(scratch_dir)
    os.environ["TMPDIR"] = str(scratch_dir)
    tempfile.tempdir = str(scratch_dir)
    _set_rlimits(limit_processes=is_root or namespaces)
    has_landlock = _landlock_abi() > 0
    if is_root:
        _drop_root(uid, keep_read_access=has_landlock)
    die_with_parent()
    if has_landlock:
        _apply_landlock({**rights, scratch_dir: WRITE})
    has_seccomp = _apply_seccomp()
    readable_paths = [path for path, allowed in rights.items() if allowed == READ]
    _install_audit_hook(scratch_dir, readable_paths)
    return {
        "files": has_landlock,
        "network": namespaces or has_seccomp,
        "processes": namespaces or has_seccomp,
        "user": os.geteuid() != 0,
    }
