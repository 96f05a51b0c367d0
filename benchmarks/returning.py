"""Send the education leads without their later behaviour, then that behaviour as touches, and compare who was promoted.

Run: python benchmarks/returning.py [FILE.csv] [--limit N] [--json FILE]

A service is started. Each row is submitted as an inquiry of a week ago, without its visits, pages and time on the site.
When all are decided, these arrive as touches of the person: each visit, the last of which supplies the length of the
whole reading, and the last activity if it was the person's own. A lead that was not ready before and is after was
promoted. The column `Converted`, which is not sent, says who became a customer. The file has no times: those of the
touches are invented, and the last activity may be later than a salesperson's call. Without the file, it says so and
ends.
"""

import argparse
import asyncio
import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from benchmarks.education_leads import FILE, MAPPING, OUTCOME
from billing.intervals import Figure, share
from marketplace.demo.furnishing import OperatorClient, furnish
from marketplace.demo.installation import empty, running
from marketplace.demo.provider import find, open_session, post_until_answered
from marketplace.demo.run import verify_at
from marketplace.replay.mapping import DraftRow, MappingPlan, load_mapping
from marketplace.replay.replay import OPEN_STATES, Replay
from marketplace.replay.rows import read_rows
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded
from routing.interest import InterestCriterion

AT_ONCE: Final = 32
MOST_VISITS: Final = 10
INQUIRED_BEFORE: Final = timedelta(days=7)
"Age of the inquiries, so that the touches lie between them and now."
BETWEEN_VISITS: Final = timedelta(hours=12)
LONG_READING_SECONDS: Final = 600
"Reading that shows interest, as in the mapping."
PATIENCE_SECONDS: Final = 60.0
LATER: Final = frozenset(
    f"bant.need.fields.{name}" for name in ("reading", "visits", "seconds_on_site", "pages_per_visit")
)
"Fields of the mapping that the person's later behaviour fills."
OWN_ACTIVITIES: Final = {
    "Email Opened": "email_open",
    "View in browser link Clicked": "email_open",
    "Email Link Clicked": "link_click",
    "Olark Chat Conversation": "chat",
    "Form Submitted on Website": "form",
    "Page Visited on Website": "page_view",
}
"Last activities that are the person's own. A message that was sent, or a call by a salesperson, is not."
NOT_READY: Final = frozenset({"rejected", "nurturing", "expired"})
CRITERIA: Final = (
    InterestCriterion(name="came_back", label="Came back", kinds=("page_view",), count=2, within_days=7, points=10),
    InterestCriterion(name="answered", label="Answered", kinds=("link_click", "chat", "form"), points=5),
)
MINIMUM_SCORE: Final = 50
"Points of a lead that is ready: more than those of one of whom only the programme is known."


def without_later(plan: MappingPlan) -> MappingPlan:
    """Return the mapping without what a person does later, under a policy whose points touches can earn."""
    assert plan.definition is not None
    definition = msgspec.structs.replace(plan.definition, interest=CRITERIA, minimum_score=MINIMUM_SCORE)
    consent = msgspec.structs.replace(plan.consent, hours_before=(INQUIRED_BEFORE / timedelta(hours=1)) + 24)
    fields = tuple(field for field in plan.fields if field.to not in LATER)
    return msgspec.structs.replace(plan, fields=fields, touches=(), definition=definition, consent=consent)


def as_of_a_week_ago(draft: DraftRow, now: datetime) -> DraftRow:
    """Return the inquiry with the time of its submission."""
    body = msgspec.json.decode(draft.body)
    body["submitted_at"] = now - INQUIRED_BEFORE
    return msgspec.structs.replace(draft, body=msgspec.json.encode(body))


def touches_of(row: Mapping[str, str], now: datetime) -> list[dict[str, Any]]:
    """Return the touches of a row: its visits, the last of which supplies the length of the reading, and activity."""
    visits = min(MOST_VISITS, int(float(row["TotalVisits"] or 0)))
    seconds = int(float(row["Total Time Spent on Website"] or 0))
    touches: list[dict[str, Any]] = [
        {"touch_id": f"visit-{place}", "kind": "page_view", "at": now - place * BETWEEN_VISITS, "detail": "/programmes"}
        for place in range(visits)
    ]
    if touches and seconds:
        reading = "long" if seconds >= LONG_READING_SECONDS else "short"
        fields = {
            "reading": reading,
            "visits": visits,
            "seconds_on_site": min(seconds, 100_000),
            "pages_per_visit": round(float(row["Page Views Per Visit"] or 0)),
        }
        touches[0]["supplies"] = {"need": {"fields": fields}, "evidence": {"need": "inferred"}}
    activity = OWN_ACTIVITIES.get(row["Last Activity"])
    if activity is not None:
        touches.append({"touch_id": "last-activity", "kind": activity, "at": now})
    return touches


