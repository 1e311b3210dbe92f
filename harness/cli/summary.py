"""What a run says at its end: loss against target, seconds, tokens, trust, bundle, comparison with references."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from harness.bundle import RunRecord
from harness.campaign import Finished
from harness.cli import output
from harness.errors import UserError
from harness.references import Reference, load_references


def read_references(folder: Path) -> list[Reference]:
    """The reference runs of a baseline folder; empty, with a warning, where they cannot be read."""
    try:
        return load_references(folder)
    except UserError as error:
        output.warn(f"warning: {error.message}; the reference runs are left out")
        return []


def summary(finished: Finished) -> dict[str, Any]:
    """The object of `--json`."""
    record = finished.record
    return {
        "status": record.reason or record.state,
        "message": record.message,
        "val_loss": record.val_loss,
        "bits_per_byte": record.bits_per_byte,
        "target": record.target,
        "reached_target": record.reached_target,
        "seconds": record.seconds,
        "tokens": record.tokens,
        "steps": record.steps,
        "trust": record.trust,
        "still_computing": record.still_computing,
        "review": record.review,
        "run_id": record.run_id,
        "bundle": str(finished.folder),
    }


def print_summary(finished: Finished, submission: Path) -> None:
    """The end of a run, for a person."""
    record = finished.record
    output.line()
    output.line(f"{record.title}  ({record.task}, {record.hardware_class}, seed {record.seed})", style="bold")
    if record.reason is not None:
        output.line(f"FAILED: {record.reason}", style="bold red")
        output.lines(record.message)
        output.line(f"bundle           {finished.folder}")
        _print_flags(record)
        return
    for label, value in _facts(record):
        output.line(f"{label:<16} {value}")
    output.line(f"{'bundle':<16} {finished.folder}")
    if detour := (record.judgement or {}).get("detour"):
        output.warn(f"warning: judging took long: its logits went through host memory ({detour})")
    for warning in record.warnings:
        output.warn(f"warning: {warning['text']}; remedy: {warning['remedy']}")
    _print_flags(record)
    _print_comparison(record, read_references(submission))


def _print_flags(record: RunRecord) -> None:
    for flag in record.review:
        output.warn(f"for review: {flag['text']}")


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    assert record.val_loss is not None and record.seconds is not None
    verdict = "reached" if record.reached_target else "missed"
    provisional = ", provisional" if record.target_provisional else ""
    bits = "" if record.bits_per_byte is None else f" ({record.bits_per_byte:.4f} bits/byte)"
    steps = [] if record.steps is None else [("steps", f"{record.steps:,.2f}, the score of this task")]
    return [
        ("validation loss", f"{record.val_loss:.4f} nats/token{bits}"),
        (
            "target",
            f"{record.target:.4f}{provisional}: {verdict} by {abs(record.target - record.val_loss):.4f}",
        ),
        ("wall-clock", f"{record.seconds:.2f} s, of which export {record.export_seconds:.3f} s (by the script)"),
        (
            "CPU time",
            f"{record.cpu_seconds:.2f} s in the timed part, {record.setup_cpu_seconds:.2f} s before it",
        ),
        ("tokens", f"{record.tokens:,} (counted by the {record.tokens_counted_by})"),
        *steps,
        ("audit", _audit(record)),
        ("trust", record.trust),
    ]


def _audit(record: RunRecord) -> str:
    audit = (record.judgement or {}).get("audit", {})
    if not audit:
        return "none"
    return (
        f"passed: {audit['rows']:,} altered rows, largest difference of a logit {audit['largest_difference']:.2g} "
        f"(tolerance {audit['tolerance']:g})"
    )


def _print_comparison(record: RunRecord, references: list[Reference]) -> None:
    comparable = [r for r in references if r.submission_digest == record.digests["submission"]]
    if not comparable or record.val_loss is None or record.seconds is None:
        return
    losses = [reference.val_loss for reference in comparable]
    seconds = [reference.seconds for reference in comparable]
    spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
    output.line()
    output.line(f"reference runs   {len(comparable)}, on {comparable[0].machine}")
    output.line(
        f"  loss           {statistics.mean(losses):.4f} (standard deviation {spread:.4f}); "
        f"this run {record.val_loss - statistics.mean(losses):+.4f}"
    )
    where = "same kind of machine"
    if any(reference.machine_digest != record.digests["machine"] for reference in comparable):
        where = "another machine: seconds do not compare"
    elif any(reference.measurement_version != record.measurement_version for reference in comparable):
        where = "another version of the core: seconds do not compare"
    output.line(
        f"  seconds        {statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f}); "
        f"this run {record.seconds / statistics.median(seconds):.3f} times the median ({where})"
    )
    output.line("  One run can show that the whole path works and that the loss is near; it decides nothing.")
