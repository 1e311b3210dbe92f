"""Every rule of `speedrun check`: its id, what it asks for, why, and what to do where it fails.

    python -m harness.checks.rules        # writes the table into CONTRIBUTING.md

The order is the order of the check, from cheap to dear. The check stops after the first stage with a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.paths import ROOT

Stage = Literal["files", "source", "build", "dry run", "drops"]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BEGIN = "<!-- rules: written by `python -m harness.checks.rules` -->"
END = "<!-- end of rules -->"


@dataclass(frozen=True)
class Rule:
    """One thing that every submission has to fulfil."""

    id: str
    stage: Stage
    what: str
    why: str
    remedy: str


RULES = (
    Rule(
        "manifest", "files",
        "`submission.toml` has every field it needs and no unknown one.",
        "A misspelled field must not silently mean nothing.",
        "Correct the named fields; docs/submission.md lists them all.",
    ),
    Rule(
        "files", "files",
        "The folder holds `train.py` and only plain `.py`, `.toml` and `.md` files.",
        "What runs must be readable by everyone, and nothing may be brought along ready-made.",
        "Remove what the message names; put a file in the place of a link.",
    ),
    Rule(
        "source-size", "files",
        "All files together stay within the task's cap of bytes.",
        "A record is read by people; large sources hide tables.",
        "Remove what does not take part in training.",
    ),
    Rule(
        "line-length", "files",
        "No line of Python is longer than the task's cap.",
        "Nobody reads a line of thousands of characters.",
        "Break the line up.",
    ),
    Rule(
        "valid-python", "files",
        "Every `.py` file parses.",
        "What does not parse cannot run, nor be checked.",
        "Correct the syntax error.",
    ),
    Rule(
        "numeric-literals", "files",
        "The source writes out no more numbers than the task allows.",
        "Weights or statistics of the data written as numbers would be training outside of the clock.",
        "Compute numbers instead of listing them.",
    ),
    Rule(
        "evaluation-shape", "files",
        "`[evaluation]` batch and length are within the task's limits.",
        "The judge asks for logits of exactly this shape.",
        "Choose a smaller batch or length.",
    ),
    Rule(
        "packed-data", "source",
        "Strings, comments, names and notes read like text, not like packed bytes or lists of numbers.",
        "They escape the cap on numbers and could carry a table learned elsewhere.",
        "Compute the values in the run. Write words where an honest text was taken for a table.",
    ),
    Rule(
        "imports", "source",
        "Only modules that the task allows and the submission's own are imported.",
        "All model and optimizer code is in the folder; nothing else is part of a record.",
        "Remove the import, or copy the few lines you need into the folder and name their source.",
    ),
    Rule(
        "no-dynamic-code", "source",
        "No `exec`, `eval`, `compile`, `__import__`, and no call that reaches processes, files or the network.",
        "What runs must be what is read.",
        "Write the code out; a run needs nothing from outside of it.",
    ),
    Rule(
        "declared", "source",
        "Every name asked for by `run.uses` and `run.hparam` is declared in `submission.toml`.",
        "What is not declared can be neither dropped nor retuned.",
        "Add the table that the message names.",
    ),
    Rule(
        "main-guard", "source",
        "`train.py` does its work in functions, not when it is imported.",
        "The judge imports it too, to build the model.",
        'Keep the run in main(), behind `if __name__ == "__main__":`.',
    ),
    Rule(
        "import-safe", "build",
        "`train.py` can be imported in a fresh, sandboxed process without a GPU.",
        "The model host does that for every judgement.",
        "Move to main() or build_model() what fails; ask run.device for the device.",
    ),
    Rule(
        "build", "build",
        "`build_model(run)` returns a model within the task's cap of CPU seconds for loading.",
        "The model host builds it anew and loads the exported weights into it.",
        "Correct the error shown; leave training and data out of build_model.",
    ),
    Rule(
        "deterministic-build", "build",
        "The same seed gives the same weights in two fresh processes.",
        "The start of a run is compared with a fresh build, so that nothing can be learned before the clock.",
        "Begin build_model with torch.manual_seed(run.seed); draw from no other source of chance.",
    ),
    Rule(
        "seed-matters", "build",
        "Another seed gives other weights.",
        "Runs of one fixed start are no independent runs, and a chosen start is a chosen result.",
        "Initialize from torch's generator after torch.manual_seed(run.seed).",
    ),
    Rule(
        "start-weights", "dry run",
        "The weights at `run.start` are those of a fresh build.",
        "What training before the clock taught would be free.",
        "Restore the weights after a warm-up that changes them.",
    ),
    Rule(
        "dry-run", "dry run",
        "A few steps on made-up data reach the judge: start, stream, export, loading, logits.",
        "What fails here fails after a whole run as well.",
        "Correct what the message says; docs/submission.md explains each reason.",
    ),
    Rule(
        "trains", "dry run",
        "The dry run changes at least one parameter.",
        "A script whose optimizer does nothing is a mistake.",
        "See that the optimizer has the parameters of the model given to run.start, and steps.",
    ),
    Rule(
        "audit", "dry run",
        "The model's answers depend on nothing but the tokens before them.",
        "A look at the future, at other rows or at earlier batches would lower the loss without learning.",
        "Mask attention causally; keep no state between batches in evaluation.",
    ),
    Rule(
        "droppable", "drops",
        "Without any one of its methods the submission still reaches the judge.",
        "A method that cannot be dropped cannot be shown to help.",
        "Give `if run.uses(NAME)` an else that works.",
    ),
    Rule(
        "optimizer-left", "drops",
        "Without its methods of kind optimizer the script trains with a plain one, or says that none is left.",
        "A run that trains nothing is no evidence about a method.",
        'Fall back to AdamW, or raise harness.errors.UserError("no optimizer is left") before run.start.',
    ),
    Rule(
        "consulted", "drops",
        "Every declared method and hyperparameter is asked for in some dry run.",
        "A name that is never read pretends to be tunable.",
        "Read hyperparameters before run.start or in the first steps; remove names that nothing reads.",
    ),
)  # fmt: skip
BY_ID = {rule.id: rule for rule in RULES}


def markdown() -> str:
    """The table of all rules, as it stands in CONTRIBUTING.md."""
    rows = [f"| `{rule.id}` | {rule.what} | {rule.why} | {rule.remedy} |" for rule in RULES]
    return "\n".join(["| rule | what | why | remedy |", "|---|---|---|---|", *rows])


def with_table(text: str) -> str:
    """A text with the table between its markers renewed. Raises UserError where it has no markers."""
    return between_markers(text, markdown(), BEGIN, END, CONTRIBUTING)


def between_markers(text: str, table: str, begin_marker: str, end_marker: str, path: Path) -> str:
    """The text of the page at `path` with what stands between two markers replaced. Raises UserError without them."""
    before, begin, rest = text.partition(begin_marker)
    _, end, after = rest.partition(end_marker)
    if not begin or not end:
        raise UserError(f"{path}: the markers of the table are gone", f"put back {begin_marker} and {end_marker}")
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_table(CONTRIBUTING.read_text()))
