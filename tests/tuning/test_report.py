"""The report on made-up trials of the baseline's protocol; and the finalist that is declared."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.errors import UserError
from harness.paths import BASELINES, SUBMISSIONS
from harness.statistics import margin_for_power
from harness.submission import load_submission
from harness.tuning.adopt import adopt, declare, with_defaults
from harness.tuning.analysis import confirmation, finalists
from harness.tuning.design import best
from harness.tuning.protocol import Knob
from harness.tuning.report import CURVES_PLOT, REPORT_FILE, TUNING_PLOT, Report
from harness.tuning.search import Search, Space
from harness.tuning.trials import JUDGED, Job, Trial
from harness.tuning.tune import Tuning
from tests.tuning.made_up import NOISE, run_made_up

BASELINE = BASELINES / "adamw" / "gcide"
FILES = (REPORT_FILE, TUNING_PLOT, CURVES_PLOT)


def copy_of_baseline(folder: Path) -> Path:
    """The baseline with its protocol and nothing that was run."""
    shutil.copytree(BASELINE, folder, ignore=shutil.ignore_patterns("tuning", "__pycache__"))
    (folder / "tuning").mkdir()
    shutil.copy(BASELINE / "tuning" / "protocol.toml", folder / "tuning")
    return folder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of_baseline(tmp_path_factory.mktemp("made-up") / "gcide")
    run_made_up(Tuning(load_submission(folder)), folder.parent / "search.log")
    return folder


def fresh(folder: Path) -> Tuning:
    return Tuning(load_submission(folder))


@pytest.mark.parametrize(
    "folder",
    [path.parent.parent for path in (*BASELINES.glob("*/*/tuning/report.md"), *SUBMISSIONS.glob("*/tuning/report.md"))],
    ids=lambda folder: folder.name,
)
def test_a_committed_report_is_that_of_the_committed_trials(folder: Path) -> None:
    """The plots are left out: their bytes depend on matplotlib's version."""
    assert Report(fresh(folder)).text() == (folder / "tuning" / REPORT_FILE).read_text()


def test_the_protocol_is_run_through(made_up: Path) -> None:
    tuning = fresh(made_up)
    assert [(cost.stage, cost.left) for cost in tuning.costs(tuning.stages())] == [
        (stage, 0) for stage in tuning.protocol.stages.names
    ]
    lowest = min(trial.val_loss for trial in tuning.table.of_stage("search") if trial.val_loss is not None)
    scouted = [trial.job.hparams for trial in tuning.table.of_stage("scout") if trial.val_loss is not None]
    assert lowest < 3.35 and len(scouted) < 32  # some scouts diverged, and the search got near the optimum


def test_the_search_begins_at_the_given_start_and_the_best_scouts(made_up: Path) -> None:
    tuning = fresh(made_up)
    stage = tuning.protocol.stages.search
    assert stage is not None and stage.starts
    searched = [{n: t.job.hparams[n] for n in stage.knobs} for t in tuning.table.of_stage("search")]
    scouted = [{n: t.job.hparams[n] for n in stage.knobs} for t in best(tuning.table.of_stage("scout"), 8)]
    begun = [*stage.starts, *scouted]
    assert searched[: len(begun)] == begun


def test_a_start_that_is_added_to_a_search_is_its_next_trial(made_up: Path, tmp_path: Path) -> None:
    tuning = fresh(made_up)
    stage = tuning.protocol.stages.search
    assert stage is not None
    added = {**stage.starts[0], "head_lr": 0.0123}
    longer = stage.model_copy(update={"trials": stage.trials + 2, "starts": [*stage.starts, added]})
    search = Search(tuning.design, longer, tuning.table, tmp_path / "search.log")
    jobs = list(search.jobs())
    assert [job.number for job in jobs] == [stage.trials, stage.trials + 1]
    assert [all(job.hparams[name] == value for name, value in added.items()) for job in jobs] == [True, False]


def test_a_lost_storage_is_filled_again_from_the_trials(made_up: Path, tmp_path: Path) -> None:
    tuning = fresh(made_up)
    stage = tuning.protocol.stages.search
    assert stage is not None
    search = Search(tuning.design, stage, tuning.table, tmp_path / "search.log")
    assert list(search.jobs()) == []
    known = search._study.get_trials()
    assert [trial.value for trial in known] == [trial.val_loss for trial in tuning.table.of_stage("search")]
    one_more = stage.model_copy(update={"trials": stage.trials + 1})
    more = Search(tuning.design, one_more, tuning.table, tmp_path / "search.log")
    assert [job.number for job in more.jobs()] == [stage.trials]


def numbers(search: Search) -> list[int]:
    """Of what a search has left."""
    return [job.number for job in search.jobs()]


