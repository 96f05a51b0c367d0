"""The same person is taken once in a vertical's window, by every way in which an inquiry can come."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from marketplace.demo.contacts import person
from marketplace.demo.people import DraftKind as Part
from marketplace.demo.people import InquiryDraft as Invented
from marketplace.demo.provider import open_session, submit
from marketplace.directory import flow as directory_flow
from marketplace.intake.contact import Consent, Contact, window_marks
from marketplace.intake.flow import WINDOW_SLACK, Intake, SubmissionReceipt
from marketplace.intake.postal import PostalBook
from marketplace.replay import replay
from marketplace.replay.mapping import DraftRow
from marketplace.replay.replay import Replay, ReplayOutcome, outcome_of
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from routing.inquiry import Mode
from routing.person import SamePerson
from tests.builders.inquiries import changed, iso, roofing_body
from tests.builders.marketplaces import NOWHERE, Marketplace, marketplace, roofing
from tests.builders.service import Served, serve

PATH = "/v1/inquiries"
ANOTHER_PHONE, ANOTHER_EMAIL = "+1 312 555 0199", "somebody.else@example.com"


class ProviderClient:
    """The API, the marketplace behind it, and a live key of its provider."""

    def __init__(self, api: Served, market: Marketplace, key: str) -> None:
        self.api, self.market, self.key = api, market, key

    async def post(self, body: dict[str, Any], *, key: str | None = None, idempotency_key: str | None = None) -> str:
        """Post one inquiry and return its state."""
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        reply = await self.api.call("POST", PATH, body, key=key or self.key, headers=headers)
        assert reply.status_code in (200, 202), reply.text
        return str(reply.json()["state"])


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[ProviderClient]:
    async with serve(settings) as api, marketplace(settings) as market:
        yield ProviderClient(api, market, await api.key("provider", market.provider.owner))


def first(**contact: str | None) -> dict[str, Any]:
    return with_contact(roofing_body(1, clock.now()), **contact)


def second(**contact: str | None) -> dict[str, Any]:
    """The same person under another reference; a field of the contact that is None is left out."""
    return with_contact(roofing_body(1, clock.now(), provider_reference=f"another-{clock.new_id()}"), **contact)


def with_contact(body: dict[str, Any], **contact: str | None) -> dict[str, Any]:
    for name, value in contact.items():
        body = changed(body, f"contact.{name}", value)
    return body


async def test_the_api_takes_a_person_once(client: ProviderClient) -> None:
    assert await client.post(first()) == "received"
    assert await client.post(second()) == "duplicate"


async def test_another_idempotency_key_is_no_way_around(client: ProviderClient) -> None:
    body = first(full_name="Robin") | {"provider_reference": "one"}
    assert await client.post(body, idempotency_key="key-1") == "received"
    assert await client.post(body | {"provider_reference": "two"}, idempotency_key="key-2") == "duplicate"


async def test_another_provider_is_no_way_around(client: ProviderClient) -> None:
    other = await client.market.another_provider()
    key = await client.api.key("provider", other.owner)
    assert await client.post(first()) == "received"
    assert await client.post(second(), key=key) == "duplicate"


@pytest.mark.parametrize(
    "contact",
    [
        {"phone": "(312) 555-0101", "email": ANOTHER_EMAIL},
        {"phone": "\uff0b\uff11 312\u2011555\u20110101", "email": ANOTHER_EMAIL},
        {"phone": "+1 312 555 0101 ext. 7", "email": ANOTHER_EMAIL},
        {"phone": ANOTHER_PHONE},
        {"phone": ANOTHER_PHONE, "email": "ROBIN.1+roof@example.com"},
    ],
)
async def test_the_phone_alone_or_the_mailbox_alone_is_enough(client: ProviderClient, contact: dict[str, str]) -> None:
    assert await client.post(first()) == "received"
    assert await client.post(second(**contact)) == "duplicate"
    assert await client.post(second(phone="+1 312 555 0198", email="nobody@example.com")) == "received"


@pytest.mark.parametrize("missing", ["phone", "email"])
async def test_a_vertical_that_does_without_one_of_them_compares_the_other(settings: Settings, missing: str) -> None:
    vertical = roofing(requires_phone=False, requires_email=False)
    async with serve(settings) as api, marketplace(settings, vertical) as market:
        client = ProviderClient(api, market, await api.key("provider", market.provider.owner))
        assert await client.post(first(**{missing: None})) == "received"
        assert await client.post(second(**{missing: None})) == "duplicate"
        assert await client.post(second()) == "duplicate"


SPELLINGS = ("jane.doe@gmail.com", "janedoe+x@gmail.com", "Jane.Doe@googlemail.com")


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_mailbox_is_one_person_in_every_spelling(client: ProviderClient, spelling: str) -> None:
    assert await client.post(first(email=SPELLINGS[0])) == "received"
    assert await client.post(second(email=spelling, phone=ANOTHER_PHONE)) == "duplicate"


@pytest.mark.parametrize("spelling", ["jane.doe@gmail.com", "Jane.Doe+x@gmail.com"])
async def test_a_window_from_before_mailboxes_were_compared_keeps_working(
    client: ProviderClient, spelling: str
) -> None:
    receipt = await client.market.submit(1)
    old = client.market.sealer.keyed_hash("person", "live:email:jane.doe@gmail.com")
    await client.market.owner.execute(
        "update person_window set key = $1 where lead_id = $2 and key = $3",
        old,
        receipt.id,
        client.market.sealer.keyed_hash("person", "live:email:robin.1@example.com"),
    )
    assert await client.post(second(email=spelling, phone=ANOTHER_PHONE)) == "duplicate"


async def test_rehearsals_and_real_inquiries_have_windows_of_their_own(client: ProviderClient) -> None:
    rehearsal = await client.api.key("provider", client.market.provider.owner, "test")
    assert await client.post(first(), key=rehearsal) == "received"
    assert await client.post(second(), key=rehearsal) == "duplicate"
    assert await client.post(first()) == "received"
    assert await client.post(second()) == "duplicate"


async def test_of_twenty_at_once_one_is_taken(client: ProviderClient) -> None:
    bodies = [roofing_body(1, clock.now(), provider_reference=f"at-once-{number}") for number in range(20)]
    states = await asyncio.gather(*(client.post(body) for body in bodies))
    assert sorted(states) == ["duplicate"] * 19 + ["received"]


async def test_the_window_ends_and_the_person_may_ask_again(client: ProviderClient) -> None:
    receipt = await client.market.submit(1)
    over = clock.now() - timedelta(seconds=1)
    assert await window_days(client.market, receipt.id) == 30 + WINDOW_SLACK.days
    await client.market.owner.execute(
        "update person_window set during = tstzrange(lower(during) - interval '1 day', $2) where lead_id = $1",
        receipt.id,
        over,
    )
    assert await client.post(second()) == "received"


async def window_days(market: Marketplace, lead_id: UUID) -> int:
    return int(
        await market.value(
            "select extract(day from min(upper(during) - lower(during))) from person_window where lead_id = $1", lead_id
        )
    )


async def test_a_replayed_file_takes_a_person_once(client: ProviderClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows have one person, and a third row has a person whom the API has taken.

    Nobody decides about the first row here: it is not waited for as long as usual.
    """
    monkeypatch.setattr(replay, "WAIT_SECONDS", 1)
    assert await client.post(first()) == "received"
    bodies = (roofing_body(2), roofing_body(2), roofing_body(1))
    drafts = [
        DraftRow(
            number=number,
            id=f"row-{number}",
            contact=body["contact"],
            suppressed=False,
            body=msgspec.json.encode(body | {"provider_reference": f"row-{number}", "submitted_at": iso(clock.now())}),
        )
        for number, body in enumerate(bodies, 1)
    ]
    async with open_session() as session:
        sender = Replay(session, f"http://127.0.0.1:{client.api.port}", client.key)
        for draft in drafts:
            await sender.send([draft], 0, asyncio.Event(), lambda: None)
    outcomes = [result.outcome for result in sender.results(drafts)]
    assert outcomes[1:] == [ReplayOutcome.duplicate, ReplayOutcome.duplicate]
    assert outcomes[0] is ReplayOutcome.open


