"""The audit chain on a real database: whatever is done to it behind its back is named, and nothing written is lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.database.db import open_pool
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.security import audit
from marketplace.security.audit import (
    BLOCK_ROWS,
    ENTRY_BYTES,
    GENESIS,
    AuditBlock,
    ChainFault,
    ChainFinding,
    ChainReport,
    seal_of,
)
from tests.builders.service import process, until
from tests.builders.world import TOP_UP, WALKS, World
from tests.waiting import PATIENCE

KEY = audit.seal_key(bytes(range(32)))
KEYS = {"audit": "id", "exposure": "lead_id", "move": "position", "transfer": "id"}
"What is sealed, and what names a row of it."


EDIT = "insert into audit (id, at, actor, action, object) values ($1, now(), 'somebody', 'wallet.limit', 'biz_1')"


class _RollBack(Exception):
    """Undoes a transaction."""


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A world with a lead in each state, its sealer, and the owner, who can do anything."""

    owner: Any
    worker: Any
    world: World
    pool: Any

    async def seal(self) -> int:
        """One block; how many rows it has."""
        block = await audit.seal(self.worker, KEY)
        return len(block.entries) // ENTRY_BYTES if block else 0

    async def verify(self, head: str | None = None, key: bytes = KEY) -> ChainReport:
        return await audit.verify(self.owner, key, head)

    async def behind_its_back(self, sql: str, *values: Any) -> None:
        """Run statements as the owner with every trigger and foreign key switched off."""
        await self.owner.execute("set session_replication_role = replica")
        await self.owner.execute(sql, *values)
        await self.owner.execute("set session_replication_role = origin")

    async def blocks(self) -> list[AuditBlock]:
        rows = await self.owner.fetch(audit.SQL["list_blocks"])
        return [msgspec.convert(dict(row), AuditBlock) for row in rows]

    async def position(self, table: str, row_id: UUID | int) -> tuple[int, int]:
        """The block and the position in it where a row was sealed."""
        letter = {name: letter for letter, name in audit.TABLES.items()}[table]
        place = letter.to_bytes() + (row_id.to_bytes(16) if isinstance(row_id, int) else row_id.bytes)
        [place_found] = [
            (block.number, block.places()[place][0]) for block in await self.blocks() if place in block.places()
        ]
        return place_found


@pytest.fixture
async def chain(database_url: str, pool: Any) -> AsyncIterator[Chain]:
    """Sealed in four blocks."""
    owner = await asyncpg.connect(database_url)
    world = World(owner)
    worker = await open_pool(database_url, "marketplace_worker", size=3)
    chain = Chain(owner=owner, worker=worker, world=world, pool=pool)
    await world.make()
    for states in (("received", "unsold"), ("held", "released"), ("delivered",), ("returned", "lapsed")):
        for state in states:
            await world.lead(state)
            await owner.execute(EDIT, uuid4())
        assert await seal_all(chain) > 0
    yield chain
    await worker.close()
    await owner.close()


async def seal_all(chain: Chain) -> int:
    """Seals what is there, also when another test's transaction is still open on the same server."""
    count = await chain.owner.fetchval("select count(*) from audit_entry")
    sealed = 0
    async with asyncio.timeout(PATIENCE):
        while True:
            sealed += await chain.seal()
            blocks = await chain.owner.fetchval("select coalesce(sum(octet_length(entries)), 0) from audit_block")
            if blocks // ENTRY_BYTES >= count:
                return sealed
            await asyncio.sleep(0.05)


def places(report: ChainReport) -> set[tuple[str, str | None, int | None, int | None]]:
    return {(finding.fault, finding.id, finding.block, finding.position) for finding in report.named}


# --- an honest chain --------------------------------------------------------------------------------------------------


async def test_an_untouched_chain_holds_and_shows_its_head(chain: Chain) -> None:
    report = await chain.verify()
    assert (report.findings, report.named) == (0, ())
    assert report.blocks >= 4
    assert report.rows == await chain.owner.fetchval("select count(*) from audit_entry")
    blocks = await chain.blocks()
    assert (report.head, report.head_block) == (blocks[-1].seal.hex(), len(blocks))
    assert [block.previous for block in blocks] == [GENESIS, *(block.seal for block in blocks[:-1])]


