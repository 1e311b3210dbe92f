"""Whole runs of a small real submission: bundle, journal, reproducibility, failures that are kept."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness import campaign
from harness.bundle import changed_bundles, read_record
from harness.campaign import Finished, Request, run_once
from harness.core.plan import Node
from harness.core.printed import Printed, smaller_batch
from harness.core.task import hardware_class
from harness.errors import UserError
from harness.journal import Journal, verify
from harness.machine import Gpu, fingerprint
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission


def request(toy: Toy, folder: Path, script: str = SCRIPT, hardware: str = "cpu-1thread", **changes: object) -> Request:
    source = folder / f"bigram-{len(list(folder.glob('bigram-*')))}"
    submission = load_submission(write_submission(source, script), toy.task)
    fields = {"seed": 3, **changes}
    return Request(submission, hardware_class(hardware), toy.data_dir, folder / "runs", **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_once(request(toy, tmp_path_factory.mktemp("campaign")))


def test_a_run_learns_and_is_judged(finished: Finished) -> None:
    record = finished.record
    assert record.state == "JUDGED", record.message
    assert record.val_loss is not None and record.val_loss < 3.9 < math.log(64)
    assert record.reached_target
    assert record.tokens == 30 * 8 * 32
    assert record.seconds is not None and record.export_seconds is not None
    assert 0 < record.export_seconds < record.seconds


def test_the_bundle_holds_the_run_the_log_and_the_source(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"run.json", "log.jsonl", "output.txt", "source"} <= names
    assert read_record(finished.folder / "run.json").model_dump_json() == finished.record.model_dump_json()
    rows = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[-1]["tokens"] == 30 * 8 * 32
    assert (finished.folder / "source" / "train.py").read_text() == SCRIPT


def test_every_digest_is_stamped(finished: Finished) -> None:
    assert all(len(digest or "") == 64 for digest in finished.record.digests.values())


def test_the_journal_has_both_lines_and_verifies(finished: Finished) -> None:
    journal = finished.folder.parent / "journal.jsonl"
    assert verify(journal).ok
    assert [(entry.event, entry.run) for entry in Journal(journal).entries()] == [
        ("start", finished.record.run_id),
        ("end", finished.record.run_id),
    ]


def test_the_same_seed_gives_the_same_loss(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    again = run_once(request(toy, tmp_path)).record
    assert again.val_loss == finished.record.val_loss
    assert again.digests["weights"] == finished.record.digests["weights"]


def test_dropping_a_method_changes_the_run(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    dropped = run_once(request(toy, tmp_path, dropped=["momentum"])).record
    assert dropped.methods == {"momentum": False}
    assert dropped.val_loss != finished.record.val_loss


def test_two_processes_train_one_model(toy: Toy, tmp_path: Path) -> None:
    script = SCRIPT.replace(
        "    run.start(model)",
        "    import torch.distributed as dist\n"
        "    dist.init_process_group('gloo')\n"
        "    model = torch.nn.parallel.DistributedDataParallel(model)\n"
        "    run.start(model)",
    )
    record = run_once(request(toy, tmp_path, script, "2xcpu-1thread")).record
    assert record.state == "JUDGED", record.message
    assert record.tokens == 2 * 30 * 8 * 32
    assert record.reached_target


def test_a_model_that_ignores_its_seed_does_not_start(toy: Toy, tmp_path: Path) -> None:
    record = run_once(request(toy, tmp_path, SCRIPT.replace("    torch.manual_seed(run.seed)\n", ""))).record
    assert record.reason == "weights-changed-before-start"


def test_changed_tensors_are_refused_at_finish(toy: Toy, tmp_path: Path) -> None:
    script = SCRIPT.replace("    run.finish(model)", "    run.finish(torch.nn.Linear(2, 2))")
    record = run_once(request(toy, tmp_path, script)).record
    assert record.reason == "crash"
    assert "the model's tensors are not those of run.start" in record.message


def test_an_undeclared_name_says_what_to_add(toy: Toy, tmp_path: Path) -> None:
    record = run_once(request(toy, tmp_path, SCRIPT.replace('uses("momentum")', 'uses("muon")'))).record
    assert record.reason == "crash"
    assert "add a table [methods.muon]" in record.message


FULL = "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9.00 GiB')"


def test_a_full_gpu_says_which_setting_to_lower(toy: Toy, tmp_path: Path) -> None:
    script = SCRIPT.replace("    run.start(model)", f"    run.start(model); {FULL}")
    message = run_once(request(toy, tmp_path, script)).record.message
    assert "CUDA out of memory" in message and message.endswith("train on fewer rows at once")
    assert smaller_batch(message, {"batch": 512, "micro_batch": 32}).endswith("try --set micro_batch=16")
    assert smaller_batch(message, {"batch": 512, "micro_batch": 1}).endswith("try --set batch=256")
    assert smaller_batch("ZeroDivisionError", {"batch": 512}) == ""


def test_the_rank_whose_gpu_was_full_is_found_before_the_last_lines(tmp_path: Path) -> None:
    printed = Printed(tmp_path / "output.txt", 1 << 20)
    printed.add(f"{FULL}\n".encode() + b"another rank was ended\n" * 50)
    said = printed.last_words({"micro_batch": 8})
    assert FULL not in said and said.endswith("try --set micro_batch=4")


@pytest.mark.parametrize(("name", "nodes"), [("1xA100", 1), ("4xH100", 1), ("8xH100", 2)])
def test_a_class_of_other_gpus_than_the_machines_is_refused(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nodes: int
) -> None:
    gpus = (Gpu("NVIDIA H100 80GB HBM3", None, "570", split=False),) * 2
    monkeypatch.setattr(campaign, "fingerprint", lambda: replace(fingerprint(), gpus=gpus))
    monkeypatch.setattr(campaign, "_check", lambda request: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = replace(request(toy, tmp_path, SCRIPT), hardware=hardware_class(name), node=Node(count=nodes))
    with pytest.raises(UserError, match=f"{name}: a run takes .* it has: 2 H100"):
        run_once(asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=1: a run takes the machine's first"):
        run_once(asked)


def test_a_full_gpu_while_judging_says_so_too(toy: Toy, tmp_path: Path) -> None:
    script = SCRIPT.replace("        return self.table(tokens)", f"        {FULL}").replace(
        "model(inputs)", "model.table(inputs)"
    )
    record = run_once(request(toy, tmp_path, script)).record
    assert record.reason == "model-host-crash"
    assert record.message.endswith("lower batch or length under [evaluation] in submission.toml")


def test_a_failed_run_is_kept_and_journalled(toy: Toy, tmp_path: Path) -> None:
    done = run_once(request(toy, tmp_path, "raise SystemExit('no')"))
    assert read_record(done.folder / "run.json").reason == "crash"
    assert verify(tmp_path / "runs" / "journal.jsonl").ok


def test_unprepared_data_is_said_before_anything_runs(toy: Toy, tmp_path: Path) -> None:
    plain = request(toy, tmp_path)
    with pytest.raises(UserError, match="not prepared"):
        run_once(Request(plain.submission, plain.hardware, tmp_path / "nothing", plain.runs_dir))
    assert not plain.runs_dir.exists()


def test_a_runs_folder_that_cannot_be_made_is_said(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="--runs-dir"):
        run_once(request(toy, tmp_path))


def test_seeds_are_drawn_when_not_given(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn(Exception):
        pass

    seeds = []

    def capture(plan: campaign.Plan, *_: object) -> None:
        seeds.append(plan.seed)
        raise Drawn

    monkeypatch.setattr(campaign, "Referee", capture)
    for _ in range(2):
        with pytest.raises(Drawn):
            run_once(request(toy, tmp_path, seed=None))
    assert seeds[0] != seeds[1]


def test_a_changed_bundle_is_found(toy: Toy, tmp_path: Path) -> None:
    done = run_once(request(toy, tmp_path))
    closed = {done.record.run_id: hashlib.sha256((done.folder / "run.json").read_bytes()).hexdigest()}
    assert changed_bundles(done.folder.parent, closed) == []
    (done.folder / "log.jsonl").write_text("{}\n")
    assert changed_bundles(done.folder.parent, closed) == [f"{done.record.run_id}: log.jsonl was changed after the run"]
    (done.folder / "run.json").write_text((done.folder / "run.json").read_text().replace("JUDGED", "RECORD"))
    assert "run.json was changed" in changed_bundles(done.folder.parent, closed)[0]


def test_a_disk_that_fills_up_closes_the_journal(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(campaign, "write_bundle", full)
    with pytest.raises(UserError, match="No space left"):
        run_once(request(toy, tmp_path, "raise SystemExit(1)"))
    entries = Journal(tmp_path / "runs" / "journal.jsonl").entries()
    assert [entry.status for entry in entries] == [None, "harness-error"]


def test_a_module_beside_the_submission_is_not_imported_by_the_judge(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = request(toy, tmp_path)
    trap = tmp_path / "trap"
    (trap / "harness").mkdir(parents=True)
    for name in ("json.py", "numpy.py", "harness/__init__.py"):
        (trap / name).write_text("raise SystemExit('trapped')\n")
    monkeypatch.chdir(trap)
    assert run_once(plain).record.state == "JUDGED"