async def test_the_demos_stream_takes_a_person_once(client: ProviderClient) -> None:
    """The demo posts invented people with its own client."""
    contact = person(clock.seeded("somebody"), 1, "h") | {"country": "US", "postal_code": "60614"}
    draft = Invented(
        number=1,
        kind=Part.ready,
        vertical="roofing",
        provider=0,
        contact=contact,
        ip="192.0.2.1",
        bant=roofing_body()["bant"],
        attribution={},
    )
    duplicate = msgspec.structs.replace(draft, number=2, kind=Part.duplicate)
    url = f"http://127.0.0.1:{client.api.port}"
    async with open_session() as session:
        answers = [
            await submit(session, url, client.key, each.body(clock.now()), f"demo-{each.number}")
            for each in (draft, duplicate)
        ]
    assert [outcome_of(answer) for answer in answers] == [ReplayOutcome.open, ReplayOutcome.duplicate]


PHONES = ("+1 312 555 0101", "+1 312 555 0101 ext. 7", "+1 312 555 0101 ext. 8", "+1 312 555 0199")
EMAILS = ("robin.1@example.com", ANOTHER_EMAIL)
A_PERSON = {"phone": PHONES[0], "email": EMAILS[0]}


@pytest.mark.parametrize(
    ("setting", "earlier", "later", "state"),
    [
        ("both", A_PERSON, A_PERSON, "duplicate"),
        ("both", A_PERSON, {"phone": PHONES[1], "email": "Robin.1+x@example.com"}, "duplicate"),
        ("both", A_PERSON, {"phone": PHONES[0], "email": EMAILS[1]}, "received"),
        ("both", A_PERSON, {"phone": PHONES[3], "email": EMAILS[0]}, "received"),
        ("phone", A_PERSON, {"phone": PHONES[0], "email": EMAILS[1]}, "duplicate"),
        ("phone", A_PERSON, {"phone": PHONES[3], "email": EMAILS[0]}, "received"),
        ("phone", A_PERSON, {"phone": PHONES[1], "email": EMAILS[1]}, "duplicate"),
        ("phone", A_PERSON | {"phone": PHONES[1]}, {"phone": PHONES[2], "email": EMAILS[0]}, "received"),
    ],
)
async def test_a_vertical_says_what_makes_a_person(
    settings: Settings, setting: str, earlier: dict[str, str], later: dict[str, str], state: str
) -> None:
    async with marketplace(settings, roofing(same_person=SamePerson(setting))) as market:
        assert (await ask(market, "1", earlier)).state == "received"
        assert (await ask(market, "2", later)).state == state


