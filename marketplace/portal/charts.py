"""Charts as inline SVG: drawn on the server, coloured by the stylesheet, so that they follow light and dark alone.

Each is drawn twice, 720 wide and 360 wide, and the stylesheet shows the one that fits: scaling one picture to a phone
would make its words five pixels high. Under each stands the same as a table. No element carries a style of its own.
Drawings begin at nothing: what is below it is drawn as nothing, and the table has it.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from markupsafe import Markup, escape

Tone = Literal["a", "b", "c", "d", "good", "warn", "bad", "muted"]
"Colours by meaning: four for series, three for judgements, one for what stays in the background."

Show = Callable[[float], str]

WIDTHS: Final = (720, 360)
CHARACTER: Final = 6.6
"Width of a character of a 12-pixel label, on the generous side: what is cut off says nothing."
TICKS: Final = 4
DASH: Final = "\u2013"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line, or one layer of bars; None where nothing is known."""

    name: str
    values: tuple[float | None, ...]
    tone: Tone = "a"
    dashed: bool = False


class WaterfallStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a waterfall: how much it adds to the steps before it."""

    name: str
    value: float
    tone: Tone = "a"


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate and how far it may be off."""

    name: str
    low: float
    middle: float
    high: float
    tone: Tone = "a"


class FunnelStage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a funnel; `href` leads to the rows behind it, `lost` says what was lost on the way to it."""

    name: str
    count: int
    href: str = ""
    lost: str = ""


class MapDot(msgspec.Struct, frozen=True, kw_only=True):
    """One place on a map, in degrees."""

    name: str
    latitude: float
    longitude: float
    tone: Tone = "a"
    weight: float = 1.0


def plain(value: float) -> str:
    """`1,234`, or one decimal for small numbers that are not whole."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.1f}"


def line(
    title: str, labels: Sequence[str], series: Sequence[Series], *, show: Show = plain, about: str = "",
    area: bool = True,
) -> Markup:  # fmt: skip
    """Lines over time. The first one's area is shaded; each is named at its end."""
    rows = [[label, *(_said(one.values[at], show) for one in series)] for at, label in enumerate(labels)]
    drawings = [_lines(width, labels, series, show, area) for width in WIDTHS]
    return _figure(title, about, drawings, ["", *(one.name for one in series)], rows)


def stacked(
    title: str, labels: Sequence[str], series: Sequence[Series], *, show: Show = plain, about: str = ""
) -> Markup:
    """Bars in layers, the first at the bottom."""
    rows = [[label, *(_said(one.values[at], show) for one in series)] for at, label in enumerate(labels)]
    drawings = [_bars(width, labels, series, show) for width in WIDTHS]
    return _figure(title, about, drawings, ["", *(one.name for one in series)], rows, _legend(series))


def waterfall(title: str, steps: Sequence[WaterfallStep], *, show: Show = plain, about: str = "") -> Markup:
    """Steps that add up, one under the other, each beginning where the one before ends."""
    rows, total = [], 0.0
    for step in steps:
        total += step.value
        rows.append([step.name, show(step.value), show(total)])
    drawings = [_waterfall(width, steps, show) for width in WIDTHS]
    return _figure(title, about, drawings, ["Step", "Takes", "Together"], rows)


def intervals(
    title: str, rows: Sequence[Interval], *, show: Show = plain, about: str = "", reference: float | None = None
) -> Markup:
    """Estimates with their intervals, on one scale; `reference` is a dashed line, such as break-even."""
    table = [[row.name, show(row.low), show(row.middle), show(row.high)] for row in rows]
    drawings = [_intervals(width, rows, show, reference) for width in WIDTHS]
    return _figure(title, about, drawings, ["", "From", "Most likely", "To"], table)


def funnel(title: str, stages: Sequence[FunnelStage], *, about: str = "") -> Markup:
    """What is left after each stage, as bars of a common scale; counts link to the rows behind them."""
    first = stages[0].count if stages else 0
    rows = [[one.name, f"{one.count:,}", f"{one.count / first:.0%}" if first else DASH, one.lost] for one in stages]
    drawings = [_funnel(width, stages) for width in WIDTHS]
    return _figure(title, about, drawings, ["Stage", "Leads", "Of the first", "Lost before it"], rows)


def sparkline(title: str, values: Sequence[float | None], tone: Tone = "a") -> Markup:
    """A line the size of a word, for a tile; its title says what it shows."""
    known = [value for value in values if value is not None]
    top = max([0.0, *known]) or 1.0
    step = 100 / max(1, len(values) - 1)
    path = _path([
        None if value is None else (at * step, 22 - 20 * max(0.0, value) / top) for at, value in enumerate(values)
    ])  # fmt: skip
    return Markup(
        '<svg class="spark tone-{}" viewBox="0 0 100 24" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<path class="stroke" d="{}"/></svg>'
    ).format(tone, title, path)


