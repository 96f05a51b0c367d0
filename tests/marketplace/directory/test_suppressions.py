"""Suppressions: stored as hashes, applied by intake, and shown to nobody."""

from datetime import timedelta

import pytest

from marketplace.directory import flow as directory_flow
from marketplace.runtime import clock
from marketplace.security.sealing import Sealer
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
    "jane.doe@gmail.com",
    "jane.doe+x@gmail.com",
    "janedoe@gmail.com",
    "Jane.Doe@GoogleMail.com",
    "\uff4a\uff41\uff4e\uff45.doe@gmail.com",
)


@pytest.mark.parametrize("suppressed", SPELLINGS)
async def test_a_person_suppressed_by_one_spelling_of_a_mailbox_is_sold_under_none(
    api: Served, suppressed: str
) -> None:
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
    test_key = await api.key("provider", provider, "test")
    refused = await api.call("POST", "/v1/suppressions", {"email": EMAIL, "reason": "x"}, key=test_key)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")
    assert not await api.pool.fetchval("select count(*) from suppression")


async def test_a_provider_suppresses_so_many_a_day_for_everybody_and_no_more(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_flow, "SUPPRESSED_A_DAY", 3)
    (_, key), (_, other) = await api.provider(), await api.provider()
    bodies = [{"email": f"robin.{number}@example.com", "reason": "asked"} for number in range(4)]
    for body in (*bodies[:3], *bodies[:3]):  # the same person again is no further one
        await api.make("/v1/suppressions", body, key=key)
    refused = await api.call("POST", "/v1/suppressions", bodies[3], key=key)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    erasing = {"email": "robin.9@example.com", "reason": "asked"}
    assert (await api.call("POST", "/v1/erasures", erasing, key=key)).status_code == 429
    assert await api.pool.fetchval("select count(*) from suppression") == 3
    await api.make("/v1/suppressions", bodies[3], key=other)
    await api.make("/v1/suppressions", {"email": "robin.5@example.com", "reason": "asked"})
    await api.pool.execute("update suppression set created_at = created_at - interval '24 hours'")
    await api.make("/v1/suppressions", {"email": "robin.6@example.com", "reason": "asked"}, key=key)


async def test_an_operator_lifts_what_a_provider_suppressed_with_a_reason_and_nothing_else(api: Served) -> None:
    (provider, key), (_, other) = await api.provider(), await api.provider()
    for number, by in enumerate((key, key, other, api.operator)):
        await api.make("/v1/suppressions", {"email": f"robin.{number}@example.com", "reason": "asked"}, key=by)
    await api.pool.execute("update suppression set created_at = now() - interval '2 days' where ctid = '(0,1)'")
    since = (clock.now() - timedelta(days=1)).isoformat()
    body = {"provider_id": provider, "since": since, "reason": "nobody asked"}
    for by in (key, await api.key("operator", mode="test")):
        assert (await api.call("POST", "/v1/suppressions:lift", body, key=by)).status_code == 403
    lifted = await api.call("POST", "/v1/suppressions:lift", body)
    assert (lifted.status_code, lifted.json()) == (200, {"lifted": 1})
    assert await api.pool.fetchval("select count(*) from suppression") == 3
    record = await api.pool.fetchrow("select source, lifted_reason from lifted_suppression")
    assert tuple(record) == (provider, "nobody asked")
    assert ("person.lift_suppression", provider) in await api.audited()


async def test_a_person_who_was_suppressed_by_mistake_may_be_sold_again(api: Served) -> None:
    await api.vertical()
    _, key = await api.provider()
    await api.make("/v1/suppressions", {"email": EMAIL, "reason": "asked"}, key=key)
    missing = await api.call("POST", "/v1/suppressions:lift", {"reason": "a mistake"})
    assert missing.json()["errors"][0]["code"] == "field_missing"
    lifted = await api.call("POST", "/v1/suppressions:lift", {"email": EMAIL, "reason": "a mistake"})
    assert lifted.json() == {"lifted": 1}
    reply = await api.call("POST", "/v1/inquiries", roofing_body(1, clock.now()), key=key)
    assert reply.json()["state"] != "suppressed"
    assert "example.com" not in str([dict(row) for row in await api.pool.fetch("select * from audit")]).lower()
