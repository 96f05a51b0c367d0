"""The invented past: what the rules made of it, before any database sees it, and what is told of it."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from statistics import fmean
from typing import Any, Final
from uuid import UUID

import msgspec

from billing.pricing import SharePayout
from marketplace.demo import contacts
from marketplace.demo.history.arrivals import ZONE, arrivals
from marketplace.demo.history.loading import PERSONS, subscriptions_of
from marketplace.demo.history.outcomes import SalesTeam
from marketplace.demo.history.rows import COLUMNS, HistoryRows
from marketplace.demo.history.shared_leads import bought_elsewhere
from marketplace.demo.history.simulation import MARK, SimulatedHistory, Simulation
from marketplace.demo.people import People
from marketplace.demo.world import METROS, DemoBusiness, DemoWorld, draw_world
from marketplace.intake.postal import PostalArea
from marketplace.rules.catalog import ProviderTerms, Rules, Vertical
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded
from marketplace.security.sealing import Sealer
from marketplace.shared_leads.csv_import import subscription_fault
from routing.decision import CandidateRecord
from routing.inquiry import Mode
from routing.lifecycle import ASSIGNMENT_MOVES, LEAD_MOVES, AssignmentState, LeadState
from routing.matching import SubscriptionIndex
from routing.subscription import Subscription

UNTIL: Final = datetime(2026, 11, 20, 15, tzinfo=UTC)
SINCE: Final = UNTIL - timedelta(weeks=2)
FIRST: Final = contacts.phone_count() - PERSONS
CHANCE: Final = seeded("ids")


def drawn_id() -> UUID:
    """The same ones in every run, so that the same fortnight is told."""
    return clock.id_at(SINCE, CHANCE)


PROVIDERS: Final = tuple(drawn_id() for _ in range(3))


class Fortnight(msgspec.Struct, frozen=True, kw_only=True):
    """Two weeks of the demo's world, and what it was made from."""

    world: DemoWorld
    rules: Rules
    past: SimulatedHistory
    rows: dict[str, list[tuple[Any, ...]]]

    def table(self, name: str) -> list[dict[str, Any]]:
        return [dict(zip(COLUMNS[name], row, strict=True)) for row in self.rows[name]]


@cache
def fortnight() -> Fortnight:
    world = draw_world(7, UNTIL)
    owners = {drawn_id(): business for business in world.businesses}
    rules = subscriptions_of(_rules(world, owners), SINCE, UNTIL)
    simulation = Simulation(rules, owners, _areas(world), (), 7, UNTIL, poor=PROVIDERS[0])
    people = People(world, 7, len(PROVIDERS), {slug: slug for slug in world.verticals}, FIRST)
    past = simulation.run(zip(arrivals(seeded("here"), SINCE, UNTIL), people, strict=False), PROVIDERS, SINCE)
    urls = {
        subscription.endpoint_id: "http://127.0.0.1:9/leads"
        for subscription in rules.index.values()
        if subscription.endpoint_id
    }
    rows = HistoryRows(simulation, Sealer(bytes(range(32)), bytes(range(1, 33))), urls, rules.index)
    rows.add(past)
    return Fortnight(world=world, rules=rules, past=past, rows=rows.of)


def _rules(world: DemoWorld, owners: dict[UUID, DemoBusiness]) -> Rules:
    verticals = [
        Vertical(id=drawn_id(), slug=slug, version=1, definition=definition)
        for slug, definition in world.verticals.items()
    ]
    subscriptions = [
        Subscription(
            id=drawn_id(),
            business_id=key,
            endpoint_id=drawn_id(),
            vertical=business.vertical,
            country="US",
            mode=Mode.live,
            version=1,
            definition=business.definition,
            paused=business.paused,
        )
        for key, business in owners.items()
    ]
    return Rules(
        version=1,
        verticals={each.id: each for each in verticals},
        by_slug={each.slug: each for each in verticals},
        providers={
            key: ProviderTerms(id=key, state="active", payout=SharePayout(basis_points=6_000)) for key in PROVIDERS
        },
        index=SubscriptionIndex(subscriptions),
    )