async def test_a_database_without_a_chain_holds(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    report = await audit.verify(connection, KEY)
    await connection.close()
    assert (report.findings, report.blocks, report.head) == (0, 0, None)


async def test_nothing_new_makes_no_block(chain: Chain) -> None:
    before = await chain.blocks()
    assert await chain.seal() == 0
    assert await chain.blocks() == before


async def test_every_move_of_a_lead_and_of_its_assignment_is_recorded_by_whoever_makes_it(chain: Chain) -> None:
    lead = await chain.world.lead("delivered")
    rows = await chain.owner.fetch(
        "select assignment_id, left_state, entered_state, actor = current_user as by_owner from move "
        "where lead_id = $1 order by position",
        lead.id,
    )
    steps = ["received", *WALKS["delivered"]]
    moves = [(row["left_state"], row["entered_state"]) for row in rows if row["assignment_id"] is None]
    assert moves == list(zip([None, *steps[:-1]], steps, strict=True))
    claims = [(row["left_state"], row["entered_state"]) for row in rows if row["assignment_id"] == lead.assignment_id]
    assert claims == [(None, "held"), ("held", "exposed"), ("exposed", "delivered")]
    assert all(row["by_owner"] for row in rows)


async def test_a_move_that_is_rolled_back_leaves_no_record(chain: Chain) -> None:
    before = await chain.owner.fetchval("select count(*) from move")
    with suppress(_RollBack):
        async with chain.owner.transaction():
            await chain.world.lead("delivered")
            raise _RollBack
    assert await chain.owner.fetchval("select count(*) from move") == before


async def test_no_session_setting_changes_a_digest(chain: Chain) -> None:
    digests = "select string_agg(digest, ''::bytea order by place) from audit_entry"
    before = await chain.owner.fetchval(digests)
    for setting in (
        "timezone = 'Asia/Kolkata'", "bytea_output = 'escape'", "datestyle = 'German'", "extra_float_digits = 0",
        "intervalstyle = 'iso_8601'",
    ):  # fmt: skip
        await chain.owner.execute(f"set {setting}")
    assert await chain.owner.fetchval(digests) == before


# --- tampering --------------------------------------------------------------------------------------------------------

OTHER_VALUES = {
    "uuid": "gen_random_uuid()",
    "text": "coalesce({0}, '') || 'x'",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "bigint": "{0} + 1",
    "integer": "{0} + 1",
    "smallint": "coalesce({0}, 0) + 1",
    "bytea": "'\\x77'",
    "jsonb": "{0} || '{{\"x\": 1}}'",
    "xid8": "({0}::text::bigint + 1)::text::xid8",
    "boolean": "not {0}",
    "character": "'EUR'",
}
PLAIN_TABLES = """
alter table exposure drop constraint exposure_live, drop constraint exposure_seen, drop constraint exposure_channel,
    alter column position drop identity;
alter table move alter column position drop identity, drop constraint move_pkey;
alter table transfer drop constraint transfer_kind, drop constraint transfer_amount, drop constraint transfer_parties,
    drop constraint transfer_cause, drop constraint transfer_share,
    alter column price_minor drop expression, alter column payout_minor drop expression;
drop index transfer_one_hold, transfer_one_settlement, transfer_one_payout, transfer_one_refund,
    transfer_one_claw_back, transfer_one_event"""
"""Nothing but columns, so that each may take any value."""


@pytest.mark.parametrize("table", KEYS)
async def test_every_column_is_in_the_digest(chain: Chain, table: str) -> None:
    columns = await chain.owner.fetch(
        "select attname as name, format_type(atttypid, null) as kind from pg_attribute "
        "where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''",
        table,
    )
    digests = "select string_agg(digest, ''::bytea order by place) from audit_entry"
    await chain.owner.execute(PLAIN_TABLES)
    before = await chain.owner.fetchval(digests)
    assert len(columns) > 6
    for column in columns:
        with suppress(_RollBack):
            async with chain.owner.transaction():
                await chain.owner.execute("set local session_replication_role = replica")
                value = OTHER_VALUES[column["kind"]].format(column["name"])
                await chain.owner.execute(f"update {table} set {column['name']} = {value}")
                assert await chain.owner.fetchval(digests) != before, column["name"]
                raise _RollBack


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("audit", "actor = 'somebody else'"),
        ("exposure", "exposed_at = exposed_at - interval '1 microsecond'"),
        ("move", "actor = 'somebody else'"),
        ("transfer", "amount_minor = amount_minor + 1"),
    ],
)
async def test_a_changed_row_is_named_with_its_place(chain: Chain, table: str, change: str) -> None:
    key = KEYS[table]
    row_id = await chain.owner.fetchval(f"select {key} from {table} order by random() limit 1")
    block, position = await chain.position(table, row_id)
    await chain.behind_its_back(f"update {table} set {change} where {key} = $1", row_id)
    [finding] = (await chain.verify()).named
    assert finding == ChainFinding(
        fault=ChainFault.row_changed, block=block, position=position, table=table, id=str(row_id)
    )


