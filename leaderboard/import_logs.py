"""Foreign logs to runs: what a maintainer of the public speedrun does by hand with a folder of text files.

Formats: `step:i/N val_loss:L train_time:Tms ...`, the same with seconds (`T s` or `Ts`), and llm.c's `s:i tel:L`. A log
may begin with its own source up to the first line of equals signs, or hold it between the first two. One file may hold
several runs, one after the other; copies and repeats of one seed are found by their losses.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.files import read_file
from harness.errors import UserError
from harness.statistics.student import finite_array, mean_and_spread, one_sided_p

MAX_LOG_BYTES = 256 << 20
SUFFIXES = (".txt", ".log", ".out", ".stdout")  # what is looked at in a folder; a file that is named is read anyway
DIGEST_CHARACTERS = 10
HEADER_BYTES = 1 << 16  # machine and versions are printed before the first steps
# Losses after step 0 that agree to the last printed digit in two runs of one seed. Four digits of a loss that spreads
# by 0.0012 take some 25 values: five points agree by chance in one of ten million pairs.
EARLY_POINTS = 5

VALIDATION = re.compile(rb"step:\s*(\d+)\s*/\s*(\d+)\s.*?\bval_loss:\s*([-+.\w]+)")
TRAIN_TIME = re.compile(rb"train_time:\s*([\d.]+)\s*(ms|s)\b")
LLM_C = re.compile(rb"^s:(\d+)\s+tel:([-+.\w]+)", re.MULTILINE)
RULER = re.compile(rb"^={5,}[ \t]*\r?$", re.MULTILINE)
GPU = re.compile(rb"^\|\s+\d+\s+(\S.*?)\s+(?:On|Off)\s*\|", re.MULTILINE)
GPU_NAME = re.compile(rb"(NVIDIA [A-Z][\w -]*\w|AMD Instinct \w+)")
WORLD_SIZE = re.compile(rb"world[_ ]size\W{0,3}(\d+)", re.IGNORECASE)
DRIVER = re.compile(rb"Driver Version:\s*([\d.]+)")
TORCH = re.compile(rb"(?:PyTorch|torch)[ :=]+(?:version )?([\d.]+[\w.+]*)", re.IGNORECASE)
STATED_SEED = re.compile(rb"^\W{0,3}(?:using |run )?seed\W{1,3}(\d+)\b", re.MULTILINE | re.IGNORECASE)
NAMED_SEED = re.compile(r"seed[-_ ]?(\d+)", re.IGNORECASE)


class NotALog(Exception):
    """Why a file is no log of a known format."""


@dataclass(frozen=True)
class Point:
    """One validation: optimizer step, loss in nats per token, seconds of training (None: not printed)."""

    step: int
    loss: float
    seconds: float | None


@dataclass(frozen=True)
class Environment:
    """What a log's header says about the machine; "" or None where it does not."""

    machine: str
    gpus: int | None
    torch: str
    driver: str


@dataclass
class LoggedRun:
    """One run of a log.

    source: digest of the embedded source, "" without any. planned: steps that the log announces. seed: as stated in the
    log or in the file's name. copy_of: a run with the same losses and times; repeat_of: one of the same seed. Such a
    run is not counted.
    """

    name: str
    file: Path
    points: list[Point]
    planned: int | None
    source: str
    environment: Environment
    seed: int | None
    copy_of: str | None = None
    repeat_of: str | None = None

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def complete(self) -> bool:
        return self.planned is None or self.last.step >= self.planned

    @property
    def counted(self) -> bool:
        return self.copy_of is None and self.repeat_of is None

    def at(self, step: int | None) -> Point | None:
        """The validation at a step, or the last one."""
        if step is None:
            return self.last
        return next((point for point in self.points if point.step == step), None)


