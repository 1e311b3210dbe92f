"""`speedrun check`: a submission against every rule, in stages from cheap to dear."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checks import source
from harness.checks.packed import packed_data, texts_of_source
from harness.checks.rules import BY_ID, RULES, Rule
from harness.checks.runs import DRY_STEPS, Trial, Trials
from harness.core.failures import Failure
from harness.core.owned import PREFIX, TemporaryFolder
from harness.core.task import Task, hardware_class
from harness.run_folder import clean_up
from harness.submission import Submission, inspect_submission

SHOWN_LINES = 3
NO_OPTIMIZER = "UserError: no optimizer is left"


@dataclass(frozen=True)
class Finding:
    """One place where a rule is broken, or that deserves a look; a remedy where the rule's own is not enough."""

    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Result:
    """What the check says about one rule: it failed where there are failures, was skipped where `skipped` says why."""

    rule: Rule
    failures: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    note: str = ""
    skipped: str = ""
    seconds: float = 0.0

    @property
    def status(self) -> str:
        if self.failures:
            return "FAILED"
        return "skipped" if self.skipped else "ok"


class Checker:
    """Checks one submission; `on_start` is told what begins, for whoever waits."""

    def __init__(
        self, folder: Path, task: Task | None, hardware: str, on_start: Callable[[str], None] = lambda text: None,
        settings: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`settings` are those of --set: values at which it is built and run instead of the declared ones."""
        self._settings = settings
        self._folder = folder
        self._task = task
        self._hardware = hardware_class(hardware)
        self._on_start = on_start
        self.submission: Submission | None = None

    def results(self) -> Iterator[Result]:
        """One result a rule, in order. After a stage with failures the other stages are skipped."""
        seen: set[str] = set()
        failed = ""
        clean_up()
        with TemporaryFolder(f"{PREFIX}check-") as self._temporary:
            for stage in (self._files, self._source, self._builds, self._dry_run, self._drops):
                began = time.monotonic()
                for result in stage():
                    seen.add(result.rule.id)
                    failed = failed or (result.rule.stage if result.failures else "")
                    yield replace(result, seconds=round(time.monotonic() - began, 3))
                    began = time.monotonic()
                if failed:
                    break
        for rule in RULES:
            if rule.id not in seen:
                yield Result(rule, skipped=f"a rule of the stage {failed!r} failed")

    # Files and source

    def _files(self) -> Iterator[Result]:
        self.submission, refusals = inspect_submission(self._folder, self._task)
        unread = any(refusal.rule == "manifest" for refusal in refusals)
        for rule in RULES:
            if rule.stage == "files":
                failures = [Finding(r.message, r.remedy) for r in refusals if r.rule == rule.id]
                skipped = "submission.toml cannot be read" if unread and not failures else ""
                yield Result(rule, failures, skipped=skipped)

    def _source(self) -> Iterator[Result]:
        submission = self._require()
        trees = {name: ast.parse(text) for name, text in submission.files.items() if name.endswith(".py")}
        yield _failing("packed-data", _packed(submission.files))
        allowed, own = submission.task.imports, source.own_modules(submission.files)
        if allowed is None:
            yield Result(BY_ID["imports"], skipped="the task names no modules")
        else:
            hidden = [f"the own module {name!r} hides one that the task allows" for name in sorted(own & set(allowed))]
            foreign = _each(trees, lambda name, tree: source.foreign_imports(name, tree, allowed, own))
            yield _failing("imports", [*hidden, *foreign], f"allowed: {', '.join(allowed)}")
        yield _failing("no-dynamic-code", _each(trees, source.code_made_at_run_time))
        manifest = submission.manifest
        yield _failing("declared", _each(trees, lambda name, tree: source.undeclared_names(name, tree, manifest)))
        yield _failing("main-guard", source.does_its_work_when_imported(trees["train.py"]))

    # Builds and dry runs

    def _builds(self) -> Iterator[Result]:
        self._on_start("building the model in three fresh processes")
        self._trials = Trials(self._require(), self._hardware, self._temporary, settings=self._settings)
        first, again, other = builds = self._trials.builds()
        failed = next((build for build in builds if build.failure), None)
        importing = failed is not None and "in import_submission" in failed.output
        failures = [failed.failure] if failed else []
        prints = [f"importing or building prints: {line}" for line in first.output.splitlines()[:SHOWN_LINES]]
        yield Result(
            BY_ID["import-safe"],
            [Finding(text) for text in failures if importing],
            warnings=[] if failed else prints,
        )
        yield _failing("build", [] if importing else failures, skipped=_unless(importing))
        different = [] if failed or first.digest == again.digest else ["two builds of one seed differ"]
        yield _failing("deterministic-build", different, skipped=_unless(failed))
        same = [] if failed or first.digest != other.digest else ["two seeds give the same weights"]
        yield _failing("seed-matters", same, skipped=_unless(failed))

    def _dry_run(self) -> Iterator[Result]:
        self._on_start(f"dry run of {DRY_STEPS} steps on made-up data")
        trial = self._trials.training_run([])
        reason = trial.outcome.reason
        changed = reason is Failure.WEIGHTS_CHANGED
        yield _failing("start-weights", [trial.outcome.message] if changed else [])
        other = reason not in (None, Failure.WEIGHTS_CHANGED, Failure.AUDIT)
        yield _failing("dry-run", [_why(trial)] if other else [], skipped=_unless(changed))
        idle = trial.judged and trial.changed_parameters == 0
        skipped = "" if trial.judged else "the dry run was not judged"
        yield _failing("trains", ["no parameter has changed"] if idle else [], skipped=skipped)
        audited = reason is Failure.AUDIT
        yield _failing("audit", [trial.outcome.message] if audited else [], skipped="" if audited else skipped)

    def _drops(self) -> Iterator[Result]:
        methods = self._require().manifest.methods
        on = [name for name, method in methods.items() if method.default]
        off = [name for name in methods if name not in on]
        optimizers = [name for name in on if methods[name].kind == "optimizer"]
        failures = []
        single = [name for name in on if optimizers != [name]]  # the only optimizer is the next rule's
        for name in single:
            self._on_start(f"dry run without {name}")
            trial = self._trials.dry_run([name])
            if not trial.judged:
                failures.append(f"without {name}: {_why(trial)}")
        note = f"off by default, so not tried: {', '.join(off)}" if off else ""
        skipped = "" if single else "no method to drop by itself"
        yield Result(BY_ID["droppable"], [Finding(text) for text in failures], note=note, skipped=skipped)
        yield self._optimizer_left(optimizers)
        yield self._consulted(off)

    def _optimizer_left(self, optimizers: list[str]) -> Result:
        if not optimizers:
            return Result(BY_ID["optimizer-left"], skipped="no method of kind optimizer is on by default")
        without = f"without {' and '.join(optimizers)}"
        self._on_start(f"dry run {without}")
        trial = self._trials.training_run(optimizers)
        if trial.outcome.reason is Failure.CRASH and NO_OPTIMIZER in trial.outcome.message:
            return Result(BY_ID["optimizer-left"], note=f"{without} the script says that no optimizer is left")
        if not trial.judged:
            return _failing("optimizer-left", [f"{without}: {_why(trial)}"])
        idle = trial.changed_parameters == 0
        return _failing("optimizer-left", [f"{without} no parameter has changed"] if idle else [])

    def _consulted(self, off: list[str]) -> Result:
        manifest = self._require().manifest
        exempt = [name for name, hparam in manifest.hparams.items() if hparam.of in off]
        declared = {f"methods.{name}" for name in manifest.methods}
        declared |= {f"hparams.{name}" for name in manifest.hparams if name not in exempt}
        never = [
            f"[{name}] is declared, but no dry run asks for it" for name in sorted(declared - self._trials.consulted)
        ]
        note = f"of methods that are off by default, so not looked at: {', '.join(exempt)}" if exempt else ""
        return Result(BY_ID["consulted"], [Finding(text) for text in never], note=note)

    def _require(self) -> Submission:
        assert self.submission is not None  # the stage `files` has passed
        return self.submission


def _failing(rule: str, messages: Iterable[str], remedy: str = "", skipped: str = "") -> Result:
    return Result(BY_ID[rule], [Finding(message, remedy) for message in messages], skipped=skipped)


def _unless(failed: object) -> str:
    return "a rule before it failed" if failed else ""


def _why(trial: Trial) -> str:
    return f"{trial.outcome.reason}: {trial.outcome.message}"


def _each(trees: dict[str, ast.Module], look: Callable[[str, ast.Module], Iterable[str]]) -> list[str]:
    return [found for name, tree in trees.items() for found in look(name, tree)]


def _packed(files: dict[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        text = content.decode("utf-8", "replace")
        texts = texts_of_source(text) if name.endswith(".py") else {"text": text}
        for kind, part in texts.items():
            said = packed_data(kind, part)
            if said:
                yield f"{name}, {kind}: {said}"
