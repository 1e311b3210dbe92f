"""The filter's logic on both machines, by interpreting its program; that the kernel takes it, on this one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core import seccomp
from harness.core.confine import Confinement
from harness.paths import PACKAGE

ALL = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}


def answer(machine: str, number: int, *arguments: int, families: tuple[int, ...] = ALL, streams: bool = False) -> int:
    """What the program for `machine` returns for one call there."""
    return interpret(seccomp.assemble(machine, families, streams), machine, number, arguments)


def interpret(program: list[seccomp.Instruction], machine: str, number: int, arguments: tuple[int, ...]) -> int:
    """Classic BPF, the few instructions that the filter uses."""
    memory = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: seccomp.AUDIT_ARCHITECTURE[machine]}
    memory |= {seccomp.ARGUMENTS + 8 * index: value & 0xFFFFFFFF for index, value in enumerate(arguments)}
    place = accumulator = 0
    while True:
        code, true, false, value = program[place]
        place += 1
        if code == seccomp.LOAD:
            accumulator = memory[value]
        elif code == seccomp.AND:
            accumulator &= value
        elif code == seccomp.RETURN:
            return value
        else:
            compare = {seccomp.EQUAL: int.__eq__, seccomp.AT_LEAST: int.__ge__, seccomp.ANY_BIT: int.__and__}[code]
            place += true if compare(accumulator, value) else false


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_refused_call_is_refused_and_others_are_not(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCHITECTURE).index(machine)
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()} - {None}
    special = {seccomp.CLONE[column], seccomp.CLONE3[column], seccomp.SOCKET[column], seccomp.SETPRIORITY[column]}
    pretended = {numbers[column] for numbers in seccomp.PRETENDED.values()} - {None}
    for number in set(range(480)) - special:
        others = seccomp.PRETEND if number in pretended else seccomp.ALLOW
        assert answer(machine, number) == (seccomp.REFUSE if number in refused else others), number


def test_a_process_that_is_alone_only_seems_to_lock(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCHITECTURE).index(machine)
    alone = seccomp.assemble(machine, ALL, streams_only=False, alone=True)
    fcntl_number = seccomp.FCNTL[column]
    assert interpret(alone, machine, seccomp.FLOCK[column], (3, 2)) == seccomp.PRETEND
    assert answer(machine, seccomp.FLOCK[column], 3, 2) == seccomp.ALLOW
    for command in (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_SETLEASE, fcntl.F_NOTIFY):
        assert interpret(alone, machine, fcntl_number, (3, command)) == seccomp.PRETEND
        assert answer(machine, fcntl_number, 3, command) == seccomp.ALLOW
    for command in (fcntl.F_GETFD, fcntl.F_SETFL, fcntl.F_GETLK, fcntl.F_DUPFD_CLOEXEC, fcntl.F_ADD_SEALS):
        assert interpret(alone, machine, fcntl_number, (3, command)) == seccomp.ALLOW
    for numbers in seccomp.REFUSED_ALONE.values():
        if numbers[column] is not None:
            assert interpret(alone, machine, numbers[column], ()) == seccomp.REFUSE


def test_a_foreign_architecture_is_refused(machine: str) -> None:
    program = seccomp.assemble(machine, ALL, streams_only=False)
    assert interpret(program, OTHER[machine], 0, ()) == seccomp.REFUSE


def test_processes_can_be_made_and_namespaces_cannot(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCHITECTURE).index(machine)
    threads, new_network, signal_number = 0x3D0F00, 0x40000000, 17
    assert answer(machine, seccomp.CLONE[column], threads) == seccomp.ALLOW
    assert answer(machine, seccomp.CLONE[column], signal_number) == seccomp.ALLOW
    assert answer(machine, seccomp.CLONE[column], new_network | signal_number) == seccomp.REFUSE
    assert answer(machine, seccomp.CLONE3[column]) == seccomp.UNKNOWN


def test_priority_can_be_lowered_and_not_raised(machine: str) -> None:
    number = seccomp.SETPRIORITY[list(seccomp.AUDIT_ARCHITECTURE).index(machine)]
    assert answer(machine, number, 0, 0, 10) == seccomp.ALLOW
    assert answer(machine, number, 0, 0, -1) == seccomp.REFUSE


def test_sockets_are_of_the_allowed_families_and_kinds(machine: str) -> None:
    number = seccomp.SOCKET[list(seccomp.AUDIT_ARCHITECTURE).index(machine)]
    flags = socket.SOCK_CLOEXEC
    for family in ALL:
        assert answer(machine, number, family, socket.SOCK_STREAM | flags, streams=True) == seccomp.ALLOW
        assert answer(machine, number, family, socket.SOCK_DGRAM) == seccomp.ALLOW
    assert answer(machine, number, socket.AF_INET, socket.SOCK_DGRAM | flags, streams=True) == seccomp.REFUSE
    assert answer(machine, number, socket.AF_INET6, socket.SOCK_RAW, streams=True) == seccomp.REFUSE
    assert answer(machine, number, socket.AF_INET, socket.SOCK_STREAM, families=(socket.AF_UNIX,)) == seccomp.REFUSE
    assert answer(machine, number, socket.AF_PACKET, socket.SOCK_RAW) == seccomp.REFUSE


def test_the_numbers_are_those_of_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.is_file():
        pytest.skip("no kernel headers of x86_64 here")
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())}
    assert {name: numbers[0] for name, numbers in seccomp.REFUSED.items()} == {
        name: known[name] for name in seccomp.REFUSED
    }
    special = (seccomp.CLONE, seccomp.CLONE3, seccomp.SOCKET, seccomp.SETPRIORITY, seccomp.FLOCK, seccomp.FCNTL)
    names = ("clone", "clone3", "socket", "setpriority", "flock", "fcntl")
    assert [numbers[0] for numbers in special] == [known[name] for name in names]
    newer = {name: numbers[0] for name, numbers in {**seccomp.REFUSED_ALONE, **seccomp.PRETENDED}.items()}
    assert set(newer) - set(known) <= {"cachestat", "fchmodat2", "setxattrat"}  # older headers lack these
    assert all(known[name] == number for name, number in newer.items() if name in known)


@pytest.mark.skipif(not seccomp.available(), reason="no system call filter for this machine")
def confined(confinement: Confinement, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-P", "-S", "-m", "harness.core.confine", confinement.to_json()]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, check=False)


def test_the_kernel_takes_the_filter_and_it_outlives_exec() -> None:
    code = "import os\ntry:\n    os.chroot('/')\nexcept OSError as error:\n    print(error.errno)"
    done = confined(Confinement(), sys.executable, "-S", "-c", code)
    assert done.stdout.split() == [str(errno.EPERM)]


def test_a_sandbox_that_cannot_be_set_up_says_so() -> None:
    done = confined(Confinement(network="none"), "/no/such/program")
    assert done.returncode == 1 and "the sandbox cannot be set up" in done.stderr
    assert os.strerror(errno.ENOENT) in done.stderr
