"""The untrusted side of judging: imports a submission, builds its model and answers logits.

`python -m harness.core.model_host`, launched in a sandbox by host.py. It is used twice in a run: to build the
model afresh and tell the digest of its weights, and to hold the exported weights while the judge asks.
torch is imported before the hello, so that the caps on what follows measure the submission alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from harness.core import weights
from harness.core.protocol import Channel, Context, connect
from harness.core.run import TENSORS_PER_PACKET, Settings
from harness.core.slots import Slots


class WrongShape(Exception):
    """The model's answer is not [batch, length, columns] numbers."""


def import_submission(folder: Path) -> ModuleType:
    """Imports `train.py` of a submission under the name `train`, with its folder first on the path."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("train", folder / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    return module


def serve(channel: Channel) -> None:
    """Answers until the other side closes."""
    welcome = channel.receive()
    if welcome is None:
        return
    settings = Settings(Context.from_json(welcome.fields["context"]))
    model = _build(settings, welcome.fields["source"])
    _tell_build(channel, model)
    slots: Slots | None = None
    batch = length = 0
    while (message := channel.receive(descriptors=True)) is not None:
        fields = message.fields
        if message.kind == "load":
            batch, length = fields["batch"], fields["length"]
            weights.load(model, message.descriptors[0])
            os.close(message.descriptors[0])
            model.eval()
            channel.send("loaded")
            blank = torch.full((batch, length), settings.task.end_of_text, device=settings.device)
            logits = _forward(model, blank)
            channel.send("columns", count=logits.shape[2], dtype=str(logits.dtype).removeprefix("torch."))
            del logits
            if settings.device != "cpu":
                torch.cuda.empty_cache()  # two hosts and the judge share the GPU
        elif message.kind == "slots":
            shape = (fields["count"], batch, length, fields["columns"])
            slots, refused = _open(settings.device, message.descriptors, shape, fields["dtype"])
            for descriptor in message.descriptors:
                os.close(descriptor)
            channel.send("shared", refused=refused)
        elif message.kind == "forward":
            assert slots is not None
            tokens = torch.from_numpy(slots.tokens[fields["slot"]].copy()).to(settings.device)
            _put(_forward(model, tokens), slots.logits[fields["slot"]])
            channel.send("done", slot=fields["slot"])


def _build(settings: Settings, source: str | None) -> Any:
    """The submission's model; the task's own without a source."""
    if source is None:
        return settings.frozen_model()
    model = import_submission(Path(source)).build_model(settings)
    if settings.task.model is not None:
        own, found = (weights.describe(one)[0] for one in (settings.frozen_model(), model))
        if own != found:
            raise WrongShape(
                f"{settings.task.name} fixes the model, and build_model(run) returned another one; "
                "begin with model = run.frozen_model() and change the values of its parameters only"
            )
    return model


def _open(
    device: str, descriptors: list[int], shape: tuple[int, int, int, int], dtype: str
) -> tuple[Slots | None, str]:
    """The judge's slots; or none, and why the GPU's memory cannot be shared."""
    if device == "cpu":
        return Slots(descriptors[0], *shape), ""
    from harness.core import gpu_memory, gpu_slots

    try:
        return gpu_slots.open_slots(descriptors, *shape, dtype), ""
    except gpu_memory.NoGpuMemory as reason:
        return None, str(reason)


def _put(logits: torch.Tensor, place: np.ndarray | torch.Tensor) -> None:
    (torch.from_numpy(place) if isinstance(place, np.ndarray) else place).copy_(logits)
    if logits.is_cuda:
        torch.cuda.synchronize()  # the judge reads them as soon as it hears of them


def _tell_build(channel: Channel, model: Any) -> None:
    specs, tensors = weights.describe(model)
    items = [spec.to_json() for spec in specs]
    for place in range(0, len(items), TENSORS_PER_PACKET):
        channel.send("tensors", items=items[place : place + TENSORS_PER_PACKET])
    channel.send("built", digest=weights.digest(specs, tensors))


@torch.inference_mode()
def _forward(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(tokens)
    if not isinstance(logits, torch.Tensor):
        raise WrongShape(f"model(tokens) returned a {type(logits).__name__}, not a tensor of logits")
    if logits.dim() != 3 or logits.shape[:2] != tokens.shape or not logits.is_floating_point():
        raise WrongShape(
            f"model(tokens) returned {logits.dtype}{list(logits.shape)} for tokens {list(tokens.shape)}; "
            "logits are floating-point [batch, length, vocabulary]"
        )
    return logits


def main() -> None:
    """Connects to whoever launched this process and serves it. A crash goes to the output, as a traceback."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    channel = connect(rank=0)
    try:
        serve(channel)
    except WrongShape as error:
        channel.send("failed", reason="wrong-shape", message=str(error)[:2000])


if __name__ == "__main__":
    main()
