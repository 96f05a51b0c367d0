"""Endpoints: accepted URLs, verification, secrets and switching."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from marketplace.directory import flow as directory_flow
from marketplace.directory.challenge import ChallengeEvent, judge
from marketplace.portal.business.wording import attempt_words
from marketplace.webhook.address import UrlFault
from routing.delivery import NotSent, NotSentReason
from tests.builders.service import Served
from tests.receivers import Receiver, Visit, answer, cut_body, drop_after_read, gzipped_refusal, redirect, status


async def echo(visit: Visit) -> None:
    """Answer as an owner's server does: return the challenge."""
    await visit.read_request()
    event = msgspec.json.decode(visit.body, type=ChallengeEvent)
    body = msgspec.json.encode({"challenge": event.data.challenge})
    await visit.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def test_an_endpoint_is_active_once_its_server_has_returned_the_signed_challenge(api: Served) -> None:
    _, key = await api.business()
    async with Receiver(echo) as receiver:
        made = await api.endpoint(key, receiver.url)
        assert made["state"] == "unverified"
        verified = await api.call("POST", f"/v1/endpoints/{made['id']}/verify", key=key)
    assert (verified.status_code, verified.json()["state"]) == (200, "active")
    assert verified.json()["verified_at"]
    [visit] = receiver.visits
    event = Webhook(made["secret"]).verify(visit.body, {k.lower(): v for k, v in visit.headers.items()})
    assert event["type"] == "endpoint.challenge"
    assert event["data"].keys() == {"endpoint_id", "challenge"}


NO_PROOF = (
    (status(500), "status_500"),
    (status(404), "status_404"),
    (redirect("https://example.com/"), "status_302"),
    (answer(200, b"ok"), "challenge_not_returned"),
    (answer(200, b'{"challenge": "guess"}'), "challenge_not_returned"),
    (answer(200, b'{"challenge": 7}'), "challenge_not_returned"),
    (answer(200, b'{"challenge": "\xff"}'), "challenge_not_returned"),
    (answer(204), "challenge_not_returned"),
    (cut_body, "cut_off"),
    (gzipped_refusal, "challenge_not_returned"),
    (answer(200, b"x", content_encoding="br"), "compressed"),
    (drop_after_read, "closed"),
)


async def test_without_the_challenge_it_stays_unverified_and_the_owner_is_told_what_happened(api: Served) -> None:
    _, key = await api.business()
    async with Receiver(*(behaviour for behaviour, _ in NO_PROOF)) as receiver:
        made = await api.endpoint(key, receiver.url)
        for _, code in NO_PROOF:
            refused = await api.call("POST", f"/v1/endpoints/{made['id']}/verify", key=key)
            assert (refused.status_code, refused.json()["code"]) == (409, "challenge_failed")
            assert refused.json()["detail"].startswith(f"{code}:"), refused.json()
    assert (await api.call("GET", f"/v1/endpoints/{made['id']}", key=key)).json()["state"] == "unverified"


async def test_an_obstacle_before_the_first_byte_is_named(api: Served) -> None:
    _, key = await api.business()
    obstacles = (("http://127.0.0.1:9/hook", "connect_refused"), ("https://nowhere.invalid/hook", "no_public_address"))
    for url, code in obstacles:
        made = await api.endpoint(key, url)
        refused = await api.call("POST", f"/v1/endpoints/{made['id']}/verify", key=key)
        assert refused.json()["detail"].startswith(f"{code}:"), refused.json()


def test_a_message_holds_no_name_or_address_of_our_own_network() -> None:
    """An unknown name, a name with a private address, and a private address all give the same message."""
    inside = ("valkey: [Errno -2] Name or service not known", "valkey: 10.0.0.7 is private", "10.0.0.7 is private")
    reasons = (NotSentReason.dns_failed, NotSentReason.address_refused, NotSentReason.url_refused)
    messages = [
        judge(NotSent(reason=reason, detail=detail), "x") or "" for reason, detail in zip(reasons, inside, strict=True)
    ]
    assert len(set(messages)) == 1
    assert messages[0].startswith("no_public_address: ")
    for reason in NotSentReason:
        assert "10.0.0.7" not in (judge(NotSent(reason=reason, detail="valkey, 10.0.0.7"), "x") or "")
        assert attempt_words("not_sent", reason, None).strip()
    assert attempt_words("", "dns_failed", None) == attempt_words("", "address_refused", None)


