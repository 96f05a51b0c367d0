"""Every statement that names a tenant, in a world of two: it neither reads nor changes what is the other's.

The second tenant is a twin of the first: each of its rows copied, with ids of its own. A statement is then run for the
first tenant with whatever values, the twin's ids among them, and once more with one condition on the tenant replaced by
`true`. The first run must show and touch nothing of the twin; some values must make the second one differ, so that a
condition that nobody would miss is found here, and one that is lost fails the test of its statement.
"""

import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

import marketplace
from marketplace.database.db import Queries
from marketplace.portal import flow
from marketplace.portal.store import Role
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.feedback import Desk, ago, desk
from tests.builders.inquiries import roofing_body
from tests.builders.lists import fill_list
from tests.builders.portal import signed_in

PACKAGE: Final = Path(marketplace.__file__).parent
TENANT: Final = re.compile(
    r"(?:\w+\.)?(business_id|provider_id|owner_id|member_id|of_business|of_provider)"
    r"\s*(?:=|is not distinct from)\s*\$(\d+)(?:::uuid)?"
)
"A condition on the tenant that is an argument; conditions between columns are joins."

SHARED: Final = {
    "vertical", "vertical_version", "catalog_change", "catalog_version", "reference_data", "postal_area", "audit_block",
    "schema_migration",
}  # fmt: skip
"Tables that belong to no tenant."
DERIVED: Final = re.compile("report_|kept_|exclusive_|lead_figure|.*_other$|.*_[0-9]{4}_?[0-9]{2}$")
"Tables that reports make of the others, and partitions."

DOUBLED: Final[dict[tuple[str, str], str]] = {
    ("portal/business/queries.sql", "list_attempts"): "an attempt is its assignment's business's",
    ("funds/queries.sql", "list_lead_lines"): "an entry is its assignment's business's",
    ("portal/business/queries.sql", "list_sources"): "what is told of a lead is joined to the business's own leads",
    ("portal/provider/queries.sql", "sum_months"): "the first month is that of the provider's own first transfer",
    ("funds/queries.sql", "list_statement"): "a wallet's lines are those of its business",
    ("feedback/queries.sql", "undo_dispositions"): "the rows that are looked for are those that are changed",
    ("shared_leads/queries.sql", "undo_part"): "a shared lead is its import's business's",
}  # fmt: skip
"Statements that ask for the tenant twice, of rows that belong together: both conditions are taken out at once."
MONEY: Final = (
    "several arguments must fit one assignment; tests/marketplace/ledger/test_money.py and tests/model move two wallets"
)
EXEMPT: Final[dict[tuple[str, str], str]] = {
    ("delivery/queries.sql", "settle_accepted"): MONEY,
    ("ledger/money.sql", "top_up"): MONEY,
    ("ledger/money.sql", "release"): MONEY,
    ("ledger/money.sql", "capture"): MONEY,
    ("ledger/money.sql", "refund"): MONEY,
    ("feed/queries.sql", "expose"): "it takes a held lead; tests/marketplace/feed/test_feed.py has two readers",
    ("operations/fence.sql", "find_zone"): "it compares a journal's line with the terms of its own subscription",
    ("portal/provider/queries.sql", "list_rejected"): "it takes a rejected lead with its decision",
    ("shared_leads/queries.sql", "list_known"): "it takes two lists; tests/marketplace/shared_leads has two businesses",
    ("feedback/stages.sql", "save_stages"): "it takes lists; feedback/test_stages.py has two businesses",
    ("feedback/stages.sql", "insert_unmapped"): "it takes lists of reports, and counts those that are kept",
    ("directory/queries.sql", "has_suspended"): "it answers yes or no; tests/walk/test_quotas.py has two businesses",
    ("imports/queries.sql", "save_mapping"): "it takes a mapping; portal/test_changes.py has two owners",
    ("learning/queries.sql", "count_sales"): "it counts charged leads; learning/test_job.py has two businesses",
    ("reports/roi.sql", "list_own"): "it reads what reports keep; tests/marketplace/reports have two businesses",
}  # fmt: skip
"Statements that need more than values tried by chance, with where else two tenants meet them."

