"""Reverts: a record without one of its methods, or with one it had lost, as a submission of its own.

The candidate's source is cut by `harness.dropping`, and a dry run shows that it trains exactly as the toggles did.
tuning/revert.json in its folder says what it was made from; that is no part of the submission.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.bundle import write_atomically
from harness.checks.runs import Trials, same_training
from harness.core.owned import PREFIX, TemporaryFolder
from harness.core.task import HardwareClass, Strict, Task, hardware_class
from harness.dropping import BY_HAND, MANIFEST, source_without, with_field, without_tables
from harness.errors import UserError
from harness.evidence.json_file import read_object
from harness.evidence.plans import Digest, Text
from harness.evidence.records import MAX_RECORD_BYTES, history, load_record, short_id, submission_of_record
from harness.evidence.sides import Where
from harness.submission import Submission, Value, load_submission
from harness.tuning.adopt import with_defaults
from harness.tuning.protocol import FOLDER
from harness.tuning.trials import source_digest

REVERT = f"{FOLDER}/revert.json"
TITLE_CHARACTERS = 120


class Revert(Strict):
    """revert.json: what a candidate was made from.

    `trials`, `tuned`: how what is left is retuned, where it is; `retuned`: the submission's digest once that is done.
    """

    schema_version: Literal[1] = 1
    record: Text
    dropped: list[Text]
    added: list[Text]
    source: Digest  # of what a loss depends on besides hyperparameters
    trials: int | None = None
    tuned: list[Text] = []
    retuned: Digest | None = None


@dataclass(frozen=True)
class Change:
    """What a revert is to do to a record: drop methods, or add them from a submission of the same lineage."""

    folder: Path  # of the record
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    source: Submission | None = None  # that has the methods to add

    @property
    def words(self) -> str:
        parts = [f"without {', '.join(self.dropped)}"] * bool(self.dropped)
        return " ".join([*parts, *[f"with {', '.join(self.added)}"] * bool(self.added)])

    @property
    def name(self) -> str:
        """Of the candidate's folder."""
        name = f"{self.folder.name[4:]}-{self.words}"
        return "-".join(name.replace(",", "").split())


def candidate_of(change: Change, into: Path, hardware: str, tell: Callable[[str], None]) -> Path:
    """The folder of a revert's candidate in `into`, made, or found as it was made before. Raises UserError."""
    folder, record = into / change.name, load_record(change.folder)
    asked = (record.id, list(change.dropped), list(change.added))
    if folder.exists():
        task = submission_of_record(change.folder).task
        kept = read_revert(folder)
        if (kept.record, kept.dropped, kept.added) != asked:
            raise UserError(f"{folder}: made for another revert", "remove it, or choose another folder: --into")
        if source_digest(load_submission(folder, task)) != kept.source:
            raise UserError(f"{folder}: its source was changed", "submit it as it is: speedrun submit, or remove it")
        return folder
    with TemporaryFolder(f"{PREFIX}revert-") as temporary:
        made = _made(change, temporary / change.name, hardware, tell)
        (made.folder / FOLDER).mkdir()
        kept = Revert(record=asked[0], dropped=asked[1], added=asked[2], source=source_digest(made))
        write_revert(made.folder, kept)
        try:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copytree(made.folder, folder)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}", "choose a folder you can write to: --into") from None
    return folder


def _made(change: Change, folder: Path, hardware: str, tell: Callable[[str], None]) -> Submission:
    """The candidate in a new folder, shown to train as the toggles do. Raises UserError."""
    record, parent = load_record(change.folder), submission_of_record(change.folder)
    whole, off = parent, change.dropped
    if change.source is not None:
        whole = _at_point_of(change.source, parent, change.added, folder.with_name("whole"))
        off = tuple(name for name in whole.manifest.methods if name not in {*parent.manifest.methods, *change.added})
        tell(f"a dry run of {record.id}, and of {change.source.name} without {', '.join(change.added)}")
        bare = (*off, *change.added)
        differs = same_training(whole, bare, parent, hardware_class(hardware), folder.with_name("lineage"))
        if differs:
            what = f"{change.source.folder}: without {', '.join(bare)} it is not {record.id}: {differs}"
            raise UserError(what, "the toggles do not allow it: write the method into a copy of the record by hand")
    files = source_without(whole, off) if off else dict(whole.files)
    for line in constants_left(whole.files, files):
        tell(f"{line}: a toggle is left there as a constant: what hangs on it is off, but not gone")
    # By the folder: the record's title may name the very methods that are gone.
    room = max(TITLE_CHARACTERS - len(change.words) - 1, 0)
    title = f"{change.folder.name[4:][:room]} {change.words}"[:TITLE_CHARACTERS]
    manifest = with_field(with_field(files[MANIFEST].decode(), "title", title), "parent", record.id)
    files[MANIFEST] = _without_unasked(manifest, whole, off, files).encode()
    candidate = _written(files, folder, parent.task)
    if set(candidate.manifest.methods) & set(off):
        raise UserError(f"{whole.folder}: the tables of {', '.join(off)} cannot be found by line", BY_HAND)
    tell(f"a dry run of {change.name}, and of what it was made from")
    differs = same_training(whole, off, candidate, hardware_class(hardware), folder.with_name("runs"))
    if differs:
        raise UserError(f"{change.name}: cut out, it does not train as with --drop: {differs}", BY_HAND)
    return candidate


