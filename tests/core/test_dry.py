"""When a dry run ends, and what it says of the model."""

from __future__ import annotations

import pytest
import torch

from harness.core.dry import DryRun


def dry_run(steps: int, model: torch.nn.Module | None = None) -> tuple[DryRun, list[torch.nn.Module]]:
    finished: list[torch.nn.Module] = []
    return DryRun(steps, model or torch.nn.Linear(4, 3), finished.append), finished


def test_it_ends_instead_of_the_read_after_the_last() -> None:
    dry, finished = dry_run(3)
    for _ in range(3):
        dry.before_read()
    assert not finished
    with pytest.raises(SystemExit) as caught:
        dry.before_read()
    assert caught.value.code == 0
    assert len(finished) == 1


def test_log_rows_end_it_only_where_nothing_is_read() -> None:
    dry, finished = dry_run(2)
    dry.before_read()
    for _ in range(10):
        dry.before_log()
    assert not finished
    dry, finished = dry_run(2)
    dry.before_log()
    dry.before_log()
    with pytest.raises(SystemExit):
        dry.before_log()
    assert finished


def test_changed_parameters_are_counted_and_buffers_are_not() -> None:
    model = torch.nn.BatchNorm1d(4)
    dry, _ = dry_run(1, model)
    model(torch.randn(8, 4))
    assert dry.changed_parameters() == 0
    with torch.no_grad():
        model.bias += 1
    assert dry.changed_parameters() == 1


def test_the_export_is_shaken_where_something_is_trained() -> None:
    model = torch.nn.Linear(4, 3).to(torch.bfloat16)
    model.register_buffer("mask", torch.tril(torch.ones(4, 4)))
    model.scale = torch.nn.Parameter(torch.ones(()), requires_grad=False)
    torch.nn.init.zeros_(model.weight)
    dry, _ = dry_run(1, model)
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    shaken = dry.shaken(model, tensors)
    assert {name: (value.dtype, value.shape) for name, value in shaken.items()} == {
        name: (value.dtype, value.shape) for name, value in tensors.items()
    }
    assert 0.2 < shaken["weight"].float().std() < 1.0  # about one over the root of its four inputs
    assert not torch.equal(shaken["bias"], tensors["bias"])
    assert torch.equal(shaken["mask"], tensors["mask"])
    assert torch.equal(shaken["scale"], tensors["scale"])
    assert not model.weight.any()
