"""What a protocol may say, and the trials that follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.paths import BASELINES, SUBMISSIONS
from harness.submission import load_submission
from harness.tuning.design import Design, same_budget
from harness.tuning.protocol import Knob, load_protocol
from harness.tuning.search import scouts
from harness.tuning.trials import TrialTable
from harness.tuning.tune import Tuning
from tests.conftest import Toy
from tests.tuning.toy_tuning import PROTOCOL, write_tuning

BASELINE = BASELINES / "adamw" / "gcide"
RULEBOOK = {"matrix_lr", "head_lr", "embedding_lr", "weight_decay", "beta1", "beta2", "warmup", "cooldown"}


@pytest.fixture(scope="module")
def baseline() -> Design:
    submission = load_submission(BASELINE)
    return Design(submission, load_protocol(submission))


def test_the_recipe_of_fineweb_can_be_tuned_from_the_public_settings() -> None:
    tuning = Tuning(load_submission(BASELINES / "adamw" / "fineweb-small"))
    costs = tuning.costs(tuning.stages(None))
    assert [cost.stage for cost in costs] == ["scout", "search", "finalists", "curves", "checks", "confirm"]
    assert all(cost.left > 0 for cost in costs) and not tuning.table.trials
    assert tuning.protocol.stages.search is not None
    for start in tuning.protocol.stages.search.starts:
        assert tuning.design.point(start) == tuning.design.declared


def test_a_new_submission_is_tuned_at_the_baseline_s_budget_and_seed(baseline: Design) -> None:
    template = Tuning(load_submission(SUBMISSIONS / "_template"))
    assert same_budget(template.design.tokens(template.design.point({})), baseline.tokens(baseline.point({})))
    assert template.protocol.seed == baseline.protocol.seed


@pytest.fixture
def empty(baseline: Design, tmp_path: Path) -> TrialTable:
    return TrialTable(tmp_path / "trials.csv", baseline.submission)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[knobs.lr]", "[knobs.rate]", r"knobs: rate is not declared in .*submission\.toml"),
        ('knobs = ["lr"]', 'knobs = ["lr", "rate"]', r"no \[knobs\.rate\]"),
        ("high = 200", "high = 2000", r"knobs\.lr: lr 2000\.0 is outside \[0\.1, 1000\.0\]"),
        ("low = 10\nhigh = 200\n", "", "low and high, or values is missing"),
        ("step = 2", "step = 0.5", r"knobs\.lr: .*step is a factor"),
        ("trials = 2\nbudget", "trials = 0\nbudget", r"stages\.scout\.trials"),
        ("trials = 2\nbudget", "trials = 2\nspeed = 3\nbudget", r"stages\.scout\.speed: Extra inputs"),
        ('steps = "steps"', 'steps = "lr"', "budget: lr is not a whole number"),
        ("from_scouts = 1", "from_scouts = 1\nstarts = [{lr = 5.0}]", r"lr 5\.0 is outside \[10\.0, 200\.0\]"),
        ("from_scouts = 1", "from_scouts = 1\nstarts = [{steps = 5}]", r"differing: lr, steps"),
        ("[stages.scout]", "[stages.scouts]", r"stages\.scouts: Extra inputs"),
        ("seed = 5", "seed = five", "not valid TOML"),
    ],
)  # fmt: skip
def test_what_a_protocol_may_not_say(toy: Toy, tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PROTOCOL
    submission = write_tuning(toy, tmp_path / "bigram", PROTOCOL.replace(old, new))
    with pytest.raises(UserError, match=message) as raised:
        load_protocol(submission)
    assert "protocol.toml" in raised.value.message
    assert raised.value.remedy


def test_a_submission_without_a_protocol_is_told_where_it_belongs(toy: Toy, tmp_path: Path) -> None:
    submission = write_tuning(toy, tmp_path / "bigram")
    (submission.folder / "tuning" / "protocol.toml").unlink()
    with pytest.raises(UserError, match=r"tuning/protocol\.toml: no such file"):
        load_protocol(submission)


def test_a_point_outside_of_the_declared_range_is_refused(toy: Toy, tmp_path: Path) -> None:
    wide = PROTOCOL.replace("step = 2", "step = 6") + '[stages.curves]\nknobs = ["lr"]\nseeds = 1\n'
    tuning = Tuning(write_tuning(toy, tmp_path / "bigram", wide))
    with pytest.raises(UserError, match=r"protocol\.toml: lr 1800\.0 is outside \[0\.1, 1000\.0\]"):
        tuning.costs(tuning.stages())


def test_a_stage_must_be_in_the_protocol(toy: Toy, tmp_path: Path) -> None:
    tuning = Tuning(write_tuning(toy, tmp_path / "bigram"))
    assert tuning.stages() == ["scout", "search"]
    with pytest.raises(UserError, match="--stage confirm: not in the protocol"):
        tuning.stages("confirm")


def test_the_protocol_of_the_baseline_is_the_one_that_was_asked_for(baseline: Design) -> None:
    stages = baseline.protocol.stages
    assert stages.scout and stages.search and stages.curves and stages.pairs and stages.checks and stages.confirm
    assert (stages.scout.trials, stages.scout.budget) >= (24, 0.5)
    assert stages.search.trials >= 40
    assert set(stages.curves.knobs) == RULEBOOK and stages.curves.seeds >= 2
    assert all(len(baseline.neighbours(name)) == 5 for name in RULEBOOK)
    assert {"epsilon", "clip", "vector_lr", "init_scale", "batch"} <= set(stages.checks.knobs)
    assert {frozenset(pair) for pair in stages.pairs.pairs} == {
        frozenset({"matrix_lr", other}) for other in ("weight_decay", "head_lr", "beta2")
    }
    assert stages.confirm.seeds >= 10


def test_tokens_are_held_fixed(baseline: Design) -> None:
    steps = baseline.declared["steps"]
    assert isinstance(steps, int)
    assert baseline.point({"batch": 16})["steps"] == steps // 2
    assert baseline.point({}, budget=0.5)["steps"] == steps // 2


def test_a_budget_that_was_adopted_leaves_the_tuning_as_it_was(baseline: Design) -> None:
    budget = baseline.protocol.budget.model_copy(update={"tokens": baseline.tokens(baseline.declared)})
    later = Design(baseline.submission, baseline.protocol.model_copy(update={"budget": budget}))
    later.declared = {**later.declared, "steps": 1400}
    assert later.point({}) == baseline.declared
    assert later.point({"batch": 16}) == baseline.point({"batch": 16})


def test_scouts_are_the_same_every_time_and_fill_the_box(baseline: Design) -> None:
    jobs = scouts(baseline)
    assert jobs == scouts(baseline)
    assert len({job.seed for job in jobs}) == 1
    knob = baseline.protocol.knobs["matrix_lr"]
    assert knob.low is not None and knob.high is not None
    tried = sorted(float(job.hparams["matrix_lr"]) for job in jobs)
    quarters = [sum(knob.low * (knob.high / knob.low) ** (q / 4) <= x for x in tried) for q in range(4)]
    assert quarters == [32, 24, 16, 8]  # as many in every quarter, on the scale of the knob


def test_no_seed_serves_two_purposes(baseline: Design) -> None:
    seeds = [baseline.seeds(purpose, 50) for purpose in ("search", "finalists", "evidence", "confirm")]
    assert len({seed for some in seeds for seed in some}) == 200


@pytest.mark.parametrize(
    ("knob", "here", "there"),
    [
        (Knob(scale="log", step=2), 0.1, 0.2),
        (Knob(scale="complement", step=2), 0.98, 0.96),
        (Knob(scale="linear", step=0.25), 0.5, 0.75),
    ],
)
def test_a_step_is_what_the_scale_says(knob: Knob, here: float, there: float) -> None:
    assert knob.value_at(knob.place(here) + 1) == pytest.approx(there)


def test_a_curve_ends_where_values_end_to_make_sense(baseline: Design) -> None:
    baseline.declared["cooldown"], before = 1.0, baseline.declared["cooldown"]
    values = [point["cooldown"] for point in baseline.neighbours("cooldown")]
    baseline.declared["cooldown"] = before
    assert values == [0.4, 0.55, 0.7, 0.85, 1.0]


def test_a_grid_holds_the_middle_of_both_curves(baseline: Design) -> None:
    grid = baseline.grid("matrix_lr", "beta2")
    assert grid[1][1] == baseline.point({})
    assert [row[1] for row in grid] == baseline.neighbours("matrix_lr")[1:4]
    assert grid[1] == baseline.neighbours("beta2")[1:4]


def test_trials_asked_for_twice_are_counted_once(baseline: Design, empty: TrialTable) -> None:
    jobs = baseline.jobs("curves", empty)
    assert len(jobs) == len({job.key for job in jobs}) == 2 * (8 * 4 + 1)
