"""Our signatures, verified by an independent library as receivers use it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from marketplace.runtime import clock
from marketplace.webhook.signing import is_signed, new_secret, sign

BODY = '{"type":"lead.assigned","data":{"full_name":"Zoë Ångström"}}'.encode()


def test_the_receivers_library_verifies_what_we_sign() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, sign((secret,), "asg_1", clock.now(), BODY))["type"] == "lead.assigned"


def test_a_known_vector_of_the_standard_gives_its_signature() -> None:
    secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    headers = sign(
        (secret,),
        "msg_loFOjxBNrRLzqYUf",
        datetime.fromtimestamp(1731705121, UTC),
        b'{"event_type":"ping","data":{"success":true}}',
    )
    assert headers == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


def test_during_a_rotation_the_old_and_the_new_secret_both_verify_and_a_third_does_not() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers = sign((new, old), "asg_1", clock.now(), BODY)
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers)


@pytest.mark.parametrize("tampered", ["body", "webhook-id", "webhook-timestamp", "webhook-signature"])
def test_whatever_is_changed_on_the_way_is_noticed(tampered: str) -> None:
    secret = new_secret()
    now = clock.now()
    headers, body = sign((secret,), "asg_1", now, BODY), BODY
    match tampered:
        case "body":
            body = BODY.replace(b"lead.assigned", b"lead.returned")
        case "webhook-id":
            headers["webhook-id"] = "asg_2"
        case "webhook-timestamp":
            headers["webhook-timestamp"] = str(int(now.timestamp()) + 1)
        case _:
            headers["webhook-signature"] = sign((secret,), "asg_2", now, BODY)["webhook-signature"]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_replay_after_five_minutes_is_refused_and_so_is_one_from_the_future(minutes: int) -> None:
    secret = new_secret()
    headers = sign((secret,), "asg_1", clock.now() + timedelta(minutes=minutes), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers)


def test_the_same_moment_in_another_zone_gives_the_same_signature() -> None:
    secret, now = new_secret(), clock.now()
    elsewhere = now.astimezone(timezone(timedelta(hours=-7)))
    assert sign((secret,), "asg_1", elsewhere, BODY) == sign((secret,), "asg_1", now, BODY)


@pytest.mark.parametrize(
    ("secrets", "message_id", "timestamp", "body"),
    [
        ((), "asg_1", datetime(2026, 3, 2, tzinfo=UTC), BODY),
        (("whsec_AAAA",), "asg.1", datetime(2026, 3, 2, tzinfo=UTC), BODY),
        (("whsec_AAAA",), "asg_1", datetime(2026, 3, 2), BODY),
        (("whsec_AAAA",), "asg_1", datetime(2026, 3, 2, tzinfo=UTC), b"\xff"),
    ],
)
def test_what_cannot_be_signed_safely_is_not_signed(
    secrets: tuple[str, ...], message_id: str, timestamp: datetime, body: bytes
) -> None:
    with pytest.raises(ValueError, match=r"signature needs|utf-8"):
        sign(secrets, message_id, timestamp, body)


def test_every_secret_is_new_and_32_bytes_long() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(new_secret()) == len("whsec_") + 44


@pytest.mark.parametrize(
    "listed",
    [
        "{good}",
        "v1 {good}",
        "v1,AAAA {good}",
        "v1, {good}",
        "v1a,{good} {good}",
        "v2,x,y,z {good}",
        ", {good}",
        "v1,\N{SNOWMAN} {good}",
        "v1,*** {good}",
        "   {good}  ",
        "v1," + "A" * 43 + "= {good}",
        "{good} v1,x,y",
    ],
)
def test_a_good_signature_counts_whatever_stands_beside_it_in_the_list(listed: str) -> None:
    secret = new_secret()
    headers = sign((secret,), "msg_1", clock.now(), BODY)
    listed = listed.format(good=headers["webhook-signature"])
    assert is_signed((new_secret(), secret), headers | {"webhook-signature": listed}, BODY)
    assert not is_signed((new_secret(),), headers | {"webhook-signature": listed}, BODY)


@pytest.mark.parametrize("listed", ["", "v1", "v1,", "v1a,x", "v1,AAAA", "v1," + "A" * 43 + "=", "\N{SNOWMAN}"])
def test_a_list_without_a_good_signature_proves_nothing(listed: str) -> None:
    secret = new_secret()
    headers = sign((secret,), "msg_1", clock.now(), BODY) | {"webhook-signature": listed}
    assert not is_signed((secret,), headers, BODY)
