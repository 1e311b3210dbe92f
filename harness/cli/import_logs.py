"""`speedrun import-logs FILES...`: means, spreads and p-values of foreign logs; copies and repeated seeds flagged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError

if TYPE_CHECKING:
    from leaderboard.import_logs import Group, Imported

SHOWN = 20
COLUMNS = (
    "source", "step", "runs", "counted", "unfinished", "loss_mean", "loss_std", "p_value",
    "time_mean", "time_std", "machines", "torch",
)  # fmt: skip


def import_logs(
    paths: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Logs, or folders of them.")],
    target: Annotated[float, typer.Option(help="Loss that the mean has to be below, nats per token.")] = 3.28,
    step: Annotated[int | None, typer.Option(help="Compare at this step instead of each run's last one.")] = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Read logs of the public speedrun formats: mean, std, n, one-sided p, mean time, machine, by source and steps."""
    from leaderboard.import_logs import curve_rows, groups, read_logs, run_rows

    options.only_one_format(as_json, as_csv)
    found = read_logs(paths)
    made = groups(found.runs, target, step)
    if as_json:
        tables = {"runs": run_rows(found.runs), "curves": curve_rows(found.runs), "unread": found.unread}
        output.as_json({"target": target, "groups": [asdict(group) for group in made], **tables})
    else:
        _warn_unread(found)
        if as_csv:
            output.as_csv(COLUMNS, [asdict(group) for group in made])
        elif made:
            _print(found, made, target)
    if not made:
        missing = f"no run has a validation at step {step}" if found.runs else "no run in these files"
        raise UserError(missing, "see the reasons above; --json lists them too")


def _warn_unread(found: Imported) -> None:
    """Every file that gave no run, with the reason: a list of evidence must not have silent holes."""
    for path, reason in found.unread.items():
        output.warn(f"not read: {path}: {reason}")


def _print(found: Imported, made: list[Group], target: float) -> None:
    files = len({run.file for run in found.runs}) + len(found.unread)
    output.line(f"{files} files, {len(found.runs)} runs, {len(found.unread)} files not read; target {target}")
    output.line()
    for group in made:
        _print_group(group)
    flagged = [run for run in found.runs if not run.counted]
    if flagged:
        output.line()
        output.line(f"not counted: {len(flagged)}", style="bold")
    for run in flagged[:SHOWN]:
        why = f"copy of {run.copy_of}" if run.copy_of else f"same seed as {run.repeat_of}"
        output.paragraph_after("  ", f"{run.file.parent / run.name}: {why}")
    if len(flagged) > SHOWN:
        output.line(f"  and {len(flagged) - SHOWN:,} more: --json lists them")


def _print_group(group: Group) -> None:
    output.paragraph(f"source {group.source}, step {group.step:,}", style="bold")
    spread = f" +- {group.loss_std:.5f}" if group.loss_std is not None else ""
    p_value = f"  one-sided p {group.p_value:.3g}" if group.p_value is not None else ""
    loss = f"{group.loss_mean:.5f}{spread}{p_value}" if group.loss_mean is not None else "none counted"
    output.paragraph_after("  loss     ", f"{loss}  n = {group.counted}")
    if group.time_mean is not None:
        spread = f" +- {group.time_std:.2f}" if group.time_std is not None else ""
        output.paragraph_after("  time     ", f"{group.time_mean:,.2f}{spread} s")
    output.paragraph_after(
        "  machine  ", "; ".join([*group.machines, *(f"torch {name}" for name in group.torch)]) or "?"
    )
    if group.counted < group.runs or group.unfinished:
        output.paragraph(f"{group.runs - group.counted} not counted, {group.unfinished} unfinished", indent=11)
