"""The tokenized public copy of a corpus on the Hugging Face hub: meeting it, pinning it, fetching it.

On first contact `speedrun data lock` writes down the repository's revision and, for every shard, the sha256 and
size the hub states. Ever after only those bytes count, from whichever place: the hub, a mirror ($HF_ENDPOINT),
the hub client's own cache ($HF_HOME; also with $HF_HUB_OFFLINE), or files that somebody put into the folder.
Runs import nothing of this.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.core.data.locking import exclusive
from harness.core.data.prepare import (
    Prepared,
    Progress,
    not_locked,
    quick_problem,
    read_manifest,
    shard_problem,
    write_manifest,
)
from harness.core.data.shards import HEADER_BYTES, TOKEN, cannot_write, replace_whole
from harness.core.task import Hub, Shard, Task, load_task
from harness.errors import UserError

CONTACT_SECONDS = 30
STAGING = ".fetching"  # within the folder, which may be on a disk of its own
FREE_ROOM = 1 << 30  # bytes left over on the disk after all shards are there
MESSAGE_CHARACTERS = 300
HEADING = "# Written by `speedrun data lock` on first contact, not by hand: what the hub held then."


@dataclass(frozen=True)
class Remote:
    """What the hub says a repository holds at one revision."""

    revision: str
    shards: list[Shard]


@dataclass(frozen=True)
class Locked:
    """The outcome of `write_lock`; `written` is False where an earlier lock still holds."""

    task: Task
    written: bool
    hub_revision: str  # the newest one of the hub, which may have moved on


def write_lock(task: Task, on_progress: Progress = lambda message: None) -> Locked:
    """Pins the repository of a task; where it is pinned, compares it with what the hub has now. Raises UserError."""
    hub, path = _hub(task), task.lock_path
    assert path is not None
    on_progress(f"asking {_endpoint()} for {hub.repository}")
    remote = contact(hub, None)
    if task.revision is not None:
        _compare(task, remote.shards, f"{hub.repository} at {remote.revision}")
        return Locked(task, False, remote.revision)
    lines = [HEADING, f'repository = "{hub.repository}"', f'revision = "{remote.revision}"']
    for shard in remote.shards:
        lines += ["", "[[shards]]", f'file = "{shard.file}"', f'split = "{shard.split}"']
        lines += [f"tokens = {shard.tokens}", f'sha256 = "{shard.sha256}"']
    with replace_whole(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    try:
        return Locked(load_task(task.path), True, remote.revision)
    except UserError:
        path.unlink()  # what does not make a task must not be pinned
        raise


def contact(hub: Hub, revision: str | None) -> Remote:
    """The shards of a repository at a revision, None for its newest, as the hub describes them. Raises UserError."""
    from huggingface_hub import HfApi

    with _explained(hub, revision):
        found = HfApi().dataset_info(hub.repository, revision=revision, files_metadata=True, timeout=CONTACT_SECONDS)
    names = {"train": hub.train, "validation": hub.validation}
    shards: dict[str, list[Shard]] = {"validation": [], "train": []}
    for entry in sorted(found.siblings or [], key=lambda entry: entry.rfilename):
        for split, prefix in names.items():
            if re.fullmatch(re.escape(prefix) + r"\d{6}\.bin", entry.rfilename):
                shards[split].append(_described(hub, entry.rfilename, split, entry.lfs))
    if not all(shards.values()) or not re.fullmatch(r"[0-9a-f]{40}", found.sha or ""):
        raise UserError(
            f"{hub.repository}: holds no {hub.train}NNNNNN.bin or no {hub.validation}NNNNNN.bin",
            "see whether $HF_ENDPOINT is a whole mirror; else correct [hub] in the task file",
        )
    numbers = [int(shard.file[len(hub.train) : -4]) for shard in shards["train"]]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise UserError(f"{hub.repository}: a number is missing among its training shards", "report it upstream")
    return Remote(str(found.sha), [*shards["validation"], *shards["train"]])


def prepare_from_hub(task: Task, data_dir: Path, count: int | None, on_progress: Progress) -> Prepared:
    """Makes sure that validation and the first `count` training shards, None for all, are in place. Raises UserError.

    Each shard counts as soon as it is there: an interrupted call is taken up by the next one.
    """
    folder = task.data_folder(data_dir)
    wanted = wanted_shards(task, count)
    with exclusive(data_dir, folder.name):
        missing = missing_shards(task, folder, wanted, on_progress)
        if missing:
            require_room(folder, missing)
            _fetch_all(task, folder, missing, on_progress)
    return Prepared(folder, built=bool(missing))


def _fetch_all(task: Task, folder: Path, missing: list[Shard], on_progress: Progress) -> None:
    """The hub is asked, once, only if its client's cache has not all of them."""
    asked = False
    for number, shard in enumerate(missing, start=1):
        cached = _cached(task, shard)
        if cached is None and not asked:
            on_progress(f"asking {_endpoint()} for {_hub(task).repository} at {task.revision}")
            _compare(task, contact(_hub(task), task.revision).shards, "the hub at the pinned revision")
            asked = True
        where = "from the hub client's cache" if cached else f"{_bytes(shard) / 1e6:,.0f} MB"
        on_progress(f"{shard.file}: {number} of {len(missing)}, {where}")
        place_shard(task, folder, _fetched(task, shard, cached, folder / STAGING), shard)
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def wanted_shards(task: Task, count: int | None) -> list[Shard]:
    """Validation and the first `count` training shards; None for all. Raises UserError."""
    _require_lock(task)
    training = task.of_split("train")
    if count is not None and not 1 <= count <= len(training):
        raise UserError(
            f"{count:,} training shards: the corpus has {len(training):,}", "give --shards a number in between"
        )
    return [*task.of_split("validation"), *training[:count]]


