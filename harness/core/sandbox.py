"""What a child may see and use: bubblewrap where the system has it, a guard process elsewhere.

`isolated`: own user, PID, IPC and network namespaces (loopback only), read-only interpreter, packages and
source, nothing of the corpus, of other runs or of the home folder, a private /tmp and a scratch folder.
`open`: none of that. A child at `open` can read what its user can read and can attack its parent; the guard
only makes sure that no process outlives the run. Every run says at which level it ran.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.core.protocol import NONCE_VARIABLE, SOCKET_VARIABLE, Listener
from harness.paths import PACKAGE

HOSTNAME = "speedrun"
INSIDE_SOCKET = Path("/run/speedrun/socket")
INSTALL_REMEDY = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap; "
    "Arch: pacman -S bubblewrap)"
)
NAMESPACE_REMEDY = (
    "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0, or run as root outside a restricted container"
)
# Programs and libraries that an interpreter, a compiler and torch need. /usr/share is left out on purpose:
# manuals, licences and word lists are text to learn from.
SYSTEM_FOLDERS = (
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/include",
    "/usr/local/lib",
)
LINKED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib64")
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/sys/devices/system/cpu",
)
GPU_PATHS = ("/usr/local/cuda", "/sys", "/etc/OpenCL")


@dataclass(frozen=True)
class SandboxProbe:
    """The trust level this machine can give, what lacks for the next one, and how to get it."""

    level: str
    lacks: list[str] = field(default_factory=list)
    remedy: str = ""


@cache
def probe() -> SandboxProbe:
    """Tries the sandbox once in this process (about 20 ms)."""
    program = shutil.which("bwrap")
    if not sys.platform.startswith("linux"):
        return SandboxProbe("open", ["Linux namespaces"], "use Linux for runs that are to be records")
    if program is None:
        return SandboxProbe("open", ["bubblewrap"], INSTALL_REMEDY)
    command = [program, *_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return SandboxProbe("open", [f"a working bubblewrap ({error})"], NAMESPACE_REMEDY)
    if tried.returncode != 0:
        said = tried.stderr.decode(errors="replace").strip()
        return SandboxProbe("open", [f"user namespaces ({said})"], NAMESPACE_REMEDY)
    return SandboxProbe("isolated")


@dataclass(frozen=True)
class Sandbox:
    """What one child gets: read-only folders, a scratch folder to write in, devices and threads."""

    level: str
    source: Path
    scratch: Path
    threads: int
    gpus: bool = False

    def command(self, command: Sequence[str], listener: Listener) -> list[str]:
        """The command line that runs `command` inside. `listener`'s socket is what it may talk to."""
        if self.level != "isolated":
            return [sys.executable, "-P", "-m", "harness.core.guard", str(os.getpid()), *command]
        binds = [*_system_binds(), *_python_binds(), "--ro-bind", str(self.source), str(self.source)]
        binds += ["--ro-bind", str(PACKAGE), str(PACKAGE), "--bind", str(self.scratch), str(self.scratch)]
        binds += ["--bind", str(listener.path), str(INSIDE_SOCKET)]
        hosts = self.scratch / "hosts"  # torchrun looks its own name up; the machine's file stays outside
        hosts.write_text(f"127.0.0.1 localhost {HOSTNAME}\n")
        binds += ["--ro-bind", str(hosts), "/etc/hosts"]
        if self.gpus:
            for path in GPU_PATHS:
                binds += ["--ro-bind-try", path, path]
            for device in sorted(Path("/dev").glob("nvidia*")):
                binds += ["--dev-bind", str(device), str(device)]
        places = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        program = shutil.which("bwrap") or "bwrap"
        return [program, *_namespaces(), *places, *binds, "--remount-ro", "/", "--chdir", str(self.scratch), *command]

    def environment(self, listener: Listener) -> dict[str, str]:
        """The whole environment of the child: an allow-list, the same on every machine."""
        socket_path = INSIDE_SOCKET if self.level == "isolated" else listener.path
        threads = str(self.threads)
        cache_folder = self.scratch / "cache"
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.scratch),
            "USER": "speedrun",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(PACKAGE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "TORCHINDUCTOR_COMPILE_THREADS": threads,
            "TORCHINDUCTOR_CACHE_DIR": str(cache_folder / "inductor"),
            "TRITON_CACHE_DIR": str(cache_folder / "triton"),
            SOCKET_VARIABLE: str(socket_path),
            NONCE_VARIABLE: listener.nonce,
        }


def _namespaces() -> list[str]:
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", "1000", "--gid", "1000", "--hostname", HOSTNAME, "--die-with-parent", "--new-session",
    ]  # fmt: skip


def _system_binds() -> list[str]:
    binds: list[str] = []
    for folder in SYSTEM_FOLDERS:
        binds += ["--ro-bind-try", folder, folder]
    for folder in LINKED_FOLDERS:
        if Path(folder).is_symlink():
            binds += ["--symlink", str(Path(folder).readlink()), folder]
        else:
            binds += ["--ro-bind-try", folder, folder]
    for path in SYSTEM_FILES:
        binds += ["--ro-bind-try", path, path]
    return binds


def _python_binds() -> list[str]:
    """The interpreter, its standard library and the environment's packages, wherever they lie."""
    binds: list[str] = []
    for home in dict.fromkeys([sys.prefix, sys.base_prefix]):
        # Not the whole prefix: its share folder holds text, and a prefix may be all of /usr/local.
        for part in ("bin", "lib", "lib64", "include", "pyvenv.cfg"):
            path = str(Path(home) / part)
            if path not in SYSTEM_FOLDERS:
                binds += ["--ro-bind-try", path, path]
    return binds
