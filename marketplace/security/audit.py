"""Audit log: one row per change, written in the transaction of the change and never altered, sealed into a hash chain.

No row holds contact data or a secret: `detail` names versions, states and amounts. The database itself records state
changes of leads in the table `move`. A background pass digests the rows of audit, exposure, move and transfer into
blocks. Each block is sealed by an HMAC together with the seal before it, under a key that never enters the database, so
that changes by someone who can rewrite the whole database are detected: `verify` names each row that differs from what
was sealed. A copy of the last seal (the head) kept elsewhere also shows whether the end of the chain was cut off.
"""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.background import keep_passing
from marketplace.database.db import Connection, Pool, Queries, convert_row, load_record, transaction
from marketplace.runtime import clock
from marketplace.runtime.log import logger
from marketplace.security.sealing import derived_key

SQL = Queries(__file__, "audit.sql")
log = logger("audit")

COMMAND_LINE = "command line"
"Actor of changes that an operator makes on the command line, where no key is used."

SEAL_SECONDS: Final = 1.0
"Interval of the sealing pass: about how long a new exposure has to wait for its receipt."
BLOCK_ROWS: Final = 10_000
"Rows of one block, unless a single transaction wrote more: 490 kB, digested in a fraction of a second."
SEALING_SECONDS: Final = 60.0
"Time limit for digesting one block, whose transaction may be large."
HEAD_SECONDS: Final = 3600.0
"Interval at which the head is logged: the log is stored apart from the database, so a cut-off end can be proven."
UNSEALED_AFTER: Final = timedelta(seconds=60)
"A row unsealed for longer is a finding: no worker seals, or something prevents it."

PLACE_BYTES: Final = 17
ENTRY_BYTES: Final = PLACE_BYTES + 32
TABLES: Final = {ord("a"): "audit", ord("e"): "exposure", ord("m"): "move", ord("t"): "transfer"}
"""Tables by the first byte of a place; the other 16 bytes are the row's id (exposure: the lead's id, move: its
position)."""
GENESIS: Final = bytes(32)
"Previous seal of the first block."

BATCH_ROWS: Final = 20_000
BATCH_BLOCKS: Final = 2_000
"Blocks, and rows above, that are compared with the tables at once: about a megabyte."
MOST_FINDINGS: Final = 1_000
"Findings that are listed; further ones are only counted."
STATEMENT_SECONDS: Final = 65.0


async def record(
    connection: Connection, now: datetime, actor: str, action: str, subject: str, **detail: str | int | bool | None
) -> None:
    """Insert the audit row: `actor` (public id of a key) did `action` (`subscription.pause`) to `subject` (`sub_…`)."""
    await connection.execute(
        SQL["insert_audit"], clock.new_id(), now, actor, action, subject, msgspec.json.encode(detail)
    )


# Sealing.


