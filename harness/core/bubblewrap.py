"""The first rung of isolation: a command line of bubblewrap, with namespaces and a file system of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

HOSTNAME = "speedrun"


def namespaces(outside: bool = False) -> list[str]:
    """Own user, PID, IPC, network (loopback only), host name and cgroup namespaces, ended with the parent.

    With `outside` network and host name stay those of the machine.
    """
    named = [] if outside else ["--unshare-net", "--unshare-uts", "--hostname", HOSTNAME]
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try", *named,
        "--uid", "1000", "--gid", "1000", "--die-with-parent", "--new-session",
    ]  # fmt: skip


def trial() -> list[str]:
    """What works where the real command line does."""
    program = shutil.which("bwrap") or "bwrap"
    memory = ["--size", "1048576", "--tmpfs", "/tmp"]
    return [program, *namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", *memory, "true"]


def command_line(
    command: Sequence[str], *, readable: Iterable[str], hidden: Iterable[str], scratch: Path,
    sockets: dict[Path, Path], hosts: Path, devices: Iterable[str], memory_bytes: int, shared_memory: bool,
    outside: bool = False,
) -> list[str]:  # fmt: skip
    """`command` with `readable` (less `hidden`) read-only and `scratch` writable, each at its own path.

    `sockets` maps paths outside to those inside. With `shared_memory` there are a /tmp and a /dev/shm of at most
    `memory_bytes` each. `outside`: see `namespaces`.
    """
    arguments = ["--proc", "/proc", "--dev", "/dev"]
    if shared_memory:
        for folder in ("/tmp", "/dev/shm"):
            arguments += ["--size", str(memory_bytes), "--tmpfs", folder]
    for path in readable:
        # A link such as /lib stays one; everything else is bound, and passed over where it does not exist.
        link = Path(path).is_symlink() and not Path(path).readlink().is_absolute()
        arguments += ["--symlink", str(Path(path).readlink()), path] if link else ["--ro-bind-try", path, path]
    for path in hidden:
        arguments += ["--tmpfs", path, "--remount-ro", path]
    for device in devices:
        arguments += ["--dev-bind", device, device]
    for place, inside in sockets.items():
        arguments += ["--bind", str(place), str(inside)]
    arguments += ["--bind", str(scratch), str(scratch), "--ro-bind", str(hosts), "/etc/hosts"]
    # Bubblewrap's own / and /dev are memory too, and could be written without end.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(scratch)]
    return [shutil.which("bwrap") or "bwrap", *namespaces(outside), *arguments, *command]
