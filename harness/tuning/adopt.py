"""Makes what was found the declared point: writes values as defaults into submission.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.bundle import write_atomically
from harness.errors import UserError
from harness.submission import Submission, Value, load_submission
from harness.tuning.analysis import Finalist, finalists
from harness.tuning.design import same_budget
from harness.tuning.tune import Tuning


def adopt(tuning: Tuning) -> tuple[Finalist, dict[str, Value]]:
    """Declares the finalist of the lowest mean loss; returns it with the values that changed. Raises UserError.

    Only finalists of the full budget count: one that read more tokens has a lower loss for that alone. The declared
    budget stays, so that steps change only where the tokens of a step do.
    """
    design, steps = tuning.design, tuning.protocol.budget.steps
    chosen = best_finalist(tuning)
    if chosen is None:
        remedy = "run speedrun tune with --stage finalists first"
        raise UserError(f"{tuning.table.path}: no finalist has run on every seed at the full budget", remedy)
    point = {**design.declared, **chosen.hparams}
    point[steps] = design.steps_for(design.tokens(design.declared), point)
    changed = {name: value for name, value in point.items() if value != design.declared[name]}
    declare(tuning.submission, changed)
    return chosen, changed


def best_finalist(tuning: Tuning) -> Finalist | None:
    """The finalist of the lowest mean loss among those of the full budget."""
    design, ran = tuning.design, finalists(tuning.design, tuning.table)
    full = (one for one in ran if same_budget(design.tokens(one.hparams), design.full_tokens))
    return next(full, None)


def declare(submission: Submission, values: Mapping[str, Value]) -> None:
    """Writes values as defaults into submission.toml, which is left as it was where that fails. Raises UserError."""
    path = submission.folder / "submission.toml"
    before = path.read_text(encoding="utf-8")
    write_atomically(path, with_defaults(before, values, path))
    if load_submission(submission.folder, submission.task).hparams([]) != {**submission.hparams([]), **values}:
        write_atomically(path, before)
        raise UserError(f"{path}: its defaults could not be changed by line", _by_hand(values))


def with_defaults(text: str, values: Mapping[str, Value], path: Path) -> str:
    """The text of a submission.toml with other defaults: the lines `default = ...` of [hparams.NAME], comments kept."""
    lines = text.split("\n")
    missing = dict(values)
    section = ""
    for index, line in enumerate(lines):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        section = header[1].strip() if header else section
        name = section.removeprefix("hparams.")
        found = re.match(r"(\s*default\s*=\s*)([^#]*?)(\s*(?:#.*)?)$", line)
        if found and section.startswith("hparams.") and name in missing:
            lines[index] = f"{found[1]}{_toml(missing.pop(name))}{found[3]}"
    if missing:
        raise UserError(f"{path}: no line `default = ...` under [hparams.{next(iter(missing))}]", _by_hand(values))
    return "\n".join(lines)


def _by_hand(values: Mapping[str, Value]) -> str:
    return "set by hand: " + ", ".join(f"{name} = {_toml(value)}" for name, value in values.items())


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
