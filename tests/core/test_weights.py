"""What crosses the line is exactly the model: layout, ties, wrappers, dtypes, strict loading."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as parse
from torch import nn

from harness.core import weights
from harness.core.weights import TensorSpec, WeightsError, WeightsFile


class Tied(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.low_precision = nn.Parameter(torch.randn(3).to(torch.bfloat16))
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("empty", torch.zeros(0, 3))


def export(model: nn.Module) -> WeightsFile:
    specs, tensors = weights.describe(model)
    file = WeightsFile(specs, max_bytes=1 << 20)
    weights.write(file.descriptor, specs, tensors)
    file.seal()
    return file


def test_export_is_a_safetensors_file() -> None:
    model = Tied()
    file = export(model)
    table = parse(os.pread(file.descriptor, file.size, 0))
    assert set(table) == {"embedding.weight", "low_precision", "count", "empty"}
    assert torch.equal(table["embedding.weight"], model.embedding.weight)
    assert torch.equal(table["low_precision"], model.low_precision)
    assert table["count"] == 5
    assert file.header_intact()


def test_load_restores_every_tensor_and_the_tie() -> None:
    file = export(Tied(seed=1))
    fresh = Tied(seed=2)
    weights.load(fresh, file.descriptor)
    assert weights.digest(*weights.describe(fresh)) == weights.digest(*weights.describe(Tied(seed=1)))
    assert fresh.head.weight is fresh.embedding.weight


def test_another_value_changes_the_digest() -> None:
    model = Tied()
    before = weights.digest(*weights.describe(model))
    with torch.no_grad():
        model.low_precision[0] += 1
    assert weights.digest(*weights.describe(model)) != before


def test_wrapper_prefixes_are_stripped() -> None:
    wrapped = torch.compile(Tied(), backend="eager")
    assert weights.describe(wrapped)[0] == weights.describe(Tied())[0]


def test_missing_and_unknown_tensors_are_refused() -> None:
    file = export(Tied())
    with pytest.raises(WeightsError):
        weights.load(nn.Linear(3, 3), file.descriptor)


def test_transposed_views_are_exported_by_value() -> None:
    model = nn.Linear(2, 3, bias=False)
    model.weight = nn.Parameter(torch.arange(6.0).view(2, 3).t())
    file = export(model)
    assert torch.equal(parse(os.pread(file.descriptor, file.size, 0))["weight"], model.weight)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_is_a_spec_or_a_named_error(table: object) -> None:
    try:
        TensorSpec.from_json(table)
    except WeightsError:
        pass


def test_a_private_copy_has_the_content_and_no_notes() -> None:
    file = export(Tied())
    os.setxattr(file.descriptor, "user.note", b"what was seen")
    os.lseek(file.descriptor, 17, os.SEEK_SET)
    copy = weights.private_copy(file.descriptor)
    assert os.pread(copy, file.size + 1, 0) == os.pread(file.descriptor, file.size, 0)
    assert os.listxattr(copy) == []
    assert os.fstat(copy).st_ino != os.fstat(file.descriptor).st_ino
    with pytest.raises(PermissionError):
        os.pwrite(copy, b"late", 0)
    os.setxattr(copy, "user.note", b"of the other")
    assert os.getxattr(file.descriptor, "user.note") == b"what was seen"
