"""Bodies of the endpoints of shared leads: leads in JSON, and the mapping of a file's columns."""

from datetime import datetime
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from marketplace.directory.wire import Currency, Slug
from marketplace.imports.amounts import Decimal
from marketplace.imports.times import Order
from marketplace.imports.wire import RowRefusal
from marketplace.text.faults import WORDS
from marketplace.text.values import Instant, Minor

Text = Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
PostalCode = Annotated[str, Meta(min_length=1, max_length=16, pattern=WORDS)]
REQUIRED: Final = ("external_id", "received_at", "cost")

Field = Literal[
    "vendor",
    "external_id",
    "vertical",
    "postal_code",
    "received_at",
    "cost",
    "contacted_at",
    "qualified",
    "won_at",
    "won_value",
    "lost_at",
    "status",
    "currency",
]
FIELDS: Final[tuple[Field, ...]] = get_args(Field)
Status = Literal["won", "lost", "open"]


class SharedLeadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lead bought elsewhere. `external_id` is the vendor's own id; a lead that is sent again does not change.

    A win has a value, and no `won_at` if its day is unknown. `lost` is a loss without `lost_at`.
    """

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
    lost: bool = False


class SharedLeadsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/shared-leads: up to 500 leads."""

    leads: Annotated[tuple[SharedLeadBody, ...], Meta(min_length=1, max_length=500)]
    business_id: str | None = None


class SharedLeadMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mapping of a file: the column of each field, and the format of dates and amounts.

    `dates`: `iso` is 2026-11-21, `mdy` 11/21/2026, `dmy` 21.11.2026, each with or without a time; a time without an
    offset is in `zone`. `decimal` is the mark before the cents. Both are decided from the rows if they are left out,
    and required if the rows do not decide them. `vendor` and `vertical` apply to all rows without a value of their own.
    `statuses` gives the meaning of the words in the status column.
    """

    columns: dict[Field, str]
    dates: Order | None = None
    decimal: Decimal | None = None
    zone: str = "UTC"
    vendor: Text | None = None
    vertical: Slug | None = None
    statuses: Annotated[dict[Text, Status], Meta(max_length=100)] = {}


class SharedLeadView(msgspec.Struct, frozen=True, kw_only=True):
    """A shared lead as it was understood. Its outcome is known up to `observed_until`."""

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
    lost: bool


class SharedLeadPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Preview of an import. Nothing was stored. `leads` are the first twenty as understood.

    `good` is the number of rows that would be added. `open` names what the rows do not decide and the mapping must
    state: `dates`, `decimal` or both. `statuses` are words of the status column without a known meaning. Of the rows
    that would not be added, the first thousand of each kind are shown.
    """

    mapping: SharedLeadMapping
    header: tuple[str, ...]
    rows: int
    good: int
    known: int
    conflict_count: int
    refused_count: int
    open: tuple[str, ...]
    statuses: tuple[str, ...]
    warning: str | None
    leads: tuple[SharedLeadView, ...]
    conflicts: tuple[RowRefusal, ...]
    refused: tuple[RowRefusal, ...]


class SharedImport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a file or call. Each row was added, known (stored already), in conflict with a stored lead, or refused.

    `state` is `running` while rows wait: request GET /v1/imports/{id}, or send the same file again. Of the rows that
    were not added, the first thousand of each kind are shown; all are under /v1/imports/{id}/rows.
    """

    id: str
    state: str
    rows: int
    position: int
    added: int
    known: int
    conflict_count: int
    refused_count: int
    conflicts: tuple[RowRefusal, ...]
    refused: tuple[RowRefusal, ...]
