"""Persons who are not to be contacted: kept as hashes, honoured by intake, shown to nobody."""

import pytest

from marketplace import clock
from marketplace.sealing import Sealer
from tests.builders.inquiries import changed, roofing_body
from tests.builders.service import Served

PHONE, EMAIL = "+1 312 555 0101", "Robin.1@Example.com"


@pytest.mark.parametrize("person", [{"phone": PHONE}, {"phone": "(312) 555-0101"}, {"email": EMAIL}])
async def test_a_suppressed_person_is_sold_to_nobody(api: Served, person: dict[str, str]) -> None:
    await api.vertical()
    _, key = await api.provider()
    await api.make("/v1/suppressions", person | {"reason": "asked us to stop"}, key=key)
    reply = await api.call("POST", "/v1/inquiries", roofing_body(1, clock.now()), key=key)
    assert reply.json()["state"] == "suppressed"


SPELLINGS = (
    "jane.doe@gmail.com", "jane.doe+x@gmail.com", "janedoe@gmail.com", "Jane.Doe@GoogleMail.com",
    "\uff4a\uff41\uff4e\uff45.doe@gmail.com",
)  # fmt: skip


@pytest.mark.parametrize("suppressed", SPELLINGS)
async def test_whoever_suppressed_one_spelling_of_a_mailbox_is_sold_under_none(api: Served, suppressed: str) -> None:
    await api.vertical()
    _, key = await api.provider()
    await api.make("/v1/suppressions", {"email": suppressed, "reason": "asked us to stop"}, key=key)
    for number, spelling in enumerate(SPELLINGS):
        body = changed(roofing_body(number, clock.now()), "contact.email", spelling)
        assert (await api.call("POST", "/v1/inquiries", body, key=key)).json()["state"] == "suppressed", spelling


@pytest.mark.parametrize("spelling", ["jane.doe@gmail.com", "Jane.Doe+x@gmail.com", "jane.doe@googlemail.com"])
async def test_a_suppression_from_before_mailboxes_were_compared_keeps_working(api: Served, spelling: str) -> None:
    await api.vertical()
    _, key = await api.provider()
    old = Sealer(api.settings.master_key, api.settings.pepper).keyed_hash("suppression", "email:jane.doe@gmail.com")
    await api.pool.execute(
        "insert into suppression (key, reason, source, created_at) values ($1, 'asked', 'operator', now())", old
    )
    body = changed(roofing_body(1, clock.now()), "contact.email", spelling)
    assert (await api.call("POST", "/v1/inquiries", body, key=key)).json()["state"] == "suppressed"


@pytest.mark.parametrize(
    "phone",
    ["+1 861 997 0142", "(861) 997-0142", "٨٦١ ٩٩٧ ٠١٤٢", "＋１－８６１－９９７－０１４２"],  # noqa: RUF001 - digits of other scripts
)
async def test_a_possible_number_is_suppressed_in_any_spelling(api: Served, phone: str) -> None:
    await api.vertical()
    _, key = await api.provider()
    await api.make("/v1/suppressions", {"phone": phone, "reason": "asked us to stop"}, key=key)
    body = changed(roofing_body(1, clock.now()), "contact.phone", "+1 861 997 0142")
    assert (await api.call("POST", "/v1/inquiries", body, key=key)).json()["state"] == "suppressed"


async def test_a_word_is_no_number_to_suppress(api: Served) -> None:
    _, key = await api.provider()
    body = {"phone": "club 908 conyers", "reason": "asked us to stop"}
    reply = await api.call("POST", "/v1/suppressions", body, key=key)
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, "phone_invalid")
    assert not await api.pool.fetchval("select count(*) from suppression")


async def test_neither_the_answer_nor_the_database_holds_the_value(api: Served) -> None:
    provider, key = await api.provider()
    body = {"phone": PHONE, "email": EMAIL, "reason": "asked us to stop"}
    first, again = [await api.call("POST", "/v1/suppressions", body, key=key) for _ in range(2)]
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, {"state": "suppressed"})
    rows = await api.pool.fetch("select * from suppression")
    dump = str([dict(row) for row in rows]) + str([dict(row) for row in await api.pool.fetch("select * from audit")])
    assert [row["source"] for row in rows] == [provider, provider]
    for value in ("3125550101", "example.com"):
        assert value not in dump.lower()


async def test_a_rehearsal_suppresses_no_real_person(api: Served) -> None:
    provider, _ = await api.provider()
    rehearsal = await api.key("provider", provider, "test")
    refused = await api.call("POST", "/v1/suppressions", {"email": EMAIL, "reason": "x"}, key=rehearsal)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")
    assert not await api.pool.fetchval("select count(*) from suppression")
