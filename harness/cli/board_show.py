"""`speedrun board show RECORD`: evidence, runs, loss curve, methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from leaderboard.store import Board

RecordName = Annotated[str, typer.Argument(metavar="RECORD", help="BOARD/NUMBER, such as nanogpt/1/41.")]
LABEL = 22


def show(record: RecordName, as_json: options.Json = False, as_csv: options.Csv = False) -> None:
    """Show one record: evidence, runs, loss curve, methods, and the command to run it again."""
    from leaderboard import store

    options.only_one_format(as_json, as_csv)
    known = store.load()
    found = known.record(record)
    if as_json:
        runs = [dict(zip(store.RUN_FIELDS, run, strict=True)) for run in found["run_list"] or ()]
        points = [dict(zip(store.POINT_FIELDS, point, strict=True)) for point in found["curve"] or ()]
        output.as_json(found | {"run_list": runs, "curve": points})
    elif as_csv:
        output.as_csv(known.record_columns, [found])
    else:
        _print(known.board(found["board"]), found)


def _print(board: Board, record: dict[str, Any]) -> None:
    output.paragraph(f"{record['record']}: {record['title']}", style="bold")
    if board.imported:
        output.paragraph(f"{record['trust']}; {record['reference']}")
    output.line()
    for label, text in _facts(board, record):
        output.paragraph_after(f"{label:{LABEL}}", text)
    _print_runs(record)
    _print_curve(record)
    output.line()
    if board.imported:
        output.paragraph("To try it again, take the source from the repository: no code of it is kept here.")
    else:
        output.line(f"run it again: speedrun run records/{record['reference']}/submission")
        output.line(f"race it again: speedrun verify {record['record']}")


def _facts(board: Board, record: dict[str, Any]) -> list[tuple[str, str]]:
    fixed = output.fixed
    facts = [
        ("kind", record["kind"]),
        ("date", f"{record['date'] or 'not stated'}" + (f", merged {record['merged']}" if record["merged"] else "")),
        ("by", ", ".join(record["authors"])),
        (
            "result",
            f"{board.shown_score(record['score'])} {board.shown_unit}, {fixed(record['speedup'], 2)}x the first",
        ),
        ("parent", record["parent"]),
        ("methods added", ", ".join(record["methods_added"] or ())),
        ("methods dropped", ", ".join(record["methods_dropped"] or ())),
        ("steps", fixed(record["steps"], 0)),
        ("loss", _shown_loss(record)),
        ("all runs to the steps", _shown_others(record)),
        ("stated by its authors", _shown_stated(record)),
        ("time of the log", _shown_log_time(record)),
        ("time of the runs", _shown_times(record)),
        ("log", f"{record['log']}" if record["log"] else None),
        ("machine", " ".join(str(part) for part in (record["gpus"], record["machine"]) if part)),
        ("torch", record["torch"]),
        ("source", record["source"]),
        ("lines of code", _shown_lines(record)),
        ("holdout", _shown_holdout(record)),
        ("trust", record["trust"]),
        ("verifications", str(record["verified"] or 0)),
        ("note", record["note"]),
    ]
    return [(label, text) for label, text in facts if text]


def _shown_loss(record: dict[str, Any]) -> str:
    if record["loss_mean"] is None:
        return f"no log; target {record['target']}"
    spread = f" +- {record['loss_std']:.5f}" if record["loss_std"] is not None else ""
    test = f", one-sided p = {record['p_value']:.3g}" if record["p_value"] is not None else ""
    return f"{record['loss_mean']:.5f}{spread}, n = {record['runs']}, target {record['target']}{test}"


def _shown_holdout(record: dict[str, Any]) -> str | None:
    gap = record["holdout_gap"]
    return None if gap is None else f"{gap:+.4f} nats per token against validation, in one run; decides nothing"


def _shown_others(record: dict[str, Any]) -> str | None:
    if record["runs_same_steps"] in (None, record["runs"]):
        return None
    p_value = f", p = {record['p_same_steps']:.3g}" if record["p_same_steps"] is not None else ""
    return f"n = {record['runs_same_steps']} of any source{p_value}"


def _shown_stated(record: dict[str, Any]) -> str | None:
    if record["stated_runs"] is None:
        return None
    marks = {True: ", marked significant", False: ", marked not significant", None: ""}
    return f"mean {record['stated_loss']}, n = {record['stated_runs']}{marks[record['stated_pass']]}"


def _shown_log_time(record: dict[str, Any]) -> str | None:
    if record["log_seconds"] is None:
        return None
    return f"{record['log_seconds']:,.2f} s, {record['log_minus_score']:+.2f} s against the stated time"


def _shown_times(record: dict[str, Any]) -> str | None:
    if record["time_mean"] is None:
        return None
    spread = f" +- {record['time_std']:.2f}" if record["time_std"] is not None else ""
    return f"mean {record['time_mean']:,.2f}{spread} s"


def _shown_lines(record: dict[str, Any]) -> str | None:
    if record["code_lines"] is None:
        return None
    changed = record["lines_added"] is not None
    return f"{record['code_lines']:,}" + (f" (+{record['lines_added']} -{record['lines_removed']})" if changed else "")


def _print_runs(record: dict[str, Any]) -> None:
    runs = [run for run in record["run_list"] or () if run[3]]
    if not runs:
        return
    losses = " ".join(f"{loss:.4f}" for loss in sorted(run[1] for run in runs if run[1] is not None))
    output.paragraph_after(f"{'losses':{LABEL}}", losses)


def _print_curve(record: dict[str, Any]) -> None:
    """The median run's losses after its first tenth, where a plot has room for differences."""
    points = [point for point in record["curve"] or () if point[1] is not None]
    late = [point for point in points if point[0] >= points[-1][0] / 10]
    if len(late) < 3:
        return
    import plotext

    plotext.theme("clear")
    plotext.plotsize(min(output.console.width, 100), 14)
    plotext.plot([point[0] for point in late], [point[1] for point in late], marker="braille")
    plotext.plot([late[0][0], late[-1][0]], [record["target"]] * 2, marker="-")
    output.line()
    output.line("validation loss of the median run against steps; the target is dashed", style="dim")
    for text in plotext.uncolorize(plotext.build()).rstrip().split("\n"):
        output.line(text)