CONDITIONS: Final = {
    "certificates/queries.sql": 1,
    "security/access.sql": 4,
    "security/auth.sql": 2,
    "delivery/bounces.sql": 1,
    "delivery/queries.sql": 1,
    "directory/mail_endpoints.sql": 1,
    "directory/queries.sql": 12,
    "distribution/queries.sql": 1,
    "erasure/queries.sql": 2,
    "feed/queries.sql": 10,
    "feedback/next_actions.sql": 6,
    "feedback/queries.sql": 14,
    "feedback/stage_changes.sql": 6,
    "feedback/stages.sql": 9,
    "notices/queries.sql": 3,
    "nurturing/queries.sql": 1,
    "suppression_lists/queries.sql": 6,
    "operations/fence.sql": 1,
    "revocations/queries.sql": 1,
    "funds/queries.sql": 7,
    "imports/queries.sql": 8,
    "intake/queries.sql": 4,
    "journey/queries.sql": 1,
    "learning/queries.sql": 1,
    "ledger/money.sql": 5,
    "portal/business/board.sql": 2,
    "portal/business/queries.sql": 14,
    "portal/operator/back_office_store.sql": 4,
    "portal/operator/lead_store.sql": 2,
    "portal/provider/queries.sql": 15,
    "portal/queries.sql": 9,
    "reports/quality.sql": 2,
    "reports/roi.sql": 4,
    "shared_leads/queries.sql": 5,
    "web_push/queries.sql": 4,
}  # fmt: skip
"How many conditions on the tenant each file has: one that is lost is not among those tried below."

NUMBERED_BY_OTHERS: Final = frozenset({"file_import", "import_row"})
"Tables whose position and number count the rows of the tenant's own file: they are the same for both."
MOST_TRIES: Final = 400


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on the tenant: in which statement, where in it, on which column and argument."""

    file: str
    name: str
    sql: str
    start: int
    end: int
    column: str
    argument: int

    @property
    def without(self) -> str:
        """The statement with this condition taken out; with all of them where they are doubled."""
        nothing = f"(true or ${self.argument}::uuid is null)"
        if (self.file, self.name) in DOUBLED:
            return TENANT.sub(lambda match: f"(true or ${match[2]}::uuid is null)", self.sql)
        return self.sql[: self.start] + nothing + self.sql[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.name}:{self.start}"


def sites() -> Iterator[Site]:
    for path in sorted(PACKAGE.rglob("*.sql")):
        for name, text in Queries(str(path), path.name).statements.items():
            sql = "\n".join(line.partition("--")[0] for line in text.splitlines())
            for match in TENANT.finditer(sql):
                yield Site(
                    file=str(path.relative_to(PACKAGE)), name=name, sql=sql, start=match.start(), end=match.end(),
                    column=match[1], argument=int(match[2]),
                )  # fmt: skip


SITES: Final = tuple(sites())


class Pair:
    """Two tenants of each kind, alike but for their ids; what each column of either holds."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.twins: dict[UUID, UUID] = {}
        self.words: dict[str, str] = {}
        self.shared: set[UUID] = set()
        self.own: dict[tuple[str, str], list[Any]] = {}
        self.theirs: dict[tuple[str, str], list[Any]] = {}
        self.tables: list[str] = []

    async def clone(self) -> None:
        """Copies every row that belongs to a tenant, under ids of its own."""
        rows = await self.connection.fetch(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') "
            "and not relispartition order by relname"
        )
        self.tables = [row[0] for row in rows if row[0] not in SHARED and not DERIVED.fullmatch(row[0])]
        self.shared = {row[0] for row in await self.connection.fetch("select id from vertical")}
        contents = {table: await self.connection.fetch(f'select * from "{table}"') for table in self.tables}
        for table, table_rows in contents.items():
            for row in table_rows:
                self._name_twins(table, row)
        await self.connection.execute("set session_replication_role = replica")
        for table, table_rows in contents.items():
            columns = await self.connection.fetch(
                "select attname, atttypid::regtype::text as type from pg_attribute where attrelid = $1::text::regclass "
                "and attnum > 0 and not attisdropped and attgenerated = ''", table,
            )  # fmt: skip
            for row in table_rows:
                await self._copy(table, [(column["attname"], column["type"]) for column in columns], row)
        await self.connection.execute("set session_replication_role = origin")

    def _name_twins(self, table: str, row: Any) -> None:
        for name, value in row.items():
            if isinstance(value, UUID) and value not in self.shared and value not in self.twins:
                self.twins[value] = twin = uuid4()
                self.words[str(value)] = str(twin)
                self.words[ids.encode("x", value)[2:]] = ids.encode("x", twin)[2:]
            names_one = name in ("email", "subject", "event_id", "idempotency_key") and table != "file_import"
            if names_one and isinstance(value, str):
                self.words.setdefault(value, self.words.get(value, f"twin.{value}"))
            if name == "key_id" or (name == "id" and isinstance(value, str)):
                self.words.setdefault(str(value), str(value)[::-1])

    def twin_of(self, value: Any, table: str, column: str) -> Any:
        match value:
            case UUID():
                return self.twins.get(value, value)
            case bytes() if value:
                return bytes((value[0] ^ 1, *value[1:]))
            case str():
                return re.sub("|".join(map(re.escape, self.words)), lambda found: self.words[found[0]], value)
            case int() if column in ("position", "number") and table not in NUMBERED_BY_OTHERS:
                return value + 1_000_000
            case _:
                return value

    async def _copy(self, table: str, columns: list[tuple[str, str]], row: Any) -> None:
        values = [self.twin_of(row[name], table, name) for name, _ in columns]
        if values == [row[name] for name, _ in columns]:
            return
        for (name, _), value in zip(columns, values, strict=True):
            for pool, held in ((self.own, row[name]), (self.theirs, value)):
                if held is not None and held not in pool.setdefault((table, name), []):
                    pool[table, name].append(held)
        places = ", ".join(f"${at}::{kind}" for at, (_, kind) in enumerate(columns, 1))
        names = ", ".join(f'"{name}"' for name, _ in columns)
        await self.connection.execute(
            f'insert into "{table}" ({names}) overriding system value values ({places})', *values
        )

    async def digest(self, tables: Sequence[str]) -> list[str]:
        """Of the twin's rows in `tables`."""
        theirs = "|".join(str(twin) for twin in self.twins.values())
        return [
            await self.connection.fetchval(
                f"select md5(coalesce(string_agg(t::text, '' order by t::text), '')) from \"{table}\" t "
                "where t::text ~ $1", theirs,
            )
            for table in tables
        ]  # fmt: skip

    async def run(self, sql: str, values: Sequence[Any], tables: Sequence[str]) -> tuple[list[str], list[str]]:
        """The rows of the statement and a digest of what is the twin's afterwards; all is undone."""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            rows = await self.connection.fetch(sql, *values)
            return sorted(repr(tuple(row)) for row in rows), await self.digest(tables)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return [f"refused: {type(error).__name__}"], []
        finally:
            await transaction.rollback()


