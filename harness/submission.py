"""Read and validate a submission: a folder with submission.toml, train.py and modules of its own.

Only regular files directly under the folder or its sub-folders belong to it; links and anything that points
outside are refused. `snapshot` copies what was validated, so that what runs is what was digested.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harness.core.files import read_file
from harness.core.task import TASK_NAME, Caps, Strict, Task, load_task, read_toml
from harness.errors import UserError, describe_validation

MAX_MANIFEST_BYTES = 64 * 1024
MAX_FILES = 64
SUFFIXES = (".py", ".toml", ".md")  # code, the manifest, notes: nothing packed or binary
IGNORED = ("__pycache__", ".DS_Store", "tuning")  # `tuning` is a baseline's evidence, not part of what runs
NAME = r"^[a-z][a-z0-9_-]{0,63}$"

Name = Annotated[str, StringConstraints(pattern=NAME)]
Kind = Literal["optimizer", "architecture", "initialization", "schedule", "data order", "loss", "precision", "systems"]
Value = bool | int | float | str


class EvaluationShape(Strict):
    """The [batch, length] in which the judge asks for logits."""

    batch: int = Field(gt=0)
    length: int = Field(gt=0)


class Method(Strict):
    """A named part of the submission that `--drop` turns off."""

    kind: Kind
    summary: str = Field(min_length=1, max_length=300)
    source: str = Field(min_length=1, max_length=300)
    default: bool = True


class Hparam(Strict):
    """A number or choice that others can retune: a default, and a range or a list of choices."""

    default: Value
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Value] | None = None
    of: str | None = None

    @model_validator(mode="after")
    def _one_kind_of_range(self) -> Hparam:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either low and high, or choices")
        problem = self.problem_with(self.default)
        if problem:
            raise ValueError(f"default {problem}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("a log range needs low above 0")
        return self

    def problem_with(self, value: Value) -> str | None:
        """What is wrong with a value, or None."""
        if self.choices is not None:
            known = any(value == choice and type(value) is type(choice) for choice in self.choices)
            return None if known else f"{value!r} is not one of {self.choices}"
        if isinstance(value, bool | str):
            return f"{value!r} is not a number"
        if isinstance(self.default, int) and not isinstance(value, int):
            return f"{value!r} is not a whole number"
        assert self.low is not None and self.high is not None
        return None if self.low <= value <= self.high else f"{value!r} is outside [{self.low}, {self.high}]"

    def parse(self, text: str) -> Value:
        """A value from the command line, in the type of the default. Raises ValueError."""
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false"):
                raise ValueError("not true or false")
            return text.lower() == "true"
        return type(self.default)(text)


class Manifest(Strict):
    """submission.toml."""

    task: str = Field(pattern=TASK_NAME)  # a name: a submission cannot bring a task of its own
    title: str = Field(min_length=1, max_length=120)
    authors: list[str] = Field(min_length=1, max_length=50)
    parent: str | None = None
    evaluation: EvaluationShape
    methods: dict[Name, Method] = {}
    hparams: dict[Name, Hparam] = {}

    @model_validator(mode="after")
    def _owners_exist(self) -> Manifest:
        for name, hparam in self.hparams.items():
            if hparam.of is not None and hparam.of not in self.methods:
                raise ValueError(f"hparams.{name}.of names {hparam.of!r}, which is not a declared method")
        return self


class Refusal(UserError):
    """A submission that breaks a rule; `rule` is its id in harness/checks/rules.py."""

    def __init__(self, rule: str, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.rule = rule


@dataclass(frozen=True)
class Submission:
    """A validated folder. `files` maps relative paths to contents with LF line ends; `digest` is over them."""

    folder: Path
    manifest: Manifest
    task: Task
    files: dict[str, bytes]
    digest: str

    @property
    def name(self) -> str:
        return self.folder.name

    def methods(self, dropped: list[str]) -> dict[str, bool]:
        """Which methods are on after `--drop`. Raises UserError for an undeclared name."""
        for name in dropped:
            self._require("methods", name, self.manifest.methods)
        return {name: m.default and name not in dropped for name, m in self.manifest.methods.items()}

    def hparams(self, settings: list[str]) -> dict[str, Value]:
        """The hyperparameters after `--set NAME=VALUE`. Raises UserError for a bad name or value."""
        values: dict[str, Value] = {name: h.default for name, h in self.manifest.hparams.items()}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise UserError(f"--set {setting}: no value", "write --set NAME=VALUE")
            self._require("hparams", name, self.manifest.hparams)
            hparam = self.manifest.hparams[name]
            try:
                values[name] = hparam.parse(text)
                problem = hparam.problem_with(values[name])
            except ValueError:
                problem = f"{text!r} is not a {type(hparam.default).__name__}"
            if problem:
                raise UserError(f"--set {name}: {problem}", f"see [hparams.{name}] in {self.folder}/submission.toml")
        return values

    def snapshot(self, target: Path) -> None:
        """Writes the validated files to a new folder, read-only."""
        for name, content in self.files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)

    def _require(self, section: str, name: str, table: dict[str, Any]) -> None:
        if name not in table:
            known = ", ".join(sorted(table)) or "none"
            raise UserError(f"{self.folder}/submission.toml: no [{section}.{name}]", f"use a declared name: {known}")


def load_submission(folder: Path, task_override: Task | None = None, checked: str | None = None) -> Submission:
    """Reads and validates a submission folder. Raises UserError that names the file and the field.

    `checked`: the digest of a source that was validated before; files that still have it are not parsed again.
    """
    submission, refusals = inspect_submission(folder, task_override, checked)
    if submission is None:
        raise refusals[0]
    return submission


def inspect_submission(
    folder: Path, task_override: Task | None = None, checked: str | None = None
) -> tuple[Submission | None, list[Refusal]]:
    """A submission, or everything that is wrong with its folder. Raises UserError where there is no such folder."""
    path = folder / "submission.toml"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such submission folder", "give a folder with submission.toml and train.py")
    try:
        manifest = _read_manifest(path)
        task = task_override or load_task(manifest.task)
    except UserError as error:
        return None, [Refusal("manifest", error.message, error.remedy)]  # without a task there are no caps
    caps = min(task.caps.values(), key=lambda caps: caps.source_bytes)
    files, refusals = _read_files(folder, caps)
    digest = folder_digest(files)
    if refusals or digest != checked:
        refusals += _wrong_sources(folder, files, caps)
    refusals += _wrong_shapes(path, manifest.evaluation, task)
    if refusals:
        return None, refusals
    return Submission(folder.resolve(), manifest, task, files, digest), []


def _read_manifest(path: Path) -> Manifest:
    table, _ = read_toml(path, MAX_MANIFEST_BYTES)
    try:
        return Manifest(**table)
    except RecursionError:
        raise UserError(f"{path}: nested too deeply", "write plain tables") from None
    except ValidationError as error:
        raise describe_validation(error, path, "correct the named fields") from None


def folder_digest(files: dict[str, bytes]) -> str:
    """sha256 over names and contents in order of name; modes, times and line ends do not count."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{len(name.encode())} {name} {len(files[name])}\n".encode())
        total.update(files[name])
    return total.hexdigest()


