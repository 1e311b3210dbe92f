"""What a child may see and use, on the best of four rungs; every run says at which trust level it ran.

| rung | level | made of |
| --- | --- | --- |
| bubblewrap | isolated | own user, PID, IPC and network namespaces, a file system of its own |
| user | isolated | for root where namespaces are refused: a fresh user id, Landlock, no internet sockets, the guard |
| landlock | partial | Landlock and no internet sockets, but the user's own id; the guard |
| guard | open | nothing: a child reads what its user reads and can attack its parent; no process outlives the run |

On every rung confine.py runs last before the script: system call filter and limits. Inside, only the interpreter,
its packages, system libraries, the harness, the source and a scratch folder can be read; the model host gets less.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from harness.core import bubblewrap, landlock, seccomp, visible
from harness.core.confine import Confinement
from harness.core.limits import GIB, OPEN_FILES, Limits, Role
from harness.core.owned import PREFIX, TemporaryFolder
from harness.core.protocol import NONCE_VARIABLE, SOCKET_VARIABLE, Listener
from harness.errors import UserError
from harness.paths import PACKAGE

Rung = Literal["bubblewrap", "user", "landlock", "guard"]
LEVELS: dict[Rung, str] = {"bubblewrap": "isolated", "user": "isolated", "landlock": "partial", "guard": "open"}

INSIDE_SOCKET = Path("/run/speedrun/socket")
INSTALL_REMEDY = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap; "
    "Arch: pacman -S bubblewrap)"
)
NAMESPACE_REMEDY = (
    "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0, or run as root outside a restricted container"
)
# Where no mount can hide the rest: single files of /proc, and the process's own folder in it.
PROC_PATHS = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease", "/etc/hosts", "/etc/nsswitch.conf",
    "/etc/host.conf",
)  # fmt: skip
GPU_PROC_PATHS = ("/proc/driver", "/proc/devices", "/proc/sys/vm/mmap_min_addr")
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SHARED_MEMORY = "/dev/shm"
# What a script frees stays its own. By itself glibc gives arrays of megabytes back to the kernel, which clears page
# after page when the next step asks for them again: a tenth of a step of the gcide baseline, and noise of the clock
# (benchmarks/results/allocator.md). 32 MiB is the most that every glibc takes for the first; the second alone would
# fix the first at 128 KiB, and every larger array would come from the kernel.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 * GIB)}
NO_LIMITS = Limits(memory_bytes=64 * GIB, tasks=1024, file_bytes=GIB, scratch_bytes=GIB, shared_memory_bytes=GIB)


@dataclass(frozen=True)
class SandboxProbe:
    """The trust level this machine can give and by which rung, what lacks for more, and how to get it."""

    level: str
    lacks: list[str] = field(default_factory=list)
    remedy: str = ""
    rung: Rung = "guard"
    other_remedy: str = ""  # what else would help

    def level_for(self, processes: int, nodes: int = 1) -> str:
        """The level of a run of that many processes: on the rung `user` several need TCP, which reaches outside.

        On several nodes every rung reaches outside, and no referee sees the other nodes.
        """
        reaches_out = nodes > 1 or (self.rung == "user" and processes > 1)
        return "partial" if self.level == "isolated" and reaches_out else self.level


@cache
def probe() -> SandboxProbe:
    """Tries the rungs from the best one down, once in this process (about 20 ms for the first)."""
    if not sys.platform.startswith("linux"):
        return SandboxProbe("open", ["Linux namespaces"], "use Linux for runs that are to be records")
    filtered = [] if seccomp.available() else [f"a system call filter for {os.uname().machine}"]
    lack, remedy = _bubblewrap_lack()
    if not lack:
        return SandboxProbe("isolated", filtered, rung="bubblewrap")
    lacks, other_remedy = [lack], ""
    if landlock.abi() == 0:
        return SandboxProbe("open", [*lacks, "Landlock", *filtered], remedy, "guard")
    missing = lack_for("user")
    if not missing:
        several = "a network of their own for runs of several processes"
        return SandboxProbe("isolated", [*lacks, several, *_landlock_lacks()], remedy, "user")
    if os.geteuid() == 0:
        lacks.append(f"a run under another user id ({missing})")
        closed = closed_to_others([*visible.python_paths(), str(PACKAGE)])
        if closed is not None:
            other_remedy = f"chmod o+x {closed} (lets others pass through, not list), or move Python out of it"
    lacks += ["a user id and a /dev/shm of its own", *_landlock_lacks(), *filtered]
    if not lack_for("landlock"):
        return SandboxProbe("partial", lacks, remedy, "landlock", other_remedy)
    return SandboxProbe("open", [*lacks, "working Landlock rules"], remedy, "guard", other_remedy)


def _bubblewrap_lack() -> tuple[str, str]:
    """What keeps bubblewrap from working here, and its remedy; twice "" if nothing does."""
    if shutil.which("bwrap") is None:
        return "bubblewrap", INSTALL_REMEDY
    try:
        tried = subprocess.run(bubblewrap.trial(), capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a working bubblewrap ({error})", NAMESPACE_REMEDY
    said = tried.stderr.decode(errors="replace").strip()
    return (f"user namespaces ({said})", NAMESPACE_REMEDY) if tried.returncode else ("", "")


def lack_for(rung: Rung) -> str:
    """Why a rung does not work here; "" if it does. `probe` says how to put that right."""
    if not sys.platform.startswith("linux"):
        return "not on Linux"
    if rung == "bubblewrap":
        return _bubblewrap_lack()[0]
    if rung == "guard":
        return ""
    if landlock.abi() == 0:
        return "no Landlock"
    if rung == "user":
        closed = closed_to_others([*visible.python_paths(), str(PACKAGE)])
        if os.geteuid() != 0:
            return "not root"
        if not seccomp.available():
            return "no system call filter"
        if closed is not None:
            return f"{closed} is closed to other users"
    return "" if _holds(rung) else "its rules do not hold"


def _landlock_lacks() -> list[str]:
    version = landlock.abi()
    lacks = [] if version >= landlock.SCOPES_SINCE else ["Landlock rules about signals (Linux 6.12)"]
    return lacks if version >= landlock.TCP_SINCE else [*lacks, "Landlock rules about TCP (Linux 6.7)"]


def _holds(rung: Rung) -> bool:
    """Tries a rung that rests on Landlock: a file that anybody may read must not be readable inside."""
    with TemporaryFolder(f"{PREFIX}probe-") as folder:
        folder.chmod(0o755)
        secret, source, scratch = folder / "secret", folder / "source", folder / "scratch"
        source.mkdir()
        scratch.mkdir()
        secret.write_text("readable by all\n")
        secret.chmod(0o644)
        listener = Listener()
        try:
            sandbox = Sandbox(LEVELS[rung], source, scratch, threads=1, rung=rung)
            code = (
                "import os, sys\n"
                "try:\n    open(sys.argv[1])\n"
                "except PermissionError:\n    print(os.getuid(), file=open('kept', 'w'))\n"
            )
            command = sandbox.command([sys.executable, "-S", "-c", code, str(secret)], listener)
            environment = sandbox.environment(listener)
            subprocess.run(command, env=environment, cwd=scratch, capture_output=True, timeout=60, check=False)
            expected = os.getuid() if sandbox.user is None else sandbox.user
            return (scratch / "kept").read_text().strip() == str(expected)
        except (OSError, subprocess.TimeoutExpired):
            return False
        finally:
            listener.close()


@dataclass(frozen=True)
class Sandbox:
    """What one child gets: read-only folders, a scratch folder to write in, devices, threads and limits.

    A run sees the first `gpus` of the machine. `rung` "" is the best one of that level here. `private` folders are
    closed to other users where the child is one.
    """

    level: str
    source: Path
    scratch: Path
    threads: int
    gpus: int = 0
    role: Role = "run"
    limits: Limits = NO_LIMITS
    processes: int = 1
    rung: str = ""
    private: tuple[Path, ...] = ()
    outside: bool = False  # the run has processes on other machines, which it must reach
    user: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not self.rung:
            object.__setattr__(self, "rung", _best_rung(self.level))
        if self.rung == "user":
            object.__setattr__(self, "user", fresh_user())

    def command(self, command: Sequence[str], listener: Listener) -> list[str]:
        """The command line that runs `command` inside. `listener`'s socket is what it may talk to."""
        confined = [sys.executable, "-P", "-S", "-m", "harness.core.confine", self._confinement().to_json(), *command]
        (self.scratch / "tmp").mkdir(exist_ok=True)
        if self.rung != "bubblewrap":
            self._import_folder().mkdir(exist_ok=True)
            (self._import_folder() / PACKAGE.name).symlink_to(PACKAGE)
            if self.user is not None:
                self._hand_over(listener)
            user = "-" if self.user is None else str(self.user)
            return [sys.executable, "-P", "-m", "harness.core.guard", str(os.getpid()), user, *confined]
        outside = self.outside and self.role == "run"
        hosts = Path("/etc/hosts")
        if not outside:
            hosts = self.scratch / "hosts"  # torchrun looks its own name up; the machine's file stays outside
            hosts.write_text(f"127.0.0.1 localhost {bubblewrap.HOSTNAME}\n")
        return bubblewrap.command_line(
            confined, readable=self._readable(), hidden=visible.hidden(), scratch=self.scratch,
            sockets={listener.path: INSIDE_SOCKET}, hosts=hosts, devices=self._gpu_devices(),
            memory_bytes=self.limits.shared_memory_bytes, shared_memory=self.role == "run",
            outside=outside,
        )  # fmt: skip

    def environment(self, listener: Listener) -> dict[str, str]:
        """The whole environment of the child: an allow-list, the same on every machine."""
        socket_path = INSIDE_SOCKET if self.rung == "bubblewrap" else listener.path
        threads = str(self.threads)
        cache_folder = self.scratch / "cache"
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch / "tmp"),
            "USER": "speedrun",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self._import_folder()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            **ALLOCATOR,
            # A pool of compilers needs locks in shared memory, which a model host may not write.
            "TORCHINDUCTOR_COMPILE_THREADS": threads if self.role == "run" else "1",
            "TORCHINDUCTOR_CACHE_DIR": str(cache_folder / "inductor"),
            "TRITON_CACHE_DIR": str(cache_folder / "triton"),
            SOCKET_VARIABLE: str(socket_path),
            NONCE_VARIABLE: listener.nonce,
            **(visible.gpu_environment() if self.gpus else {}),
        }

    def _import_folder(self) -> Path:
        """Where Python looks for the harness. Python lists such a folder, and only bubblewrap can hide its rest."""
        return PACKAGE.parent if self.rung == "bubblewrap" else self.scratch / "python"

    def _confinement(self) -> Confinement:
        ruled = self.rung in ("user", "landlock")
        # Where other processes share the user id, the kernel would count theirs; twice ours, so that ours is named.
        tasks = 2 * self.limits.tasks if self.rung in ("bubblewrap", "user") else None
        write = [str(self.scratch), *PLAIN_DEVICES, *self._gpu_devices()]
        if self.role == "run":
            write.append(SHARED_MEMORY)  # locks of multiprocessing; the guard removes what the user leaves there
        # Two model hosts of one run must agree because they compute alike, not because one tells the other.
        alone = self.role == "host"
        confinement = Confinement(
            self._network(), self.limits.file_bytes, OPEN_FILES, tasks, user=self.user, alone=alone
        )
        if ruled:
            confinement.read, confinement.listed = visible.without_hidden(self._readable())
            confinement.read += PROC_PATHS
            if self.gpus:
                # CUDA names its threads there, and a rule about this process's folder does not hold for its children.
                processes = "/proc/self" if self.role == "host" else "/proc"
                confinement.read += [processes, *GPU_PROC_PATHS]
                write.append(processes)
            if self._several:
                confinement.read.append("/sys")  # gloo looks for network devices, and fails where it may not look
            confinement.write = write
        return confinement

    def _gpu_devices(self) -> list[str]:
        """A model host shares memory with the judge on the judge's GPU, which the driver may number otherwise: all."""
        if not self.gpus:
            return []
        nodes = [str(device) for device in Path("/dev").glob("nvidia*")]
        return visible.first_gpus(nodes, self.gpus) if self.role == "run" else sorted(nodes)

    def _network(self) -> str:
        """The model host needs none. Without a network of its own a run gets TCP only to let its processes meet."""
        if self.role == "host":
            return "none"
        if self.rung in ("user", "landlock"):
            return "tcp" if self._several else "none"
        return "all"

    @property
    def _several(self) -> bool:
        return self.processes > 1 or self.outside

    def _readable(self) -> list[str]:
        return [*visible.system_paths(self.gpus > 0), *visible.python_paths(), str(PACKAGE), str(self.source)]

    def _hand_over(self, listener: Listener) -> None:
        """Gives scratch and socket to the child's user, and takes from it what others may read. Raises UserError."""
        assert self.user is not None
        closed = closed_to_others([str(self.source.parent), str(self.scratch.parent)])
        if closed is not None:
            message = f"{closed}: the run's own user id cannot pass through this folder"
            raise UserError(message, f"chmod o+x {closed}, or choose another --runs-dir")
        for place in (self.scratch, self.scratch / "tmp", listener.path):
            os.chown(place, self.user, self.user)
        listener.path.parent.chmod(0o711)  # others pass through; who may connect is said by the socket itself
        for place in (self.source, *self.source.rglob("*")):
            place.chmod(stat.S_IMODE(place.stat().st_mode) | (0o555 if place.is_dir() else 0o444))
        for place in self.private:
            place.chmod(stat.S_IMODE(place.stat().st_mode) & ~0o007)


def _best_rung(level: str) -> str:
    if level == "isolated" and probe().level == "isolated":
        return probe().rung
    return next(rung for rung, its_level in LEVELS.items() if its_level == level)


def fresh_user() -> int:
    """A user id that nobody has, from the high end of those this container maps, below the 32-bit signed limit."""
    end = 1 << 31
    for kind in ("uid_map", "gid_map"):
        ranges = [list(map(int, line.split())) for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
        end = min(end, max(first + count for first, _, count in ranges))
    taken = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    # The last thousand stay free: 65534 and 65535 stand for nobody where 65536 ids are mapped.
    while (user := end - 1000 - secrets.randbelow(4000)) in taken:
        continue
    return user


def closed_to_others(paths: Iterable[str]) -> Path | None:
    """The first folder on the way to any of these paths that another user may not pass through, links followed."""
    for path in paths:
        for place in dict.fromkeys([Path(path), Path(path).resolve()]):
            for folder in [*reversed(place.parents), place]:
                if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                    return folder
    return None
