"""Own records, runs, verifications and attempts as rows of the frames.

Everything in records/<task>/<class>/ is read by the readers of `harness.evidence`, which check every field and the
chain of every run. A folder without records gives no rows. What cannot be read raises UserError with the file's name:
a board with a hole would mislead.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.core.files import read_file
from harness.core.task import Task, load_task
from harness.errors import UserError
from harness.evidence.ablations import ABLATION, ABLATIONS, Ablation, read_ablation
from harness.evidence.course import JUDGED, Ending, RunLine
from harness.evidence.folder import PLAN, RESTORE, RUNS, VERDICT, Campaign, read_campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, Arm, DecidedCampaign
from harness.evidence.records import (
    ATTEMPTS,
    NOTES,
    RECORD,
    SUBMISSION,
    VERIFICATIONS,
    Record,
    history,
    load_record,
    short_id,
)
from harness.evidence.sides import Where
from harness.evidence.verdict import CampaignVerdict, read_verdict, word_of
from harness.evidence.verifications import VERIFICATION, Verification, read_verification
from harness.frozen import outdated
from harness.statistics import Interval, RatioEstimate, Slope, chain_product
from harness.submission import Submission, load_submission
from leaderboard.lines import changed_lines, lines_of_code

Row = dict[str, Any]
MAX_NOTES_BYTES = 1 << 20
LEVEL = 0.99  # of the intervals of a chain, one-sided, as in its races
NOT_DECIDED = "not decided yet"


@dataclass(frozen=True)
class OwnRecord:
    """A record's folder, read. `place`: task/class/NNN-slug; `submission` is None where its source is not kept."""

    place: str
    record: Record
    campaign: Campaign[DecidedCampaign]
    verdict: CampaignVerdict
    verifications: list[Verification]
    submission: Submission | None
    notes: str = ""

    @property
    def name(self) -> str:
        return short_id(self.place)

    @property
    def board(self) -> str:
        return self.place.rpartition("/")[0]

    @property
    def number(self) -> int:
        return int(self.name.rpartition("/")[2])


@dataclass(frozen=True)
class Attempt:
    """A submission's campaign against the record that reigned; `verdict` is None until it is decided."""

    board: str
    campaign: Campaign[DecidedCampaign]
    verdict: CampaignVerdict | None


@dataclass(frozen=True)
class History:
    """All records, attempts and finished ablations of a folder, board by board, oldest first."""

    records: list[OwnRecord]
    attempts: list[Attempt]
    ablations: list[tuple[str, Ablation]]  # the first is the name of its folder


def read(folder: Path, as_of: str | None = None) -> History:
    """Reads records/, as it was at the end of a day where one is given. Raises UserError with file and field."""
    boards = sorted(path for path in folder.glob("*/*") if path.is_dir())
    places = [Where(path.parent.name, path.name, folder) for path in boards]
    tasks = cache(load_task)
    records = [_read_record(path, as_of, tasks) for where in places for path in history(where)]
    attempts = [_read_attempt(plan.parent) for path in boards for plan in sorted(path.glob(f"{ATTEMPTS}/*/{PLAN}"))]
    ablations = [
        (path.parent.name, read_ablation(path.parent))
        for where in places
        for record in history(where)
        for path in sorted(record.glob(f"{ABLATIONS}/*/{ABLATION}"))
    ]
    return History(
        [one for one in records if as_of is None or one.record.filed <= as_of],
        [_known_by(one, as_of) for one in attempts if as_of is None or one.campaign.plan.started[:10] <= as_of],
        [(name, one) for name, one in ablations if as_of is None or one.date <= as_of],
    )


def records(known: History) -> list[Row]:
    """Every record, board by board; its speed-up over the latest baseline is a product of races."""
    rows: list[Row] = []
    code: dict[str, dict[str, list[str]]] = {}
    boards: dict[str, dict[str, Record]] = {}
    for one in known.records:
        boards.setdefault(one.board, {})[one.record.id] = one.record
    over = {name: product for board in boards.values() for name, product in _over_baseline(board).items()}
    for one in known.records:
        code[one.record.id] = lines_of_code(one.submission.files) if one.submission else {}
        parent = code.get(one.record.parent or "", {})
        speedup = _speedup(over[one.record.id], one.record.slope)
        rows.append({**_record(one), **speedup, **_lines(code[one.record.id], parent)})
    return rows


def runs(known: History) -> list[Row]:
    """Every run of the campaigns that the records rest on: those of the parent, failed and repeated ones too."""
    return [_run(line, block, one) for one in known.records for line, block in _lines_with_blocks(one.campaign)]


def methods(known: History) -> list[Row]:
    """Lifelines out of the methods that the records added and dropped."""
    standing: dict[tuple[str, str], Row] = {}
    ended: list[Row] = []
    for one in known.records:
        event = {"number": one.number, "filed": one.record.filed}
        gone = [line for name in one.record.methods_dropped if (line := standing.pop((one.board, name), None))]
        ended += [line | {"dropped": event["number"], "dropped_on": event["filed"]} for line in gone]
        for name in one.record.methods_added:
            declared = one.record.methods[name]
            standing[one.board, name] = {
                "history": one.board, "method": name, "name": name, "summary": declared.summary,
                "source": declared.source, "kind": declared.kind,
                "introduced": event["number"], "introduced_on": event["filed"],
                "replaces": [line["method"] for line in gone if line["kind"] == declared.kind],
                "evidence": f"declared in record {one.number:03d} of {one.board}", "uncertain": False,
            }  # fmt: skip
    return sorted([*ended, *standing.values()], key=lambda row: (row["history"], row["introduced"], row["method"]))


