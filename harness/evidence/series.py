"""Doing a campaign's runs, from wherever it stands: one run after the other, each kept before the next begins.

The journal is what says which runs were started. Each line of runs.jsonl is made from the journal and the run's
bundle, after a run and after a crash alike: so a finished run is never done again, whatever died between its end and
its line, and no started run can be left out of the count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from harness.bundle import MAX_RUN_JSON_BYTES, RunRecord, read_record
from harness.campaign import Request, data_digest, plain_name
from harness.core.files import read_file
from harness.core.task import Task
from harness.errors import UserError
from harness.evidence.bundles import keep_bundles
from harness.evidence.course import JUDGED, Course, Ending, RunLine, Slot
from harness.evidence.folder import LOCK, VERDICT, Campaign
from harness.evidence.locks import held, timing_alone
from harness.evidence.plans import Arm, CampaignPlan
from harness.evidence.sides import Side
from harness.frozen import core_digest, frozen_versions
from harness.journal import Entry, Journal
from harness.machine import Machine, fingerprint
from harness.paths import TASKS
from harness.run_folder import HARNESS_ERROR, KILLED

REPEATS_IN_A_ROW = 3  # of a run that keeps ending by no fault of its own, before a person must look
MESSAGE_CHARACTERS = 2000
START_NEW = "start a new campaign; what was measured so far stays with this one"

Runner = Callable[[Request], object]


@dataclass(frozen=True)
class Places:
    """Where the data lies, and where runs and the journal are kept."""

    data: Path
    runs: Path


class Interrupted(Exception):
    """A run of the campaign was interrupted by the user; the campaign can be resumed."""


def conditions(task: Task, hardware_class: str, machine: Machine, now: datetime, kind: str) -> dict[str, Any]:
    """The fields of a plan that say what everything stands on."""
    return {
        "id": f"{now:%Y%m%dT%H%M%S}-{kind}-{token_hex(3)}",
        "started": now.isoformat(timespec="seconds"),
        "task": task.name,
        "task_source": task.name if task.path.parent == TASKS else str(task.path.resolve()),
        "task_digest": task.digest,
        "data_digest": data_digest(task),
        "core_digest": core_digest(),
        "measurement_version": measurement_version(),
        "hardware_class": hardware_class,
        "machine": machine_name(machine),
        "machine_digest": machine.digest,
    }


def measurement_version() -> int | None:
    """The version for which frozen.toml pins the present core; None where it pins another."""
    version = frozen_versions()[-1]
    return version.measurement_version if version.core_digest == core_digest() else None


def machine_name(machine: Machine) -> str:
    """A machine for people."""
    gpus = "".join(f", {gpu.name}" for gpu in machine.gpus)
    return f"{machine.cpu}, {machine.logical_cores} cores{gpus}"


def arm_of(side: Side) -> Arm:
    """A side as it stands in a plan."""
    submission = side.submission
    return Arm(
        word=side.word, name=plain_name(side.name), title=submission.manifest.title, digest=submission.digest,
        dropped=list(side.dropped), settings=list(side.settings), methods=submission.methods(list(side.dropped)),
        hparams=submission.hparams(list(side.settings)),
    )  # fmt: skip


def carry_on(
    campaign: Campaign[Any],
    places: Places,
    run: Runner,
    settled: Callable[[Course], bool],
    on_line: Callable[[RunLine], None] = lambda line: None,
) -> Course:
    """Runs what the plan asks for until `settled` or the end of the schedule; answers how far it came.

    Where nothing is left to do, nothing is asked of this machine: a finished campaign can be looked at anywhere.
    Raises Interrupted after Ctrl-C in a run, and UserError where the campaign belongs to another machine or another
    state of harness, task or data, where another process has it, and where a run keeps ending by no fault of its own.
    """
    if settled(campaign.course) or campaign.course.next is None:
        return campaign.course
    _require_same_conditions(campaign)
    journal = Journal(places.runs / "journal.jsonl")
    with ExitStack() as stack:
        what, remedy = f"{campaign.folder}: another process does this campaign", "wait for it, or end it with Ctrl-C"
        stack.enter_context(held(campaign.folder / LOCK, f"campaign {campaign.plan.id}", what, remedy))
        stack.enter_context(timing_alone(f"campaign {campaign.folder}"))
        campaign.read_again()
        (campaign.folder / VERDICT).unlink(missing_ok=True)  # given up for futility: another comes with the next look
        for line in absorb(campaign, journal):
            on_line(line)
        repeats = 0
        while not settled(course := campaign.course) and course.next is not None:
            run(_request(campaign, course.next, places))
            lines = absorb(campaign, journal)
            for line in lines:
                on_line(line)
            if lines[-1].status == "interrupted":
                raise Interrupted
            repeats = repeats + 1 if lines[-1].ending is Ending.REPEAT else 0
            if repeats > REPEATS_IN_A_ROW:
                what = f"run {lines[-1].run_id} ended {repeats} times in a row as {lines[-1].status}"
                raise UserError(f"{what}: {lines[-1].message}", "put that right, then: speedrun resume")
        return course


def absorb(campaign: Campaign[Any], journal: Journal) -> list[RunLine]:
    """Makes lines of the runs that the journal has and runs.jsonl has not; answers these.

    Only called while no run of the campaign is under way: a start without an end is a run whose referee was killed.
    """
    entries = journal.entries()
    own = [entry for entry in entries if entry.event == "start" and entry.facts.get("campaign") == campaign.plan.id]
    if campaign.lines and campaign.lines[-1].run_id not in {start.run for start in own}:
        what = f"does not know {campaign.lines[-1].run_id}, the last run of campaign {campaign.plan.id}"
        raise UserError(f"{journal.path}: {what}", "give the folder that the campaign was begun with: --runs-dir")
    ends = {entry.run: entry for entry in entries if entry.event == "end"}
    added = []
    for start in own:
        if start.facts["number"] < len(campaign.lines):
            continue
        slot = campaign.course.next
        if slot is None or start.facts["number"] != slot.number:
            what = f"run {start.run} has number {start.facts['number']} in campaign {campaign.plan.id}"
            raise UserError(f"{journal.path}: {what}, where {len(campaign.lines)} is due", START_NEW)
        campaign.append(_line(campaign, slot, start, ends.get(start.run), journal.path.parent))
        added.append(campaign.lines[-1])
    keep_bundles(campaign, journal.path.parent)
    return added


def _request(campaign: Campaign[Any], slot: Slot, places: Places) -> Request:
    arm = campaign.plan.arms[slot.arm]
    scheduled = next(run for run in campaign.plan.blocks[slot.block] if run.arm == slot.arm)
    return Request(
        submission=campaign.submissions[slot.arm], hardware=campaign.plan.hardware, data_dir=places.data,
        runs_dir=places.runs, seed=slot.seed, planned=True, dropped=arm.dropped, settings=arm.settings,
        judge_holdout=scheduled.judge_holdout,
        facts={"campaign": campaign.plan.id, "number": slot.number, "arm": slot.arm},
    )  # fmt: skip


def _line(campaign: Campaign[Any], slot: Slot, start: Entry, end: Entry | None, runs_dir: Path) -> RunLine:
    """The line of a run that is over, from the journal and its bundle."""
    status, record = KILLED, None
    if end is not None and end.bundle_digest is not None:
        record = _bundle(campaign, slot, runs_dir / start.run / "run.json", end.bundle_digest)
        status = record.reason or JUDGED
    elif end is not None and end.status != KILLED:
        status = HARNESS_ERROR
    return RunLine(
        number=slot.number, block=slot.block, arm=slot.arm, attempt=slot.attempt, seed=slot.seed, run_id=start.run,
        started=start.time, status=status, message=record.message[:MESSAGE_CHARACTERS] if record else "",
        val_loss=record.val_loss if record else None, seconds=record.seconds if record else None,
        cpu_seconds=record.cpu_seconds if record else None,
        lost_seconds=record.lost_seconds if record else None,
        flags=[flag["id"] for flag in record.review] if record else [],
        total_seconds=max(record.times.values(), default=None) if record else None,
        tokens=record.tokens if record else None, tokens_counted_by=record.tokens_counted_by if record else None,
        steps=record.steps if record else None,
        trust=record.trust if record else None, run_digest=end.bundle_digest if end else None,
        holdout_loss=record.holdout["val_loss"] if record and record.holdout else None,
    )  # fmt: skip


def _bundle(campaign: Campaign[Any], slot: Slot, path: Path, digest: str) -> RunRecord:
    """The record of a run, which must be what the journal closed and what the plan asked for."""
    content = read_file(path, MAX_RUN_JSON_BYTES, "restore the run's folder", follow_link=False)
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path}: was changed after the run", f"restore it, or {START_NEW}")
    record, arm = read_record(path), campaign.plan.arms[slot.arm]
    plan, kept = campaign.plan, record.digests
    found = (kept["submission"], kept["task"], kept["data"], kept["core"], kept["machine"])
    due = (arm.digest, plan.task_digest, plan.data_digest, plan.core_digest, plan.machine_digest)
    if found != due or (record.seed, record.methods, record.hparams) != (slot.seed, arm.methods, arm.hparams):
        raise UserError(f"{path}: not the run that the plan asked for, or not under its conditions", START_NEW)
    return record


def _require_same_conditions(campaign: Campaign[Any]) -> None:
    """Raises UserError where runs done now could not be put beside those done before."""
    plan: CampaignPlan = campaign.plan
    machine = fingerprint()
    if machine.digest != plan.machine_digest:
        what = f"the campaign belongs to another machine or another torch ({plan.machine})"
        raise UserError(f"{campaign.folder}: {what}; this is {machine_name(machine)}", START_NEW)
    if core_digest() != plan.core_digest:
        raise UserError(f"{campaign.folder}: harness/core is no longer what it was when the plan was made", START_NEW)
    if data_digest(campaign.task) != plan.data_digest:
        raise UserError(f"{campaign.folder}: the data of {plan.task} is no longer the same", START_NEW)