def shards_for_tokens(task: Task, tokens: int) -> int:
    """How many training shards hold at least so many tokens. Raises UserError."""
    _require_lock(task)
    held = 0
    for count, shard in enumerate(task.of_split("train"), start=1):
        held += shard.tokens
        if held >= tokens:
            return count
    raise UserError(f"{tokens:,} training tokens: the corpus has {held:,}", "give --tokens a smaller number")


def missing_shards(task: Task, folder: Path, wanted: list[Shard], on_progress: Progress) -> list[Shard]:
    """Those of the shards that are not whole in the folder; what is there without an entry is read and entered."""
    kept = read_manifest(task, folder)
    unknown = [shard for shard in wanted if quick_problem(shard, folder / shard.file, kept.get(shard.file))]
    whole = []
    for shard in unknown:
        if (folder / shard.file).exists():
            on_progress(f"{shard.file}: there already; comparing its sha256")
            if shard_problem(shard, folder / shard.file) is None:
                whole.append(shard)
    if whole:
        write_manifest(task, folder, whole, kept)
    return [shard for shard in unknown if shard not in whole]


def place_shard(task: Task, folder: Path, source: Path, shard: Shard) -> None:
    """Moves a checked shard into the folder and enters it in the manifest. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        source.replace(folder / shard.file)
    except OSError as error:
        raise cannot_write(folder / shard.file, error) from None
    write_manifest(task, folder, [shard], read_manifest(task, folder))


def _fetched(task: Task, shard: Shard, cached: Path | None, staging: Path) -> Path:
    """The shard under `staging`, copied from the hub client's cache or downloaded, if it is the pinned one."""
    staged = _copied(cached, staging / shard.file) if cached else _download(task, shard, staging)
    if problem := shard_problem(shard, staged):
        staged.unlink(missing_ok=True)
        remedy = f"remove {cached.resolve()}" if cached else "try again; else see whether $HF_ENDPOINT is a true mirror"
        raise UserError(problem, remedy)
    return staged


def _copied(source: Path, copy: Path) -> Path:
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise cannot_write(copy, error) from None
    return copy


