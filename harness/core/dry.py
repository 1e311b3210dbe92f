"""A dry run: a run that ends by itself after a few batches, for `speedrun check`. No dry run is ever a result.

`Plan.dry_steps` asks for it. The run ends, as if the script had called `run.finish`, instead of the read of the
stream that comes after that many; where a script maps the shards itself, instead of the `run.log` after that
many. Nothing in the script needs to change for it, neither a number of steps nor a schedule.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VECTOR_NOISE = 0.1


class DryRun:
    """Counts a rank's reads and log rows, and sees which parameters training has changed."""

    def __init__(self, steps: int, model: torch.nn.Module, finish: Callable[[torch.nn.Module], None]) -> None:
        self._steps = steps
        self._model = model
        self._finish = finish
        self._reads = 0
        self._rows = 0
        self._ending = False
        self._at_start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def before_read(self) -> None:
        """Ends the run when it has read enough."""
        self._reads += 1
        if self._reads > self._steps:
            self._end()

    def before_log(self) -> None:
        """Ends the run when it has logged enough and never read from the stream."""
        if self._ending:
            threading.Event().wait()  # another thread ends the run, and with it this process
        self._rows += 1
        if self._reads == 0 and self._rows > self._steps:
            self._end()

    def changed_parameters(self) -> int:
        """How many parameters of the model given to `run.start` have other values now than then."""
        import torch

        pairs = ((value.detach(), self._at_start[name]) for name, value in self._model.named_parameters())
        return sum(not torch.equal(now, before) for now, before in pairs)

    def shaken(self, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors to export, with noise of an ordinary initialization's size on all that is trained.

        After a few steps a layer that began at zero still says next to nothing: a model that reads what it must
        not would pass the audit of its dry run, and be caught only in its first whole one.
        """
        import torch

        trained = {value.data_ptr() for value in model.parameters() if value.requires_grad}
        generator = torch.Generator().manual_seed(0)
        shaken = {}
        for name, tensor in tensors.items():
            if tensor.data_ptr() in trained and tensor.is_floating_point():
                scale = tensor.shape[-1] ** -0.5 if tensor.dim() >= 2 else VECTOR_NOISE
                noise = scale * torch.randn(tensor.shape, generator=generator)
                tensor = (tensor.float() + noise.to(tensor.device)).to(tensor.dtype)
            shaken[name] = tensor
        return shaken

    def _end(self) -> None:
        self._ending = True
        self._finish(self._model)
        if threading.current_thread() is threading.main_thread():
            sys.exit(0)  # no Exception: a script's own handlers let it pass
        sys.stdout.flush()
        os._exit(0)  # a script that reads ahead in a thread: the main thread would wait for it for ever
