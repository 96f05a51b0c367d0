"""Lists declared once: the page's table and the file are made from the same columns."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from markupsafe import Markup, escape

import marketplace.portal
from marketplace.portal.frame import ENVIRONMENT
from marketplace.portal.listing import Column, Link, Listing, Money, code, only_in_file
from marketplace.portal.paging import MOST_TRAIL

AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


class Sale(msgspec.Struct, frozen=True, kw_only=True):
    """A row with a value of each kind of column."""

    name: str
    at: datetime | None = None
    minor: int | None = None
    count: int = 0


SALES = Listing[Sale](
    caption="Sales",
    name="sales",
    columns=(
        Column("Name", lambda sale: Link("/sale", sale.name), file="name", value=lambda sale: sale.name),
        Column("Sold", lambda sale: sale.at, file="at"),
        Column("Price", lambda sale: Money(sale.minor, "USD"), file="price_minor", style="num"),
        only_in_file("currency", lambda sale: "USD"),
        Column("Count", lambda sale: sale.count, file="count", style="num"),
        Column("Both", lambda sale: (code(sale.name), "", sale.count)),
    ),
)


def render(macro: str, *arguments: object, method: str = "GET", **query: str) -> str:
    whole = {"viewer": None, "query": query, "path": "/sales", "method": method}
    ui = ENVIRONMENT.get_template("components.html").make_module(whole)
    return " ".join(str(getattr(ui, macro)(*arguments)).split())


def table(listing: Listing[Sale], *rows: Sale) -> str:
    return render("listing", listing, rows)


def names(text: str) -> str:
    """Return the names of the rows, in the order of the table."""
    return "".join(re.findall(r'<a href="/sale">(.*?)</a>', text))


def test_a_table_has_the_headings_and_the_cells_of_the_columns_that_have_one() -> None:
    text = table(SALES, Sale(name="a <b>", at=AT, minor=-5_000, count=1_250))
    assert '<th scope="col">Name</th>' in text
    assert '<th scope="col" class="num">Price</th>' in text
    assert "currency" not in text
    assert '<td data-name="Name"><a href="/sale">a &lt;b&gt;</a></td>' in text
    assert '<td data-name="Sold"><time datetime="2026-11-22T09:30:00.000Z">22 Nov 2026, 09:30' in text
    assert '<td data-name="Price" class="num minus">\u2212$50.00</td>' in text
    assert '<td data-name="Count" class="num">1,250</td>' in text
    assert '<td data-name="Both"><div><code>a &lt;b&gt;</code> 1,250</div></td>' in text


async def test_nothing_is_a_dash_on_the_page_and_empty_in_the_file() -> None:
    assert table(SALES, Sale(name="a")).count("\u2013") == 2
    assert (await SALES.download([Sale(name="a")])).content == b"name,at,price_minor,currency,count\r\na,,,USD,0\r\n"


async def test_a_file_has_the_values_of_the_columns_that_it_names_and_no_formula() -> None:
    reply = await SALES.download([Sale(name="=1+1", at=AT, minor=5, count=2)])
    assert reply.content.splitlines()[1] == b"'=1+1,2026-11-22T09:30:00Z,5,USD,2"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="sales.csv"'


async def test_a_file_has_its_own_order_where_it_says_so() -> None:
    ordered = msgspec.structs.replace(SALES, order=("count", "at", "name", "currency", "price_minor"))
    assert (await ordered.download([])).content == b"count,at,name,currency,price_minor\r\n"


async def test_markup_never_comes_into_a_file() -> None:
    listing = Listing[Sale](caption="", columns=(Column("Name", lambda sale: Markup("<b>"), file="name"),))
    with pytest.raises(TypeError, match="'name'"):
        await listing.download([Sale(name="a")])


MANY = tuple(
    Sale(name=name, at=AT + timedelta(days=day), minor=minor, count=count)
    for name, day, minor, count in (("b", 2, 900, 3), ("A", 1, None, 30), ("c", 4, -5, 2), ("d", 3, 10_000, 1))
)


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("sales.name", "Abcd"),
        ("-sales.name", "dcbA"),
        ("sales.price", "cbdA"),
        ("-sales.price", "dbcA"),
        ("-sales.count", "Abcd"),
        ("sales.sold", "Abdc"),
        ("other.name", "bAcd"),
        ("sales.nothing", "bAcd"),
        ("", "bAcd"),
    ],
)
def test_a_list_is_sorted_by_the_column_of_its_address_with_dashes_last(sort: str, order: str) -> None:
    assert names(render("listing", SALES, MANY, sort=sort)) == order


def test_a_heading_sorts_figures_from_the_largest_and_a_second_time_from_the_smallest() -> None:
    plain = render("listing", SALES, MANY, state="won", cursor="c1", trail="c0")
    assert escape("/sales?state=won&sort=-sales.price") in plain
    assert escape("/sales?state=won&sort=sales.name") in plain
    text = render("listing", SALES, MANY, sort="-sales.price")
    assert 'aria-sort="descending"><a href="/sales?sort=sales.price">Price</a>' in text
    assert text.count("aria-sort") == 1


@pytest.mark.parametrize(
    "text",
    [
        render("listing", SALES, MANY[:3], sort="sales.name"),
        render("listing", SALES, MANY, method="POST", sort="sales.name"),
        render("listing", msgspec.structs.replace(SALES, sortable=False), MANY, sort="sales.name"),
    ],
    ids=["few rows", "answer to a form", "order of its own"],
)
def test_a_list_that_cannot_be_sorted_has_no_links_and_its_own_order(text: str) -> None:
    assert "sort=" not in text
    assert names(text).startswith("bAc")


def test_a_long_list_opens_with_its_first_rows_in_the_order_that_was_chosen() -> None:
    text = render("listing", SALES, MANY, "", 2, sort="-sales.price")
    assert names(text) == "db"
    assert escape("/sales?sort=-sales.price&rows=all") in text
    assert "Show all 4 rows" in text
    assert names(render("listing", SALES, MANY, "", 2, rows="all")) == "bAcd"


def follow(word: str, query: Mapping[str, str], next_cursor: str | None) -> dict[str, str] | None:
    """Return the query of a link below a list, or None if the list has no such link."""
    found = re.search(rf'href="([^"]*)">{word}</a>', render("pager", next_cursor, **query))
    return dict(parse_qsl(urlsplit(Markup(found[1]).unescape()).query)) if found else None


@pytest.mark.parametrize("pages", [1, 2, 3, 39, 40, 41, 42, 100])
def test_previous_leads_back_page_by_page_and_first_to_the_first(pages: int) -> None:
    query: dict[str, str] = {"state": "won"}
    visited = []
    for number in range(pages):
        visited.append(query.get("cursor"))
        following = follow("Next", query, f"c{number}")
        assert following is not None
        query = following
    assert follow("Next", query, None) is None
    assert follow("First page", query, None) == {"state": "won"}
    back, steps = follow("Previous", query, None), 0
    while back is not None:
        query, steps = back, steps + 1
        assert query.get("cursor") == visited.pop()
        back = follow("Previous", query, None)
    assert steps == pages if pages <= MOST_TRAIL + 1 else MOST_TRAIL - 1 <= steps < pages


def _listings() -> Iterator[tuple[str, Listing[object]]]:
    """Return every list that a module of the portal declares."""
    for module in pkgutil.walk_packages(marketplace.portal.__path__, "marketplace.portal."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Listing):
                yield f"{module.name}.{name}", value


def test_every_list_orders_the_very_columns_of_its_file_and_names_each_once() -> None:
    listings = dict(_listings())
    assert len(listings) > 20
    for name, listing in listings.items():
        files = [column.file for column in listing.columns if column.file]
        headings = [column.heading for column in listing.shown]
        assert len(set(files)) == len(files), name
        assert len(set(headings)) == len(headings), name
        assert not listing.order or set(listing.order) == set(files), name
        assert bool(listing.name) == bool(files), name
