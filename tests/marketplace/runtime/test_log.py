"""The log of the real processes: one line per request and per job, only listed keys, and never a person."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from marketplace.runtime import clock
from marketplace.runtime.log import ALLOWED
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import changed, roofing_body
from tests.builders.marketplaces import anywhere
from tests.builders.service import Process, Service, process, service, until
from tests.receivers import Receiver, ok, refuse
from tests.waiting import PATIENCE

MARK = "zq7f3a"
OUTBOUND = {"MARKETPLACE_OUTBOUND_HTTP": "true", "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8"}
NEVER = (MARK, "31255501", "312 555 01", "192.0.2.77", "Example Street", "Traceback", "lk_live_", "whsec_")
BREAK = "alter table decision add constraint broken check (lead_id is null) not valid"
BREAK_INTAKE = "alter table inquiry add constraint broken check (provider_reference = '') not valid"
FINISHED = "select count(*) from lead where state in ('received', 'prospect', 'held')"


def marked(number: int, **changes: Any) -> dict[str, Any]:
    """An inquiry with a mark in every field that can name a person."""
    body = roofing_body(number, clock.now())
    marks = {
        "contact.full_name": f"Robin {MARK}", "contact.email": f"{MARK}.{number}@example.com",
        "contact.street": f"{MARK} Street", "bant.need.summary": f"ask {MARK}", "consent.text": f"I, {MARK}, agree.",
        "consent.page_url": f"https://{MARK}.example.com/?n={MARK}", "consent.ip": "192.0.2.77",
        "consent.user_agent": MARK, "metadata": {"nickname": MARK}, "attribution.campaign": MARK,
        "touches": [{"kind": "click", "at": body["submitted_at"], "detail": f"/{MARK}?email={MARK}@example.com"}],
    }  # fmt: skip
    for path, value in (marks | changes).items():
        body = changed(body, path, value)
    return body


async def push_leads_through_every_path(api: Service, doors: dict[str, str]) -> int:
    """Accepted, refused, duplicate, rejected, delivered, declined, undeliverable, failing; how many calls it took."""
    market = api.market
    small = {"bant.budget": {"minor": 100, "currency": "USD"}}
    calls: list[tuple[str, str, Any]] = []

    async def post(body: Any, path: str = "/v1/inquiries", **more: Any) -> None:
        calls.append(("POST", path, body))
        await api.call("POST", path, body, **more)

    async def settled() -> bool:
        return bool(await market.value(FINISHED) == 0)

    for number, door in enumerate(doors.values(), start=1):
        buyer = await market.buyer(door, anywhere())
        await post(marked(number))
        assert await until(settled, 2 if "127.0.0.1:1/" in door else PATIENCE) or "127.0.0.1:1/" in door
        await market.owner.execute("update subscription set state = 'ended' where id = $1", buyer.subscription_id)
    await post(marked(1, provider_reference="twin"))
    await post(marked(20, **{"contact.phone": f"{MARK} 1", "contact.email": f"{MARK}@b"}))
    await post(marked(21, **small))
    await post(marked(22, **{f"{MARK}": MARK}))
    await post(f'{{"contact": "{MARK}"'.encode())
    await post(marked(23), key=f"lk_live_{MARK}_{MARK}_{MARK}")
    await post(marked(24), path="/v1/inquiries:validate")
    await post(marked(25), headers={"idempotency-key": "é" * 3, "x-request-id": f"<{MARK}>", "user-agent": MARK})
    await api.call("GET", f"/v1/{MARK}?email={MARK}@example.com")
    await api.call("GET", f"/v1/inquiries/{MARK}?phone=+13125550101")
    await api.call("POST", "/v1/suppressions", {"email": f"{MARK}.9@example.com", "reason": f"{MARK} asked"})
    assert await until(settled, PATIENCE)
    await market.owner.execute(BREAK)
    await post(marked(30))
    await market.owner.execute(BREAK_INTAKE)
    failed = await api.call("POST", "/v1/inquiries", marked(31))
    assert failed.status_code == 500
    assert not [word for word in NEVER if word in failed.text]
    return len(calls) + 4


async def test_whatever_becomes_of_a_lead_the_log_names_nobody(settings: Settings, tmp_path: Path) -> None:
    async with (
        Receiver(ok) as taking, Receiver(refuse(f"{MARK}")) as declining,
        service(settings, tmp_path / "api.log", **OUTBOUND) as api,
        process(settings, "work", tmp_path / "work.log", **OUTBOUND) as worker,
    ):  # fmt: skip
        doors = {"taking": taking.url, "declining": declining.url, "dead": "http://127.0.0.1:1/hook"}
        calls = await push_leads_through_every_path(api, doors)
        states = Counter(row["state"] for row in await api.market.owner.fetch("select state from lead"))

        async def one_failed() -> bool:
            lines = [msgspec.json.decode(text) for text in worker.log.splitlines() if text.startswith("{")]
            return any(line["event"] == "job" and line["error"] for line in lines)

        assert await until(one_failed, PATIENCE)
        await asyncio.gather(api.serving.stop(), worker.stop())
        assert {"delivered", "refused", "rejected", "duplicate"} <= states.keys()
        for name, log in (("api", api.serving.log), ("worker", worker.log)):
            assert log, name
            assert [word for word in NEVER if word in log] == [], name
        assert_lines(api.serving, worker, calls)


def assert_lines(api: Process, worker: Process, calls: int) -> None:
    """Every line is JSON of listed keys, but for the first operator's invitation; each request and job has one."""
    requests, jobs = [], []
    for running in (api, worker):
        for text in running.log.splitlines():
            if text.startswith("First operator, once"):
                continue
            line = msgspec.json.decode(text)
            assert line.keys() <= ALLOWED, text
            assert {"event", "level", "timestamp"} <= line.keys(), text
            requests += [line] if line["event"] == "request" else []
            jobs += [line] if line["event"] == "job" else []
    ours = [line for line in requests if line["route"] != "/readyz"]
    assert len(ours) == calls
    assert len({line["request_id"] for line in requests}) == len(requests)
    assert all(line["route"].startswith("/v1/") or line["route"] == "other" for line in ours)
    assert {202, 200, 400, 401, 404, 422, 500} <= {line["status"] for line in ours}
    assert all((line["code"] is None) == (line["status"] < 400) for line in ours)
    assert jobs
    assert all(line["ms"] >= 0 and line["id"] for line in jobs)
    assert [line["error"] for line in jobs if line["error"]]  # the broken one
