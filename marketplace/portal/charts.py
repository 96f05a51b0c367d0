"""Charts as inline SVG, drawn on the server and coloured by the stylesheet, so that they follow light and dark mode.

Each chart is drawn 720 and 360 pixels wide, and the stylesheet shows the one that fits; one drawing scaled to a phone
would have text five pixels high. Below each chart is a table of its values. No element has an inline style. Axes begin
at zero: a negative value is drawn as zero, and is in the table.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from markupsafe import Markup, escape

Tone = Literal["a", "b", "c", "d", "good", "warn", "bad", "muted"]
"Colours by meaning: a to d for series, good, warn and bad for judgements, muted for the background."

Show = Callable[[float], str]

WIDTHS: Final = (720, 360)
CHARACTER: Final = 6.6
"Width of a character of a 12-pixel label in pixels, rounded up so that no label is cut off."
TICKS: Final = 4
DASH: Final = "\u2013"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A line, or a layer of bars; None where there is no value."""

    name: str
    values: tuple[float | None, ...]
    tone: Tone = "a"
    dashed: bool = False


class WaterfallStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a waterfall chart; `value` is added to the sum of the steps before."""

    name: str
    value: float
    tone: Tone = "a"


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with the bounds of its interval."""

    name: str
    low: float
    middle: float
    high: float
    tone: Tone = "a"


class FunnelStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a funnel; `href` links to the rows behind it, `lost` tells how many were lost before it."""

    name: str
    count: int
    href: str = ""
    lost: str = ""


class MapDot(msgspec.Struct, frozen=True, kw_only=True):
    """A place on a map; latitude and longitude in degrees."""

    name: str
    latitude: float
    longitude: float
    tone: Tone = "a"
    weight: float = 1.0


def plain(value: float) -> str:
    """Return `1,234`, or `1.5` for a fraction below 100."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.1f}"


def line(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    show: Show = plain,
    about: str = "",
    area: bool = True,
) -> Markup:
    """Draw lines over time, each with its name at its end; the area below the first is shaded if `area`."""
    rows = [[label, *(_shown(each.values[at], show) for each in series)] for at, label in enumerate(labels)]
    drawings = [_lines(width, labels, series, show, area) for width in WIDTHS]
    return _figure(title, about, drawings, ["", *(each.name for each in series)], rows)


def stacked(
    title: str, labels: Sequence[str], series: Sequence[Series], *, show: Show = plain, about: str = ""
) -> Markup:
    """Draw stacked bars, the first series at the bottom."""
    rows = [[label, *(_shown(each.values[at], show) for each in series)] for at, label in enumerate(labels)]
    drawings = [_bars(width, labels, series, show) for width in WIDTHS]
    return _figure(title, about, drawings, ["", *(each.name for each in series)], rows, _legend(series))


def waterfall(title: str, steps: Sequence[WaterfallStep], *, show: Show = plain, about: str = "") -> Markup:
    """Draw steps that add up, each in a row of its own, beginning where the step before ends."""
    rows, total = [], 0.0
    for step in steps:
        total += step.value
        rows.append([step.name, show(step.value), show(total)])
    drawings = [_waterfall(width, steps, show) for width in WIDTHS]
    return _figure(title, about, drawings, ["Step", "Takes", "Total"], rows)


def intervals(
    title: str, rows: Sequence[Interval], *, show: Show = plain, about: str = "", reference: float | None = None
) -> Markup:
    """Draw estimates with their intervals on one scale; `reference` is a dashed line, such as break-even."""
    table = [[row.name, show(row.low), show(row.middle), show(row.high)] for row in rows]
    drawings = [_intervals(width, rows, show, reference) for width in WIDTHS]
    return _figure(title, about, drawings, ["", "From", "Most likely", "To"], table)


def funnel(title: str, stages: Sequence[FunnelStage], *, about: str = "") -> Markup:
    """Draw the count of each stage as a bar on a common scale; the bars link to the rows behind them."""
    first = stages[0].count if stages else 0
    shares = [f"{stage.count / first:.0%}" if first else DASH for stage in stages]
    rows = [[stage.name, f"{stage.count:,}", share, stage.lost] for stage, share in zip(stages, shares, strict=True)]
    drawings = [_funnel(width, stages) for width in WIDTHS]
    return _figure(title, about, drawings, ["Stage", "Number", "Of the first", "Lost before"], rows)


