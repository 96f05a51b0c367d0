"""Lists of a provider's losses: refused requests, rejected leads, and both by sub-id."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
from markupsafe import Markup

from marketplace.portal.frame import percent, short
from marketplace.portal.listing import Column, Link, Listing, code, only_in_file
from marketplace.reports.quality import Quality
from marketplace.runtime import ids


class FaultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of refused requests: requests, share of all refused, advice, and the last value, masked."""

    field: str
    code: str
    requests: int
    share: float
    advice: str
    shape: str


class RejectionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A reason for which accepted leads did not qualify; `rows` is the address of their list.

    `example` is one of them, with its answer to the question that the reason is about.
    """

    reason: str
    leads: int
    rows: str
    example: tuple[UUID, str] | None = None


class SubIdLine(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of a sub-id, or of all; `rows` is the address of their list."""

    quality: Quality
    accepted: int
    rows: str = ""


def fault_listing(lines: Sequence[FaultLine]) -> Listing[FaultLine]:
    """Return the list of faults, with the masked value if any line has one."""
    shape = Column[FaultLine]("Last value (masked)", lambda line: code(line.shape) if line.shape else None)
    return Listing(
        caption="Refused requests by field and reason",
        columns=(
            Column("Field", lambda line: code(line.field)),
            Column("Reason", lambda line: code(line.code)),
            Column("Requests", lambda line: line.requests, style="num"),
            Column("Share of refused", lambda line: percent(line.share), style="num"),
            *((shape,) if any(line.shape for line in lines) else ()),
            Column("What to send", lambda line: line.advice),
        ),
    )


def rejection_listing(lines: Sequence[RejectionLine]) -> Listing[RejectionLine]:
    """Return the list of rejections, with an example of each if any line has one."""
    example = Column("For example", _example)
    return Listing(
        caption="Accepted, then not qualified",
        columns=(
            Column("Reason", lambda line: line.reason),
            Column("Leads", lambda line: Link(line.rows, line.leads), style="num"),
            *((example,) if any(line.example for line in lines) else ()),
        ),
    )


def _example(line: RejectionLine) -> Markup | None:
    if line.example is None:
        return None
    lead, answer = line.example
    public = ids.encode("lead", lead)
    return Markup('<a href="/provider/submissions/{}">{}</a> {}').format(public, short(public), answer)


SUB_IDS: Final = Listing[SubIdLine](
    caption="By sub-id",
    name="quality",
    columns=(
        Column(
            "Sub-id",
            lambda line: Link(line.rows, line.quality.name),
            file="sub_id",
            value=lambda line: line.quality.key,
        ),
        only_in_file("sent", lambda line: line.quality.sent),
        only_in_file("refused", lambda line: line.quality.refused),
        Column("Leads", lambda line: line.accepted, file="accepted", style="num"),
        only_in_file("qualified", lambda line: line.quality.qualified),
        Column(
            "Prospects of leads",
            lambda line: percent(line.quality.acceptance),
            file="qualified_of_accepted",
            value=lambda line: line.quality.acceptance,
            style="num",
        ),
        Column("Duplicates", lambda line: line.quality.duplicates, file="duplicates", style="num"),
        only_in_file("sold", lambda line: line.quality.sold),
        Column("Prospects sold", lambda line: line.quality.delivered, file="delivered", style="num"),
        only_in_file("returned", lambda line: line.quality.returned),
        Column(
            "Returned of sold",
            lambda line: percent(line.quality.return_rate, 1),
            file="returned_of_delivered",
            value=lambda line: line.quality.return_rate,
            style="num",
        ),
        only_in_file("contacted", lambda line: line.quality.contacted),
        only_in_file("won", lambda line: line.quality.won),
        Column(
            "Won of sold",
            lambda line: percent(line.quality.conversion, 1),
            file="won_of_delivered",
            value=lambda line: line.quality.conversion,
            style="num",
        ),
    ),
    order=(
        "sub_id",
        "sent",
        "refused",
        "accepted",
        "duplicates",
        "qualified",
        "sold",
        "delivered",
        "returned",
        "contacted",
        "won",
        "qualified_of_accepted",
        "returned_of_delivered",
        "won_of_delivered",
    ),
)