@pytest.mark.parametrize("table", KEYS)
async def test_a_deleted_row_is_named(chain: Chain, table: str) -> None:
    key = KEYS[table]
    row_id = await chain.owner.fetchval(f"select {key} from {table} limit 1")
    block, position = await chain.position(table, row_id)
    await chain.behind_its_back(f"delete from {table} where {key} = $1", row_id)
    report = await chain.verify()
    assert (ChainFault.row_deleted, str(row_id), block, position) in places(report)
    assert {finding.fault for finding in report.named} <= {ChainFault.row_deleted, ChainFault.move_unrecorded}


async def test_a_row_that_claims_a_sealed_transaction_is_named(chain: Chain) -> None:
    late, theirs = uuid4(), (await chain.blocks())[1]
    await chain.behind_its_back(
        "insert into audit (id, at, actor, action, object, committed_by) "
        "values ($1, now(), 'nobody', 'wallet.top_up', 'biz', $2)",
        late, theirs.xid_from,
    )  # fmt: skip
    report = await chain.verify()
    assert [(finding.fault, finding.id, finding.block) for finding in report.named] == [
        ("row_inserted_late", str(late), 2)
    ]


async def test_two_rows_that_changed_places_are_both_named(chain: Chain) -> None:
    sealed = "select position, committed_by from move where committed_by >= $1 and committed_by < $2 order by 2"
    in_blocks = [await chain.owner.fetch(sealed, block.xid_from, block.xid_to) for block in await chain.blocks()]
    first, *_, last = max(in_blocks, key=len)
    assert first["committed_by"] != last["committed_by"]
    swap = "update move set committed_by = $2 where position = $1"
    await chain.behind_its_back(swap, first["position"], last["committed_by"])
    await chain.behind_its_back(swap, last["position"], first["committed_by"])
    assert {(finding.fault, finding.id) for finding in (await chain.verify()).named} == {
        (ChainFault.row_reordered, str(first["position"])),
        (ChainFault.row_reordered, str(last["position"])),
    }


async def test_a_row_moved_to_another_block_is_named_once_and_where_it_was(chain: Chain) -> None:
    blocks = await chain.blocks()
    row_id = await chain.owner.fetchval("select id from transfer where committed_by < $1 limit 1", blocks[0].xid_to)
    block, position = await chain.position("transfer", row_id)
    await chain.behind_its_back("update transfer set committed_by = $2 where id = $1", row_id, blocks[2].xid_from)
    assert places(await chain.verify()) == {(ChainFault.row_reordered, str(row_id), block, position)}


@pytest.mark.parametrize(
    "change",
    [
        "entries = set_byte(entries, 20, get_byte(entries, 20) # 1)",
        "seal = set_byte(seal, 0, get_byte(seal, 0) # 1)",
        "previous = set_byte(previous, 31, get_byte(previous, 31) # 1)",
        "sealed_at = sealed_at + interval '1 microsecond'",
    ],
    ids=lambda change: change.split(" ")[0],
)
async def test_a_changed_block_is_named(chain: Chain, change: str) -> None:
    await chain.behind_its_back(f"update audit_block set {change} where number = 2")
    report = await chain.verify()
    assert (ChainFault.block_changed, None, 2, None) in places(report)
    assert {finding.block for finding in report.named} == {2}


