"""calibrations/ID/ beside the records: the runs of a calibration, so that anybody can compute it again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.evidence.bundles import BUNDLES, bundle_problems
from harness.evidence.calibration import calibrate, calibration_for, calibration_path
from harness.evidence.folder import CALIBRATION, PLAN, RUNS, Campaign, read_campaign
from harness.evidence.plans import CalibrationCampaign
from harness.evidence.record_checks import Checked, core_problems, differences
from harness.evidence.sides import Where

CALIBRATIONS = "calibrations"


def keep_calibration_runs(campaign: Campaign[Any], where: Where) -> Path:
    """Copies plan, runs and bundles of a calibration beside the records. Raises UserError."""
    folder = _folder(where, campaign.plan.id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (PLAN, RUNS, BUNDLES):
            shutil.copyfile(campaign.folder / name, folder / name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "choose a folder you can write to: --records-dir") from None
    return folder


def check_calibration(where: Where) -> list[Checked]:
    """Computes the present calibration of a task and class again, where its runs are kept."""
    name = f"{where.task}/{where.hardware}/{CALIBRATION}"
    if not calibration_path(where).exists():
        return []
    try:
        kept = calibration_for(where)
        folder = _folder(where, Path(kept.source).name)
        if not folder.is_dir():
            return []
        campaign = read_campaign(folder)
        if not isinstance(campaign.plan, CalibrationCampaign):
            return [Checked(name, [f"{folder}/{PLAN}: kind: a {campaign.plan.kind} is no calibration"])]
        due = calibrate(campaign, campaign.course)
        problems = [*core_problems(campaign.plan), *bundle_problems(campaign), *differences(CALIBRATION, kept, due)]
    except UserError as error:
        problems = [error.message]
    return [Checked(name, problems)]


def _folder(where: Where, campaign: str) -> Path:
    return calibration_path(where).parent / CALIBRATIONS / campaign
