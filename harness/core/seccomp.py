"""The system call filter of a confined process: classic BPF, assembled here, for x86_64 and aarch64.

What a run never needs and an attack would is answered with EPERM: another priority, looking into other processes,
namespaces and mounts, kernel modules, clocks. Other cores are only seemingly given. Calls of a foreign ABI are refused
as a whole, since their numbers mean something else. Instructions and constants: linux/bpf_common.h, linux/seccomp.h,
linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

PR_GET_SECCOMP = 21
PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER = 1
# Before Linux 5.16 a filter switches speculative store bypass off, and that slows the script down.
ALLOW_SPECULATION = 1 << 2

LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS
PRETEND = 0x00050000  # not done, and 0 is returned as if it were
# Offsets in struct seccomp_data; both machines are little-endian, so an argument's low half comes first.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
X32_BIT = 0x40000000

# clone(2) flags that make namespaces: mount, cgroup, uts, ipc, user, pid, net, and time.
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
SOCKET_TYPE_MASK = 0xF

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers on (x86_64, aarch64); None where an architecture has no such call. From asm/unistd_64.h, asm-generic/unistd.h.
REFUSED: dict[str, tuple[int, int | None]] = {
    # More of the machine than the class has.
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "kcmp": (312, 272), "process_madvise": (440, 440), "perf_event_open": (298, 241),
    # What outlives the run without being a file of it.
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # The kernel: its wide interfaces, its modules, its clocks.
    "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "syslog": (103, 116),
    "iopl": (172, None), "ioperm": (173, None), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "personality": (135, 92), "vhangup": (153, 58),
    "clock_settime": (227, 112), "settimeofday": (164, 170), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    # Another view of the file system, or of the machine.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "unshare": (272, 97), "setns": (308, 268),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "sethostname": (170, 161),
}  # fmt: skip
# What shows one model host what another does with a file that both can open: watches, what of it is in memory.
REFUSED_ALONE: dict[str, tuple[int, int | None]] = {
    "inotify_init": (253, None), "inotify_init1": (294, 26), "mincore": (27, 232), "preadv2": (327, 286),
    "cachestat": (451, 451),
}  # fmt: skip
# NCCL asks for the cores beside its GPU, and ends the run where that is refused.
# Marks on a file or device are seen by others, and outlive the run: started by root, a script in bubblewrap owns the
# machine's own /dev/null. Compilers set them on what they write and stop where that is refused.
PRETENDED: dict[str, tuple[int, int | None]] = {
    "sched_setaffinity": (203, 122),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
}  # fmt: skip
# Locks show it too, but compilers lock their caches and stop where they cannot. fcntl(2) commands: F_SETLK, F_SETLKW,
# F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE, F_NOTIFY, F_SET_RW_HINT; from asm-generic/fcntl.h, linux/fcntl.h.
FLOCK = (73, 32)
FCNTL = (72, 25)
LOCK_COMMANDS = (6, 7, 37, 38, 1024, 1026, 1036)
SECCOMP = {"x86_64": 317, "aarch64": 277}
CLONE = (56, 220)
CLONE3 = (435, 435)
SOCKET = (41, 198)
SETPRIORITY = (141, 140)

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def available() -> bool:
    """Whether this kernel filters system calls and this module knows the machine's numbers."""
    if not sys.platform.startswith("linux") or os.uname().machine not in AUDIT_ARCHITECTURE:
        return False
    return _libc().prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def assemble(machine: str, families: tuple[int, ...], streams_only: bool, alone: bool = False) -> list[Instruction]:
    """The filter for `x86_64` or `aarch64`. Sockets may be of `families`; `streams_only` leaves the internet TCP.

    Marks on files only seem to work. `alone` also takes away what tells a process about others by way of a file:
    there locks only seem to work too.
    """
    column = list(AUDIT_ARCHITECTURE).index(machine)
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, AUDIT_ARCHITECTURE[machine]),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        program += [(AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, REFUSE)]
    for numbers in [*REFUSED.values(), *(REFUSED_ALONE.values() if alone else ())]:
        number = numbers[column]
        if number is not None:
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    pretended = [numbers[column] for numbers in (*PRETENDED.values(), *((FLOCK,) if alone else ()))]
    program += _each_of(tuple(number for number in pretended if number is not None), PRETEND)
    if alone:
        program += _when(FCNTL[column], [_argument(1), *_each_of(LOCK_COMMANDS, PRETEND)])
    # clone3 keeps its flags in memory, where no filter can look; the C library falls back to clone.
    program += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, UNKNOWN)]
    program += _when(CLONE[column], [_argument(0), (ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, REFUSE)])
    # A negative nice value is a raised priority. It is an int: bit 31 is its sign.
    program += _when(SETPRIORITY[column], [_argument(2), (ANY_BIT, 0, 1, 1 << 31), (RETURN, 0, 0, REFUSE)])
    program += _when(SOCKET[column], _socket_rule(families, streams_only))
    return [*program, (RETURN, 0, 0, ALLOW)]


def _when(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body` for one system call; whatever it does not return on is allowed."""
    body = [*body, (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(body), number), *body]


def _each_of(values: tuple[int, ...], answer: int) -> list[Instruction]:
    return [step for value in values for step in ((EQUAL, 0, 1, value), (RETURN, 0, 0, answer))]


def _argument(index: int) -> Instruction:
    return (LOAD, 0, 0, ARGUMENTS + 8 * index)


def _socket_rule(families: tuple[int, ...], streams_only: bool) -> list[Instruction]:
    rule = [_argument(0)]
    for family in families:
        inet = family in (socket.AF_INET, socket.AF_INET6)
        if inet and streams_only:
            stream = [_argument(1), (AND, 0, 0, SOCKET_TYPE_MASK), (EQUAL, 0, 1, socket.SOCK_STREAM)]
            rule += [(EQUAL, 0, 5, family), *stream, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
        else:
            rule += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    return [*rule, (RETURN, 0, 0, REFUSE)]


def no_new_privileges() -> None:
    """No program started from here on gains rights by a set-user-id bit. Raises OSError."""
    words = [ctypes.c_ulong(value) for value in (1, 0, 0, 0)]
    _checked(_libc().prctl(PR_SET_NO_NEW_PRIVS, *words), "prctl(no new privileges)")


def install(program: list[Instruction]) -> None:
    """Puts this thread and whatever it starts under the filter; needs `no_new_privileges`. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a 16-bit count, padding, a pointer.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    words = [ctypes.c_ulong(value) for value in (SET_MODE_FILTER, ALLOW_SPECULATION, ctypes.addressof(header))]
    _checked(_libc().syscall(ctypes.c_long(SECCOMP[os.uname().machine]), *words), "seccomp")


def _checked(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
