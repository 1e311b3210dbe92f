"""The published races whose outcome was known beforehand: the report follows from what is kept of them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import ModuleType

import pytest

from harness.evidence.calibration import calibration_for
from harness.evidence.comparing import same
from harness.evidence.folder import read_campaign
from harness.evidence.race import rules_of
from harness.evidence.sides import Where
from harness.evidence.verdict import read_verdict, verdict_of
from harness.paths import ROOT
from harness.statistics import Verdict, sequential_plan
from tests.benchmark_modules import benchmark_module

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def demonstrations() -> ModuleType:
    return benchmark_module("demonstrations")


def test_the_report_is_that_of_what_is_kept(demonstrations: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    demonstrations.report()
    assert capsys.readouterr().out == (RESULTS / "demonstrations.md").read_text()


def test_what_had_to_come_out_did(demonstrations: ModuleType) -> None:
    """In the last race of each kind; of those before, one by a rule that was corrected on account of it."""
    text = (RESULTS / "demonstrations.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.split("\n## ")[0].splitlines()[1:]]
    outcomes = [(row[1], row[2], row[4]) for row in rows if len(row) > 2 and row[1] in demonstrations.RACES]
    assert {name: came for name, _, came in outcomes} == dict.fromkeys(demonstrations.RACES, "yes")
    assert [row for row in outcomes if row[2] != "yes"] == [("waste", "1", "no")]


def test_kept_verdicts_follow_from_the_runs(demonstrations: ModuleType) -> None:
    folders = sorted(path.parent for path in demonstrations.KEPT.glob("**/plan.json"))
    campaigns = {folder.name: read_campaign(folder) for folder in folders}
    differ = {name for name, found in campaigns.items() if not same(read_verdict(found), verdict_of(found))}
    assert len(folders) >= 24 and differ == {"waste-version-1"}


def test_relabelled_runs_are_records_by_chance_only(
    demonstrations: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstrations, "RELABELLINGS", 500)
    calibration, drawn = calibration_for(Where("gcide", "cpu-1thread")), random.Random(1)
    plan = replace(rules_of("cpu-1thread", sequential_plan(), calibration), minimum_ratio=1.0)
    runs = [
        demonstrations.Run(
            f"run-{number}", "0" * 64, "0" * 64, "here", number,
            90 * math.exp(drawn.gauss(0, calibration.clock_variation)), drawn.gauss(3.22, calibration.loss_spread),
            2_048_000, 0.0,
        )
        for number in range(40)
    ]  # fmt: skip
    found = demonstrations.relabelled(runs, plan, 4.0, calibration.slope)
    assert found.total() == demonstrations.RELABELLINGS
    assert found[Verdict.RECORD] <= 0.02 * found.total()
    clear = [replace(run, seconds=run.seconds / (1.5 if run.seed % 2 else 1.0)) for run in runs]
    unlike = demonstrations.relabelled(clear, plan, 4.0, calibration.slope)
    assert unlike[Verdict.NOT_PROVEN] > 0.5 * unlike.total()  # drawing the labels hides which is faster
