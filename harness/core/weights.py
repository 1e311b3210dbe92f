"""The weights as they cross from the run to the judge: names, a digest, and the safetensors layout.

Layout and sizes need no torch, so the referee can lay out the memory file; the functions that take a model
import torch themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Bytes an element takes, by the dtype names of the safetensors format.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
MAX_TENSORS = 100_000
MAX_NAME = 500  # characters of a tensor's name; 100,000 names stay within safetensors' header of 100 MB
MAX_DIMENSIONS = 64
RESERVED_NAME = "__metadata__"  # stands for something else in a safetensors header
READ_BYTES = 1 << 20
WRAPPER_PREFIXES = ("_orig_mod", "module")  # what torch.compile and DistributedDataParallel put in front


class WeightsError(Exception):
    """A model whose weights cannot be described, exported or loaded; the message says which tensor and why."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a state dict. A tied tensor names the one that holds its values in `alias_of`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    alias_of: str | None = None

    @property
    def bytes(self) -> int:
        return 0 if self.alias_of else math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(table: Any) -> TensorSpec:
        """Raises WeightsError on anything that is not a tensor's description."""
        fields = ("name", "shape", "dtype", "alias_of")
        name, shape, dtype, alias_of = (table.get(field) if isinstance(table, dict) else None for field in fields)
        if not isinstance(name, str) or not isinstance(shape, list) or not isinstance(dtype, str):
            raise WeightsError("not a tensor description")
        if problem := name_problem(name):
            raise WeightsError(f"tensor {name[:80]!r}: {problem}")
        sizes_sound = len(shape) <= MAX_DIMENSIONS and all(type(size) is int and 0 <= size < 2**40 for size in shape)
        if not sizes_sound or dtype not in DTYPE_BYTES or not isinstance(alias_of, str | None):
            raise WeightsError(f"tensor {name[:80]!r} has an unknown shape or dtype")
        return TensorSpec(name, tuple(shape), dtype, alias_of)


def name_problem(name: str) -> str | None:
    """Why a tensor cannot have this name in an export, or None. It is shown to people and stands in a header."""
    if len(name) > MAX_NAME:
        return f"a name of more than {MAX_NAME} characters"
    if name == RESERVED_NAME or not name.isprintable():
        return "a name that an export cannot hold"
    return None


def layout(specs: Iterable[TensorSpec]) -> tuple[bytes, dict[str, int]]:
    """The safetensors header of these tensors and each stored tensor's absolute offset in the file."""
    table: dict[str, Any] = {}
    offset = 0
    for spec in specs:
        if spec.alias_of is None:
            span = [offset, offset + spec.bytes]
            table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": span}
            offset += spec.bytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + entry["data_offsets"][0] for name, entry in table.items()}


