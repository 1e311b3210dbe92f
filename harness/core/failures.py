"""Why a run failed: a closed list of reasons, and the one exception that carries them inside the core."""

from __future__ import annotations

from enum import StrEnum


class Failure(StrEnum):
    """The reason of a FAILED run. Every one of them is in run.json and in the journal."""

    CRASH = "crash"
    TIMEOUT = "timeout"
    SETUP_CAP = "setup-cap"
    MEMORY_CAP = "memory-cap"
    PROCESS_CAP = "process-cap"
    DISK_CAP = "disk-cap"
    TOO_MANY_CORES = "too-many-cores"
    WEIGHTS_CHANGED = "weights-changed-before-start"
    WEIGHTS_CAP = "weights-cap"
    WEIGHTS_MAPPED = "weights-still-mapped"
    WEIGHTS_HOLD_DATA = "weights-hold-data"
    NO_WEIGHTS = "no-weights"
    PROTOCOL = "protocol-violation"
    INTERRUPTED = "interrupted"
    SUSPENDED = "suspended"
    MACHINE_BUSY = "machine-busy"
    HOST_CRASH = "model-host-crash"
    HOST_TIMEOUT = "model-host-timeout"
    HOST_LOAD_CAP = "model-host-load-cap"
    HOST_ANSWER_CAP = "model-host-answer-cap"
    HOST_PROTOCOL = "model-host-protocol-violation"
    WRONG_SHAPE = "wrong-shape"
    NOT_FINITE = "not-finite"
    AUDIT = "audit-failed"
    JUDGE_CRASH = "judge-crash"


class RunFailed(Exception):
    """Ends a run with a reason; the message says what happened, for a person."""

    def __init__(self, reason: Failure, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
