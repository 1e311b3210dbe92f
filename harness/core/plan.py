"""What a run is to be, what happens in it and what came of it: the referee's words to everything above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.failures import Failure
from harness.core.protocol import Context, TaskFacts
from harness.core.still_computing import StillComputing
from harness.core.task import Caps, HardwareClass, Task


@dataclass(frozen=True)
class Node:
    """Which of the machines of a run this is, how many there are, and the address where torchrun's processes meet.

    Each has a referee for its own ranks and its own copy of the data. The clock, the weights and the judge are node
    0's; no referee sees what happens on another node, so the level of trust is at most `partial`.
    """

    number: int = 0
    count: int = 1
    host: str = ""
    port: int = 0


ONE_NODE = Node()


@dataclass(frozen=True)
class Plan:
    """Everything one run is made of, fixed before it starts."""

    task: Task
    hardware: HardwareClass
    source: Path
    data_folder: Path
    folder: Path
    trust: str
    seed: int
    methods: Mapping[str, bool]
    hparams: Mapping[str, Any]
    batch: int
    length: int
    dry_steps: int | None = None  # see Context
    judge_holdout: bool = False  # judge the holdout split too: once per record, its gap is reported
    compiled: Path | None = None  # folder of the compile cache, filled when it is not there; None: nothing is kept
    rung: str = ""  # how the level of trust is reached; see sandbox.py
    node: Node = ONE_NODE

    @property
    def caps(self) -> Caps:
        return self.task.caps[self.hardware.device]

    @property
    def devices(self) -> int:
        """Of this node."""
        return self.hardware.devices // self.node.count

    @property
    def cores(self) -> int:
        """Of this node."""
        return self.hardware.cores // self.node.count

    @property
    def ranks(self) -> range:
        """Those that run on this node."""
        first = self.node.number * self.devices
        return range(first, first + self.devices)

    @property
    def launcher(self) -> list[str]:
        """What starts a rank a device, between the interpreter and the script: torchrun; nothing for one process."""
        node = self.node
        if self.hardware.devices == 1:
            return []
        meeting = ["--standalone"]
        if node.count > 1:
            meeting = [f"--node-rank={node.number}", f"--master-addr={node.host}", f"--master-port={node.port}"]
        return ["-m", "torch.distributed.run", *meeting, f"--nnodes={node.count}", f"--nproc-per-node={self.devices}"]

    def context(self) -> Context:
        """What the run, the fresh build and the model host are all told."""
        tokenizer = self.task.tokenizer
        facts = TaskFacts(
            name=self.task.name, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text,
            order=self.task.order, target_loss=self.task.target.val_loss,
            max_length=self.task.evaluation.max_length,
            document_tokens=tuple(self.task.synthetic.document_tokens), model=self.task.model,
        )  # fmt: skip
        hardware = self.hardware
        return Context(
            facts, self.seed, hardware.devices, hardware.device, dict(self.methods), dict(self.hparams), self.dry_steps
        )


@dataclass(frozen=True)
class Event:
    """Something that a person or program watching the run may want to know."""

    kind: str  # "state", "log", "judging", "note"
    values: dict[str, Any]


@dataclass
class Outcome:
    """What came of a run. Seconds are wall-clock; a field stays None where the run did not get that far."""

    state: str = "LAUNCHED"
    reason: Failure | None = None
    message: str = ""
    times: dict[str, float] = field(default_factory=dict)  # state -> seconds after launch
    seconds: float | None = None
    cpu_seconds: float | None = None
    setup_cpu_seconds: float | None = None
    export_seconds: float | None = None
    tokens: int | None = None
    tokens_counted_by: str | None = None
    start_digest: str | None = None
    weights_digest: str | None = None
    weights_bytes: int | None = None
    suspended_seconds: float = 0.0
    lost_seconds: float | None = None  # what others had of the run's CPUs, of which
    stolen_seconds: float | None = None  # a hypervisor; see clock.py
    cpus: list[int] = field(default_factory=list)  # those of the run
    consulted: list[str] = field(default_factory=list)
    judgement: dict[str, Any] | None = None
    holdout: dict[str, Any] | None = None
    holdout_failure: str = ""  # why there is none, where it was asked for
    output_truncated: bool = False
    still_computing: list[StillComputing] = field(default_factory=list)  # at the seal
