"""Every statement that the service runs: it exists, is used, is allowed to its role, and finds its rows by an index."""

import ast
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

import marketplace
from marketplace.database.db import Queries
from marketplace.delivery.store import SQL as DELIVERY
from marketplace.intake.store import SQL as INTAKE
from marketplace.journey.store import SQL as JOURNEY
from marketplace.runtime.clock import now
from marketplace.worker import SQL as WORKER
from tests.builders.world import World

API, WORK, REPORTS, OWNER = "marketplace_api", "marketplace_worker", "marketplace_reports", "owner"
ERASER, RETURNER, FEEDER = "marketplace_eraser", "marketplace_returner", "marketplace_feeder"

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "security/access.sql": (API,),
    "certificates/queries.sql": (WORK,),
    "security/auth.sql": (API,),
    "security/audit.sql": (WORK,),
    "database/background.sql": (WORK,),
    "rules/catalog.sql": (API, WORK),
    "rules/arrivals.sql": (WORK,),
    "database/db.sql": (API, WORK, REPORTS, FEEDER),
    "delivery/queries.sql": (WORK,),
    "demo/figures.sql": (OWNER,),
    "demo/history/loading.sql": (OWNER,),
    "directory/going_live.sql": (API,),
    "directory/queries.sql": (API,),
    "distribution/explorer.sql": (REPORTS,),
    "distribution/matching_preview.sql": (API,),
    "distribution/policy_dry_run.sql": (API,),
    "distribution/queries.sql": (WORK,),
    "database/doctor.sql": (OWNER,),
    "erasure/queries.sql": (ERASER,),
    "feed/queries.sql": (API,),
    "web_push/queries.sql": (API,),
    "notices/queries.sql": (WORK,),
    "revocations/queries.sql": (API,),
    "deletions/queries.sql": (API,),
    "feedback/next_actions.sql": (API,),
    "mail/outbox.sql": (API,),
    "directory/mail_endpoints.sql": (API,),
    "delivery/bounces.sql": (WORK,),
    "feedback/stage_changes.sql": (API,),
    "feedback/stages.sql": (API,),
    "portal/business/board.sql": (API,),
    "people/queries.sql": (API,),
    "feedback/queries.sql": (API,),
    "quarantine/failing.sql": (WORK,),
    "operations/fence.sql": (WORK,),
    "funds/queries.sql": (API,),
    "imports/queries.sql": (API,),
    "intake/postal.sql": (OWNER,),
    "learning/queries.sql": (API, WORK),
    "intake/queries.sql": (API,),
    "journey/queries.sql": (API,),
    "nurturing/queries.sql": (API,),
    "intake/refusals.sql": (API,),
    "database/journal.sql": (WORK,),
    "web/metrics.sql": (API,),
    "database/migrate.sql": (OWNER,),
    "ledger/money.sql": (API, WORK),
    "ledger/shares.sql": (API, WORK),
    "portal/business/queries.sql": (API,),
    "portal/operator/back_office_store.sql": (API,),
    "portal/operator/lead_store.sql": (REPORTS,),
    "portal/provider/queries.sql": (API,),
    "portal/queries.sql": (API,),
    "receipts/queries.sql": (API,),
    "reports/figures.sql": (REPORTS,),
    "reports/funnel.sql": (REPORTS,),
    "reports/quality.sql": (REPORTS,),
    "reports/refresh.sql": (WORK,),
    "reports/rows.sql": (REPORTS,),
    "reports/speed.sql": (REPORTS,),
    "reports/roi.sql": (REPORTS,),
    "shared_leads/queries.sql": (API,),
    "simulations/loading.sql": (REPORTS,),
    "suppression_lists/queries.sql": (API,),
    "suppression_lists/sources.sql": (API,),
    "simulations/queries.sql": (WORK,),
    "operations/verify.sql": (REPORTS,),
    "worker.sql": (WORK,),
}
"""Which role runs the statements of which file; where several do, each of them runs some."""

