"""Shared leads as they are sent and shown: one by one in JSON, or as a file with a mapping of its columns."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from marketplace.directory.wire import Currency, Slug
from marketplace.faults import WORDS
from marketplace.values import MOST_MINOR as MOST_MINOR
from marketplace.values import Instant, Minor

Text = Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
PostalCode = Annotated[str, Meta(min_length=1, max_length=16, pattern=WORDS)]
FIELDS: Final = (
    "vendor", "external_id", "vertical", "postal_code", "received_at", "cost", "contacted_at", "qualified", "won_at",
    "won_value", "lost_at",
)  # fmt: skip
REQUIRED: Final = ("external_id", "received_at", "cost")

Field = Literal[
    "vendor", "external_id", "vertical", "postal_code", "received_at", "cost", "contacted_at", "qualified", "won_at",
    "won_value", "lost_at",
]  # fmt: skip


class SharedLeadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lead bought elsewhere. `external_id` is the vendor's own; sent again, the lead stays as it is."""

    vendor: Text
    external_id: Text
    received_at: Instant
    cost_minor: Minor
    currency: Currency
    vertical: Slug | None = None
    postal_code: PostalCode | None = None
    contacted_at: Instant | None = None
    qualified: bool | None = None
    won_at: Instant | None = None
    won_minor: Minor | None = None
    lost_at: Instant | None = None


class SharedLeadsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/shared-leads: up to 500 leads."""

    leads: Annotated[tuple[SharedLeadBody, ...], Meta(min_length=1, max_length=500)]
    business_id: str | None = None


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to read a file: which of its columns holds which field, how its dates and amounts are written.

    `dates`: `iso` is 2026-11-21, `mdy` 11/21/2026, `dmy` 21.11.2026, each with or without a time; a time without an
    offset is one of `zone`. `decimal` is the mark before the cents. `vendor` and `vertical` stand for all rows where
    no column has them.
    """

    columns: dict[Field, str]
    dates: Literal["iso", "mdy", "dmy"] = "iso"
    decimal: Literal[".", ","] = "."
    zone: str = "UTC"
    vendor: Text | None = None
    vertical: Slug | None = None


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was not taken: its number (the header is row 1), the column at fault, and how to mend it."""

    row: int
    column: str | None
    code: str
    detail: str


class ShownSharedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A shared lead as it was understood. What became of it is known up to `observed_until`."""

    id: str | None
    vendor: str
    external_id: str
    vertical: str | None
    postal_code: str | None
    received_at: datetime
    observed_until: datetime
    cost_minor: int
    currency: str
    contacted_at: datetime | None
    qualified: bool | None
    won_at: datetime | None
    won_minor: int | None
    lost_at: datetime | None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would do: nothing was kept. `leads` are the first twenty as understood."""

    mapping: Mapping
    header: tuple[str, ...]
    rows: int
    good: int
    leads: tuple[ShownSharedLead, ...]
    refused: tuple[RefusedRow, ...]


class SharedImport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file or call: added, known before (and left as they were), and refused, which is every row."""

    id: str
    added: int
    known: int
    refused: tuple[RefusedRow, ...]