def dot_map(
    title: str, dots: Sequence[MapDot], *, about: str = "", circles: Sequence[tuple[float, float, float]] = ()
) -> Markup:
    """Places without tiles of anybody's: dots to scale, and circles (latitude, longitude, kilometres) of an area."""
    rows = [[dot.name, f"{dot.latitude:.3f}", f"{dot.longitude:.3f}"] for dot in dots]
    drawings = [_map(width, dots, circles) for width in WIDTHS]
    return _figure(title, about, drawings, ["Place", "Latitude", "Longitude"], rows)


# The figure around each.


class _Drawing(msgspec.Struct, frozen=True):
    width: int
    height: float
    content: Markup


def _figure(
    title: str, about: str, drawings: Sequence[_Drawing], columns: Sequence[str], rows: Sequence[Sequence[str]],
    legend: Markup | None = None,
) -> Markup:  # fmt: skip
    slug = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "chart"
    variants = Markup("").join(
        Markup(
            '<svg class="{}" viewBox="0 0 {} {}" role="{role}" aria-labelledby="{slug}-{w}-t {slug}-{w}-d">'
            '<title id="{slug}-{w}-t">{}</title><desc id="{slug}-{w}-d">{}</desc>{}</svg>'
        ).format(
            "wide" if one.width == WIDTHS[0] else "narrow", one.width, _at(one.height), title,
            about or "The same figures stand in the table below.", one.content, slug=slug, w=one.width,
            role="group" if "<a " in one.content else "img",
        )
        for one in drawings
    )  # fmt: skip
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name or Markup('<span class="sr">Of</span>'))
                           for name in columns)  # fmt: skip
    body = Markup("".join(map(_row, rows)))
    return Markup(
        '<figure class="chart">{}{}<details><summary>Show as table</summary><div class="scroll" tabindex="0" '
        'role="region" aria-label="{}, as a table"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        "</details></figure>"
    ).format(variants, legend or "", title, head, body)


def _row(cells: Sequence[str]) -> str:
    name, *values = cells
    told = "".join([f'<td class="num">{escape(one)}</td>' for one in values])
    return f'<tr><th scope="row">{escape(name)}</th>{told}</tr>'


def _legend(series: Sequence[Series]) -> Markup:
    items = Markup("").join(Markup('<li class="tone-{}">{}</li>').format(one.tone, one.name) for one in series)
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(items)


# Drawing.


def _lines(width: int, labels: Sequence[str], series: Sequence[Series], show: Show, area: bool) -> _Drawing:
    top = _ceiling([value for one in series for value in one.values if value is not None])
    left = max(_room([show(top)]) + 8, _room(labels[:1]) / 2)
    right = _room([one.name for one in series]) + 12
    height, floor, ceiling = 240.0, 210.0, 14.0
    across = max(40.0, width - left - right)
    place = _scale(left, across / max(1, len(labels) - 1))
    rise = _scale(floor, (ceiling - floor) / top)
    parts = [_grid(left, left + across, floor, ceiling, top, show), _labels(labels, place, floor + 18, across)]
    ends: list[tuple[float, Series]] = []
    for index, one in enumerate(series):
        points = [None if value is None else (place(at), rise(max(0.0, value))) for at, value in enumerate(one.values)]
        known = [point for point in points if point is not None]
        if area and index == 0 and len(known) > 1:
            parts.append(_tag("path", f"fill tone-{one.tone}", d=_shade(points, floor)))
        parts.append(_tag("path", f"stroke tone-{one.tone}{' dashed' if one.dashed else ''}", d=_path(points)))
        if known:
            ends.append((known[-1][1], one))
    for y, one in _apart(ends, 15.0):
        parts.append(_text(left + across + 7, y + 4, one.name, f"end tone-{one.tone}"))
    return _Drawing(width, height, Markup("").join(parts))


def _bars(width: int, labels: Sequence[str], series: Sequence[Series], show: Show) -> _Drawing:
    sums = [sum(max(0.0, one.values[at] or 0.0) for one in series) for at in range(len(labels))]
    top = _ceiling(sums)
    left, height, floor, ceiling = _room([show(top)]) + 8, 240.0, 210.0, 14.0
    across = width - left - 8
    slot = across / max(1, len(labels))
    thick = max(1.0, min(36.0, slot * 0.72))
    place = _scale(left + slot / 2, slot)
    parts = [_grid(left, left + across, floor, ceiling, top, show), _labels(labels, place, floor + 18, across)]
    for at in range(len(labels)):
        foot = floor
        for one in series:
            tall = (floor - ceiling) * (one.values[at] or 0.0) / top
            if tall > 0:
                foot -= tall
                parts.append(_rect(place(at) - thick / 2, foot, thick, tall, one.tone))
    return _Drawing(width, height, Markup("").join(parts))


