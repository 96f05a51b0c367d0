"""Persons who are not to be contacted: kept as hashes, honoured by intake, shown to nobody."""

import pytest

from marketplace import clock
from tests.builders.inquiries import roofing_body
from tests.builders.service import Served

PHONE, EMAIL = "+1 312 555 0101", "Robin.1@Example.com"


@pytest.mark.parametrize("person", [{"phone": PHONE}, {"phone": "(312) 555-0101"}, {"email": EMAIL}])
async def test_a_suppressed_person_is_sold_to_nobody(api: Served, person: dict[str, str]) -> None:
    await api.vertical()
    _, key = await api.provider()
    await api.make("/v1/suppressions", person | {"reason": "asked us to stop"}, key=key)
    reply = await api.call("POST", "/v1/inquiries", roofing_body(1, clock.now()), key=key)
    assert reply.json()["state"] == "suppressed"


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
