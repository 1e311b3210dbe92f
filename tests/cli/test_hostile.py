"""A submission that tries to steer the terminal through everything it can name, log or print; paths of any kind."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import output
from harness.cli.progress import Progress, describe_row
from harness.core import protocol
from harness.core.plan import Event
from harness.core.protocol import Listener
from harness.errors import UserError
from harness.paths import ROOT
from tests.cli.test_run import run_on_toy, speedrun
from tests.conftest import Toy, make_toy
from tests.toy_submission import MANIFEST, SCRIPT, write_submission

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]:smile:\r\nvalidation loss  0.0001\ud800"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]:smile:\r\nvalidation loss  0.0001\ud800"
TOML_ESCAPES = json.dumps(ESCAPES.rstrip("\ud800"))
UNPRINTABLE = {"\x1b", "\x07", "\x9b", "\u202e", "\r", "\ud800"}


def harmless(done: subprocess.CompletedProcess[str]) -> bool:
    return not UNPRINTABLE & set(done.stdout + done.stderr) and "Traceback" not in done.stderr


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stdout.splitlines()


def hostile_manifest() -> str:
    """The title and the author are the escapes."""
    return MANIFEST.replace('"A bigram table"', TOML_ESCAPES).replace('"tests"', TOML_ESCAPES)


def hostile_script(ending: str) -> str:
    """The toy, but it names its log columns with escapes, prints them, and ends as told."""
    printed = f"    sys.stdout.buffer.write({ESCAPES.encode('utf-8', 'surrogatepass')!r} * 3); print()\n"
    logged = f"    run.log(**{{{ESCAPES!r}: 1.0, 'step': 1e299, 'steps': 1e-299, 'loss': -1e200}})\n"
    return SCRIPT.replace("import torch\n", "import sys, torch\n", 1).replace(
        "    run.finish(model)", f"{logged}{printed}    {ending}"
    )


def test_a_submission_that_crashes_with_escapes_is_shown_escaped(toy: Toy, tmp_path: Path) -> None:
    script = hostile_script(f"raise ValueError({ESCAPES!r}.encode('utf-8', 'surrogatepass').decode('latin-1'))")
    submission = write_submission(tmp_path / "bigram\x1b[2J\n  evil", script, hostile_manifest())
    done = run_on_toy(toy, tmp_path, submission)
    assert done.returncode == 1
    assert harmless(done)
    assert "FAILED: crash" in lines_of(done)
    assert not any(line.startswith("validation loss") for line in lines_of(done))
    assert any(
        line.startswith(r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]:smile:\r\nvalidation") for line in lines_of(done)
    )
    bundle = next((tmp_path / "runs").glob("*/run.json"))
    assert bundle.parent.name.isascii() and bundle.parent.name.isprintable()
    assert all(
        path.read_bytes().isascii()
        for path in (bundle, bundle.with_name("log.jsonl"), tmp_path / "runs" / "journal.jsonl")
    )
    for verb in (
        ("board", "--task", "toy", "--runs-dir", tmp_path / "runs"),
        ("journal", "show", tmp_path / "runs" / "journal.jsonl"),
    ):
        assert harmless(speedrun(*verb))
        assert json.loads(speedrun(*verb, "--json").stdout)
    assert speedrun("journal", "verify", tmp_path / "runs" / "journal.jsonl").returncode == 0


def test_a_submission_that_finishes_is_judged_by_its_weights_alone(toy: Toy, tmp_path: Path) -> None:
    submission = write_submission(tmp_path / "bigram", hostile_script("run.finish(model)"), hostile_manifest())
    done = run_on_toy(toy, tmp_path, submission, "--json")
    said = json.loads(done.stdout)
    assert done.stdout.isascii()
    assert done.stderr == ""
    assert said["status"] == "JUDGED"
    assert 0.5 < said["val_loss"] < 4.5
    table = json.loads((Path(said["bundle"]) / "run.json").read_text())
    assert table["title"] == json.loads(TOML_ESCAPES)
    assert table["val_loss"] == said["val_loss"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", ESCAPES[:-1]),
        ("run", "baseline", "--class", ESCAPES[:-1]),
        ("run", "baseline", "--set", ESCAPES[:-1]),
        ("run", "baseline", "--drop", ESCAPES[:-1]),
        ("run", "baseline", "--task", f"{ESCAPES[:-1]}.toml"),
        ("run", f"--{ESCAPES[:-1]}"),
        (ESCAPES[:-1],),
        ("board", "--task", ESCAPES[:-1], "--runs-dir", ESCAPES[:-1]),
        ("data", "verify", ESCAPES[:-1]),
        ("journal", "verify", ESCAPES[:-1]),
        ("new", ESCAPES[:-1]),
    ],
)
def test_the_command_line_is_quoted_escaped_too(arguments: tuple[str, ...]) -> None:
    done = speedrun(*arguments)
    assert harmless(done)
    assert r"\x1b" in done.stdout + done.stderr


def test_a_manifest_with_escapes_in_its_names_is_refused_in_one_line(toy: Toy, tmp_path: Path) -> None:
    hostile = f"{json.dumps(ESCAPES[:-1] + chr(10) + '  remedy: trust me')} = 1\n" + MANIFEST
    done = run_on_toy(toy, tmp_path, write_submission(tmp_path / "bigram", manifest=hostile))
    assert done.returncode == 1
    assert harmless(done)
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.splitlines()[1].startswith("  remedy: correct")


@pytest.mark.parametrize(
    "text",
    ["\x1b", "\x9b", "\0", "\u202e", "\u2066", "\u200b", "\ud800", "\n", "\r", "\t", "\x7f", "\u2028", "\U000e0001"],
)
def test_no_line_break_control_or_direction_mark_is_left(text: str) -> None:
    assert output.clean(f"a{text}b") == f"a{text.encode('unicode_escape', 'surrogatepass').decode()}b"


def test_what_people_write_is_left_as_it_is() -> None:
    assert output.clean("Grüße, 世界, (naïve) [red] :smile: \\n") == "Grüße, 世界, (naïve) [red] :smile: \\n"


def test_later_lines_of_foreign_text_are_marked_as_quoted() -> None:
    assert output.clean_lines("it said:\nok\r\n\tend") == "it said:\n  | ok\n  |     end"


def shown(monkeypatch: pytest.MonkeyPatch, name: str, terminal: bool = False) -> io.StringIO:
    said = io.StringIO()
    monkeypatch.setattr(
        output, name, Console(file=said, highlight=False, soft_wrap=True, force_terminal=terminal, width=200)
    )
    return said


def test_neither_markup_nor_emoji_in_foreign_text_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, "console", terminal=True)
    output.line(f"[bold]a[/bold] :smile: \\[ {ESCAPES}")
    output.lines(f"x\n{ESCAPES}")
    output.table(["name"], [[f"[red]b {ESCAPES}"], ["x" * 1000]])
    assert "[bold]a[/bold] :smile: \\[ " + SHOWN in said.getvalue()
    assert "[red]b " + SHOWN in said.getvalue()
    assert "\x1b]0" not in said.getvalue() and "\x1b[31m" not in said.getvalue()
    assert "x" * 201 not in said.getvalue()


def test_the_line_on_a_terminal_shows_escapes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, "errors", terminal=True)
    with Progress() as progress:
        progress(Event("note", {"text": ESCAPES}))
        progress(Event("state", {"state": "RUNNING"}))
        progress(
            Event("log", {"rows": [{ESCAPES: 1.0, "seconds": 1e-300, "tokens": 1e299, "step": -1e299, "steps": 1.0}]})
        )
    assert SHOWN.split(r"\r\n")[0] in said.getvalue()
    assert not {"\x07", "\x9b", "\u202e"} & set(said.getvalue())
    assert "\x1b]0" not in said.getvalue()


def test_numbers_that_no_person_can_read_do_not_flood_the_line() -> None:
    row = {"step": 1e299, "steps": 1e-299, "loss": 1e299, "seconds": 1e-299, "tokens": -1e299}
    assert len(describe_row(row)) < 150


def test_json_for_programs_is_valid_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_json({"a": [float("nan"), (float("inf"), 1.5)], ESCAPES: ESCAPES})
    said = capsys.readouterr().out
    assert said.isascii()
    assert json.loads(said) == {"a": [None, [None, 1.5]], ESCAPES: ESCAPES}


def test_an_error_of_ours_keeps_its_traceback_without_the_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, "errors")
    try:
        raise RuntimeError(ESCAPES)
    except RuntimeError as error:
        output.show_traceback(RuntimeError, error, error.__traceback__)
    assert "Traceback (most recent call last)" in said.getvalue()
    assert "RuntimeError: \\x1b]0;owned" in said.getvalue()
    assert not UNPRINTABLE & set(said.getvalue())


def test_a_terminal_without_utf_8_is_no_reason_to_fail(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli.main", "board", "--task", "gcide", "--runs-dir", str(tmp_path)]
    (tmp_path / "ü").mkdir()
    (tmp_path / "ü" / "run.json").write_text(
        json.dumps({"task": "gcide", "hardware_class": "cpu-1thread", "run_id": "ü"})
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "\\xfc" in done.stdout


NAMES = ["ünï cödé  ", "世界 [red] ' \" $HOME;", "-dash", "x" * 200, os.fsdecode(b"latin-\xfc")]


@pytest.mark.parametrize("name", NAMES)
def test_runs_from_and_into_folders_of_any_name(tmp_path: Path, name: str) -> None:
    """Submission, task file, data and runs in such folders, the runs folder behind a link as well."""
    base = tmp_path / name
    base.mkdir()
    toy = make_toy(base)
    (base / "real runs").mkdir()
    (base / "runs").symlink_to(base / "real runs")
    submission = write_submission(base / name)
    done = run_on_toy(toy, base, submission, "--json", "--set", "steps=3")
    said = json.loads(done.stdout)
    assert said["status"] == "JUDGED", said
    assert Path(said["bundle"]).parent == (base / "real runs").resolve()
    journal = base / "runs" / "journal.jsonl"
    assert json.loads(speedrun("journal", "verify", journal, "--json").stdout)["ok"]
    board = speedrun("board", "--task", "toy", "--runs-dir", base / "runs", "--json")
    assert [run["run_id"] for run in json.loads(board.stdout)["runs"]] == [said["run_id"]]


def test_a_path_far_longer_than_a_socket_address_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path.joinpath(*["long" * 20] * 5)
    base.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(base))
    done = run_on_toy(make_toy(base), base, write_submission(base / "bigram"), "--json", "--set", "steps=3")
    assert json.loads(done.stdout)["status"] == "JUDGED", done.stdout + done.stderr


def test_a_socket_leaves_a_folder_whose_path_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    listener = Listener()
    try:
        assert len(os.fsencode(listener.path)) <= protocol.MAX_SOCKET_PATH
    finally:
        listener.close()


def test_errors_keep_foreign_lines_apart_from_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, "errors")
    output.error(UserError("pip said:\n  remedy: trust me", "the real\none"))
    assert said.getvalue() == "error: pip said:\n  |   remedy: trust me\n  remedy: the real\\none\n"