@dataclass
class Imported:
    """What was read: runs, and for every file that gave none the reason."""

    runs: list[LoggedRun] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Runs of one source to one step. p_value: one-sided t-test that the mean is below the target."""

    source: str
    step: int
    runs: int
    counted: int
    unfinished: int
    loss_mean: float | None
    loss_std: float | None
    p_value: float | None
    time_mean: float | None
    time_std: float | None
    machines: list[str]
    torch: list[str]


def read_logs(paths: Iterable[Path]) -> Imported:
    """Every log in the files and folders. Raises UserError for a path that does not exist."""
    found = Imported()
    for path in _files(paths):
        try:
            found.runs += parse_log(path, read_file(path, MAX_LOG_BYTES, "split the file"))
        except NotALog as error:
            found.unread[str(path)] = str(error)
        except UserError as error:
            found.unread[str(path)] = error.message.removeprefix(f"{path}: ")
    _mark_copies(found.runs)
    _mark_repeats(found.runs)
    return found


def parse_log(path: Path, content: bytes) -> list[LoggedRun]:
    """The runs of one log. Raises NotALog that says what is missing."""
    if b"\0" in content[:4096]:
        raise NotALog("binary, not text")
    source, start = _split_source(content)
    log = content[start:]
    series, planned = _validations(log)
    if not series:
        series, planned = [[Point(int(m[1]), _loss(m[2]), None) for m in LLM_C.finditer(log)]], None
    series = [points for points in (_finite(points) for points in series) if points]
    if not series:
        raise NotALog(_why_none(content))
    header = log[:HEADER_BYTES]
    digest = hashlib.sha256(source).hexdigest()[:DIGEST_CHARACTERS] if source else ""
    environment = _environment(header)
    if len(series) == 1:
        seed = _stated_seed(path, header)
        return [LoggedRun(path.stem, path, series[0], planned, digest, environment, seed)]
    return [
        LoggedRun(f"{path.stem}#{number}", path, points, planned, digest, environment, None)
        for number, points in enumerate(series, 1)
    ]


def groups(runs: Iterable[LoggedRun], target: float, step: int | None = None) -> list[Group]:
    """Statistics of runs of the same source and steps, at a common step where one is given. Largest group first."""
    members: dict[tuple[str, int], list[tuple[LoggedRun, Point]]] = {}
    for run in runs:
        point = run.at(step)
        if point is not None:
            key = run.source or f"no source, {run.file.parent}", point.step
            members.setdefault(key, []).append((run, point))
    made = [_group(*key, found, target) for key, found in members.items()]
    return sorted(made, key=lambda group: (-group.counted, group.source, group.step))


def run_rows(runs: Iterable[LoggedRun]) -> list[dict[str, Any]]:
    """Runs as rows of the frame of runs (`leaderboard.columns.RUNS`)."""
    return [
        {
            "board": "imported logs", "run": run.name, "counted": run.counted, "loss": run.last.loss,
            "seconds": run.last.seconds, "steps": run.last.step, "complete": run.complete, "gpus": run.environment.gpus,
            "machine": run.environment.machine or None, "torch": run.environment.torch or None,
            "driver": run.environment.driver or None,
            "source": run.source or None, "duplicate_of": run.copy_of or run.repeat_of,
            "folder": str(run.file.parent), "file": run.file.name,
        }
        for run in runs
    ]  # fmt: skip


def curve_rows(runs: Iterable[LoggedRun]) -> list[dict[str, Any]]:
    """Validations as rows of the frame of curves (`leaderboard.columns.CURVES`)."""
    return [
        {
            "board": "imported logs", "folder": str(run.file.parent), "file": run.file.name, "run": run.name,
            "step": point.step, "loss": point.loss, "seconds": point.seconds,
        }
        for run in runs
        for point in run.points
    ]  # fmt: skip


def _files(paths: Iterable[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"{path}: no logs in this folder", f"logs end in {', '.join(SUFFIXES)}; name others")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise UserError(f"{path}: no such file", "give log files or folders of them")
    return list(found)


def _split_source(content: bytes) -> tuple[bytes, int]:
    """The embedded source, if any, and where the log begins after it."""
    rulers = [found.span() for _, found in zip(range(2), RULER.finditer(content), strict=False)]
    bounds = [0, *(place for ruler in rulers for place in ruler)]
    for begin, end in zip(bounds[::2], bounds[1::2], strict=False):
        if re.search(rb"^(?:import|from) \w", content[begin:end], re.MULTILINE):
            return content[begin:end].strip(), end
    return b"", 0


def _validations(log: bytes) -> tuple[list[list[Point]], int | None]:
    """One list of points for every run, and the announced steps. A run begins where the step falls back."""
    series: list[list[Point]] = []
    planned = None
    for found in re.finditer(rb"val_loss:", log):
        begin = log.rfind(b"\n", 0, found.start()) + 1
        end = log.find(b"\n", found.end())
        line = log[begin : end if end >= 0 else len(log)]
        matched = VALIDATION.match(line)
        if matched is None:
            continue
        planned = int(matched[2])
        time = TRAIN_TIME.search(line)
        seconds = float(time[1]) / (1000 if time[2] == b"ms" else 1) if time else None
        point = Point(int(matched[1]), _loss(matched[3]), seconds)
        if not series or point.step < series[-1][-1].step:
            series.append([point])
        elif point.step > series[-1][-1].step:
            series[-1].append(point)  # the same step again is another readout of the same weights
    own: list[list[Point]] = []
    for points in series:
        if not any(set(points) <= set(before) for before in own):  # a summary that echoes lines is no run
            own.append(points)
    return own, planned


def _loss(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _finite(points: list[Point]) -> list[Point]:
    """Points with a loss; a run that diverged ends where its loss did."""
    return [point for point in points if math.isfinite(point.loss)]


def _why_none(content: bytes) -> str:
    if not content.strip():
        return "empty"
    if b"train_time:" in content or b"trl:" in content:
        return "training lines, but no validation loss"
    if b"val_loss" in content:
        return "val_loss without a step: neither `step:i/N val_loss:L` nor `s:i tel:L`"
    return "no line of a known format: `step:i/N val_loss:L ...` or `s:i tel:L`"


def _environment(header: bytes) -> Environment:
    """From the tables and lines that the public scripts print."""
    gpus = GPU.findall(header)
    named = GPU_NAME.search(header)
    machine = gpus[0] if gpus else named[1] if named else b""
    world = WORLD_SIZE.search(header)
    return Environment(
        machine=machine.decode(errors="replace").strip(),
        gpus=int(world[1]) if world else len(gpus) or None,
        torch=_first(TORCH, header),
        driver=_first(DRIVER, header),
    )


def _stated_seed(path: Path, header: bytes) -> int | None:
    stated = STATED_SEED.search(header)
    in_name = NAMED_SEED.search(path.name)
    return int(stated[1]) if stated else int(in_name[1]) if in_name else None


def _first(pattern: re.Pattern[bytes], text: bytes) -> str:
    matched = pattern.search(text)
    return matched[1].decode(errors="replace") if matched else ""


def _mark_copies(runs: list[LoggedRun]) -> None:
    seen: dict[tuple[Point, ...], LoggedRun] = {}
    for run in runs:
        first = seen.setdefault(tuple(run.points), run)
        if first is not run:
            run.copy_of = _where(first)


def _mark_repeats(runs: list[LoggedRun]) -> None:
    """Runs of one source that state the same seed, or whose first losses after step 0 agree to the last digit."""
    seen: dict[tuple[object, ...], LoggedRun] = {}
    for run in runs:
        if run.copy_of is not None:
            continue
        early = tuple((point.step, point.loss) for point in run.points if point.step > 0)[:EARLY_POINTS]
        signs: list[tuple[object, ...]] = [(run.source, early)] if len(early) > 1 else []
        if run.seed is not None:
            signs.append((run.source, run.file.parent, run.planned, "seed", run.seed))
        first = next((seen[sign] for sign in signs if sign in seen), None)
        if first is not None:
            run.repeat_of = _where(first)
        for sign in signs:
            seen.setdefault(sign, run)


def _where(run: LoggedRun) -> str:
    return str(run.file.parent / run.name)


def _group(source: str, step: int, found: list[tuple[LoggedRun, Point]], target: float) -> Group:
    counted = [(run, point) for run, point in found if run.counted]
    environments = {run.environment for run, _ in found}
    losses = finite_array("losses", [point.loss for _, point in counted], at_least=0)
    times = finite_array("times", [p.seconds for _, p in counted if p.seconds is not None], at_least=0)
    mean, spread, p_value = (float(losses[0]) if len(losses) else None), None, None
    if len(losses) > 1:
        mean, spread = mean_and_spread(losses)
        p_value = one_sided_p(target - mean, spread / math.sqrt(len(losses)), len(losses) - 1)
    return Group(
        source=source,
        step=step,
        runs=len(found),
        counted=len(counted),
        unfinished=sum(not run.complete for run, _ in found),
        loss_mean=mean,
        loss_std=spread,
        p_value=p_value,
        time_mean=float(times.mean()) if len(times) else None,
        time_std=float(times.std(ddof=1)) if len(times) > 1 else None,
        machines=sorted({f"{env.gpus or '?'} {env.machine}" for env in environments if env.machine or env.gpus}),
        torch=sorted({env.torch for env in environments if env.torch}),
    )