@pytest.mark.parametrize("length", [1, ENTRY_BYTES - 1, ENTRY_BYTES, 3 * ENTRY_BYTES])
@pytest.mark.parametrize("letter", [b"m", b"a", b"?"])
async def test_entries_that_are_nonsense_are_a_finding_like_any_other(chain: Chain, length: int, letter: bytes) -> None:
    await chain.owner.execute("alter table audit_block drop constraint audit_block_entries")
    nonsense = (letter + b"\xff" * length)[:length]
    await chain.behind_its_back("update audit_block set entries = $1 where number = 2", nonsense)
    assert (ChainFault.block_changed, None, 2, None) in places(await chain.verify())


BLOCK = AuditBlock(
    number=2, previous=b"p" * 32, xid_from=10, xid_to=20, entries=b"e" * ENTRY_BYTES,
    sealed_at=datetime(2026, 3, 1, tzinfo=UTC), seal=b"",
)  # fmt: skip


@pytest.mark.parametrize("field", [name for name in AuditBlock.__struct_fields__ if name != "seal"])
def test_the_seal_covers_every_column_of_its_block(field: str) -> None:
    value = getattr(BLOCK, field)
    changed = value + (timedelta(microseconds=1) if field == "sealed_at" else b"x" if isinstance(value, bytes) else 1)
    assert seal_of(KEY, msgspec.structs.replace(BLOCK, **{field: changed})) != seal_of(KEY, BLOCK)


async def test_a_row_and_its_block_changed_together_do_not_fit_the_seal(chain: Chain) -> None:
    row_id = await chain.owner.fetchval("select id from transfer order by committed_by limit 1")
    block, _ = await chain.position("transfer", row_id)
    await chain.owner.execute("alter table transfer drop constraint transfer_amount")
    await chain.behind_its_back("update transfer set amount_minor = 1 where id = $1", row_id)
    span = (await chain.blocks())[block - 1]
    entries = await chain.owner.fetchval(audit.SQL["digest_entries"], span.xid_from, span.xid_to)
    await chain.behind_its_back("update audit_block set entries = $2 where number = $1", block, entries)
    assert places(await chain.verify()) == {(ChainFault.block_changed, None, block, None)}


@pytest.mark.parametrize("number", [1, 2])
async def test_a_missing_block_is_named(chain: Chain, number: int) -> None:
    await chain.behind_its_back("delete from audit_block where number = $1", number)
    assert places(await chain.verify()) == {(ChainFault.block_missing, None, number, None)}


async def test_a_block_sealed_anew_with_the_key_breaks_the_link_of_the_next(chain: Chain) -> None:
    second = (await chain.blocks())[1]
    forged = msgspec.structs.replace(second, sealed_at=second.sealed_at + timedelta(seconds=1))
    await chain.behind_its_back(
        "update audit_block set sealed_at = $2, seal = $3 where number = $1",
        2, forged.sealed_at, seal_of(KEY, forged),
    )  # fmt: skip
    assert places(await chain.verify()) == {(ChainFault.block_changed, None, 3, None)}


async def test_an_end_that_was_cut_off_is_seen_by_the_head_that_was_kept(chain: Chain) -> None:
    head = (await chain.verify()).head
    await chain.behind_its_back("delete from audit_block where number = (select max(number) from audit_block)")
    await seal_all(chain)
    assert (await chain.verify()).findings == 0
    assert places(await chain.verify(head)) == {(ChainFault.head_missing, None, None, None)}


async def test_a_kept_head_is_found_when_the_chain_has_grown(chain: Chain) -> None:
    head = (await chain.verify()).head
    await chain.world.lead("held")
    await seal_all(chain)
    report = await chain.verify(head)
    assert (report.findings, report.head == head) == (0, False)


async def test_another_key_fits_no_block(chain: Chain) -> None:
    report = await chain.verify(key=audit.seal_key(bytes(32)))
    assert {finding.fault for finding in report.named} == {ChainFault.block_changed}
    assert report.findings == report.blocks