@pytest.mark.parametrize("before", SamePerson)
@pytest.mark.parametrize("after", SamePerson)
async def test_a_change_of_the_setting_never_lets_a_person_of_an_open_window_be_taken_again(
    settings: Settings, before: SamePerson, after: SamePerson
) -> None:
    later = {"phone": PHONES[0], "email": EMAILS[1]}
    async with marketplace(settings, roofing(same_person=before)) as market:
        assert (await ask(market, "1", A_PERSON)).state == "received"
        await directory_flow.revise_vertical(market.api, "test", "roofing", 1, roofing(same_person=after))
        market.intake = Intake(market.api, Catalog(market.api), PostalBook(), market.sealer, Notifier(NOWHERE))
        assert (await ask(market, "2", A_PERSON)).state == "duplicate"
        differ = before is after is SamePerson.both
        assert (await ask(market, "3", later)).state == ("received" if differ else "duplicate")


async def test_a_lead_that_is_opened_again_shares_its_telephone_as_before(settings: Settings) -> None:
    async with marketplace(settings, roofing(same_person=SamePerson.both)) as market:
        first = await ask(market, "1", A_PERSON)
        await market.walker.walk(first.id)
        assert await market.state(first.id) == "unsold"
        until = clock.now() + timedelta(days=30)
        await market.owner.execute("select retake_window($1, $2, $3)", first.id, clock.now(), until)
        assert (await ask(market, "2", {"phone": PHONES[0], "email": EMAILS[1]})).state == "received"
        assert (await ask(market, "3", A_PERSON)).state == "duplicate"


async def ask(market: Marketplace, reference: str, contact: dict[str, str]) -> SubmissionReceipt:
    return await market.submit(1, provider_reference=reference, contact=roofing_body(1)["contact"] | contact)


def a_contact(phone: str | None, extension: str | None, email: str | None) -> Contact:
    consent = Consent(text="Yes", given_at=clock.now(), page_url="https://example.com")
    extension = extension if phone else None
    return Contact(full_name="A", phone=phone, phone_extension=extension, email=email, country="US", consent=consent)


CONTACTS = st.builds(
    a_contact,
    st.sampled_from(("+13125550101", "+13125550102", None)),
    st.sampled_from((None, "7", "8")),
    st.sampled_from(("a@example.com", "b@example.com", None)),
).filter(lambda contact: contact.phone is not None or contact.email is not None)


def is_one_person(one: Contact, other: Contact, setting: SamePerson) -> bool:
    """Return whether the setting makes two contacts one person's, by its words and not by its marks."""
    phone = one.phone is not None and one.phone == other.phone
    email = one.email is not None and one.email == other.email
    extensions = {one.phone_extension, other.phone_extension} - {None}
    match setting:
        case SamePerson.both if None not in (one.phone, other.phone, one.email, other.email):
            return phone and email
        case SamePerson.phone if None not in (one.phone, other.phone):
            return phone and len(extensions) < 2
        case _:
            return phone or email


@given(CONTACTS, CONTACTS, st.sampled_from(SamePerson), st.sampled_from(SamePerson))
def test_windows_meet_where_the_setting_of_either_lead_makes_one_person_of_both(
    one: Contact, other: Contact, before: SamePerson, after: SamePerson
) -> None:
    """Left out: a number with an extension and one without, of leads before and after a change of the setting. They
    are one person's in doubt alone, and under `phone` alone."""
    assume(before is after or (one.phone_extension is None) is (other.phone_extension is None))
    mine, theirs = (window_marks(one, Mode.live, before), window_marks(other, Mode.live, after))
    meet = bool(set(mine.own) & {*theirs.own, *theirs.shared} or set(theirs.own) & {*mine.own, *mine.shared})
    assert meet is (is_one_person(one, other, before) or is_one_person(one, other, after))
