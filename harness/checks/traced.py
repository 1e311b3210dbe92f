"""Inside a counting run: the submission's own train.py is executed, and the lines that Python went through are told.

Tracing is the interpreter's own (`sys.settrace`), for every thread that Python starts. torch.compile is disabled, since
compiled code goes through no lines. What PyTorch calls from threads of its own (the backward of a custom function on
a GPU) and the bodies of Triton kernels are not seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ORIGINAL = "train.py.txt"  # the submission's train.py, beside a train.py that calls `run`
MARKER = "speedrun-executed "
SCRIPT = "import harness.checks.traced\n\nharness.checks.traced.run(globals())\n"


def run(namespace: dict[str, Any]) -> None:
    """Executes the original script in the namespace of the one that took its place; traced where it is the run."""
    os.environ["TORCH_COMPILE_DISABLE"] = "1"
    script = Path(namespace["__file__"])
    code = compile(script.with_name(ORIGINAL).read_bytes(), str(script), "exec", dont_inherit=True)
    if namespace["__name__"] == "__main__":
        _trace(script.parent)
    exec(code, namespace)


def _trace(folder: Path) -> None:
    """Notes every line of the folder that is executed from here on; tells them when the run hands in its weights."""
    import torch  # before tracing begins, which would make its import slow

    from harness.core.run import Run

    prefix = f"{folder}/"
    executed: set[tuple[str, int]] = set()
    finish = Run.finish

    def on_line(frame: FrameType, event: str, _: object) -> Any:
        executed.add((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    def on_call(frame: FrameType, event: str, _: object) -> Any:
        return on_line if frame.f_code.co_filename.startswith(prefix) else None

    def told_finish(self: Run, model: torch.nn.Module) -> None:
        lines = sorted((name.removeprefix(prefix), line) for name, line in executed)
        print(f"\n{MARKER}{json.dumps({'lines': lines, 'peak_memory': _peak_memory(self.device)})}", flush=True)
        finish(self, model)

    Run.finish = told_finish  # type: ignore[method-assign]
    threading.settrace(on_call)
    sys.settrace(on_call)


def _peak_memory(device: str) -> int:
    """The most bytes so far: allocated on the GPU, or resident in this process."""
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024