class AuditBlock(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of the transactions with xid_from <= xid < xid_to, sealed together with the seal of the block before."""

    number: int
    previous: bytes
    xid_from: int
    xid_to: int
    entries: bytes
    sealed_at: datetime
    seal: bytes = b""

    def places(self) -> dict[bytes, tuple[int, bytes]]:
        """Return position in the block (from 1) and digest of each row, by its place."""
        return {entry[:PLACE_BYTES]: (at, entry[PLACE_BYTES:]) for at, entry in enumerate(_split(self.entries), 1)}


def seal_key(master_key: bytes) -> bytes:
    """Return the key of all seals, which never enters the database."""
    return derived_key(master_key, "audit-seal")


def seal_of(key: bytes, block: AuditBlock) -> bytes:
    """Return the HMAC-SHA-256 over all columns of the block, the previous seal included."""
    micros = (block.sealed_at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    numbers = (block.number, block.xid_from, block.xid_to, micros, len(block.entries))
    head = b"audit-block:1" + block.previous + b"".join(number.to_bytes(8) for number in numbers)
    return hmac.digest(key, head + block.entries, "sha256")


async def keep_sealing(pool: Pool, key: bytes, stopping: asyncio.Event) -> None:
    """Seal new rows until `stopping` is set, as a background pass; writers never wait for it."""
    logged_at = -HEAD_SECONDS

    async def seal_next() -> None:
        nonlocal logged_at
        block = await seal(pool, key)
        if block is not None and clock.monotonic() - logged_at > HEAD_SECONDS:
            log.info("audit_head", count=block.number, id=block.seal.hex())
            logged_at = clock.monotonic()

    await keep_passing(pool, "audit_seal", seal_next, stopping, every=SEAL_SECONDS)


async def seal(pool: Pool, key: bytes) -> AuditBlock | None:
    """Seal one block of rows whose transactions have all ended, and return it.

    Returns None when there is nothing to seal or another worker is sealing.
    """
    async with transaction(pool) as connection:
        if not await connection.fetchval(SQL["take_turn"]):
            return None
        end = await load_record(connection, SQL["find_end"])
        xid_from, xid_to = end["xid_to"], end["settled"]
        cut = await connection.fetchval(SQL["find_cut"], xid_from, xid_to, BLOCK_ROWS)
        if cut is not None:
            first = await connection.fetchval(SQL["find_cut"], xid_from, xid_to, 0)
            xid_to = max(cut, first + 1)
        entries = await connection.fetchval(SQL["digest_entries"], xid_from, xid_to, timeout=SEALING_SECONDS)
        if entries is None:
            return None
        block = AuditBlock(
            number=end["number"] + 1,
            previous=end["seal"] or GENESIS,
            xid_from=xid_from,
            xid_to=xid_to,
            entries=entries,
            sealed_at=clock.now(),
        )
        sealed = msgspec.structs.replace(block, seal=seal_of(key, block))
        await connection.execute(SQL["insert_block"], *msgspec.structs.astuple(sealed))
        return sealed


# Verifying.


class ChainFault(StrEnum):
    """Kinds of damage to the chain or to the rows that it covers."""

    head_missing = "head_missing"
    """No block has the seal that was expected as head: the end of the chain was cut off or replaced."""
    block_missing = "block_missing"
    """A block is missing."""
    block_changed = "block_changed"
    """A block does not match its seal, or does not follow the one before it."""
    row_changed = "row_changed"
    """A row does not match its sealed digest."""
    row_deleted = "row_deleted"
    """A sealed row is missing."""
    row_reordered = "row_reordered"
    """A row names another transaction than the one that wrote it."""
    row_inserted_late = "row_inserted_late"
    """A row names a transaction that was sealed without it."""
    row_unsealed = "row_unsealed"
    """A row has been unsealed for too long: no worker is running, or a transaction has been open for too long."""
    move_unrecorded = "move_unrecorded"
    """The state of a lead or an assignment is not the one that its recorded moves end in."""


class ChainFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault and its place: a block, or a row with its table, id and position in its block (from 1)."""

    fault: ChainFault
    block: int | None = None
    position: int | None = None
    table: str | None = None
    id: str | None = None


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of verifying the chain. `head` is the last seal in hexadecimal, to be stored elsewhere."""

    blocks: int
    rows: int
    findings: int
    head: str | None
    head_block: int
    seconds: float
    named: tuple[ChainFinding, ...]


async def verify(connection: Connection, key: bytes, head: str | None = None) -> ChainReport:
    """Recompute every seal and every row's digest on one snapshot of a running system, with bounded memory.

    `head` is a seal noted earlier, which must still be in the chain. `connection` must be outside a transaction and its
    login a member of marketplace_reports. Raises asyncpg's errors.
    """
    began = clock.monotonic()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchrow(SQL["prepare_snapshot"])
        walk = _ChainWalk(connection, key, head)
        async for row in connection.cursor(SQL["list_blocks"], prefetch=50):
            await walk.take(convert_row(row, AuditBlock))
        await walk.finish()
    head_seal = walk.last.seal.hex() if walk.blocks else None
    return ChainReport(
        blocks=walk.blocks,
        rows=walk.rows,
        findings=walk.unlisted + len(walk.named),
        head=head_seal,
        head_block=walk.last.number,
        seconds=round(clock.monotonic() - began, 3),
        named=walk.named,
    )


class _ChainWalk:
    """Pass over the chain, block by block, that compares the rows with the tables in batches."""

    def __init__(self, connection: Connection, key: bytes, head: str | None) -> None:
        self.connection = connection
        self.key = key
        self.head = head
        self.blocks = self.rows = self.unlisted = 0
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
        """Findings without the second one of each reordered row: it is missing in one block and too many in another."""
        late = ChainFault.row_inserted_late
        return tuple(
            finding
            for finding in self._findings
            if finding.fault is not late or (finding.table, finding.id) not in self._moved
        )

    async def take(self, block: AuditBlock) -> None:
        """Check the seal and the link of the next block; compare its rows once the batch is full."""
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
        """Compare the last batch, then look for a missing head, unsealed rows and unrecorded moves."""
        await self._compare()
        if self.head is not None:
            self._name(ChainFinding(fault=ChainFault.head_missing))
        for row in await self._fetch("list_unsealed", self.last.xid_to, UNSEALED_AFTER, MOST_FINDINGS):
            self._name(_row_finding(ChainFault.row_unsealed, row["place"]))
        for row in await self._fetch("list_unrecorded", MOST_FINDINGS):
            self._name(ChainFinding(fault=ChainFault.move_unrecorded, table=row["table"], id=row["id"]))

    async def _compare(self) -> None:
        """Compare the rows of the whole batch at once, and block by block only when they differ."""
        batch, self._batch, self._waiting = self._batch, [], 0
        if not batch:
            return
        sealed = b"".join(block.entries for block in batch)
        if len(batch) > 1 and await self._digest(batch[0].xid_from, batch[-1].xid_to) == sealed:
            return
        for block in batch:
            entries = await self._digest(block.xid_from, block.xid_to)
            if entries != block.entries:
                await self._name_rows(block, entries)

    async def _name_rows(self, block: AuditBlock, entries: bytes) -> None:
        """Add a finding for each row that differs between a block and the tables."""
        sealed, current = block.places(), msgspec.structs.replace(block, entries=entries).places()
        present = await self._places([place for place in sealed if place not in current])
        current_order = {place: at for at, place in enumerate(place for place in current if place in sealed)}
        sealed_order = {place: at for at, place in enumerate(place for place in sealed if place in current)}
        for place, (position, digest) in sealed.items():
            if place not in current:
                fault = ChainFault.row_reordered if place in present else ChainFault.row_deleted
            elif current[place][1] == digest:
                continue
            else:
                fault = (
                    ChainFault.row_changed if current_order[place] == sealed_order[place] else ChainFault.row_reordered
                )
            self._name(_row_finding(fault, place, block.number, position))
        for place, (position, _digest) in current.items():
            if place not in sealed:
                self._name(_row_finding(ChainFault.row_inserted_late, place, block.number, position))

    async def _digest(self, xid_from: int, xid_to: int) -> bytes:
        entries: bytes | None = await self.connection.fetchval(
            SQL["digest_entries"], xid_from, xid_to, timeout=STATEMENT_SECONDS
        )
        return entries or b""

    async def _places(self, places: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of `places` whose rows exist in the tables."""
        if not places:
            return frozenset()
        positions = [int.from_bytes(place[1:]) for place in places if TABLES.get(place[0]) == "move"]
        row_ids = [UUID(bytes=place[1:]) for place in places]
        rows = await self._fetch("list_places", row_ids, [position for position in positions if position < 2**63])
        return frozenset(row["place"] for row in rows)

    async def _fetch(self, name: str, *values: object) -> list[asyncpg.Record]:
        return await self.connection.fetch(SQL[name], *values, timeout=STATEMENT_SECONDS)

    def _name(self, finding: ChainFinding) -> None:
        if finding.fault is ChainFault.row_reordered:
            self._moved.add((finding.table, finding.id))
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(finding)
        else:
            self.unlisted += 1


def _row_finding(
    fault: ChainFault, place: bytes, block: int | None = None, position: int | None = None
) -> ChainFinding:
    table = TABLES.get(place[0], "unknown")
    row_id = int.from_bytes(place[1:]) if table == "move" else UUID(bytes=place[1:])
    return ChainFinding(fault=fault, block=block, position=position, table=table, id=str(row_id))


def _split(entries: bytes) -> Iterator[bytes]:
    return (entries[at : at + ENTRY_BYTES] for at in range(0, len(entries), ENTRY_BYTES))