def _areas(world: DemoWorld) -> dict[str, PostalArea]:
    """Each home in the middle of its metropolitan area, and all that are far in one place."""
    middles = [
        (code, metro.latitude, metro.longitude)
        for metro, homes in zip(METROS, world.homes.values(), strict=True)
        for code in homes
    ]
    places = (*middles, *((code, 61.2, -149.9) for code in world.far))
    return {
        code: PostalArea(country="US", code=code, city="Anywhere", latitude=latitude, longitude=longitude)
        for code, latitude, longitude in places
    }


def test_people_ask_in_order_of_time_and_more_by_day_than_by_night() -> None:
    moments = list(arrivals(seeded("any"), SINCE, UNTIL))
    assert moments == sorted(moments)
    assert 60 < len(moments) / 14 < 120
    hours = Counter(moment.astimezone(ZONE).hour for moment in moments)
    assert hours[11] > 4 * hours[3]


def test_a_small_firm_beside_a_large_one_gets_the_leads_that_are_due_to_it() -> None:
    """Its part of a lead is an eleventh, or less where others could have had the lead."""
    story = fortnight()
    small = next(business for business in story.world.businesses if business.slug == "builder-25")
    [own] = [each for each in story.rules.index.values() if each.definition == small.definition]
    due, won = 0.0, 0
    for decision in story.table("decision"):
        if decision["outcome"] == "held":
            won += decision["subscription_id"] == own.id
            records = msgspec.json.decode(decision["candidates"], type=tuple[CandidateRecord, ...])
            due += sum(dict(record.scores).get("part", 0) for record in records if record.subscription_id == own.id)
    assert due > 3
    assert abs(won - due) <= 1


def test_leads_of_the_poor_provider_are_won_more_seldom() -> None:
    leads: Counter[bool] = Counter()
    won: Counter[bool] = Counter()
    for walk in fortnight().past.walks:
        for sale in walk.sales:
            poor = walk.provider_id == PROVIDERS[0]
            leads[poor] += 1
            won[poor] += any(report.kind == "won" for report in sale.outcome.dispositions)
    assert 0 < won[True] / leads[True] < 0.6 * won[False] / leads[False]


def test_every_move_of_the_past_is_one_of_the_life_tables() -> None:
    for move in fortnight().table("move"):
        if move["left_state"] is None:
            continue
        if move["assignment_id"] is None:
            assert LeadState(move["entered_state"]) in LEAD_MOVES[LeadState(move["left_state"])]
        else:
            assert AssignmentState(move["entered_state"]) in ASSIGNMENT_MOVES[AssignmentState(move["left_state"])]


def test_the_last_move_of_each_lead_is_into_the_state_it_is_in() -> None:
    last = {move["lead_id"]: move["entered_state"] for move in fortnight().table("move") if not move["assignment_id"]}
    assert last == {lead["id"]: lead["state"] for lead in fortnight().table("lead")}


def test_no_wallet_is_ever_overdrawn_and_each_ends_with_the_sum_of_its_transfers() -> None:
    signs = {"top_up": 1, "hold": -1, "release": 1, "refund": 1}
    available: Counter[UUID] = Counter()
    for transfer in fortnight().table("transfer"):
        if transfer["kind"] in signs:
            available[transfer["business_id"]] += signs[transfer["kind"]] * transfer["amount_minor"]
            assert available[transfer["business_id"]] >= 0
    assert {key: available[key] for key in fortnight().past.balances} == fortnight().past.balances


def test_no_cap_is_passed() -> None:
    usage = fortnight().table("cap_usage")
    assert any(used["limit_count"] for used in usage)
    assert all(used["used_count"] <= (used["limit_count"] or 10**9) for used in usage)
    assert all(used["used_minor"] <= (used["limit_minor"] or 10**12) for used in usage)


