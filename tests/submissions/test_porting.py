"""docs/porting.md: its port is as small as it says, and runs."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.paths import ROOT
from harness.submission import load_submission
from tests.conftest import Toy

GUIDE = (ROOT / "docs" / "porting.md").read_text()


def block(name: str) -> str:
    """The code that follows a marker."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_new_lines_are_marked_and_few() -> None:
    before = [line.strip() for line in block("before").splitlines()]
    after = [re.sub(r"  # \d+$", "", line).strip() for line in block("after").splitlines()]
    marked = [bool(re.search(r"  # \d+$", line)) for line in block("after").splitlines()]
    new = {
        place
        for tag, _, _, start, stop in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
        if tag != "equal"
        for place in range(start, stop)
        if after[place]
    }
    assert new == {place for place, mark in enumerate(marked) if mark}
    assert len({re.search(r"# (\d+)$", line)[1] for line in block("after").splitlines() if "  # " in line}) == 10
    assert len(new) == 17  # as the guide says


def test_the_script_runs_before_the_port(sequential_toy: Toy, tmp_path: Path) -> None:
    shards = sequential_toy.task.data_folder(sequential_toy.data_dir)
    for split, name in (("train", "fineweb_train_1.bin"), ("validation", "fineweb_val_1.bin")):
        (tmp_path / name).symlink_to(shards / sequential_toy.task.of_split(split)[0].file)
    (tmp_path / "train_gpt.py").write_text(block("before").replace("steps = 40", "steps = 20"))  # the toy has no more
    command = [sys.executable, "train_gpt.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(found) for found in re.findall(r"validation loss (\d+\.\d+)", done.stdout)]
    assert len(losses) == 2 and losses[1] < 4.0 < losses[0]


def test_the_port_runs(sequential_toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "port"
    folder.mkdir()
    (folder / "train.py").write_text(block("after"))
    (folder / "submission.toml").write_text(block("manifest").replace('"fineweb-small"', '"toy"'))
    submission = load_submission(folder, sequential_toy.task)
    request = Request(submission, hardware_class("cpu-1thread"), sequential_toy.data_dir, tmp_path / "runs", seed=1)
    record = run_once(request).record
    assert record.state == "JUDGED", record.message
    assert record.val_loss is not None and record.val_loss < 4.0
