"""Events about a lead that a business was shown: its person was erased or revoked consent, or its facts changed."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, assert_never

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketplace.delivery.event import ContactJson
from marketplace.notices.store import NoticeEvent, NoticeKind
from marketplace.runtime import ids
from marketplace.webhook.event import REFERENCE
from routing.inquiry import Touch

WEBHOOK_TYPE: Final = {
    NoticeKind.erased: "lead.erasure_requested",
    NoticeKind.revoked: "consent.revoked",
    NoticeKind.updated: "lead.updated",
}
"The `type` of the webhook by the kind of the notice."

FEED_TYPE: Final = {
    NoticeKind.erased: "lead.erased",
    NoticeKind.revoked: "lead.revoked",
    NoticeKind.updated: "lead.updated",
}
"The `type` of the event in a feed by the kind of the notice."

FactJson = Annotated[
    Any,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"$ref": f"{REFERENCE}Budget"},
                {"$ref": f"{REFERENCE}Timing"},
                {"type": ["string", "integer", "boolean", "null"]},
            ]
        }
    ),
]
"""Value of a fact as JSON: a `FactValue` of routing/journey.py, or null if it is not known."""


class NoticeData(msgspec.Struct, frozen=True, kw_only=True):
    """The lead of a notice. `assignment_id` was the `webhook-id` of its delivery."""

    lead_id: str
    assignment_id: str
    mode: str


class ErasureData(NoticeData, frozen=True, kw_only=True):
    """A lead whose person was erased: delete it, and acknowledge by the deadline."""

    requested_at: datetime
    deadline_at: datetime


class RevocationData(NoticeData, frozen=True, kw_only=True):
    """A lead whose person does not want to be contacted on these channels: stop, and acknowledge by the deadline."""

    revoked_at: datetime
    deadline_at: datetime
    channels: tuple[str, ...]


class ChangedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A value before and after the change."""

    name: str
    before: FactJson = None
    after: FactJson = None


class LeadUpdateData(NoticeData, frozen=True, kw_only=True):
    """New touches of a lead, and what they or a correction changed.

    `contact_changed` names changed contact fields; `contact` is then the contact as it is now. Once the person was
    erased, `revision` is null and nothing else is left.
    """

    updated_at: datetime
    revision: int | None = None
    touches: tuple[Touch, ...] = ()
    changes: tuple[ChangedFact, ...] = ()
    contact_changed: tuple[str, ...] = ()
    contact: ContactJson | UnsetType = UNSET


class ErasureEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Delete the data of a person. An endpoint is sent `lead.erasure_requested`, a feed has `lead.erased`."""

    type: Literal["lead.erasure_requested", "lead.erased"]
    timestamp: datetime
    data: ErasureData


class RevocationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Stop to contact a person. An endpoint is sent `consent.revoked`, a feed has `lead.revoked`."""

    type: Literal["consent.revoked", "lead.revoked"]
    timestamp: datetime
    data: RevocationData


class LeadUpdateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of yours has changed. An endpoint is sent it as a webhook, a feed has it as an event."""

    type: Literal["lead.updated"]
    timestamp: datetime
    data: LeadUpdateData


def compose_notice(notice: NoticeEvent, event: str, now: datetime, contact: bytes | None) -> bytes:
    """Return the JSON body of a notice. `contact` is JSON already; it is sent with an update that changed it."""
    data: dict[str, Any] = {
        "lead_id": ids.encode("lead", notice.lead_id),
        "assignment_id": ids.encode("asg", notice.assignment_id),
        "mode": notice.mode,
        **notice.detail,
    }
    body: dict[str, Any] = {"type": event, "timestamp": now, "data": data}
    match notice.kind:
        case NoticeKind.erased:
            data |= {"requested_at": notice.made_at, "deadline_at": notice.deadline_at}
            return msgspec.json.encode(msgspec.convert(body, ErasureEvent))
        case NoticeKind.revoked:
            data |= {"revoked_at": notice.made_at, "deadline_at": notice.deadline_at}
            return msgspec.json.encode(msgspec.convert(body, RevocationEvent))
        case NoticeKind.updated:
            data |= {"updated_at": notice.made_at}
            update = msgspec.convert(body, LeadUpdateEvent)
            if contact is not None:
                with_contact = msgspec.structs.replace(update.data, contact=msgspec.Raw(contact))
                update = msgspec.structs.replace(update, data=with_contact)
            return msgspec.json.encode(update)
        case _:
            assert_never(notice.kind)