def _cached(task: Task, shard: Shard) -> Path | None:
    """The shard in the hub client's own cache, where an earlier download by another tool may have put it."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(_hub(task).repository, shard.file, revision=task.revision, repo_type="dataset")
    return Path(path) if isinstance(path, str) else None


def _download(task: Task, shard: Shard, staging: Path) -> Path:
    from huggingface_hub import hf_hub_download

    hub = _hub(task)
    try:
        with _explained(hub, task.revision):
            return Path(
                hf_hub_download(
                    hub.repository,
                    shard.file,
                    repo_type="dataset",
                    revision=task.revision,
                    local_dir=staging,
                )
            )
    except OSError as error:
        raise cannot_write(staging / shard.file, error) from None


def _described(hub: Hub, name: str, split: str, lfs: object) -> Shard:
    size, digest = getattr(lfs, "size", None), getattr(lfs, "sha256", None)
    if not isinstance(size, int) or not isinstance(digest, str):
        raise UserError(
            f"{hub.repository}: the hub states no sha256 for {name}", "see whether $HF_ENDPOINT is a true mirror"
        )
    tokens, rest = divmod(size - HEADER_BYTES, TOKEN.itemsize)
    if rest or tokens < 1 or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise UserError(f"{hub.repository}: {name} with {size:,} bytes is no shard", "report it upstream")
    return Shard(file=name, split=split, tokens=tokens, sha256=digest)  # type: ignore[arg-type]


def _compare(task: Task, found: list[Shard], where: str) -> None:
    """Raises UserError where the hub has not what the lock pins."""
    theirs = {shard.file: shard for shard in found}
    for shard in task.shards:
        if (other := theirs.get(shard.file)) != shard:
            has = f"sha256 {other.sha256}" if other else "no such file"
            raise UserError(
                f"{shard.file}: {task.lock_path} pins sha256 {shard.sha256}, {where} has {has}",
                "the lock holds: use files made before the change (see docs/fineweb.md) or another mirror",
            )


def require_room(folder: Path, missing: list[Shard]) -> None:
    """Raises UserError before anything is fetched that will not fit."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    needed = sum(map(_bytes, missing))
    free = shutil.disk_usage(existing).free
    if free < needed + FREE_ROOM:
        raise UserError(
            f"{folder}: {len(missing)} shards need {needed / 1e9:.1f} GB and {FREE_ROOM / 1e9:.1f} GB to spare, "
            f"{free / 1e9:.1f} GB are free",
            "prepare fewer with --shards, free some space, or use another folder with --data-dir",
        )


def _bytes(shard: Shard) -> int:
    return HEADER_BYTES + TOKEN.itemsize * shard.tokens


def _hub(task: Task) -> Hub:
    if task.hub is None:
        raise UserError(f"{task.path.name}: the task has no [hub]", "use a task whose corpus is on the hub")
    return task.hub


def _require_lock(task: Task) -> None:
    _hub(task)
    if task.revision is None:
        raise not_locked(task)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


@contextmanager
def _explained(hub: Hub, revision: str | None) -> Iterator[None]:
    """Turns what the hub's client raises into one UserError with its remedy; a full disk is left to the caller."""
    from huggingface_hub import errors

    elsewhere = "put the .bin files, fetched elsewhere, into the task's data folder and say the same command again"
    if revision is None:
        elsewhere = "lock on a machine that reaches the hub, and bring the lock file here"
    way_round = f"check the connection and $HF_ENDPOINT (a mirror); or {elsewhere}"
    at = f" at revision {revision}" if revision else ""
    try:
        yield
    except errors.RevisionNotFoundError:
        raise UserError(f"{hub.repository}: {_endpoint()} no longer has revision {revision}", way_round) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{hub.repository}: {_endpoint()} has no such dataset, or it is closed to you", way_round
        ) from None
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(f"{hub.repository}{at}: {_said(error)}", way_round) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise UserError(f"{hub.repository}{at}: not in the hub client's cache, and {_said(error)}", way_round) from None
    except errors.HTTPError as error:
        raise UserError(f"{hub.repository}{at}: {_endpoint()} cannot be used: {_said(error)}", way_round) from None
    except ValueError as error:
        raise UserError(
            f"{hub.repository}{at}: {_endpoint()} does not answer as a hub: {_said(error)}", way_round
        ) from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}:
            raise
        reason = os.strerror(error.errno) if error.errno else _said(error)
        raise UserError(f"{hub.repository}{at}: {_endpoint()}: {reason}", way_round) from None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:MESSAGE_CHARACTERS] or type(error).__name__
