"""How ablations are shown: a row for each set of methods, the words first, then what they cost and save."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli import output
from harness.cli.campaign_view import interval
from harness.evidence.ablations import Ablation

COLUMNS = ("method", "", "faster with it, equal loss", "lines", "seconds saved", "a line", "time a step", "memory")
MIB = 1 << 20


def print_ablations(record: str, found: Sequence[Ablation]) -> None:
    """What the ablations of a record say, for a person."""
    output.table(COLUMNS, [_row(ablation) for ablation in found], title=f"{record}: with and without")
    output.paragraph(
        "above 1: the record is faster with it; one-sided 99% limits. Lines: statements that nothing else needs, in "
        "brackets those that others need too"
    )
    for ablation in found:
        if ablation.reason:
            output.paragraph(f"{', '.join(ablation.dropped)}: {ablation.reason}")


def _row(ablation: Ablation) -> tuple[str, ...]:
    saved, shared = ablation.saved, f" ({ablation.shared_lines})" if ablation.shared_lines else ""
    # Both arms read the same tokens a step, so tokens per second say what a step takes.
    with_it, without_it = ablation.step_seconds, ablation.step_seconds_without
    step = ""
    if ablation.speed is not None:
        step = f"{100 * (1 / ablation.speed.ratio - 1):+.1f}%"
    elif with_it is not None and without_it is not None:  # the task counts steps
        step = f"{100 * (with_it / without_it - 1):+.1f}%"
    return (
        ", ".join(ablation.dropped), str(ablation.word), interval(ablation.ratio) if ablation.ratio else "",
        f"{ablation.lines}{shared}", output.fixed(saved and saved.seconds, 2),
        output.fixed(ablation.saved_per_line, 3), step,
        f"{(ablation.peak_memory - ablation.peak_memory_without) / MIB:+.0f} MiB",
    )  # fmt: skip