async def _furnish_mail(made: Desk) -> None:
    """A test message of the business, which came back."""
    endpoint_id, mail_id = made.buyer.endpoint_id, clock.new_id()
    await made.api.pool.execute(
        "insert into outgoing_mail (id, kind, business_id, endpoint_id, recipient, occasion, state, give_up_at, "
        "made_at, sent_at) values ($1, 'test', $2, $3, $4, 'a test', 'sent', now(), now(), now())",
        mail_id,
        made.buyer.business_id,
        endpoint_id,
        f"{endpoint_id}@roofs.example",
    )
    await made.api.pool.execute(
        "insert into mail_bounce (id, digest, business_id, endpoint_id, mail_id, status, received_at) "
        "values (gen_random_uuid(), sha256($1::uuid::text::bytea), $2, $3, $1, '5.1.1', now())",
        mail_id,
        made.buyer.business_id,
        endpoint_id,
    )


async def _furnish(made: Desk) -> None:
    """Something in every table that a tenant has rows in."""
    api, told = made.api, made.call
    certified: dict[str, Any] = roofing_body(now=clock.now())["consent"]
    certified |= {"certificates": [f"https://cert.trustedform.com/{'0f' * 20}"]}
    leads = [await made.sold(1, consent=certified), *[await made.sold(number) for number in range(2, 5)]]
    await made.tell(leads[0], kind="won", value_minor=5_000, event_id="event-of-a-disposition")
    await made.give_back(leads[1], reason="other", note="x")
    returned = (await told("GET", "/v1/returns")).json()["data"][0]["id"]
    await made.judge(returned, "granted")
    await told("POST", "/v1/erasures", {"lead_id": leads[2], "reason": "asked"}, by="operator")
    for stage in ("Signed", "Somewhere"):
        await made.tell(leads[0], stage=stage, event_id=f"event-of-{stage}")
    await told("PUT", "/v1/pipeline", {"stages": [{"stage": "Signed", "kind": "won"}]})
    await made.tell(leads[3], stage="Signed", value_minor=1)
    await made.tell(leads[3], kind="contacted")
    office = await signed_in(api, CallerKind.business, made.buyer.business_id)
    endpoint = {"endpoint": ids.encode("whe", made.buyer.endpoint_id)}
    await office.post("/business/board/stages/changes", endpoint)
    await made.tell(leads[0], kind="contacted")
    action = {"note": "call", "due_at": f"{clock.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"}
    await office.post(f"/business/leads/{leads[3]}/next-action", action)
    await office.post(f"/business/leads/{leads[3]}/outcome", {"kind": "quoted"})
    for _ in range(2):
        await told("POST", "/v1/feedback-hook")
    await told("POST", "/v1/revocation-hook", by="provider")
    await fill_list(made.market, made.buyer)
    shared = {"vendor": "v", "external_id": "1", "received_at": ago(days=1), "cost_minor": 1, "currency": "USD"}
    await told("POST", "/v1/shared-leads", {"leads": [shared]})
    await told("PUT", "/v1/roi-assumptions", {"source": "a guess", "currency": "USD"})
    terms = f"/v1/verticals/roofing/terms/{made.business_id}"
    await told("PUT", terms, {"weight": 2}, by="operator")
    for pointer in ("*", "/contact/phone"):  # as the api counts them, now and then
        await api.pool.execute(
            "insert into refusal_count values ($1, 'live', date_trunc('hour', now()), $2, 'phone_invalid', 1)",
            made.market.provider.owner, pointer,
        )  # fmt: skip
        await api.pool.execute(
            "insert into refusal_example values ($1, 'live', $2, 'phone_invalid', '000', now())",
            made.market.provider.owner, pointer,
        )  # fmt: skip
    await told("POST", "/v1/suppressions", {"email": "a@example.com", "reason": "asked"}, by="provider")
    top_up = {"business_id": made.business_id, "amount_minor": 100, "currency": "USD", "event_id": "event-of-a-top-up"}
    await told("POST", "/v1/top-ups", top_up, by="operator")
    for kind, owner in (
        (CallerKind.business, made.buyer.business_id),
        (CallerKind.provider, made.market.provider.owner),
    ):
        member = await signed_in(api, kind, owner)
        await flow.invite(made.market.api, "a test", kind, owner, Role.member, f"{kind}@invited.example")
        key = (await api.key(kind, owner)).split("_")[2]
        await api.pool.execute("update portal_session set factor = 'x'")
        for subject, way in ((str(member.member_id), "member"), (key, "key")):
            await api.pool.execute(
                "insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at) "
                "values ($1, $2, $3, $4, 'mem_x', 'helps', now())", subject, kind, owner, way,
            )  # fmt: skip
        await api.pool.execute(
            "insert into one_time_link (token_hash, purpose, member_id, made_by, made_at, expires_at) "
            "values (sha256($1::text::bytea), 'reset', $2, 'x', now(), now() + interval '1 h')",
            str(member.member_id), member.member_id,
        )  # fmt: skip
    await api.pool.execute("insert into onboarding values ($1, '{}', now())", made.buyer.business_id)
    await api.pool.execute(
        "insert into answer_alarm (id, endpoint_id, business_id, kind, opened_at, last_at, lead_id, status, "
        "content_type) values (gen_random_uuid(), $1, $2, 'new_shape', now(), now(), $3, 200, 'text/html')",
        made.buyer.endpoint_id, made.buyer.business_id, ids.decode("lead", leads[0]),
    )  # fmt: skip
    await _furnish_mail(made)
    await api.pool.execute("insert into go_live (provider_id) values ($1)", made.market.provider.owner)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        await _furnish(made)
        connection = await asyncpg.connect(settings.database_url)
        try:
            pair = Pair(connection)
            await _feed(connection, made)
            await _files(connection, made)
            await _waiting(connection, made)
            await pair.clone()
            yield pair
        finally:
            await connection.close()


