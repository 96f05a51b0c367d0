"""The command `marketplace cards`, from training on stored leads to a roll-back."""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
from click.testing import CliRunner, Result

from marketplace.cli import marketplace as marketplace_command
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, StartError
from routing.scorecard import Scorecard
from tests.builders.inquiries import roofing_facts
from tests.builders.learning import a_member, store_card
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.conftest import SECRETS


async def run(settings: Settings, *arguments: str) -> Result:
    """Run the command in a thread, because it has an event loop of its own."""
    environment = SECRETS | {"DATABASE_URL": settings.database_url, "VALKEY_URL": settings.valkey_url}
    return await asyncio.to_thread(CliRunner().invoke, marketplace_command, ["cards", *arguments], env=environment)


def read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


STORE: Final = """
with made as (
    select gen_random_uuid() as id, gen_random_uuid() as assignment_id, gen_random_uuid() as transfer_id,
           number % 2 = 0 as decides,
           -- of the deciders two in three are won, of the others one in ten
           case when number % 2 = 0 then number % 6 <> 0 else number % 20 = 1 end as won,
           now() - interval '20 weeks' + number * interval '1 minute' as at
    from generate_series(1, 600) as number
), inquired as (
    insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
        consent_sha256, consent_given_at, submitted_at, received_at)
    select id, $1, $2, 'live', id::text, '', 'received',
           $3::jsonb || jsonb_build_object('authority', case when decides then 'decision_maker' else 'researcher' end),
           '', at, at, at
    from made
), leads as (
    insert into lead (id, provider_id, vertical_id, mode, state, received_at, settled_at)
    select id, $1, $2, 'live', 'delivered', at, at from made
), assignments as (
    insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
        mode, state, price_minor, payout_minor, currency, awarded_at, hold_until, exposed_at, evidence_until, evidence,
        settled_at, hour_at, day_at, week_at, month_at)
    select assignment_id, id, $4, $5, 1, $6, $1, 'live', 'delivered', 5000, 3000, 'USD', at, at, at, at, 'answer', at,
           at, at, at, at
    from made
), captures as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
    select transfer_id, 'capture', 5000, 'USD', $4, assignment_id, at from made
)
insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, happened_at, recorded_at, source)
select gen_random_uuid(), assignment_id, id, $4, case when won then 'won' else 'lost' end,
       case when won then 90000 end, at + interval '3 days', now(), 'api'
from made where won or right(id::text, 1) < '8'
"""


async def store_leads(market: Marketplace, buyer: Buyer) -> None:
    """Store 600 charged leads with outcomes, put there without the walks that would have made them."""
    facts = msgspec.json.encode(roofing_facts()).decode()
    async with market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            STORE,
            market.provider.owner,
            market.vertical_id,
            facts,
            buyer.business_id,
            buyer.subscription_id,
            buyer.endpoint_id,
        )


async def test_a_card_is_trained_from_stored_leads_and_shown(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    async with marketplace(settings) as market:
        await store_leads(market, await market.buyer("https://hooks.example.com/leads"))
        trained = await run(settings, "train", "--vertical", "roofing", "--json", str(file))
        assert trained.exit_code == 0, trained.output
        result = read(file)
        assert (result["version"], result["leads"], result["wins"]) == (1, 600, 230)
        assert result["auc"] > 0.75
        assert "Version 1 of roofing: 600 leads, 230 won" in trained.output
        shown = await run(settings, "show", "--vertical", "roofing", "--version", "1", "--json", str(file))
        assert "Version 1 is shadow." in shown.output
        points = {
            value: each["points"]
            for feature in read(file)["features"]
            if feature["name"] == "authority"
            for value, each in feature["bins"].items()
        }
        assert points["decision_maker"] > 0.5 > -0.5 > points["researcher"]
        listed = await run(settings, "list", "--vertical", "roofing")
        assert "shadow" in listed.output
        stored = await market.value("select document from scorecard")
        assert msgspec.json.decode(stored, type=Scorecard).trained_on.leads == 600
        early = await run(
            settings, "sign-off", "--vertical", "roofing", "--version", "1", "--member", "nobody@example.com"
        )
        assert isinstance(early.exception, StartError)
        assert "No operator" in early.exception.sentence
        member_id = await a_member(market)
        email = f"{member_id.hex}@example.com"
        early = await run(settings, "sign-off", "--vertical", "roofing", "--version", "1", "--member", email)
        assert isinstance(early.exception, StartError)
        assert "500 are needed" in early.exception.sentence
        assert clock.now() > await market.value("select trained_at from scorecard")


async def test_too_few_wins_are_refused_by_a_sentence_that_is_kept(settings: Settings) -> None:
    async with marketplace(settings) as market:
        refused = await run(settings, "train", "--vertical", "roofing")
        assert isinstance(refused.exception, StartError)
        assert refused.exception.sentence == "No card was trained from 0 leads."
        assert "a card needs 50" in refused.exception.remedy
        assert "a card needs 50" in await market.value("select refusal from scorecard_training")
        assert await market.value("select count(*) from scorecard") == 0


async def test_a_card_is_retired_and_a_roll_back_without_another_is_refused(settings: Settings) -> None:
    async with marketplace(settings) as market:
        await store_card(market)
        refused = await run(settings, "roll-back", "--vertical", "roofing", "--reason", "wrong")
        assert isinstance(refused.exception, StartError)
        assert "none to roll back" in refused.exception.sentence
        retired = await run(settings, "retire", "--vertical", "roofing", "--version", "1", "--reason", "wrong")
        assert retired.output == "Version 1 of roofing is retired.\n"
        unknown = await run(settings, "list", "--vertical", "unknown")
        assert isinstance(unknown.exception, StartError)
