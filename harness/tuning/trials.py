"""Trials and the file that keeps them: trials.csv, one row a trial, failed ones too, written after every trial.

A trial is fixed by its source, hyperparameters and seed: run again it gives the same loss. So the table is looked up
before anything is run, and a trial that several stages ask for is run once.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bundle import write_atomically
from harness.core.files import read_file
from harness.errors import UserError
from harness.submission import Submission, Value
from harness.tuning.protocol import STAGES

MAX_TABLE_BYTES = 16 << 20
BEFORE = ("stage", "number", "seed")
AFTER = ("val_loss", "status", "seconds", "run_id", "source")
JUDGED = "judged"
BUDGET = "budget"  # the stage of trials that look for the smallest budget; the others are the protocol's

Hparams = Mapping[str, Value]


@dataclass(frozen=True)
class Job:
    """A trial to run: all hyperparameters of the submission, and where it comes from."""

    stage: str
    number: int
    seed: int
    hparams: dict[str, Value]

    @property
    def key(self) -> tuple:
        return key_of(self.hparams, self.seed)


@dataclass(frozen=True)
class Trial:
    """A trial that was run. Loss in nats per token, None where it failed; seconds are wall-clock, with judging."""

    job: Job
    val_loss: float | None
    status: str
    seconds: float
    run_id: str


def key_of(hparams: Hparams, seed: int) -> tuple:
    """What fixes a trial of one source."""
    return seed, *sorted(hparams.items())


class TrialTable:
    """The trials of one submission, in the order in which they ended. Raises UserError on a file it cannot continue.

    `source`: the digest of what a loss depends on besides hyperparameters and seed.
    """

    def __init__(self, path: Path, submission: Submission) -> None:
        self.path = path
        self._declared = submission.manifest.hparams
        self.source = source_digest(submission)
        self.trials: list[Trial] = []
        self._by_key: dict[tuple, Trial] = {}
        for trial in self._read() if path.exists() else []:
            self._enter(trial)

    def add(self, trial: Trial) -> None:
        """Enters a trial and writes the file."""
        self._enter(trial)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self._text())

    def find(self, hparams: Hparams, seed: int) -> Trial | None:
        """The trial with these hyperparameters and this seed, of whatever stage."""
        return self._by_key.get(key_of(hparams, seed))

    def of_stage(self, stage: str) -> list[Trial]:
        """The trials that a stage ran, by number."""
        return sorted((t for t in self.trials if t.job.stage == stage), key=lambda trial: trial.job.number)

    def _enter(self, trial: Trial) -> None:
        self.trials.append(trial)
        self._by_key[trial.job.key] = trial

    @property
    def _columns(self) -> list[str]:
        return [*BEFORE, *self._declared, *AFTER]

    def _text(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._columns)
        for trial in self.trials:
            job, loss = trial.job, "" if trial.val_loss is None else repr(trial.val_loss)
            values = [job.hparams[name] for name in self._declared]
            after = [loss, trial.status, f"{trial.seconds:.1f}", trial.run_id, self.source[:12]]
            writer.writerow([job.stage, job.number, job.seed, *values, *after])
        return text.getvalue()

    def _read(self) -> Iterable[Trial]:
        content = read_file(self.path, MAX_TABLE_BYTES, "move it aside")
        try:
            reader = csv.DictReader(io.StringIO(content.decode()), strict=True)
            rows = list(reader)
        except (ValueError, csv.Error) as error:
            raise UserError(f"{self.path}: not a table of trials: {error}", "restore it from git") from None
        if reader.fieldnames is not None and set(reader.fieldnames) != set(self._columns):
            odd = ", ".join(sorted(set(reader.fieldnames) ^ set(self._columns)))
            message = f"{self.path}: its columns are not the declared hyperparameters (differing: {odd[:300]})"
            raise UserError(message, "move the file aside and tune again, or restore submission.toml")
        for number, row in enumerate(rows, start=2):
            if row["source"] != self.source[:12]:
                raise UserError(
                    f"{self.path}: line {number} was made with another source ({row['source']}, now "
                    f"{self.source[:12]}): train.py, [evaluation], [methods] or the task changed since",
                    "restore them to continue, or move the file aside and tune again",
                )
            try:
                yield self._trial(row)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                message = f"{self.path}: line {number}: not a trial: {error}"
                raise UserError(message, "restore it from git, or remove the line") from None

    def _trial(self, row: dict[str, str]) -> Trial:
        hparams = {name: hparam.parse(row[name]) for name, hparam in self._declared.items()}
        job = Job(row["stage"], int(row["number"]), int(row["seed"]), hparams)
        if job.stage not in (*STAGES, BUDGET):
            raise ValueError(f"stage {job.stage!r} is none of {', '.join((*STAGES, BUDGET))}")
        loss = float(row["val_loss"]) if row["val_loss"] else None
        if (loss is not None) != (row["status"] == JUDGED):
            raise ValueError(f"a loss stands with status {JUDGED}, and only there")
        if loss is not None and not math.isfinite(loss):
            raise ValueError("val_loss is not a finite number")
        return Trial(job, loss, row["status"], float(row["seconds"]), row["run_id"])


def source_digest(submission: Submission) -> str:
    """sha256 of what a loss depends on besides hyperparameters and seed.

    Comments, docstrings, layout, declared defaults and ranges, the target and caps of the task do not count.
    """
    manifest, task = submission.manifest, submission.task
    parts = {
        "code": {name: _meaning(ast.parse(text)) for name, text in submission.files.items() if name.endswith(".py")},
        "evaluation": manifest.evaluation.model_dump(),
        "methods": {name: method.default for name, method in manifest.methods.items()},
        "task": [task.order, task.tokenizer.sha256, [shard.sha256 for shard in task.shards]],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _meaning(node: object) -> object:
    """A syntax tree as plain lists, without what does nothing and without empty fields, which differ by version."""
    if isinstance(node, list):
        return [_meaning(item) for item in node if not _does_nothing(item)]
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, [[name, _meaning(value)] for name, value in fields]]
    return repr(node)


def _does_nothing(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