def _wrong_shapes(path: Path, shape: EvaluationShape, task: Task) -> list[Refusal]:
    limits = task.evaluation
    refusals = []
    if shape.length > limits.max_length:
        message = f"{path}: evaluation.length is {shape.length:,}"
        refusals.append(Refusal("evaluation-shape", message, f"the task allows at most {limits.max_length:,}"))
    if shape.batch * shape.length > limits.max_batch_tokens:
        message = f"{path}: evaluation.batch x evaluation.length is {shape.batch * shape.length:,} tokens"
        refusals.append(Refusal("evaluation-shape", message, f"the task allows at most {limits.max_batch_tokens:,}"))
    return refusals


def _read_files(folder: Path, caps: Caps) -> tuple[dict[str, bytes], list[Refusal]]:
    """The contents by relative path, line ends made LF, and what is wrong with the files. Nothing too large is read."""
    files: dict[str, bytes] = {}
    refusals: list[Refusal] = []
    room = caps.source_bytes
    paths = _walk(folder)
    if len(paths) > MAX_FILES:
        return {}, [Refusal("files", f"{folder}: more than {MAX_FILES} files", "make it smaller")]
    for path in paths:
        name = path.relative_to(folder).as_posix()
        refusal = _wrong_kind(path, name)
        if refusal is not None:
            refusals.append(refusal)
            continue
        try:
            content = read_file(path, room, "make it smaller", follow_link=False)
        except UserError as error:
            message = f"{error.message} (all files together: {caps.source_bytes:,} bytes of source)"
            refusals.append(Refusal("source-size", message, error.remedy))
            break
        room -= len(content)
        files[name] = content.replace(b"\r\n", b"\n")
    if not (folder / "train.py").exists() or (folder / "train.py").is_dir():
        refusals.append(Refusal("files", f"{folder}/train.py: no such file", "every submission has a train.py"))
    return files, refusals


def _wrong_kind(path: Path, name: str) -> Refusal | None:
    """What is wrong with a file before its content is looked at."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return Refusal("files", f"{path.parent}/{path.name!a}: a name that is not UTF-8", "rename the file")
    if not stat.S_ISREG(path.lstat().st_mode):
        return Refusal("files", f"{path}: not a regular file", "keep plain files only, no links")
    if path.suffix not in SUFFIXES:
        message = f"{path}: not a kind of file a submission may hold"
        return Refusal("files", message, f"allowed: {', '.join(SUFFIXES)}")
    return None


def _wrong_sources(folder: Path, files: dict[str, bytes], caps: Caps) -> list[Refusal]:
    refusals = []
    literals = 0
    for name, content in files.items():
        if not name.endswith(".py"):
            continue
        longest = max(len(line) for line in content.split(b"\n"))
        if longest > caps.line_bytes:
            message = f"{folder / name}: a line of {longest:,} bytes"
            refusals.append(Refusal("line-length", message, f"the task allows {caps.line_bytes:,}: break it up"))
        try:
            nodes = ast.walk(ast.parse(content.decode()))
            literals += sum(isinstance(n, ast.Constant) and isinstance(n.value, int | float | complex) for n in nodes)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            refusals.append(Refusal("valid-python", f"{folder / name}: not valid Python: {error}", "correct the file"))
    if literals > caps.numeric_literals:
        message = f"{folder}: more than {caps.numeric_literals} numeric literals ({literals:,})"
        refusals.append(Refusal("numeric-literals", message, "compute, do not list"))
    return refusals


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in IGNORED)
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        found += [Path(base) / name for name in sorted([*names, *links]) if name not in IGNORED]
        if len(found) > MAX_FILES:
            break  # too many already, however many more
    return found