def sparkline(title: str, values: Sequence[float | None], tone: Tone = "a") -> Markup:
    """Draw a line the size of a word, for a tile; `title` names it for screen readers."""
    top = max([0.0, *(value for value in values if value is not None)]) or 1.0
    step = 100 / max(1, len(values) - 1)
    points = [
        None if value is None else (at * step, 22 - 20 * max(0.0, value) / top) for at, value in enumerate(values)
    ]
    return Markup(
        '<svg class="spark tone-{}" viewBox="0 0 100 24" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<path class="stroke" d="{}"/></svg>'
    ).format(tone, title, _path(points))


def dot_map(
    title: str, dots: Sequence[MapDot], *, about: str = "", circles: Sequence[tuple[float, float, float]] = ()
) -> Markup:
    """Draw places as dots, to scale and without a background map.

    `circles` are areas: latitude and longitude of the centre in degrees, and the radius in kilometres.
    """
    rows = [[dot.name, f"{dot.latitude:.3f}", f"{dot.longitude:.3f}"] for dot in dots]
    drawings = [_map(width, dots, circles) for width in WIDTHS]
    return _figure(title, about, drawings, ["Place", "Latitude", "Longitude"], rows)


# The figure around each chart.


class _Drawing(msgspec.Struct, frozen=True):
    width: int
    height: float
    content: Markup


def _figure(
    title: str,
    about: str,
    drawings: Sequence[_Drawing],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    legend: Markup | None = None,
) -> Markup:
    slug = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "chart"
    description = about or "The same figures are in the table below."
    variants = Markup("").join(_svg(slug, title, description, drawing) for drawing in drawings)
    unnamed = Markup('<span class="sr">Of</span>')
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name or unnamed) for name in columns)
    body = Markup("".join(map(_row, rows)))
    return Markup(
        '<figure class="chart">{}{}<details><summary>Show as table</summary><div class="scroll" tabindex="0" '
        'role="region" aria-label="{}, as a table"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        "</details></figure>"
    ).format(variants, legend or "", title, head, body)


def _svg(slug: str, title: str, description: str, drawing: _Drawing) -> Markup:
    size = "wide" if drawing.width == WIDTHS[0] else "narrow"
    role = "group" if "<a " in drawing.content else "img"
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="{role}" aria-labelledby="{slug}-{w}-t {slug}-{w}-d">'
        '<title id="{slug}-{w}-t">{}</title><desc id="{slug}-{w}-d">{}</desc>{}</svg>'
    ).format(
        size,
        drawing.width,
        _at(drawing.height),
        title,
        description,
        drawing.content,
        slug=slug,
        w=drawing.width,
        role=role,
    )


def _row(cells: Sequence[str]) -> str:
    name, *values = cells
    figures = "".join([f'<td class="num">{escape(value)}</td>' for value in values])
    return f'<tr><th scope="row">{escape(name)}</th>{figures}</tr>'


def _legend(series: Sequence[Series]) -> Markup:
    items = Markup("").join(Markup('<li class="tone-{}">{}</li>').format(layer.tone, layer.name) for layer in series)
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(items)


# Drawing.


def _lines(width: int, labels: Sequence[str], series: Sequence[Series], show: Show, area: bool) -> _Drawing:
    top = _ceiling([value for line in series for value in line.values if value is not None])
    left = max(_room([show(top)]) + 8, _room(labels[:1]) / 2)
    right = _room([line.name for line in series]) + 12
    height, baseline, ceiling = 240.0, 210.0, 14.0
    across = max(40.0, width - left - right)
    place = _scale(left, across / max(1, len(labels) - 1))
    rise = _scale(baseline, (ceiling - baseline) / top)
    parts = [_grid(left, left + across, baseline, ceiling, top, show), _labels(labels, place, baseline + 18, across)]
    ends: list[tuple[float, Series]] = []
    for index, line in enumerate(series):
        points = [None if value is None else (place(at), rise(max(0.0, value))) for at, value in enumerate(line.values)]
        drawn = [point for point in points if point is not None]
        if area and index == 0 and len(drawn) > 1:
            parts.append(_tag("path", f"fill tone-{line.tone}", d=_shade(points, baseline)))
        style = f"stroke tone-{line.tone}{' dashed' if line.dashed else ''}"
        parts.append(_tag("path", style, d=_path(points)))
        if drawn:
            ends.append((drawn[-1][1], line))
    for y, line in _apart(ends, 15.0):
        parts.append(_text(left + across + 7, y + 4, line.name, f"end tone-{line.tone}"))
    return _Drawing(width, height, Markup("").join(parts))


