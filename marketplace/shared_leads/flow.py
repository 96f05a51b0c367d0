"""Reading a file of shared leads, and keeping what is good in it: one transaction for all of it, with its audit row."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from marketplace import audit, clock, errors, ids
from marketplace.db import Connection, Pool, session, transaction
from marketplace.faults import Fault
from marketplace.shared_leads import csv_import, store
from marketplace.shared_leads.csv_import import File, SharedRow, order_fault
from marketplace.shared_leads.store import Buyer, Counted, NewImport
from marketplace.shared_leads.wire import Mapping, RefusedRow, SharedImport, SharedLeadBody


async def read_file(pool: Pool, business_id: UUID, raw: bytes, mapping: Mapping | None) -> tuple[File, Buyer]:
    """The file as this business means it; nothing is kept. Raises NotFound, and what csv_import.read_file raises."""
    async with session(pool) as connection:
        buyer = await _buyer(connection, business_id)
        verticals = frozenset(await store.list_verticals(connection))
    found = csv_import.read_file(raw, mapping, buyer.zone, buyer.currency, verticals, clock.now())
    return found, buyer


async def import_file(pool: Pool, actor: str, business_id: UUID, raw: bytes, mapping: Mapping | None) -> SharedImport:
    """Keeps the good rows of a file and gives the bad ones back. Sent again, every lead is known."""
    found, buyer = await read_file(pool, business_id, raw, mapping)
    return await _keep(pool, actor, business_id, buyer, "csv", found.good, found.refused)


async def add_leads(pool: Pool, actor: str, business_id: UUID, leads: Sequence[SharedLeadBody]) -> SharedImport:
    """Keeps leads sent one by one: all, or none where any has a fault. Raises NotFound, InvalidInput."""
    now, faults, rows = clock.now(), [], []
    async with session(pool) as connection:
        buyer = await _buyer(connection, business_id)
        verticals = await store.list_verticals(connection)
    for at, lead in enumerate(leads):
        row = SharedRow(
            number=at, vendor=lead.vendor, external_id=lead.external_id, vertical=lead.vertical,
            postal_code=lead.postal_code, received_at=lead.received_at, cost_minor=lead.cost_minor,
            contacted_at=lead.contacted_at, qualified=lead.qualified, won_at=lead.won_at, won_minor=lead.won_minor,
            lost_at=lead.lost_at,
        )  # fmt: skip
        rows.append(row)
        if lead.currency != buyer.currency:
            detail = f"Send amounts in {buyer.currency}, the wallet's currency, in which all is compared."
            faults.append(Fault(pointer=f"/leads/{at}/currency", code="currency_differs", detail=detail))
        if lead.vertical is not None and lead.vertical not in verticals:
            detail = "There is no such vertical; leave it out or name one."
            faults.append(Fault(pointer=f"/leads/{at}/vertical", code="vertical_unknown", detail=detail))
        if fault := order_fault(row, now):
            pointer = fault.pointer.replace("won_value", "won_minor")
            faults.append(Fault(pointer=f"/leads/{at}{pointer}", code=fault.code, detail=fault.detail))
    if faults:
        raise errors.InvalidInput(faults[:100])
    return await _keep(pool, actor, business_id, buyer, "api", rows, ())


async def _keep(
    pool: Pool, actor: str, business_id: UUID, buyer: Buyer, source: Literal["csv", "api"],
    rows: Sequence[SharedRow], refused: Sequence[RefusedRow],
) -> SharedImport:  # fmt: skip
    new = NewImport(
        id=clock.new_id(), business_id=business_id, source=source, refused=len(refused), currency=buyer.currency,
        at=clock.now(),
    )  # fmt: skip
    lead_ids = [clock.new_id() for _ in rows]
    async with transaction(pool) as connection:
        verticals = await store.list_verticals(connection)
        counted: Counted = await store.insert_leads(connection, new, rows, lead_ids, verticals)
        await audit.record(
            connection, new.at, actor, "shared_leads.import", ids.encode("biz", business_id), added=counted.added,
            known=counted.known, refused=len(refused),
        )  # fmt: skip
    return SharedImport(id=ids.encode("imp", new.id), added=counted.added, known=counted.known, refused=tuple(refused))


async def _buyer(connection: Connection, business_id: UUID) -> Buyer:
    buyer = await store.find_buyer(connection, business_id)
    if buyer is None:
        raise errors.NotFound("There is no such business.")
    return buyer
