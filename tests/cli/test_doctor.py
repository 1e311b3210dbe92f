"""`speedrun doctor` names each lack with a remedy and fails only for what no run can do without."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import types
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from harness.cli import doctor as verb
from harness.cli.doctor import (
    Check,
    compiler_checks,
    data_checks,
    install_command,
    machine_checks,
    sandbox_check,
    sandbox_remedy,
)
from harness.machine import Gpu, fingerprint, sample_load
from harness.paths import TASKS


@dataclass
class FakeProbe:
    level: str
    lacks: list[str] = field(default_factory=list)
    remedy: str = ""
    rung: str = "bubblewrap"
    other_remedy: str = ""


app = typer.Typer()
app.command()(verb.doctor)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for harness.core.sandbox whose answer a test sets."""
    module = types.ModuleType("harness.core.sandbox")
    module.probe = lambda: FakeProbe("isolated")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harness.core.sandbox", module)
    core = importlib.import_module("harness.core")
    monkeypatch.setattr(core, "sandbox", module, raising=False)
    return module


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name in packages else find(name, package),
    )


def report(*arguments: str) -> tuple[Result, dict[str, dict]]:
    result = CliRunner().invoke(app, ["--json", *arguments])
    return result, {check["subject"]: check for check in json.loads(result.output)["checks"]}


def test_the_report_is_one_json_object_and_passes_here(sandbox: types.ModuleType) -> None:
    result, checks = report()
    answer = json.loads(result.output)
    assert result.exit_code == 0
    assert answer["ok"] is True
    assert answer["trust"] == "isolated"
    assert "cpu-1thread" in answer["classes"]
    assert {
        "class",
        "CPU",
        "GPU",
        "memory",
        "load",
        "governor",
        "torch",
        "Python.h",
        "sandbox",
        "wandb",
    } <= set(checks)


def test_everything_not_ok_has_a_remedy(
    sandbox: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sandbox.probe = lambda: FakeProbe("open", ["bubblewrap"], "install it")
    monkeypatch.setenv("PATH", str(tmp_path))
    without(monkeypatch, "torch", "wandb")
    _, checks = report("--data-dir", str(tmp_path))
    lacking = [check for check in checks.values() if check["status"] != "ok"]
    assert {"torch", "wandb", "C++ compiler", "sandbox"} <= {check["subject"] for check in lacking}
    assert all(check["remedy"] for check in lacking)


def test_a_missing_torch_fails_the_verb(sandbox: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    result, checks = report()
    assert result.exit_code == 1
    assert checks["torch"]["status"] == "missing"


def test_a_missing_option_does_not_fail_the_verb(
    sandbox: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sandbox.probe = lambda: FakeProbe("open", ["bubblewrap"], "install it")
    without(monkeypatch, "wandb")
    result, checks = report("--data-dir", str(tmp_path))
    assert result.exit_code == 0
    assert checks["wandb"]["status"] == "missing"


def test_the_lines_for_people_show_status_and_remedy(sandbox: types.ModuleType) -> None:
    sandbox.probe = lambda: FakeProbe("partial", ["a private network"], "ask your administrator")
    result = CliRunner().invoke(app, [])
    assert "partial, by rung bubblewrap; lacks a private network" in result.output
    assert "remedy: " in result.output


@pytest.mark.parametrize(("level", "status"), [("isolated", "ok"), ("partial", "warning"), ("open", "missing")])
def test_the_sandbox_row_follows_the_trust_level(level: str, status: str) -> None:
    assert sandbox_check(FakeProbe(level, ["x"], "y")).status == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("has_bubblewrap", "sysctls", "steps"),
    [
        (True, {}, []),
        (False, {}, ["install bubblewrap"]),
        (True, {"kernel.unprivileged_userns_clone": "0"}, ["kernel.unprivileged_userns_clone=1"]),
        (
            True,
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            ["kernel.apparmor_restrict_unprivileged_userns=0"],
        ),
        (
            False,
            {"user.max_user_namespaces": "0"},
            ["install bubblewrap", "user.max_user_namespaces=10000"],
        ),
        (True, {"kernel.unprivileged_userns_clone": "1", "user.max_user_namespaces": "15000"}, []),
    ],
)
def test_the_sandbox_remedy_names_what_this_machine_needs(
    monkeypatch: pytest.MonkeyPatch, has_bubblewrap: bool, sysctls: dict[str, str], steps: list[str]
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    remedy = sandbox_remedy(has_bubblewrap, sysctls)
    assert len(remedy.split("; ")) == max(1, len(steps))
    assert all(step in remedy for step in steps)


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "sudo apt-get install bubblewrap"),
        ({"ID": "pop", "ID_LIKE": "ubuntu debian"}, "sudo apt-get install bubblewrap"),
        ({"ID": "fedora"}, "sudo dnf install bubblewrap"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "sudo dnf install bubblewrap"),
        (
            {"ID": "arch"},
            "sudo apt-get install bubblewrap (Debian, Ubuntu) or sudo dnf install bubblewrap (Fedora)",
        ),
    ],
)
def test_packages_are_installed_as_this_system_does(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], command: str
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert install_command("bubblewrap", "bubblewrap") == command


def test_a_compiler_named_in_the_environment_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_checks(with_gpu=False)[0].status == "missing"


@pytest.mark.parametrize(("driver", "old"), [("570.1", True), ("580.65", False), ("[N/A]", False)])
def test_a_driver_too_old_for_torch_is_told(driver: str, old: bool) -> None:
    gpu = Gpu("NVIDIA H100 80GB HBM3", None, driver, split=False)
    machine = replace(fingerprint(), gpus=(gpu,), cuda_build="13.0")
    (check,) = [check for check in machine_checks(machine, sample_load(0.05)) if check.subject == "GPU"]
    assert ("too old for torch's CUDA 13.0" in check.found) is old
    assert check.status == ("warning" if old else "ok")


def test_a_gpu_also_wants_a_c_compiler() -> None:
    def subjects(with_gpu: bool) -> set[str]:
        return {check.subject for check in compiler_checks(with_gpu)}

    assert subjects(True) - subjects(False) == {"C compiler"}


def test_each_task_is_prepared_or_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tmp_path / "tasks"
    data = tmp_path / "data"
    for folder in (tasks, data / "ready", data / "empty"):
        folder.mkdir(parents=True)
    for name in ("ready", "empty", "absent"):
        text = (TASKS / "gcide.toml").read_text().replace('name = "gcide"', f'name = "{name}"')
        (tasks / f"{name}.toml").write_text(text)
    (data / "ready" / "train.bin").write_text("x")
    monkeypatch.setattr(verb, "TASKS", tasks)
    checks = {check.subject: check for check in data_checks(data)}
    assert checks["data ready"].status == "ok"
    for name in ("empty", "absent"):
        assert checks[f"data {name}"] == Check(
            "missing", f"data {name}", "not prepared", f"speedrun data prepare {name}"
        )


def test_every_task_of_the_harness_has_a_row(tmp_path: Path) -> None:
    assert len(data_checks(tmp_path)) == len(list(TASKS.glob("*.toml")))