def verifications(known: History) -> list[Row]:
    """Every finished verification of every record."""
    return [
        {
            "record": one.name, "date": check.date, "machine": check.machine, "same_machine": check.same_machine,
            "against": short_id(check.against) if check.against else None,
            "verdict": str(check.verdict), "target": str(check.target), "agrees": check.agrees,
            "confirms": check.confirms, "p_agrees": check.p, "pairs": check.pairs, "trust": ", ".join(check.trust),
            "filed_ratio": check.filed.ratio if check.filed else None, **_ratio(check.found),
        }
        for one in known.records
        for check in one.verifications
    ]  # fmt: skip


def attempts(known: History) -> list[Row]:
    """Every attempt that was planned; one without a verdict is not decided yet."""
    filed = {(one.board, one.record.attempt): one.name for one in known.records}
    rows = []
    for one in known.attempts:
        plan = one.campaign.plan
        reference = plan.arms.get(REFERENCE)
        before, now = _methods_on(reference), _methods_on(plan.arms[CANDIDATE])
        row = {
            "attempt": f"{one.board}/{ATTEMPTS}/{plan.id}", "board": one.board, "date": plan.started[:10],
            "title": plan.arms[CANDIDATE].title, "reference": short_id(reference.word) if reference else None,
            "record": filed.get((one.board, plan.id)),
            "methods_added": sorted(now - before), "methods_dropped": sorted(before - now),
        }  # fmt: skip
        rows.append(row | (_decided(one.campaign, one.verdict) if one.verdict else {"verdict": NOT_DECIDED}))
    return rows


def _methods_on(arm: Arm | None) -> set[str]:
    return {name for name, on in arm.methods.items() if on} if arm else set()


def _decided(campaign: Campaign[DecidedCampaign], verdict: CampaignVerdict) -> Row:
    figures = verdict.arms[CANDIDATE]
    return {
        "verdict": word_of(campaign, verdict), "reason": verdict.reason, "pairs": verdict.pairs,
        "failed": figures.failed, "loss_mean": figures.mean_loss, "seconds": figures.mean_seconds,
        **_ratio(verdict.equal_loss),
    }  # fmt: skip


def _read_record(folder: Path, as_of: str | None, tasks: Callable[[str], Task]) -> OwnRecord:
    record, campaign = load_record(folder), _decided_campaign(folder)
    checks = [read_verification(path.parent) for path in sorted(folder.glob(f"{VERIFICATIONS}/*/{VERIFICATION}"))]
    return OwnRecord(
        place="/".join(folder.parts[-3:]), record=record, campaign=campaign, verdict=read_verdict(campaign),
        verifications=[check for check in checks if as_of is None or check.date <= as_of],
        submission=_submission(folder, record, tasks(campaign.plan.task_source)), notes=_notes(folder),
    )  # fmt: skip


def _notes(folder: Path) -> str:
    """What people wrote about the record; nothing where the file is gone, which `speedrun records verify` says."""
    if not (folder / NOTES).exists():
        return ""
    return read_file(folder / NOTES, MAX_NOTES_BYTES, RESTORE, follow_link=False).decode(errors="replace")


def _submission(folder: Path, record: Record, task: Task) -> Submission | None:
    if not (folder / SUBMISSION).is_dir():
        return None
    return load_submission(folder / SUBMISSION, task, checked=record.submission)


def _read_attempt(folder: Path) -> Attempt:
    campaign = _decided_campaign(folder)
    verdict = read_verdict(campaign) if (folder / VERDICT).exists() else None
    return Attempt("/".join(folder.parts[-4:-2]), campaign, verdict)


def _known_by(attempt: Attempt, as_of: str | None) -> Attempt:
    """The attempt without a verdict where its last run began after the day."""
    last = max((line.started or "" for line in attempt.campaign.lines), default="")
    return Attempt(attempt.board, attempt.campaign, None) if as_of and last[:10] > as_of else attempt


def _decided_campaign(folder: Path) -> Campaign[DecidedCampaign]:
    campaign = read_campaign(folder)
    if not isinstance(campaign.plan, DecidedCampaign):
        raise UserError(f"{folder / PLAN}: kind: a {campaign.plan.kind} is no attempt", RESTORE)
    return campaign


