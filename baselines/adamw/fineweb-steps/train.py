"""The AdamW baseline of `fineweb-steps`: the task's own model, one forward and backward pass a step of 524,288 tokens.

speedrun run baselines/adamw/fineweb-steps --class 1xH200     # 8xH200, 4x, 2x: the same batch, less accumulation
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import harness
import harness.errors

WARM_UP_STEPS = 3
LOG_EVERY = 25  # reading the loss waits for the GPU


def build_model(run):
    torch.manual_seed(run.seed)
    return run.frozen_model()


def build_optimizer(model, run):
    """AdamW with one learning rate for the blocks' matrices, and one for each other kind of parameter."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() == 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    groups = []
    for kind, parameters in kinds.items():
        owner = "matrix" if kind == "matrix" else "other"
        groups.append(
            {
                "params": parameters,
                "base_lr": run.hparam(f"{kind}_lr"),
                "weight_decay": run.hparam(f"{owner}_weight_decay"),
                "betas": (run.hparam(f"{owner}_beta1"), run.hparam(f"{owner}_beta2")),
            }
        )
    return torch.optim.AdamW(groups, eps=run.hparam("epsilon"), fused=True)


def set_rate(optimizer, share):
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def schedule(step, steps, warmup_steps, cooldown):
    """Share of the base learning rate: linear warm-up, constant, linear cooldown to zero."""
    rise = (step + 1) / max(1, warmup_steps)
    fall = (steps - step) / max(1.0, cooldown * steps)
    return min(1.0, rise, fall)


def accumulate(trainer, count, next_batch):
    """Gradients of the mean loss over `count` micro-batches a rank; the last backward pass averages them over ranks."""
    total = 0.0
    for index in range(count):
        if isinstance(trainer, DistributedDataParallel):
            trainer.require_backward_grad_sync = index == count - 1
        loss = trainer(*next_batch()) / count
        loss.backward()
        total = total + loss.detach()
    return total


def wrapped(model, run):
    """What the training loop calls: the model, compiled, and on several devices with gradients averaged."""
    trainer = torch.compile(model) if run.uses("compile") else model
    if run.world_size > 1:
        if run.device != "cpu":
            torch.cuda.set_device(run.device)
        dist.init_process_group("gloo" if run.device == "cpu" else "nccl")
        trainer = DistributedDataParallel(trainer)
    return trainer


def shares_of(run):
    """Rows of a micro-batch, and how many of them each rank takes a step, so that all take `batch` rows together."""
    rows = max(1, min(run.hparam("micro_batch"), run.hparam("batch") // run.world_size))
    count, left = divmod(run.hparam("batch"), rows * run.world_size)
    if left:
        raise harness.errors.UserError(
            f"a batch of {run.hparam('batch')} rows is not {run.world_size} ranks x whole micro-batches of {rows}",
            "use a number of devices that divides batch, and a micro_batch that divides batch / devices",
        )
    return rows, count


def main():
    run = harness.connect()
    model = build_model(run)
    optimizer = build_optimizer(model, run)
    trainer = wrapped(model, run)
    rows, count = shares_of(run)
    steps, length = run.hparam("steps"), run.hparam("length")
    warmup_steps, cooldown = run.hparam("warmup_steps"), run.hparam("cooldown")

    set_rate(optimizer, 0.0)  # at a rate of zero a step compiles and allocates, and leaves the weights as they are
    for _ in range(WARM_UP_STEPS):
        accumulate(trainer, min(2, count), lambda: run.synthetic(rows, length))
        optimizer.step()
        optimizer.zero_grad()
    optimizer.state.clear()

    run.start(model)
    for step in range(steps):
        loss = accumulate(trainer, count, lambda: run.stream.next(rows, length))
        set_rate(optimizer, schedule(step, steps, warmup_steps, cooldown))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
