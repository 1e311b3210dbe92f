"""`speedrun resume`: go on with a campaign that Ctrl-C, a crash or a reboot has stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options, output


def resume(
    campaign: Annotated[
        str | None, typer.Argument(metavar="CAMPAIGN", help="Id or folder; the latest unfinished one otherwise.")
    ] = None,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Go on with a campaign where it stopped. No finished run is repeated; a killed one is, with its seed.

    A campaign that was given up for futility goes on to its next look.
    """
    from harness.cli import campaigns
    from harness.evidence.folder import read_campaign
    from harness.evidence.plans import DecidedCampaign
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.evidence.verdict import pairs_to_go

    folder = campaigns.find(campaign, runs_dir, records_dir)
    if not as_json:
        output.note(f"campaign {folder}")
    found = read_campaign(folder)
    where = Where(found.plan.task, found.plan.hardware_class, records_dir)
    pairs = pairs_to_go(found) if isinstance(found.plan, DecidedCampaign) else 0
    campaigns.go_on(found, Places(data_dir, runs_dir), where, silent=as_json, pairs=pairs)
