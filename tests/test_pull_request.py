"""What tools/check_pull_request.py lets through, on repositories of its own; and that the workflows can run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.paths import ROOT

TOOL = ROOT / "tools" / "check_pull_request.py"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RECORD = "records/gcide/cpu-1thread/001-adamw"
DECIDED = "records/gcide/cpu-1thread/attempts/20260101T000000-race-aaaaaa"
OPEN = "records/gcide/cpu-1thread/attempts/20260102T000000-race-bbbbbb"
GIVEN_UP = "records/gcide/cpu-1thread/attempts/20260103T000000-race-cccccc"  # for futility: it may be gone on with
BEFORE = (
    f"{RECORD}/record.json", f"{RECORD}/notes.md", f"{RECORD}/submission/train.py", f"{DECIDED}/plan.json",
    f"{DECIDED}/runs.jsonl", f"{DECIDED}/verdict.json", f"{OPEN}/plan.json", f"{OPEN}/runs.jsonl",
    "records/gcide/cpu-1thread/calibration.json", "submissions/mine/train.py", "harness/core/judge.py",
    "harness/frozen.toml", "harness/journal.py",
)  # fmt: skip


class Repository:
    """A repository with a base, and a branch on which files are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "base")
        self.write(*BEFORE, text="before\n")
        self.write(f"{GIVEN_UP}/plan.json", f"{GIVEN_UP}/runs.jsonl", text="before\n")
        self.write(f"{GIVEN_UP}/verdict.json", text='{"final": false}\n')
        self.commit()
        self.git("checkout", "-q", "-b", "proposed")

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True)

    def write(self, *paths: str, text: str = "after\n") -> None:
        for name in paths:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.commit()
        command = [sys.executable, str(TOOL), *(arguments or ("base", "proposed"))]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_notes_are_written_before_a_record_comes_in(repository: Repository) -> None:
    notes = "records/gcide/cpu-1thread/002-mine/notes.md"
    repository.write(notes, text="# Mine\n\nFor the authors: why this should help.\n")
    done = repository.check()
    assert done.returncode == 1 and f"{notes!r}: has a line 'For the authors:'" in done.stderr
    repository.write(notes, text="# Mine\n\nIt helps because it does.\n")
    assert repository.check().returncode == 0


@pytest.mark.parametrize(
    ("written", "folders"),
    [
        (["submissions/mine/train.py"], ["submissions/mine"]),
        (["submissions/new/train.py", "submissions/new/model.py"], ["submissions/new"]),
        ([f"{OPEN}/runs.jsonl", f"{OPEN}/verdict.json"], []),
        ([f"{GIVEN_UP}/runs.jsonl", f"{GIVEN_UP}/verdict.json"], []),
        ([f"{RECORD}/notes.md", "records/gcide/cpu-1thread/calibration.json"], []),
        ([f"{RECORD}/verifications/20260103T000000-race-cccccc/plan.json"], []),
        (
            [
                "records/gcide/cpu-1thread/002-muon/submission/train.py",
                "records/gcide/cpu-1thread/002-muon/record.json",
            ],
            ["records/gcide/cpu-1thread/002-muon/submission"],
        ),
        (["harness/core/judge.py", "harness/frozen.toml"], []),
        (["harness/journal.py", "submissions/mine/train.py"], ["submissions/mine"]),
        (["submissions/$(touch x)/train.py", "submissions/a b/train.py", "submissions/.x/train.py"], []),
    ],
)
def test_what_adds_is_let_through(repository: Repository, written: list[str], folders: list[str]) -> None:
    repository.write(*written)
    done = repository.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:-1] == folders


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([f"{RECORD}/record.json"], "001-adamw/record.json': was filed, and may not be edited"),
        ([f"{RECORD}/submission/train.py"], "may not be edited"),
        ([f"{DECIDED}/runs.jsonl"], "its campaign was decided"),
        ([f"{DECIDED}/verdict.json"], "may not be edited"),
        ([f"{OPEN}/plan.json"], "may not be edited"),
        ([f"{GIVEN_UP}/plan.json"], "may not be edited"),
        (["harness/core/judge.py", "submissions/mine/train.py"], "harness/core/judge.py' is frozen"),
        (["harness/frozen.toml", f"{RECORD}/notes.md"], "harness/frozen.toml' is frozen"),
    ],
)
def test_what_rewrites_is_refused(repository: Repository, written: list[str], said: str) -> None:
    repository.write(*written)
    done = repository.check()
    assert done.returncode == 1 and said in done.stderr


def test_what_was_filed_is_neither_removed_nor_moved_nor_made_a_link(repository: Repository) -> None:
    (repository.folder / RECORD / "record.json").unlink()
    repository.git("mv", f"{DECIDED}/verdict.json", f"{DECIDED}/old.json")
    notes = repository.folder / RECORD / "notes.md"
    notes.unlink()
    notes.symlink_to("/etc/passwd")
    done = repository.check()
    assert done.returncode == 1 and done.stderr.count("may not be removed") == 2
    assert "notes.md': was filed, and may not be edited" in done.stderr


def test_only_what_the_branch_changed_counts(repository: Repository) -> None:
    repository.write("submissions/new/train.py")
    repository.commit()
    repository.git("checkout", "-q", "base")
    repository.write(f"{RECORD}/notes.md", f"{RECORD}/record.json")
    repository.commit()
    repository.git("checkout", "-q", "proposed")
    assert repository.check().stdout == "submissions/new\n"


def test_a_wrong_call_says_so(repository: Repository) -> None:
    assert repository.check("base").returncode == 2
    done = repository.check("base", "nowhere")
    assert done.returncode == 1 and "error: git diff" in done.stderr


def steps(path: Path) -> list[dict[str, object]]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_scripts_that_parse_and_files_that_exist(path: Path) -> None:
    scripts = [str(step["run"]) for step in steps(path) if "run" in step]
    assert scripts and yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        for name in re.findall(r"(?:tools|tests)/[\w/.]+\.py", script):
            assert (ROOT / name).is_file(), name
        assert "pull_request.title" not in script and "head_ref" not in script  # a stranger's words in a shell


def test_the_workflow_checks_with_the_harness_of_the_base() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/submission.yml").read_text())["jobs"]["submission"]
    assert job["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    scripts = "\n".join(str(step.get("run", "")) for step in job["steps"])
    assert "git checkout proposed -- submissions records" in scripts
    for verb in ("speedrun check", "speedrun records verify", "tools/check_pull_request.py"):
        assert verb in scripts
