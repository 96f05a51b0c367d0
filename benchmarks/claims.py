"""Shape of a row that a simulation prints: one claim, what was measured, and what is promised."""

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One claim: what was measured, and the range in which it is promised, in percent unless the name has a unit."""

    name: str
    measured: float
    low: float
    high: float


def as_table(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    head = "| claim | measured | promised |\n|---|---:|---:|"
    return "\n".join((head, *(f"| {row.name} | {row.measured:g} | {row.low:g} to {row.high:g} |" for row in rows)))