def _record(one: OwnRecord) -> Row:
    record, verdict = one.record, one.verdict
    seconds = [line.seconds for line in _counted(one.campaign) if line.seconds is not None]
    return {
        "record": one.name, "board": one.board, "number": one.number, "kind": record.kind, "date": record.filed,
        "title": record.title, "authors": record.authors, "score": record.steps or record.seconds,
        "score_unit": "steps" if record.steps else "seconds",
        "parent": short_id(record.parent) if record.parent else None, "target": record.target, "runs": record.runs,
        "loss_mean": record.val_loss, "loss_std": record.loss_spread, "p_value": record.p_target,
        "holdout_gap": record.holdout_gap, "time_mean": record.seconds,
        "time_std": statistics.stdev(seconds) if len(seconds) > 1 else None, "tokens": record.tokens,
        "machine": record.machine, "source": record.submission, "trust": ", ".join(verdict.trust),
        "verified": sum(check.counts for check in one.verifications), "reference": one.place,
        "seconds_saved": record.seconds * (record.ratio.ratio - 1) if record.ratio and record.steps is None else None,
        "ratio_tokens": verdict.tokens.ratio if verdict.tokens else None,
        "ratio_speed": verdict.speed.ratio if verdict.speed else None, **_ratio(record.ratio),
        "core": record.core_digest, "task_digest": record.task_digest, "data": record.data_digest,
        "chain": record.chain, "note": outdated(record.measurement_version),
    }  # fmt: skip


def _over_baseline(board: dict[str, Record]) -> dict[str, RatioEstimate | None]:
    """Of each record of a board the product of the races from the latest baseline to it; None for that baseline.

    Where the baseline is no forebear, the races from the first record to this one over those to the baseline.
    """
    baseline = next((one for one in reversed(board.values()) if one.kind == "baseline"), None)
    if baseline is None:
        raise UserError(f"{next(iter(board))}: its board has no baseline, which is record 001", RESTORE)
    to_baseline = _races_to(baseline, board)
    over: dict[str, RatioEstimate | None] = {baseline.id: None}
    for record in board.values():
        parent = _parent(record, board)
        if record.id in over:
            continue
        if parent and record.estimate and parent.id in over and parent.id >= baseline.id:
            before = over[parent.id]
            races = [before, record.estimate] if before else [record.estimate]
        else:
            own = _races_to(record, board)
            down = [race for name, race in to_baseline.items() if name not in own]
            races = [race for name, race in own.items() if name not in to_baseline]
            races += [replace(race, log_ratio=-race.log_ratio, loss_gain=-race.loss_gain) for race in down]
        over[record.id] = chain_product(races) if races else None
    return over


def _speedup(product: RatioEstimate | None, slope: Slope) -> Row:
    if product is None:
        return {"speedup": 1.0}
    interval = product.interval(slope, LEVEL)
    return {"speedup": interval.ratio, "speedup_low": interval.low, "speedup_high": interval.high}


def _races_to(record: Record, board: Mapping[str, Record]) -> dict[str, RatioEstimate]:
    """The races of its lineage by the records that they made, back to the first record. Raises UserError."""
    races: dict[str, RatioEstimate] = {}
    lineage: Record | None = record
    while lineage:
        if lineage.estimate:
            races[lineage.id] = lineage.estimate
        lineage = _parent(lineage, board)
    return races


def _parent(record: Record, board: Mapping[str, Record]) -> Record | None:
    """Raises UserError where it is no earlier record of the board."""
    if record.parent is None:
        return None
    parent = board.get(record.parent)
    if parent is None or parent.id >= record.id:
        what = f"{record.id}/{RECORD}: parent: {record.parent} is no earlier record of its board"
        raise UserError(what, RESTORE)
    return parent


def _lines(code: dict[str, list[str]], before: dict[str, list[str]]) -> Row:
    """Lines of code, and those changed over the record before."""
    if not code:
        return {}
    count = {"code_lines": sum(map(len, code.values()))}
    if not before:
        return count
    added, removed = changed_lines(before, code)
    return count | {"lines_added": added, "lines_removed": removed}


def _run(line: RunLine, block: int | None, one: OwnRecord) -> Row:
    candidate = line.arm == CANDIDATE
    return {
        "record": one.name, "board": one.board, "run": line.run_id, "arm": line.arm, "pair": block,
        "counted": candidate and block is not None and line.status == JUDGED, "loss": line.val_loss,
        "seconds": line.seconds, "tokens": line.tokens, "status": line.status, "complete": line.status == JUDGED,
        "machine": one.record.machine, "source": one.campaign.plan.arms[line.arm].digest,
        "folder": one.place.rpartition("/")[2], "file": RUNS,
    }  # fmt: skip


def _lines_with_blocks(campaign: Campaign[DecidedCampaign]) -> Iterable[tuple[RunLine, int | None]]:
    """Every line, with the block in which it counts; None where the run, or its whole block, was done again."""
    blocks = campaign.course.blocks
    for line in campaign.lines:
        counts = line.block < len(blocks) and blocks[line.block].attempts == line.attempt
        yield line, line.block if counts and line.ending is not Ending.REPEAT else None


def _counted(campaign: Campaign[DecidedCampaign]) -> list[RunLine]:
    lines = [block.runs[CANDIDATE] for block in campaign.course.blocks]
    return [line for line in lines if line.status == JUDGED]


def _ratio(interval: Interval | None) -> Row:
    if interval is None:
        return {}
    return {"ratio": interval.ratio, "ratio_low": interval.low, "ratio_high": interval.high}