def _waterfall(width: int, steps: Sequence[WaterfallStep], show: Show) -> _Drawing:
    total = sum(max(0.0, step.value) for step in steps) or 1.0
    left = min(width * 0.42, _room([step.name for step in steps]) + 8)
    right = 1.15 * _room([show(step.value) for step in steps]) + 12  # bold, and after a gap
    scale = max(30.0, width - left - right) / max(total, 1e-12)
    parts, begun = [], 0.0
    for at, step in enumerate(steps):
        y = 10.0 + 30 * at
        x, wide = left + begun * scale, max(1.5, step.value * scale)
        parts.append(_text(left - 8, y + 15, _clipped(step.name, left - 8), "label right"))
        parts.append(_rect(x, y + 3, wide, 17, step.tone))
        if at + 1 < len(steps):
            parts.append(_tag("path", "rule", d=f"M{_at(x + wide)} {_at(y + 20)}v13"))
        parts.append(_text(x + wide + 6, y + 16, show(step.value), "value"))
        begun += max(0.0, step.value)
    return _Drawing(width, 20.0 + 30 * len(steps), Markup("").join(parts))


def _intervals(width: int, rows: Sequence[Interval], show: Show, reference: float | None) -> _Drawing:
    known = [value for row in rows for value in (row.low, row.high)] + ([reference] if reference is not None else [])
    top = _ceiling(known)
    left = min(width * 0.4, _room([row.name for row in rows]) + 10)
    right = max(20.0, _room([show(top)]) / 2 + 4)
    floor = 16.0 + 48 * len(rows)
    place = _from_nothing(left, (width - left - right) / top)
    parts = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        parts.append(_tag("path", "grid", d=f"M{_at(place(value))} 8V{_at(floor)}"))
        if width > WIDTHS[1] or tick % 2 == 0:
            parts.append(_text(place(value), floor + 17, show(value), "axis middle"))
    if reference is not None:
        parts.append(_tag("path", "reference", d=f"M{_at(place(reference))} 8V{_at(floor)}"))
    for at, row in enumerate(rows):
        y = 36.0 + 48 * at
        parts.append(_text(left - 10, y + 4, _clipped(row.name, left - 10), "label right"))
        parts.append(
            _tag("path", f"whisker tone-{row.tone}", d=f"M{_at(place(row.low))} {_at(y)}H{_at(place(row.high))}")
        )
        parts.append(_tag("circle", f"solid tone-{row.tone}", cx=_at(place(row.middle)), cy=_at(y), r="5.5"))
        parts.append(_text(place(row.middle), y - 11, show(row.middle), "value middle"))
    return _Drawing(width, floor + 26, Markup("").join(parts))


def _funnel(width: int, stages: Sequence[FunnelStage]) -> _Drawing:
    first = max((one.count for one in stages), default=0) or 1
    left = min(width * 0.36, _room([one.name for one in stages]) + 10)
    right = _room([f"{one.count:,}" for one in stages]) + 12
    across = width - left - right
    parts = []
    for at, one in enumerate(stages):
        y, wide = 6.0 + 34 * at, max(2.0, across * one.count / first)
        bar = _rect(left, y, wide, 24, "a")
        count = _text(left + wide + 7, y + 17, f"{one.count:,}", "value")
        link = Markup('<a href="{}" aria-label="{}: {}">{}</a>')
        parts.append(_text(left - 9, y + 17, _clipped(one.name, left - 9), "label right"))
        parts.append(link.format(one.href, one.name, f"{one.count:,}", bar + count) if one.href else bar + count)
    return _Drawing(width, 12.0 + 34 * len(stages), Markup("").join(parts))


def _map(width: int, dots: Sequence[MapDot], circles: Sequence[tuple[float, float, float]]) -> _Drawing:
    height = 0.6 * width
    reach = [(lat + sign * km / 111.2, lon + sign * km / _kilometres(lat)) for lat, lon, km in circles
             for sign in (-1, 1)]  # fmt: skip
    places = [(dot.latitude, dot.longitude) for dot in dots] + reach
    if not places:
        return _Drawing(width, 60.0, _text(width / 2, 34, "No place yet", "label middle"))
    south, north = min(lat for lat, _ in places), max(lat for lat, _ in places)
    west, east = min(lon for _, lon in places), max(lon for _, lon in places)
    middle, squeeze = (south + north) / 2, math.cos(math.radians((south + north) / 2))
    span_x, span_y = max(0.02, (east - west) * squeeze), max(0.02, north - south)
    scale = min((width - 40) / span_x, (height - 40) / span_y)
    east_of = _scale(width / 2 - (west + east) / 2 * squeeze * scale, squeeze * scale)
    south_of = _scale(height / 2 + middle * scale, -scale)
    parts = [
        _tag("circle", "area", cx=_at(east_of(lon)), cy=_at(south_of(lat)), r=_at(km / 111.2 * scale))
        for lat, lon, km in circles
    ]
    for dot in dots:
        radius = 2.5 + 1.5 * math.sqrt(max(0.0, dot.weight))
        where = {"cx": _at(east_of(dot.longitude)), "cy": _at(south_of(dot.latitude)), "r": _at(min(radius, 14.0))}
        parts.append(_tag("circle", f"solid tone-{dot.tone}", **where))
    return _Drawing(width, height, Markup("").join(parts))


