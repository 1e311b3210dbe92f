"""Every rule of the check, with a small submission that breaks it and an honest twin that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checks.check import Checker, Result
from harness.checks.rules import CONTRIBUTING, RULES, with_table
from harness.checks.runs import Trial, Trials
from harness.core.failures import Failure
from harness.core.plan import Outcome
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import BASELINES, SUBMISSIONS
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, SCRIPT, write_submission

OPTIMIZER = 'optimizer = torch.optim.SGD(model.parameters(), lr=run.hparam("lr"), momentum=momentum)'
SECOND_METHOD = """
[methods.scaled]
kind = "initialization"
summary = "Scales the table."
source = "tests"

[hparams.scale]
default = 2.0
low = 0.5
high = 4.0
of = "scaled"
"""


def changed(text: str, *replacements: tuple[str, str]) -> str:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


def check(toy: Toy, folder: Path, rule: str, script: str = SCRIPT, manifest: str = MANIFEST) -> Result:
    """The result of one rule; what comes after it is not run. Every rule before it must pass."""
    if not folder.exists():
        write_submission(folder, script, manifest)
    for result in Checker(folder, toy.task, "cpu-1thread").results():
        if result.rule.id == rule:
            return result
        assert not result.failures or result.rule.stage == "files", result
    raise AssertionError(f"no result of rule {rule}")


def said(result: Result) -> str:
    return "\n".join(finding.message for finding in result.failures)


# Stage files


@pytest.mark.parametrize(
    ("rule", "name", "content"),
    [
        ("manifest", "submission.toml", MANIFEST.replace("title", "titel")),
        ("files", "weights.npy", "\x93NUMPY"),
        ("source-size", "big.py", ("# " + "y" * 98 + "\n") * 700),
        ("line-length", "train.py", SCRIPT + "# " + "y" * 3000),
        ("valid-python", "train.py", "def (:\n"),
        ("numeric-literals", "table.py", "x = [" + "1,\n" * 600 + "]\n"),
        ("evaluation-shape", "submission.toml", MANIFEST.replace("length = 32", "length = 129")),
    ],
)
def test_a_folder_that_breaks_a_rule(toy: Toy, tmp_path: Path, rule: str, name: str, content: str) -> None:
    folder = write_submission(tmp_path / "bad")
    (folder / name).write_text(content)
    assert check(toy, folder, rule).status == "FAILED"


def test_all_failures_of_a_stage_are_reported_and_later_stages_skipped(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bad", SCRIPT + "# " + "y" * 3000)
    (folder / "weights.npy").write_bytes(b"\x93NUMPY")
    results = list(Checker(folder, toy.task, "cpu-1thread").results())
    assert [result.rule.id for result in results] == [rule.id for rule in RULES]
    assert {result.rule.id for result in results if result.failures} == {"files", "line-length"}
    assert all(result.status == "skipped" for result in results if result.rule.stage != "files")


def test_an_unreadable_manifest_leaves_the_other_rules_open(toy: Toy, tmp_path: Path) -> None:
    result = check(toy, write_submission(tmp_path / "bad", manifest="task = ["), "numeric-literals")
    assert result.status == "skipped"


# Stage source


@pytest.mark.parametrize(
    "line",
    [
        "import socket",
        "def f():\n    import pickle",
        "import os.path",
        "from urllib.request import urlopen",
        "try:\n    import ctypes\nexcept ImportError:\n    pass",
    ],
)
def test_a_module_that_the_task_does_not_allow(toy: Toy, tmp_path: Path, line: str) -> None:
    result = check(toy, tmp_path / "bad", "imports", SCRIPT + line)
    assert line.split("import ")[-1].split()[0].split(".")[0] in said(result) or "urllib" in said(result)
    assert "harness, torch" in result.failures[0].remedy


def test_own_modules_and_packages_may_be_imported(toy: Toy, tmp_path: Path) -> None:
    script = "import torch.nn.functional\nfrom parts import table\nimport rates\n" + SCRIPT
    folder = write_submission(tmp_path / "good", script)
    (folder / "rates.py").write_text("import math\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "table.py").write_text("from . import other\nfrom .other import x\n")
    (folder / "parts" / "other.py").write_text("x = 1\n")
    assert check(toy, folder, "imports").status == "ok"


def test_an_own_module_must_not_hide_an_allowed_one(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bad")
    (folder / "math.py").write_text("pi = 3\n")
    assert "hides" in said(check(toy, folder, "imports"))


@pytest.mark.parametrize(
    "line",
    [
        'exec("x = 1")',
        'eval("1")',
        'compile("1", "", "eval")',
        '__import__("math")',
        'open("x")',
        "torch.load('x')",
        "from torch import hub",
        "import torch.hub",
    ],
)
def test_code_made_at_run_time(toy: Toy, tmp_path: Path, line: str) -> None:
    result = check(toy, tmp_path / "bad", "no-dynamic-code", SCRIPT + f"def f():\n    {line}\n")
    assert f"train.py:{SCRIPT.count(chr(10)) + 2}" in said(result)


def test_compiling_a_model_is_no_dynamic_code(toy: Toy, tmp_path: Path) -> None:
    twin = SCRIPT + "def f(model, compile):\n    return torch.compile(model.eval()) if compile else model\n"
    assert check(toy, tmp_path / "good", "no-dynamic-code", twin).status == "ok"


@pytest.mark.parametrize("call", ['run.uses("muon")', 'run.hparam("momentum")'])
def test_a_name_that_is_not_declared(toy: Toy, tmp_path: Path, call: str) -> None:
    assert "has no table" in said(check(toy, tmp_path / "bad", "declared", SCRIPT + f"def f(run):\n    {call}\n"))


@pytest.mark.parametrize("line", ["main()", 'print("hello")', "run = harness.connect()"])
def test_work_at_import_is_seen_in_the_source(toy: Toy, tmp_path: Path, line: str) -> None:
    assert "train.py:" in said(check(toy, tmp_path / "bad", "main-guard", SCRIPT + line))


# Stage build


def test_an_import_that_fails_is_told_from_a_build_that_fails(toy: Toy, tmp_path: Path) -> None:
    needs_gpu = SCRIPT + 'DEVICE = torch.zeros(1, device="cuda")\n'
    assert "cuda" in said(check(toy, tmp_path / "gpu", "import-safe", needs_gpu)).lower()
    crashes = changed(SCRIPT, ("    torch.manual_seed(run.seed)\n", "    1 / 0\n"))
    assert "ZeroDivisionError" in said(check(toy, tmp_path / "crash", "build", crashes))


def test_a_build_that_is_not_there(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("def build_model", "def make_model"), ("= build_model", "= make_model"))
    assert "build_model" in said(check(toy, tmp_path / "bad", "build", script))


def test_a_build_that_differs(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("    torch.manual_seed(run.seed)\n", "    torch.seed()\n"))
    assert "differ" in said(check(toy, tmp_path / "bad", "deterministic-build", script))


def test_a_build_that_ignores_the_seed(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("torch.manual_seed(run.seed)", "torch.manual_seed(1)"))
    assert "same weights" in said(check(toy, tmp_path / "bad", "seed-matters", script))


def test_printing_is_a_warning(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("    torch.manual_seed(run.seed)\n", "    torch.manual_seed(run.seed); print('built')\n"))
    result = check(toy, tmp_path / "loud", "import-safe", script)
    assert result.status == "ok"
    assert "built" in result.warnings[0]


# Stage dry run


def test_weights_that_change_before_the_start(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("    run.start(model)", "    model.table.weight.data += 1\n    run.start(model)"))
    assert "fresh process" in said(check(toy, tmp_path / "bad", "start-weights", script))


def test_a_dry_run_that_crashes(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("        loss.backward()", "        loss.backwards()"))
    result = check(toy, tmp_path / "bad", "dry-run", script)
    assert "crash" in said(result)
    assert "backwards" in said(result)


def test_an_optimizer_that_does_nothing(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("        optimizer.step()\n", ""))
    assert "no parameter" in said(check(toy, tmp_path / "bad", "trains", script))


@pytest.mark.slow
def test_many_reads_a_step_still_train(toy: Toy, tmp_path: Path) -> None:
    script = changed(SCRIPT, ("        optimizer.step()\n", "        if step % 8 == 7: optimizer.step()\n"))
    assert check(toy, tmp_path / "good", "trains", script).status == "ok"


def test_a_failed_audit_has_a_rule_of_its_own(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(state="FAILED", reason=Failure.AUDIT, message="it reads ahead")
    monkeypatch.setattr(Trials, "dry_run", lambda *_: Trial(outcome, 0))
    folder = tmp_path / "bad"
    assert said(check(toy, folder, "audit")) == "it reads ahead"
    assert check(toy, folder, "dry-run").status == "ok"
    assert check(toy, folder, "trains").status == "skipped"


# Stage drops


def test_the_toy_passes_and_so_does_a_method_with_its_own_hyperparameter(toy: Toy, tmp_path: Path) -> None:
    script = changed(
        SCRIPT,
        ("    return Bigram(run.task.vocab_size)", "    model = Bigram(run.task.vocab_size)\n"
         '    if run.uses("scaled"):\n        model.table.weight.data *= run.hparam("scale")\n    return model'),
    )  # fmt: skip
    folder = write_submission(tmp_path / "good", script, MANIFEST + SECOND_METHOD)
    results = list(Checker(folder, toy.task, "cpu-1thread").results())
    assert [result.status for result in results] == ["ok"] * len(RULES), results


def test_a_method_that_cannot_be_dropped(toy: Toy, tmp_path: Path) -> None:
    script = changed(
        SCRIPT,
        ("    inputs, targets = run.synthetic", '    assert run.uses("scaled")\n    inputs, targets = run.synthetic'),
    )
    result = check(toy, tmp_path / "bad", "droppable", script, MANIFEST + SECOND_METHOD)
    assert "without scaled: crash" in said(result)


@pytest.mark.parametrize(
    ("otherwise", "status", "expected"),
    [
        ("optimizer = None", "FAILED", "crash"),
        pytest.param(
            "optimizer = torch.optim.SGD(model.parameters(), lr=0.0)",
            "FAILED",
            "no parameter has changed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'raise harness.errors.UserError("no optimizer is left")',
            "ok",
            "no optimizer is left",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_left_without_the_optimizer(
    toy: Toy, tmp_path: Path, otherwise: str, status: str, expected: str
) -> None:
    script = changed(
        SCRIPT,
        ("import harness\n", "import harness.errors\n"),
        (OPTIMIZER, f'lr = run.hparam("lr")\n    {OPTIMIZER}\n    if not run.uses("momentum"):\n        {otherwise}'),
    )
    result = check(toy, tmp_path / "submission", "optimizer-left", script)
    assert result.status == status
    assert expected in said(result) + result.note


def test_a_name_that_nothing_reads(toy: Toy, tmp_path: Path) -> None:
    unread = MANIFEST + SECOND_METHOD.replace("[methods.scaled]", "[methods.scaled]\ndefault = false")
    result = check(toy, tmp_path / "bad", "consulted", manifest=unread)
    assert "[methods.scaled]" in said(result)
    assert "hparams.scale" not in said(result)  # its method is off, so nothing can ask for it
    assert "scale" in result.note


# The table, and the submissions of this repository


def test_contributing_has_the_rules_as_they_are() -> None:
    text = CONTRIBUTING.read_text()
    assert with_table(text) == text, "run: python -m harness.checks.rules"


def test_a_text_without_the_markers_is_an_error() -> None:
    with pytest.raises(UserError, match="markers"):
        with_table("# Contributing")


def test_rules_have_ids_of_their_own_and_say_everything() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.what and rule.why and rule.remedy and rule.stage for rule in RULES)


@pytest.mark.slow
def test_settings_hold_for_builds_and_dry_runs(toy: Toy, tmp_path: Path) -> None:
    script = SCRIPT.replace("torch.manual_seed(run.seed)", "torch.manual_seed(run.seed); assert run.hparam('lr') == 3")
    folder = write_submission(tmp_path / "set", script)
    as_declared = {result.rule.id for result in Checker(folder, toy.task, "cpu-1thread").results() if result.failures}
    assert as_declared == {"build"}
    results = list(Checker(folder, toy.task, "cpu-1thread", settings=["lr=3"]).results())
    assert [result.rule.id for result in results if result.failures] == []


@pytest.mark.parametrize("folder", [SUBMISSIONS / "_template", BASELINES / "adamw" / "gcide"])
def test_the_submissions_of_this_repository_pass(folder: Path) -> None:
    results = list(Checker(folder, load_task("gcide"), "cpu-1thread").results())
    assert not [result for result in results if result.failures]
    assert not [warning for result in results for warning in result.warnings]
