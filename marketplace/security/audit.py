"""Who changed what, and when: one row per change, written in the change's own transaction, never altered afterwards.

No row holds contact data or a secret: `detail` names versions, states and amounts. The moves of leads are recorded by
the database itself, in `move`. A sealer digests all of these, every exposure and every transfer into blocks, each
sealed together with the one before it under a key that the database never sees. So whoever can rewrite the whole
database cannot do it unnoticed: `verify` names each row that is not what was sealed. The head of the chain, kept
elsewhere, shows besides that its end was not cut off.
"""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from marketplace.database.background import keep_passing
from marketplace.database.db import Connection, Pool, Queries, transaction
from marketplace.runtime import clock
from marketplace.runtime.log import logger
from marketplace.security.sealing import derived_key

SQL = Queries(__file__, "audit.sql")
log = logger("audit")

COMMAND_LINE = "command line"
"The actor of what an operator does on the machine itself, where no key is involved."

SEAL_SECONDS: Final = 1.0
"How long a row waits for its seal, about: a receipt can be given so long after the lead was shown."
BLOCK_ROWS: Final = 10_000
"Of one block, unless one transaction wrote more: 490 kB, digested in a fraction of a second."
SEALING_SECONDS: Final = 60.0
"For one block, however large the transaction that it holds."
HEAD_SECONDS: Final = 3600.0
"How often the head goes into the log, which is kept where the database's keeper is not: a cut-off end shows there."
UNSEALED_AFTER: Final = timedelta(seconds=60)
"A row that waits longer for its seal is a finding: no sealer is at work, or somebody keeps it from its work."

PLACE_BYTES: Final = 17
ENTRY_BYTES: Final = PLACE_BYTES + 32
TABLES: Final = {ord("a"): "audit", ord("e"): "exposure", ord("m"): "move", ord("t"): "transfer"}
"The first byte of a place; the other sixteen are the row's id (of an exposure the lead's, of a move its position)."
GENESIS: Final = bytes(32)
"What the first block has in place of a seal before it."

BATCH_ROWS: Final = 20_000
BATCH_BLOCKS: Final = 2_000
"Compared with the tables at once: a megabyte, whatever the size of the blocks."
MOST_FINDINGS: Final = 1_000
"Named one by one; what is found beyond them is counted."
STATEMENT_SECONDS: Final = 65.0


async def record(
    connection: Connection, now: datetime, actor: str, action: str, subject: str, **detail: str | int | bool | None
) -> None:
    """`actor` (a key's public id) did `action` (`subscription.pause`) to `subject` (`sub_…`)."""
    await connection.execute(
        SQL["insert_audit"], clock.new_id(), now, actor, action, subject, msgspec.json.encode(detail)
    )


# Sealing.


class AuditBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Every row of the transactions from `xid_from` up to and without `xid_to`, sealed onto the block before."""

    number: int
    previous: bytes
    xid_from: int
    xid_to: int
    entries: bytes
    sealed_at: datetime
    seal: bytes = b""

    def places(self) -> dict[bytes, tuple[int, bytes]]:
        """Each row's place with its position in the block, from 1, and its digest."""
        return {entry[:PLACE_BYTES]: (at, entry[PLACE_BYTES:]) for at, entry in enumerate(_split(self.entries), 1)}


def seal_key(master_key: bytes) -> bytes:
    """The key of all seals; it never enters the database."""
    return derived_key(master_key, "audit-seal")