async def test_rows_that_wait_too_long_for_their_seal_are_named(chain: Chain) -> None:
    row_id = uuid4()
    insert = "insert into audit (id, at, actor, action, object) values ($1, now() - $2::interval, 'a', 'b', 'c')"
    await chain.owner.execute(insert, uuid4(), timedelta(seconds=30))
    assert (await chain.verify()).findings == 0
    await chain.owner.execute(insert, row_id, timedelta(seconds=61))
    [finding] = (await chain.verify()).named
    assert finding == ChainFinding(fault=ChainFault.row_unsealed, table="audit", id=str(row_id))


async def test_a_lead_moved_behind_the_triggers_is_named(chain: Chain) -> None:
    lead = await chain.world.lead("unsold")
    await chain.behind_its_back("update lead set state = 'rejected' where id = $1", lead.id)
    named = (await chain.verify()).named
    assert {(finding.fault, finding.table, finding.id) for finding in named} == {
        (ChainFault.move_unrecorded, "lead", str(lead.id))
    }


async def test_an_assignment_moved_behind_the_triggers_is_named(chain: Chain) -> None:
    lead = await chain.world.lead("lapsed")
    await chain.behind_its_back("update assignment set state = 'refused' where id = $1", lead.assignment_id)
    named = (await chain.verify()).named
    assert {(finding.table, finding.id) for finding in named} == {("assignment", str(lead.assignment_id))}


async def test_the_chain_and_the_audit_are_never_changed_or_emptied(chain: Chain) -> None:
    for sql in (
        "update audit_block set sealed_at = now()", "delete from audit_block", "truncate audit_block",
        "update audit set actor = ''", "delete from audit", "truncate audit",
        "update move set actor = ''", "delete from move", "truncate move",
    ):  # fmt: skip
        with pytest.raises(asyncpg.RestrictViolationError, match="rows are never changed"):
            await chain.owner.execute(sql)


@pytest.mark.parametrize("table", KEYS)
async def test_no_process_may_say_which_transaction_wrote_a_row(chain: Chain, table: str) -> None:
    for role in ("marketplace_api", "marketplace_worker"):
        assert not await chain.owner.fetchval(
            "select has_column_privilege($1, $2, 'committed_by', 'insert')", role, table
        )


# --- sealing beside writers -------------------------------------------------------------------------------------------


async def test_a_row_of_a_long_transaction_is_sealed_when_it_has_ended(chain: Chain) -> None:
    slow, quick = uuid4(), uuid4()
    async with chain.pool.acquire() as connection:
        open_one = connection.transaction()
        await open_one.start()
        await connection.execute(EDIT, slow)
        await chain.owner.execute(EDIT, quick)
        assert await chain.seal() == 0  # the quick one may not overtake the slow one that began before it
        await open_one.commit()
    assert await seal_all(chain) == 2
    assert (await chain.verify()).findings == 0
    assert (await chain.position("audit", slow))[0] <= (await chain.position("audit", quick))[0]


@pytest.mark.parametrize("seed", range(4))
async def test_no_interleaving_of_writers_and_sealers_loses_or_repeats_a_row(chain: Chain, seed: int) -> None:
    """Writers commit, roll back and nest in random order on connections of their own, while two sealers seal."""
    choose, stopping = random.Random(seed), asyncio.Event()

    async def write() -> None:
        async with chain.pool.acquire() as connection:
            for _ in range(25):
                try:
                    async with connection.transaction():
                        await chain_of(connection, choose)
                        await asyncio.sleep(choose.choice((0, 0, 0.001, 0.02)))
                        if choose.random() < 0.2:
                            raise _RollBack
                except _RollBack:
                    pass

    async def keep_sealing() -> None:
        while not stopping.is_set():
            await chain.seal()
            await asyncio.sleep(choose.choice((0, 0.002)))

    sealers = [asyncio.create_task(keep_sealing()) for _ in range(2)]
    await asyncio.gather(*(write() for _ in range(5)))
    stopping.set()
    await asyncio.gather(*sealers)
    await seal_all(chain)
    sealed = [place for block in await chain.blocks() for place in block.places()]
    there = [row["place"] for row in await chain.owner.fetch("select place from audit_entry")]
    assert len(sealed) == len(set(sealed))
    assert set(sealed) == set(there)
    assert (await chain.verify()).findings == 0


