"""What a task is: corpus, tokenizer, validation tokens, target loss, caps. A task is data: one TOML file.

`load_task("gcide")` reads `tasks/gcide.toml`; a path reads a task from anywhere, which is how the tests
make seconds-sized ones. Nothing here touches the corpus itself.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.core.files import check_values, read_file
from harness.core.protocol import ModelShape
from harness.errors import UserError, describe_validation
from harness.paths import TASKS

MAX_TASK_BYTES = 256 * 1024
TASK_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"  # beside the task or in its data: no folder, no way out of one
REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"  # on the hub: owner/name
# tomllib's time and memory grow with the square of a dotted key's length: 64 KiB of it would take 16 GB.
MAX_DOTS_PER_LINE = 250

Split = Literal["train", "validation", "holdout"]


class Strict(BaseModel):
    """Unknown fields are errors: a misspelled cap must not silently become no cap."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Corpus(Strict):
    """The pinned file the text comes from."""

    kind: str
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # given to pip: it must not pass for an option
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
    file: str = Field(pattern=FILE_NAME)
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TextSource(Strict):
    """The raw text behind a tokenized copy: a dataset of parquet files whose column `column` has one document a row."""

    repository: str = Field(pattern=REPOSITORY)
    name: str = Field(pattern=FILE_NAME)
    column: str


class Hub(Strict):
    """A public copy of the corpus, tokenized, as `.bin` shards in a dataset repository on the Hugging Face hub.

    What the repository holds is pinned by the lock file beside the task, which `speedrun data lock` writes; tasks of
    one corpus share it, and the folder of the prepared shards. Shards are named by prefix and a number.
    """

    repository: str = Field(pattern=REPOSITORY)
    lock: str = Field(pattern=FILE_NAME)
    folder: str = Field(pattern=FILE_NAME)
    train: str = Field(pattern=FILE_NAME)
    validation: str = Field(pattern=FILE_NAME)
    shard_tokens: int = Field(gt=0)
    text: TextSource


class Tokenizer(Strict):
    """A byte-level BPE in tiktoken's file format, beside the task file.

    With `public` it is the named vocabulary of tiktoken's and not in the repository: see gpt2.py.
    """

    file: str = Field(pattern=FILE_NAME)
    public: Literal["gpt2"] | None = None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    pattern: str
    vocab_size: int = Field(gt=1, le=65536)
    end_of_text: int = Field(ge=0)


