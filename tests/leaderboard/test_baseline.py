"""The page of a baseline: with and without protocol, trials and report, and whatever a report may hold."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness.paths import BASELINES
from harness.submission import load_submission
from harness.tuning.protocol import load_protocol
from leaderboard import site
from leaderboard.baseline import STAGES, Baseline, baselines, rendered
from tests.tuning.test_report import copy_of_baseline


def of(folder: Path) -> Baseline:
    (found,) = baselines(folder)
    return found


def test_every_baseline_of_the_repository_can_be_shown() -> None:
    found = {one.task: one for one in baselines()}
    assert set(found) == {path.name for path in (BASELINES / "adamw").iterdir() if (path / "submission.toml").exists()}
    gcide = found["gcide"]
    assert gcide.problem is None
    assert [stage.name for stage in gcide.stages] == list(STAGES)
    assert all(stage.planned for stage in gcide.stages)
    assert "protocol.toml" in gcide.files


def test_a_baseline_without_a_protocol_says_so_by_having_no_stages(tmp_path: Path) -> None:
    shutil.rmtree(copy_of_baseline(tmp_path / "gcide") / "tuning")
    assert (of(tmp_path).stages, of(tmp_path).knobs, of(tmp_path).files) == ([], [], [])


def test_a_protocol_without_trials_shows_what_is_planned(tmp_path: Path) -> None:
    copy_of_baseline(tmp_path / "gcide")
    found = of(tmp_path)
    assert (found.trials, found.report, found.problem) == (0, None, None)
    stages = load_protocol(load_submission(tmp_path / "gcide")).stages
    assert stages.scout is not None and stages.search is not None
    assert [(stage.name, stage.planned, stage.left) for stage in found.stages][:2] == [
        ("scout", stages.scout.trials, stages.scout.trials),
        ("search", stages.search.trials, stages.search.trials),
    ]
    knobs = {knob.name: knob for knob in found.knobs}
    assert knobs["matrix_lr"].varied == "0.002 to 0.04" and knobs["matrix_lr"].searched
    assert knobs["clip"].varied == "0, 0.25, 0.5, 1, 2" and not knobs["clip"].searched
    assert knobs["batch"].varied == "times 2, down and up"


def test_a_tuned_one_shows_what_was_run_and_its_report(tuned: list[Baseline]) -> None:
    (found,) = tuned
    assert found.trials > 200 and found.failed == sum(stage.failed for stage in found.stages)
    assert not any(stage.left for stage in found.stages)
    assert found.hours == pytest.approx(found.trials * 90 / 3600)
    assert found.report is not None and "<h2>What is left on the table</h2>" in found.report
    assert "<h1>" not in found.report and '<img src="tuning_curve.svg" alt="' in found.report
    assert set(found.files) >= {"report.md", "trials.csv", "tuning_curve.svg", "one_knob_curves.svg"}


def test_trials_of_another_source_are_told_and_not_shown(tuned: list[Baseline], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned[0].folder, tmp_path / "gcide"))
    script = folder / "train.py"
    script.write_text(script.read_text() + "\nMORE = 1\n")
    found = of(tmp_path)
    assert found.problem is not None and "trials.csv" in found.problem
    assert found.stages == [] and found.report is not None


def test_raw_html_in_a_report_stays_text() -> None:
    text = "# Title\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) **b** <b onclick='x'>\n"
    shown = rendered(text)
    assert "<script" not in shown and "<b onclick" not in shown and 'href="javascript' not in shown
    assert "&lt;script&gt;" in shown and "<strong>b</strong>" in shown and "Title" not in shown


def test_tables_and_plots_scroll_by_themselves() -> None:
    shown = rendered("## Cost\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n| 3 |\n\n![What it shows](x.svg)\n")
    assert shown.count('<th scope="col">') == 3
    assert 'aria-label="Table: Cost"' in shown and 'aria-label="Table: Cost, 2"' in shown
    assert '<div class="scroll plot" role="region" aria-label="What it shows" tabindex="0"><img src="x.svg"' in shown
    assert shown.count("<div") == shown.count("</div>") == 3


def test_the_page_says_what_is_missing(tuned: list[Baseline], tmp_path: Path) -> None:
    (whole,) = tuned
    pages = {
        "not-reported": (dataclasses.replace(whole, report=None), "the report on them is not written yet"),
        "other-source": (dataclasses.replace(whole, stages=[], problem="<b>gone</b>"), "Its trials cannot be shown."),
        "no-trial": (dataclasses.replace(whole, trials=0, report=None), "no trial has been run"),
        "no-protocol": (Baseline("x", "A title", tmp_path), "It has no protocol of a tuning yet"),
    }
    named = [dataclasses.replace(one, task=task) for task, (one, _) in pages.items()]
    content = site.read(tmp_path / "no-records", "2024-06-30")
    site.build(tmp_path / "site", dataclasses.replace(content, baselines=named))
    for task, (one, said) in pages.items():
        text = (tmp_path / "site" / "baseline" / task / "index.html").read_text()
        assert said in text, task
        assert all((tmp_path / "site" / "baseline" / task / file).is_file() for file in one.files)
    assert "&lt;b&gt;gone&lt;/b&gt;" in (tmp_path / "site/baseline/other-source/index.html").read_text()
    nav = (tmp_path / "site/index.html").read_text()
    assert 'href="baseline/not-reported/index.html"' in nav  # the first with a protocol
