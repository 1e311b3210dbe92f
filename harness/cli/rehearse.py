"""`speedrun rehearse TASK`: the whole course of a task in minutes, on text at hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from harness.rehearsal.rehearse import Rehearsal


def rehearse(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of the task, or its file.")],
    submission: Annotated[str, typer.Option("--with", metavar="SUB", help="Instead of the baseline.")] = "baseline",
    steps: Annotated[int, typer.Option(min=1, help="Steps to train.")] = 8,
    setting: options.Set = None,
    drop: options.Drop = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    gpt2_vocab: Annotated[Path | None, typer.Option(help="Folder with GPT-2's encoder.json, not a download.")] = None,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Rehearse a task: the same course as a run, few steps, on text at hand; on a CPU with a tiny model.

    Reports speed, utilization, memory, what the harness costs and how long the judge takes. Rent the node after that.
    """
    from harness.cli.progress import Progress
    from harness.cli.summary import print_summary, summary
    from harness.core.task import hardware_class, load_task
    from harness.rehearsal.corpus import prepare_stage
    from harness.rehearsal.rehearse import rehearse, small_enough
    from harness.submission import load_submission

    loaded, machine = load_task(task), hardware_class(hardware)
    folder = options.submission_folder(submission, loaded.name, hardware)
    load_submission(folder, loaded)
    stage = prepare_stage(loaded, machine.device, data_dir, gpt2_vocab, output.note)
    on_stage = load_submission(folder, stage.task)
    settings, dropped = [f"steps={steps}", *(setting or [])], drop or []
    if machine.device == "cpu" and stage.task is not loaded:
        settings, dropped = small_enough(on_stage, settings, dropped)
        if not as_json:
            output.note(f"small enough for a CPU: {', '.join([*settings, *(f'without {name}' for name in dropped)])}")
    with Progress(silent=as_json) as progress:
        finished, found = rehearse(on_stage, machine, stage, runs_dir, settings, dropped, progress)
    if as_json:
        output.as_json({**summary(finished), "rehearsal": asdict(found) if found else None})
    else:
        print_summary(finished, folder)
        if found is not None:
            _print(found)
    if found is None:
        raise typer.Exit(130 if finished.record.reason == "interrupted" else 1)


def _print(found: Rehearsal) -> None:
    output.line()
    rate, bare = found.tokens_per_second, found.bare_tokens_per_second
    lines = {
        "tokens a second": "no log row" if rate is None else f"{rate:,.0f}",
        "without harness": "one process only" if bare is None else f"{bare:,.0f} tokens a second",
        "overhead": "not compared" if found.overhead is None else f"{found.overhead:+.1%} (two short runs)",
        "utilization": "no data sheet" if found.utilization is None else f"{found.utilization:.1%} of the stated peak",
        "peak memory": "" if found.peak_memory_bytes is None else f"{found.peak_memory_bytes / 2**30:.2f} GiB",
        "judge": f"{found.judging_seconds:.1f} s for {found.judged_tokens:,} tokens",
    }
    for name, text in lines.items():
        if text:
            output.line(f"{name:<16} {text}")
    output.note("a rehearsal is no evidence: other text, few steps; nothing of it can be filed")