async def chain_of(connection: Any, choose: random.Random) -> None:
    for _ in range(choose.randint(1, 4)):
        async with connection.transaction():  # a savepoint: its rows are the whole transaction's
            await connection.execute(EDIT, uuid4())


async def test_two_sealers_at_once_make_one_block(chain: Chain) -> None:
    before = len(await chain.blocks())
    await chain.world.top_up(chain.world.business, 5)
    await asyncio.gather(*(chain.seal() for _ in range(3)))
    await seal_all(chain)
    assert len(await chain.blocks()) == before + 1


async def test_a_backlog_is_sealed_in_blocks_of_a_bounded_size(chain: Chain) -> None:
    many = """insert into audit (id, at, actor, action, object)
        select gen_random_uuid(), now(), 'a', 'b', 'c' from generate_series(1, $1::int)"""
    for _ in range(3):
        await chain.owner.execute(many, BLOCK_ROWS // 2 + 1)
    await chain.owner.execute(many, BLOCK_ROWS + 5)  # one transaction is never parted
    before = len(await chain.blocks())
    await seal_all(chain)
    sizes = [len(block.entries) // ENTRY_BYTES for block in (await chain.blocks())[before:]]
    assert sizes == [BLOCK_ROWS // 2 + 1] * 3 + [BLOCK_ROWS + 5]
    assert (await chain.verify()).findings == 0


async def test_verify_and_the_sealer_and_writers_never_wait_for_each_other(chain: Chain) -> None:
    stopping, rows = asyncio.Event(), 0

    async def pay() -> None:
        nonlocal rows
        while not stopping.is_set():
            await chain.pool.execute(TOP_UP, uuid4(), 1, chain.world.business, f"event-{uuid4()}")
            rows += 1

    tasks = [asyncio.create_task(pay()), asyncio.create_task(audit.keep_sealing(chain.worker, KEY, stopping))]
    reports = [await chain.verify() for _ in range(8)]
    stopping.set()
    await asyncio.gather(*tasks)
    assert [report.findings for report in reports] == [0] * 8
    assert rows > 0


async def test_a_worker_seals_what_is_written_and_logs_the_head(settings: Settings, tmp_path: Path) -> None:
    connection = await asyncpg.connect(settings.database_url)
    async with connection.transaction():
        await World(connection).make()
    async with process(settings, "work", tmp_path / "log") as worker:
        assert await until(lambda: connection.fetchval("select exists (select from audit_block)"), PATIENCE)
        assert await until(lambda: connection.fetchval("select $1 like '%audit_head%'", worker.log), PATIENCE)
        assert await worker.stop() == 0
    report = await audit.verify(connection, audit.seal_key(settings.master_key))
    assert (report.findings, report.blocks, report.rows) == (0, 1, 2)
    assert str(report.head) in worker.log
    await connection.close()


@given(
    number=st.integers(1, 2**62), span=st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)),
    entries=st.binary(min_size=ENTRY_BYTES, max_size=ENTRY_BYTES), other=st.integers(0, 4), add=st.integers(1, 255),
)  # fmt: skip
def test_a_seal_is_of_everything_in_its_block(
    number: int, span: tuple[int, int], entries: bytes, other: int, add: int
) -> None:
    block = AuditBlock(
        number=number, previous=GENESIS, xid_from=span[0], xid_to=span[1], entries=entries, sealed_at=clock.now()
    )
    changes: list[dict[str, Any]] = [
        {"number": number + add},
        {"previous": bytes([add]) * 32},
        {"xid_from": span[0] + add},
        {"entries": bytes([entries[0] ^ add]) + entries[1:]},
        {"sealed_at": block.sealed_at + timedelta(microseconds=add)},
    ]
    assert seal_of(KEY, block) != seal_of(KEY, msgspec.structs.replace(block, **changes[other]))
