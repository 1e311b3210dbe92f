"""Charts as static SVG: they work without JavaScript, print, and take their colours from the page's style sheet.

Every point has a title (shown on hover, read by screen readers), and links where there is a page about it. All text is
escaped. Sizes are in CSS pixels of the drawing; the page scales it down to its width.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

NARROW = 500  # a drawing for a phone
LINKED = 200  # points of a narrow drawing: more of them could not be told apart, and are not linked
STYLE = (
    "svg{background:#fff;font:12px sans-serif}text{fill:#555}.grid{stroke:#e4e4e4}.axis{stroke:#888;fill:none}"
    ".line{stroke:#1f5f8b;stroke-width:1.6;fill:none}.dot{fill:#1f5f8b;stroke:#fff}.dot.other{fill:#fff;stroke:#1f5f8b}"
    ".target{stroke:#b4541a;stroke-dasharray:4 3;fill:none}"
)


@dataclass(frozen=True)
class Mark:
    """A point of a chart. x, y and the limits of y in data; href may be empty; kind is a class of the style sheet."""

    x: float
    y: float
    title: str
    href: str = ""
    kind: str = ""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), with the name that its legend shows."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = ""


@dataclass(frozen=True)
class Rule:
    """A named line across a chart; kind is a class of the style sheet: target or mean."""

    name: str
    value: float
    kind: str


@dataclass(frozen=True)
class Measured:
    """A named value with its limits, over a place on the other axis; title, href and kind as of a point."""

    name: str
    x: float
    y: float
    low: float
    high: float
    title: str
    href: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Frame:
    """The drawing's size and margins, and the ranges of its axes."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_y: bool = False
    left: int = 48
    right: int = 14
    top: int = 12
    bottom: int = 30

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        low, high, at = *self.y_range, value
        if self.log_y:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return round(
            self.height - self.bottom - (at - low) / ((high - low) or 1) * (self.height - self.top - self.bottom), 1
        )


def progression(marks: Sequence[Mark], width: int, label: str, numbered: bool = False, unit: str = "x") -> Markup:
    """Speed-up, log scale, as stairs with a point a record, against the day (x: ordinal) or the record's number."""
    places = [mark.x for mark in marks]
    heights = [value for mark in marks for value in (mark.y, *(mark.limits or ()))]
    frame = Frame(
        width, 300 if width > NARROW else 240, (min(places), max(max(places), min(places) + 1)),
        (min(1.0, *heights), max(heights) * 1.15), True, right=40 if numbered else 14,
    )  # fmt: skip
    ticks = _log_ticks(*frame.y_range)
    across = _number_axis(frame) if numbered else _date_axis(frame)
    parts = [_y_axis(frame, ticks, lambda value: f"{value:g}{unit}"), across]
    best = _best_so_far(marks)
    stairs = "".join(f"{'H' if i % 2 else 'V'}{value}" for i, value in enumerate(_stairs(frame, best)))
    parts.append(f'<path class="line" d="M{frame.x(best[0].x)} {frame.y(best[0].y)}{stairs}"/>')
    if len(marks) > LINKED and width < NARROW:
        dots = "".join(f"M{frame.x(mark.x)} {frame.y(mark.y)}h0" for mark in marks)
        parts.append(f'<path class="dots" d="{dots}"/>')
    else:
        parts += [_mark(frame, mark) for mark in marks]
    return _svg(frame, label, parts)


def curves(lines: Sequence[Line], target: float, width: int, label: str, x_name: str) -> Markup:
    """Losses against steps or seconds, over the last two thirds of the way, with the target as a dashed line."""
    last = max(line.points[-1][0] for line in lines)
    shown = [Line(line.name, [p for p in line.points if p[0] >= last / 3], line.kind) for line in lines]
    losses = [loss for line in shown for _, loss in line.points] + [target]
    low, high = min(losses), max(losses)
    frame = Frame(width, 260, (last / 3, last), (low - 0.04 * (high - low), high + 0.04 * (high - low)), bottom=40)
    parts = [_y_axis(frame, _ticks(*frame.y_range, 5), lambda value: f"{value:.2f}"), _x_axis(frame, x_name)]
    parts.append(_rule(frame, target))
    for line in shown:
        path = "L".join(f"{frame.x(x)} {frame.y(y)}" for x, y in line.points)
        parts.append(f'<path class="line {escape(line.kind)}" d="M{path}"><title>{escape(line.name)}</title></path>')
    return _svg(frame, label, parts)


def scatter(groups: Sequence[Line], target: float, width: int, label: str, x_name: str) -> Markup:
    """Points of several groups (x, loss), with the target as a dashed line. The kind of a group is a class."""
    points = [point for group in groups for point in group.points]
    (low_x, high_x), (low, high) = (_padded([p[axis] for p in points] + ([target] if axis else [])) for axis in (0, 1))
    frame = Frame(width, 260, (low_x, high_x), (low, high), left=56, bottom=40)
    digits = max(0, 2 - math.floor(math.log10(high_x - low_x)))
    parts = [
        _y_axis(frame, _ticks(low, high, 5), lambda value: f"{value:.3f}"),
        _x_axis(frame, x_name, digits=digits), _rule(frame, target),
    ]  # fmt: skip
    for group in groups:
        for x, y in group.points:
            title = f"<title>{escape(group.name)}: {x:,.2f}, {y:.5f}</title>"
            kind = f"dot {escape(group.kind)}".strip()
            parts.append(f'<circle class="{kind}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="3.4">{title}</circle>')
    return _svg(frame, label, parts)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Their range with some room, never empty."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.01 * abs(low) or 0.001
    return low - room, high + room