async def _feed(connection: Any, made: Desk) -> None:
    """One lead as if it had been shown in the business's feed and not been acknowledged; a key for each inquiry."""
    await connection.execute("set session_replication_role = replica")
    await connection.execute("insert into feed (business_id, mode, last_position) values ($1, 'live', 1)",
                             made.buyer.business_id)  # fmt: skip
    await connection.execute(
        "insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at) "
        "select business_id, mode, 1, 'lead.assigned', id, now() from assignment where business_id = $1 "
        "and state = 'delivered' limit 1", made.buyer.business_id,
    )  # fmt: skip
    await connection.execute(
        "update assignment set state = 'exposed', due_at = now(), evidence_until = now() + interval '1 h', "
        "evidence = null, settled_at = null where id = (select assignment_id from feed_event)"
    )
    await connection.execute(
        "update lead set state = 'exposed' where id = (select lead_id from assignment where state = 'exposed')"
    )
    await connection.execute("update inquiry set idempotency_key = 'the key of ' || id")
    await connection.execute(
        "insert into endpoint (id, business_id, kind, state, breaker, verified_at) "
        "values (gen_random_uuid(), $1, 'feed', 'active', '{\"opened_count\": 1}', now())", made.buyer.business_id,
    )  # fmt: skip
    inbox = await connection.fetchval(
        "insert into endpoint (id, business_id, kind, state, breaker, verified_at) "
        "values (gen_random_uuid(), $1, 'inbox', 'active', '{\"opened_count\": 1}', now()) returning id",
        made.buyer.business_id,
    )
    await connection.execute("update assignment set endpoint_id = $1 where state = 'exposed'", inbox)
    await connection.execute(
        "insert into push_subscription (id, member_id, url, url_sha256, keys, device, made_at) "
        "select gen_random_uuid(), id, 'https://push.example/' || id, sha256(id::text::bytea), 'x', 'x', now() "
        "from member where kind = 'business'"
    )
    await connection.execute("set session_replication_role = origin")


