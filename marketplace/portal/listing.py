"""Lists declared once: a column serves the page's table, the cards of a phone, and the CSV file."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Generic, TypeVar

import msgspec
from jinja2 import pass_context
from jinja2.runtime import Context
from litestar import Response
from markupsafe import Markup, escape

from marketplace.portal.frame import DASH, cell, duration, in_zone_of, money, number
from marketplace.text.spreadsheet import write_csv

Row = TypeVar("Row")

FileValue = str | float | date | None


class Money(msgspec.Struct, frozen=True):
    """An amount in minor units, shown with its currency; a dash for None."""

    minor: int | None
    currency: str


class Link(msgspec.Struct, frozen=True):
    """A value of a cell that leads to another page."""

    address: str
    value: object


class Column(msgspec.Struct, Generic[Row], frozen=True):
    """One column of a list.

    `cell` returns what the page shows: a text, Markup, a whole number, a time (shown in the reader's zone as `time`
    says, see `frame.moment`), Money, a Link, None for a dash, or a tuple of these, whose empty parts are left out.
    `file` names the column in the CSV file, where it has the result of `value`, or without one that of `cell`, amounts
    in minor units.

    A column without a heading is in the file alone, one without `file` on the page alone. `style` holds CSS classes:
    `num` for figures. `names_row` marks the column that says what its row is about.
    """

    heading: str
    cell: Callable[[Row], object]
    file: str = ""
    value: Callable[[Row], FileValue] | None = None
    style: str = ""
    time: str = "minute"
    names_row: bool = False

    def show(self, context: Context, row: Row) -> Markup:
        """Return the cell of one row; it carries the heading, which a phone shows beside it."""
        value, style = self.cell(row), self.style
        if isinstance(value, Money) and value.minor is not None and value.minor < 0:
            style += " minus"
        return cell(self.heading, _text(context, value, self.time), style, names_row=self.names_row)

    def write(self, row: Row) -> FileValue:
        """Return what the file holds of one row."""
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


def only_in_file(name: str, value: Callable[[Row], FileValue]) -> Column[Row]:
    """Return a column that the page does not show."""
    return Column("", value, file=name, value=value)


class Listing(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """A list: its columns as the page has them.

    `caption` names the table for those who listen to the page, and `name` the file. `order` gives the columns of the
    file where they stand otherwise than on the page. `key` identifies a row of a table that is refreshed in place.
    """

    caption: str
    columns: tuple[Column[Row], ...]
    name: str = ""
    order: tuple[str, ...] = ()
    key: Callable[[Row], str] | None = None

    @property
    def shown(self) -> tuple[Column[Row], ...]:
        return tuple(column for column in self.columns if column.heading)

    @property
    def headings(self) -> list[str | tuple[str, str]]:
        """Return the headings as the component `table` takes them: those of figures with their class."""
        return [(one.heading, "num") if _has_figures(one) else one.heading for one in self.shown]

    @pass_context
    def cells(self, context: Context, row: Row) -> Markup:
        """Return the cells of one row, for a template."""
        return Markup("").join(column.show(context, row) for column in self.shown)

    async def download(self, rows: Iterable[Row], name: str = "") -> Response[bytes]:
        """Return the rows as a CSV file that a spreadsheet shows and never runs. It is written in a thread."""
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
        return write_csv([column.file for column in columns], ([one.write(row) for one in columns] for row in rows))


def _has_figures(column: Column[Row]) -> bool:
    return "num" in column.style.split()


# Pieces of cells.


def code(text: object) -> Markup:
    return Markup("<code>{}</code>").format(text)


def muted(text: object) -> Markup:
    return Markup('<span class="muted">{}</span>').format(text)


def took(ms: float | None) -> str:
    """Return milliseconds as a duration; a dash for None."""
    return duration(None if ms is None else ms / 1000)