def strip(values: Sequence[tuple[str, float]], rules: Sequence[Rule], width: int, label: str) -> Markup:
    """Every run's value as a dot on one axis, stacked where they meet, with named lines across, the first foremost."""
    shown = [value for _, value in values] + [rule.value for rule in rules]
    spread = (max(shown) - min(shown)) or 0.001
    frame = Frame(width, 104, (min(shown) - 0.08 * spread, max(shown) + 0.08 * spread), (0, 1), left=14, top=26)
    parts = [_x_axis(frame, "", 4, 4)]
    stacks: dict[int, int] = {}
    base = frame.height - frame.bottom - 8
    for name, value in sorted(values, key=lambda run: run[1]):
        column = round(frame.x(value) / 7)
        level = stacks[column] = stacks.get(column, -1) + 1
        place = f'cx="{frame.x(value)}" cy="{base - min(level, 6) * 7}" r="3.2"'
        parts.append(f'<circle class="dot" {place}><title>{escape(name)}: {value:.5f}</title></circle>')
    for rule in rules:
        x = frame.x(rule.value)
        parts.append(f'<path class="{rule.kind}" d="M{x} {frame.top - 6}V{frame.height - frame.bottom}"/>')
        if rule is rules[0] or abs(x - frame.x(rules[0].value)) > 46:  # the text names it too, where there is no room
            anchor = "end" if x > width - 30 else "start" if x < 30 else "middle"
            text = f'x="{x}" y="{frame.top - 10}" text-anchor="{anchor}"'
            parts.append(f'<text class="{rule.kind}" {text}>{escape(rule.name)}</text>')
    return _svg(frame, label, parts)


def lifeline(
    introduced: int, dropped: int | None, last: int, kin: Iterable[tuple[int, int | None]], label: str
) -> Markup:
    """A bar over the record numbers 1 to `last`: the method dark, what took its place lighter behind it."""
    width, height = 220, 14

    def bar(begin: int, end: int | None, kind: str, thickness: int) -> str:
        x = (begin - 1) / last * width
        length = max(((end if end is not None else last + 1) - begin) / last * width, 2)
        y = (height - thickness) / 2
        return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{thickness}"/>'

    bars = [bar(begin, end, "kin", 4) for begin, end in kin]
    bars.append(bar(introduced, dropped, "stood" if dropped is not None else "stands", 8))
    named = f'role="img" aria-label="{escape(label)}"'
    return Markup(
        f'<svg class="life" viewBox="0 0 {width} {height}" preserveAspectRatio="none" {named}>'
        f'<path class="grid" d="M0 {height / 2}H{width}"/>{"".join(bars)}</svg>'
    )


def tradeoff(values: Sequence[Measured], width: int, label: str, x_name: str, y_name: str) -> Markup:
    """What was measured against what it costs, with limits, which may be cut off, and a line at no gain."""
    top, bottom = max(0.0, *(v.y for v in values)), min(0.0, *(v.y for v in values))
    room = 0.35 * ((top - bottom) or 1.0)  # a limit may be far away; the values are what is read
    y_range = (
        max(bottom - room, min(0.0, *(v.low for v in values))),
        min(top + room, max(0.0, *(v.high for v in values))),
    )
    frame = Frame(width, 300, (0, max(1.0, *(v.x for v in values)) * 1.08), y_range, left=56, top=26, bottom=40)
    digits = 0 if y_range[1] - y_range[0] > 8 else 2
    parts = [_y_axis(frame, _ticks(*y_range, 6), lambda value: f"{value:.{digits}f}"), _x_axis(frame, x_name)]
    parts.append(f'<path class="target" d="M{frame.left} {frame.y(0)}H{frame.width - frame.right}"/>')
    parts.append(f'<text x="8" y="14">{escape(y_name)}</text>')
    for value in values:
        low, high = (frame.y(min(max(limit, y_range[0]), y_range[1])) for limit in (value.low, value.high))
        parts.append(f'<path class="axis" d="M{frame.x(value.x)} {low}V{high}"/>')
        parts.append(_mark(frame, Mark(value.x, value.y, value.title, value.href, value.kind)))
        side, anchor = (6, "start") if frame.x(value.x) < 0.8 * width else (-6, "end")
        place = f'x="{frame.x(value.x) + side}" y="{frame.y(value.y) - 5}" text-anchor="{anchor}"'
        parts.append(f"<text {place}>{escape(value.name)}</text>")
    return _svg(frame, label, parts)


def standalone(drawing: Markup) -> str:
    """A chart as a file of its own, in the colours of the site's light style."""
    opening = '<svg xmlns="http://www.w3.org/2000/svg" '
    return str(drawing).replace("<svg ", opening, 1).replace(">", f"><style>{STYLE}</style>", 1) + "\n"


