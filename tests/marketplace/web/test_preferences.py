"""Accept headers are read as the standards define, in every spelling."""

from typing import Any

import pytest
from litestar import Request

from marketplace.intake.http import LONGEST_WAIT, wait_seconds
from marketplace.web.http import JSON, preferred

CSV = "text/csv"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def request(name: str, *lines: str) -> Request[Any, Any, Any]:
    scope: Any = {"type": "http", "headers": [(name.encode(), line.encode()) for line in lines]}
    return Request(scope)


@pytest.mark.parametrize(
    ("lines", "offered", "chosen"),
    [
        ((), (JSON, CSV), JSON), (("*/*",), (JSON, CSV), JSON), (("text/csv",), (JSON, CSV), CSV),
        (("text/csv;q=0",), (JSON, CSV), None), (("text/csv;q=0, */*",), (JSON, CSV), JSON),
        (("application/json, text/csv;q=0.5",), (JSON, CSV), JSON),
        (("text/csv;q=0.5, application/json",), (JSON, CSV), JSON),
        (("application/json;q=0.1, text/csv;q=0.2",), (JSON, CSV), CSV),
        (("text/*, application/json;q=0.9",), (JSON, CSV), CSV),
        (("text/csv, application/json",), (JSON, CSV), CSV), (("application/json, text/csv",), (JSON, CSV), JSON),
        (("*/*;q=0.1, text/csv",), (JSON, CSV), CSV), (("application/json;q=0.2", "text/csv;q=0.3"), (JSON, CSV), CSV),
        (("TEXT/CSV ; Q=0.9 , application/json;q=0.8",), (JSON, CSV), CSV), (("text/csvx",), (JSON, CSV), None),
        (("text/csv;charset=utf-8;q=0.4, application/json;q=0.3",), (JSON, CSV), CSV),
        (("text/csv;q=9, application/json;q=0.1",), (JSON, CSV), JSON), (("text/csv;q=,,;;,",), (JSON, CSV), None),
        ((BROWSER,), (JSON, "text/html"), "text/html"), ((BROWSER,), (JSON, CSV), JSON),
        (("application/json, text/html;q=0.1",), (JSON, "text/html"), JSON),
        ((",".join(["x/y"] * 100_000),), (JSON, CSV), None),
    ],
)  # fmt: skip
def test_the_media_type_that_is_liked_best_is_chosen(
    lines: tuple[str, ...], offered: tuple[str, ...], chosen: str | None
) -> None:
    assert preferred(request("accept", *lines), "accept", offered) == chosen


@pytest.mark.parametrize(
    ("text", "compressed"),
    [
        ("gzip, deflate, br", True),
        ("gzip;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("*;q=0", False),
        ("br", False),
    ],
)
def test_what_is_compressed_is_wanted_so(text: str, compressed: bool) -> None:
    coding = preferred(request("accept-encoding", text), "accept-encoding", ("identity", "gzip"))
    assert (coding == "gzip") == compressed


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ((), None), (("wait=10",), 10), (('wait="10"',), 10), (("Wait = 10",), 10), (("respond-async, wait=10",), 10),
        (("respond-async", "wait=10"), 10), (("handling=lenient; wait=3", "wait=10"), 10), (("wait=10; foo=bar",), 10),
        (('foo="a, wait=3", wait=10',), 10), (('foo; bar="x;wait=3,wait=4" , wait=10',), 10),
        (("wait=10, wait=20",), 10),
        (("wait=999",), LONGEST_WAIT), (("wait=" + "9" * 5_000,), LONGEST_WAIT), (("wait",), None), (("wait=",), None),
        (("wait=x",), None), (("wait=-1",), None), (("wait=٣",), None), (("await=10",), None), (('"wait=10"',), None),
        (("wait=1.5",), None), (('"' * 20_000,), None), ((",=;" * 10_000,), None),
    ],
)  # fmt: skip
def test_a_preference_is_found_in_any_line_and_in_quotes(lines: tuple[str, ...], seconds: float | None) -> None:
    encoded: Any = {"type": "http", "headers": [(b"prefer", line.encode()) for line in lines]}
    assert wait_seconds(Request(encoded)) == seconds