def seal_of(key: bytes, block: AuditBlock) -> bytes:
    """HMAC-SHA-256 over everything in the block, the seal before it included."""
    micros = (block.sealed_at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    numbers = (block.number, block.xid_from, block.xid_to, micros, len(block.entries))
    head = b"audit-block:1" + block.previous + b"".join(number.to_bytes(8) for number in numbers)
    return hmac.digest(key, head + block.entries, "sha256")


async def keep_sealing(pool: Pool, key: bytes, stopping: asyncio.Event) -> None:
    """Seals what was written until `stopping`, within the budget of background passes; no writer waits for it."""
    logged_at = -HEAD_SECONDS

    async def seal_next() -> None:
        nonlocal logged_at
        block = await seal(pool, key)
        if block is not None and clock.monotonic() - logged_at > HEAD_SECONDS:
            log.info("audit_head", count=block.number, id=block.seal.hex())
            logged_at = clock.monotonic()

    await keep_passing(pool, "audit_seal", seal_next, stopping, every=SEAL_SECONDS)


async def seal(pool: Pool, key: bytes) -> AuditBlock | None:
    """One block of what no transaction can add to any more; None when there was nothing to seal or another is at it."""
    async with transaction(pool) as connection:
        if not await connection.fetchval(SQL["take_turn"]):
            return None
        end = await connection.fetchrow(SQL["find_end"])
        xid_from, xid_to = end["xid_to"], end["settled"]
        cut = await connection.fetchval(SQL["find_cut"], xid_from, xid_to, BLOCK_ROWS)
        if cut is not None:
            first = await connection.fetchval(SQL["find_cut"], xid_from, xid_to, 0)
            xid_to = max(cut, first + 1)
        entries = await connection.fetchval(SQL["digest_entries"], xid_from, xid_to, timeout=SEALING_SECONDS)
        if entries is None:
            return None
        block = AuditBlock(
            number=end["number"] + 1, previous=end["seal"] or GENESIS, xid_from=xid_from, xid_to=xid_to,
            entries=entries, sealed_at=clock.now(),
        )  # fmt: skip
        sealed = msgspec.structs.replace(block, seal=seal_of(key, block))
        await connection.execute(SQL["insert_block"], *msgspec.structs.astuple(sealed))
        return sealed


# Verifying.


class ChainFault(StrEnum):
    """What can be wrong with the chain or with what it holds."""

    head_missing = "head_missing"
    """No block has the head that was kept elsewhere: the end of the chain was cut off or replaced."""
    block_missing = "block_missing"
    """A block is not there."""
    block_changed = "block_changed"
    """A block is not what was sealed, or does not follow the one before it."""
    row_changed = "row_changed"
    """A row is not what was sealed."""
    row_deleted = "row_deleted"
    """A sealed row is not there."""
    row_reordered = "row_reordered"
    """A row was moved to another transaction than the one that wrote it."""
    row_inserted_late = "row_inserted_late"
    """A row claims a transaction that had been sealed without it."""
    row_unsealed = "row_unsealed"
    """A row has waited too long for its seal: no worker is running, or a transaction has been open for too long."""
    move_unrecorded = "move_unrecorded"
    """A lead or an assignment is not where its recorded moves lead."""


class ChainFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault and exactly where: a block, or a row with its table, its id and its position in its block, from 1."""

    fault: ChainFault
    block: int | None = None
    position: int | None = None
    table: str | None = None
    id: str | None = None


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain holds and what is wrong with it; `head` is the last seal, to be kept elsewhere."""

    blocks: int
    rows: int
    findings: int
    head: str | None
    head_block: int
    seconds: float
    named: tuple[ChainFinding, ...]


async def verify(connection: Connection, key: bytes, head: str | None = None) -> ChainReport:
    """Every seal and every row recomputed, on one snapshot of a live system; memory is bounded by a batch.

    `head` is a seal that was noted earlier and must still be in the chain. `connection` must be outside a transaction
    and its login a member of marketplace_reports. Raises asyncpg's errors.
    """
    began = clock.monotonic()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchrow(SQL["prepare_snapshot"])
        walk = _ChainWalk(connection, key, head)
        async for row in connection.cursor(SQL["list_blocks"], prefetch=50):
            await walk.take(msgspec.convert(dict(row), AuditBlock))
        await walk.finish()
    return ChainReport(
        blocks=walk.blocks,
        rows=walk.rows,
        findings=walk.found + len(walk.named),
        head=walk.last.seal.hex() if walk.blocks else None,
        head_block=walk.last.number,
        seconds=round(clock.monotonic() - began, 3),
        named=walk.named,
    )


class _ChainWalk:
    """Goes along the chain once, block by block, and compares with the tables batch by batch."""

    def __init__(self, connection: Connection, key: bytes, head: str | None) -> None:
        self.connection = connection
        self.key = key
        self.head = head
        self.blocks = self.rows = self.found = 0
        self.last = AuditBlock(
            number=0, previous=b"", xid_from=0, xid_to=0, entries=b"", sealed_at=clock.now(), seal=GENESIS
        )
        self._last_holds = True
        self._batch: list[AuditBlock] = []
        self._waiting = 0
        self._findings: list[ChainFinding] = []
        self._moved: set[tuple[str | None, str | None]] = set()

    @property
    def named(self) -> tuple[ChainFinding, ...]:
        """A row that was moved is missing in one place and too many in another: it is named once."""
        late = ChainFault.row_inserted_late
        return tuple(one for one in self._findings if one.fault is not late or (one.table, one.id) not in self._moved)

    async def take(self, block: AuditBlock) -> None:
        """The next block: its seal and its link now, its rows when a batch is full."""
        for number in range(self.last.number + 1, block.number):
            self._name(ChainFinding(fault=ChainFault.block_missing, block=number))
        follows = block.number == self.last.number + 1
        linked = (block.previous, block.xid_from) == (self.last.seal, self.last.xid_to)
        holds = hmac.compare_digest(block.seal, seal_of(self.key, block))
        if not holds or (follows and self._last_holds and not linked):
            self._name(ChainFinding(fault=ChainFault.block_changed, block=block.number))
        if not linked or not holds:
            await self._compare()
        if len(block.entries) % ENTRY_BYTES == 0:
            self._batch.append(block)
        self.last, self._last_holds = block, holds
        self.blocks += 1
        self.rows += len(block.entries) // ENTRY_BYTES
        if block.seal.hex() == self.head:
            self.head = None
        self._waiting += len(block.entries)
        if not holds or self._waiting >= BATCH_ROWS * ENTRY_BYTES or len(self._batch) >= BATCH_BLOCKS:
            await self._compare()

    async def finish(self) -> None:
        """What is left of the last batch, and everything that only the end can tell."""
        await self._compare()
        if self.head is not None:
            self._name(ChainFinding(fault=ChainFault.head_missing))
        for row in await self._fetch("list_unsealed", self.last.xid_to, UNSEALED_AFTER, MOST_FINDINGS):
            self._name(_of_row(ChainFault.row_unsealed, row["place"]))
        for row in await self._fetch("list_unrecorded", MOST_FINDINGS):
            self._name(ChainFinding(fault=ChainFault.move_unrecorded, table=row["table"], id=row["id"]))

    async def _compare(self) -> None:
        """The rows of all blocks of the batch at once; block by block only where something differs."""
        batch, self._batch, self._waiting = self._batch, [], 0
        if not batch:
            return
        sealed = b"".join(block.entries for block in batch)
        if len(batch) > 1 and await self._digest(batch[0].xid_from, batch[-1].xid_to) == sealed:
            return
        for block in batch:
            found = await self._digest(block.xid_from, block.xid_to)
            if found != block.entries:
                await self._name_rows(block, found)

    async def _name_rows(self, block: AuditBlock, entries: bytes) -> None:
        """Each row that differs between a block and the tables."""
        sealed, found = block.places(), msgspec.structs.replace(block, entries=entries).places()
        here = await self._places([place for place in sealed if place not in found])
        order = {place: at for at, place in enumerate(place for place in found if place in sealed)}
        before = {place: at for at, place in enumerate(place for place in sealed if place in found)}
        for place, (position, digest) in sealed.items():
            if place not in found:
                fault = ChainFault.row_reordered if place in here else ChainFault.row_deleted
            elif found[place][1] == digest:
                continue
            else:
                fault = ChainFault.row_changed if order[place] == before[place] else ChainFault.row_reordered
            self._name(_of_row(fault, place, block.number, position))
        for place, (position, _digest) in found.items():
            if place not in sealed:
                self._name(_of_row(ChainFault.row_inserted_late, place, block.number, position))

    async def _digest(self, xid_from: int, xid_to: int) -> bytes:
        entries: bytes | None = await self.connection.fetchval(
            SQL["digest_entries"], xid_from, xid_to, timeout=STATEMENT_SECONDS
        )
        return entries or b""

    async def _places(self, places: Sequence[bytes]) -> frozenset[bytes]:
        """Those of `places` whose rows are in the tables."""
        if not places:
            return frozenset()
        positions = [int.from_bytes(place[1:]) for place in places if TABLES.get(place[0]) == "move"]
        row_ids = [UUID(bytes=place[1:]) for place in places]
        rows = await self._fetch("list_places", row_ids, [one for one in positions if one < 2**63])
        return frozenset(row["place"] for row in rows)

    async def _fetch(self, name: str, *values: object) -> list[Any]:
        rows: list[Any] = await self.connection.fetch(SQL[name], *values, timeout=STATEMENT_SECONDS)
        return rows

    def _name(self, finding: ChainFinding) -> None:
        if finding.fault is ChainFault.row_reordered:
            self._moved.add((finding.table, finding.id))
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(finding)
        else:
            self.found += 1


def _of_row(fault: ChainFault, place: bytes, block: int | None = None, position: int | None = None) -> ChainFinding:
    table = TABLES.get(place[0], "unknown")
    row_id = str(int.from_bytes(place[1:]) if table == "move" else UUID(bytes=place[1:]))
    return ChainFinding(fault=fault, block=block, position=position, table=table, id=row_id)


def _split(entries: bytes) -> Iterator[bytes]:
    return (entries[at : at + ENTRY_BYTES] for at in range(0, len(entries), ENTRY_BYTES))