def _kilometres(latitude: float) -> float:
    """Of one degree of longitude."""
    return max(1.0, 111.2 * math.cos(math.radians(latitude)))


# Pieces.


def _grid(left: float, right: float, floor: float, ceiling: float, top: float, show: Show) -> Markup:
    parts = []
    for tick in range(TICKS + 1):
        y = floor - (floor - ceiling) * tick / TICKS
        parts.append(_tag("path", "grid", d=f"M{_at(left)} {_at(y)}H{_at(right)}"))
        parts.append(_text(left - 7, y + 4, show(top * tick / TICKS), "axis right"))
    return Markup("").join(parts)


def _labels(labels: Sequence[str], place: Callable[[float], float], y: float, across: float) -> Markup:
    """As many of the labels as there is room for, evenly."""
    widest = max((len(label) for label in labels), default=1) * CHARACTER + 14
    every = max(1, math.ceil(len(labels) * widest / max(across, 1.0)))
    return Markup("").join(_text(place(at), y, labels[at], "axis middle") for at in range(0, len(labels), every))


def _apart(ends: list[tuple[float, Series]], gap: float) -> list[tuple[float, Series]]:
    """Names at the ends of lines, moved down where two would lie on each other."""
    placed: list[tuple[float, Series]] = []
    for y, one in sorted(ends, key=lambda end: end[0]):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, one))
    return placed


def _ceiling(values: Sequence[float]) -> float:
    """A round number not below any of the values, that the ticks part into round numbers."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return float(TICKS)
    unit = 10.0 ** math.floor(math.log10(highest / TICKS))
    for factor in (1, 2, 2.5, 5, 10):
        if TICKS * unit * factor >= highest * 0.9999:
            return TICKS * unit * factor
    return TICKS * unit * 10


def _scale(origin: float, each: float) -> Callable[[float], float]:
    """Where a value lies on a drawing: `each` further from `origin` for every one."""
    return lambda value: origin + each * value


def _from_nothing(origin: float, each: float) -> Callable[[float], float]:
    """As `_scale`, with what is below nothing at the origin."""
    return lambda value: origin + each * max(0.0, value)


def _room(texts: Sequence[str]) -> float:
    return max((len(text) for text in texts), default=0) * CHARACTER


def _clipped(text: str, room: float) -> str:
    most = max(3, int(room / CHARACTER))
    return text if len(text) <= most else text[: most - 1] + "…"


def _said(value: float | None, show: Show) -> str:
    return DASH if value is None else show(value)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """A line through the points, broken where one is missing; a point that stands alone is a dot."""
    parts, pen_down = [], False
    for at, point in enumerate(points):
        if point is not None:
            alone = not pen_down and (at + 1 == len(points) or points[at + 1] is None)
            parts.append(f"{'L' if pen_down else 'M'}{_at(point[0])} {_at(point[1])}{'h0' if alone else ''}")
        pen_down = point is not None
    return "".join(parts)


def _shade(points: Sequence[tuple[float, float] | None], floor: float) -> str:
    """What lies under a line, each of its unbroken stretches closed by itself."""
    parts, stretch = [], []
    for point in (*points, None):
        if point is not None:
            stretch.append(point)
            continue
        if len(stretch) > 1:
            parts.append(f"{_path(stretch)}L{_at(stretch[-1][0])} {_at(floor)}L{_at(stretch[0][0])} {_at(floor)}Z")
        stretch = []
    return "".join(parts)


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _tag(name: str, kind: str, **attributes: str) -> Markup:
    given = "".join([f' {key}="{escape(value)}"' for key, value in attributes.items()])
    return Markup(f'<{name} class="{escape(kind)}"{given}/>')


def _rect(x: float, y: float, wide: float, tall: float, tone: Tone) -> Markup:
    size = f'x="{_at(x)}" y="{_at(y)}" width="{_at(wide)}" height="{_at(tall)}" rx="2"'
    return Markup(f'<rect class="solid tone-{tone}" {size}/>')  # a year of days has three thousand


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup(f'<text class="{escape(kind)}" x="{_at(x)}" y="{_at(y)}">{escape(text)}</text>')