async def add_touches(
    session: aiohttp.ClientSession, url: str, key: str, touches: Mapping[str, list[dict[str, Any]]]
) -> int:
    """Add the touches of each inquiry, in any order; return their number. Raises RuntimeError if one is not taken."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    slots = asyncio.Semaphore(AT_ONCE)

    async def add(inquiry: str, members: list[dict[str, Any]]) -> None:
        seeded(inquiry).shuffle(members)
        async with slots:
            answer, text = await post_until_answered(
                session, f"{url}/v1/inquiries/{inquiry}/touches", msgspec.json.encode({"touches": members}), headers
            )
        if answer.status != 201:
            raise RuntimeError(f"touches of {inquiry}: {answer.status} {text[:300].decode(errors='replace')}")

    sent = {inquiry: members for inquiry, members in touches.items() if members}
    await asyncio.gather(*(add(inquiry, members) for inquiry, members in sent.items()))
    return sum(len(members) for members in sent.values())


async def states_of(session: aiohttp.ClientSession, url: str, key: str, inquiries: Iterable[str]) -> dict[str, str]:
    """Return the state of each inquiry, once no lead is being routed, or after PATIENCE_SECONDS."""
    states: dict[str, str] = {}
    waiting = list(inquiries)
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while waiting and clock.monotonic() < deadline:
        for inquiry in waiting:
            states[inquiry] = (await find(session, url, key, inquiry)).state or ""
        waiting = [inquiry for inquiry in waiting if states[inquiry] in OPEN_STATES]
        await asyncio.sleep(0.2)
    return states


def groups_of(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return the group of each inquiry: ready at once, promoted by its touches, or not promoted."""
    groups = {}
    for inquiry, state in before.items():
        if state not in NOT_READY:
            groups[inquiry] = "ready at once"
        else:
            groups[inquiry] = "not promoted" if after.get(inquiry, state) in NOT_READY else "promoted"
    return groups


def difference(one: Figure, other: Figure) -> Figure:
    """Return the difference of two independent shares. Interval: Newcombe (1998), from those of the shares."""
    assert one.low is not None
    assert one.high is not None
    assert other.low is not None
    assert other.high is not None
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Figure(value=value, low=value - below, high=value + above)


def summarise(groups: Mapping[str, str], customers: set[str]) -> dict[str, Any]:
    """Return leads, customers and their share by group, and the difference between promoted and not promoted."""
    leads = Counter(groups.values())
    bought = Counter(group for inquiry, group in groups.items() if inquiry in customers)
    shares = {
        group: share(bought[group] / count, _variance(bought[group], count), count)
        for group, count in sorted(leads.items())
    }
    summary: dict[str, Any] = {
        group: {"leads": leads[group], "customers": bought[group], "share": msgspec.to_builtins(figure)}
        for group, figure in shares.items()
    }
    if {"promoted", "not promoted"} <= shares.keys():
        summary["difference"] = msgspec.to_builtins(difference(shares["promoted"], shares["not promoted"]))
    return summary


def _variance(count: int, leads: int) -> float:
    rate = count / leads
    return rate * (1 - rate) / leads


async def measure(
    plan: MappingPlan, drafts: Sequence[DraftRow], rows: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Send the inquiries, then the touches, and return the summary with the findings of verify."""
    now = clock.now()
    behaviours = {business.slug: business.behaviour for business in plan.businesses}
    assert plan.definition is not None
    with temporary_directory() as place:
        await empty(place)
        async with running(place, behaviours, None) as installation, open_session() as session:
            operator = OperatorClient(session, installation.url, installation.operator_key)
            made = await furnish(
                operator, place, {plan.vertical: plan.definition}, plan.businesses, expected_leads=len(drafts)
            )
            url, key = installation.url, made.provider_keys[0]
            replay, running_on = Replay(session, url, key), asyncio.Event()
            await replay.suppress(drafts)
            await replay.send([as_of_a_week_ago(draft, now) for draft in drafts], 0, running_on, lambda: None)
            await replay.settle(running_on)
            results = [result for result in replay.results(drafts) if result.status in (200, 202)]
            taken = {
                result.inquiry: result.id for result in results if result.outcome not in ("suppressed", "duplicate")
            }
            before = await states_of(session, url, key, taken)
            touches = await add_touches(
                session, url, key, {inquiry: touches_of(rows[row], clock.now()) for inquiry, row in taken.items()}
            )
            after = await states_of(session, url, key, [inquiry for inquiry in taken if before[inquiry] in NOT_READY])
            verification = await verify_at(installation.engines.database_url, installation.settings.master_key)
    customers = {inquiry for inquiry, row in taken.items() if float(rows[row][OUTCOME])}
    summary = summarise(groups_of(before, after), customers)
    return summary | {"touches": touches, "findings": verification.findings}


def lines_of(summary: Mapping[str, Any]) -> Iterable[str]:
    """Return the summary as lines for people."""
    yield f"{'':16}{'leads':>8}{'customers':>11}   share with its 95 % interval"
    for group in ("ready at once", "promoted", "not promoted"):
        if group in summary:
            row = summary[group]
            yield f"{group:16}{row['leads']:8,}{row['customers']:11,}   {_percent(row['share'])}"
    if "difference" in summary:
        yield f"Promoted leads less those not promoted: {_percent(summary['difference'])}, in points of a hundred."
    yield f"{summary['touches']:,} touches. Verify: {summary['findings']} findings."


def _percent(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--limit", type=int, help="only the first so many rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.file.exists():
        print(f"Skipped: the file of leads is not at {options.file}.")
        return
    plan = without_later(load_mapping(MAPPING))
    drafts = read_rows(options.file, plan, clock.now(), options.limit)
    with options.file.open(encoding=plan.encoding, newline="") as file:
        rows = {row[plan.id_column]: row for row in csv.DictReader(file)}
    summary = uvloop.run(measure(plan, drafts, rows))
    print("\n".join(lines_of(summary)))
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
