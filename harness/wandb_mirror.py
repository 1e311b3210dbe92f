"""An optional copy of a finished run on Weights & Biases; offline where no key is set. Nothing depends on it."""

from __future__ import annotations

import importlib.util

from harness.campaign import Finished
from harness.errors import UserError


def require_wandb() -> None:
    """Raises UserError where wandb is missing: said before the run, not after it."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb: the package wandb is not installed", "pip install wandb, or leave --wandb out")


def mirror(finished: Finished) -> None:
    """Writes the log rows and the result as one wandb run, after the run: nothing is sent while the clock runs."""
    import wandb

    record = finished.record
    has_key = wandb.login(prompt=False)
    run = wandb.init(
        project=f"speedrun-{record.task}",
        name=record.run_id,
        dir=str(finished.folder),
        mode=None if has_key else "offline",
        config={"seed": record.seed, **record.methods, **record.hparams},
        settings=wandb.Settings(silent=True),
    )
    for row in finished.rows:
        run.log(row)
    run.summary.update({"val_loss": record.val_loss, "seconds": record.seconds, "status": record.state})
    run.finish()
