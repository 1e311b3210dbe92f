"""Own records of these tests are filed by the real commands, over runs that cost nothing; a whole site of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.checks import check
from harness.cli import campaigns
from harness.core.sandbox import SandboxProbe
from harness.evidence import attempts
from harness.submission import load_submission
from harness.tuning.report import Report
from harness.tuning.tune import Tuning
from leaderboard import site
from leaderboard.baseline import Baseline, baselines
from tests.conftest import Toy
from tests.evidence.board import Board
from tests.evidence.conftest import board, chain, own_machine_lock
from tests.leaderboard.browser import CHROMIUM, MISSING, Browser
from tests.toy_submission import SCRIPT
from tests.tuning.made_up import run_made_up
from tests.tuning.test_report import copy_of_baseline

__all__ = ["board", "chain", "own_machine_lock"]

METHOD = """[methods.{0}]
kind = "architecture"
summary = "Does {0}."
source = "a paper"

"""


def with_methods(*names: str) -> dict[str, str]:
    """What to change in the toy's manifest so that it declares these methods too."""
    return {"[hparams.steps]": "".join(METHOD.format(name) for name in names) + "[hparams.steps]"}


@pytest.fixture(scope="session")
def raced(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Three records, a slower attempt and a verification."""
    made = Board(toy, tmp_path_factory.mktemp("raced"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaigns, "run_once", lambda request, on_event: made.runner(request))
        patch.setattr(check.Checker, "results", lambda self: iter(()))
        patch.setattr(attempts, "probe", lambda: SandboxProbe("isolated"))
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("lock")))
        made.submit(made.submission("adamw", 1.0))
        made.submit(made.submission("rope", 0.8, SCRIPT + "# rope\n", **with_methods("rope")))
        made.submit(made.submission("slow", 1.2))
        made.submit(made.submission("smear", 0.7, SCRIPT + "LAST = 1\n", **with_methods("rope", "smear")))
        assert made.invoke("verify", "toy/cpu-1thread/003", "--first").exit_code == 0
    return made


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> list[Baseline]:
    """The baseline of gcide with made-up trials of its whole protocol and the report on them."""
    folder = tmp_path_factory.mktemp("adamw")
    submission = copy_of_baseline(folder / "gcide")
    run_made_up(Tuning(load_submission(submission)), folder / "search.log")
    Report(Tuning(load_submission(submission))).write()
    return baselines(folder)


@pytest.fixture(scope="session")
def whole_site(raced: Board, tuned: list[Baseline], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything that one can have: own and imported records, attempts, a tuned and an untuned baseline."""
    content = site.read(raced.where.records)
    untuned = [one for one in content.baselines if one.task != "gcide"]
    out = tmp_path_factory.mktemp("whole")
    site.build(out, dataclasses.replace(content, baselines=[*tuned, *untuned]))
    return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; tests that need it are skipped where it is missing."""
    if CHROMIUM is None:
        pytest.skip(MISSING)
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()