def _bars(width: int, labels: Sequence[str], series: Sequence[Series], show: Show) -> _Drawing:
    sums = [sum(max(0.0, layer.values[at] or 0.0) for layer in series) for at in range(len(labels))]
    top = _ceiling(sums)
    left, height, baseline, ceiling = _room([show(top)]) + 8, 240.0, 210.0, 14.0
    across = width - left - 8
    slot = across / max(1, len(labels))
    thick = max(1.0, min(36.0, slot * 0.72))
    place = _scale(left + slot / 2, slot)
    parts = [_grid(left, left + across, baseline, ceiling, top, show), _labels(labels, place, baseline + 18, across)]
    for at in range(len(labels)):
        foot = baseline
        for layer in series:
            tall = (baseline - ceiling) * (layer.values[at] or 0.0) / top
            if tall > 0:
                foot -= tall
                parts.append(_rect(place(at) - thick / 2, foot, thick, tall, layer.tone))
    return _Drawing(width, height, Markup("").join(parts))


def _waterfall(width: int, steps: Sequence[WaterfallStep], show: Show) -> _Drawing:
    total = sum(max(0.0, step.value) for step in steps) or 1.0
    left = min(width * 0.42, _room([step.name for step in steps]) + 8)
    right = 1.15 * _room([show(step.value) for step in steps]) + 12  # the value is bold and has a gap before it
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
    bounds = [value for row in rows for value in (row.low, row.high)]
    if reference is not None:
        bounds.append(reference)
    top = _ceiling(bounds)
    left = min(width * 0.4, _room([row.name for row in rows]) + 10)
    right = max(20.0, _room([show(top)]) / 2 + 4)
    baseline = 16.0 + 48 * len(rows)
    place = _from_nothing(left, (width - left - right) / top)
    parts = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        parts.append(_tag("path", "grid", d=f"M{_at(place(value))} 8V{_at(baseline)}"))
        if width > WIDTHS[1] or tick % 2 == 0:
            parts.append(_text(place(value), baseline + 17, show(value), "axis middle"))
    if reference is not None:
        parts.append(_tag("path", "reference", d=f"M{_at(place(reference))} 8V{_at(baseline)}"))
    for at, row in enumerate(rows):
        y = 36.0 + 48 * at
        parts.append(_text(left - 10, y + 4, _clipped(row.name, left - 10), "label right"))
        parts.append(
            _tag("path", f"whisker tone-{row.tone}", d=f"M{_at(place(row.low))} {_at(y)}H{_at(place(row.high))}")
        )
        parts.append(_tag("circle", f"solid tone-{row.tone}", cx=_at(place(row.middle)), cy=_at(y), r="5.5"))
        parts.append(_text(place(row.middle), y - 11, show(row.middle), "value middle"))
    return _Drawing(width, baseline + 26, Markup("").join(parts))


def _funnel(width: int, stages: Sequence[FunnelStage]) -> _Drawing:
    first = max((stage.count for stage in stages), default=0) or 1
    left = min(width * 0.36, _room([stage.name for stage in stages]) + 10)
    right = _room([f"{stage.count:,}" for stage in stages]) + 12
    across = width - left - right
    parts = []
    for at, stage in enumerate(stages):
        y, wide = 6.0 + 34 * at, max(2.0, across * stage.count / first)
        bar = _rect(left, y, wide, 24, "a")
        count = _text(left + wide + 7, y + 17, f"{stage.count:,}", "value")
        link = Markup('<a href="{}" aria-label="{}: {}">{}</a>')
        parts.append(_text(left - 9, y + 17, _clipped(stage.name, left - 9), "label right"))
        drawing = bar + count
        if stage.href:
            drawing = link.format(stage.href, stage.name, f"{stage.count:,}", drawing)
        parts.append(drawing)
    return _Drawing(width, 12.0 + 34 * len(stages), Markup("").join(parts))


def _map(width: int, dots: Sequence[MapDot], circles: Sequence[tuple[float, float, float]]) -> _Drawing:
    height = 0.6 * width
    corners = [
        (lat + sign * km / 111.2, lon + sign * km / _kilometres_per_degree(lat))
        for lat, lon, km in circles
        for sign in (-1, 1)
    ]
    places = [(dot.latitude, dot.longitude) for dot in dots] + corners
    if not places:
        return _Drawing(width, 60.0, _text(width / 2, 34, "No places yet", "label middle"))
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
        position = {"cx": _at(east_of(dot.longitude)), "cy": _at(south_of(dot.latitude)), "r": _at(min(radius, 14.0))}
        parts.append(_tag("circle", f"solid tone-{dot.tone}", **position))
    return _Drawing(width, height, Markup("").join(parts))