URLS = (
    ("ftp://example.com/", "url_scheme"),
    ("file:///etc/passwd", "url_scheme"),
    ("javascript:alert(1)", "url_scheme"),
    ("example.com/hook", "url_scheme"),
    ("https://", "url_invalid"),
    ("https://example.com/a b", "url_invalid"),
    ("https://example.com/#x", "url_invalid"),
    ("https://user:pass@example.com/", "url_credentials"),
    ("https://example.com:22/", "url_port"),
    ("https://10.0.0.1/", "url_address_not_public"),
    ("https://167772161/", "url_address_not_public"),
    ("https://0x0a000001/", "url_address_not_public"),
    ("https://10.1/", "url_address_not_public"),
    ("https://169.254.169.254/latest/meta-data", "url_address_not_public"),
    ("https://[::1]/", "url_address_not_public"),
    ("https://[::ffff:169.254.169.254]/", "url_address_not_public"),
    ("https://[64:ff9b::a00:1]/", "url_address_not_public"),
    ("https://marketplace.example.org/v1/inquiries", "url_loops_to_service"),
)


async def test_a_url_that_no_webhook_may_use_is_refused_with_its_reason(api: Served) -> None:
    _, key = await api.business()
    for url, code in URLS:
        refused = await api.call("POST", "/v1/endpoints", {"url": url}, key=key)
        fault = refused.json()["errors"][0]
        assert (refused.status_code, fault["pointer"], fault["code"]) == (422, "/url", code), url
        assert url not in refused.text


def test_every_fault_of_a_url_has_its_advice() -> None:
    assert directory_flow.URL_ADVICE.keys() == set(UrlFault)


PROVEN = "update endpoint set state = 'active', verified_at = now()"

SAME_PLACE = (
    "https://hooks.example.com/leads",
    "https://HOOKS.EXAMPLE.COM./leads",
    "https://hooks.example.com:443/leads/",
    "https://hooks.example.com//leads",
    "https://hooks.example.com/./a/../leads",
    "https://hooks.example.com/%6ceads",
    "http://hooks.example.com/leads",
    "https://\uff48ooks.example.com/leads",
)
OTHER_PLACES = (
    "https://hooks.example.com/Leads",
    "https://hooks.example.com:8443/leads",
    "https://hooks.example.com/leads?of=2",
    "https://hooks.example.com/leads%2F2",
    "https://hook.example.com/leads",
)


async def test_one_url_never_belongs_to_two_businesses_however_it_is_spelt(api: Served) -> None:
    _, first = await api.business()
    _, second = await api.business()
    await api.endpoint(first, "https://Hooks.Example.com:443/leads")
    await api.pool.execute(PROVEN)
    for url in SAME_PLACE:
        refused = await api.call("POST", "/v1/endpoints", {"url": url}, key=second)
        assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_shared"), url
    for url in OTHER_PLACES:
        await api.endpoint(second, url)
    await api.endpoint(first, "https://hooks.example.com/leads")


async def test_an_address_that_was_never_proven_keeps_nobody_away(api: Served) -> None:
    _, squatter = await api.business()
    _, owner = await api.business()
    async with Receiver(echo) as receiver:
        squatted = await api.endpoint(squatter, receiver.url)
        made = await api.endpoint(owner, receiver.url)
        verified = await api.call("POST", f"/v1/endpoints/{made['id']}/verify", key=owner)
        assert (verified.status_code, verified.json()["state"]) == (200, "active")
        late = await api.call("POST", f"/v1/endpoints/{squatted['id']}/verify", key=squatter)
        assert (late.status_code, late.json()["code"]) == (409, "endpoint_shared")
    assert (await api.call("POST", "/v1/endpoints", {"url": receiver.url}, key=squatter)).status_code == 409


async def test_two_businesses_that_prove_one_url_at_the_same_moment_do_not_both_get_it(api: Served) -> None:
    keys = [(await api.business())[1] for _ in range(4)]
    async with Receiver(echo) as receiver:
        endpoints = [await api.endpoint(key, receiver.url) for key in keys]
        replies = await asyncio.gather(
            *(
                api.call("POST", f"/v1/endpoints/{endpoint['id']}/verify", key=key)
                for endpoint, key in zip(endpoints, keys, strict=True)
            )
        )
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]


async def test_an_address_that_was_switched_off_may_be_anothers_and_is_not_taken_back(api: Served) -> None:
    _, first = await api.business()
    _, second = await api.business()
    async with Receiver(echo) as receiver:
        old = await api.endpoint(first, receiver.url)
        assert (await api.call("POST", f"/v1/endpoints/{old['id']}/verify", key=first)).status_code == 200
        await api.call("PATCH", f"/v1/endpoints/{old['id']}", {"state": "disabled"}, key=first)
        new = await api.endpoint(second, receiver.url)
        assert (await api.call("POST", f"/v1/endpoints/{new['id']}/verify", key=second)).status_code == 200
    back = await api.call("PATCH", f"/v1/endpoints/{old['id']}", {"state": "active"}, key=first)
    assert (back.status_code, back.json()["code"]) == (409, "endpoint_shared")


