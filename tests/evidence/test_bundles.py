"""What a campaign keeps of its runs beside the lines."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.evidence.bundles import BUNDLES, MAX_BYTES, bundle_problems, keep_bundles, read_bundles, thinned
from harness.evidence.folder import Campaign, read_campaign
from harness.evidence.race import settled_after
from harness.evidence.series import Places, carry_on
from tests.conftest import Toy
from tests.evidence.fake import FakeRunner, new_race


@pytest.fixture
def raced(toy: Toy, tmp_path: Path) -> tuple[Campaign, Places]:
    campaign, places = new_race(toy, tmp_path)
    carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))
    return campaign, places


def test_every_run_is_kept_as_it_was(raced: tuple[Campaign, Places]) -> None:
    campaign, places = raced
    kept = read_bundles(campaign.folder / BUNDLES)
    assert [bundle.digest for bundle in kept] == [line.run_digest for line in campaign.lines]
    assert kept[0].run == (places.runs / campaign.lines[0].run_id / "run.json").read_text()
    assert bundle_problems(campaign) == []


def test_they_outlive_the_runs_folder(raced: tuple[Campaign, Places]) -> None:
    campaign, places = raced
    shutil.rmtree(places.runs / campaign.lines[0].run_id)
    before = (campaign.folder / BUNDLES).read_bytes()
    keep_bundles(campaign, places.runs)
    assert (campaign.folder / BUNDLES).read_bytes() == before


def test_what_a_killed_command_left_out_is_added(raced: tuple[Campaign, Places]) -> None:
    campaign, places = raced
    before = (campaign.folder / BUNDLES).read_bytes()
    (campaign.folder / BUNDLES).write_bytes(gzip.compress(gzip.decompress(before).split(b"\n")[0] + b"\n"))
    assert len(bundle_problems(campaign)) == len(campaign.lines) - 1
    keep_bundles(campaign, places.runs)
    assert (campaign.folder / BUNDLES).read_bytes() == before


def test_an_edited_run_is_found(raced: tuple[Campaign, Places]) -> None:
    campaign, _ = raced
    path = campaign.folder / BUNDLES
    edited = gzip.decompress(path.read_bytes()).replace(b"isolated", b"partial", 1)
    path.write_bytes(gzip.compress(edited))
    problems = bundle_problems(read_campaign(campaign.folder))
    assert [problem.split(": ")[-1] for problem in problems] == [
        "its run.json is not kept", "holds a run that the campaign does not have"
    ]  # fmt: skip


def test_a_line_that_says_otherwise_than_its_run_is_found(raced: tuple[Campaign, Places]) -> None:
    campaign, _ = raced
    campaign.lines[1] = campaign.lines[1].model_copy(update={"val_loss": 1.0})
    assert [problem.split(": ")[2] for problem in bundle_problems(campaign)] == ["val_loss"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", "incorrect header"),
        (gzip.compress(b'{"run": "x", "log": []}\n')[:-9], "cut short"),
        (gzip.compress(b"0" * (MAX_BYTES + 1)), "more than"),
        (gzip.compress(b'{"run": 1, "log": []}\n'), "line 1: run"),
        (gzip.compress(b'{"run": "x", "log": [], "log": []}\n'), "line 1: a table has a name twice"),
    ],
    ids=["no gzip", "cut short", "too long", "no name", "a name twice"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / BUNDLES).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_bundles(tmp_path / BUNDLES)


@given(st.integers(0, 400), st.integers(1, 50))
def test_a_thinned_log_has_its_last_row_and_its_order(length: int, count: int) -> None:
    rows = [{"step": float(step)} for step in range(length)]
    kept = thinned(rows, count)
    assert len(kept) == min(length, count)
    assert kept[-1:] == rows[-1:]
    steps = [row["step"] for row in kept]
    assert steps == sorted(set(steps)), json.dumps(steps)
