"""Endpoints of kind email: made, confirmed by a link in a message, changed, tested."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from marketplace.mail.message import Letter
from marketplace.runtime.settings import Settings
from tests.builders.mail import mail_settings
from tests.builders.service import Served, serve

ADDRESS = "Owner@roofs.example.com"
STORED = "Owner@roofs.example.com"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    """A service with a mail server in its settings; nothing is sent, because no worker runs."""
    async with serve(msgspec.structs.replace(settings, mail=mail_settings(1))) as served:
        yield served


async def letters(api: Served) -> list[tuple[str, Letter]]:
    """Recipient and text of the messages that wait."""
    rows = await api.pool.fetch("select recipient, letter from outgoing_mail order by made_at, id")
    return [(row["recipient"], msgspec.json.decode(row["letter"], type=Letter)) for row in rows]


async def link_of(api: Served) -> str:
    """Path of the confirmation link that was sent last."""
    return urlsplit((await letters(api))[-1][1].links[0].url).path


async def made(api: Served, key: str, **fields: Any) -> dict[str, Any]:
    return await api.make("/v1/endpoints", {"kind": "email", "address": ADDRESS} | fields, key=key)


async def test_an_address_is_active_once_the_button_behind_its_link_was_used(api: Served) -> None:
    _, key = await api.business()
    endpoint = await made(api, key)
    assert (endpoint["state"], endpoint["address"], endpoint["mode"], endpoint["with_adf"]) == (
        "unverified",
        STORED,
        "link",
        False,
    )
    [(recipient, letter)] = await letters(api)
    assert (recipient, letter.links[0].words) == (STORED, "Confirm this address")
    path = await link_of(api)
    for _ in range(3):
        page = await api.call("GET", path, key="")
        assert (page.status_code, STORED in page.text) == (200, True)
    assert (await api.call("GET", f"/v1/endpoints/{endpoint['id']}", key=key)).json()["state"] == "unverified"
    for _ in range(2):
        done = await api.call("POST", path, key="")
        assert (done.status_code, "confirmed" in done.text) == (200, True)
    shown = (await api.call("GET", f"/v1/endpoints/{endpoint['id']}", key=key)).json()
    assert (shown["state"], shown["verified_at"] is not None) == ("active", True)


@pytest.mark.parametrize("path", ["/mail/confirm/aaaa", "/mail/outcome/aaaa", "/mail/outcome/-"])
async def test_a_made_up_link_is_refused(api: Served, path: str) -> None:
    for method in ("GET", "POST"):
        assert (await api.call(method, path, key="")).status_code == 410


@pytest.mark.parametrize(
    ("fields", "place", "code"),
    [
        ({"address": "owner"}, "/address", "email_invalid"),
        ({"address": "a@b.example\r\nBcc: c@d.example"}, "/address", "email_invalid"),
        ({"address": None}, "/address", "field_missing"),
        ({"mode": "fax"}, "/mode", "value_not_allowed"),
        ({"with_adf": True}, "/with_adf", "value_not_allowed"),
        ({"kind": "feed"}, "/address", "value_not_allowed"),
        ({"url": "https://a.example/"}, "/url", "value_not_allowed"),
        ({"hold_seconds": 901}, "/hold_seconds", "out_of_range"),
    ],
)
async def test_a_draft_with_a_fault_is_refused(api: Served, fields: dict[str, Any], place: str, code: str) -> None:
    _, key = await api.business()
    body = {"kind": "email", "address": ADDRESS} | fields
    refused = await api.call("POST", "/v1/endpoints", body, key=key)
    assert refused.status_code == 422
    assert (place, code) in {(error["pointer"], error["code"]) for error in refused.json()["errors"]}


async def test_no_mailbox_gets_the_leads_of_two_businesses(api: Served) -> None:
    _, first = await api.business()
    _, second = await api.business()
    await made(api, first)
    await made(api, second)
    [(_, _), (_, later)] = await letters(api)
    await api.call("POST", await link_of(api), key="")
    _, third = await api.business()
    refused = await api.call(
        "POST", "/v1/endpoints", {"kind": "email", "address": "owner+x@roofs.example.com"}, key=third
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_shared")
    assert later.heading == "Confirm this address"


async def test_only_a_few_messages_a_day_are_sent_to_an_address_that_nobody_confirmed(api: Served) -> None:
    _, key = await api.business()
    endpoint = await made(api, key)
    answers = [
        (await api.call("POST", f"/v1/endpoints/{endpoint['id']}/verify", key=key)).status_code for _ in range(3)
    ]
    assert answers == [200, 200, 429]
    assert len(await letters(api)) == 3


async def test_without_a_mail_server_no_address_is_taken(settings: Settings) -> None:
    async with serve(settings) as api:
        _, key = await api.business()
        refused = await api.call("POST", "/v1/endpoints", {"kind": "email", "address": ADDRESS}, key=key)
        assert (refused.status_code, "sends no e-mail" in refused.json()["detail"]) == (409, True)
