"""`speedrun board`: the records of a task and class or of the imported history, and this machine's runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.bundle import read_table
from harness.cli import board_diff, board_show, board_site, options, output
from harness.errors import UserError
from harness.paths import RECORDS

if TYPE_CHECKING:
    from leaderboard.store import Board, Store

NARROW = 100  # columns below which a title has a line of its own

app = typer.Typer(help="The history of records: list, show, compare, publish.")
app.command("show")(board_show.show)
app.command("diff")(board_diff.diff)
app.command("build")(board_site.build)
app.command("serve")(board_site.serve)
app.command("export")(board_site.export)


@app.callback(invoke_without_command=True)
def board(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="Task to show.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    history: options.History = None,
    track: options.Track = 1,
    as_of: options.AsOf = None,
    runs: Annotated[int, typer.Option(help="How many of this machine's latest runs to list.")] = 10,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Show the record history and, for a task of our own, the latest runs on this machine."""
    if context.invoked_subcommand:
        return
    from leaderboard import store
    from leaderboard.lifelines import parse_day

    options.only_one_format(as_json, as_csv)
    day = parse_day(as_of)
    known = store.load()
    for new in known.not_listed(RECORDS):
        output.warn(f"warning: records/{new} is not on the board yet: speedrun board export")
    name = options.board_name(task, hardware, history, track)
    if history is not None:
        known.board(name)
    records = known.records_of(name, day)
    latest = read_runs(runs_dir, task, hardware)[-runs:] if runs > 0 and history is None else []
    if as_json:
        place = {"task": task, "class": hardware} if history is None else {"history": history, "track": track}
        output.as_json({**place, "board": name, "as_of": day, "records": records, "runs": latest})
    elif as_csv:
        output.as_csv(known.record_columns, records)
    else:
        _print(known, name, records)
        if history is None:
            _print_runs(latest)


def read_runs(runs_dir: Path, task: str, hardware: str) -> list[dict[str, Any]]:
    """Every run.json of a task and class under a runs folder, oldest first; what is none is left out with a warning."""
    runs = []
    for path in sorted(runs_dir.glob("*/run.json")):
        try:
            if path.parent.is_symlink():
                raise UserError(f"{path.parent}: a link, not a run folder")
            runs.append(read_table(path))
        except UserError as error:
            output.warn(f"warning: {error.message}; it is left out")
    return [run for run in runs if (run.get("task"), run.get("hardware_class")) == (task, hardware)]


def _print(known: Store, name: str, records: list[dict[str, Any]]) -> None:
    fields = known.boards.get(name)
    if fields is None or not records:
        output.line(name if fields is None else f"{name}: {fields.title}", style="bold")
        output.line("no record yet: the first will be the tuned AdamW baseline, through a race")
        output.line()
        return
    output.paragraph(f"{name}: {fields.title}", style="bold")
    output.paragraph(f"target {fields.target} nats per token; times {fields.shown_unit}; losses are means of n runs")
    if fields.imported:
        output.paragraph(f"{records[0]['trust']}; facts from {fields.source}")
    output.line()
    for record in records:
        _print_record(fields, record)
    output.line()
    output.paragraph(f"evidence of one: speedrun board show {records[-1]['record']}")


def _print_record(fields: Board, record: dict[str, Any]) -> None:
    """Two lines or more: the numbers with the title, then who, what changed, and what is odd about the evidence."""
    number = record["record"].rpartition("/")[2]
    speedup = f"{output.fixed(record['speedup'], 2)}x"
    if record["speedup_low"] is not None:
        speedup += f" [{record['speedup_low']:.2f}, {record['speedup_high']:.2f}]"
    numbers = f"{number:4}  {record['date'] or '':10}  {fields.shown_score(record['score']):>7}  {speedup:>7}"
    loss = f"{record['loss_mean']:.4f}" if record["loss_mean"] is not None else "no log"
    evidence = f"{loss:>7}  n={record['runs'] or 0:<3} {shown_p(record['p_value']):8}"
    mark = "" if record["kind"] in ("record", "race") else f" ({record['kind']})"
    if output.console.width < NARROW:
        output.line(f"{numbers}  {evidence}".rstrip())
        output.paragraph(f"{record['title']}{mark}", indent=6)
    else:
        output.paragraph_after(f"{numbers}  {evidence}  ", f"{record['title']}{mark}")
    for text in (", ".join(record["authors"]), _changes(record), _remarks(record)):
        if text:
            output.paragraph(text, indent=6, style="dim")


def _changes(record: dict[str, Any]) -> str:
    added = [f"+{name}" for name in record["methods_added"] or ()]
    return " ".join(added + [f"-{name}" for name in record["methods_dropped"] or ()])


def _remarks(record: dict[str, Any]) -> str:
    """Own records: trust, verifications, a note. Imported ones: where the linked log is not the record's own."""
    if record["score"] is None or record["log"] in (None, "own"):
        verified = f"verified {record['verified']} times" if record["verified"] else ""
        if record["log"]:
            return verified
        return ". ".join(filter(None, [", ".join(filter(None, [record["trust"], verified])), record["note"]]))
    return f"its log: {record['log']}"


def shown_p(value: float | None) -> str:
    """A p-value as people read it; empty where one run gives none."""
    if value is None:
        return ""
    return f"p={value:.3f}" if value >= 0.001 else f"p={value:.0e}"


def _print_runs(latest: list[dict[str, Any]]) -> None:
    if not latest:
        output.line("no run on this machine yet: make baseline")
        return
    columns = ("run", "seed", "state", "loss", "target", "seconds", "tokens", "trust")
    output.table(columns, [_run_row(run) for run in latest], title="runs on this machine (none is a record)")


def _run_row(run: dict[str, Any]) -> tuple[object, ...]:
    return (
        run.get("run_id"), run.get("seed"), run.get("reason") or run.get("state"),
        output.fixed(run.get("val_loss"), 4), output.fixed(run.get("target"), 4), output.fixed(run.get("seconds"), 2),
        run.get("tokens") or "", run.get("trust"),
    )  # fmt: skip