async def test_a_secret_is_shown_at_its_making_and_at_its_rotation_and_never_else(api: Served) -> None:
    _, key = await api.business()
    made = await api.endpoint(key)
    path = f"/v1/endpoints/{made['id']}"
    rotated = (await api.call("POST", f"{path}/rotate-secret", key=key)).json()
    assert made["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    replies = [await api.call("GET", where, key=key) for where in (path, "/v1/endpoints")]
    dump = "".join(str(dict(row)) for row in await api.pool.fetch("select * from endpoint"))
    dump += "".join(str(dict(row)) for row in await api.pool.fetch("select * from audit"))
    for text in (*(reply.text for reply in replies), dump):
        assert made["secret"] not in text
        assert rotated["secret"] not in text


async def test_during_a_rotation_both_secrets_verify_and_a_day_later_only_the_new_one(api: Served) -> None:
    _, key = await api.business()
    async with Receiver(echo) as receiver:
        made = await api.endpoint(key, receiver.url)
        path = f"/v1/endpoints/{made['id']}"
        rotated = (await api.call("POST", f"{path}/rotate-secret", key=key)).json()
        await api.call("POST", f"{path}/verify", key=key)
        until = "update endpoint set previous_until = previous_until - $1::interval"
        await api.pool.execute(until, timedelta(hours=24, seconds=1))
        await api.call("POST", f"{path}/verify", key=key)
    signatures = [visit.headers["Webhook-Signature"].split() for visit in receiver.visits]
    assert [len(signed) for signed in signatures] == [2, 1]
    for visit, endpoints in zip(receiver.visits, ((made, rotated), (rotated,)), strict=True):
        headers = {name.lower(): value for name, value in visit.headers.items()}
        for endpoint in endpoints:
            Webhook(endpoint["secret"]).verify(visit.body, headers)


async def test_a_secret_that_leaked_is_ended_at_once(api: Served) -> None:
    _, key = await api.business()
    async with Receiver(echo) as receiver:
        made = await api.endpoint(key, receiver.url)
        path = f"/v1/endpoints/{made['id']}"
        rotated = (await api.call("POST", f"{path}/rotate-secret", key=key)).json()
        ended = await api.call("DELETE", f"{path}/previous-secret", key=key)
        assert (ended.status_code, ended.json()["previous_secret_until"]) == (200, None)
        assert (await api.call("DELETE", f"{path}/previous-secret", key=key)).status_code == 200
        await api.call("POST", f"{path}/verify", key=key)
    [visit] = receiver.visits
    assert len(visit.headers["Webhook-Signature"].split()) == 1
    headers = {name.lower(): value for name, value in visit.headers.items()}
    Webhook(rotated["secret"]).verify(visit.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(visit.body, headers)
    assert ("endpoint.end_previous_secret", made["id"]) in await api.audited()


async def test_an_endpoint_is_switched_on_only_after_it_was_verified_and_its_breaker_starts_anew(api: Served) -> None:
    _, key = await api.business()
    async with Receiver(echo) as receiver:
        made = await api.endpoint(key, receiver.url)
        path = f"/v1/endpoints/{made['id']}"
        early = await api.call("PATCH", path, {"state": "active"}, key=key)
        await api.call("POST", f"{path}/verify", key=key)
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    await api.pool.execute("update endpoint set breaker_open_until = now() + '1 h', breaker = '{\"opened_count\": 3}'")
    assert (await api.call("PATCH", path, {"state": "disabled"}, key=key)).json()["state"] == "disabled"
    on = (await api.call("PATCH", path, {"state": "active"}, key=key)).json()
    assert (on["state"], on["breaker_open_until"]) == ("active", None)
    assert await api.pool.fetchval("select breaker from endpoint") == "{}"


async def test_what_live_subscriptions_lean_on_is_changed_with_live_keys_alone(api: Served) -> None:
    business, key = await api.business()
    test_key = await api.key("business", business, "test")
    await api.vertical()
    made = await api.endpoint(test_key)
    path = f"/v1/endpoints/{made['id']}"
    assert (await api.call("POST", f"{path}/rotate-secret", key=test_key)).status_code == 200
    await api.subscription(key, made["id"])
    for change in (f"{path}/rotate-secret", f"{path}/verify"):
        refused = await api.call("POST", change, key=test_key)
        assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")
    assert (await api.call("PATCH", path, {"state": "disabled"}, key=test_key)).status_code == 403
