"""Without a GPU the tests run Triton's kernels in its interpreter, which must be said before triton is imported."""

import os
from pathlib import Path

GPU = Path("/dev/nvidiactl").exists()
if not GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")
