"""The messages by which a business receives leads: one with the contact, or an alert with a link to the portal.

Subject and alert have no contact data: they appear on locked screens and in the logs of mail servers.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

import msgspec

from marketplace.database.db import Pool
from marketplace.delivery.store import DeliveryCase, MailTarget
from marketplace.mail.adf import AdfLead, as_adf
from marketplace.mail.message import Attachment, Letter, LetterLine, LetterLink, MessageAddresses, compose_message
from marketplace.mail.outbox import MailKind, NewMail, Outbox, tagged
from marketplace.mail.tokens import LinkToken, TokenPurpose, Tokens
from marketplace.mail.transport import MailAttempt, MailClient, MailEnvelope, OnRecipientAccepted
from marketplace.runtime import ids
from marketplace.runtime.mail_settings import MailSettings
from marketplace.runtime.settings import Settings
from routing.consent import Channel, channels_in_words, licensed_channels
from routing.inquiry import Budget, Facts, NeedField, Timing, amount_in_words

OUTCOME_LINK_VALID: Final = timedelta(days=60)
"Time for which the outcome links of a message work; most jobs are decided by then."

SHOWN_CODE: Final = 3
"Characters of a postal code without the contact: the district and not the street, as on a card of the inbox."


class OutcomeLink(StrEnum):
    """Outcomes that a link in a message records. Others need a value or a reason."""

    contacted = "contacted"
    "We reached the person."
    unreachable = "unreachable"
    "Nobody answered."


OUTCOME_WORDS: Final = {OutcomeLink.contacted: "We reached them", OutcomeLink.unreachable: "No answer"}


class LetterContact(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the contact that a message shows."""

    full_name: str
    phone: str | None = None
    phone_extension: str | None = None
    email: str | None = None
    street: str | None = None
    postal_code: str | None = None
    country: str = ""
    summary: str | None = None

    def __repr__(self) -> str:
        return "LetterContact(…)"


class MailSender:
    """Sends leads by e-mail, and has the outbox of one process. Close it when the process ends."""

    def __init__(self, settings: MailSettings, client: MailClient, tokens: Tokens, outbox: Outbox, origin: str) -> None:
        self._settings = settings
        self._client = client
        self._tokens = tokens
        self._origin = origin
        self.outbox = outbox

    @classmethod
    def of(cls, pool: Pool, settings: Settings) -> Self | None:
        """Return the sender that the settings describe, or None without a mail server."""
        if settings.mail is None:
            return None
        client, tokens = MailClient(settings.mail.server), Tokens(settings.master_key)
        outbox = Outbox(pool, settings.mail, client, tokens)
        return cls(settings.mail, client, tokens, outbox, settings.public_url)

    async def close(self) -> None:
        """Close the connections to the mail server."""
        await self._client.close()

    async def send(self, case: DeliveryCase, target: MailTarget, on_accepted: OnRecipientAccepted) -> MailAttempt:
        """Make one attempt to send the message that `on_accepted` returns, from an address of this assignment."""
        tag = self._tokens.tag(TokenPurpose.bounce_of_lead, case.assignment_id)
        sender = tagged(self._settings.bounces, tag)
        return await self._client.send(MailEnvelope(sender=sender, recipient=target.address), on_accepted)

    def compose(self, case: DeliveryCase, target: MailTarget, contact: bytes, now: datetime) -> bytes:
        """Return the message with the contact, which is JSON. Its Message-ID is the same in every attempt."""
        person = msgspec.json.decode(contact, type=LetterContact)
        letter = contact_letter(case, target, person, self._contact_links(case, person, now))
        addresses = MessageAddresses(
            sender=self._settings.sender,
            recipient=target.address,
            message_id=ids.encode("asg", case.assignment_id),
        )
        attachments = (_adf(case, target, person, self._settings.sender.display_name),) if target.with_adf else ()
        return compose_message(letter, addresses, now, attachments)

    def _contact_links(self, case: DeliveryCase, person: LetterContact, now: datetime) -> tuple[LetterLink, ...]:
        """Return the links: the call first, if the consent allows it, then the outcomes and the lead's page."""
        links = []
        if person.phone and Channel.call in licensed_channels(case.facts.consent):
            extension = f";ext={person.phone_extension}" if person.phone_extension else ""
            links.append(LetterLink(words=f"Call {person.phone}", url=f"tel:{person.phone}{extension}"))
        for outcome, words in OUTCOME_WORDS.items():
            token = LinkToken(subject=case.assignment_id, expires_at=now + OUTCOME_LINK_VALID, detail=outcome)
            path = self._tokens.link(TokenPurpose.outcome, token)
            links.append(LetterLink(words=words, url=f"{self._origin}/mail/outcome/{path}"))
        page = f"{self._origin}/business/leads/{ids.encode('lead', case.lead_id)}"
        return (*links, LetterLink(words="Open the lead", url=page))

    def alert(self, case: DeliveryCase, target: MailTarget) -> NewMail:
        """Return the alert that a lead waits in the portal, without contact data; it is of no use after the hold."""
        page = f"{self._origin}/business/inbox/{ids.encode('asg', case.assignment_id)}"
        letter = Letter(
            subject=_subject(case, target),
            heading=f"A lead waits for you: {target.vertical_name}",
            paragraphs=(*_test_note(case), "Take it to see the name and the phone number. It is charged then."),
            lines=_need_lines(case, target.needs),
            links=(LetterLink(words="See the lead", url=page),),
            ending="If you do not take it in time, it goes to the next business, and you pay nothing.",
        )
        return NewMail(
            kind=MailKind.lead,
            recipient=target.address,
            occasion=ids.encode("asg", case.assignment_id),
            letter=letter,
            give_up_at=case.hold_until,
            business_id=case.business_id,
            endpoint_id=case.endpoint_id,
            assignment_id=case.assignment_id,
        )


