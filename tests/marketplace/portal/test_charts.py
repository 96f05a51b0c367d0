"""Charts: every drawing is inside its box for all values, and the table has the same values."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from marketplace.portal import charts
from marketplace.portal.charts import FunnelStage, Interval, MapDot, Series, WaterfallStep

SVG = "{http://www.w3.org/2000/svg}"
MINUTES = ("09:00", "10:00", "11:00")


def drawings(chart: Markup) -> list[ElementTree.Element]:
    """Return both drawings of a figure."""
    texts = re.findall("<svg.*?</svg>", chart, re.DOTALL)
    assert len(texts) == 2
    return [ElementTree.fromstring(text.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1)) for text in texts]


def table(chart: Markup) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", chart.partition("<tbody>")[2], re.DOTALL)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def points(path: str) -> list[tuple[float, float]]:
    """Return the points of a path that has only moves and lines."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-0-9.]+) ([-0-9.]+)", path)]


def demand_inside(drawing: ElementTree.Element) -> None:
    """Fail if anything is drawn outside the picture, or at no position."""
    assert "nan" not in ElementTree.tostring(drawing, "unicode")
    assert "inf" not in ElementTree.tostring(drawing, "unicode")
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    places = [point for path in drawing.iter(f"{SVG}path") for point in points(path.attrib["d"])]
    places += [(float(shape.attrib["cx"]), float(shape.attrib["cy"])) for shape in drawing.iter(f"{SVG}circle")]
    for shape in drawing.iter(f"{SVG}rect"):
        x, y, wide, tall = (float(shape.attrib[name]) for name in ("x", "y", "width", "height"))
        places += [(x, y), (x + wide, y + tall)]
    assert all(-1 <= x <= width + 1 and -1 <= y <= height + 1 for x, y in places), places


def of_lines(*values: float | None) -> Markup:
    return charts.line("Leads", MINUTES[: len(values)], [Series(name="Yours", values=values)])


EXTREMES: dict[str, Callable[[], Markup]] = {
    "no line": lambda: charts.line("Leads", (), []),
    "a line of nothing": lambda: of_lines(),
    "a line of one": lambda: of_lines(7.0),
    "a line of unknowns": lambda: of_lines(None, None, None),
    "a line of noughts": lambda: of_lines(0.0, 0.0),
    "a line below nothing": lambda: of_lines(-5.0, 3.0, -0.001),
    "a line far up": lambda: of_lines(1e12, 0.0, 1e-9),
    "two lines that end together": lambda: charts.line(
        "L", MINUTES, [Series(name=name, values=(1.0, 2.0, 9.0)) for name in ("one", "other")]
    ),
    "no bars": lambda: charts.stacked("B", (), [Series(name="a", values=())]),
    "one bar": lambda: charts.stacked("B", ("x",), [Series(name="a", values=(3.0,))]),
    "bars of both signs": lambda: charts.stacked(
        "B", ("x", "y"), [Series(name="a", values=(10.0, None)), Series(name="b", values=(-8.0, -1.0))]
    ),
    "no steps": lambda: charts.waterfall("W", []),
    "steps of nothing": lambda: charts.waterfall(
        "W", [WaterfallStep(name="a", value=0.0), WaterfallStep(name="b", value=0.0)]
    ),
    "a step back": lambda: charts.waterfall(
        "W", [WaterfallStep(name="a", value=2.0), WaterfallStep(name="b", value=-3.0)]
    ),
    "no interval": lambda: charts.intervals("I", [], reference=1.0),
    "an interval below nothing": lambda: charts.intervals("I", [Interval(name="a", low=-4, middle=-1, high=2)]),
    "an interval without width": lambda: charts.intervals("I", [Interval(name="a" * 90, low=2, middle=2, high=2)]),
    "no stages": lambda: charts.funnel("F", []),
    "stages of nobody": lambda: charts.funnel(
        "F", [FunnelStage(name="Sent", count=0), FunnelStage(name="Won", count=0)]
    ),
    "no dots": lambda: charts.dot_map("M", []),
    "one dot": lambda: charts.dot_map("M", [MapDot(name="60614", latitude=41.9, longitude=-87.6)]),
    "a dot at the pole": lambda: charts.dot_map(
        "M", [MapDot(name="N", latitude=90, longitude=0)], circles=[(90, 0, 9)]
    ),
}


@pytest.mark.parametrize("case", EXTREMES)
def test_a_chart_stays_inside_its_box(case: str) -> None:
    for drawing in drawings(EXTREMES[case]()):
        demand_inside(drawing)


def test_a_point_that_stands_alone_is_seen() -> None:
    for drawing in drawings(of_lines(4.0, None, 2.0)):
        [stroke] = [shape for shape in drawing.iter(f"{SVG}path") if "stroke" in shape.attrib["class"]]
        assert stroke.attrib["d"].count("h0") == 2


def test_what_is_below_nothing_stands_in_the_table_and_is_drawn_as_nothing() -> None:
    chart = charts.stacked("B", ("May", "June"), [Series(name="Net", values=(5.0, -5.0))])
    assert table(chart) == [["May", "5"], ["June", "-5"]]
    assert [len(list(drawing.iter(f"{SVG}rect"))) for drawing in drawings(chart)] == [1, 1]


def test_a_line_breaks_where_nothing_is_known_and_the_table_says_so() -> None:
    chart = of_lines(1.0, None, 3.0)
    assert table(chart) == [["09:00", "1"], ["10:00", charts.DASH], ["11:00", "3"]]


def test_twice_as_much_is_twice_as_high_from_the_same_floor() -> None:
    chart = charts.stacked("B", ("x", "y"), [Series(name="a", values=(2.0, 4.0))])
    for drawing in drawings(chart):
        first, second = (
            (float(bar.attrib["y"]), float(bar.attrib["height"])) for bar in drawing.iter(f"{SVG}rect")
        )  # fmt: skip
        assert second[1] == pytest.approx(2 * first[1], abs=0.2)
        assert sum(first) == pytest.approx(sum(second), abs=0.2)


def test_names_are_text_and_never_markup() -> None:
    evil = '<script>"&'
    for chart in (
        of_lines(1.0), charts.line(evil, (evil,), [Series(name=evil, values=(1.0,))]),
        charts.funnel(evil, [FunnelStage(name=evil, count=1, href=f"/x?{evil}", lost=evil)]),
        charts.intervals(evil, [Interval(name=evil, low=0, middle=1, high=2)]), charts.sparkline(evil, (1.0,)),
    ):  # fmt: skip
        assert "<script" not in chart


@pytest.mark.parametrize("values", [(), (None,), (3.0,), (0.0, 0.0), (-2.0, -1.0), (1.0, None, 2.0)])
def test_a_sparkline_stays_inside_its_box(values: tuple[float | None, ...]) -> None:
    spark = charts.sparkline("Leads", values)
    assert all(0 <= x <= 100 and 0 <= y <= 24 for x, y in points(spark)), spark


@pytest.mark.parametrize(
    ("highest", "ceiling"), [(0, 4), (-3, 4), (1, 1), (3, 4), (7, 8), (9, 10), (11, 20), (0.3, 0.4), (1234, 2000)]
)
def test_the_scale_ends_at_a_round_number(highest: float, ceiling: float) -> None:
    assert charts._ceiling([highest]) == pytest.approx(ceiling)
