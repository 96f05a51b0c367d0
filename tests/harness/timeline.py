"""One lead's whole story from all histories side by side: providers, receivers, tables, logs and faults, by time."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from marketplace.runtime import ids
from tests.harness.checker import Violation
from tests.harness.histories import read_about
from tests.harness.kinds_of_faults import AWAY
from tests.harness.schedule import Fault
from tests.harness.traffic import Traffic
from tests.harness.world import World

AROUND: Final = timedelta(seconds=2)
MOST_CHARACTERS: Final = 220
QUERIES: Final = (
    ("lead", "received_at", "select id, state, reason, due_at, received_at, qualified_at, settled_at from lead"
     " where id = $1"),
    ("assignment", "awarded_at", "select id, business_id, state, reason, attempts, due_at, awarded_at, exposed_at,"
     " settled_at from assignment where lead_id = $1"),
    ("exposure", "exposed_at", "select assignment_id, business_id, attempt_no, exposed_at,"
     " pg_xact_commit_timestamp(xmin) as committed_at from exposure where lead_id = $1"),
    ("attempt", "started_at", "select assignment_id, attempt_no, outcome, reason, status, total_ms, started_at"
     " from attempt where lead_id = $1"),
    ("decision", "made_at", "select id, outcome, reason, assignment_id, made_at from decision where lead_id = $1"),
    ("transfer", "made_at", "select t.kind, t.amount_minor, t.assignment_id, t.made_at from transfer t"
     " join assignment a on a.id = t.assignment_id where a.lead_id = $1"),
)  # fmt: skip

Line = tuple[datetime, str, str]


async def tell(violation: Violation, world: World, traffic: Traffic, faults: list[Fault]) -> list[str]:
    """Lines of the story, oldest first; what cannot be read any more is left out."""
    lines: list[Line] = []
    leads = _leads(violation, world, traffic)
    number = violation.number
    if number is None and leads:
        number = next((s.number for s in world.sightings if s.lead_id in leads), None)
    if number is not None:
        for path in (traffic.history.path, world.visits.path):
            lines += [_told(event) for event in read_about(path, number)]
    for lead in leads:
        lead_id = ids.decode("lead", lead)
        assert lead_id is not None, lead
        lines += await _rows(world, lead_id)
        lines += _logged(world, lead_id)
    if lines:
        began, ended = min(lines)[0] - AROUND, max(lines)[0] + AROUND
        lines += [
            (fault.began, "fault", f"{fault.kind} until {fault.ended:%H:%M:%S.%f}")
            for fault in faults
            if fault.ended is not None and fault.began <= ended and fault.ended >= began
        ]
    return [f"{at:%H:%M:%S.%f}  {who:<12} {what}" for at, who, what in sorted(lines)]


def _leads(violation: Violation, world: World, traffic: Traffic) -> set[str]:
    leads = set()
    if violation.lead_id:
        lead_id = violation.lead_id
        leads.add(lead_id if lead_id.startswith("lead_") else ids.encode("lead", UUID(lead_id)))
    if violation.number is not None:
        leads |= {
            sighting.lead_id for sighting in world.sightings if sighting.number == violation.number and sighting.lead_id
        }
        keys = [key for key, number in traffic.numbers.items() if number == violation.number]
        leads |= {traffic.acknowledged[key].lead_id for key in keys if key in traffic.acknowledged}
    return leads


def _told(event: dict[str, Any]) -> Line:
    details = {name: value for name, value in event.items() if name not in ("at", "who", "what", "text")}
    words = " ".join(f"{name}={value}" for name, value in details.items())
    return datetime.fromisoformat(event["at"]), event["who"], f"{event['what']} {words}"


async def _rows(world: World, lead_id: UUID) -> list[Line]:
    lines = []
    for name, time, sql in QUERIES:
        try:
            rows = await world.values(sql, lead_id)
        except AWAY:
            continue
        for row in rows:
            words = " ".join(f"{column}={value}" for column, value in dict(row).items() if value is not None)
            lines.append((row[time], name, words))
    return lines


def _logged(world: World, lead_id: UUID) -> list[Line]:
    lines = []
    marks = (str(lead_id).encode(), ids.encode("lead", lead_id).encode())
    for path in world.directory.glob("logs/*.log"):
        with path.open("rb") as file:
            for line in file:
                if any(mark in line for mark in marks) and line.startswith(b"{"):
                    content = msgspec.json.decode(line, type=dict[str, Any])
                    at = datetime.fromisoformat(content.pop("timestamp")).astimezone(UTC)
                    lines.append((at, path.stem, " ".join(f"{k}={v}" for k, v in content.items())[:MOST_CHARACTERS]))
    return lines