def test_the_baselines_own_search_is_filled_from_its_trials_and_not_run_again(tmp_path: Path) -> None:
    tuning = fresh(BASELINE)
    stage, ran = tuning.protocol.stages.search, tuning.table.of_stage("search")
    assert stage is not None
    search = Search(tuning.design, stage, tuning.table, tmp_path / "search.log")
    assert len(numbers(search)) == stage.trials - len(ran)
    known = {(trial.user_attrs.get("number"), trial.value) for trial in search._study.get_trials()}
    assert known >= {(trial.job.number, trial.val_loss) for trial in ran}


def test_a_table_that_was_moved_aside_leaves_no_trials_behind(made_up: Path, tmp_path: Path) -> None:
    tuning, storage = fresh(made_up), tmp_path / "search.log"
    stage = tuning.protocol.stages.search
    assert stage is not None
    Search(tuning.design, stage, tuning.table, storage)
    bare = fresh(copy_of_baseline(tmp_path / "gcide"))
    anew = Search(bare.design, stage, bare.table, storage)
    assert all(trial.value is None for trial in anew._study.get_trials())
    assert len(numbers(anew)) == stage.trials


def test_another_source_has_a_search_of_its_own(made_up: Path, tmp_path: Path) -> None:
    tuning, storage = fresh(made_up), tmp_path / "search.log"
    stage = tuning.protocol.stages.search
    assert stage is not None
    names = {Search(tuning.design, stage, tuning.table, storage)._study.study_name}
    script = copy_of_baseline(tmp_path / "gcide") / "train.py"
    script.write_text(script.read_text().replace("SOFT_CAP = 15.0", "SOFT_CAP = 30.0"))
    other = fresh(script.parent)
    names.add(Search(other.design, stage, other.table, storage)._study.study_name)
    assert len(names) == 2
    again = Search(tuning.design, stage, tuning.table, storage)  # the first one is still there
    assert numbers(again) == []


def test_a_draw_stays_in_the_box_when_it_is_rounded(made_up: Path) -> None:
    design = fresh(made_up).design
    knob = Knob(scale="linear", low=0.9, high=0.9996)
    design.protocol = design.protocol.model_copy(update={"knobs": {"beta2": knob}})
    assert Space(design, ["beta2"]).values({"beta2": 0.99958}) == {"beta2": 0.9996}


def test_a_spoiled_storage_is_told_with_its_remedy(made_up: Path, tmp_path: Path) -> None:
    tuning = fresh(made_up)
    (tmp_path / "search.log").write_text('{"op_code":0,"worker_id"\n{"op_code":1}\n')
    assert tuning.protocol.stages.search is not None
    with pytest.raises(UserError, match=r"search\.log: not a journal of Optuna"):
        Search(tuning.design, tuning.protocol.stages.search, tuning.table, tmp_path / "search.log")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage,number", "stage,nr", "its columns are not the declared hyperparameters"),
        ("scout,0,", "scout,zero,", "line 2: not a trial"),
        ("scout,0,", "scuot,0,", "line 2: not a trial: stage 'scuot' is none of scout, search"),
        (",judged,", ",,", "a loss stands with status judged"),
        ("\nscout,1,", "\nscout,1\nscout,1,", "line 3"),
    ],
)
def test_a_table_that_was_edited_badly_is_told_by_line(
    made_up: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = Path(shutil.copytree(made_up, tmp_path / "gcide"))
    path = folder / "tuning" / "trials.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message) as raised:
        fresh(folder)
    assert "trials.csv" in raised.value.message


def test_the_report_says_what_the_trials_show(made_up: Path) -> None:
    text = Report(fresh(made_up)).text()
    for heading in ("left on the table", "Confirmation", "What was run", "Tuning curve", "Finalists", "3 x 3"):
        assert heading in text
    assert "Not run" not in text and "not run" not in text
    assert "n = 12" in text
    assert "| `head_lr` |" in text and "as declared, interior |" in text
    found = confirmation(fresh(made_up).design, fresh(made_up).table)
    assert found is not None and found.spread == pytest.approx(NOISE, rel=0.6)
    assert f"Mean {found.mean:.4f}" in text
    target = float(re.search(r"A target of (\d+\.\d{3}) ", text)[1])
    assert 0 <= target - found.mean - margin_for_power(found.spread) <= 0.005


def test_the_same_trials_give_the_same_bytes(made_up: Path, tmp_path: Path) -> None:
    twice = []
    for _ in range(2):
        Report(fresh(made_up)).write()
        twice.append([(made_up / "tuning" / name).read_bytes() for name in FILES])
    assert twice[0] == twice[1]
    for name in (TUNING_PLOT, CURVES_PLOT):
        root = ElementTree.parse(made_up / "tuning" / name).getroot()
        said = "".join(root.itertext())
        assert root.tag.endswith("svg")
        assert "expected best of k" in said if name == TUNING_PLOT else "matrix_lr" in said


def test_a_better_point_and_a_missing_one_are_named(made_up: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made_up, tmp_path / "gcide"))
    tuning = fresh(folder)
    seeds = tuning.design.seeds("evidence", 2)
    better = [tuning.design.neighbours("head_lr")[3], tuning.design.point({"clip": 0.5})]
    kept = [t for t in tuning.table.trials if t.job.hparams not in better or t.job.seed not in seeds]
    tuning.table.path.unlink()
    again = fresh(folder)
    for trial in kept:
        again.table.add(trial)
    for seed in seeds:
        again.table.add(Trial(Job("curves", 900, seed, better[0]), 3.2, JUDGED, 90.0, "made-up"))
    text = Report(again).text()
    found, declared = better[0]["head_lr"], tuning.design.declared["head_lr"]
    assert f"- `head_lr` = {found:.6g} beats the declared {declared:.6g} by more than noise." in text
    assert "another is better" in text
    assert "Not run completely: check of `clip`" in text