class Shard(Strict):
    """One `.bin` file of the prepared data; `text_bytes` counts the UTF-8 bytes its tokens stand for.

    Of shards on the hub, documents and bytes are not counted.
    """

    file: str = Field(pattern=FILE_NAME[:-1] + r"\.bin$")
    split: Split
    tokens: int = Field(gt=0)
    documents: int | None = Field(default=None, gt=0)
    text_bytes: int | None = Field(default=None, gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class HubLock(Strict):
    """What a repository on the hub held when it was first met: never written again by the harness."""

    repository: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    shards: list[Shard]


class Target(Strict):
    """The validation loss to reach, in nats per token, and why it is that number."""

    val_loss: float = Field(gt=0)
    provisional: bool
    reason: str


class Evaluation(Strict):
    """Limits of the [batch, length] a submission may declare for its evaluation, and how much is scored.

    `tokens` counts the validation tokens that are targets, from the second on; None scores all.
    """

    max_length: int = Field(gt=0)
    max_batch_tokens: int = Field(gt=0)
    tokens: int | None = Field(default=None, gt=0)


class Synthetic(Strict):
    """Document lengths in tokens at the quantiles 0, 0.1, ... 1 of the training split, for warm-up batches."""

    document_tokens: list[int] = Field(min_length=2)


class Audit(Strict):
    """What the audit of audits.py asks for and tolerates.

    `share` of the rows and at least `rows` of them are audited. `tolerance` is the largest difference of a logit
    that rounding explains, by device; `nats_gained` the mean nats a token that no honest model gains.
    """

    share: float = Field(gt=0, le=1)
    rows: int = Field(gt=0)
    tolerance: dict[Literal["cpu", "cuda"], float]
    nats_gained: float = Field(gt=0)


class Caps(Strict):
    """Hard limits of one run. Seconds are wall-clock unless the name says CPU."""

    setup_cpu_seconds: float = Field(gt=0)
    compile_cpu_seconds: float = Field(ge=0)
    timeout_seconds: float = Field(gt=0)
    host_load_cpu_seconds: float = Field(gt=0)
    judging_seconds: float = Field(gt=0)
    judging_cpu_seconds: float | None = Field(default=None, gt=0)  # of the host that is scored; None on GPUs
    source_bytes: int = Field(gt=0)
    line_bytes: int = Field(gt=0)
    numeric_literals: int = Field(gt=0)
    weights_bytes: int = Field(gt=0)
    memory_bytes: int = Field(gt=0)
    output_bytes: int = Field(gt=0)
    log_lines: int = Field(gt=0)


class Task(Strict):
    """A frozen task. `digest` is the sha256 of its TOML file, stamped on every run."""

    name: str = Field(pattern=TASK_NAME)
    title: str
    order: Literal["free", "sequential"]
    model: ModelShape | None = None  # which the judge then builds itself; None: submissions bring their own
    step_tokens: int | None = Field(default=None, gt=0)  # the score counts steps of so many tokens; None: seconds
    target: Target
    corpus: Corpus | None = None
    hub: Hub | None = None
    tokenizer: Tokenizer
    shards: list[Shard] = []  # of a task with [hub] those of its lock file; none before there is one
    synthetic: Synthetic
    evaluation: Evaluation
    audit: Audit
    caps: dict[Literal["cpu", "cuda"], Caps]
    imports: list[str] | None = None  # top-level modules a submission may import; None: `check` does not look
    path: Path = Field(exclude=True)
    digest: str = Field(exclude=True)
    revision: str | None = Field(default=None, exclude=True)  # of the hub's repository, by the lock file

    @model_validator(mode="after")
    def _has_what_a_run_needs(self) -> Task:
        if self.tokenizer.end_of_text >= self.tokenizer.vocab_size:
            raise ValueError("tokenizer.end_of_text must be below tokenizer.vocab_size")
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("shards names a file twice")
        if self.hub and (self.corpus or self.order != "sequential"):
            raise ValueError("a task with [hub] has order = 'sequential' and no [corpus]")
        if self.step_tokens and self.order != "sequential":
            raise ValueError("step_tokens needs order = 'sequential': tokens must be counted by the referee")
        if self.hub is None or self.revision is not None:
            self._has_shards()
        elif self.shards:
            raise ValueError("a task with [hub] has its shards in its lock file, not in [[shards]]")
        if set(self.audit.tolerance) != set(self.caps):
            raise ValueError("audit.tolerance must name the devices that caps names")
        return self

    def _has_shards(self) -> None:
        for split in ("train", "validation"):
            if not self.of_split(split):
                raise ValueError(f"shards has no entry with split = {split!r}")
        if self.hub is None and any(shard.documents is None or shard.text_bytes is None for shard in self.shards):
            raise ValueError("every entry of shards needs documents and text_bytes")
        wanted, there = self.evaluation.tokens, sum(shard.tokens for shard in self.of_split("validation"))
        if wanted is not None and there <= wanted:
            raise ValueError(f"evaluation.tokens is {wanted:,}, but validation has only {there:,} tokens")

    def of_split(self, split: str) -> list[Shard]:
        """The shards of one split, in stream order."""
        return [shard for shard in self.shards if shard.split == split]

    @property
    def tokenizer_path(self) -> Path:
        return self.path.parent / self.tokenizer.file

    def data_folder(self, data_dir: Path) -> Path:
        """Where the prepared shards of this task lie under a data folder."""
        return data_dir / (self.hub.folder if self.hub else self.name)

    @property
    def lock_path(self) -> Path | None:
        """The lock file of a task with [hub], whether it is there or not."""
        return self.path.parent / self.hub.lock if self.hub else None


def load_task(name_or_path: str | Path) -> Task:
    """Reads and validates a task by name or by path of its TOML file. Raises UserError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = TASKS / f"{name_or_path}.toml"
        if not re.fullmatch(TASK_NAME, str(name_or_path)) or not path.is_file():
            known = ", ".join(sorted(file.stem for file in TASKS.glob("*.toml")))
            raise UserError(f"unknown task {str(name_or_path)!r}", f"use one of: {known}; or a path to a .toml")
    table, digest = read_toml(path, MAX_TASK_BYTES)
    for name in ("path", "digest", "revision"):
        if name in table:
            raise UserError(f"{path}: {name}: not a field of a task file", "remove it")
    try:
        task = Task.model_validate({**table, "path": path, "digest": digest})
    except ValidationError as error:
        raise describe_validation(error, path, "correct the named fields of the task file") from None
    if task.lock_path is None or not task.lock_path.exists():
        return task
    return _with_lock(task, table, task.lock_path)


def _with_lock(task: Task, table: dict, path: Path) -> Task:
    """The task with the shards that its lock file pins. Raises UserError."""
    remedy = f"restore the lock file from the repository; or remove it, then: speedrun data lock {task.name}"
    try:
        lock = HubLock.model_validate(read_toml(path, MAX_TASK_BYTES)[0])
        locked = {"shards": lock.shards, "revision": lock.revision, "path": task.path, "digest": task.digest}
        locked_task = Task.model_validate({**table, **locked})
    except ValidationError as error:
        raise describe_validation(error, path, remedy) from None
    if task.hub is not None and lock.repository != task.hub.repository:
        raise UserError(f"{path}: is for {lock.repository}, {task.path.name} names {task.hub.repository}", remedy)
    return locked_task


def read_toml(path: Path, max_bytes: int) -> tuple[dict, str]:
    """A TOML file's table and the sha256 of its bytes; the size is checked before it is read. Raises UserError."""
    content = read_file(path, max_bytes, "check the path and its permissions")
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.count(b".") > MAX_DOTS_PER_LINE:
            raise UserError(f"{path}: line {number} has over {MAX_DOTS_PER_LINE} dots", "write it on several lines")
    try:
        table = tomllib.loads(content.decode())
    except RecursionError:
        raise UserError(f"{path}: nested too deeply", "write plain tables") from None
    except ValueError as error:  # of the parser, of the encoding, of a number with thousands of digits
        raise UserError(f"{path}: not valid TOML: {error}", "correct the file at the place named") from None
    try:
        check_values(table)
    except ValueError as error:
        raise UserError(f"{path}: {error}", "correct the named field") from None
    return table, hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class HardwareClass:
    """What may be compared in seconds: `cpu-1thread`, `1xH200`, `8xH100`; `2xcpu-1thread` is two processes.

    `devices` is the number of processes, one per device; `cores` counts CPU cores over all processes.
    """

    name: str
    device: Literal["cpu", "cuda"]
    devices: int
    cores: int


# A GPU process needs a few cores for its launcher, loader and allocator threads; 16 is what rented nodes give.
CORES_PER_GPU = 16
_CLASS = re.compile(
    r"(?:(?P<count>[1-9][0-9]?)x)?(?:cpu-(?P<threads>[1-9][0-9]?)thread|(?P<gpu>[A-Z][A-Za-z0-9]{1,31}))"
)


def hardware_class(name: str) -> HardwareClass:
    """Parses the name of a hardware class. Raises UserError."""
    match = _CLASS.fullmatch(name)
    if match is None or (match["gpu"] and not match["count"]):
        raise UserError(
            f"unknown hardware class {name!r}",
            "use cpu-Nthread, MxCPU-CLASS such as 2xcpu-1thread, or 1xH200",
        )
    count = int(match["count"] or 1)
    if match["threads"]:
        return HardwareClass(name, "cpu", count, count * int(match["threads"]))
    return HardwareClass(name, "cuda", count, count * CORES_PER_GPU)
