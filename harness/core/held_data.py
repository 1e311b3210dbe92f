"""Does a weights file hold stretches of the training data? A model may learn the corpus, not carry it along.

Carried along, it could be learned from in the model host, off the clock. Found are stretches of tokens stored as
numbers of any dtype, or as raw bytes; what hides them better is left with the CPU caps of the model host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from harness.core.data.serve import TOKEN_BYTES, ShardFile
from harness.core.data.shards import map_shard_fd
from harness.core.failures import Failure, RunFailed
from harness.core.weights import WeightsFile, layout

STRETCH = 16  # tokens; chance hits of this length do not happen in counts, indices or quantized weights
MIN_VARIETY = 8  # different tokens in a stretch: runs of one value are in any buffer
PROBES = 4096  # stretches looked up a tensor
FEW_HITS = 40  # a per cent of the probes
MAX_CORPUS_TOKENS = 200_000_000  # more would take minutes; what comes later in the shards is not looked at
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication modulo 2**64 loses nothing

NUMBERS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U8": np.uint8, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "BF16": np.uint16, "BOOL": np.uint8,
}  # fmt: skip


def refuse_held_data(file: WeightsFile, shards: Iterable[ShardFile]) -> None:
    """Raises RunFailed for weights that carry the corpus along."""
    held = tensors_holding_tokens(file, shards)
    if held:
        raise RunFailed(
            Failure.WEIGHTS_HOLD_DATA,
            f"the exported tensors {', '.join(held[:3])} hold stretches of the training data; a model may learn "
            "the corpus, but not carry it along",
        )


def tensors_holding_tokens(file: WeightsFile, shards: Iterable[ShardFile]) -> list[str]:
    """Names of the tensors in which at least a per cent of the stretches looked at stand in the training shards."""
    random = np.random.default_rng(0)
    wanted = {name: _probes(reading, random) for name, reading in _readings(file)}
    wanted = {name: probes for name, probes in wanted.items() if len(probes) > FEW_HITS}
    if not wanted:
        return []
    every = np.unique(np.concatenate(list(wanted.values())))
    found = np.zeros(len(every), bool)
    for hashes in _corpus_hashes(shards):
        places = np.searchsorted(every, hashes)
        places[places == len(every)] = 0
        found[places[every[places] == hashes]] = True
    known = every[found]
    return sorted({name.split("\0")[0] for name, probes in wanted.items() if np.isin(probes, known).sum() > FEW_HITS})


def _readings(file: WeightsFile) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor as the token ids its values may be: by number, and by raw bytes two a token."""
    memory = np.memmap(f"/proc/self/fd/{file.descriptor}", np.uint8, "r")
    _, offsets = layout(file.specs)
    for spec in file.specs:
        if spec.alias_of is not None or spec.bytes < STRETCH * TOKEN_BYTES * FEW_HITS:
            continue
        raw = memory[offsets[spec.name] : offsets[spec.name] + spec.bytes]
        numbers = np.frombuffer(raw, NUMBERS[spec.dtype])
        if spec.dtype == "BF16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        tokens = _whole_numbers(numbers)
        if tokens is not None:
            yield f"{spec.name}\0numbers", tokens
        yield f"{spec.name}\0bytes", np.frombuffer(raw[: spec.bytes // 2 * 2], np.uint16)


def _whole_numbers(values: np.ndarray) -> np.ndarray | None:
    """The values as token ids, where they are whole numbers; None for what plainly is not."""
    if values.dtype.kind == "f":
        head = values[:: max(1, len(values) // 1000)]
        if not (head == np.floor(head)).mean() > 0.5:
            return None
        with np.errstate(invalid="ignore"):
            wide = values.astype(np.float64)
            return np.where((wide >= 0) & (wide < 65536), wide, 0).astype(np.uint16)
    return np.clip(values, 0, 65535).astype(np.uint16)


def _probes(tokens: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Hashes of stretches at random places, without those of little variety."""
    count = len(tokens) - STRETCH + 1
    if count < 1:
        return np.empty(0, np.uint64)
    starts = random.integers(0, count, PROBES)
    stretches = np.sort(tokens[starts[:, None] + np.arange(STRETCH)], axis=1)
    varied = 1 + (np.diff(stretches.astype(np.int64), axis=1) != 0).sum(axis=1) >= MIN_VARIETY
    return np.unique(_hash(tokens[starts[varied][:, None] + np.arange(STRETCH)].T))


def _corpus_hashes(shards: Iterable[ShardFile]) -> Iterator[np.ndarray]:
    room = MAX_CORPUS_TOKENS
    for shard in shards:
        tokens = map_shard_fd(shard.descriptor)[:room]
        room -= len(tokens)
        count = len(tokens) - STRETCH + 1
        block = 1 << 20
        for start in range(0, count, block):
            stop = min(start + block, count)
            yield _hash(np.stack([tokens[start + shift : stop + shift] for shift in range(STRETCH)]))


def _hash(stretches: np.ndarray) -> np.ndarray:
    """A hash of each column of [STRETCH, N] tokens: uint64 [N]."""
    total = np.zeros(stretches.shape[1], np.uint64)
    for tokens in stretches:
        total = total * MULTIPLIER + tokens + np.uint64(1)
    return total
