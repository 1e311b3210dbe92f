"""Calibration: what it plans, what it makes of runs with known noise, and what it says before a race."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import review
from harness.campaign import Request
from harness.errors import UserError
from harness.evidence import calibration as calibration_module
from harness.evidence.calibration import (
    calibrate,
    calibration_for,
    calibration_path,
    changed_since,
    plan_calibration,
    provisional_calibration,
    resolution,
    write_calibration,
)
from harness.evidence.calibration_checks import check_calibration, keep_calibration_runs
from harness.evidence.folder import Campaign, create_campaign, read_campaign
from harness.evidence.plans import CalibrationCampaign
from harness.evidence.race import plan_race
from harness.evidence.series import Places, carry_on
from harness.evidence.sides import Side, Where
from harness.paths import BASELINES
from harness.statistics import Slope, sequential_plan
from harness.submission import load_submission
from tests.conftest import Toy
from tests.evidence.fake import MACHINE, NOW, Died, FakeRunner, Given, calibration, sides
from tests.toy_submission import MANIFEST, write_submission


def new_calibration(toy: Toy, folder: Path, blocks: int) -> tuple[Campaign[CalibrationCampaign], Places]:
    submission = load_submission(write_submission(folder / "bigram"), toy.task)
    plan = plan_calibration(Side("baseline", submission), "cpu-1thread", blocks, MACHINE, NOW)
    (folder / "runs").mkdir()
    made = create_campaign(folder / "runs" / "campaigns", plan, dict.fromkeys(plan.arms, submission))
    return made, Places(toy.data_dir, folder / "runs")


def by_budget(noise: float, clock: float, drift: float = 0.0) -> Callable[[Request], Given]:
    """Loss 3.8 - 0.25 log(budget) and time in proportion, with noise drawn from the seed."""
    runs = iter(range(10_000))

    def outcome(request: Request) -> Given:
        drawn = random.Random(request.seed)
        multiple = float(request.facts["arm"][:-1])
        seconds = 10 * multiple * math.exp(drawn.gauss(0, clock) + drift * next(runs))
        return Given(None, 3.8 - 0.25 * math.log(multiple) + drawn.gauss(0, noise), seconds)

    return outcome


def test_the_plan_runs_three_budgets_each_with_its_own_schedule(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    runner = FakeRunner(by_budget(0.005, 0.003))
    carry_on(campaign, places, runner, lambda course: False)
    assert [request.facts["arm"] for request in runner.started] == ["0.7x", "1x", "1.4x", "1.4x", "1x", "0.7x"]
    assert [request.settings for request in runner.started[:3]] == [["steps=21"], ["steps=30"], ["steps=42"]]


def test_known_noise_is_found_and_a_drift_of_the_machine_is_not_noise(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 60)
    carry_on(campaign, places, FakeRunner(by_budget(0.005, 0.003, drift=0.0002)), lambda course: False)
    found = calibrate(campaign, campaign.course)
    assert found.runs == 180
    assert found.loss_spread == pytest.approx(0.005, rel=0.3)
    assert found.clock_variation == pytest.approx(0.003, rel=0.3)
    assert found.slope.nats_per_efold == pytest.approx(0.25, abs=5 * found.slope.standard_error)
    assert found.slope.degrees_of_freedom == 177
    assert found.log_ratio_spread == pytest.approx(math.sqrt(2) * math.hypot(0.003, 0.02), rel=0.3)


def test_a_calibration_is_resumed_like_any_campaign(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    runner = FakeRunner(by_budget(0.005, 0.003), deaths={1: "after the bundle", 4: "after the end"})
    for _ in range(2):
        with pytest.raises(Died):
            carry_on(read_campaign(campaign.folder), places, runner, lambda course: False)
    again = read_campaign(campaign.folder)
    carry_on(again, places, runner, lambda course: False)
    assert len(runner.judged) == len(set(runner.judged)) == 6
    assert [line.status for line in again.lines].count("killed") == 1
    assert calibrate(again, again.course).runs == 6


def test_a_baseline_that_fails_cannot_calibrate(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    carry_on(campaign, places, FakeRunner(lambda request: Given("crash")), lambda course: False)
    with pytest.raises(UserError, match=r"no judged run \(crash\)"):
        calibrate(campaign, campaign.course)


def test_too_much_noise_for_s_asks_for_more_runs(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    losses = iter([3.9, 3.8, 3.9, 3.5, 3.7, 3.8])
    carry_on(campaign, places, FakeRunner(lambda request: Given(None, next(losses))), lambda course: False)
    with pytest.raises(UserError, match="may be zero|does not fall") as raised:
        calibrate(campaign, campaign.course)
    assert "more runs" in raised.value.remedy


def test_a_submission_without_steps_has_no_budget_to_change(toy: Toy, tmp_path: Path) -> None:
    manifest = MANIFEST.replace("[hparams.steps]", "[hparams.rounds]")
    submission = load_submission(write_submission(tmp_path / "bigram", manifest=manifest), toy.task)
    with pytest.raises(UserError, match=r"\[hparams.steps\]"):
        plan_calibration(Side("x", submission), "cpu-1thread", 2, MACHINE, NOW)


def test_what_is_kept_is_what_a_race_uses(tmp_path: Path) -> None:
    where = Where("toy", "cpu-1thread", tmp_path)
    with pytest.raises(UserError, match="no calibration of toy") as raised:
        calibration_for(where)
    assert "speedrun calibrate" in raised.value.remedy
    write_calibration(where, calibration())
    assert calibration_for(where) == calibration()


def test_a_calibration_is_computed_again_from_its_runs(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    carry_on(campaign, places, FakeRunner(by_budget(0.005, 0.003)), lambda course: False)
    found, where = calibrate(campaign, campaign.course), Where("toy", "cpu-1thread", tmp_path / "records")
    assert check_calibration(where) == []
    path = write_calibration(where, found)
    assert check_calibration(where) == []  # its runs are not kept: nothing to compute
    keep_calibration_runs(campaign, where)
    (checked,) = check_calibration(where)
    assert checked.problems == []
    quieter = found.model_copy(update={"loss_spread": found.loss_spread / 2})
    path.write_text(quieter.model_dump_json())
    (checked,) = check_calibration(where)
    assert len(checked.problems) == 1 and "calibration.json: loss_spread" in checked.problems[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss_spread": -1.0}, "loss_spread"),
        ({"slope": {"nats_per_efold": 0, "standard_error": 0, "degrees_of_freedom": 1}}, "slope"),
        ({"task": "gcide"}, "task, hardware_class: it is the calibration of gcide"),
        ({"colour": "red"}, "colour"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_an_edited_calibration_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    where = Where("toy", "cpu-1thread", tmp_path)
    path = write_calibration(where, calibration())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=f"calibration.json: .*{said}"):
        calibration_for(where)
    assert calibration_path(where) == path


def test_gcide_has_a_provisional_calibration_from_the_tuning_of_its_baseline() -> None:
    found = provisional_calibration(Where("gcide", "cpu-1thread"))
    assert found is not None and found.provisional
    assert "reference_runs.jsonl" in found.source
    assert found.loss_spread > 0 and found.slope.nats_per_efold > 0
    assert provisional_calibration(Where("gcide", "1xH100")) is None


def test_losses_of_another_source_give_no_provisional_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reference runs beside the budgets of an earlier shape would give an s of neither."""
    folder = tmp_path / "adamw" / "gcide" / "tuning"
    shutil.copytree(BASELINES / "adamw" / "gcide" / "tuning", folder)
    band = folder / "loss_against_tokens.csv"
    for module in (calibration_module, review):
        monkeypatch.setattr(module, "BASELINES", tmp_path)
    assert provisional_calibration(Where("gcide", "cpu-1thread")) is not None
    digest = band.read_text().splitlines()[-1].rpartition(",")[2]
    band.write_text(band.read_text().replace(digest, 64 * "0"))
    assert provisional_calibration(Where("gcide", "cpu-1thread")) is None


