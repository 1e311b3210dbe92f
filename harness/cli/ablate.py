"""`speedrun ablate RECORD`: what is each of its methods worth, and what does it cost?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evidence.ablations import Cost
    from harness.evidence.sides import Where

Method = Annotated[str | None, typer.Option("--method", metavar="M", help="Only this method.")]
DropSet = Annotated[str | None, typer.Option("--drop", metavar="A,B", help="These methods together.")]


def ablate(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Such as gcide/cpu-1thread/002, or `best`.")],
    method: Method = None,
    drop: DropSet = None,
    again: Annotated[bool, typer.Option("--again", help="Race anew what has been raced here before.")] = False,
    pairs: Annotated[int, typer.Option(help="At most so many pairs for each: 4, 6, 8, 12 or 16.")] = 8,
    task: Annotated[str, typer.Option(help="Task of `best`.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Race a record without each of its methods against itself: needed, unproven or harmful, and at what cost.

    Kept beside the record. Stopped at any time, the same command goes on; what is finished is not raced again.
    """
    from datetime import UTC, datetime

    from harness.cli import campaigns
    from harness.cli.ablation_view import print_ablations
    from harness.core.task import hardware_class
    from harness.errors import UserError
    from harness.evidence.ablations import ablation_under_way, droppable, new_ablation, read_ablation, require_droppable
    from harness.evidence.arms import submission_folder
    from harness.evidence.folder import VERDICT
    from harness.evidence.locks import require_ready_machine
    from harness.evidence.records import load_record, submission_of_record
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.machine import fingerprint

    if method is not None and drop is not None:
        raise typer.BadParameter("give --method or --drop")
    if method is not None and "," in method:
        raise typer.BadParameter("--method names one; several together are --drop A,B")
    folder = submission_folder(record, Where(task, hardware, records_dir)).parent
    found, submission = load_record(folder), submission_of_record(folder)
    where = Where(found.task, found.hardware_class, records_dir)
    named = [name.strip() for name in (method or drop or "").split(",") if name.strip()]
    sets = [require_droppable(submission, named)] if named else [[name] for name in droppable(submission)]
    if not sets:
        raise UserError(f"{found.id}: declares no method that is on", "there is nothing to drop")
    waiting = {tuple(names): ablation_under_way(folder, names, fingerprint()) for names in sets}
    for names, begun in waiting.items():
        if begun is None or not (begun.folder / VERDICT).exists():
            continue  # what has been stopped goes on, --again or not
        if again:
            waiting[names] = None
        elif begun.plan.deciding.sequence.maximum != pairs and not as_json:
            most = begun.plan.deciding.sequence.maximum
            output.note(f"{', '.join(names)}: raced before with at most {most} pairs; --again races it anew")
    if any(campaign is None or not (campaign.folder / VERDICT).exists() for campaign in waiting.values()):
        require_ready_machine(hardware_class(where.hardware))
    new = [names for names, campaign in waiting.items() if campaign is None]
    costs = _costs(folder, new, where, silent=as_json, leave_out=not named)
    results = []
    for names, begun in waiting.items():
        if begun is None and names not in costs:
            continue  # it cannot be dropped by itself
        campaign = begun or new_ablation(folder, names, costs[names], where, pairs, fingerprint(), datetime.now(UTC))
        if not as_json:
            output.note(f"{found.id} without {', '.join(names)}: {campaign.folder}")
        campaigns.go_on(campaign, Places(data_dir, runs_dir), where, silent=as_json, told=False)
        results.append(read_ablation(campaign.folder))
    if as_json:
        output.as_json({"record": found.id, "ablations": [result.model_dump(mode="json") for result in results]})
        return
    output.line()
    print_ablations(found.id, results)


def _costs(
    folder: Path, sets: Sequence[tuple[str, ...]], where: Where, silent: bool, leave_out: bool
) -> dict[tuple[str, ...], Cost]:
    """What each set of methods costs in lines and memory, by short runs. Raises UserError.

    `leave_out`: a set that the record cannot do without, such as its only optimizer, is named and has no cost.
    """
    from datetime import UTC, datetime

    from harness.checks.statements import Counter
    from harness.core.owned import PREFIX, TemporaryFolder
    from harness.core.task import hardware_class
    from harness.errors import UserError
    from harness.evidence.ablations import cost_of
    from harness.evidence.records import submission_of_record

    if not sets:
        return {}
    if not silent:
        output.note("counting the lines that each method costs, by short runs on made-up data")
    submission = submission_of_record(folder)
    with TemporaryFolder(f"{PREFIX}ablate-") as temporary:
        counter = Counter(submission, hardware_class(where.hardware), temporary)
        found = {}
        for names in sets:
            try:
                found[names] = cost_of(submission, names, counter.difference(names), datetime.now(UTC))
            except UserError as error:
                if not leave_out:
                    raise
                output.warn(f"warning: {', '.join(names)} is left out: {error.message}")
        return found
