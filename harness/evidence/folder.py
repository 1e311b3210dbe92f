"""A campaign on disk: plan.json, sources/ARM/NAME/, runs.jsonl, and verdict.json or calibration.json at its end.

plan.json and the copies of the sources are on the disk before the first run. Every line of runs.jsonl is written
whole and synced, and chained to plan.json and the lines before it: `chain` is the sha256 of the preceding chain (of
plan.json for the first line) followed by the line without this field, as it stands in the file: keys in order, no
spaces. A field that later versions add changes no line before them. So an edited, dropped or moved line, or an
edited plan, is found when the folder is read. As with the journal, that finds mistakes; whoever makes the whole file
anew is found by the digests of the runs' bundles, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from harness.bundle import write_atomically
from harness.core.files import parse_json, read_file
from harness.core.task import Task, load_task
from harness.errors import UserError, describe_validation
from harness.evidence.course import Course, RunLine, follow
from harness.evidence.plans import AnyCampaign, CampaignPlan
from harness.journal_file import sync_folder
from harness.submission import Submission, load_submission

PLAN, RUNS, VERDICT, CALIBRATION, SOURCES, LOCK = (
    "plan.json", "runs.jsonl", "verdict.json", "calibration.json", "sources", "lock",
)  # fmt: skip
MAX_PLAN_BYTES = 1 << 20
MAX_RUNS_BYTES = 8 << 20
RESTORE = "restore the folder from a copy or from git; a campaign whose files were changed is no evidence"

AnyPlan = TypeVar("AnyPlan", bound=CampaignPlan)
_PLANS: TypeAdapter[AnyCampaign] = TypeAdapter(Annotated[AnyCampaign, Field(discriminator="kind")])


@dataclass
class Campaign(Generic[AnyPlan]):
    """A campaign folder that was read or made: `lines` are those of runs.jsonl, `chain` the last one's."""

    folder: Path
    plan: AnyPlan
    lines: list[RunLine] = field(default_factory=list)
    chain: str = ""

    @property
    def course(self) -> Course:
        return follow(self.plan, self.lines)

    @property
    def begun(self) -> int:
        """The blocks of which a run was started, whether or not they are done."""
        return self.lines[-1].block + 1 if self.lines else 0

    @cached_property
    def task(self) -> Task:
        """The task, which must still be that of the plan. Raises UserError."""
        task = load_task(self.plan.task_source)
        if task.digest != self.plan.task_digest:
            what = f"{self.folder}/{PLAN}: task_digest: the task {task.name} ({task.path}) is no longer the same"
            raise UserError(what, "start a new campaign: results of two tasks cannot be put together")
        return task

    @cached_property
    def submissions(self) -> Mapping[str, Submission]:
        """The submission of every arm, from the copies in the folder. Raises UserError where one was changed."""
        loaded = {}
        for name, arm in self.plan.arms.items():
            source = self.folder / SOURCES / name / arm.name
            loaded[name] = load_submission(source, self.task)
            if loaded[name].digest != arm.digest:
                raise UserError(f"{source}: its files are no longer those of the plan", RESTORE)
        return loaded

    def read_again(self) -> None:
        """Takes up what another process has added since the folder was read. Raises UserError."""
        found = read_campaign(self.folder)
        self.lines[:], self.chain = found.lines, found.chain

    def append(self, line: RunLine) -> None:
        """Adds a line, on the disk when this returns; what a killed writer left of another is removed. UserError."""
        table = line.model_dump(mode="json")
        chain = _chained(self.chain, table)
        content = _canonical({**table, "chain": chain}) + b"\n"
        path = self.folder / RUNS
        try:
            new = not path.exists()
            with path.open("r+b" if not new else "xb") as file:
                file.truncate(_whole_bytes(path))
                file.seek(0, os.SEEK_END)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.folder)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}", "make room on the disk, then: speedrun resume") from None
        self.lines.append(line)
        self.chain = chain

    def finish(self, name: str, result: Any) -> None:
        """Writes verdict.json or calibration.json."""
        write_atomically(self.folder / name, json.dumps(result, indent=2, allow_nan=False) + "\n")


def create_campaign(
    parent: Path, plan: AnyPlan, submissions: Mapping[str, Submission], files: Mapping[str, str] | None = None
) -> Campaign[AnyPlan]:
    """Makes the folder parent/ID with sources, further `files` and plan; the plan is written last. Raises UserError."""
    folder = parent / plan.id
    try:
        folder.mkdir(parents=True)
        for name, arm in plan.arms.items():
            submissions[name].snapshot(folder / SOURCES / name / arm.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "choose a folder you can write to: --runs-dir") from None
    for name, content in (files or {}).items():
        write_atomically(folder / name, content)
    text = json.dumps(plan.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / PLAN, text)
    sync_folder(folder)
    sync_folder(parent)
    return Campaign(folder, plan, [], hashlib.sha256(text.encode()).hexdigest())


def read_campaign(folder: Path) -> Campaign[Any]:
    """Reads a campaign of any kind; every line must be whole and due. Raises UserError: file, line and field."""
    path = folder / PLAN
    content = read_file(path, MAX_PLAN_BYTES, "give the folder of a campaign", follow_link=False)
    try:
        parse_json(content)
        plan = _PLANS.validate_json(content, strict=True)
    except ValidationError as error:
        raise describe_validation(error, path, RESTORE) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}", RESTORE) from None
    campaign: Campaign[Any] = Campaign(folder, plan, [], hashlib.sha256(content).hexdigest())
    runs = folder / RUNS
    if os.path.lexists(runs):
        _read_lines(campaign, read_file(runs, MAX_RUNS_BYTES, RESTORE, follow_link=False))
    return campaign


def _read_lines(campaign: Campaign[Any], content: bytes) -> None:
    """The whole lines; what follows the last newline was left by a killed writer and is not looked at."""
    path = campaign.folder / RUNS
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            table = parse_json(text)
            chain = table.pop("chain", None) if isinstance(table, dict) else None
            line = RunLine.model_validate_json(_canonical(table), strict=True)
        except ValidationError as error:
            raise describe_validation(error, f"{path}: line {number}", RESTORE) from None
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}", RESTORE) from None
        campaign.lines.append(line)
        try:
            follow(campaign.plan, campaign.lines)
        except ValueError as error:
            raise UserError(f"{path}: {error}", RESTORE) from None
        if chain != (due := _chained(campaign.chain, table)):
            what = f"line {number}: chain: this line, or {PLAN}, was edited"
            raise UserError(f"{path}: {what}", RESTORE)
        campaign.chain = due


def _chained(previous: str, table: Any) -> str:
    """The chain of a line, given as the table it is in the file, without its own `chain`."""
    return hashlib.sha256(previous.encode() + _canonical(table)).hexdigest()


def _canonical(table: Any) -> bytes:
    return json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _whole_bytes(path: Path) -> int:
    content = read_file(path, MAX_RUNS_BYTES, RESTORE, follow_link=False)
    return content.rfind(b"\n") + 1