async def _waiting(connection: Any, made: Desk) -> None:
    """A lead of the provider that waits, and one that was kept away from the business as its customer."""
    receipt = await made.market.submit(5)
    await connection.execute("set session_replication_role = replica")
    await connection.execute(
        "update lead set state = 'nurturing', due_at = now() + interval '1 day' where id = $1", receipt.id
    )
    await connection.execute("insert into kept_away values ($1, $2, now())", made.buyer.business_id, receipt.id)
    await connection.execute("set session_replication_role = origin")


async def _files(connection: Any, made: Desk) -> None:
    """Imports that were looked at and that run, a disposition that came with one, and a suspended subscription."""
    business = made.buyer.business_id
    await connection.execute("set session_replication_role = replica")
    for subject in ("shared_leads", "dispositions"):
        for state in ("previewed", "running"):
            await connection.execute(
                "insert into file_import (id, business_id, subject, source, mode, state, actor, digest, mapping, rows, "
                "due_at, made_at) values (gen_random_uuid(), $1, $2, 'csv', 'live', $3, 'x', sha256($2::text::bytea), "
                "'{}', 1, case when $3 = 'running' then now() end, now())", business, subject, state,
            )  # fmt: skip
    await connection.execute("insert into import_file (import_id, box, made_at) select id, 'x', now() from file_import "
                             "where state in ('previewed', 'running')")  # fmt: skip
    await connection.execute(
        "update disposition set file_import_id = (select id from file_import where subject = 'dispositions' limit 1)"
    )
    await connection.execute("update unmapped_report set file_import_id = (select id from file_import limit 1)")
    await connection.execute(
        "insert into subscription overriding system value select (jsonb_populate_record(null::subscription, "
        "to_jsonb(s) || jsonb_build_object('id', gen_random_uuid(), 'number', 999, 'state', 'suspended', "
        "'suspended_for', 'refusals', 'suspended_at', now(), 'suspended_counted', 5, 'suspended_shown', 5))).* "
        "from subscription s where business_id = $1 limit 1", business,
    )  # fmt: skip
    await connection.execute("set session_replication_role = origin")


