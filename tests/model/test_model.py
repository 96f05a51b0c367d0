"""The promises hold after any sequence of moves; and each promise, watched alone, is seen to break when a rule does."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from routing.calendar import window_starts
from routing.delivery import AttemptOutcome, Classification
from routing.inquiry import Mode
from routing.lifecycle import AssignmentState, LeadState
from routing.matching import Cap, CapsAndWallet
from tests.model.machine import PROMISES, STEPS, Machine, Moves, run
from tests.model.world import Claim, Exposure, Kind, Lead, Order, TransferKind, Visit, World

SHARDS = 5
STEPS_PER_SHARD = 20_000
SEED = 0
"From which each broken rule is found within 2,000 moves; from others the rarest takes 20,000."


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_sequence_of_moves_breaks_a_promise(shard: int) -> None:
    steps = 0
    while steps < STEPS_PER_SHARD:
        steps += run(shard * 1_000 + steps % 1_000, (STEPS_PER_SHARD - steps) // STEPS + 1)


class Unchecked(World):
    """A world whose life tables forbid nothing, so that a promise is watched without them."""

    def _move_lead(self, lead: Lead, state: LeadState) -> None:
        lead.state = state

    def _move_claim(self, claim: Claim, state: AssignmentState) -> None:
        claim.state = state


class FallsLikeWater(Unchecked):
    """The habit of the trade: whoever says no after reading, or cannot be reached again, yields to the next."""

    def _conclude(self, visit: Visit, result: Classification) -> None:
        if result.outcome is AttemptOutcome.accepted:
            super()._conclude(visit, result)
        else:
            self.release(visit.claim)


class RecordsNothing(Unchecked):
    """The exposure is written after the bytes, that is: not yet."""

    def expose(self, visit: Visit) -> bool:
        allowed = super().expose(visit)
        self.exposures = [exposure for exposure in self.exposures if exposure.claim is not visit.claim]
        return allowed


class ExposesForAll(Unchecked):
    """Every attempt writes an exposure of its own."""

    def expose(self, visit: Visit) -> bool:
        self.exposures.append(Exposure(visit.claim.lead, visit.claim, visit.claim.business))
        return super().expose(visit)


class TakesEverybody(Unchecked):
    """The person's window is not looked at."""

    def is_taken(self, person: int, mode: Mode, window: tuple[datetime, datetime]) -> bool:
        return False


class ForgetsKeys(Unchecked):
    """The same submission becomes another lead."""

    def submit(self, key: str, person: int, kind: Kind, mode: Mode) -> None:
        lead = self._take_in(key, person, kind, mode)
        self.leads.append(lead)
        self.answers.append((key, lead.id))


class LosesDuplicates(Unchecked):
    """An inquiry is acknowledged and not kept."""

    def submit(self, key: str, person: int, kind: Kind, mode: Mode) -> None:
        super().submit(key, person, kind, mode)
        self.leads = [lead for lead in self.leads if lead.state is not LeadState.duplicate]


class ForgetsTheReleased(Unchecked):
    """A released lead waits for nobody."""

    def release(self, claim: Claim) -> None:
        super().release(claim)
        claim.lead.due_at = None


class NurturesForYears(Unchecked):
    def _nurture(self, lead: Lead, until: datetime) -> None:
        super()._nurture(lead, until + timedelta(days=400))


class KeepsWhatItReleases(Unchecked):
    """The wallet does not get back what its entries say."""

    def _transfer(self, kind: TransferKind, claim: Claim) -> None:
        super()._transfer(kind, claim)
        if kind == "release":
            self.wallets[claim.business].available_minor -= claim.price_minor


class HoldsForEver(Unchecked):
    """A lapse gives nothing back."""

    def lapse(self, visit: Visit) -> None:
        self._move_claim(visit.claim, AssignmentState.lapsed)
        self._move_lead(visit.claim.lead, LeadState.lapsed)
        visit.claim.due_at, visit.claim.lead.ended_at = None, self.now


class TrustsTheWallet(Unchecked):
    """The award does not look at the wallet again."""

    def _standing_at_award(self, order: Order, now: datetime) -> CapsAndWallet:
        return msgspec.structs.replace(super()._standing_at_award(order, now), available_minor=1_000_000)


