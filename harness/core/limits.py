"""How much of the machine one process tree may take besides CPU time: the caps that no task file states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.core.task import Caps

Role = Literal["run", "host"]

GIB = 1 << 30
# Processes and threads together. A script of one thread has a handful; a GPU process some 60, compile workers apart.
TASKS = {("run", False): 1024, ("run", True): 8192, ("host", False): 256, ("host", True): 1024}
# Largest file beyond the weights: a compiled kernel with its symbols stays below.
FILE_ROOM = GIB // 4
# Everything in scratch: caches of compiled kernels and a few copies of the weights.
SCRATCH_ROOM = {"run": 4 * GIB, "host": 2 * GIB}
# /tmp and /dev/shm are memory; NCCL keeps a few MiB there for each pair of devices.
SHARED_MEMORY_BYTES = {False: GIB, True: 8 * GIB}
OPEN_FILES = 16_384  # descriptors a process may hold: what a GPU node's usual limit is, or less


@dataclass(frozen=True)
class Limits:
    """Bytes and counts for a whole tree, except `file_bytes`, which is for each file."""

    memory_bytes: int
    tasks: int
    file_bytes: int
    scratch_bytes: int
    shared_memory_bytes: int


def limits_for(role: Role, caps: Caps, gpus: bool) -> Limits:
    """The limits of a run, or the smaller ones of a model host, under a task's caps."""
    file_bytes = max(caps.weights_bytes, caps.output_bytes) + FILE_ROOM
    return Limits(
        memory_bytes=caps.memory_bytes,
        tasks=TASKS[role, gpus],
        file_bytes=file_bytes,
        scratch_bytes=file_bytes + SCRATCH_ROOM[role],
        shared_memory_bytes=SHARED_MEMORY_BYTES[gpus],
    )