def candidates(site: Site, at: int, kind: str, pair: Pair) -> list[Any]:
    """Values worth trying for the argument `at`: the first tenant's where it names the tenant, else the twin's too."""
    around = [
        match[1] or match[3]
        for match in re.finditer(
            rf"(?:\w+\.)?(\w+)\s*(=|<>|<=|>=|<|>|is not distinct from|is distinct from)\s*(?:any\s*\(\s*)?\${at}\b"
            rf"|\${at}(?:::[\w\[\]]+)?\s*(?:=|<=|>=|<|>)\s*(?:\w+\.)?(\w+)", site.sql,
        )
    ]  # fmt: skip
    if at == site.argument:
        column_name = {"of_business": "business_id", "of_provider": "provider_id"}.get(site.column, site.column)
        return list(
            dict.fromkeys(value for (_, column), held in pair.own.items() if column == column_name for value in held)
        )
    named = set(re.findall(r"\w+", site.sql))
    held = [
        value for pool in (pair.theirs, pair.own) for (table, column), values in pool.items()
        if table in named and column in around for value in values
    ]  # fmt: skip
    array = kind.endswith("[]") or kind.startswith("_")
    usual: dict[str, list[Any]] = {
        "uuid": [None, uuid4(), *pair.twins.values(), *pair.twins],
        "text": [None, "live", "business", "provider", "lead.assigned", "UTC"],
        "int4": [100, 1, 0], "int8": [1_000, 1, 0], "bool": [True, False], "interval": [timedelta(days=1)],
        "timestamptz": [datetime(1971, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC), clock.now(), None],
        "date": [date(2026, 1, 1)], "bytea": [None, b"x"], "jsonb": ["{}"], "float8": [1.0], "numeric": [1],
        "bpchar": [None, "USD"],
    }  # fmt: skip
    plain = kind.removesuffix("[]").removeprefix("_")
    fitting = [value for value in held if _fits(value, plain)]
    if array:
        return [fitting or [value for value in usual.get(plain, [None]) if value is not None]]
    if plain in ("timestamptz", "int4", "int8"):
        return list(dict.fromkeys([*usual[plain], *fitting[:2]]))
    return list(dict.fromkeys([None, *fitting] if fitting else usual.get(plain, [None])))


def _often_none(site: Site, at: int, values: list[Any]) -> list[Any]:
    """The values with so many times None that a filter which may be left out is left out in every second try."""
    is_filter = at != site.argument and re.search(rf"\${at}::\w+ is null or", site.sql)
    return [None] * len(values) + values if is_filter else values


def _fits(value: Any, kind: str) -> bool:
    shapes: dict[str, type | tuple[type, ...]] = {
        "uuid": UUID, "text": str, "bpchar": str, "int4": int, "int8": int, "bool": bool, "bytea": bytes,
        "timestamptz": datetime,
    }  # fmt: skip
    return kind in shapes and isinstance(value, shapes[kind])


async def missed(pair: Pair, site: Site) -> tuple[bool, list[str]]:
    """Whether anybody would miss the condition, and what the statement shows or changes of the twin with it."""
    parameters = (await pair.connection.prepare(site.sql)).get_parameters()
    pools = [_often_none(site, at, candidates(site, at, kind.name, pair)) for at, kind in enumerate(parameters, 1)]
    touched = re.findall(r"(?:update|insert into|delete from) (\w+)", site.sql)
    tables = [table for table in dict.fromkeys(touched) if table in pair.tables]
    before = await pair.digest(tables)
    theirs = [str(twin) for twin in pair.twins.values()]
    wrong: list[str] = []
    for values in itertools.islice(_spread(site, pools), MOST_TRIES):
        rows, after = await pair.run(site.sql, values, tables)
        if after and after != before:
            wrong.append(f"{site} changes the twin's rows with {values}")
        passed_ids = {str(value) for value in values if isinstance(value, UUID)}
        wrong += [
            f"{site} shows {twin}" for twin in theirs if twin not in passed_ids and any(twin in row for row in rows)
        ]
        if (rows, after) != await pair.run(site.without, values, tables):
            return True, wrong
    return False, wrong


def _spread(site: Site, pools: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Combinations by a chance that is the same each time."""
    chance = Random(str(site))
    while True:
        yield tuple(chance.choice(pool) for pool in pools)


async def test_no_statement_that_names_a_tenant_reads_or_changes_anothers_rows(pair: Pair) -> None:
    unmissed, wrong = [], []
    for site in SITES:
        if (site.file, site.name) in EXEMPT:
            continue
        noticed, faults = await missed(pair, site)
        wrong += faults
        if not noticed:
            unmissed.append(str(site))
    assert wrong == []
    assert not unmissed, "nobody would miss these conditions:\n" + "\n".join(unmissed)


def test_no_condition_on_a_tenant_was_lost() -> None:
    assert Counter(site.file for site in SITES) == CONDITIONS


def test_what_is_exempt_is_there() -> None:
    assert EXEMPT.keys() | DOUBLED.keys() <= {(site.file, site.name) for site in SITES}
