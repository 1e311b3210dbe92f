"""Campaigns that are stopped anywhere and go on: no finished run is repeated, none is lost, the verdict is the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.bundle import RunRecord, read_record, write_bundle
from harness.campaign import Request
from harness.core.failures import Failure
from harness.errors import UserError
from harness.evidence import series
from harness.evidence.course import ENDINGS, JUDGED, Ending
from harness.evidence.folder import Campaign, read_campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, RaceCampaign
from harness.evidence.race import settled_after
from harness.evidence.series import Interrupted, Places, carry_on
from harness.evidence.verdict import verdict_of
from harness.journal import Journal
from harness.run_folder import HARNESS_ERROR, KILLED
from harness.statistics import Verdict
from tests.conftest import Toy
from tests.evidence import fake
from tests.evidence.fake import MACHINE, POINTS, Died, FakeRunner, Given, new_race, usual


def finish(folder: Path, places: Places, runner: FakeRunner, at_most: int = 60) -> Campaign[RaceCampaign]:
    """Resumes from the folder alone until the race has a verdict."""
    for _ in range(at_most):
        campaign = read_campaign(folder)
        try:
            carry_on(campaign, places, runner, settled_after(campaign.plan))
        except (Died, Interrupted):
            continue
        return campaign
    raise AssertionError("the race does not end")


def test_a_race_runs_its_plan_and_stops_at_the_first_look_that_decides(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    runner = FakeRunner()
    finished = finish(campaign.folder, places, runner)
    verdict = verdict_of(finished)
    assert verdict is not None and verdict.verdict is Verdict.RECORD
    assert verdict.pairs == 4
    assert [request.facts["arm"] for request in runner.started] == [CANDIDATE, REFERENCE, REFERENCE, CANDIDATE] * 2
    assert [request.seed for request in runner.started] == [run.seed for run in campaign.plan.schedule[:8]]
    assert verdict.equal_loss is not None and 1.2 < verdict.equal_loss.ratio < 1.3


def test_where_a_task_counts_steps_these_decide_and_not_the_seconds(toy: Toy, tmp_path: Path) -> None:
    def slow_in_few_steps(request: Request) -> Given:
        steps, seconds = (80.0, 20.0) if request.facts["arm"] == CANDIDATE else (100.0, 10.0)
        return replace(usual(request), seconds=seconds, steps=steps)

    campaign, places = new_race(toy, tmp_path)
    verdict = verdict_of(finish(campaign.folder, places, FakeRunner(slow_in_few_steps)))
    assert verdict is not None and verdict.verdict is Verdict.RECORD
    assert verdict.equal_loss is not None and 1.2 < verdict.equal_loss.ratio < 1.3
    figures = verdict.arms[CANDIDATE]
    assert (figures.mean_steps, figures.mean_seconds) == (80.0, 20.0)


@given(
    deaths=st.dictionaries(st.integers(0, 12), st.sampled_from(POINTS), max_size=6),
    cut=st.none() | st.integers(1, 400),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dying_anywhere_changes_nothing(toy: Toy, deaths: dict[int, str], cut: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        campaign, places = new_race(toy, Path(name))
        undisturbed = FakeRunner()
        expected = campaign.plan.schedule[:8]
        runner = FakeRunner(deaths=deaths)
        finished = finish(campaign.folder, places, runner)
        if cut is not None:  # the last line was being written when the machine went down
            runs = campaign.folder / "runs.jsonl"
            content = runs.read_bytes()
            last = content[:-1].rfind(b"\n") + 1
            runs.write_bytes(content[: max(last, len(content) - cut)])
            finished = finish(campaign.folder, places, runner)
        counted = [line for line in finished.lines if line.ending is Ending.COUNTS]
        assert [(line.arm, line.seed) for line in counted] == [(run.arm, run.seed) for run in expected]
        assert [line.val_loss for line in counted] == [
            undisturbed.outcome(request).loss for request in _requests(runner, counted)
        ]
        started = [entry.run for entry in Journal(places.runs / "journal.jsonl").entries() if entry.event == "start"]
        assert [line.run_id for line in finished.lines] == started
        assert max(Counter(runner.judged).values()) == 1
        assert verdict_of(finished) is not None


def _requests(runner: FakeRunner, lines: list) -> list[Request]:
    asked = {(request.facts["arm"], request.seed): request for request in runner.started}
    return [asked[line.arm, line.seed] for line in lines]


def test_what_nobody_is_to_blame_for_is_repeated_with_its_seed(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    reasons = iter(["suspended", "interrupted", "machine-busy", "judge-crash"])
    runner = FakeRunner(lambda request: Given(next(reasons, None)) if len(runner.started) < 5 else usual(request))
    finished = finish(campaign.folder, places, runner)
    ends = [line.status for line in finished.lines[:5]]
    assert ends == ["suspended", "interrupted", "machine-busy", "judge-crash", "JUDGED"]
    assert len({line.seed for line in finished.lines[:5]}) == 1
    verdict = verdict_of(finished)
    assert verdict is not None and verdict.repeated == 4


def test_an_interrupted_run_stops_the_campaign(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    with pytest.raises(Interrupted):
        carry_on(campaign, places, FakeRunner(lambda request: Given("interrupted")), settled_after(campaign.plan))
    assert [line.status for line in read_campaign(campaign.folder).lines] == ["interrupted"]


def test_a_run_that_keeps_ending_by_no_fault_of_its_own_needs_a_person(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    with pytest.raises(UserError, match="judge-crash"):
        carry_on(campaign, places, FakeRunner(lambda request: Given("judge-crash")), settled_after(campaign.plan))


def test_a_disturbed_pair_is_repeated_at_most_three_times_and_all_are_kept(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    runner = FakeRunner(
        lambda request: Given(seconds=20.0, lost_seconds=1.0) if len(runner.started) <= 8 else usual(request)
    )
    finished = finish(campaign.folder, places, runner)
    assert [line.attempt for line in finished.lines[:10]] == [1, 1, 2, 2, 3, 3, 4, 4, 1, 1]
    first = finished.course.blocks[0]
    assert (first.attempts, first.disturbed) == (4, True)
    assert {line.seed for line in finished.lines[:8:2]} == {campaign.plan.schedule[0].seed}


def test_the_last_repetition_counts(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    runner = FakeRunner(
        lambda request: Given(seconds=20.0, lost_seconds=1.0) if len(runner.started) <= 2 else usual(request)
    )
    finished = finish(campaign.folder, places, runner)
    first = finished.course.blocks[0]
    assert (first.attempts, first.disturbed) == (2, False)
    assert all((line.seconds or 0) < 12 for line in first.runs.values())


@pytest.mark.parametrize("lost", [0.0, None])
def test_a_run_that_idles_is_not_repeated(toy: Toy, tmp_path: Path, lost: float | None) -> None:
    """A script that sleeps where it sees that it is slow must not be given another chance for it."""
    campaign, places = new_race(toy, tmp_path)
    idles = Given(seconds=20.0, lost_seconds=lost)
    runner = FakeRunner(lambda request: idles if len(runner.started) == 1 else usual(request))
    first = finish(campaign.folder, places, runner).course.blocks[0]
    assert first.attempts == 1 and max(line.seconds or 0 for line in first.runs.values()) == 20.0


def test_flags_of_runs_stand_in_the_verdict(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)

    def flagged(request: Request) -> Given:
        return replace(usual(request), flags=("dear-to-judge",) if request.facts["arm"] == CANDIDATE else ())

    verdict = verdict_of(finish(campaign.folder, places, FakeRunner(flagged)))
    assert verdict is not None
    assert (verdict.arms[CANDIDATE].flags, verdict.arms[REFERENCE].flags) == ({"dear-to-judge": verdict.pairs}, {})


@pytest.mark.parametrize("failures", [1, 2])
def test_one_failed_run_is_allowed_and_shown(toy: Toy, tmp_path: Path, failures: int) -> None:
    campaign, places = new_race(toy, tmp_path)
    failing = {(CANDIDATE, run.seed) for run in campaign.plan.schedule if run.block < failures}
    runner = FakeRunner(lambda r: Given("timeout") if (r.facts["arm"], r.seed) in failing else usual(r))
    finished = finish(campaign.folder, places, runner)
    verdict = verdict_of(finished)
    assert verdict is not None
    assert verdict.arms[CANDIDATE].failed == failures
    assert verdict.verdict is (Verdict.RECORD if failures == 1 else Verdict.MISSES_TARGET)


@pytest.mark.parametrize("arm", [CANDIDATE, REFERENCE])
def test_a_broken_rule_ends_the_race_at_once(toy: Toy, tmp_path: Path, arm: str) -> None:
    campaign, places = new_race(toy, tmp_path)
    outcome = FakeRunner(lambda request: Given("audit-failed") if request.facts["arm"] == arm else usual(request))
    finished = finish(campaign.folder, places, outcome)
    verdict = verdict_of(finished)
    assert verdict is not None and verdict.verdict is Verdict.INVALID
    assert verdict.reason.startswith(f"{arm}: audit-failed")
    assert len(finished.lines) <= 2


def test_a_futile_race_can_be_continued_to_its_next_look(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    runner = FakeRunner(lambda request: usual(Request(**{**vars(request), "facts": {"arm": REFERENCE}})))
    verdict = verdict_of(finish(campaign.folder, places, runner))
    assert verdict is not None and verdict.verdict is Verdict.NOT_PROVEN and not verdict.final
    again = read_campaign(campaign.folder)
    carry_on(again, places, runner, settled_after(again.plan, verdict.pairs + 1))
    assert len(again.course.blocks) > verdict.pairs
    assert len(again.course.blocks) in again.plan.deciding.sequence.looks


def test_the_runs_of_a_campaign_stay_in_one_folder(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    with pytest.raises(Died):
        carry_on(campaign, places, FakeRunner(deaths={3: "after the start"}), settled_after(campaign.plan))
    elsewhere = replace(places, runs=tmp_path / "other")
    elsewhere.runs.mkdir()
    again = read_campaign(campaign.folder)
    with pytest.raises(UserError, match="does not know run-0002, the last run of campaign") as raised:
        carry_on(again, elsewhere, FakeRunner(), settled_after(again.plan))
    assert "--runs-dir" in raised.value.remedy


def test_another_machine_starts_a_new_campaign(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    campaign, places = new_race(toy, tmp_path)
    monkeypatch.setattr(series, "fingerprint", lambda: replace(MACHINE, cpu="another"))
    with pytest.raises(UserError, match="another machine") as raised:
        carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))
    assert "start a new campaign" in raised.value.remedy
    assert not (places.runs / "journal.jsonl").exists()


def test_a_changed_core_starts_a_new_campaign(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign, places = new_race(toy, tmp_path)
    monkeypatch.setattr(series, "core_digest", lambda: "0" * 64)
    with pytest.raises(UserError, match="harness/core"):
        carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))


def test_one_process_does_a_campaign_and_one_campaign_is_timed(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    (tmp_path / "second").mkdir()
    other, elsewhere = new_race(toy, tmp_path / "second")
    said = []

    def meanwhile(request: Request) -> None:
        for second, where in ((read_campaign(campaign.folder), places), (other, elsewhere)):
            with pytest.raises(UserError) as raised:
                carry_on(second, where, FakeRunner(), settled_after(second.plan))
            said.append(raised.value.message)
        raise Died

    with pytest.raises(Died):
        carry_on(campaign, places, meanwhile, settled_after(campaign.plan))
    assert "another process does this campaign: process" in said[0]
    assert "timed on this machine, and each would slow the other: process" in said[1]
    assert campaign.plan.id in said[1]


def test_a_process_that_waited_takes_up_what_the_other_did(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    early = read_campaign(campaign.folder)
    runner = FakeRunner(deaths={3: "after the end"})
    with pytest.raises(Died):
        carry_on(campaign, places, runner, settled_after(campaign.plan))
    carry_on(early, places, runner, settled_after(early.plan))
    assert read_campaign(campaign.folder).lines == early.lines
    assert len(runner.started) == len(early.lines) == 8


def test_a_finished_campaign_can_be_looked_at_anywhere(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, places = new_race(toy, tmp_path)
    finished = finish(campaign.folder, places, FakeRunner())
    monkeypatch.setattr(series, "core_digest", lambda: "0" * 64)
    course = carry_on(read_campaign(campaign.folder), places, FakeRunner(), settled_after(campaign.plan))
    assert course == finished.course


@pytest.mark.parametrize("kept", ["core", "machine", "data", "task", "submission"])
def test_a_run_under_other_conditions_is_not_taken(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    campaign, places = new_race(toy, tmp_path)
    made = fake._record

    def elsewhere(*arguments: Any) -> RunRecord:
        record = made(*arguments)
        return record.model_copy(update={"digests": {**record.digests, kept: "0" * 64}})

    monkeypatch.setattr(fake, "_record", elsewhere)
    with pytest.raises(UserError, match="not under its conditions"):
        carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))


def test_a_bundle_changed_after_its_run_is_not_taken(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    with pytest.raises(Died):
        carry_on(campaign, places, FakeRunner(deaths={0: "after the end"}), settled_after(campaign.plan))
    folder = places.runs / "run-0000"
    record = read_record(folder / "run.json")
    write_bundle(folder, record.model_copy(update={"val_loss": 1.0}), [])
    with pytest.raises(UserError, match="was changed after the run"):
        carry_on(read_campaign(campaign.folder), places, FakeRunner(), settled_after(campaign.plan))


def test_lines_that_were_lost_come_back_from_the_journal(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    runner = FakeRunner()
    finished = finish(campaign.folder, places, runner)
    runs = campaign.folder / "runs.jsonl"
    content = runs.read_bytes()
    runs.unlink()
    again = finish(campaign.folder, places, runner)
    assert runs.read_bytes() == content
    assert len(runner.started) == 8 and again.lines == finished.lines


def test_every_way_a_run_can_end_means_something_to_its_campaign() -> None:
    assert ENDINGS.keys() == {*Failure, JUDGED, KILLED, HARNESS_ERROR}
