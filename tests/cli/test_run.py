"""The verbs that people type, as whole processes or in this one: output, exit codes, errors that name the remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.bundle import read_record
from harness.campaign import Finished
from harness.cli.main import app
from harness.cli.progress import describe_row
from harness.cli.summary import print_summary, read_references
from harness.errors import UserError
from harness.paths import BASELINES, ROOT
from harness.references import REFERENCE_FILE
from harness.submission import load_submission
from harness.tuning.protocol import load_protocol
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission

GCIDE_BASELINE = BASELINES / "adamw" / "gcide"


def speedrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def run_on_toy(toy: Toy, folder: Path, submission: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    places = ["--task", toy.task.path, "--data-dir", toy.data_dir, "--runs-dir", folder / "runs"]
    return speedrun("run", submission, *places, *arguments)


def test_a_run_ends_with_a_summary(toy: Toy, tmp_path: Path) -> None:
    done = run_on_toy(toy, tmp_path, write_submission(tmp_path / "bigram"))
    assert done.returncode == 0, done.stderr
    for word in ("validation loss", "target", "wall-clock", "tokens", "trust", "bundle"):
        assert word in done.stdout
    assert "the clock has started" in done.stderr


def test_a_detour_of_the_judging_is_named(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = write_submission(tmp_path / "bigram")
    said = json.loads(run_on_toy(toy, tmp_path, submission, "--json").stdout)
    record = read_record(Path(said["bundle"]) / "run.json")
    assert record.judgement is not None and record.judgement["detour"] is None
    print_summary(Finished(record, Path(said["bundle"]), []), submission)
    assert "host memory" not in capsys.readouterr().err
    detoured = record.model_copy(update={"judgement": {**record.judgement, "detour": "cuMemCreate: 2"}})
    print_summary(Finished(detoured, Path(said["bundle"]), []), submission)
    assert "its logits went through host memory (cuMemCreate: 2)" in capsys.readouterr().err


def test_json_is_one_object(toy: Toy, tmp_path: Path) -> None:
    done = run_on_toy(toy, tmp_path, write_submission(tmp_path / "bigram"), "--json")
    said = json.loads(done.stdout)
    assert {"status", "val_loss", "target", "seconds", "tokens", "trust", "run_id", "bundle"} <= set(said)
    assert said["status"] == "JUDGED"
    assert done.stderr == ""


def test_a_failed_run_exits_1_and_says_why(toy: Toy, tmp_path: Path) -> None:
    submission = write_submission(tmp_path / "bigram", SCRIPT.replace("    run.start(model)", "    1 / 0"))
    done = run_on_toy(toy, tmp_path, submission)
    assert done.returncode == 1
    assert "FAILED: crash" in done.stdout
    assert "ZeroDivisionError" in done.stdout


def test_output_of_a_child_cannot_steer_the_terminal(toy: Toy, tmp_path: Path) -> None:
    hostile = "import sys\nprint('\\x1b]0;owned\\x07\\x1b[2J [red]')\nsys.exit(3)\n"
    done = run_on_toy(toy, tmp_path, write_submission(tmp_path / "bigram", hostile))
    assert "\x1b" not in done.stdout
    assert "[red]" in done.stdout


def test_the_template_runs_as_it_is(toy: Toy, tmp_path: Path) -> None:
    made = speedrun("new", "my-attempt", "--into", tmp_path)
    assert made.returncode == 0, made.stderr
    done = run_on_toy(toy, tmp_path, tmp_path / "my-attempt", "--set", "steps=5", "--json")
    assert json.loads(done.stdout)["status"] == "JUDGED", done.stdout


def test_the_template_runs_without_its_method(toy: Toy, tmp_path: Path) -> None:
    speedrun("new", "my-attempt", "--into", tmp_path)
    done = run_on_toy(toy, tmp_path, tmp_path / "my-attempt", "--set", "steps=2", "--drop", "smear", "--json")
    assert json.loads(done.stdout)["status"] == "JUDGED", done.stdout


def test_the_baseline_trains(toy: Toy, tmp_path: Path) -> None:
    done = run_on_toy(toy, tmp_path, GCIDE_BASELINE, "--set", "steps=12", "--json")
    assert json.loads(done.stdout)["val_loss"] < 3.9, done.stdout


@pytest.mark.parametrize("word", ["baseline", "gcide/cpu-1thread/001"])
def test_new_begins_with_what_exists(word: str, tmp_path: Path) -> None:
    made = speedrun("new", "my-adamw", "--from", word, "--into", tmp_path)
    assert made.returncode == 0, made.stderr
    found, baseline = load_submission(tmp_path / "my-adamw"), load_submission(GCIDE_BASELINE)
    assert found.files["train.py"] == baseline.files["train.py"]
    assert found.hparams([]) == baseline.hparams([]) and found.manifest.parent == "gcide/cpu-1thread/001"
    assert [path.name for path in (tmp_path / "my-adamw" / "tuning").iterdir()] == ["protocol.toml"]
    assert load_protocol(found) == load_protocol(baseline)


def test_new_begins_with_another_submission_and_its_protocol(tmp_path: Path) -> None:
    assert speedrun("new", "my-muon", "--from", "gcide-muon", "--into", tmp_path).returncode == 0
    found = load_submission(tmp_path / "my-muon")
    assert "muon" in found.manifest.methods and load_protocol(found).stages.search
    unknown = speedrun("new", "other", "--from", "nothing", "--into", tmp_path)
    assert unknown.returncode == 1 and "no such submission" in unknown.stderr and not (tmp_path / "other").exists()


def test_new_refuses_to_overwrite(tmp_path: Path) -> None:
    speedrun("new", "my-attempt", "--into", tmp_path)
    again = speedrun("new", "my-attempt", "--into", tmp_path)
    assert again.returncode == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize("name", ["../evil", "Name", "a b", ""])
def test_new_refuses_names_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    assert speedrun("new", name, "--into", tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere"), "no such submission"),
        (("run", "baseline", "--class", "2xfast"), "unknown hardware class"),
        (("run", "baseline", "--task", "nothing"), "unknown task"),
        (("run", "baseline", "--set", "lr=1"), "no [hparams.lr]"),
        (("run", "baseline", "--drop", "muon"), "no [methods.muon]"),
        (("journal", "verify", "/nowhere/journal.jsonl"), "journal.jsonl"),
    ],
)
def test_a_user_error_is_one_message_with_a_remedy_and_exit_1(arguments: tuple[str, ...], said: str) -> None:
    done = speedrun(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_errors_exit_2() -> None:
    assert speedrun("run").returncode == 2
    assert speedrun("fly").returncode == 2


def test_board_lists_runs_and_skips_what_it_cannot_read(toy: Toy, tmp_path: Path) -> None:
    run_on_toy(toy, tmp_path, write_submission(tmp_path / "bigram"), "--seed", 5)
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    done = speedrun("board", "--task", "toy", "--runs-dir", tmp_path / "runs")
    assert done.returncode == 0
    assert "toy-bigram" in done.stdout
    assert "broken" in done.stderr
    said = json.loads(speedrun("board", "--task", "toy", "--runs-dir", tmp_path / "runs", "--json").stdout)
    assert [run["seed"] for run in said["runs"]] == [5]


def test_reading_verbs_do_not_import_torch() -> None:
    code = "import sys; import harness.cli.main; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_verb_explains_itself() -> None:
    for verb in ("run", "new", "board", "doctor", "data", "journal", "race", "resume", "calibrate"):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


def test_a_log_row_becomes_a_line_with_remaining_time() -> None:
    line = describe_row({"step": 10, "steps": 40, "loss": 3.5, "seconds": 5.0, "tokens": 1000})
    assert line == "running     step 10 of 40  train loss 3.5000  200 tokens/s  5 s elapsed  15 s remaining"


def test_a_row_without_the_usual_columns_is_shown_too() -> None:
    assert describe_row({"loss": None, "seconds": 0.0, "tokens": 0}) == "running     0 s elapsed"


def test_the_reference_runs_of_the_baseline_are_of_its_present_source() -> None:
    from harness.evidence.series import measurement_version

    references = read_references(GCIDE_BASELINE)
    assert references, f"{GCIDE_BASELINE / REFERENCE_FILE} is missing"
    assert {reference.submission_digest for reference in references} == {load_submission(GCIDE_BASELINE).digest}
    assert {reference.measurement_version for reference in references} == {measurement_version()}


def test_user_errors_carry_their_remedy() -> None:
    assert str(UserError("what", "how")) == "what\n  remedy: how"
