"""How long the site takes for a history of many own records. No training, any machine.

    python benchmarks/board_build.py [--records 999] > benchmarks/results/board_build.md

The records are made up: every one is the baseline's source with a few lines of its own, raced in four pairs. One is
written by the harness; the others are copies of it with another number, parent, day, score and method.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.campaign import SEED_LIMIT
from harness.core.task import load_task
from harness.evidence.course import JUDGED, RunLine
from harness.evidence.filing import file_record
from harness.evidence.folder import Campaign, create_campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, Calibration
from harness.evidence.race import plan_baseline, plan_race
from harness.evidence.records import history
from harness.evidence.sides import Side, Where
from harness.evidence.verdict import keep_verdict
from harness.frozen import core_digest
from harness.machine import fingerprint
from harness.paths import BASELINES
from harness.statistics import Slope, Verdict
from harness.submission import load_submission
from leaderboard import site

TASK = load_task("gcide")
MOST = 999  # what three digits number on one board; the imported history adds 155
HOURS = 7  # between two made-up records
CALIBRATION = Calibration(
    task="gcide", hardware_class="cpu-1thread", provisional=False, source="made up", measured="2026-01-01",
    submission=None, core_digest=None, task_digest=None, data_digest=None, machine="made up", machine_digest="0" * 64,
    runs=18, loss_spread=0.005, clock_variation=0.004, slope=Slope(0.25, 0.01, 15), curvature_p=None, run_seconds=60.0,
    total_seconds=70.0,
)  # fmt: skip
METHOD = '\n[methods.{0}]\nkind = "architecture"\nsummary = "Made up."\nsource = "nobody"\n'


def main() -> None:
    """Makes the history, times reading it and building the site, prints a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--records", type=int, default=MOST)
    count = options.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        where = Where("gcide", "cpu-1thread", Path(folder) / "records")
        made_up_history(where, Path(folder), count)
        started, begin = time.perf_counter(), time.process_time()
        content = site.read(where.records)
        read = time.process_time()
        pages = site.build(Path(folder) / "site", content)
        built, ended = time.process_time(), time.perf_counter()
        home = (Path(folder) / "site" / "index.html").stat().st_size
        load = os.getloadavg()[0]
        rows = [
            ("own records", f"{count:,}"),
            ("records with the imported ones", f"{len(content.store.records):,}"),
            ("pages", f"{pages:,}"),
            ("reading all, CPU seconds", f"{read - begin:.1f}"),
            ("writing the site, CPU seconds", f"{built - read:.1f}"),
            ("both, CPU seconds (limit 10 for 1,000 records)", f"{built - begin:.1f}"),
            ("both, wall-clock seconds", f"{ended - started:.1f}"),
            ("home page, KB", f"{home / 1000:.0f}"),
        ]
    print(f"# Building the site\n\n`python benchmarks/board_build.py --records {count}`,", end=" ")
    machine = fingerprint()
    print(f"{datetime.date.today()}. {machine.cpu}, {machine.allowed_cores} cores, {load:.1f} processes running or")
    print("waiting on average over the last minute (1.0 is this one alone), one run.\n")
    print("| what | |\n|---|--:|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def made_up_history(where: Where, folder: Path, count: int) -> None:
    """A history of that many records, each with its attempt."""
    drawn = random.Random(1)
    names = [filed(where, folder, number, drawn) for number in (1, 2)]
    second, baseline = where.records / names[1], where.records / names[0]
    table = json.loads((second / "record.json").read_text())
    parent = names[1]
    for number in range(3, count + 1):
        place = baseline.with_name(f"{number:03d}-made-up")
        shutil.copytree(second, place)
        declare(place / "submission", number)
        day = datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=HOURS * number)
        method = {"kind": "architecture", "summary": "Made up.", "source": "nobody"}
        changes: dict[str, object] = {
            "id": f"gcide/cpu-1thread/{place.name}", "parent": parent,
            "submission": load_submission(place / "submission", TASK).digest, "filed": f"{day:%Y-%m-%d}",
            "title": f"Made up, number {number}", "authors": [f"@person{drawn.randrange(99)}"],
            "seconds": 60 * 0.998**number, "methods": {f"m{number}": method}, "methods_added": [f"m{number}"],
            "methods_dropped": [f"m{number - 9}"] if number > 12 else [],
        }  # fmt: skip
        (place / "record.json").write_text(json.dumps(table | changes))
        parent = str(changes["id"])


def declare(submission: Path, number: int) -> None:
    """Adds a method and some lines to a copy of the source."""
    for path in submission.iterdir():
        path.chmod(0o644)
    manifest, script = submission / "submission.toml", submission / "train.py"
    manifest.write_text(manifest.read_text() + METHOD.format(f"m{number}"))
    script.write_text(script.read_text() + "".join(f"MADE_UP_{n} = {n}\n" for n in range(number % 40)))


def filed(where: Where, folder: Path, number: int, drawn: random.Random) -> str:
    """The first or second record, filed by the harness from made-up runs; its folder under records/."""
    source = Path(shutil.copytree(BASELINES / "adamw" / "gcide", folder / f"number-{number}", dirs_exist_ok=True))
    shutil.rmtree(source / "tuning", ignore_errors=True)
    declare(source, number)
    side = Side(f"number-{number}", load_submission(source, TASK))
    machine, now = fingerprint(), datetime.datetime.now(datetime.UTC)
    parent = where.records / "gcide" / "cpu-1thread" / "attempts"
    campaign: Campaign[Any]
    if number == 1:
        plan = plan_baseline(side, where.hardware, CALIBRATION, machine, now)
        campaign = create_campaign(parent, plan, {CANDIDATE: side.submission})
    else:
        other = load_submission(history(where)[-1] / "submission", TASK)
        race = plan_race((side, Side("number-1", other)), where.hardware, 16, CALIBRATION, machine, now)
        campaign = create_campaign(parent, race, {CANDIDATE: side.submission, REFERENCE: other})
    while (verdict := keep_verdict(campaign)) is None:
        campaign.append(line(campaign, drawn))
    assert verdict.verdict is Verdict.RECORD, verdict
    return file_record(campaign, where, side.name, now).relative_to(where.records).as_posix()


def line(campaign: Campaign[Any], drawn: random.Random) -> RunLine:
    """The run that is due, judged: the candidate takes four fifths of the time."""
    slot = campaign.course.next
    assert slot is not None and slot.seed < SEED_LIMIT
    seconds = (48.0 if slot.arm == CANDIDATE else 60.0) * (1 + 0.002 * drawn.gauss(0, 1))
    return RunLine(
        number=slot.number, block=slot.block, arm=slot.arm, attempt=slot.attempt, seed=slot.seed,
        run_id=f"made-up-{slot.number}", started="2026-01-01T00:00:00", status=JUDGED, message="",
        val_loss=campaign.plan.target - 0.01 + 0.002 * drawn.gauss(0, 1), seconds=seconds, cpu_seconds=seconds,
        lost_seconds=0.0, total_seconds=seconds + 10, tokens=1_000_000, tokens_counted_by="referee", trust="isolated",
        run_digest=core_digest(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
