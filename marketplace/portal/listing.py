"""Lists declared once: a column serves the page's table, the cards of a phone, and the CSV file.

A page of four rows or more can be sorted by each column: `?sort=leads.price` for the column Price of the list Leads,
`?sort=-leads.price` in descending order.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from jinja2 import pass_context
from jinja2.runtime import Context
from litestar import Response
from markupsafe import Markup, escape

from marketplace.portal.frame import DASH, cell, duration, in_zone_of, money, number
from marketplace.portal.paging import changed_address
from marketplace.text.spreadsheet import write_csv

Row = TypeVar("Row")

FileValue = str | float | date | None
SortKey = tuple[int, float, str]

LEAST_SORTED: Final = 4
"Rows from which on the columns of a list can be sorted."


class Money(msgspec.Struct, frozen=True):
    """An amount in minor units, shown with its currency; None is shown as a dash."""

    minor: int | None
    currency: str


class Link(msgspec.Struct, frozen=True):
    """A value of a cell that links to another page."""

    address: str
    value: object


class Column(msgspec.Struct, Generic[Row], frozen=True):
    """One column of a list.

    `cell` returns the value that the page shows: a text, Markup, an integer, a time (in the viewer's zone, formatted by
    `time`, see `frame.moment`), Money, a Link, None for a dash, or a tuple of these, whose empty parts are left out.
    `file` is the heading in the CSV file. The value there is the result of `value`, or of `cell` without it; amounts
    are in minor units.

    A column without `heading` is only in the file, one without `file` only on the page. `style` holds CSS classes, such
    as `num` for figures. `names_row` marks the column that is the heading of its row.
    """

    heading: str
    cell: Callable[[Row], object]
    file: str = ""
    value: Callable[[Row], FileValue] | None = None
    style: str = ""
    time: str = "minute"
    names_row: bool = False

    def show(self, context: Context, row: Row) -> Markup:
        """Return the cell of a row, with the column's heading, which narrow screens show beside it."""
        value, style = self.cell(row), self.style
        if isinstance(value, Money) and value.minor is not None and value.minor < 0:
            style += " minus"
        return cell(self.heading, _text(context, value, self.time), style, names_row=self.names_row)

    def sort_key(self, row: Row) -> SortKey:
        """Return the key by which rows are sorted: figures and times before texts, texts without regard to case."""
        return _sort_key(self.cell(row))

    def write(self, row: Row) -> FileValue:
        """Return the value of a row in the CSV file. Raises TypeError if `cell` returns no plain value."""
        if self.value is not None:
            return self.value(row)
        value = self.cell(row)
        if isinstance(value, Money):
            return value.minor
        if value is None or (isinstance(value, str | int | float | date) and not isinstance(value, Markup)):
            return value
        raise TypeError(f"the column {self.file!r} needs a value for the file")


def _text(context: Context, value: object, time: str) -> Markup:
    """Return a value of a cell as the page shows it."""
    match value:
        case None:
            return Markup(DASH)
        case datetime():
            return in_zone_of(context, value, time)
        case Money():
            return escape(money(value.minor, value.currency))
        case Link():
            return Markup('<a href="{}">{}</a>').format(value.address, _text(context, value.value, time))
        case int():
            return escape(number(value))
        case tuple():
            return Markup("<div>{}</div>").format(
                Markup(" ").join(_text(context, part, time) for part in value if part)
            )
        case _:
            return escape(value)


def _sort_key(value: object) -> SortKey:
    match value:
        case Money():
            return _sort_key(value.minor)
        case Link():
            return _sort_key(value.value)
        case datetime():
            return 0, value.timestamp(), ""
        case date():
            return 0, value.toordinal(), ""
        case int() | float():
            return 0, value, ""
        case tuple():
            return next((_sort_key(part) for part in value if part), NO_VALUE)
        case None | "":
            return NO_VALUE
        case Markup():
            return 1, 0, value.striptags().casefold()
        case _:
            return 1, 0, str(value).casefold()


NO_VALUE: Final[SortKey] = (2, 0, "")


def only_in_file(name: str, value: Callable[[Row], FileValue]) -> Column[Row]:
    """Return a column that the page does not show."""
    return Column("", value, file=name, value=value)


class Heading(msgspec.Struct, frozen=True):
    """Heading of a column: its text and CSS class, the address that sorts by it, and the present direction, if any."""

    text: str
    style: str
    address: str = ""
    direction: str = ""


