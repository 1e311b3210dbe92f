"""Campaign folders as somebody else may have left them: every edit is found, named by line and field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.evidence.folder import read_campaign
from harness.evidence.race import settled_after
from harness.evidence.series import carry_on
from tests.conftest import Toy
from tests.evidence.fake import FakeRunner, new_race


@pytest.fixture
def folder(toy: Toy, tmp_path: Path) -> Path:
    """A finished race of 4 pairs."""
    campaign, places = new_race(toy, tmp_path)
    carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))
    assert len(read_campaign(campaign.folder).lines) == 8
    return campaign.folder


def edit_line(folder: Path, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "runs.jsonl"
    lines = path.read_text().splitlines()
    table = json.loads(lines[number - 1])
    change(table)
    lines[number - 1] = json.dumps(table, sort_keys=True, separators=(",", ":"))
    path.write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("val_loss", 1.0, "line 3: chain"),
        ("seconds", 1.0, "line 3: chain"),
        ("seed", 5, "line 3: seed: 5 where the plan asks for"),
        ("arm", "candidate", "line 3: arm: 'candidate' where the plan asks for 'reference'"),
        ("number", 7, "line 3: number: 7 where the plan asks for 2"),
        ("status", "fine", "line 3: .*'fine' is no end that a run can have"),
        ("val_loss", None, "line 3: .*a judged run has val_loss"),
        ("seconds", -1.0, "line 3: seconds: Input should be greater than 0"),
        ("seconds", "fast", "line 3: seconds: Input should be a valid number"),
        ("colour", "red", "line 3: colour: Extra inputs"),
        ("chain", "0" * 64, "line 3: chain"),
        ("chain", 5, "line 3: chain"),
    ],
)
def test_an_edited_line_is_named(folder: Path, field: str, value: object, said: str) -> None:
    edit_line(folder, 3, lambda table: table.update({field: value}))
    with pytest.raises(UserError, match=f"runs.jsonl: {said}") as raised:
        read_campaign(folder)
    assert raised.value.remedy


def test_the_chain_is_over_the_line_as_it_stands_in_the_file(folder: Path) -> None:
    """So a line written before a field existed keeps its chain."""
    path = folder / "runs.jsonl"
    chain = hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest()
    written = []
    for text in path.read_text().splitlines():
        table = {name: value for name, value in json.loads(text).items() if name not in ("chain", "holdout_loss")}
        content = json.dumps(table, sort_keys=True, separators=(",", ":"))
        chain = hashlib.sha256((chain + content).encode()).hexdigest()
        written.append(json.dumps({**table, "chain": chain}, sort_keys=True, separators=(",", ":")) + "\n")
    path.write_text("".join(written))
    assert read_campaign(folder).chain == chain


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4, 5, 6, 7], [0, 1, 3, 4, 5, 6, 7], [0, 0, 1, 2, 3, 4, 5, 6, 7]])
def test_lines_moved_left_out_or_doubled_are_named(folder: Path, order: list[int]) -> None:
    path = folder / "runs.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))
    wrong = next(place for place, index in enumerate(order) if place != index) + 1
    with pytest.raises(UserError, match=f"runs.jsonl: line {wrong}: number"):
        read_campaign(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"number": 1, "number": 2}', '{"number": NaN}', "\x00\xff"])
def test_a_line_that_is_no_line_is_named(folder: Path, text: str) -> None:
    path = folder / "runs.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], text, *lines[4:]]) + "\n")
    with pytest.raises(UserError, match="runs.jsonl: line 5: "):
        read_campaign(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.update(kind="party"), "plan.json: .*kind"),
        (lambda plan: plan.update(target="low"), "plan.json: race.target"),
        (lambda plan: plan.pop("arms"), "plan.json: race.arms: Field required"),
        (lambda plan: plan["schedule"].pop(), "plan.json: .*whole blocks"),
        (lambda plan: plan["schedule"][0].update(block=3), "plan.json: .*numbered"),
        (lambda plan: plan["arms"].pop("candidate"), "plan.json: .*not in arms"),
        (lambda plan: plan["deciding"]["sequence"].update(alpha=2.0), "plan.json: .*alpha"),
        (lambda plan: plan["arms"]["candidate"].update(name="../.."), "plan.json: .*name"),
        (lambda plan: plan.update(hardware_class="fast"), "plan.json: .*hardware_class"),
        (lambda plan: plan.update(target=2.0), "runs.jsonl: line 1: chain: this line, or plan.json, was edited"),
        (lambda plan: plan["schedule"][2].update(seed=1), "runs.jsonl: line 1: chain"),
    ],
)
def test_an_edited_plan_is_found(folder: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match=said):
        read_campaign(folder)


def test_a_changed_copy_of_a_source_is_not_run(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    script = campaign.folder / "sources" / "candidate" / "bigram" / "train.py"
    script.chmod(0o644)
    script.write_text(script.read_text() + "\n# faster\n")
    runner = FakeRunner()
    with pytest.raises(UserError, match="no longer those of the plan"):
        carry_on(read_campaign(campaign.folder), places, runner, settled_after(campaign.plan))
    assert runner.started == []


def test_resuming_does_not_need_the_working_tree(toy: Toy, tmp_path: Path) -> None:
    campaign, places = new_race(toy, tmp_path)
    (tmp_path / "bigram" / "train.py").write_text("raise SystemExit\n")
    runner = FakeRunner()
    carry_on(read_campaign(campaign.folder), places, runner, settled_after(campaign.plan))
    assert {request.submission.folder.parent.parent for request in runner.started} == {campaign.folder / "sources"}


def test_the_plan_is_there_before_the_first_run(toy: Toy, tmp_path: Path) -> None:
    campaign, _ = new_race(toy, tmp_path, pairs=8)
    plan = json.loads((campaign.folder / "plan.json").read_text())
    assert [run["arm"] for run in plan["schedule"][:4]] == ["candidate", "reference", "reference", "candidate"]
    seeds = [run["seed"] for run in plan["schedule"]]
    assert seeds[::2] == seeds[1::2] and len(set(seeds)) == 8  # one a pair
    assert plan["deciding"]["sequence"]["looks"] == [4, 6, 8]
    assert {"calibration", "machine_digest", "core_digest", "data_digest", "task_digest"} <= plan.keys()
    assert read_campaign(campaign.folder).plan == campaign.plan
    assert not (campaign.folder / "runs.jsonl").exists()
