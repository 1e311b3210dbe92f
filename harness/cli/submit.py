"""`speedrun submit SUB`: check it, race it against the reigning record, keep the attempt, file a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.evidence.verdict import CampaignVerdict
    from harness.submission import Submission


def submit(
    submission: Annotated[str, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.")],
    as_baseline: Annotated[
        bool, typer.Option("--as-baseline", help="A better-tuned baseline: race the present baseline.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(metavar="RECORD", help="Compare with this record instead; it becomes no record.")
    ] = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Check a submission and race it against the reigning record; the attempt is kept whatever the verdict.

    The first record of a task and class has nothing to be raced against: it must reach the target in at least 10 runs.
    The same source submitted again goes on with its attempt, until that is final. With --as-baseline a submission that
    beats the present baseline becomes the baseline over which every record's speed-up is told. With --against it is
    raced against a record that does not reign (an optimizer against AdamW, say, where a stack of methods reigns) and
    published as an attempt all the same.
    """
    from harness.core.task import hardware_class, load_task
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.submission import load_submission

    if as_baseline and against:
        raise typer.BadParameter("--as-baseline names its reference already: the present baseline")
    hardware_class(hardware)
    own_task = load_task(task) if task else None
    folder = options.submission_folder(submission, own_task.name if own_task else options.DEFAULT_TASK, hardware)
    candidate = load_submission(folder, own_task)
    where = Where(candidate.task.name, hardware, records_dir)
    attempt(candidate, submission, where, Places(data_dir, runs_dir), as_json, as_baseline, against)


def attempt(
    candidate: Submission, word: str, where: Where, places: Places, silent: bool, as_baseline: bool = False,
    against: str | None = None,
) -> CampaignVerdict:  # fmt: skip
    """Checks a submission, races it for the record and answers the verdict, which is kept and told. Raises UserError.

    `word`: what names the submission in the plan. `as_baseline`: against the present baseline, to take its place.
    `against`: a record that does not reign, for comparison.
    """
    from datetime import UTC, datetime

    from harness.cli import campaigns
    from harness.core.data.prepare import require_prepared
    from harness.core.task import hardware_class
    from harness.evidence.attempts import attempt_of
    from harness.evidence.locks import require_ready_machine
    from harness.evidence.verdict import pairs_to_go
    from harness.machine import fingerprint

    require_prepared(candidate.task, places.data)
    require_ready_machine(hardware_class(where.hardware))
    _require_checked(candidate, where.hardware, silent)
    found = attempt_of(candidate, word, where, fingerprint(), datetime.now(UTC), as_baseline, against)
    campaign = found.campaign
    for passed_over in found.passed_over:
        output.warn(f"warning: an earlier attempt of the same source does not count here: {passed_over}")
    if not silent:
        output.note(f"attempt kept in {campaign.folder}; commit it: its plan counts from now on")
    verdict = campaigns.go_on(campaign, places, where, silent=silent, pairs=pairs_to_go(campaign))
    assert verdict is not None, "an attempt ends with a verdict"
    return verdict


def _require_checked(candidate: Submission, hardware: str, silent: bool) -> None:
    """Raises UserError with the rules that the submission breaks."""
    from harness.checks.check import Checker

    if not silent:
        output.note("checking every rule, which takes a minute or two")
    folder = candidate.folder
    failed = [result for result in Checker(folder, candidate.task, hardware).results() if result.failures]
    if failed:
        said = "\n".join(f"{result.rule.id}: {finding.message}" for result in failed for finding in result.failures)
        raise UserError(f"{folder}: breaks rules\n{said}", f"speedrun check {folder} says why, and what to do")