def test_a_failed_run_is_shown_as_failed(made_up: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made_up, tmp_path / "gcide"))
    path = folder / "tuning" / "trials.csv"
    tuning = fresh(folder)
    point, seed = tuning.design.neighbours("warmup")[4], tuning.design.seeds("evidence", 1)[0]
    trial = tuning.table.find(point, seed)
    assert trial is not None
    path.write_text(path.read_text().replace(f"{trial.val_loss!r},judged", ",not-finite"))
    assert f"{point['warmup']:.6g}: failed" in Report(fresh(folder)).text()


def test_nothing_is_said_of_points_about_the_declared_one_where_none_are_planned(tmp_path: Path) -> None:
    folder = copy_of_baseline(tmp_path / "gcide")
    protocol = folder / "tuning" / "protocol.toml"
    protocol.write_text(protocol.read_text().split("[stages.curves]")[0])
    tuning = fresh(folder)
    tuning.table.add(Trial(Job("search", 0, 1, tuning.design.point({})), 3.3, JUDGED, 90.0, "made-up"))
    assert "No point of the curves" not in Report(tuning).text()


@pytest.mark.parametrize(
    ("knob", "value", "told"),
    [
        ("beta1", 0.41, True),
        ("beta1", 0.5, False),
        ("matrix_lr", 0.039, True),
        ("cooldown", 1.0, False),  # bounded
    ],
)
def test_a_best_point_at_the_edge_of_its_box_is_told(tmp_path: Path, knob: str, value: float, told: bool) -> None:
    tuning = fresh(copy_of_baseline(tmp_path / "gcide"))
    hparams = tuning.design.point({knob: value})
    tuning.table.add(Trial(Job("search", 0, 1, hparams), 3.2, JUDGED, 90.0, "made-up"))
    assert (f"at an edge of its box in `{knob}`" in Report(tuning).text()) is told


def test_without_trials_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trial yet"):
        Report(fresh(copy_of_baseline(tmp_path / "gcide")))


def test_the_best_finalist_is_declared(made_up: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made_up, tmp_path / "gcide"))
    path = folder / "tuning" / "trials.csv"
    before = fresh(folder)
    winner = next(f for f in finalists(before.design, before.table) if f.hparams != before.design.declared)
    for loss in winner.losses:
        path.write_text(path.read_text().replace(f",{loss!r},", ",3.2,"))
    chosen, changed = adopt(fresh(folder))
    assert chosen.hparams == winner.hparams and chosen.mean == pytest.approx(3.2)
    assert set(changed) <= set(before.protocol.knobs)
    after = fresh(folder)
    assert after.design.declared == winner.hparams
    assert "# global norm of the gradient; 0: off" in (folder / "submission.toml").read_text()
    # Another point is declared now: the confirmation takes seeds that have seen no other point.
    used = {trial.job.seed for trial in after.table.trials}
    assert not used & set(after.design.confirmation_seeds(after.table, 12))


def test_a_budget_that_was_adopted_stays(made_up: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made_up, tmp_path / "gcide"))
    before = fresh(folder)
    declare(before.submission, {"steps": 1500})
    with pytest.raises(UserError, match="at the full budget"):
        adopt(fresh(folder))
    after = fresh(folder)
    for seed in after.design.seeds("finalists", 4):
        after.table.add(Trial(Job("finalists", seed, seed, after.design.point({})), 3.9, JUDGED, 90.0, "made-up"))
    chosen, changed = adopt(fresh(folder))
    assert (chosen.hparams["steps"], changed) == (1500, {})


def test_a_default_is_changed_on_its_own_line_only(tmp_path: Path) -> None:
    text = '[hparams.a]\ndefault = 1.0  # why\nlow = 0\n\n[hparams.b]\nlow = 1.0\ndefault = "x"\n'
    changed = with_defaults(text, {"a": 0.25, "b": "y"}, tmp_path)
    assert changed == text.replace("default = 1.0", "default = 0.25").replace('"x"', '"y"')
    with pytest.raises(UserError, match=r"\[hparams\.c\]"):
        with_defaults(text, {"c": 1}, tmp_path)
