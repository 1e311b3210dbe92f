"""Runs and series of runs: every run is entered in the journal before it starts and after it ended."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.bundle import RunRecord, finished_runs, log_text, write_bundle
from harness.core.data.prepare import require_prepared
from harness.core.plan import ONE_NODE, Event, Node, Outcome, Plan
from harness.core.protocol import plain_text
from harness.core.referee import Referee
from harness.core.sandbox import probe
from harness.core.task import HardwareClass, Task
from harness.errors import UserError
from harness.frozen import core_digest, frozen_versions
from harness.machine import Load, Machine, fingerprint, require_gpus, sample_load, total_swapped_bytes
from harness.machine_warnings import MachineWarning, warnings_after_run, warnings_before_run
from harness.paths import ROOT
from harness.review import loss_prefix, read_band, review
from harness.run_folder import RunFolder, clean_up
from harness.submission import Submission, Value

SEED_LIMIT = 2**31
# Longer would lengthen every start; work of our own beside it, imports say, would pass for that of others.
LOAD_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Request:
    """One run to do: a submission with methods dropped and hyperparameters set, on a hardware class."""

    submission: Submission
    hardware: HardwareClass
    data_dir: Path
    runs_dir: Path
    seed: int | None = None
    planned: bool = False  # the seed was drawn when a campaign was planned, before its first run
    dropped: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    judge_holdout: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the journal's first line of the run
    node: Node = ONE_NODE


@dataclass(frozen=True)
class Finished:
    """A finished run: its record and the folder of its bundle."""

    record: RunRecord
    folder: Path
    rows: list[dict[str, float | None]]


def run_once(request: Request, on_event: Callable[[Event], None] = lambda event: None) -> Finished:
    """Does one run: journal, referee, bundle, journal. A failed or interrupted run is a result too.

    Raises UserError. Before it begins, what killed commands left in the runs folder is tidied up.
    """
    submission, task = request.submission, request.submission.task
    data_folder = _check(request)
    for killed in clean_up(request.runs_dir):
        on_event(
            Event("note", {"text": f"run {killed} was killed before it ended; its line in the journal says so now"})
        )
    machine, load = fingerprint(), sample_load(LOAD_SAMPLE_SECONDS)
    require_gpus(request.hardware, machine, request.node.count)
    trust = probe().level_for(request.hardware.devices, request.node.count)
    warnings = warnings_before_run(machine, load, request.hardware, trust)
    for warning in warnings:
        on_event(Event("note", {"text": str(warning)}))
    started = datetime.now(UTC)
    run_id = _run_id(request, started)
    with RunFolder(request.runs_dir, run_id) as run_folder:
        folder = run_folder.path
        plan = _plan(request, data_folder, folder, trust)
        facts = {"task": task.name, "submission": submission.digest, "hardware_class": request.hardware.name}
        run_folder.start(seed=plan.seed, **facts, **request.facts)
        referee = Referee(plan, on_event)
        swapped_before = total_swapped_bytes()
        outcome = referee.run()
        warnings += _warnings_after(outcome, plan, total_swapped_bytes() - swapped_before)
        record = _record(run_id, started, request, plan, referee, machine, load, warnings)
        flags = review(record, finished_runs(request.runs_dir, task.name), read_band(task.name))
        record.review = [asdict(flag) for flag in flags]
        write_bundle(folder, record, referee.log.rows)
        digest = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
        run_folder.end(record.reason or record.state, digest, val_loss=record.val_loss, seconds=record.seconds)
    return Finished(record, folder, referee.log.rows)


def join(request: Request, on_event: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Runs the ranks of one node but the first of a run on several: until they have finished, or failed.

    Journal, loss and bundle are the first node's; nothing is kept here. Raises UserError.
    """
    data_folder = _check(request)
    require_gpus(request.hardware, fingerprint(), request.node.count)
    trust = probe().level_for(request.hardware.devices, request.node.count)
    with RunFolder(request.runs_dir, _run_id(request, datetime.now(UTC))) as run_folder:
        return Referee(_plan(request, data_folder, run_folder.path, trust), on_event).run()


def _check(request: Request) -> Path:
    """The folder of the prepared data. Raises UserError for what no run can be started with."""
    task, hardware, node = request.submission.task, request.hardware, request.node
    request.submission.methods(request.dropped)
    request.submission.hparams(request.settings)
    if hardware.device not in task.caps:
        known = "a CPU" if "cpu" in task.caps else "GPUs"
        raise UserError(
            f"{task.name}: has no caps for {hardware.name}; it is run on {known}",
            "name the class with --class, such as cpu-1thread, 1xH100, 8xH100; speedrun doctor lists this machine's",
        )
    if hardware.devices % node.count:
        message = f"--nodes {node.count}: does not divide the {hardware.devices} device(s) of {hardware.name}"
        raise UserError(message, "the class counts the devices of all nodes, such as 16xH100 for two of eight")
    if node.count > 1 and request.seed is None:
        raise UserError("--nodes: the nodes need one seed", "give the same --seed on each")
    if request.seed is not None and not 0 <= request.seed < SEED_LIMIT:
        raise UserError(f"--seed {request.seed}: out of range", f"use 0 to {SEED_LIMIT - 1}")
    return require_prepared(task, request.data_dir)


def _run_id(request: Request, started: datetime) -> str:
    submission = request.submission
    return f"{started:%Y%m%dT%H%M%S}-{submission.task.name}-{plain_name(submission.name)}-{secrets.token_hex(3)}"


