"""How fast the judge's kernel reads logits: bytes a second against the memory of the device, and its error.

python benchmarks/gpu/judge_nats.py > benchmarks/results/gpu_judge_nats.md     # a minute on an H100 or H200
python benchmarks/gpu/judge_nats.py --tiny                                     # anywhere, interpreted
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import torch
from timing import data_sheet, device, heading, milliseconds, share

VALIDATION_TOKENS = 10_485_760


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes on the CPU, in Triton's interpreter")
    tiny = parser.parse_args().tiny
    if tiny:
        os.environ["TRITON_INTERPRET"] = "1"
    from harness.core.gpu_nats import token_nats

    rows, columns, rounds = (16, 5000, 2) if tiny else (65536, 50304, 20)
    sheet = data_sheet()
    print(heading("The judge's kernel", tiny))
    copied = copy_bandwidth(1 << 22 if tiny else 1 << 33, rounds)
    print(f"A copy inside the device's memory moves {copied / 1e12:.2f} TB/s, read and written together.")
    print(f"Logits are [{rows:,}, {columns:,}]; error: largest relative one of 256 rows against float64.\n")
    print("| logits | ms | TB/s | of the data sheet | of the copy | all validation logits | error |")
    print("|---|---|---|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        logits = torch.empty(rows, columns, dtype=dtype, device=device()).normal_(std=4)
        targets = torch.randint(0, columns, (rows,), device=device())
        time = milliseconds(partial(token_nats, logits, targets), rounds)
        rate = logits.nbytes / (time / 1e3)
        seconds = VALIDATION_TOKENS * 50304 * dtype.itemsize / rate
        right = torch.nn.functional.cross_entropy(logits[:256].double(), targets[:256], reduction="none")
        error = ((token_nats(logits[:256], targets[:256]).double() - right) / right).abs().max().item()
        cells = [
            str(dtype).removeprefix("torch."), f"{time:.3g}", f"{rate / 1e12:.3g}",
            share(rate, sheet.memory_bytes if sheet else None), share(rate, copied), f"{seconds:.2g} s", f"{error:.1e}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def copy_bandwidth(size: int, rounds: int) -> float:
    """Bytes a second that a copy of `size` bytes reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return 2 * size / (milliseconds(lambda: target.copy_(source), rounds) / 1e3)


if __name__ == "__main__":
    main()
