"""`speedrun doctor`: what this machine has and lacks, each lack with its remedy. Imports no torch."""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from harness.cli import output
from harness.cli.options import DATA_DIR, DataDir, Json
from harness.paths import TASKS

if TYPE_CHECKING:
    from harness.core.sandbox import SandboxProbe
    from harness.machine import Load, Machine

NEEDED_PACKAGES = ("torch", "numpy", "tiktoken", "safetensors")
# Each of these, where a kernel has it, can forbid the user namespaces bubblewrap is made of.
NAMESPACE_SYSCTLS = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "10000"),
}
# Of drivers the least that runs programs of a CUDA version; from NVIDIA's release notes of the toolkit.
LEAST_DRIVER = {"12": 525, "13": 580}
WARNING_SUBJECT = {
    "machine-busy": "load",
    "swapping": "memory",
    "low-memory": "memory",
    "other-processes-on-gpu": "GPU",
    "clock-skew": "clock",
    "governor-not-performance": "governor",
    "few-cores": "CPU",
}
STYLE = {"ok": "green", "warning": "yellow", "missing": "red"}


@dataclass(frozen=True)
class Check:
    """One row. `needed` marks what no run can do without: missing, it makes the exit code 1."""

    status: Literal["ok", "warning", "missing"]
    subject: str
    found: str
    remedy: str = ""
    needed: bool = False


def doctor(json: Json = False, data_dir: DataDir = DATA_DIR) -> None:
    """Say what this machine can run, what disturbs it and what it lacks, with remedies."""
    from harness.core import sandbox
    from harness.machine import fingerprint, hardware_classes, sample_load

    machine, load, probe = fingerprint(), sample_load(), sandbox.probe()
    checks = [
        *machine_checks(machine, load),
        *package_checks(machine),
        *compiler_checks(with_gpu=bool(machine.gpus)),
        sandbox_check(probe),
        *data_checks(data_dir),
        wandb_check(),
    ]
    ok = not any(check.needed and check.status == "missing" for check in checks)
    if json:
        report = {
            "ok": ok,
            "classes": hardware_classes(machine),
            "trust": probe.level,
            "rung": probe.rung,
            "machine": machine.to_json(),
            "load": asdict(load),
            "checks": [asdict(check) for check in checks],
        }
        output.as_json(report)
    else:
        _print(checks)
    if not ok:
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    width = max(len(check.subject) for check in checks)
    for check in checks:
        output.line(f"{check.status:8} {check.subject:{width}}  {check.found}", STYLE[check.status])
        if check.remedy:
            output.line(f"{'':8} {'':{width}}  remedy: {check.remedy}")


def machine_checks(machine: Machine, load: Load) -> list[Check]:
    """Hardware and what it is doing, judged by the warnings that the largest class here would get."""
    from harness.core.task import hardware_class
    from harness.machine import hardware_classes
    from harness.machine_warnings import size, warnings_before_run

    classes = hardware_classes(machine)
    kind = {True: ", virtual machine", False: "", None: ""}[machine.virtual]
    gpus = ", ".join(f"{gpu.name}{' (in MIG slices)' if gpu.split else ''}" for gpu in machine.gpus)
    drivers = sorted({gpu.driver for gpu in machine.gpus})
    swap = f", {size(load.swap_used_bytes)} of swap in use" if load.swap_used_bytes else ""
    clock = {True: "synchronized", False: "not synchronized", None: "not readable"}[load.clock_synchronized]
    average = " ".join(f"{value:.2f}" for value in load.average)
    facts = {
        "class": ", ".join(classes),
        "CPU": f"{machine.cpu}, {machine.allowed_cores} of {machine.logical_cores} cores usable{kind}",
        "GPU": f"{gpus}, driver {', '.join(drivers)}" if gpus else "none, so only CPU classes",
        "memory": f"{size(machine.memory_bytes)}, {size(load.free_bytes)} free{swap}",
        "load": f"{load.other_cores:.2f} cores in use by others; average {average}",
        "governor": machine.governor or "not readable",
        "clock": clock,
    }
    found: dict[str, list[Check]] = {subject: [] for subject in facts}
    for warning in warnings_before_run(machine, load, hardware_class(classes[-1])):
        subject = WARNING_SUBJECT[warning.id]
        found[subject].append(Check("warning", subject, warning.text, warning.remedy))
    if machine.gpus and machine.cuda_build is None:
        remedy = "install the CUDA build of torch: https://pytorch.org/get-started/locally"
        found["GPU"].append(Check("warning", "GPU", f"{gpus}, but torch is built without CUDA", remedy))
    least = LEAST_DRIVER.get((machine.cuda_build or "").partition(".")[0], 0)
    if any(number.isdigit() and int(number) < least for number in (driver.partition(".")[0] for driver in drivers)):
        text = f"driver {', '.join(drivers)}: too old for torch's CUDA {machine.cuda_build}"
        remedy = f"install driver {least} or newer, or a torch built for an older CUDA"
        found["GPU"].append(Check("warning", "GPU", text, remedy))
    return [check for subject, text in facts.items() for check in (found[subject] or [Check("ok", subject, text)])]