ONLY: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "security/audit.sql": {
        "insert_audit": (API, WORK, FEEDER),
        **dict.fromkeys(
            ("prepare_snapshot", "list_blocks", "list_places", "list_unsealed", "list_unrecorded"), (REPORTS,)
        ),
    },
    "delivery/queries.sql": {
        **dict.fromkeys(("find_delivery", "find_claim", "read_contact"), (API, WORK)),
        **dict.fromkeys(("lock_delivery", "mark_settled"), (WORK, FEEDER)),
    },
    "mail/outbox.sql": {
        "insert_mail": (API, WORK),
        **dict.fromkeys(("claim_due", "find_mail", "mark_sent", "delete_old"), (WORK,)),
    },
    "delivery/bounces.sql": {"list_bounces": (API, REPORTS)},
    "feedback/stage_changes.sql": dict.fromkeys(("claim_due", "find_change", "mark_sent", "delete_old"), (WORK,)),
    "feedback/stages.sql": {"delete_old_unmapped": (WORK,)},
    "distribution/explorer.sql": {"list_subscription_versions": (API, REPORTS)},
    "distribution/queries.sql": dict.fromkeys(("list_decisions", "find_traced_lead", "list_traced_attempts"), (API,)),
    "certificates/queries.sql": {
        "insert_certificates": (API,),
        **dict.fromkeys(("list_of_lead", "list_newest", "count_states"), (API,)),
    },
    "revocations/queries.sql": dict.fromkeys(("is_settled", "insert_revoked_lead"), (ERASER,)),
    "deletions/queries.sql": {"complete": (API, WORK)},
    "notices/queries.sql": {
        **dict.fromkeys(
            ("insert_notice", "find_event", "mark_acknowledged", "find_of_business", "list_notices", "count_open"),
            (API,),
        ),
        "withdraw_updates": (ERASER,),
    },
    "quarantine/failing.sql": {"list_quarantined": (REPORTS,), "ask_for_retry": (API,), "dismiss": (API,)},
    "web_push/queries.sql": {"list_of_business": (WORK,), "delete_ended": (API, WORK)},
    "feed/queries.sql": {"expose": (FEEDER,), "mark_acknowledged": (API, FEEDER)},
    "feedback/queries.sql": dict.fromkeys(
        (
            "lock_lead",
            "lock_wallet",
            "find_case",
            "count_recent",
            "insert_return",
            "mark_judged",
            "mark_returned",
            "find_return",
        ),
        (RETURNER,),
    ),
    "intake/postal.sql": {"find_postal_area": (API,)},
    "learning/queries.sql": {
        **dict.fromkeys(("mark_signed_off", "mark_ranking", "find_operator"), (API,)),
        **dict.fromkeys(("list_sellers", "count_sales", "save_sales", "insert_check"), (WORK,)),
        "list_by_version": (REPORTS,),
        "find_training": (API,),
    },
    "ledger/money.sql": {
        **dict.fromkeys(("insert_wallet", "find_wallet", "top_up", "find_event"), (API,)),
        **dict.fromkeys(("hold", "release"), (WORK,)),
        **dict.fromkeys(("capture", "pay_shares"), (WORK, FEEDER)),
        **dict.fromkeys(("refund", "list_shares", "claw_back_shares"), (RETURNER,)),
    },
    "portal/operator/lead_store.sql": {"mark_due": (API,), "find_return": (API, REPORTS)},
    "portal/operator/back_office_store.sql": dict.fromkeys(
        ("read_server", "read_activity", "list_passes", "count_waiting", "list_differences"), (REPORTS,)
    ),
    "reports/roi.sql": {
        **dict.fromkeys(("take_turn", "keep_outcomes", "keep_runs", "mark_progress"), (WORK,)),
        "save_assumption": (API,),
    },
    "suppression_lists/sources.sql": {"claim_due": (API, WORK)},
    "simulations/loading.sql": {"count_leads": (API, REPORTS)},
    "simulations/queries.sql": {
        **dict.fromkeys(("insert_simulation", "count_open", "list_simulations", "cancel"), (API,)),
        "find_simulation": (API, WORK),
    },
}
"""Statements that others run than the rest of their file."""

PLANNED: Final = ("select", "insert", "update", "delete", "with")


def modules() -> Iterator[Any]:
    for module in pkgutil.walk_packages(marketplace.__path__, "marketplace."):
        yield importlib.import_module(module.name)


def collected() -> dict[str, tuple[Path, Queries]]:
    """Each file of statements by its path in the package, with the module that runs it."""
    home = Path(marketplace.__path__[0])
    files: dict[str, tuple[Path, Queries]] = {}
    for module in modules():
        for value in vars(module).values():
            if isinstance(value, Queries) and Path(str(module.__file__)).parent == value.path.parent:
                source = Path(str(module.__file__))
                name = str(value.path.relative_to(home))
                if "Queries(__file__" in source.read_text():
                    files[name] = (source, value)
    return files


FILES: Final = collected()


