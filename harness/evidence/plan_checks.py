"""What in the plan of a record, attempt, verification or ablation those who race are not free to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from harness.core.task import load_task
from harness.evidence.comparing import same
from harness.evidence.plans import CANDIDATE, REFERENCE, BaselineCampaign, DecidedCampaign, ScheduledRun
from harness.evidence.race import rules_of
from harness.frozen import core_digest
from harness.paths import TASKS
from harness.statistics import fixed_plan, sequential_plan
from harness.statistics.target import FAILURES_ALLOWED

PLAIN_TIME_SINCE = "2026-12-02"  # before it a record had to be faster at equal loss alone
ORDERS = ([CANDIDATE, REFERENCE], [REFERENCE, CANDIDATE])


def plan_problems(plan: DecidedCampaign, repetition: bool) -> list[str]:
    """The fields that are not what `plan_race` and its like would have written, a line each.

    `repetition`: of a verification, where the first record is run a fixed number of times. The target is that of the
    present task, so it is looked at for plans of the present core alone.
    """
    problems = []
    if plan.core_digest == core_digest() and (TASKS / f"{plan.task}.toml").exists():
        task = load_task(plan.task)
        due = (task.digest, task.target.val_loss, task.target.provisional)
        if (plan.task_digest, plan.target, plan.target_provisional) != due:
            problems.append(f"task_digest, target: not those of the task {plan.task}")
    maximum, fixed = plan.deciding.sequence.maximum, repetition and isinstance(plan, BaselineCampaign)
    try:
        sequence = fixed_plan(maximum) if fixed else sequential_plan(maximum)
    except ValueError as error:
        return [*problems, f"deciding: {error}"]
    rules = rules_of(plan.hardware_class, sequence, plan.calibration)
    if plan.deciding.time_ratio_spread is None:  # as plans were made before it was known
        rules = replace(rules, time_ratio_spread=None)
    if plan.started[:10] < PLAIN_TIME_SINCE:
        rules = replace(rules, plain_time=plan.deciding.plain_time)
    found = asdict(plan.deciding)
    problems += [f"deciding: {name}: not what every race has" for name, value in asdict(rules).items()
                 if not same(found[name], value)]  # fmt: skip
    if isinstance(plan, BaselineCampaign):
        least = max(1, maximum - FAILURES_ALLOWED) if fixed else BaselineCampaign.model_fields["least_runs"].default
        problems += [f"least_runs: must be {least}"] if plan.least_runs != least else []
    return problems + _schedule_problems(plan.blocks)


def _schedule_problems(blocks: Sequence[Sequence[ScheduledRun]]) -> list[str]:
    problems = []
    orders = [[run.arm for run in block] for block in blocks]
    if any(len(order) == 2 and order != ORDERS[pair % 2] for pair, order in enumerate(orders)):
        problems.append("schedule: pairs must be in the order A B B A")
    seeds = [{run.seed for run in block} for block in blocks]
    if any(len(one) > 1 for one in seeds) or len(set.union(*seeds)) < len(seeds):
        problems.append("schedule: each pair must have one seed, which no other has")
    return problems