def package_checks(machine: Machine) -> list[Check]:
    """Python and the packages no run can do without."""
    versions = machine.packages
    build = {"torch": f", built for CUDA {machine.cuda_build}" if machine.cuda_build else ", built without CUDA"}
    checks = [Check("ok", "python", machine.python)]
    for name in NEEDED_PACKAGES:
        if util.find_spec(name) is None:
            checks.append(Check("missing", name, "not installed", "make install", needed=True))
        else:
            version = versions.get(name, "unknown version") + build.get(name, "")
            checks.append(Check("ok", name, version, needed=True))
    return checks


def compiler_checks(with_gpu: bool) -> list[Check]:
    """What torch.compile builds its kernels with: a C++ compiler; C and Python.h for Triton, which judges on a GPU."""
    install = install_command("g++ python3-dev", "gcc-c++ python3-devel")
    remedy = f"needed {'to judge on a GPU, and' if with_gpu else 'only'} for torch.compile: {install}"
    cplusplus = ("C++ compiler", "CXX", ["g++", "clang++"])
    wanted = [cplusplus, ("C compiler", "CC", ["gcc", "clang", "cc"])] if with_gpu else [cplusplus]
    checks = []
    for subject, variable, names in wanted:
        chosen = os.environ.get(variable)
        path = next(filter(None, map(shutil.which, [chosen] if chosen else names)), None)
        missing = f"{chosen} (from ${variable}) not found" if chosen else f"none of {', '.join(names)} found"
        checks.append(Check("ok", subject, path) if path else Check("missing", subject, missing, remedy))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.is_file():
        return [*checks, Check("ok", "Python.h", str(header))]
    return [*checks, Check("missing", "Python.h", f"not in {header.parent}", remedy)]


def sandbox_check(probe: SandboxProbe) -> Check:
    """The trust level runs get here, by which rung, and what lacks; `isolated` runs alone are evidence."""
    lacks = f"; lacks {', '.join(probe.lacks)}" if probe.lacks else ""
    found = f"{probe.level}, by rung {probe.rung}{lacks}"
    status: dict[str, Literal["ok", "warning", "missing"]] = {"isolated": "ok", "partial": "warning"}
    remedy = probe.remedy
    if probe.level != "isolated":
        values = {name: _sysctl(name) for name in NAMESPACE_SYSCTLS}
        here = sandbox_remedy(shutil.which("bwrap") is not None, values)
        remedy = "; or ".join(filter(None, [here or probe.remedy, probe.other_remedy]))
    return Check(status.get(probe.level, "missing"), "sandbox", found, remedy)


def sandbox_remedy(has_bubblewrap: bool, sysctls: Mapping[str, str]) -> str:
    """What makes bubblewrap work, from whether it is here and the kernel's settings; "" if unknown."""
    if platform.system() != "Linux":
        return ""
    steps = [] if has_bubblewrap else [install_command("bubblewrap", "bubblewrap")]
    for name, (forbids, allows) in NAMESPACE_SYSCTLS.items():
        if sysctls.get(name) == forbids:
            steps.append(f"sudo sysctl -w {name}={allows}")
    return "; ".join(steps)


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""


def install_command(debian: str, fedora: str) -> str:
    """How this system installs packages, by their Debian and Fedora names; both where it is neither."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    apt, dnf = f"sudo apt-get install {debian}", f"sudo dnf install {fedora}"
    if family & {"debian", "ubuntu"}:
        return apt
    return dnf if family & {"fedora", "rhel"} else f"{apt} (Debian, Ubuntu) or {dnf} (Fedora)"


def data_checks(data_dir: Path) -> list[Check]:
    """Whether each task's folder is there; `speedrun data verify` looks inside."""
    from harness.core.data.shards import prepared_shards
    from harness.core.task import load_task

    checks = []
    for path in sorted(TASKS.glob("*.toml")):
        task = load_task(path)
        folder, subject = task.data_folder(data_dir), f"data {path.stem}"
        there = prepared_shards(task, folder)
        is_ready = any(shard.split == "train" for shard in there) if task.hub else folder.is_dir()
        if is_ready and any(folder.iterdir()):
            count = f", {len(there)} of {len(task.shards)} shards" if task.hub else ""
            checks.append(Check("ok", subject, f"{folder}{count}"))
        else:
            first = "" if task.hub is None or task.revision else f"speedrun data lock {path.stem}, then "
            checks.append(Check("missing", subject, "not prepared", f"{first}speedrun data prepare {path.stem}"))
    return checks


def wandb_check() -> Check:
    """The optional mirror of the log."""
    if util.find_spec("wandb"):
        return Check("ok", "wandb", "installed")
    return Check("missing", "wandb", "not installed; runs do not need it", "pip install wandb")
