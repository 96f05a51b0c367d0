"""Lists declared once: the page's table and the file are made from the same columns."""

import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from markupsafe import Markup

import marketplace.portal
from marketplace.portal.frame import ENVIRONMENT
from marketplace.portal.listing import Column, Link, Listing, Money, code, only_in_file

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


def table(listing: Listing[Sale], *rows: Sale) -> str:
    ui = ENVIRONMENT.get_template("components.html").make_module({"viewer": None, "query": {}, "path": "/"})
    macro = getattr(ui, "listing")  # noqa: B009  it is a macro, which types do not know
    return " ".join(str(macro(listing, rows)).split())


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
