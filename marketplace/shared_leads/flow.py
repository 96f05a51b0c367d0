"""Imports of shared leads, from a file or one by one. A stored lead never changes.

The same lead with other contents is a conflict, which is reported and changes nothing. To store the new contents, undo
the import that has the old ones.
"""

import asyncio
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.imports import store as imports_store
from marketplace.imports.questions import open_faults
from marketplace.imports.store import Import, RowJudgement
from marketplace.imports.table import Table
from marketplace.imports.wire import ImportSubject, RowOutcome, RowRefusal
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.shared_leads import store as shared_leads_store
from marketplace.shared_leads.csv_import import SharedLeadReader, SharedLeadRow, SharedLeadRowFault, subscription_fault
from marketplace.shared_leads.store import Buyer, NewSharedImport, SharedLead
from marketplace.shared_leads.wire import SharedImport, SharedLeadBody, SharedLeadMapping
from marketplace.text.faults import BoundedList, Fault

FIELD_NAMES = {"won_minor": "won value", "cost_minor": "cost"}


class SharedFile:
    """One file of shared leads, read by one mapping for one business."""

    def __init__(self, reader: SharedLeadReader, buyer: Buyer, business_id: UUID, verticals: Map[str, UUID]) -> None:
        self.reader, self.buyer, self.table, self.mapping = reader, buyer, reader.table, reader.mapping
        self.names: Map[str, str] = {str(field): name for field, name in reader.mapping.columns.items()}
        self.read, self.open_questions = reader.read, reader.open_questions
        self.won_refused = 0
        self._business_id, self._verticals = business_id, dict(verticals)
        self._seen: dict[tuple[str, str], bytes] = {}

    def check_complete(self) -> None:
        """Check that the mapping is complete. Raises InvalidInput for what the rows leave undecided."""
        if faults := open_faults(self.reader.open_questions):
            raise errors.InvalidInput(faults)

    async def judge(
        self, connection: Connection, rows: Sequence[SharedLeadRow | SharedLeadRowFault]
    ) -> list[RowJudgement]:
        """Return what an import would do with the rows. Earlier rows of this file count as stored."""
        understood = [row for row in rows if isinstance(row, SharedLeadRow)]
        earlier = await shared_leads_store.list_known(connection, self._business_id, [_key(row) for row in understood])
        judged = []
        for row in rows:
            if isinstance(row, SharedLeadRowFault):
                self.won_refused += row.won
                judged.append(_refused(row))
                continue
            key = _key(row)
            if key in earlier:
                judged.append(_compared(row, earlier[key]))
            elif key in self._seen:
                judged.append(_compared(row, msgspec.msgpack.decode(self._seen[key], type=SharedLeadRow)))
            else:
                self._seen[key] = msgspec.msgpack.encode(row)
                judged.append(_judged(row, RowOutcome.taken))
        return judged

    async def keep(
        self, connection: Connection, import_: Import, rows: Sequence[SharedLeadRow | SharedLeadRowFault]
    ) -> list[RowJudgement]:
        """Store the new leads of the rows as one part of the import."""
        understood = [row for row in rows if isinstance(row, SharedLeadRow)]
        new = NewSharedImport(
            id=clock.new_id(),
            business_id=self._business_id,
            source="csv",
            refused=len(rows) - len(understood),
            currency=self.buyer.currency,
            at=import_.made_at,
            file_import_id=import_.id,
        )
        results = iter(await keep_leads(connection, new, understood, self._verticals))
        return [_refused(row) if isinstance(row, SharedLeadRowFault) else next(results) for row in rows]


class SharedLeads:
    """Importer of shared leads."""

    async def open(self, pool: Pool, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes) -> SharedFile:
        """Open a file. Raises NotFound for an unknown business, InvalidInput for a mapping that does not fit.

        Also raises what Table raises for a file that cannot be read.
        """
        async with session(pool) as connection:
            buyer = await _buyer(connection, business_id)
            verticals = await shared_leads_store.list_verticals(connection)
        stated, now = msgspec.json.decode(mapping, type=SharedLeadMapping) if mapping else None, clock.now()

        def read() -> SharedLeadReader:
            return SharedLeadReader(Table(raw), stated, buyer.zone, buyer.currency, frozenset(verticals), now)

        return SharedFile(await asyncio.to_thread(read), buyer, business_id, verticals)

    async def undo(self, connection: Connection, import_: Import, most: int) -> int | None:
        """Undo one part of the import, which has at most `most` rows; return the leads it had, None without a part."""
        return await shared_leads_store.undo_part(connection, import_.id, import_.business_id, clock.now())


async def keep_leads(
    connection: Connection, new: NewSharedImport, rows: Sequence[SharedLeadRow], verticals: Map[str, UUID]
) -> list[RowJudgement]:
    """Store the new leads and return the outcome of each row. Of two rows with the same id, the first is stored."""
    firsts: dict[tuple[str, str], SharedLeadRow] = {}
    for row in rows:
        firsts.setdefault(_key(row), row)
    lead_ids = {key: clock.new_id() for key in firsts}
    added = (
        await shared_leads_store.insert_leads(
            connection, new, tuple(firsts.values()), tuple(lead_ids.values()), dict(verticals)
        )
        if rows
        else set()
    )
    present = [key for key, lead_id in lead_ids.items() if lead_id not in added]
    earlier = await shared_leads_store.list_known(connection, new.business_id, present) if present else {}
    judged = []
    for row in rows:
        key = _key(row)
        if row is firsts[key] and lead_ids[key] in added:
            judged.append(_judged(row, RowOutcome.taken))
        else:
            judged.append(_compared(row, earlier.get(key, firsts[key])))
    return judged


