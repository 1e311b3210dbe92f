"""`python -m tests.toy_run ARGUMENTS` is `speedrun ARGUMENTS` with a toy for each process that would import torch.

Referee, judge, sandbox and journal are the real ones; the script, its model hosts and their answers are spelled out
in messages of the protocol. The hyperparameter `at` is a place where the process that gets there writes the file
`here` into its scratch folder and waits until the file is gone; `does` is something that the script does amiss.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.core import clock, host, judge, limits
from tests.core.children import PRELUDE

MANIFEST = """
task = "toy"
title = "A toy without torch"
authors = ["tests"]

[evaluation]
batch = 4
length = 16

[hparams.at]
default = ""
choices = ["", "set-up", "running", "exporting", "build", "host", "shadow"]

[hparams.does]
default = ""
choices = ["", "forks", "prints", "logs", "fills memory", "fills scratch"]
"""

WAIT = """
import os, time
reached = []
def reach(place, at):
    if place != at or reached:
        return
    reached.append(place)
    open("here", "w").close()
    end = time.monotonic() + 120
    while os.path.exists("here") and time.monotonic() < end:
        time.sleep(0.02)
"""

# Every crowd, flood and heap here is bounded: whoever shares the machine must not notice.
SCRIPT = f"""{PRELUDE}{WAIT}
run = connect_run()
at, does = run.hparam("at"), run.hparam("does")
last = run.rank == run.world_size - 1
reach("set-up", at if last else "")
start(run)
run.stream.take(100)
run.log(step=1, loss=2.5)
reach("running", at if last else "")
if does == "forks":
    crowd = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(150)]
    time.sleep(30)
if does == "prints":
    for _ in range(2000):
        print("x" * 5000)
if does == "logs":
    for step in range(20_000):
        run.log(step=step, loss=0.0)
if does == "fills memory":
    kept = bytearray(250_000_000)
    for place in range(0, len(kept), 4096):
        kept[place] = 1
    time.sleep(30)
if does == "fills scratch":
    with open("large", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
reach("exporting", at if last else "")
finish(run)
"""

HOST = f"""{WAIT}
from pathlib import Path
from harness.core.protocol import connect
from harness.core.slots import Slots
channel = connect(0)
welcome = channel.receive()
here, at = Path.cwd().name, welcome.fields["context"]["hparams"]["at"]
if here == "build":
    reach("build", at)
channel.send("tensors", items=[{{"name": "weight", "shape": [4], "dtype": "F32", "alias_of": None}}])
channel.send("built", digest="toy")
while (message := channel.receive(descriptors=True)) is not None:
    fields = message.fields
    if message.kind == "load":
        batch, length = fields["batch"], fields["length"]
        channel.send("loaded")
        channel.send("columns", count=64, dtype="float32")
    elif message.kind == "slots":
        slots = Slots(message.descriptors[0], fields["count"], batch, length, fields["columns"])
        channel.send("shared", refused="")
    elif message.kind == "forward":
        reach(here, at)
        slots.logits[fields["slot"]][:] = 0
        channel.send("done", slot=fields["slot"])
"""

SLEPT = "SPEEDRUN_TEST_SLEPT"  # names a file: while it is there, this machine has slept for 30 s
JUDGE = "--judge"
TASKS = 100


def write_toy(folder: Path) -> Path:
    """Writes the toy submission."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "submission.toml").write_text(MANIFEST)
    return folder


def main() -> None:
    """Puts the toys in place and becomes the command line, or the judge."""
    host.COMMAND = [sys.executable, "-P", "-c", HOST]
    judge.COMMAND = [sys.executable, "-P", "-m", "tests.toy_run", JUDGE]
    limits.TASKS["run", False] = TASKS
    if SLEPT in os.environ:
        clock.suspended = lambda: 30.0 * Path(os.environ[SLEPT]).exists()
    if sys.argv[1:] == [JUDGE]:
        judge.main()
    else:
        from harness.cli.main import main

        main()


if __name__ == "__main__":
    main()
