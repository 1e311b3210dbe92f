"""Inside a counting run: notes the lines of the submission that Python goes through, and tells them at the end.

`LINE` stands at the head of its train.py. Tracing is the interpreter's own (`sys.settrace`), for every thread that
Python starts. torch.compile is disabled, since compiled code goes through no lines. What PyTorch calls from threads of
its own (the backward of a custom function on a GPU) and the bodies of Triton kernels are not seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

MARKER = "speedrun-executed "
LINE = "import harness.checks.traced; harness.checks.traced.begin()"


def begin() -> None:
    """Begins to trace where the caller's module is the script that runs; elsewhere it only disables compiling."""
    os.environ["TORCH_COMPILE_DISABLE"] = "1"
    caller = sys._getframe(1)
    if caller.f_globals["__name__"] == "__main__":
        caller.f_trace = _trace(Path(caller.f_code.co_filename).parent)  # its own call was before tracing began


def _trace(folder: Path) -> Any:
    """Notes every line of the folder that is executed from here on; tells them when the run hands in its weights.

    Answers the function that notes a line.
    """
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
    return on_line


def _peak_memory(device: str) -> int:
    """The most bytes so far: allocated on the GPU, or resident in this process."""
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024
