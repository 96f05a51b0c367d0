"""Endpoints of kind email: create one, confirm its address, change what its messages hold, send a test message.

An address is confirmed by a link in a message to it, so that leads are sent to nobody who does not want them.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from marketplace import BRAND
from marketplace.database.db import Connection, Pool, Queries, find_row, load_record, transaction
from marketplace.delivery.store import MailMode
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import Endpoint, TenantScope
from marketplace.intake.contact import read_email
from marketplace.mail.message import Letter, LetterLine, LetterLink
from marketplace.mail.outbox import MailKind, NewMail, enqueue
from marketplace.mail.tokens import LinkToken, TokenPurpose, Tokens
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import Settings
from marketplace.security import access, audit
from marketplace.security.auth import CallerKind, Principal, UnconfirmedAccess
from marketplace.text.faults import Fault
from marketplace.text.mailbox import mailbox
from routing.delivery import HOLD_WINDOW, EndpointKind

SQL = Queries(__file__, "mail_endpoints.sql")

CONFIRM_WITHIN: Final = timedelta(days=7)
MOST_TO_ONE: Final = 3
"Confirmations and test messages to one address in 24 hours, from whichever business: more would be a nuisance."
MOST_OF_BUSINESS: Final = 20
"Confirmations and test messages of one business in 24 hours."
TEST_GIVE_UP: Final = timedelta(hours=1)
RETRY_SECONDS: Final = 3_600
ENOUGH_SENT: Final = "Enough messages were sent to this address today. Look in its spam folder, too, and try tomorrow."

NO_MAIL: Final = (
    "This marketplace sends no e-mail. Ask its operator to set a mail server, or receive leads in another way."
)


class MailTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the messages of an endpoint: a link or the contact; `with_adf` attaches the contact as ADF/XML."""

    mode: MailMode = MailMode.link
    with_adf: bool = False


class MailDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A new endpoint of kind email. `hold_seconds` is for how long a lead announced by a link is held."""

    address: str
    terms: MailTerms = MailTerms()
    hold_seconds: int | None = None


class MailEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Address and terms of an endpoint, with its state and the name of its business."""

    endpoint_id: UUID
    business_id: UUID
    business_name: str
    state: str
    address: str
    mode: MailMode
    with_adf: bool