def newly_asked(candidate: Submission, parent: Submission, hardware: HardwareClass) -> list[str]:
    """The hyperparameters that a candidate asks for and its parent does not, by a dry run of each.

    Those of the fallback, which nothing tuned while the method was on; or those of a method that was added.
    """
    asked = []
    for submission in (candidate, parent):
        with TemporaryFolder(f"{PREFIX}revert-") as temporary:
            trials = Trials(submission, hardware, temporary)
            trials.dry_run([])
            asked.append(trials.consulted & {f"hparams.{name}" for name in submission.manifest.hparams})
    return sorted(name.removeprefix("hparams.") for name in asked[0] - asked[1])


def constants_left(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    """Where a folded toggle is an argument or an attribute, so that what hangs on it was not cut: file and line."""
    return [
        f"{name}, line {number}"
        for name, content in after.items()
        if name.endswith(".py")
        for number, line in enumerate(content.splitlines(), start=1)
        if b"False" in line and line.strip() not in map(bytes.strip, before[name].splitlines())
    ]


def _without_unasked(manifest: str, whole: Submission, off: Sequence[str], files: Mapping[str, bytes]) -> str:
    """The manifest without those hyperparameters of dropped methods whose names stand nowhere in the source."""
    source = b"\n".join(content for name, content in files.items() if name.endswith(".py"))
    owned = [name for name, hparam in whole.manifest.hparams.items() if hparam.of in off]
    unasked = [name for name in owned if f'"{name}"'.encode() not in source and f"'{name}'".encode() not in source]
    return without_tables(manifest, [f"hparams.{name}" for name in unasked])


def _at_point_of(source: Submission, parent: Submission, added: Sequence[str], folder: Path) -> Submission:
    """A submission with the methods to add, at the hyperparameters of the record. Raises UserError where it cannot be.

    It must have all that the record has: then what else it has can be turned off, and what is left is the record with
    the methods added.
    """
    missing = sorted(set(parent.manifest.methods) - set(source.manifest.methods))
    if missing:
        what = f"{source.folder}: has no {', '.join(missing)}, which the record has"
        raise UserError(what, "add from a submission that has all its methods, or write the method in by hand")
    values: dict[str, Value] = {}
    for name, value in parent.hparams([]).items():
        if name not in source.manifest.hparams or source.manifest.hparams[name].default == value:
            continue
        problem = source.manifest.hparams[name].problem_with(value)
        if problem:
            what = f"{source.folder}/{MANIFEST}: hparams.{name}: the record's {problem}"
            raise UserError(what, "widen the range there")
        values[name] = value
    text = with_defaults(source.files[MANIFEST].decode(), values, source.folder / MANIFEST)
    made = _written({**source.files, MANIFEST: text.encode()}, folder, parent.task)
    off = [name for name in added if not made.manifest.methods[name].default]
    if off:
        raise UserError(f"{source.folder}: {', '.join(off)} is off by default", "turn it on there: default = true")
    return made


def require_lineage(source: Submission, added: Sequence[str], where: Where) -> None:
    """Raises UserError unless a submission is, or started from, a record of this task and class and has the methods."""
    records = [load_record(folder) for folder in history(where)]
    own = any(record.submission == source.digest for record in records)
    parent = source.manifest.parent
    if not own and not any(parent in (record.id, short_id(record.id)) for record in records):
        what = f"{source.folder}: is no record of {where.task} on {where.hardware}, and names none as its parent"
        raise UserError(what, "add a method from a submission of the same lineage")
    source.methods(list(added))


def _written(files: Mapping[str, bytes], folder: Path, task: Task) -> Submission:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return load_submission(folder, task)


def take_up(folder: Path, trials: int | None, tuned: Sequence[str]) -> Revert:
    """revert.json of a candidate, with how it is to be retuned. Raises UserError where it was begun in another way."""
    kept = read_revert(folder)
    if kept.trials is None and kept.retuned is None and trials is not None:
        kept = kept.model_copy(update={"trials": trials, "tuned": list(tuned)})
        write_revert(folder, kept)
    if (kept.trials, kept.tuned) != (trials, list(tuned)):
        names = "".join(f" --tune {name}" for name in kept.tuned)
        what = f"{folder}: is retuned with --trials {kept.trials}{names}"
        raise UserError(what, "give the same, or choose another folder for another candidate: --into")
    return kept


def read_revert(folder: Path) -> Revert:
    """revert.json of a candidate's folder. Raises UserError that names file and field."""
    remedy = "remove the folder, or choose another one: --into"
    return read_object(folder / REVERT, Revert, MAX_RECORD_BYTES, remedy)


def write_revert(folder: Path, revert: Revert) -> None:
    """Writes revert.json."""
    write_atomically(folder / REVERT, json.dumps(revert.model_dump(mode="json"), indent=2) + "\n")
