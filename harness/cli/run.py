"""`speedrun run SUB`: one run of a submission, from launch to judged loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.core.plan import Node


def run(
    submission: Annotated[str, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.")],
    setting: options.Set = None,
    drop: options.Drop = None,
    seed: Annotated[int | None, typer.Option(help="Fix the seed (drawn by the referee otherwise).")] = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Over how many machines the class is spread.")] = 1,
    node: Annotated[int, typer.Option(min=0, help="The number of this machine; 0 keeps clock and judge.")] = 0,
    meet: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where node 0 is reached.")] = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Mirror the log to Weights & Biases.")] = False,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Run a submission once and judge it."""
    from harness.campaign import Request, join, run_once
    from harness.cli.progress import Progress
    from harness.cli.summary import print_summary, summary
    from harness.core.task import hardware_class, load_task
    from harness.submission import load_submission

    if wandb:
        from harness.wandb_mirror import mirror, require_wandb

        require_wandb()
    folder = options.submission_folder(submission)
    loaded = load_submission(folder, load_task(task) if task else None)
    request = Request(
        submission=loaded, hardware=hardware_class(hardware), data_dir=data_dir, runs_dir=runs_dir,
        seed=seed, dropped=drop or [], settings=setting or [], node=_node(nodes, node, meet),
    )  # fmt: skip
    if node > 0:
        with Progress(silent=as_json) as progress:
            outcome = join(request, progress)
        if outcome.reason is not None:
            raise UserError(f"node {node}: {outcome.reason}: {outcome.message}", "node 0 says how the run ended")
        output.note(f"node {node} of {nodes} has finished; the run, its seconds and its loss are node 0's")
        return
    with Progress(silent=as_json) as progress:
        finished = run_once(request, progress)
    if as_json:
        output.as_json(summary(finished))
    else:
        print_summary(finished, folder)
    if wandb:
        mirror(finished)
    if finished.record.reason is not None:
        raise typer.Exit(130 if finished.record.reason == "interrupted" else 1)


def _node(nodes: int, node: int, meet: str | None) -> Node:
    """What the three options say. Raises UserError."""
    from harness.core.plan import Node

    if node >= nodes:
        raise UserError(f"--node {node}: there are {nodes}, counted from 0", "name how many with --nodes")
    if nodes == 1:
        return Node()
    host, _, port = (meet or "").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        remedy = "--meet HOST:PORT: an address of node 0 that the others reach, and a free port there"
        raise UserError(f"--nodes {nodes}: the nodes need a place to meet (--meet {meet or 'is missing'})", remedy)
    return Node(node, nodes, host, int(port))