def test_a_provisional_calibration_of_another_source_than_the_baseline_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adamw" / "gcide"
    shutil.copytree(BASELINES / "adamw" / "gcide", folder)
    for module in (calibration_module, review):
        monkeypatch.setattr(module, "BASELINES", tmp_path)
    where = Where("gcide", "cpu-1thread", tmp_path / "records")
    assert calibration_for(where).provisional
    script = folder / "train.py"
    script.write_text(script.read_text() + "\n# another\n")
    with pytest.raises(UserError, match="of another source than the present baseline") as raised:
        calibration_for(where)
    assert "speedrun calibrate" in raised.value.remedy and "reference_runs" in raised.value.remedy


@pytest.mark.parametrize("field", ["core_digest", "task_digest", "data_digest", "machine_digest"])
def test_what_has_changed_since_a_calibration_is_named(toy: Toy, tmp_path: Path, field: str) -> None:
    plan = plan_race(sides(toy, tmp_path), "cpu-1thread", 4, calibration(), MACHINE, NOW)
    assert changed_since(plan.calibration, plan) == []
    assert changed_since(calibration(**{field: "0" * 64}), plan) == [field.removesuffix("_digest")]


def test_a_calibration_of_another_source_is_named(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_race(sides(toy, tmp_path), "cpu-1thread", 4, calibration(), MACHINE, NOW)
    monkeypatch.setattr(calibration_module, "baseline_digest", lambda task: "1" * 64)
    assert changed_since(calibration(submission="1" * 64), plan) == []
    assert changed_since(calibration(submission="0" * 64), plan) == ["baseline"]


def test_a_measured_calibration_says_under_what_it_was_measured(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_calibration(toy, tmp_path, 2)
    carry_on(campaign, places, FakeRunner(by_budget(0.005, 0.003)), lambda course: False)
    found = calibrate(campaign, campaign.course)
    assert changed_since(found, campaign.plan) == []
    assert (found.core_digest, found.task_digest) == (campaign.plan.core_digest, campaign.plan.task_digest)


def test_a_machine_too_noisy_says_how_much_a_race_resolves() -> None:
    quiet = resolution(calibration(loss_spread=0.0002, clock_variation=0.0005))
    noisy = resolution(calibration(loss_spread=0.02, clock_variation=0.05))
    assert not quiet.too_noisy and quiet.least_effect < 0.01
    assert noisy.too_noisy and noisy.pairs > 100 and noisy.least_effect > 0.1
    assert noisy.seconds == 2 * noisy.pairs * 12.0
    assert resolution(calibration(), sequential_plan(4)).least_effect > resolution(calibration()).least_effect


@pytest.mark.parametrize("pairs", [0, 3, 5, 17])
def test_a_race_has_as_many_pairs_as_a_look(toy: Toy, tmp_path: Path, pairs: int) -> None:
    with pytest.raises(UserError, match="4, 6, 8, 12, 16"):
        plan_race(sides(toy, tmp_path), "cpu-1thread", pairs, calibration(), MACHINE, NOW)


def test_a_race_refuses_an_s_that_may_be_zero(toy: Toy, tmp_path: Path) -> None:
    uncertain = calibration(slope=Slope(0.25, 0.2, 3))
    with pytest.raises(UserError, match="may be zero"):
        plan_race(sides(toy, tmp_path), "cpu-1thread", 16, uncertain, MACHINE, NOW)