class SortedListing(msgspec.Struct, Generic[Row], frozen=True):
    """Rows of a list in the order that the address names, with the headings; `hidden` rows are left out."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    hidden: int

    @property
    def sortable(self) -> bool:
        return any(heading.address for heading in self.headings)


class Listing(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """A list and its columns, in the order of the page.

    `caption` names the table for screen readers, `name` is the name of the CSV file. `order` is the order of the file's
    columns if it differs from that of the page. `key` returns the id of a row in a table that is refreshed in place.
    `sortable` is False for a list whose order has a meaning of its own, or that is refreshed in place.
    """

    caption: str
    columns: tuple[Column[Row], ...]
    name: str = ""
    order: tuple[str, ...] = ()
    key: Callable[[Row], str] | None = None
    sortable: bool = True

    @property
    def shown(self) -> tuple[Column[Row], ...]:
        return tuple(column for column in self.columns if column.heading)

    @pass_context
    def view(self, context: Context, rows: Iterable[Row], first: int | None = None) -> SortedListing[Row]:
        """Return the rows as the address sorts them; only the `first` ones unless it has `?rows=all`."""
        query, ordered = context["query"], tuple(rows)
        links = self.sortable and len(ordered) >= LEAST_SORTED and context.get("method", "GET") == "GET"
        column, direction = self._sorted_by(query.get("sort", "")) if links else (None, "")
        if column is not None:
            ordered = _sorted(ordered, column, descending=direction == "descending")
        most = len(ordered) if first is None or query.get("rows") == "all" else first
        headings = tuple(
            Heading(
                each.heading,
                "num" if _has_figures(each) else "",
                self._sort_address(context, each, ordered, direction if each is column else "") if links else "",
                direction if each is column else "",
            )
            for each in self.shown
        )
        return SortedListing(headings, ordered[:most], max(0, len(ordered) - most))

    def _sorted_by(self, sort: str) -> tuple[Column[Row] | None, str]:
        """Return the column that the address names, and the direction; None if this list has no such column."""
        name = sort.removeprefix("-")
        column = next((each for each in self.shown if self._sort_name(each) == name), None)
        return column, "descending" if sort.startswith("-") else "ascending"

    def _sort_name(self, column: Column[Row]) -> str:
        return f"{_slug(self.caption)}.{_slug(column.heading)}"

    def _sort_address(self, context: Context, column: Column[Row], rows: tuple[Row, ...], direction: str) -> str:
        """Return the address that sorts by a column: figures and times from the largest, a second time the reverse."""
        descends = direction == "ascending" if direction else column.sort_key(rows[0])[0] == 0
        sort = ("-" if descends else "") + self._sort_name(column)
        return changed_address(str(context["path"]), context["query"], sort=sort, cursor=None)

    @pass_context
    def cells(self, context: Context, row: Row) -> Markup:
        """Return the cells of one row, for a template."""
        return Markup("").join(column.show(context, row) for column in self.shown)

    async def download(self, rows: Iterable[Row], name: str = "") -> Response[bytes]:
        """Return the rows as a CSV file, written in a thread; no cell is run as a formula by a spreadsheet."""
        text = await asyncio.to_thread(self._write, rows)
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name or self.name}.csv"',
        }
        return Response(text.encode(), media_type="text/csv; charset=utf-8", headers=headers)

    def _write(self, rows: Iterable[Row]) -> str:
        columns = [column for column in self.columns if column.file]
        if self.order:
            columns.sort(key=lambda column: self.order.index(column.file))
        headings = [column.file for column in columns]
        return write_csv(headings, ([column.write(row) for column in columns] for row in rows))


def _sorted(rows: tuple[Row, ...], column: Column[Row], *, descending: bool) -> tuple[Row, ...]:
    """Return the rows in the order of a column; those without a value come last in both directions."""
    keys = [(column.sort_key(row), place) for place, row in enumerate(rows)]
    valued = sorted((pair for pair in keys if pair[0] != NO_VALUE), key=lambda pair: pair[0], reverse=descending)
    return tuple(rows[place] for _, place in (*valued, *(pair for pair in keys if pair[0] == NO_VALUE)))


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def _has_figures(column: Column[Row]) -> bool:
    return "num" in column.style.split()


# Values of cells.


def code(text: object) -> Markup:
    return Markup("<code>{}</code>").format(text)


def muted(text: object) -> Markup:
    return Markup('<span class="muted">{}</span>').format(text)


def took(ms: float | None) -> str:
    """Return milliseconds as a duration; a dash for None."""
    seconds = None if ms is None else ms / 1000
    return duration(seconds)


TOOK: Final[Column[Any]] = Column("Took", lambda attempt: took(attempt.total_ms), style="num")
"Duration of an attempt to deliver a lead, on a page."
TOOK_MS: Final[Column[Any]] = only_in_file("total_ms", lambda attempt: round(attempt.total_ms))
"The same in a file, in milliseconds."