class ChargesForLapses(Unchecked):
    def lapse(self, visit: Visit) -> None:
        if visit.claim.state is AssignmentState.exposed:
            self._settled(visit.claim, AssignmentState.lapsed, LeadState.lapsed, "capture")


class ChargesTodaysPrice(Unchecked):
    """Settle at the current price of the subscription instead of the agreed one."""

    def _transfer(self, kind: TransferKind, claim: Claim) -> None:
        if kind in ("release", "capture"):
            claim.price_minor = self.orders[claim.number].definition.price_minor
        super()._transfer(kind, claim)


class CountsInTodaysWindow(Unchecked):
    """A release after midnight lowers the new day's count."""

    def _count(self, claim: Claim, caps: tuple[Cap, ...] | None) -> None:
        if caps is None:
            claim.starts = window_starts(self.now, self.orders[claim.number].definition.zone)
        super()._count(claim, caps)


class TrustsTheCap(Unchecked):
    """The award does not look at the caps again, and no CHECK stands behind it."""

    def _standing_at_award(self, order: Order, now: datetime) -> CapsAndWallet:
        return msgspec.structs.replace(super()._standing_at_award(order, now), usage={})


class LapsesAlone(Unchecked):
    """The assignment lapses and its lead stays behind."""

    def lapse(self, visit: Visit) -> None:
        before = visit.claim.lead.state
        super().lapse(visit)
        visit.claim.lead.state = before


class LapsesTheDelivered(Unchecked):
    """The deadline does not ask whether evidence came first."""

    def lapse(self, visit: Visit) -> None:
        self._settled(visit.claim, AssignmentState.lapsed, LeadState.lapsed, "release")


class ErasesTheContactAlone(Unchecked):
    """An erased person's lead walks on."""

    def erase(self, lead: Lead) -> None:
        lead.contact, lead.erased = False, True


BROKEN: tuple[tuple[str, type[World]], ...] = (
    ("i1_contact_reaches_one_business", FallsLikeWater),
    ("i2_nothing_is_seen_before_its_exposure", RecordsNothing),
    ("i3_one_exposure_of_a_live_assignment", ExposesForAll),
    ("i4_one_person_is_seen_once_per_window", TakesEverybody),
    ("i5_a_key_has_one_answer", ForgetsKeys),
    ("i6_what_was_acknowledged_is_there", LosesDuplicates),
    ("i7_whoever_waits_is_looked_at_again", ForgetsTheReleased),
    ("i8_nothing_waits_beyond_its_deadline", NurturesForYears),
    ("i9_cached_balances_are_the_sums_of_their_entries", KeepsWhatItReleases),
    ("i10_what_is_held_is_the_price_of_what_is_open", HoldsForEver),
    ("i11_no_wallet_is_overdrawn", TrustsTheWallet),
    ("i12_charged_once_and_only_with_evidence_and_exposure", ChargesForLapses),
    ("i13_the_price_is_the_quoted_one", ChargesTodaysPrice),
    ("i14_usage_counts_what_was_not_released_and_passes_no_cap", CountsInTodaysWindow),
    ("i14_usage_counts_what_was_not_released_and_passes_no_cap", TrustsTheCap),
    ("i15_the_lead_follows_its_assignment", LapsesAlone),
    ("i16_evidence_and_lapse_exclude_each_other", LapsesTheDelivered),
    ("i20_nobody_is_shown_after_asking_to_be_forgotten", ErasesTheContactAlone),
)


@pytest.mark.parametrize(("promise", "world"), BROKEN, ids=[world.__name__ for _, world in BROKEN])
def test_a_broken_rule_is_found_by_the_promise_that_it_breaks(promise: str, world: type[World]) -> None:
    watching: dict[str, Any] = {
        "check": Machine.__dict__[promise],
        "make": world,
        "come_to_rest": lambda _self: None,
    }
    number = promise.partition("_")[0].upper()
    with pytest.raises(AssertionError, match=number):
        run(SEED, 1_000, machine=type("Watching", (Moves,), watching), shrink=False)


def test_every_promise_has_a_rule_that_breaks_it() -> None:
    assert {promise for promise, _ in BROKEN} == set(PROMISES)
