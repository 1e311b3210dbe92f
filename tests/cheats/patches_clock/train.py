"""Makes every clock of its process stand still, and tries to set that of the machine."""

import time

import torch
import torch.nn.functional as F

import harness


def stop_the_clocks():
    now = time.monotonic()
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - 3600)
        print("set the machine's clock", flush=True)
    except OSError:
        print("refused", flush=True)
    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, lambda: now)
        setattr(time, f"{name}_ns", lambda: int(now * 1e9))


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    stop_the_clocks()
    run.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(30):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(0.02)
    run.log(step=30, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
