"""Foreign logs: each format, copies and repeats, and files that are no logs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from leaderboard.import_logs import groups, parse_log, read_logs, run_rows
from tests.cli.test_run import speedrun

SOURCE = "import torch\nprint('step:{step} val_loss:{loss}')\n"
RULER = "=" * 100
SMI = "| NVIDIA-SMI 570.148.08  Driver Version: 570.148.08  CUDA Version: 12.8 |\n" + "".join(
    f"|   {gpu}  NVIDIA H100 80GB HBM3          On  |   00000000:61:00.0 Off |          0 |\n" for gpu in range(8)
)


def log(losses: list[float], milliseconds: int = 1000, source: str = SOURCE, every: int = 125) -> str:
    """A log as tracks 1 and 2 write it."""
    steps = every * (len(losses) - 1)
    lines = []
    for index, loss in enumerate(losses):
        step = index * every
        lines.append(f"step:{step}/{steps} val_loss:{loss:.4f} train_time:{step * milliseconds}ms step_avg:10.00ms")
        lines.append(f"step:{step + 1}/{steps} train_time:{step * milliseconds}ms step_avg:10.00ms")
    head = (
        f"{source}{RULER}\nRunning Python 3.12.7\nRunning PyTorch 2.10.0+cu128 compiled for CUDA 12.8\n{SMI}{RULER}\n"
    )
    return head + "\n".join(lines) + "\n"


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_milliseconds_machine_and_source(tmp_path: Path) -> None:
    (run,) = parse_log(tmp_path / "a.txt", log([10.8, 4.0, 3.27]).encode())
    assert (run.last.step, run.last.loss, run.last.seconds) == (250, 3.27, 250.0)
    assert (run.environment.gpus, run.environment.machine) == (8, "NVIDIA H100 80GB HBM3")
    assert (run.environment.torch, run.environment.driver) == ("2.10.0+cu128", "570.148.08")
    assert run.complete
    assert len(run.source) == 10


def test_source_between_the_first_two_rulers(tmp_path: Path) -> None:
    early = log([10.8, 4.0]).replace(SOURCE, f"{RULER}\n{SOURCE}", 1)
    (run,) = parse_log(tmp_path / "a.txt", early.encode())
    (plain,) = parse_log(tmp_path / "b.txt", log([10.8, 4.0]).encode())
    assert run.source == plain.source


def test_seconds_and_several_runs_in_a_file(tmp_path: Path) -> None:
    trial = "".join(f"step:{s}/20 val_loss:3.{s:05d} train_time:{s / 10:.3f}s step_avg:nanms\n" for s in (0, 10, 20))
    other = trial.replace("3.000", "3.001")
    runs = parse_log(tmp_path / "a.txt", f"{RULER}\n{trial}{other}".encode())
    assert [run.name for run in runs] == ["a#1", "a#2"]
    assert runs[0].last.seconds == 2.0
    assert runs[1].last.loss == 3.0012


def test_a_summary_that_echoes_lines_is_no_run(tmp_path: Path) -> None:
    trial = "".join(f"step:{s}/20 val_loss:3.{s:05d} train_time:{s}ms\n" for s in (0, 10, 20))
    echo = "step:10/20 val_loss:3.00010 train_time:10ms\n"
    assert len(parse_log(tmp_path / "a.txt", (trial + echo).encode())) == 1


def test_llm_c(tmp_path: Path) -> None:
    text = "s:0 tel:10.97\ns:0 trl:10.9 lr:0.001\ns:128 tel:6.03\n"
    (run,) = parse_log(tmp_path / "main.log", text.encode())
    assert [(point.step, point.loss) for point in run.points] == [(0, 10.97), (128, 6.03)]
    assert run.last.seconds is None


def test_statistics_by_source_and_steps(tmp_path: Path) -> None:
    write(tmp_path, a=log([10.8, 4.0, 3.278]), b=log([10.8, 4.1, 3.277], 1001), c=log([10.8, 4.2, 3.279], 1002))
    write(tmp_path, other=log([10.8, 4.0, 3.2], source="import os\n"))
    first, second = groups(read_logs([tmp_path]).runs, target=3.28)
    assert (first.runs, first.counted) == (3, 3)
    assert first.loss_mean == pytest.approx(3.278)
    assert first.loss_std == pytest.approx(0.001)
    assert first.p_value == pytest.approx(0.0370, abs=1e-4)  # t = 2 / (1 / sqrt(3)) = 3.464 with two degrees of freedom
    assert first.time_mean == pytest.approx(250.25)
    assert (second.counted, second.p_value) == (1, None)


def test_a_common_step_before_the_end(tmp_path: Path) -> None:
    write(tmp_path, a=log([10.8, 3.3, 3.2]), b=log([10.8, 3.1, 3.0]))
    (group,) = groups(read_logs([tmp_path]).runs, target=3.28, step=125)
    assert group.loss_mean == pytest.approx(3.2)


def test_copies_and_repeated_seeds_are_not_counted(tmp_path: Path) -> None:
    losses = [10.8, 4.1, 3.9, 3.7, 3.6, 3.5, 3.278]
    write(tmp_path, a=log(losses), b_copy=log(losses), c_rerun=log([*losses[:-1], 3.279], 1001))
    write(tmp_path, d_seed7=log([10.8, 4.2, 3.8]), e_seed7=log([10.8, 4.3, 3.9]), f_seed8=log([10.8, 4.4, 3.9]))
    found = {run.name: run for run in read_logs([tmp_path]).runs}
    assert found["b_copy"].copy_of == str(tmp_path / "a")
    assert found["c_rerun"].repeat_of == str(tmp_path / "a")
    assert found["e_seed7"].repeat_of == str(tmp_path / "d_seed7")
    assert found["f_seed8"].counted
    assert [row["duplicate_of"] is None for row in run_rows(found.values())] == [run.counted for run in found.values()]


def test_a_diverged_run_ends_where_its_loss_did(tmp_path: Path) -> None:
    text = log([10.8, 4.0, 3.5]).replace("val_loss:3.5000", "val_loss:nan")
    (run,) = parse_log(tmp_path / "a.txt", text.encode())
    assert run.last.step == 125
    assert not run.complete


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("hello", "no line of a known format"),
        ("step:1/2 train_time:5ms", "no validation loss"),
        ("val_loss=3.2", "without a step"),
        ("\0\1", "binary"),
    ],
)
def test_what_is_no_log_is_named_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path, good=log([10.8, 3.2]), bad=text)
    found = read_logs([tmp_path])
    assert [run.name for run in found.runs] == ["good"]
    assert reason in found.unread[str(tmp_path / "bad.txt")]


def test_the_verb_prints_groups_and_names_what_it_could_not_read(tmp_path: Path) -> None:
    write(tmp_path, a=log([10.8, 4.0, 3.278]), b=log([10.8, 4.1, 3.277]), bad="\x1b[2Jhello")
    done: subprocess.CompletedProcess[str] = speedrun("import-logs", tmp_path)
    assert done.returncode == 0
    assert "n = 2" in done.stdout
    assert "8 NVIDIA H100 80GB HBM3" in done.stdout
    assert "bad.txt: no line of a known format" in done.stderr
    said = json.loads(speedrun("import-logs", tmp_path, "--json").stdout)
    assert said["groups"][0]["counted"] == 2
    assert list(said["unread"]) == [str(tmp_path / "bad.txt")]
    assert speedrun("import-logs", tmp_path, "--csv").stdout.splitlines()[0].startswith("source,step,runs")


def test_without_any_run_the_verb_fails(tmp_path: Path) -> None:
    write(tmp_path, bad="hello")
    done = speedrun("import-logs", tmp_path)
    assert done.returncode == 1
    assert "no run in these files" in done.stderr
    missing = speedrun("import-logs", tmp_path / "nowhere")
    assert missing.returncode == 1
    assert "no such file" in missing.stderr