def _plan(request: Request, data_folder: Path, folder: Path, trust: str) -> Plan:
    """The plan of a run in this folder, with a copy of the submission in it. Raises UserError."""
    submission, task = request.submission, request.submission.task
    methods, hparams = submission.methods(request.dropped), submission.hparams(request.settings)
    submission.snapshot(folder / "source")
    # Nodes would fill their caches together or not at all, and none knows what another has.
    compiled = _compiled_folder(request, methods, hparams) if request.node.count == 1 else None
    return Plan(
        task=task, hardware=request.hardware, source=folder / "source", data_folder=data_folder, folder=folder,
        trust=trust, seed=secrets.randbelow(SEED_LIMIT) if request.seed is None else request.seed,
        methods=methods, hparams=hparams,
        batch=submission.manifest.evaluation.batch, length=submission.manifest.evaluation.length,
        rung=probe().rung, judge_holdout=request.judge_holdout, compiled=compiled, node=request.node,
    )  # fmt: skip


def plain_name(name: str) -> str:
    """A folder's name as part of a run id, which stands in paths, on terminals and in pages."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "submission"


def _compiled_folder(request: Request, methods: Mapping[str, bool], hparams: Mapping[str, Value]) -> Path | None:
    """Where the compile cache of a submission with these settings lies, or is to be filled.

    Settings change what is compiled. A cache that stayed empty says that nothing is compiled with these methods,
    so that tuning, which changes hyperparameters all the time, pays for one set-up-only launch.
    """
    if request.submission.task.caps[request.hardware.device].compile_cpu_seconds == 0:
        return None
    stands_on = [request.submission.digest, request.hardware.name, sys.executable, sorted(_packages().items())]
    base = request.runs_dir.resolve() / "compiled" / _digest(repr([*stands_on, sorted(methods.items())]))[:16]
    empty = [folder for folder in sorted(base.glob("*")) if not any(folder.iterdir())]
    return empty[0] if empty else base / _digest(repr(sorted(hparams.items())))[:16]


def _warnings_after(outcome: Outcome, plan: Plan, swapped_bytes: int) -> list[MachineWarning]:
    if outcome.seconds is None:
        return []
    cores = plan.hardware.cores if plan.hardware.device == "cpu" else 0
    return warnings_after_run(
        wall_seconds=outcome.seconds,
        lost_seconds=outcome.lost_seconds,
        cores=cores,
        swapped_bytes=swapped_bytes,
        clocks_apart_seconds=outcome.suspended_seconds,
    )


def _record(
    run_id: str, started: datetime, request: Request, plan: Plan, referee: Referee, machine: Machine, load: Load,
    warnings: list[MachineWarning],
) -> RunRecord:  # fmt: skip
    outcome, submission, task = referee.outcome, request.submission, plan.task
    judgement = outcome.judgement or {}
    packages = _packages()
    core, version = core_digest(), frozen_versions()[-1]
    return RunRecord(
        run_id=run_id,
        started=started.isoformat(timespec="seconds"),
        state=outcome.state,
        reason=outcome.reason,
        message=outcome.message,
        task=task.name,
        hardware_class=plan.hardware.name,
        submission=plain_text(submission.name, 255),
        title=submission.manifest.title,
        seed=plan.seed,
        seed_drawn=request.seed is None or request.planned,
        methods=dict(plan.methods),
        hparams=dict(plan.hparams),
        consulted=outcome.consulted,
        trust=plan.trust,
        rung=plan.rung,
        target=task.target.val_loss,
        target_provisional=task.target.provisional,
        val_loss=judgement.get("val_loss"),
        bits_per_byte=judgement.get("bits_per_byte"),
        seconds=outcome.seconds,
        cpu_seconds=outcome.cpu_seconds,
        setup_cpu_seconds=outcome.setup_cpu_seconds,
        export_seconds=outcome.export_seconds,
        tokens=outcome.tokens,
        tokens_counted_by=outcome.tokens_counted_by,
        steps=outcome.tokens / task.step_tokens if task.step_tokens and outcome.tokens is not None else None,
        times=outcome.times,
        suspended_seconds=outcome.suspended_seconds,
        lost_seconds=outcome.lost_seconds,
        stolen_seconds=outcome.stolen_seconds,
        cpus=outcome.cpus,
        judgement=outcome.judgement,
        holdout=outcome.holdout,
        holdout_failure=outcome.holdout_failure,
        weights_bytes=outcome.weights_bytes,
        log_rows=len(referee.log.rows),
        log_rows_dropped=referee.log.dropped,
        output_truncated=outcome.output_truncated,
        still_computing=[asdict(process) for process in outcome.still_computing],
        digests={
            "core": core,
            "task": task.digest,
            "data": data_digest(task),
            "submission": submission.digest,
            "environment": _digest(repr(sorted(packages.items()))),
            "machine": machine.digest,
            "start_weights": outcome.start_digest,
            "weights": outcome.weights_digest,
            "loss_prefix": loss_prefix(referee.log.rows),
            "log": _digest(log_text(referee.log.rows)),
            "output": hashlib.sha256((plan.folder / "output.txt").read_bytes()).hexdigest(),
        },
        # A core that differs from the one that the version stands for measures under no version.
        measurement_version=version.measurement_version if version.core_digest == core else None,
        machine=machine.to_json(),
        load=asdict(load),
        packages=packages,
        commit=_commit(),
        warnings=[asdict(warning) for warning in warnings],
    )


def data_digest(task: Task) -> str:
    """sha256 over those of the task's shards, in their order."""
    return _digest("".join(shard.sha256 for shard in task.shards))


def _packages() -> dict[str, str]:
    """Every installed distribution and its version: the environment a run stood in."""
    return {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}


def _commit() -> str | None:
    """The commit of this checkout, marked when files differ from it; None outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