def test_every_sql_file_is_run_by_a_module_and_has_its_roles() -> None:
    home = Path(marketplace.__path__[0])
    files = {str(path.relative_to(home)) for path in home.rglob("*.sql") if "migrations" not in path.parts}
    assert FILES.keys() == files
    assert ROLES.keys() == files


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_statement_is_used_and_every_used_statement_exists(file: str) -> None:
    source, queries = FILES[file]
    tree = ast.parse(source.read_text())
    statements = {
        str(node.slice.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "SQL" and isinstance(node.slice, ast.Constant)
    }
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert statements <= queries.statements.keys()
    if "SQL.statements" not in source.read_text():  # which runs them all
        assert queries.statements.keys() <= words


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_statement_is_named_once_and_says_its_columns(file: str) -> None:
    _, queries = FILES[file]
    assert queries.path.read_text().count("-- name: ") == len(queries.statements)
    starred = [name for name, sql in queries.statements.items() if "select *" in sql and "from unnest" not in sql]
    assert starred == []


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("file", sorted(FILES))
async def test_every_statement_may_be_run_by_its_role_on_the_migrated_schema(owner: Any, file: str) -> None:
    for name, sql in FILES[file][1].statements.items():
        for role in ONLY.get(file, {}).get(name, ROLES[file]):
            async with owner.transaction():
                if role != OWNER:
                    await owner.execute(f"set local role {role}")
                await _plan(owner, sql)


async def _plan(connection: Any, sql: str) -> None:
    """Planning alone checks names and types; explaining checks, without running it, what the role may touch."""
    prepared = await connection.prepare(sql)
    first = next(line for line in sql.splitlines() if not line.startswith("--"))
    if not first.startswith(PLANNED):
        return
    values = ", ".join(f"null::{kind.name}" for kind in prepared.get_parameters())
    await connection.execute(f"prepare tried as {sql}")
    await connection.execute(f"explain execute tried({values})" if values else "explain execute tried")
    await connection.execute("deallocate tried")


async def test_the_wrong_role_would_have_been_noticed(owner: Any) -> None:
    async with owner.transaction():
        await owner.execute("set local role marketplace_api")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _plan(owner, DELIVERY["expose"])


# --- indexes ----------------------------------------------------------------------------------------------------------

CROWD: Final = """
with many as (select gen_random_uuid() as id, n from generate_series(1, 6000) as n), asked as (
    insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, idempotency_key, request_sha256,
        received_as, facts, consent_sha256, consent_given_at, submitted_at, received_at)
    select id, $1, $2, 'live', 'ref-' || n, 'key-' || n, '', 'received', '{}', '', now(), now(), now() from many
), led as (
    insert into lead (id, provider_id, vertical_id, mode, state, due_at, received_at)
    select id, $1, $2, 'live', 'received', now() - n * interval '1 second', now() from many
), kept as (
    insert into person_window (lead_id, key, vertical_id, during)
    select id, decode(md5(n::text), 'hex'), $2, tstzrange(now(), now() + interval '30 days') from many
), quiet as (
    insert into suppression (key, reason, source) select decode(md5('s' || n), 'hex'), 'asked', 'test' from many
)
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at, week_at, month_at)
select gen_random_uuid(), id, $3, $4, 1, $5, $1, 'live', 1, 0, 'USD', now(), now(), now(), now(), now(), now(), now()
from many
"""
SETTLED: Final = (
    "update lead set state = 'rejected', due_at = null where due_at > now() - interval '5900 seconds'",
    "update assignment a set state = 'released', due_at = null from lead l where l.id = a.lead_id and l.due_at is null",
)
TABLES: Final = ("inquiry", "lead", "assignment", "person_window", "suppression")


async def test_the_statements_of_every_lead_find_their_rows_by_an_index(owner: Any) -> None:
    world = World(owner)
    await world.make()
    await owner.execute(
        CROWD, world.provider, world.vertical, world.business, world.subscriptions["live"], world.endpoint
    )
    for statement in (*SETTLED, *(f"analyze {table}" for table in TABLES)):
        await owner.execute(statement)
    lead = await owner.fetchval("select id from lead limit 1")
    lease = now() - now()
    statements: dict[str, tuple[str, tuple[Any, ...], str]] = {
        "claim_due": (DELIVERY["claim_due"], (lease, 10), "assignment_due_soon"),
        "claim_due_leads": (WORKER["claim_due_leads"], (lease, 10), "lead_due_soon"),
        "find_earlier": (INTAKE["find_earlier"], (world.provider, "live", "key-7", "ref-7"), "inquiry_idempotency_key"),
        "find_status": (INTAKE["find_status"], (lead, world.provider, "live"), "Index Scan using lead_"),
        "find_lead_of_person": (
            JOURNEY["find_lead_of_person"], (world.vertical, [b"\x01", b"\x02"], [b"\x03"], now(), now()),
            "person_window_once",
        ),
        "list_statuses": (INTAKE["list_statuses"], (world.provider, "live", None, 50), "lead_whose"),
    }  # fmt: skip
    for name, (sql, values, index) in statements.items():
        plan = "\n".join(row[0] for row in await owner.fetch(f"explain {sql}", *values))
        assert index in plan, f"{name}\n{plan}"
        for table in TABLES:
            assert f"Seq Scan on {table} " not in plan, f"{name}\n{plan}"


MOVED: Final = """
select pg_stat_get_xact_tuples_updated('assignment'::regclass) as updated,
       pg_stat_get_xact_tuples_hot_updated('assignment'::regclass) as heap_only
"""


async def test_the_exposure_of_a_lead_writes_to_no_index_of_its_assignment(owner: Any) -> None:
    world = World(owner)
    await world.make()
    lead = await world.lead("held")
    attempt = (b"", "192.0.2.1", None, 1, now(), now(), "push")
    async with owner.transaction():
        exposed = await owner.fetch(
            DELIVERY["expose"], lead.id, lead.assignment_id, world.business, world.endpoint, *attempt
        )
        assert len(exposed) == 1
        assert dict(await owner.fetchrow(MOVED)) == {"updated": 1, "heap_only": 1}