class MailDesk:
    """Makes and changes endpoints of kind email. Messages are rows that the worker sends."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._tokens = Tokens(settings.master_key)

    async def create(
        self, actor: str, business_id: UUID, draft: MailDraft, opened: UnconfirmedAccess | None = None
    ) -> Endpoint:
        """Create an unverified endpoint, and have a message sent whose link confirms the address.

        `opened` is as for a webhook. Raises Conflict without a mail server, InvalidInput, NotFound, and EndpointShared
        if another business has confirmed the address.
        """
        self._demand_mail()
        address = _read_address(draft)
        now = clock.now()
        hold_seconds = draft.hold_seconds or int(HOLD_WINDOW.total_seconds())
        endpoint = Endpoint(
            id=clock.new_id(),
            business_id=business_id,
            kind=EndpointKind.email,
            url=None,
            state="unverified",
            hold_seconds=hold_seconds,
            created_at=now,
            address=address,
            mail_mode=draft.terms.mode,
            with_adf=draft.terms.with_adf,
        )
        async with transaction(self._pool) as connection:
            business = await directory_store.find_business(connection, business_id)
            if business is None:
                raise errors.NotFound(directory_flow.NOT_THERE)
            key = mail_key(address)
            if await directory_store.has_other_owner(connection, key, business_id):
                raise errors.EndpointShared(ADDRESS_TAKEN)
            await directory_store.insert_endpoint(connection, endpoint, None, key)
            terms = draft.terms
            await connection.execute(
                SQL["insert_target"], endpoint.id, business_id, address, terms.mode, terms.with_adf
            )
            subject = ids.encode("whe", endpoint.id)
            await audit.record(connection, now, actor, "endpoint.create", subject, kind=endpoint.kind, mode=terms.mode)
            await access.demand_reason(connection, CallerKind.business, business_id, opened)
            await access.record_opened(
                connection, access.AccessKind.endpoint, endpoint.id, CallerKind.business, business_id, opened
            )
            target = await load_target(connection, endpoint.id)
            await self._send(connection, target, MailKind.confirmation, self._confirmation(target, now), now)
        return endpoint

    async def send_confirmation(self, actor: str, reach: TenantScope, endpoint_id: UUID) -> str:
        """Have the message that confirms the address sent again, and return the address.

        Raises Conflict for an address that is confirmed, RateLimited, and NotFound.
        """
        self._demand_mail()
        now = clock.now()
        async with transaction(self._pool) as connection:
            target = await self._load(connection, reach, endpoint_id)
            if target.state != "unverified":
                raise errors.Conflict("This address is confirmed already.")
            await self._send(connection, target, MailKind.confirmation, self._confirmation(target, now), now)
            subject = ids.encode("whe", endpoint_id)
            await audit.record(connection, now, actor, "endpoint.send_confirmation", subject)
        return target.address

    async def confirm(self, text: str) -> MailEndpoint:
        """Make the endpoint of a confirmation link active. A repeated call changes nothing.

        Raises TokenExpired, Conflict if the endpoint was switched off, and EndpointShared if another business has
        confirmed the address first.
        """
        now = clock.now()
        async with transaction(self._pool) as connection:
            target = await self.find_confirmable(connection, text, now)
            if target.state == "active":
                return target
            key = mail_key(target.address)
            if not await directory_store.mark_endpoint_verified(connection, target.endpoint_id, "unverified", now, key):
                raise errors.Conflict("This endpoint was switched off. Ask the business for a new message.")
            subject = ids.encode("whe", target.endpoint_id)
            await audit.record(connection, now, "marketplace", "endpoint.verify", subject, by="link")
            return await load_target(connection, target.endpoint_id)

    async def find_confirmable(self, connection: Connection, text: str, now: datetime) -> MailEndpoint:
        """Return the endpoint that a confirmation link is about. Raises TokenExpired."""
        token = self._tokens.read_link(TokenPurpose.confirm, text, now)
        target = None if token is None else await find_row(connection, SQL["find_target"], MailEndpoint, token.subject)
        if token is None or target is None or token.detail != _digest(target.address):
            raise errors.TokenExpired("This link has expired. Ask the business for a new message.")
        return target

    async def change(self, caller: Principal, reach: TenantScope, endpoint_id: UUID, terms: MailTerms) -> None:
        """Change what the messages hold. Raises NotFound, KeyWrongMode, and InvalidInput for a link with ADF."""
        now = clock.now()
        if faults := terms_faults(terms):
            raise errors.InvalidInput(faults)
        async with transaction(self._pool) as connection:
            await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)
            await self._load(connection, reach, endpoint_id)
            await connection.execute(SQL["mark_terms"], endpoint_id, terms.mode, terms.with_adf)
            subject = ids.encode("whe", endpoint_id)
            await audit.record(
                connection, now, caller.key_id, "endpoint.mail", subject, mode=terms.mode, with_adf=terms.with_adf
            )

    async def send_test(self, actor: str, reach: TenantScope, endpoint_id: UUID) -> str:
        """Have a test message sent, and return its address. Raises NotFound, Conflict, and RateLimited."""
        self._demand_mail()
        now = clock.now()
        async with transaction(self._pool) as connection:
            target = await self._load(connection, reach, endpoint_id)
            if target.state != "active":
                raise errors.Conflict("Confirm the address first: nothing else is sent to it before.")
            await self._send(connection, target, MailKind.test, test_letter(target), now)
            subject = ids.encode("whe", endpoint_id)
            await audit.record(connection, now, actor, "endpoint.test", subject)
        return target.address

    async def _send(
        self, connection: Connection, target: MailEndpoint, kind: MailKind, letter: Letter, now: datetime
    ) -> None:
        """Insert a message to the address of an endpoint. Raises RateLimited beyond the limits of a day."""
        since = now - timedelta(days=1)
        counts = await load_record(connection, SQL["count_sent"], target.address, target.business_id, since)
        if counts["to_address"] >= MOST_TO_ONE or counts["of_business"] >= MOST_OF_BUSINESS:
            raise errors.RateLimited(ENOUGH_SENT, RETRY_SECONDS)
        mail = NewMail(
            kind=kind,
            recipient=target.address,
            occasion=f"{ids.encode('whe', target.endpoint_id)} {now.isoformat()}",
            letter=letter,
            give_up_at=now + (CONFIRM_WITHIN if kind is MailKind.confirmation else TEST_GIVE_UP),
            business_id=target.business_id,
            endpoint_id=target.endpoint_id,
        )
        await enqueue(connection, mail, now)

    def _confirmation(self, target: MailEndpoint, now: datetime) -> Letter:
        token = LinkToken(subject=target.endpoint_id, expires_at=now + CONFIRM_WITHIN, detail=_digest(target.address))
        path = self._tokens.link(TokenPurpose.confirm, token)
        return Letter(
            subject=f"Confirm that leads for {target.business_name} may be sent here",
            heading="Confirm this address",
            paragraphs=(
                f"{target.business_name} wants to receive the leads that it buys from {BRAND} at {target.address}.",
            ),
            links=(LetterLink(words="Confirm this address", url=f"{self._settings.public_url}/mail/confirm/{path}"),),
            ending="The link works for 7 days. If you do not know this business, do nothing: no lead is sent here.",
        )

    async def _load(self, connection: Connection, reach: TenantScope, endpoint_id: UUID) -> MailEndpoint:
        """Return an endpoint of kind email within the reach. Raises NotFound."""
        target = await find_row(connection, SQL["find_target"], MailEndpoint, endpoint_id)
        if target is None or reach.business_id not in (None, target.business_id):
            raise errors.NotFound(directory_flow.NOT_THERE)
        return target

    def _demand_mail(self) -> None:
        if self._settings.mail is None:
            raise errors.Conflict(NO_MAIL)


ADDRESS_TAKEN: Final = "Use an address of this business alone: no mailbox may get the leads of two."


async def load_target(connection: Connection, endpoint_id: UUID) -> MailEndpoint:
    """Return an endpoint of kind email, which must exist."""
    target = await find_row(connection, SQL["find_target"], MailEndpoint, endpoint_id)
    if target is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return target


def terms_faults(terms: MailTerms, where: str = "/with_adf") -> tuple[Fault, ...]:
    """Return the fault of a link with an attachment, which would hold the contact."""
    if terms.mode is MailMode.full or not terms.with_adf:
        return ()
    detail = "Leave the attachment out, or choose the mode full: an attachment holds the contact."
    return (Fault(pointer=where, code="value_not_allowed", detail=detail),)


def mail_key(address: str) -> str:
    """Return the normal form by which an address belongs to one business."""
    return f"mailto:{mailbox(address.lower())}"


def _read_address(draft: MailDraft) -> str:
    """Return the address as it is stored. Raises InvalidInput."""
    email = read_email(draft.address)
    faults = terms_faults(draft.terms)
    if isinstance(email, Fault):
        faults = (Fault(pointer="/address", code=email.code, detail=email.detail), *faults)
    if faults or isinstance(email, Fault):
        raise errors.InvalidInput(faults)
    return email.address


def _digest(address: str) -> str:
    return sha256(address.encode()).hexdigest()[:16]


def test_letter(target: MailEndpoint) -> Letter:
    """Return a letter like that of a lead, about an invented person."""
    lines = [LetterLine(label="Where", value="IL 606…"), LetterLine(label="Budget", value="USD 12,000")]
    if target.mode is MailMode.full:
        lines = [
            LetterLine(label="Phone", value="+1 312 555 0100"),
            LetterLine(label="E-mail", value="robin@example.com"),
            *lines,
        ]
    return Letter(
        subject="Test lead: this is how leads arrive",
        heading="Test: Robin Example" if target.mode is MailMode.full else "Test: a lead waits for you",
        paragraphs=("This is a test: the person is invented, and nothing is charged.",),
        lines=tuple(lines),
    )
