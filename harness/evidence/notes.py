"""notes.md of a record, a page of a lab notebook: what changed, why, how to run it, what came, what else was tried.

What follows from the records is generated; only the figures between their markers must stay as they are, and
`speedrun records verify` computes them again. The rest is for the authors to write, or to leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.evidence.records import Record, RecordMethod
from harness.statistics import Interval
from harness.submission import Value

FIGURES = "<!-- figures: written by speedrun, checked by `speedrun records verify` -->"
END_OF_FIGURES = "<!-- end of figures -->"
FOR_AUTHORS = "For the authors:"  # begins what only they can write; a pull request with such a line is refused


@dataclass(frozen=True)
class Tried:
    """An attempt at the same record that did not become it; `ratio` over the reference at equal loss, where raced."""

    title: str
    verdict: str
    ratio: Interval | None
    place: str


@dataclass(frozen=True)
class Before:
    """The record before, and the defaults of its hyperparameters."""

    record: Record
    hparams: dict[str, Value]


def figures(record: Record) -> str:
    """The generated result block of notes.md."""
    rows = [
        ("task, class", f"{record.task}, {record.hardware_class}"),
        ("target", f"{record.target:.4f} nats per token{', provisional' if record.target_provisional else ''}"),
        ("loss", f"{record.val_loss:.4f}, standard deviation {record.loss_spread:.4f}, {record.runs} runs"),
        ("reaches the target", f"p = {record.p_target:.2g}, corrected for the looks"),
        ("holdout", _holdout_words(record.holdout_gap)),
        ("seconds", f"{record.seconds:.2f} on {record.machine}"),
        *([] if record.steps is None else [("steps", f"{record.steps:,.2f}, the score of this task")]),
        ("tokens", f"{record.tokens:,.0f}"),
        ("parent", record.parent or "none: the first record"),
    ]
    if record.ratio is not None:
        limits = f"{record.ratio.low:.4f} to {record.ratio.high:.4f}, one-sided 99% limits"
        rows.append(("faster than the parent at equal loss", f"{record.ratio.ratio:.4f} times ({limits})"))
    rows += [
        ("methods added", ", ".join(record.methods_added) or "none"),
        ("methods dropped", ", ".join(record.methods_dropped) or "none"),
        ("submission", f"`{record.submission}`"),
    ]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows)
    return f"{FIGURES}\n| | |\n|---|---|\n{table}\n{END_OF_FIGURES}"


def _holdout_words(gap: float | None) -> str:
    return "not judged" if gap is None else f"{gap:+.4f} nats per token against validation, in one run; decides nothing"


def new_notes(
    record: Record, hparams: dict[str, Value], before: Before | None, tried: Sequence[Tried], same: int
) -> str:
    """notes.md as it is filed.

    `hparams`: the defaults of the record's own hyperparameters. `same`: earlier attempts of the same parsed source.
    """
    parts = [
        f"# {record.title}\n\n`{record.id}`, by {', '.join(record.authors)}.",
        f"## What changed\n\n{_changes(record, hparams, before)}",
        f"## Why it should help\n\n{_reason(record, hparams, before)}",
        f"## Launch\n\n{_commands(record)}",
        f"## Result\n\n{figures(record)}",
        f"## What else was tried\n\n{_others(record, tried, same)}",
    ]
    return "\n\n".join(parts) + "\n"


def _changes(record: Record, hparams: dict[str, Value], before: Before | None) -> str:
    """Methods that came and went, and hyperparameters whose defaults are others now."""
    if before is None:
        names = [f"- `{name}`: {_described(method)}" for name, method in record.methods.items()]
        return "\n".join(["The first record: there is nothing before it.", *(["", *names] if names else [])])
    lines = [f"Against `{before.record.id}`, {before.record.title}:", ""]
    lines += [f"- added `{name}`: {_described(record.methods[name])}" for name in record.methods_added]
    lines += [f"- dropped `{name}`: {_described(before.record.methods[name])}" for name in record.methods_dropped]
    for name in dict.fromkeys([*before.hparams, *hparams]):
        was, now = before.hparams.get(name), hparams.get(name)
        if was != now:
            lines.append(f"- hyperparameter `{name}`: {_shown(was)} before, {_shown(now)} now")
    if len(lines) == 2:
        lines.append("- the same methods and hyperparameters, other code")
    return "\n".join(lines)


def _described(method: RecordMethod) -> str:
    return one_line(f"{method.summary} ({method.kind}; {method.source})")


def one_line(text: str) -> str:
    """Foreign text for a page: one line, nothing that cannot be seen."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split()) or "?"


def _shown(value: Value | None) -> str:
    return "not there" if value is None else str(value)


def _reason(record: Record, hparams: dict[str, Value], before: Before | None) -> str:
    """Of a record that only drops methods the race itself is the reason; others are for their authors."""
    if record.ratio is not None and before and record.methods_dropped and not record.methods_added:
        names = ", ".join(f"`{name}`" for name in record.methods_dropped)
        score = "time" if record.steps is None else "steps"
        retuned = any(before.hparams.get(name, value) != value for name, value in hparams.items())
        share = f"1/{record.ratio.ratio:.4f} of the {score} to the same loss"
        raced = "A method must pay for itself. Raced against its parent, the record without"
        if retuned:
            return f"{raced} {names} takes {share} once what is left is tuned for itself."
        return f"{raced} {names} takes {share}, so {names} cost more than it gave."
    return f"{FOR_AUTHORS} why this should make training faster, and what would have shown that it does not."


def _commands(record: Record) -> str:
    folder = f"records/{record.id}/submission"
    commands = [(f"speedrun run {folder}", "one run"), (f"speedrun verify {record.id}", "the race again, here")]
    if record.methods:
        commands.append((f"speedrun ablate {record.id}", "what each method is worth"))
    width = max(len(command) for command, _ in commands)
    lines = "\n".join(f"$ {command:<{width}}  # {what}" for command, what in commands)
    return f"```console\n{lines}\n```"


def _others(record: Record, tried: Sequence[Tried], same: int) -> str:
    """Attempts against the same parent, as far as they are kept; and room for what was never submitted."""
    lines = [f"- {one.title}: {one.verdict}{_ratio_words(one.ratio)} (`{one.place}`)" for one in tried]
    own = f"{FOR_AUTHORS} what was tried by hand or by tuning and left out, with its losses and where they are."
    against = f"against `{record.parent}`" if record.parent else "at a first record"
    again = (
        f"{same or 'No'} earlier {'attempt' if same == 1 else 'attempts'} had the same parsed source as this record."
    )
    return "\n".join([*([f"Other attempts {against}:", "", *lines, ""] if lines else []), again, "", own])


def _ratio_words(ratio: Interval | None) -> str:
    return "" if ratio is None else f", {ratio.ratio:.4f} times as fast ({ratio.low:.4f} to {ratio.high:.4f})"