class LeadContext(msgspec.Struct, frozen=True, kw_only=True):
    """Values that leads sent one by one are checked against: the buyer, all verticals, and the time."""

    buyer: Buyer
    verticals: Map[str, UUID]
    now: datetime


async def load_context(pool: Pool, business_id: UUID) -> LeadContext:
    """Load what leads sent one by one are checked against. Raises NotFound for an unknown business."""
    async with session(pool) as connection:
        buyer = await _buyer(connection, business_id)
        return LeadContext(buyer=buyer, verticals=await shared_leads_store.list_verticals(connection), now=clock.now())


def lead_faults(context: LeadContext, leads: Sequence[SharedLeadBody]) -> Iterator[Fault]:
    """Yield what is wrong with the content of leads that are sent one by one."""
    for at, lead in enumerate(leads):
        if lead.currency != context.buyer.currency:
            detail = f"Send amounts in {context.buyer.currency}, the wallet's currency, in which leads are compared."
            yield Fault(pointer=f"/leads/{at}/currency", code="currency_differs", detail=detail)
        if lead.vertical is not None and lead.vertical not in context.verticals:
            detail = "There is no such vertical; leave it out or name one."
            yield Fault(pointer=f"/leads/{at}/vertical", code="vertical_unknown", detail=detail)
        if fault := subscription_fault(_row(at, lead), context.now):
            pointer = fault.pointer.replace("won_value", "won_minor")
            yield Fault(pointer=f"/leads/{at}{pointer}", code=fault.code, detail=fault.detail)


async def add_leads(
    pool: Pool, actor: str, business_id: UUID, context: LeadContext, leads: Sequence[SharedLeadBody]
) -> SharedImport:
    """Store leads sent one by one: all, or none if any has a fault. Raises InvalidInput."""
    faults = BoundedList(lead_faults(context, leads))
    if len(faults):
        raise errors.InvalidInput(faults)
    rows = [_row(at, lead) for at, lead in enumerate(leads)]
    return await _keep_call(pool, actor, business_id, context.buyer, rows, context.verticals)


def _row(at: int, lead: SharedLeadBody) -> SharedLeadRow:
    return SharedLeadRow(
        number=at + 1,
        vendor=lead.vendor,
        external_id=lead.external_id,
        vertical=lead.vertical,
        postal_code=lead.postal_code,
        received_at=lead.received_at,
        cost_minor=lead.cost_minor,
        contacted_at=lead.contacted_at,
        qualified=lead.qualified,
        won_at=lead.won_at,
        won_minor=lead.won_minor,
        lost_at=lead.lost_at,
        lost=lead.lost and lead.lost_at is None,
    )


async def _keep_call(
    pool: Pool, actor: str, business_id: UUID, buyer: Buyer, rows: Sequence[SharedLeadRow], verticals: Map[str, UUID]
) -> SharedImport:
    import_id, now = clock.new_id(), clock.now()
    new = NewSharedImport(
        id=clock.new_id(),
        business_id=business_id,
        source="api",
        refused=0,
        currency=buyer.currency,
        at=now,
        file_import_id=import_id,
    )
    async with transaction(pool) as connection:
        judged = await keep_leads(connection, new, rows, verticals)
        counts = [sum(row.outcome is outcome for row in judged) for outcome in RowOutcome]
        taken, unchanged, conflicts = counts[:3]
        await imports_store.insert_done(
            connection, import_id, business_id, ImportSubject.shared_leads, actor, (taken, unchanged, conflicts), now
        )
        await audit.record(
            connection,
            now,
            actor,
            "shared_leads.import",
            ids.encode("biz", business_id),
            added=taken,
            known=unchanged,
            conflicts=conflicts,
        )
    conflict_rows = tuple(
        RowRefusal(row=row.number, column=None, code=row.code or "", detail=row.detail or "")
        for row in judged
        if row.outcome is RowOutcome.conflict
    )
    return SharedImport(
        id=ids.encode("imp", import_id),
        state="done",
        rows=len(rows),
        position=len(rows),
        added=taken,
        known=unchanged,
        conflict_count=conflicts,
        refused_count=0,
        conflicts=conflict_rows,
        refused=(),
    )


def _key(row: SharedLeadRow) -> tuple[str, str]:
    return row.vendor, row.external_id


def _judged(row: SharedLeadRow, outcome: RowOutcome) -> RowJudgement:
    return RowJudgement(number=row.number, outcome=outcome, label=row.external_id)


def _refused(row: SharedLeadRowFault) -> RowJudgement:
    return RowJudgement(
        number=row.number,
        outcome=RowOutcome.refused,
        label=row.label,
        field=row.fault.field,
        code=row.fault.code,
        detail=row.fault.detail,
    )


def _compared(row: SharedLeadRow, earlier: SharedLead | SharedLeadRow) -> RowJudgement:
    """Compare a row with the stored lead of the same id: unchanged, or a conflict that names what differs."""
    names = [name for name in shared_leads_store.CONTENTS if getattr(row, name) != getattr(earlier, name)]
    if not names:
        return _judged(row, RowOutcome.repeated)
    what = ", ".join(FIELD_NAMES.get(name, name.replace("_", " ")) for name in names)
    detail = (
        f"A lead with this vendor and number is stored with another {what}. It was not changed: check the numbers, or "
        "undo the import that has it and import this file again."
    )
    return RowJudgement(
        number=row.number,
        outcome=RowOutcome.conflict,
        label=row.external_id,
        field="external_id",
        code="same_id_other_contents",
        detail=detail,
    )


async def _buyer(connection: Connection, business_id: UUID) -> Buyer:
    buyer = await shared_leads_store.find_buyer(connection, business_id)
    if buyer is None:
        raise errors.NotFound("There is no such business.")
    return buyer
