"""Checks of feeds, from the events on the readers' disks and the tables.

A feed tells each lead at one place, in order; what was exposed comes until it is acknowledged, and can be read again
for ever; what is acknowledged is paid for once, what is not, never.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from marketplace.runtime import clock, ids
from tests.harness.readers import Answered, FeedReader
from tests.harness.world import World

MARGIN: Final = timedelta(seconds=60)
"""How long before a look something may have been written that the look before it did not see."""
SHOWN: Final = frozenset({"exposed", "delivered"})
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)

ACKNOWLEDGED = """
select a.lead_id, a.state, a.evidence_until - a.exposed_at < interval '23 hours' as overdue,
       (select count(*) from transfer t where t.assignment_id = a.id and t.kind = 'capture') as captures
from assignment a where a.lead_id = any($1) and a.business_id = $2 and a.state <> 'released'"""
CHARGED = """
select a.lead_id, pg_xact_commit_timestamp(t.xmin) as committed_at
from assignment a join transfer t on t.assignment_id = a.id and t.kind = 'capture'
where a.business_id = $1 and a.settled_at >= $2"""
PLACES = """
select f.position, f.kind, a.lead_id, a.state, is_withdrawn(a.lead_id) as withdrawn
from feed_event f join assignment a on a.id = f.assignment_id
where f.business_id = $1 order by f.position"""


class Report(Protocol):
    """Callback that records a violation."""

    def __call__(self, check: str, detail: str, number: int | None = None, lead_id: str | None = None) -> None: ...


class FeedChecks:
    """The checks of all readers; what each examined is added to `checked`."""

    def __init__(self, world: World, checked: Counter[str], report: Report) -> None:
        self._world, self._checked, self._report = world, checked, report
        self._heard: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._charged_since = LONG_AGO

    def look_at_complaints(self) -> None:
        """Report the complaints of the readers, and count what they have examined."""
        readers = self._world.fed.values()
        for check in ("fed in order", "one lead at one place"):
            self._checked[check] = sum(len(reader.received) for reader in readers)
        self._checked["what was shown can be acknowledged"] = sum(len(reader.asked) for reader in readers)
        self._checked["only one's own is acknowledged"] = sum(reader.refused for reader in readers)
        self._checked["no internal error for readers"] = sum(sum(reader.statuses.values()) for reader in readers)
        for reader in readers:
            for complaint in reader.complaints[self._heard[reader.business] :]:
                self._report(complaint.check, complaint.detail, lead_id=complaint.lead_id)
            self._heard[reader.business] = len(reader.complaints)
            if reader.statuses[500]:
                self._report("no internal error for readers", f"{reader.business} was answered 500")

    async def look_at_money(self, *, whole: bool) -> None:
        """Acknowledged is charged once, and only that; of the charges the new ones, or the `whole` history."""
        since, began = LONG_AGO if whole else self._charged_since, clock.now()
        for business_id, reader in self._world.fed.items():
            new = reader.answered[0 if whole else self._judged[reader.business] :]
            await self._look_at_answers(_uuid(business_id), reader, new)
            self._judged[reader.business] += 0 if whole else len(new)
            for row in await self._world.values(CHARGED, _uuid(business_id), since):
                self._checked["charged for what was acknowledged"] += 1
                lead_id = ids.encode("lead", row["lead_id"])
                asked_at = reader.asked.get(lead_id)
                if asked_at is None or asked_at > row["committed_at"]:
                    detail = f"{reader.business} was charged {row['committed_at']}, acknowledged: {asked_at}"
                    self._report("charged for what was acknowledged", detail, lead_id=lead_id)
        self._charged_since = began - MARGIN

    async def _look_at_answers(self, business_id: UUID, reader: FeedReader, answers: list[Answered]) -> None:
        """Delivered with one charge; or lapsed with none, where its time was over."""
        rows = {
            row["lead_id"]: row
            for row in await self._world.values(ACKNOWLEDGED, [_uuid(one.lead_id) for one in answers], business_id)
        }
        for one in answers:
            self._checked["acknowledged is charged once"] += 1
            row = rows.get(_uuid(one.lead_id))
            stands = None if row is None else (row["state"], row["captures"])
            lapsed = row is not None and stands == ("lapsed", 0) and row["overdue"] and one.receipt != "acknowledged"
            if stands != ("delivered", 1) and not lapsed:
                detail = f"answered {one.receipt or 200} to {reader.business}, state and charges are {stands}"
                self._report("acknowledged is charged once", detail, lead_id=one.lead_id)

    async def look_at_feeds(self) -> None:
        """Check at rest that the table, the reader and a reading from the beginning have the same events."""
        for business_id, reader in self._world.fed.items():
            rows = await self._world.values(PLACES, _uuid(business_id))
            received = dict(reader.received)
            repeated = await reader.read_again()
            positions = [row["position"] for row in rows]
            self._checked["a feed has no holes"] += len(rows)
            if positions != list(range(1, len(rows) + 1)):
                self._report("a feed has no holes", f"{len(rows)} places of {reader.business}, up to {positions[-1]}")
            for row in rows:
                place = row["position"]
                words = f"place {place} of {reader.business}, {row['state']}"
                lead_id = ids.encode("lead", row["lead_id"])
                if row["withdrawn"]:
                    self._look_at_withdrawn(words, row["kind"], lead_id, repeated.get(place))
                    continue
                self._compare(words, row["state"], lead_id, received.get(place), repeated.get(place))
            for place in received.keys() - set(positions):
                detail = f"{reader.business} has read place {place}, which is not there"
                self._report("one lead at one place", detail, lead_id=received[place])

    def _look_at_withdrawn(self, words: str, kind: str, lead_id: str, repeated: str | None) -> None:
        """Check that the contact of a person who revoked consent is not sent again."""
        if kind != "lead.assigned":
            return
        self._checked["withdrawn is not told again"] += 1
        if repeated is not None:
            self._report("withdrawn is not told again", f"{words}: {repeated}", lead_id=lead_id)

    def _compare(self, words: str, state: str, lead_id: str, received: str | None, repeated: str | None) -> None:
        """Check the event of one place: received by its reader, and sent again."""
        exposed, released = state in SHOWN, state == "released"
        for check, matters, value, wrong in (
            ("exposed is read in the end", exposed, received, received != lead_id),
            ("exposed is told again", exposed, repeated, repeated != lead_id),
            (
                "released is told to nobody",
                released,
                received or repeated,
                received is not None or repeated is not None,
            ),
        ):
            self._checked[check] += matters
            if matters and wrong:
                self._report(check, f"{words}: {value}", lead_id=lead_id)


def _uuid(public_id: str) -> UUID:
    decoded = ids.decode(public_id.partition("_")[0], public_id)
    assert decoded is not None, public_id
    return decoded