class WeightsFile:
    """The memory file that the referee lays out before the clock starts and seals when the weights are in."""

    def __init__(self, specs: list[TensorSpec], max_bytes: int) -> None:
        """Raises WeightsError for weights larger than `max_bytes` and for tensors that do not fit together."""
        _check_together(specs)
        self.specs = specs
        self.header, _ = layout(specs)
        self.size = len(self.header) + sum(spec.bytes for spec in specs)
        if self.size > max_bytes:
            raise WeightsError(f"the weights take {self.size:,} bytes; the task allows {max_bytes:,}")
        self.descriptor = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self.size)
        os.pwrite(self.descriptor, self.header, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)

    def seal(self) -> None:
        """No write succeeds afterwards, from any process. Raises OSError (EBUSY) while somebody maps it writably."""
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

    def header_intact(self) -> bool:
        return os.pread(self.descriptor, len(self.header), 0) == self.header

    def digest(self) -> str:
        """sha256 of the whole file, read 1 MiB at a time."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, 1 << 20):
            digest.update(os.pread(self.descriptor, 1 << 20, offset))
        return digest.hexdigest()

    def close(self) -> None:
        os.close(self.descriptor)


def private_copy(descriptor: int) -> int:
    """A sealed memory file of the same content, for one reader alone; the caller closes it.

    Seals do not cover extended attributes, time stamps or the place in an open file: whoever shares them can leave
    notes there, the run for its model host as well as one host for another.
    """
    size = os.fstat(descriptor).st_size
    copy = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    offset = 0
    while offset < size and (sent := os.sendfile(copy, descriptor, offset, size - offset)):
        offset += sent
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return copy


def _check_together(specs: list[TensorSpec]) -> None:
    """Every name stands once, and a tie names a tensor that holds its values."""
    stored = {spec.name for spec in specs if spec.alias_of is None}
    if len({spec.name for spec in specs}) < len(specs):
        raise WeightsError("two tensors have the same name")
    for spec in specs:
        if spec.alias_of is not None and spec.alias_of not in stored:
            raise WeightsError(f"tensor {spec.name[:80]!r} is tied to one that is not there")


def describe(model: torch.nn.Module) -> tuple[list[TensorSpec], dict[str, torch.Tensor]]:
    """The specs of a model's state dict, wrappers' prefixes stripped, and the tensors that hold values.

    Tied tensors (same storage, same place, same shape) are stored once. Raises WeightsError.
    """
    specs: list[TensorSpec] = []
    stored: dict[str, torch.Tensor] = {}
    seen: dict[tuple, str] = {}
    for full_name, tensor in model.state_dict().items():
        name = _stripped(full_name)
        dtype = _dtype_names().get(tensor.dtype)
        if dtype is None:
            raise WeightsError(f"tensor {name!r} has dtype {tensor.dtype}, which the export does not know")
        if problem := name_problem(name):
            raise WeightsError(f"tensor {name[:80]!r}: {problem}")
        if any(spec.name == name for spec in specs):
            raise WeightsError(f"two tensors are called {name!r} once wrapper prefixes are stripped")
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), dtype)
        first = seen.setdefault(place, name) if tensor.numel() else name
        alias_of = first if first != name else None
        specs.append(TensorSpec(name, tuple(tensor.shape), dtype, alias_of))
        if alias_of is None:
            stored[name] = tensor.detach()
    return specs, stored


def digest(specs: Iterable[TensorSpec], tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over every tensor's name, shape, dtype and bytes."""
    total = hashlib.sha256()
    for spec in specs:
        total.update(json.dumps(spec.to_json()).encode())
        if spec.alias_of is None:
            total.update(_raw(tensors[spec.name]))
    return total.hexdigest()


def write(descriptor: int, specs: Iterable[TensorSpec], tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes the tensors at their places with `pwrite` from a staging copy: a mapping would prevent the seal."""
    _, offsets = layout(specs)
    for name, tensor in tensors.items():
        view, offset = memoryview(_raw(tensor)), offsets[name]
        while len(view):
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written


def load(model: torch.nn.Module, descriptor: int) -> None:
    """Loads a sealed weights file into a model built afresh; every name must match. Raises WeightsError."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    specs, _ = describe(model)
    try:
        values = parse(_content(descriptor))
    except (SafetensorError, KeyError, RuntimeError, ValueError, OverflowError) as error:
        raise WeightsError(f"the exported weights are not a safetensors file: {error}") from None
    aliases = {spec.name: spec.alias_of for spec in specs}
    names = {name: _stripped(name) for name in model.state_dict()}
    try:
        table = {full: values[aliases[name] or name] for full, name in names.items()}
        model.load_state_dict(table, strict=True)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"the exported weights do not fit what build_model builds: {error}") from None
    unknown = sorted(set(values) - {spec.name for spec in specs})
    if unknown:
        raise WeightsError(f"the exported weights hold tensors that build_model does not build: {unknown[:3]}")


def _content(descriptor: int) -> bytes:
    """The whole file; one read gives 2 GiB at most."""
    content = bytearray()
    while block := os.pread(descriptor, READ_BYTES, len(content)):
        content += block
    return bytes(content)


def _stripped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PREFIXES)


def _raw(tensor: torch.Tensor) -> Any:
    """A tensor's bytes as a flat uint8 numpy array in host memory."""
    import torch

    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()


def _dtype_names() -> dict[torch.dtype, str]:
    import torch

    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
        torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    }  # fmt: skip