def test_nobody_is_in_two_windows_at_once_and_nobody_of_the_stream_was_here_before() -> None:
    windows = sorted((row["key"], row["vertical_id"], row["during"]) for row in fortnight().table("person_window"))
    for (key, vertical, during), (key_after, vertical_after, after) in pairwise(windows):
        assert (key, vertical) != (key_after, vertical_after) or during.upper <= after.lower
    first = contacts.phone(FIRST)
    phones = {walk.accepted.contact.phone for walk in fortnight().past.walks}
    assert first in phones
    assert not phones & {contacts.phone(number) for number in range(3_000)}


def test_all_that_was_invented_is_marked_and_lies_in_the_past() -> None:
    made = fortnight()
    assert all(walk.accepted.facts.sub_ids.items() >= MARK.items() for walk in made.past.walks)
    assert {told["source"] for told in made.table("disposition")} == {"demo"}
    moments = [value for rows in made.rows.values() for row in rows for value in row if isinstance(value, datetime)]
    allowed = {lead["due_at"] for lead in made.table("lead")}
    allowed |= {one["evidence_until"] for one in made.table("assignment")}
    allowed |= {one["hold_until"] for one in made.table("assignment")}
    assert max(moment for moment in moments if moment not in allowed) < UNTIL


def test_whoever_comes_too_early_waits_and_is_never_left_waiting_past_the_day() -> None:
    waiting = [lead["due_at"] for lead in fortnight().table("lead") if lead["due_at"]]
    assert min(waiting) >= UNTIL
    assert len(waiting) == sum(lead["state"] == "nurturing" for lead in fortnight().table("lead"))


def test_every_way_in_which_a_lead_can_end_is_shown() -> None:
    states = {lead["state"] for lead in fortnight().table("lead")}
    assert states >= {"delivered", "returned", "refused", "unsold", "rejected", "nurturing", "duplicate"}
    assert {row["state"] for row in fortnight().table("return_request")} == {"requested", "granted", "denied"}
    assert "released" in {row["state"] for row in fortnight().table("assignment")}
    assert {told["kind"] for told in fortnight().table("disposition")} >= {"won", "lost", "unreachable", "quoted"}


def test_most_leads_are_contacted_and_about_one_in_ten_is_won() -> None:
    made = fortnight()
    delivered = sum(row["evidence"] is not None for row in made.table("assignment"))
    reports = made.table("disposition")
    contacted = len({report["assignment_id"] for report in reports if report["kind"] == "contacted"})
    assert 0.55 < contacted / delivered < 0.85
    assert 0.03 < sum(report["kind"] == "won" for report in reports) / delivered < 0.2


def test_whoever_is_contacted_sooner_is_won_more_often() -> None:
    made, later = fortnight(), UNTIL + timedelta(days=365)
    won: dict[bool, list[bool]] = {True: [], False: []}
    for number, business in enumerate(made.world.businesses):
        crew = SalesTeam(seeded(f"crew {number}"), business, business.vertical, later)
        for walk in made.past.walks:
            for sale in walk.sales:
                reports = {
                    each.kind: each for each in crew.work(sale.new, sale.delivery, walk.accepted.facts).dispositions
                }
                if "contacted" in reports:
                    soon = reports["contacted"].happened_at - sale.delivery.settled_at < timedelta(minutes=30)
                    won[soon].append("won" in reports)
    assert fmean(won[True]) > 1.3 * fmean(won[False])


def test_leads_bought_elsewhere_could_have_been_imported() -> None:
    world = fortnight().world
    business = world.businesses[0]
    rows = list(bought_elsewhere(seeded("there"), world, business, business.vertical, 300, SINCE, UNTIL))
    assert [subscription_fault(row, UNTIL) for row in rows] == [None] * 300
    assert all(row.cost_minor < business.definition.price_minor for row in rows)
    assert any(row.won_at for row in rows)
