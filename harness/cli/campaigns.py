"""What `race`, `ablate`, `calibrate` and `resume` share: going on with a campaign, and what it says at its end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from harness.campaign import run_once
from harness.cli import output
from harness.cli.ablation_view import print_ablations
from harness.cli.board_site import renew
from harness.cli.campaign_view import (
    PAIR_COLUMNS,
    CalibrationView,
    CampaignProgress,
    RaceView,
    duration,
    interval,
    pair_rows,
)
from harness.errors import UserError
from harness.evidence.ablations import ABLATIONS, keep_ablation
from harness.evidence.calibration import Resolution, calibrate, changed_since, resolution, write_calibration
from harness.evidence.calibration_checks import keep_calibration_runs
from harness.evidence.filing import ISOLATED, file_record
from harness.evidence.folder import CALIBRATION, PLAN, VERDICT, Campaign
from harness.evidence.plans import (
    CANDIDATE,
    REFERENCE,
    BaselineCampaign,
    Calibration,
    CalibrationCampaign,
    DecidedCampaign,
)
from harness.evidence.race import next_record_look, settled_after, time_left
from harness.evidence.records import ATTEMPTS, NOTES, VERIFICATIONS, load_record
from harness.evidence.repetitions import same_before
from harness.evidence.series import Interrupted, Places, carry_on
from harness.evidence.sides import Where
from harness.evidence.verdict import CampaignVerdict, is_comparison, keep_verdict, report, word_of
from harness.evidence.verifications import Again, Verification, keep_verification
from harness.frozen import outdated
from harness.statistics import Interval, Verdict

FOLDER = "campaigns"  # under the runs folder
STYLE = {Verdict.RECORD: "bold green", Verdict.NOT_PROVEN: "bold", Verdict.SLOWER: "bold yellow"}
SAID = {True: ("agrees with", "green"), False: ("DOES NOT AGREE with", "red"), None: ("says nothing about", "yellow")}


def find(word: str | None, runs_dir: Path, records_dir: Path) -> Path:
    """The folder of a campaign: by path or id, or the latest one that is not finished. Raises UserError."""
    patterns = [f"*/*/{ATTEMPTS}/*/{PLAN}", *(f"*/*/*/{kind}/*/{PLAN}" for kind in (VERIFICATIONS, ABLATIONS))]
    known = [*(runs_dir / FOLDER).glob(f"*/{PLAN}")]
    known += [path for pattern in patterns for path in records_dir.glob(pattern)]
    folders = sorted((path.parent for path in known), key=lambda folder: folder.name)
    if word is not None:
        named = [folder for folder in [Path(word), *folders] if word in (str(folder), folder.name)]
        for folder in named:
            if (folder / PLAN).is_file():
                return folder
        ids = ", ".join(folder.name for folder in folders[-5:]) or "none"
        raise UserError(f"{word}: no such campaign (no {PLAN} in it)", f"the latest campaigns: {ids}")
    waiting = [folder for folder in folders if not any((folder / name).exists() for name in (VERDICT, CALIBRATION))]
    if not waiting:
        raise UserError(f"{runs_dir / FOLDER}: no unfinished campaign", "start one: speedrun race A B")
    return waiting[-1]


def go_on(
    campaign: Campaign[Any], places: Places, where: Where, silent: bool, pairs: int = 0, told: bool = True
) -> CampaignVerdict | None:
    """Does what is left of a campaign and prints what it says. Exits with 130 after Ctrl-C.

    `silent`: only the object of `--json` is printed. `told` off: of an ablation not even that; the caller tells it.
    What is kept in records/ is on the board before its first run and again at its end.
    """
    if not campaign.folder.resolve().is_relative_to(where.records.resolve()):
        return _go_on(campaign, places, where, silent, pairs, told)
    renew(where.records)
    try:
        return _go_on(campaign, places, where, silent, pairs, told)
    finally:
        renew(where.records)


def _go_on(
    campaign: Campaign[Any], places: Places, where: Where, silent: bool, pairs: int, told: bool
) -> CampaignVerdict | None:
    if isinstance(campaign.plan, DecidedCampaign):
        if not silent:
            _announce(campaign)
        # A pair that was begun after a stop for futility is finished before that verdict counts again.
        settled, view = settled_after(campaign.plan, max(pairs, campaign.begun)), RaceView
    else:
        settled, view = (lambda course: False), CalibrationView  # type: ignore[assignment]
    try:
        with CampaignProgress(silent) as progress:
            carry_on(campaign, places, lambda request: run_once(request, progress), settled, view(progress, campaign))
    except (Interrupted, KeyboardInterrupt):
        _interrupted(campaign, silent)
        raise typer.Exit(output.INTERRUPTED) from None
    if isinstance(campaign.plan, DecidedCampaign):
        return _end_race(campaign, where, silent, told)
    _end_calibration(campaign, where, silent)
    return None


def describe_calibration(calibration: Calibration) -> str:
    """The calibration behind a verdict, in a line."""
    slope = calibration.slope
    kind = f"provisional, from {calibration.source}" if calibration.provisional else calibration.source
    return (
        f"loss sd {calibration.loss_spread:.4f} nats, clock {100 * calibration.clock_variation:.2f}%, "
        f"s {slope.nats_per_efold:.4f} ± {slope.standard_error:.4f} nats per e-fold of budget; "
        f"{calibration.runs} runs ({kind})"
    )


def describe_resolution(found: Resolution) -> list[str]:
    """What a race can find here, and a warning where that is too little."""
    percent = f"{100 * found.effect:.3g}%"
    same = f"{found.pairs_at_same_loss:,} where the two losses of every pair are the same"
    lines = [f"to resolve {percent} here takes about {found.pairs:,} pairs, {duration(found.seconds)}; {same}"]
    if found.too_noisy:
        lines.append(
            f"too noisy for that: {found.maximum} pairs resolve {100 * found.least_effect:.1f}% or more "
            "(chance of 90%, beyond the least gain of a record)"
        )
    return lines


def _announce(campaign: Campaign[DecidedCampaign]) -> None:
    plan, done = campaign.plan, len(campaign.course.blocks)
    output.note(f"{_title(plan)} ({plan.task}, {plan.hardware_class})")
    same = {repr((arm.digest, arm.methods, arm.hparams)) for arm in plan.arms.values()}
    if len(same) < len(plan.arms):
        output.note("both arms are the same: this tries the machine and the statistics")
    output.note(f"calibration: {describe_calibration(plan.calibration)}")
    if changed := changed_since(plan.calibration, plan):
        measured = f"calibrated on {plan.calibration.machine}, with another {', another '.join(changed)}"
        output.warn(f"warning: {measured}: speedrun calibrate")
    is_race = REFERENCE in plan.arms
    if is_race:
        first, *too_noisy = describe_resolution(resolution(plan.calibration, plan.deciding.sequence))
        output.note(first)
        for text in too_noisy:
            output.warn(f"warning: {text}")
    left = time_left(plan, campaign.lines, done)
    looks = ", ".join(map(str, plan.deciding.sequence.looks))
    unit = "pairs" if is_race else "runs"
    first = (
        f"{duration(left.record)} to that at {next_record_look(plan, done) or done}, the first that can show the target"
    )
    to_it = f"{duration(left.next_look)} to the next" if is_race else first
    output.note(f"looks after {looks} {unit}; {to_it}, at most {duration(left.maximum)}")


def _title(plan: DecidedCampaign) -> str:
    labels = [plan.arms[arm].label for arm in (CANDIDATE, REFERENCE) if arm in plan.arms]
    return " against ".join(labels)


def _interrupted(campaign: Campaign[Any], silent: bool) -> None:
    blocks, total = len(campaign.course.blocks), len(campaign.plan.blocks)
    if silent:
        output.as_json({"status": "interrupted", "folder": str(campaign.folder), "done": blocks, "of": total})
    output.note(f"stopped after {blocks} of {total}; go on with: speedrun resume {campaign.plan.id}")


def _end_race(campaign: Campaign[Any], where: Where, silent: bool, told: bool) -> CampaignVerdict:
    """Keeps and prints the verdict; an attempt with the verdict `record` is filed. Raises UserError where it cannot."""
    verdict = keep_verdict(campaign)
    assert verdict is not None, "a race that ended without interruption has a verdict"
    filed, refused = None, None
    if campaign.folder.parent.name == VERIFICATIONS:
        _end_verification(campaign, verdict, where, silent)
        return verdict
    if campaign.folder.parent.name == ABLATIONS:
        _end_ablation(campaign, verdict, silent, told)
        return verdict
    attempt = campaign.folder.parent.name == ATTEMPTS
    if attempt and verdict.verdict is Verdict.RECORD and not is_comparison(campaign):
        try:
            filed = file_record(campaign, where, campaign.plan.arms[CANDIDATE].name, datetime.now(UTC))
        except UserError as error:
            refused = error
    if silent:
        record = {"record": str(filed) if filed else None} if attempt else {}
        output.as_json({**report(campaign, verdict), **record})
    else:
        print_verdict(campaign, verdict)
        if filed is not None:
            output.line(f"{'record':<17} {filed}: write its {NOTES}, then commit it with the attempt", "green")
    if refused is not None:
        raise refused
    return verdict


def _end_ablation(campaign: Campaign[Any], verdict: CampaignVerdict, silent: bool, told: bool) -> None:
    found = keep_ablation(campaign)
    if not told:
        return
    if silent:
        output.as_json({**report(campaign, verdict), "ablation": found.model_dump(mode="json")})
        return
    print_verdict(campaign, verdict)
    output.line()
    print_ablations(found.record, [found])


def _end_verification(campaign: Campaign[Any], verdict: CampaignVerdict, where: Where, silent: bool) -> None:
    found = keep_verification(campaign, where)
    if silent:
        output.as_json({**report(campaign, verdict), "verification": found.model_dump(mode="json")})
        return
    print_verdict(campaign, verdict)
    if found.filed is not None:
        chance = "" if found.p is None else f"; differ by chance: p {found.p:.3g}"
        output.line(f"{'filed':<17} {interval(found.filed)} against {found.against}{chance}")
    else:
        _print_repetition(found, load_record(campaign.folder.parent.parent).measurement_version)
    output.line(f"{'target':<17} {_target_again(found)}")
    said, style = SAID[found.agrees]
    alone = "confirms it by itself" if found.confirms else "does not show it by itself"
    output.line(f"{'verification':<17} {said} {found.record}; this race {alone}", style)
    if found.trust != [ISOLATED]:
        levels = ", ".join(found.trust)
        output.warn(f"the board does not count it: trust {levels}; `speedrun doctor` says what is missing")


def _target_again(found: Verification) -> str:
    """In words; `misses target` in the verdict would say too much where the runs leave it open."""
    if found.target is Again.OPEN:
        return f"{found.target} by {found.pairs} runs, nor shown to be missed: p {found.p_missed:.3g}"
    p = found.p_target if found.target is Again.SHOWN else found.p_missed
    return f"{found.target} by {found.pairs} runs: p {p:.3g}"


def _print_repetition(found: Verification, filed_under: int) -> None:
    """The first record is compared with itself, as filed, under that version of the core."""
    (loss_filed, loss), (seconds_filed, seconds) = found.losses, found.seconds
    if loss is None or seconds is None or found.p is None:
        return
    output.line(f"{'loss':<17} {loss:.4f} here, {loss_filed:.4f} as filed; differ by chance: p {found.p:.3g}")
    machine = "the same kind of machine" if found.same_machine else "another kind of machine"
    output.line(f"{'seconds':<17} {seconds:.1f} here, {seconds_filed:.1f} as filed, on {machine}")
    if note := outdated(filed_under):
        output.line(f"{'':<17} {note}")


def print_verdict(campaign: Campaign[DecidedCampaign], verdict: CampaignVerdict) -> None:
    """The end of a race, for a person: ratio at equal loss, why, raw seconds, and what stands behind them."""
    plan = campaign.plan
    output.line()
    output.table(PAIR_COLUMNS, pair_rows(campaign), title=_title(plan))
    output.line()
    for label, value in _facts(plan, verdict):
        output.line(f"{label:<17} {value}")
    if campaign.folder.parent.name == ATTEMPTS:
        same = same_before(campaign)
        ids = f": {', '.join(same)}" if same else ""
        output.line(f"{'tried before':<17} {len(same)} times, with the same parsed source{ids}")
    style = STYLE.get(verdict.verdict, "bold red")
    reason = f": {verdict.reason}" if verdict.reason else ""
    output.line(f"{'verdict':<17} {word_of(campaign, verdict)}{reason}", style=style)
    output.line(f"{'campaign':<17} {campaign.folder}")
    if verdict.bootstrap_disagrees:
        output.warn("warning: the bootstrap would not call it faster: a few pairs stand apart; look at the table")
    for arm, figures in verdict.arms.items():
        for flag, runs in figures.flags.items():
            output.warn(f"look at it: {flag} in {runs} of the {arm}'s runs; `review` in their run.json has the numbers")
    if verdict.trust != ["isolated"]:
        output.warn(f"warning: trust {', '.join(verdict.trust) or 'unknown'}: a record needs isolated runs")


def _facts(plan: DecidedCampaign, verdict: CampaignVerdict) -> list[tuple[str, str]]:
    facts = []
    if verdict.equal_loss:
        limits = f"{interval(verdict.equal_loss)}, 99% limits; above 1 the candidate is faster"
        facts.append(("equal-loss ratio", limits))
    if verdict.tokens and verdict.speed:
        facts.append(("why", f"tokens to target {interval(verdict.tokens)} x tokens/s {interval(verdict.speed)}"))
    arms = [verdict.arms[arm] for arm in (CANDIDATE, REFERENCE) if arm in verdict.arms]
    by_steps = all(arm.mean_steps is not None for arm in arms)
    times = " against ".join(output.fixed(arm.mean_steps if by_steps else arm.mean_seconds, 2) for arm in arms)
    losses = " against ".join(output.fixed(arm.mean_loss, 4) for arm in arms)
    plain = verdict.plain or verdict.raw
    shown = interval(plain) if isinstance(plain, Interval) else output.fixed(plain, 4)
    raw = f", ratio {shown} at unequal loss" if plain is not None else ""
    facts += [(f"raw {'steps' if by_steps else 'seconds'}", f"{times}{raw}"), ("losses", losses)]
    provisional = ", provisional" if verdict.target_provisional else ""
    margin = "" if verdict.margin is None else f", margin {verdict.margin:+.4f}, p {verdict.p_target:.3g}"
    facts.append(("target", f"{verdict.target:.4f}{provisional}{margin}"))
    failed = f"; failed runs: {' and '.join(f'{figures.failed} {arm}' for arm, figures in verdict.arms.items())}"
    again = f"; {verdict.repeated} runs and {verdict.repeated_pairs} pairs done again, {verdict.disturbed} disturbed"
    if verdict.interrupted:
        late = f"{verdict.interrupted_late} of them after the clock had stopped"
        again += f"; {verdict.interrupted} runs interrupted by hand, {late}"
    ended = f"stopped: {verdict.stop}, final" if verdict.final else f"stopped: {verdict.stop}, may be continued"
    facts.append(
        ("pairs" if len(arms) > 1 else "runs", f"{verdict.pairs} of at most {verdict.maximum}, {ended}{failed}{again}")
    )
    plainly = ", that of plain time above 1" if verdict.plain else ""
    faster = f", lower limit above {verdict.minimum_ratio:g}{plainly}"
    if isinstance(plan, BaselineCampaign):
        faster = f", {plan.least_runs} judged runs"
    facts.append(("a record needs", f"target reached at p <= 0.01{faster}"))
    facts.append(("calibration", describe_calibration(plan.calibration)))
    if len(arms) > 1:
        found = resolution(plan.calibration, plan.deciding.sequence)
        facts.append(("resolution", "; ".join(describe_resolution(found))))
    return facts


def _end_calibration(campaign: Campaign[CalibrationCampaign], where: Where, silent: bool) -> None:
    found = calibrate(campaign, campaign.course)
    campaign.finish(CALIBRATION, found.model_dump(mode="json"))
    path = write_calibration(where, found)
    keep_calibration_runs(campaign, where)
    can = resolution(found)
    if silent:
        output.as_json({"calibration": found.model_dump(mode="json"), "path": str(path), "folder": str(campaign.folder),
                        "pairs_for_1_percent": can.pairs, "seconds_for_1_percent": can.seconds,
                        "effect_of_16_pairs": can.least_effect})  # fmt: skip
        return
    output.line(f"{found.task}, {found.hardware_class}, on {found.machine}", style="bold")
    output.line(f"{'runs':<17} {found.runs}")
    output.line(f"{'loss':<17} standard deviation {found.loss_spread:.5f} nats")
    output.line(f"{'clock':<17} {100 * found.clock_variation:.2f}% between neighbouring runs")
    slope = found.slope
    output.line(f"{'s':<17} {slope.nats_per_efold:.4f} ± {slope.standard_error:.4f} nats per e-fold of budget")
    if found.curvature_p is not None:
        output.line(f"{'straightness':<17} p {found.curvature_p:.3g} (below 0.01: s changes within these budgets)")
    output.line(f"{'a run':<17} {found.run_seconds:.1f} s on the clock, {found.total_seconds:.1f} s in all")
    first, *too_noisy = describe_resolution(can)
    output.line(f"{'races':<17} {first}")
    for text in too_noisy:
        output.warn(f"warning: {text}")
    output.line(f"{'kept in':<17} {path}")