def _svg(frame: Frame, label: str, parts: Iterable[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" height="{frame.height}" '
        f'role="group" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _mark(frame: Frame, mark: Mark) -> str:
    title = f"<title>{escape(mark.title)}</title>"
    place = f'cx="{frame.x(mark.x)}" cy="{frame.y(mark.y)}" r="3.6"'
    kind = f"dot {escape(mark.kind)}" if mark.kind else "dot"
    bar = ""
    if mark.limits:
        low, high = (frame.y(limit) for limit in mark.limits)
        bar = f'<path class="axis" d="M{frame.x(mark.x)} {low}V{high}"/>'
    if not mark.href:
        return f'{bar}<circle class="{kind}" {place}>{title}</circle>'
    # Not in the order of tabs: a table on the page has the same links, and a hundred stops would hide what follows.
    return f'{bar}<a href="{escape(mark.href)}" tabindex="-1">{title}<circle class="{kind}" {place}/></a>'


def _best_so_far(marks: Sequence[Mark]) -> list[Mark]:
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.x):
        if not best or mark.y > best[-1].y:
            best.append(mark)
    return best


def _stairs(frame: Frame, best: Sequence[Mark]) -> list[float]:
    """Alternately where to go across and up; the last step goes to the right edge."""
    out: list[float] = [frame.y(best[0].y)]
    for mark in best[1:]:
        out += [frame.x(mark.x), frame.y(mark.y)]
    return [*out, frame.x(frame.x_range[1])]


def _rule(frame: Frame, target: float) -> str:
    y, right = frame.y(target), frame.width - frame.right
    text = f'<text class="target" x="{frame.left + 4}" y="{y - 5}">target {target:g}</text>'
    return f'<path class="target" d="M{frame.left} {y}H{right}"/>{text}'


def _y_axis(frame: Frame, ticks: Iterable[float], shown: Callable[[float], str]) -> str:
    right = frame.width - frame.right
    return "".join(
        f'<path class="grid" d="M{frame.left} {frame.y(tick)}H{right}"/>'
        f'<text x="{frame.left - 6}" y="{frame.y(tick) + 4}" text-anchor="end">{escape(shown(tick))}</text>'
        for tick in ticks
    )


def _x_axis(frame: Frame, name: str, count: int = 6, digits: int = 0) -> str:
    bottom = frame.height - frame.bottom
    parts = [f'<path class="axis" d="M{frame.left} {bottom}H{frame.width - frame.right}"/>']
    fitting = max(2, min(count, (frame.width - frame.left) // 70))
    for tick in _ticks(*frame.x_range, fitting):
        parts.append(f'<path class="axis" d="M{frame.x(tick)} {bottom}v4"/>')
        parts.append(f'<text x="{frame.x(tick)}" y="{bottom + 17}" text-anchor="middle">{tick:,.{digits}f}</text>')
    if name:
        middle = (frame.left + frame.width - frame.right) / 2
        parts.append(f'<text x="{middle}" y="{frame.height - 6}" text-anchor="middle">{escape(name)}</text>')
    return "".join(parts)


def _number_axis(frame: Frame) -> str:
    """The numbers of the records, as 001; every other one and so on where they would not fit."""
    first, last = (round(value) for value in frame.x_range)
    every = math.ceil((last - first + 1) / max(2, (frame.width - frame.left) // 40))
    bottom = frame.height - frame.bottom
    parts = [f'<path class="axis" d="M{frame.left} {bottom}H{frame.width - frame.right}"/>']
    for number in range(first, last + 1, every):
        x = frame.x(number)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{number:03d}</text>')
    return "".join(parts)


def _date_axis(frame: Frame) -> str:
    """The first of every quarter, of fewer months where they would not fit, or single days where there are none."""
    first, last = (datetime.date.fromordinal(round(value)) for value in frame.x_range)
    room = max(2, (frame.width - frame.left) // 70)
    days, form = _months(first, last, 3), "%b %Y"
    if len(days) < 2:
        days = _months(first, last, 1)
    if len(days) < 2:
        days, form = [first, last] if first < last else [first], "%d %b %Y"
    bottom = frame.height - frame.bottom
    parts = [f'<path class="axis" d="M{frame.left} {bottom}H{frame.width - frame.right}"/>']
    for day in days[:: math.ceil(len(days) / room)]:
        x = frame.x(day.toordinal())
        anchor = "end" if x > frame.width - 34 else "start" if x < frame.left + 20 else "middle"
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="{anchor}">{day:{form}}</text>')
    return "".join(parts)


def _months(first: datetime.date, last: datetime.date, every: int) -> list[datetime.date]:
    """The first days of months within a range."""
    years = range(first.year, last.year + 1)
    days = [datetime.date(year, month, 1) for year in years for month in range(1, 13, every)]
    return [day for day in days if first <= day <= last]


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round values within a range, about `count` of them."""
    raw = (high - low) / max(count, 1) or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high]
    return inside if len(inside) > 2 else _ticks(low, high, 4)
