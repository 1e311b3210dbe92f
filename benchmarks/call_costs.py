"""What the harness adds inside a step: the time of run.stream.next and run.log, against the step of the baseline.

    python benchmarks/call_costs.py --step-ms 60

Whole steps vary by several per cent from process to process on a shared machine (harness_costs.py), so a cost of half a
per cent is measured here directly: the two calls alone, many times, with a referee's end that reads what is logged.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import threading
import time

from harness.core.data.shards import open_shard
from harness.core.data.stream import FreeStream
from harness.core.protocol import Channel, Context, TaskFacts
from harness.core.run import Run
from harness.core.task import load_task
from harness.paths import DATA

CALLS, ROUNDS = 1000, 9


def drained_channel() -> Channel:
    """A channel whose other end reads everything, as the referee does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def drain() -> None:
        while theirs.recv(1 << 17):
            pass

    threading.Thread(target=drain, daemon=True).start()
    return Channel(ours)


def main() -> None:
    """Prints microseconds a call and the share of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-ms", type=float, required=True, help="milliseconds of a step of the baseline, bare")
    step = parser.parse_args().step_ms / 1e3
    task = load_task("gcide")
    shards = [open_shard(task.data_folder(DATA) / shard.file, shard) for shard in task.of_split("train")]
    facts = TaskFacts("gcide", task.tokenizer.vocab_size, task.tokenizer.end_of_text, "free", 1.0, 1024, (1, 2))
    run = Run(Context(facts, 1, 1, "cpu", {}, {}), 0, drained_channel())
    run._stream, run._state, run._started = FreeStream(shards, 0, 1, "cpu"), "running", time.monotonic()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for number in range(CALLS):
            run.stream.next(8, 128)
            run.log(step=number, steps=CALLS, loss=3.25)
        seconds.append((time.perf_counter() - began) / CALLS)
    middle = statistics.median(seconds)
    print(f"run.stream.next(8, 128) + run.log(...): {1e6 * middle:.0f} microseconds a step")
    print(f"(median of {ROUNDS} rounds of {CALLS}; {1e6 * min(seconds):.0f} to {1e6 * max(seconds):.0f}),")
    print(f"{100 * middle / step:.2f}% of a step of {1e3 * step:.0f} ms")


if __name__ == "__main__":
    main()