def contact_letter(
    case: DeliveryCase, target: MailTarget, person: LetterContact, links: tuple[LetterLink, ...]
) -> Letter:
    """Return the letter with the contact of a lead."""
    address = ", ".join(part for part in (person.street, person.postal_code, person.country) if part)
    lines = (
        *_line("Phone", " ext. ".join(part for part in (person.phone, person.phone_extension) if part)),
        *_line("E-mail", person.email),
        *_line("Address", address),
        *_line("Message", person.summary),
        *_line("Consent", _channel_words(case.facts)),
        *_need_lines(case, target.needs),
    )
    return Letter(
        subject=_subject(case, target),
        heading=f"{target.vertical_name}: {person.full_name}",
        paragraphs=_test_note(case),
        lines=lines,
        links=links,
        ending="This lead is yours alone. Please call soon: the first minutes count most.",
    )


def _subject(case: DeliveryCase, target: MailTarget) -> str:
    test = "Test lead" if case.mode == "test" else "New lead"
    return f"{test}: {target.vertical_name}, {place_words(case.facts)}"


def _test_note(case: DeliveryCase) -> tuple[str, ...]:
    return ("This is a test lead: nobody asked for it, and it costs nothing.",) if case.mode == "test" else ()


def _need_lines(case: DeliveryCase, needs: Mapping[str, NeedField]) -> tuple[LetterLine, ...]:
    """Return what may be known without an exposure: the need, the district, budget, time and price."""
    facts = case.facts
    answers = tuple(
        LetterLine(label=(needs[name].label if name in needs else "") or _words(name), value=_answer_words(value))
        for name, value in facts.need_fields.items()
    )
    return (
        *answers,
        *_line("Where", place_words(facts)),
        *_line("Budget", _budget_words(facts.budget)),
        *_line("When", _timing_words(facts.timing)),
        *_line("Price", amount_in_words(case.price_minor, case.currency)),
    )


def _line(label: str, value: str | None) -> tuple[LetterLine, ...]:
    return (LetterLine(label=label, value=value),) if value else ()


def place_words(facts: Facts) -> str:
    """Return the region and the beginning of the postal code: `TX 787…`."""
    code = facts.place.postal_code or ""
    district = f"{code[:SHOWN_CODE]}…" if len(code) > SHOWN_CODE else code
    return " ".join(part for part in (facts.place.region, district) if part) or facts.place.country


def _channel_words(facts: Facts) -> str:
    """Return the channels that the consent allows and refuses, or an empty text if it allows all."""
    allowed = licensed_channels(facts.consent)
    return "" if len(allowed) == len(Channel) else channels_in_words(facts.consent)


def _budget_words(budget: Budget | None) -> str:
    if budget is None:
        return ""
    least = amount_in_words(budget.minor, budget.currency)
    if budget.maximum_minor is None or budget.maximum_minor == budget.minor:
        return least
    return f"{least} to {amount_in_words(budget.maximum_minor, budget.currency)}"


def _timing_words(timing: Timing | None) -> str:
    if timing is None:
        return ""
    if timing.not_before is not None:
        return f"from {timing.not_before:%-d %b %Y}"
    return "" if timing.within_days is None else f"within {timing.within_days} days"


def _answer_words(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return f"{value:,}" if isinstance(value, int) else _words(value)


def _words(slug: str) -> str:
    return slug.replace("_", " ").capitalize()


def _adf(case: DeliveryCase, target: MailTarget, person: LetterContact, provider: str) -> Attachment:
    """Return the lead as an ADF attachment."""
    comments = "\n".join(f"{line.label}: {line.value}" for line in _need_lines(case, target.needs))
    lead = AdfLead(
        id=ids.encode("asg", case.assignment_id),
        source=provider or "marketplace",
        requested_at=case.facts.submitted_at,
        full_name=person.full_name,
        email=person.email,
        phone=person.phone,
        street=person.street,
        postal_code=person.postal_code,
        country=person.country,
        comments="\n".join(part for part in (person.summary, comments) if part),
        timeframe=_timing_words(case.facts.timing),
        vendor=target.business_name,
        provider=provider or "marketplace",
    )
    return Attachment(content=as_adf(lead), main_type="application", subtype="x-adf+xml", name="lead.adf.xml")
