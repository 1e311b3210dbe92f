"""What methods are worth: ablations as rows of their frame, and as a picture, seconds saved against lines of code.

They lie in the folders of the records, ablations/ID/ablation.json, and are read with these: `leaderboard.own`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from harness.evidence.ablations import ABLATIONS, Ablation
from leaderboard import charts
from leaderboard.charts import Measured

Row = dict[str, Any]
WIDTHS = (1080, 358)  # on a desk and on a phone


def rows(found: Iterable[tuple[str, Ablation]]) -> list[Row]:
    """Finished ablations with the names of their folders as rows of the frame."""
    return [_row(ablation, name) for name, ablation in found]


def tradeoff(found: Iterable[Row], base: str | None, widths: tuple[int, ...] = WIDTHS) -> list[Markup]:
    """Seconds saved against the lines that it takes, a point for every ablation with a ratio; none without any.

    `base`: the folder of the pages of methods; None for a drawing without links.
    """
    values = [
        Measured(
            ", ".join(row["methods"]), row["lines"],
            row["seconds_saved"], row["seconds_saved_low"], row["seconds_saved_high"],
            f"{', '.join(row['methods'])}: {row['word']} in {row['record']}, {row['seconds_saved']:.2f} s "
            f"[{row['seconds_saved_low']:.2f}, {row['seconds_saved_high']:.2f}] by {row['lines']} lines",
            "" if base is None or len(row["methods"]) > 1 else f"{base}{row['methods'][0]}.html",
            "other" if row["word"] == "unproven" else "",
        )
        for row in found
        if row["seconds_saved"] is not None
    ]  # fmt: skip
    if not values:
        return []
    label = "Seconds that methods save of a run, at equal loss, against their lines of code"
    return [charts.tradeoff(values, width, label, "lines of code", "seconds saved") for width in widths]


def _row(ablation: Ablation, identifier: str) -> Row:
    board, _, place = ablation.record.rpartition("/")
    record, ratio, saved = f"{board}/{place[:3]}", ablation.ratio, ablation.saved
    return {
        "ablation": f"{record}/{ABLATIONS}/{identifier}", "record": record, "board": board, "date": ablation.date,
        "machine": ablation.machine, "methods": ablation.dropped, "word": str(ablation.word),
        "reason": ablation.reason, "pairs": ablation.pairs,
        "ratio": ratio and ratio.ratio, "ratio_low": ratio and ratio.low, "ratio_high": ratio and ratio.high,
        "ratio_tokens": ablation.tokens and ablation.tokens.ratio,
        "ratio_speed": ablation.speed and ablation.speed.ratio,
        "seconds_saved": saved and saved.seconds, "seconds_saved_low": saved and saved.low,
        "seconds_saved_high": saved and saved.high, "lines": ablation.lines, "shared_lines": ablation.shared_lines,
        "saved_per_line": ablation.saved_per_line, "memory": ablation.peak_memory - ablation.peak_memory_without,
    }  # fmt: skip
