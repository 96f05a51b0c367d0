"""Compute one simulation: read leads page by page, decide about each by every set of rules, compare at the end.

It keeps the processor busy, so that a service does it in a process of its own (`flow.py`).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from uuid import UUID

from marketplace.database.db import Pool, session
from marketplace.simulations import loading
from marketplace.simulations.changes import SimulatedTime, SimulationFault
from marketplace.simulations.comparison import Comparison, LeadFact, compare, lead_facts
from marketplace.simulations.simulator import SimulatedRules, Simulator
from marketplace.simulations.suggestions import Variant, list_variants
from marketplace.simulations.wire import SimulationResult, Suggestion
from marketplace.simulations.wording import describe_reproduction, describe_result, describe_suggestion, notes_of
from marketplace.text.faults import Fault

MOST_LEADS: Final = 200_000
"Leads of one simulation: what became of each one is in memory until the end."
MOST_SUGGESTION_LEADS: Final = 50_000
"Leads for which suggestions are tried: some twenty-five sets of rules are."

Report = Callable[[int, int], Awaitable[None]]
"Called with the leads decided about and all leads; it raises an error to stop the computation."


def lead_faults(leads: int, *, suggest: bool) -> tuple[Fault, ...]:
    """Return a fault if the time has more leads than a simulation, or the suggestions, may cover."""
    most = MOST_SUGGESTION_LEADS if suggest else MOST_LEADS
    if leads <= most:
        return ()
    detail = f"This time has {leads:,} leads; choose one with at most {most:,}."
    return (Fault(pointer="/from", code=SimulationFault.too_many_leads, detail=detail),)


async def simulate(
    pool: Pool, before: SimulatedRules, change: str, after: SimulatedRules, time: SimulatedTime, report: Report
) -> SimulationResult:
    """Compare the rules `after` with those `before`, on the leads of the time. `change` is the difference in words.

    Raises what `report` raises.
    """
    run = _Run(before, (Variant(change=change, rules=after),), time)
    await run.read(pool, report)
    [comparison] = run.compare()
    currency = before.vertical.definition.currency
    sentences = (*describe_result(change, comparison, currency), *run.notes())
    return run.result(sentences, comparison=comparison)


async def suggest(
    pool: Pool, rules: SimulatedRules, names: Mapping[UUID, str], time: SimulatedTime, report: Report
) -> SimulationResult:
    """Try small changes one by one, and list those that change anything, the largest gain of revenue first.

    `names` are those of the businesses. Raises what `report` raises.
    """
    variants = list_variants(rules, dict(names))
    run = _Run(rules, variants, time)
    await run.read(pool, report)
    currency = rules.vertical.definition.currency
    comparisons = run.compare()
    suggestions = [
        Suggestion(
            change=variant.change,
            sentence=describe_suggestion(variant.change, comparison, currency, names),
            sold_a_week=comparison.sold_a_week,
            revenue_a_week=comparison.revenue_a_week,
            wins_lost_a_week=comparison.wins_lost_a_week,
        )
        for variant, comparison in zip(variants, comparisons, strict=True)
        if comparison.before != comparison.after or comparison.moved
    ]
    suggestions.sort(key=lambda suggestion: -suggestion.revenue_a_week.value)
    tried = f"{len(variants)} changes were tried one by one; {len(suggestions)} of them make a difference."
    reproduced = (describe_reproduction(each.reproduction) for each in comparisons[:1])
    return run.result((tried, *reproduced, *run.notes()), suggestions=tuple(suggestions))


class _Run:
    """Simulations of the unchanged rules, of each variant, and of the rules as they were, on the same leads."""

    def __init__(self, rules: SimulatedRules, variants: tuple[Variant, ...], time: SimulatedTime) -> None:
        self._rules, self._time = rules, time
        self._all = (rules, *(variant.rules for variant in variants))
        self._facts: list[LeadFact] = []
        self._simulators: list[Simulator] = []

    async def read(self, pool: Pool, report: Report) -> None:
        """Decide about all leads of the time."""
        vertical_id = self._rules.vertical.id
        async with session(pool) as connection:
            self._counts = await loading.count_leads(connection, vertical_id, self._time)
            self._versions = await loading.count_versions(connection, vertical_id, self._time)
            recorded = await loading.load_recorded_rules(connection, self._rules, self._time)
            start = await loading.load_start(connection, (*self._all, recorded.every_version), self._time)
        total = self._counts.replayable
        since, until = self._time.since, self._time.until
        self._simulators = [Simulator(rules, start.accounts, start.movements, since, until) for rules in self._all]
        self._recorded = self._simulators[0]
        if recorded.edits or recorded.start != self._rules:
            edits = recorded.edits
            self._recorded = Simulator(recorded.start, start.accounts, start.movements, since, until, edits)
            self._simulators.append(self._recorded)
        await report(0, total)
        async for leads in loading.read_leads(pool, vertical_id, self._time):
            self._facts += lead_facts(leads, self._time.since)
            for simulator in self._simulators:
                simulator.add(leads)
            await report(len(self._facts), max(total, len(self._facts)))
        for simulator in self._simulators:
            simulator.finish()

    def compare(self) -> list[Comparison]:
        """Return the comparison of each variant with the unchanged rules."""
        unchanged, *variants = self._simulators[: len(self._all)]
        since, until = self._time.since, self._time.until
        return [compare(self._facts, self._recorded, unchanged, variant, since, until) for variant in variants]

    def notes(self) -> tuple[str, ...]:
        """Return the sentences about what limits the result."""
        return tuple(notes_of(self._counts, self._versions))

    def result(
        self,
        sentences: tuple[str, ...],
        *,
        comparison: Comparison | None = None,
        suggestions: tuple[Suggestion, ...] = (),
    ) -> SimulationResult:
        """Return the result with what both kinds of simulation have."""
        return SimulationResult(
            currency=self._rules.vertical.definition.currency,
            sentences=sentences,
            left_out=self._counts,
            versions=self._versions,
            comparison=comparison,
            suggestions=suggestions,
        )
