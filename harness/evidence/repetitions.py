"""How often a submission has been tried before: attempts whose candidate does the same, however its text differs.

Every attempt has its own chance of a false record, so that the same source tried again and again comes through at last.
A new comment makes a new digest; the parsed source stays what it was.
"""

from __future__ import annotations

import ast
import hashlib
import json
from typing import Any

from harness.core.files import read_file
from harness.errors import UserError
from harness.evidence.folder import PLAN, RESTORE, SOURCES, Campaign, read_campaign
from harness.evidence.plans import CANDIDATE
from harness.evidence.records import ATTEMPTS

MAX_SOURCE_BYTES = 1 << 20


def same_before(campaign: Campaign[Any]) -> list[str]:
    """The ids of earlier attempts with the same parsed source, oldest first, whatever they were raced against.

    What was planned and never run does not count; what cannot be read is for `speedrun records verify` to name. Empty
    for a campaign that is no attempt.
    """
    if campaign.folder.parent.name != ATTEMPTS:
        return []
    own, found = parsed_source(campaign), []
    for path in sorted(campaign.folder.parent.glob(f"*/{PLAN}")):
        try:
            other = read_campaign(path.parent)
            earlier = other.plan.id != campaign.plan.id and other.plan.started <= campaign.plan.started
            if earlier and other.lines and parsed_source(other) == own:
                found.append(other.plan.id)
        except UserError:
            continue
    return found


def parsed_source(campaign: Campaign[Any]) -> str:
    """sha256 of the candidate's syntax trees, methods and hyperparameters. Raises UserError where it cannot be read."""
    arm = campaign.plan.arms[CANDIDATE]
    folder, trees = campaign.folder / SOURCES / CANDIDATE / arm.name, {}
    for path in sorted(folder.rglob("*.py")):
        content = read_file(path, MAX_SOURCE_BYTES, RESTORE, follow_link=False)
        try:
            trees[path.relative_to(folder).as_posix()] = ast.dump(ast.parse(content))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"{path}: not valid Python: {error}", RESTORE) from None
    return hashlib.sha256(json.dumps([trees, arm.methods, arm.hparams], sort_keys=True).encode()).hexdigest()
