"""The last program before the script or the model host: gives up what a run must not have, then becomes it.

    python -P -S -m harness.core.confine CONFINEMENT COMMAND...

CONFINEMENT is a JSON object, see the class. Standard library only and few modules of it: this start is part of
every run. Limits, Landlock rules, another user id and the system call filter all hold for whatever it starts.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys

from harness.core import landlock, seccomp

PR_CAPBSET_DROP = 24
MAX_CAPABILITY = 63


class Confinement:
    """What to give up. `read` and `write` are the only paths left, None for all, and of `listed` the names below;
    `user` is a user and group id.

    `network`: "none", "tcp" (streams, wherever the network namespace reaches) or "all". `tasks`: processes and
    threads of this user, None where others share the user id and the kernel would count theirs too. `alone`: nothing
    that shows what other processes do with a file.
    """

    def __init__(
        self, network: str = "none", file_bytes: int | None = None, open_files: int | None = None,
        tasks: int | None = None, read: list[str] | None = None, write: list[str] | None = None,
        listed: list[str] | None = None, user: int | None = None, alone: bool = False,
    ) -> None:  # fmt: skip
        self.network = network
        self.file_bytes = file_bytes
        self.open_files = open_files
        self.tasks = tasks
        self.read = read
        self.write = write
        self.listed = listed
        self.user = user
        self.alone = alone

    def to_json(self) -> str:
        return json.dumps(vars(self))

    def apply(self) -> None:
        """Confines this process for good. Raises OSError."""
        seccomp.no_new_privileges()
        self._limit()
        if self.read is not None:
            landlock.restrict(self.read, self.write or [], self.listed or [], tcp=self.network != "none")
            self._drop_rights()
        if seccomp.available():
            seccomp.install(seccomp.assemble(os.uname().machine, *self._sockets(), self.alone))

    def _limit(self) -> None:
        wanted = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_NPROC: self.tasks,
        }
        for kind, value in wanted.items():
            if value is None:
                continue
            _, hard = resource.getrlimit(kind)
            allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (allowed, allowed))

    def _drop_rights(self) -> None:
        """Another user where one is given; for root no capability, which a program it executes would regain."""
        if os.geteuid() != 0:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in range(MAX_CAPABILITY + 1):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        if self.user is not None:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)

    def _sockets(self) -> tuple[tuple[int, ...], bool]:
        """The families of sockets, and whether internet sockets are streams only."""
        if self.network == "none":
            return (socket.AF_UNIX,), True
        return (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK), self.network == "tcp"


def main() -> None:
    """Confines this process and becomes the command; says why and ends with status 1 where that is refused."""
    try:
        Confinement(**json.loads(sys.argv[1])).apply()
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"the sandbox cannot be set up: {error}")


if __name__ == "__main__":
    main()