def _kilometres_per_degree(latitude: float) -> float:
    """Return the kilometres of one degree of longitude at this latitude."""
    return max(1.0, 111.2 * math.cos(math.radians(latitude)))


# Parts of drawings.


def _grid(left: float, right: float, baseline: float, ceiling: float, top: float, show: Show) -> Markup:
    parts = []
    for tick in range(TICKS + 1):
        y = baseline - (baseline - ceiling) * tick / TICKS
        parts.append(_tag("path", "grid", d=f"M{_at(left)} {_at(y)}H{_at(right)}"))
        parts.append(_text(left - 7, y + 4, show(top * tick / TICKS), "axis right"))
    return Markup("").join(parts)


def _labels(labels: Sequence[str], place: Callable[[float], float], y: float, across: float) -> Markup:
    """Draw as many of the labels as fit, at even distances."""
    widest = max((len(label) for label in labels), default=1) * CHARACTER + 14
    every = max(1, math.ceil(len(labels) * widest / max(across, 1.0)))
    return Markup("").join(_text(place(at), y, labels[at], "axis middle") for at in range(0, len(labels), every))


def _apart(ends: list[tuple[float, Series]], gap: float) -> list[tuple[float, Series]]:
    """Return the heights of the names at the ends of lines, moved down where two would overlap."""
    placed: list[tuple[float, Series]] = []
    for y, line in sorted(ends, key=lambda end: end[0]):
        height = max(y, placed[-1][0] + gap) if placed else y
        placed.append((height, line))
    return placed


def _ceiling(values: Sequence[float]) -> float:
    """Return a round number, at least the highest value, that TICKS divides into round numbers."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return float(TICKS)
    unit = 10.0 ** math.floor(math.log10(highest / TICKS))
    for factor in (1, 2, 2.5, 5, 10):
        if TICKS * unit * factor >= highest * 0.9999:
            return TICKS * unit * factor
    return TICKS * unit * 10


def _scale(origin: float, each: float) -> Callable[[float], float]:
    """Return the function from a value to its position: `each` pixels per unit from `origin`."""
    return lambda value: origin + each * value


def _from_nothing(origin: float, each: float) -> Callable[[float], float]:
    """Return the same function as `_scale`, with negative values at the origin."""
    return lambda value: origin + each * max(0.0, value)


def _room(texts: Sequence[str]) -> float:
    return max((len(text) for text in texts), default=0) * CHARACTER


def _clipped(text: str, room: float) -> str:
    most = max(3, int(room / CHARACTER))
    return text if len(text) <= most else text[: most - 1] + "…"


def _shown(value: float | None, show: Show) -> str:
    return DASH if value is None else show(value)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Return the path through the points, interrupted at each None; a point between two of them is a dot."""
    parts, pen_down = [], False
    for at, point in enumerate(points):
        if point is not None:
            alone = not pen_down and (at + 1 == len(points) or points[at + 1] is None)
            parts.append(f"{'L' if pen_down else 'M'}{_at(point[0])} {_at(point[1])}{'h0' if alone else ''}")
        pen_down = point is not None
    return "".join(parts)


def _shade(points: Sequence[tuple[float, float] | None], baseline: float) -> str:
    """Return the path of the area under a line; each uninterrupted stretch is closed by itself."""
    parts, stretch = [], []
    for point in (*points, None):
        if point is not None:
            stretch.append(point)
            continue
        if len(stretch) > 1:
            parts.append(
                f"{_path(stretch)}L{_at(stretch[-1][0])} {_at(baseline)}L{_at(stretch[0][0])} {_at(baseline)}Z"
            )
        stretch = []
    return "".join(parts)


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _tag(name: str, kind: str, **attributes: str) -> Markup:
    texts = "".join([f' {key}="{escape(value)}"' for key, value in attributes.items()])
    return Markup(f'<{name} class="{escape(kind)}"{texts}/>')


def _rect(x: float, y: float, wide: float, tall: float, tone: Tone) -> Markup:
    size = f'x="{_at(x)}" y="{_at(y)}" width="{_at(wide)}" height="{_at(tall)}" rx="2"'
    return Markup(
        f'<rect class="solid tone-{tone}" {size}/>'
    )  # built without escaping, because a year by day has thousands


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup(f'<text class="{escape(kind)}" x="{_at(x)}" y="{_at(y)}">{escape(text)}</text>')
