"""Stream of invented inquiries, a share of which has some kind of flaw.

Everything but the time of day follows from the seed. Shares and distributions are plausible, not researched: budgets
are log-normal, most people want it soon, and about a third of the inquiries cannot be sold.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from marketplace.demo import contacts
from marketplace.demo.certificates import token_of
from marketplace.demo.verticals import CURRENCY, EDUCATION, HOME, PROGRAMMES, SERVICES, WANTED_ANSWERS
from marketplace.demo.world import DemoWorld
from marketplace.runtime.clock import seeded


class DraftKind(StrEnum):
    """Kind of an inquiry, by its flaw."""

    ready = "ready"
    """A flawless inquiry."""
    duplicate = "duplicate"
    """A person of an earlier inquiry, in a new submission."""
    repeated = "repeated"
    """A submission sent a second time under the same Idempotency-Key."""
    bad_phone = "bad_phone"
    """A telephone number that cannot exist."""
    no_consent = "no_consent"
    """No record of consent."""
    not_ready = "not_ready"
    """Wanted only in several months."""
    below_budget = "below_budget"
    """A budget below the vertical's minimum."""
    out_of_area = "out_of_area"
    """Lives where no business works."""
    wrong_need = "wrong_need"
    """A need that the vertical does not serve."""
    unanswered = "unanswered"
    """Leaves a question about the need open, for whose answer the lead waits."""


SHARES: Final = {
    DraftKind.duplicate: 0.03,
    DraftKind.repeated: 0.02,
    DraftKind.bad_phone: 0.02,
    DraftKind.no_consent: 0.01,
    DraftKind.not_ready: 0.06,
    DraftKind.below_budget: 0.06,
    DraftKind.out_of_area: 0.06,
    DraftKind.wrong_need: 0.03,
    DraftKind.unanswered: 0.03,
}
"""Shares of all inquiries by kind; all others are ready."""
HOME_SHARE: Final = 0.6
CERTIFIED: Final = 25
"One inquiry in so many has a certificate of consent, so that the others' speed is what the report shows."
LOOK_BACK: Final = 100
"""Least number of inquiries between a duplicate or repetition and its original, which has been answered by then."""
BAD_PHONES: Final = ("+1 000 555 0100", "555 0100", "+1 312 555 01", "call me", "+999 123 456")
SOURCES: Final = ("search", "search", "search", "social", "social", "partner", "newsletter", "coupons")
MEDIAN_BUDGET_MINOR: Final = {HOME: 900_000, EDUCATION: 600_000}
LEAST_BUDGET_MINOR: Final = {HOME: 210_000, EDUCATION: 160_000}
CONSENT: Final = "I agree that one company may call and write to me about my request. (An invented person's consent.)"


class InquiryDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One inquiry without its times. `of` is the number of an earlier inquiry that this one repeats.

    `left_open` are the questions about the need that the person does not answer and the lead waits for.
    """

    number: int
    kind: DraftKind
    vertical: str
    provider: int
    contact: dict[str, str]
    bant: dict[str, Any]
    attribution: dict[str, Any]
    ip: str
    touches: tuple[tuple[str, int, str], ...] = ()
    later_days: int | None = None
    of: int | None = None
    left_open: tuple[str, ...] = ()
    certificate: str | None = None

    def body(self, submitted_at: datetime) -> bytes:
        """Return the body that the provider sends. Consent was given a few seconds before the submission."""
        bant = self.bant
        if self.later_days is not None:
            bant = {**bant, "timing": {"not_before": (submitted_at + timedelta(days=self.later_days)).date()}}
        consent: dict[str, Any] = {
            "text": CONSENT,
            "given_at": submitted_at - timedelta(seconds=8),
            "page_url": f"https://www.example.com/{self.vertical}/ask",
            "ip": self.ip,
        }
        if self.certificate is not None:
            consent["certificates"] = [self.certificate]
        inquiry = {
            "vertical": self.vertical,
            "provider_reference": f"demo-{self.number}",
            "submitted_at": submitted_at,
            "contact": self.contact,
            "bant": bant,
            "attribution": self.attribution,
            "touches": [
                {"kind": kind, "at": submitted_at - timedelta(seconds=before), "detail": detail}
                for kind, before, detail in self.touches
            ],
        }
        return msgspec.json.encode(inquiry if self.kind is DraftKind.no_consent else inquiry | {"consent": consent})


class People:
    """Endless stream of drafts. `slugs` maps the names of verticals to their slugs in this installation.

    `first` is the number of the first person. Two streams have no person in common if their first numbers are further
    apart than the streams are long. With `certified`, each CERTIFIED-th inquiry has a certificate of consent.
    """

    def __init__(
        self,
        world: DemoWorld,
        seed: int,
        providers: int,
        slugs: dict[str, str],
        first: int = 0,
        *,
        certified: bool = False,
    ) -> None:
        self._world = world
        self._seed, self._certified = seed, certified
        self._random = seeded(f"people {seed}")
        self._providers = providers
        self._slugs = slugs
        self._persons = dict.fromkeys((HOME, EDUCATION), first)
        self._known: list[InquiryDraft] = []

    def __iter__(self) -> Iterator[InquiryDraft]:
        number = 0
        while True:
            draft = self._draw(number)
            if draft.kind is DraftKind.ready:
                self._known.append(draft)
            yield draft
            number += 1

    def _draw(self, number: int) -> InquiryDraft:
        kind = self._kind()
        if kind in (DraftKind.duplicate, DraftKind.repeated):
            earlier = [draft for draft in self._known[-3 * LOOK_BACK :] if draft.number <= number - LOOK_BACK]
            if earlier:
                before = self._random.choice(earlier)
                of = before.number if kind is DraftKind.repeated else None
                return msgspec.structs.replace(before, number=number, kind=kind, of=of)
            kind = DraftKind.ready
        return self._newcomer(number, kind)

    def _kind(self) -> DraftKind:
        lot = self._random.random()
        for kind, share in SHARES.items():
            if lot < share:
                return kind
            lot -= share
        return DraftKind.ready

    def _newcomer(self, number: int, kind: DraftKind) -> InquiryDraft:
        random = self._random
        vertical = HOME if kind is DraftKind.out_of_area or random.random() < HOME_SHARE else EDUCATION
        contact = contacts.person(random, self._persons[vertical], vertical[0])
        self._persons[vertical] += 1
        if kind is DraftKind.bad_phone:
            contact["phone"] = random.choice(BAD_PHONES)
        contact |= self._home(kind) if vertical == HOME else {"country": random.choice(("US", "US", "US", "CA"))}
        draft = InquiryDraft(
            number=number,
            kind=kind,
            vertical=self._slugs[vertical],
            provider=random.randrange(self._providers),
            contact=contact,
            bant=self._bant(vertical, kind),
            attribution={"source": random.choice(SOURCES), "form": f"ask-{random.randint(1, 4)}"},
            ip=contacts.internet_address(random),
            touches=self._touches(),
            later_days=random.randint(150, 300) if kind is DraftKind.not_ready else None,
            certificate=token_of(self._seed, number) if self._certified and number % CERTIFIED == 0 else None,
        )
        return _leave_open(draft) if kind is DraftKind.unanswered else draft

    def _home(self, kind: DraftKind) -> dict[str, str]:
        random = self._random
        if kind is DraftKind.out_of_area:
            code = random.choice(self._world.far)
        else:
            code = random.choice(self._world.homes[random.choice(tuple(self._world.homes))])
        return {"country": "US", "postal_code": code, "street": f"{random.randint(1, 999)} Example Street"}

    def _bant(self, vertical: str, kind: DraftKind) -> dict[str, Any]:
        random = self._random
        bant: dict[str, Any] = {"need": {"fields": self._need(vertical, kind)}}
        budget = self._budget_minor(vertical, kind)
        if budget is not None:
            bant["budget"] = {"minor": budget, "currency": CURRENCY}
        authority = random.choices(("decision_maker", "influencer", "researcher", None), (60, 20, 8, 12))[0]
        if authority is not None:
            bant["authority"] = authority
        if authority is not None and random.random() < 0.2:
            bant["evidence"] = {"authority": "inferred"}
        within = random.choices((7, 14, 30, 60, 90, None), (25, 20, 20, 15, 10, 10))[0]
        if within is not None:
            bant["timing"] = {"within_days": within}
        return bant

    def _budget_minor(self, vertical: str, kind: DraftKind) -> int | None:
        random = self._random
        if kind is DraftKind.below_budget:
            return random.randrange(30_000, 140_000, 1_000)
        if random.random() < 0.15:
            return None
        drawn = MEDIAN_BUDGET_MINOR[vertical] * random.lognormvariate(0.0, 0.6)
        return max(LEAST_BUDGET_MINOR[vertical], int(drawn) // 10_000 * 10_000)

    def _need(self, vertical: str, kind: DraftKind) -> dict[str, str | int | bool]:
        random, wrong = self._random, kind is DraftKind.wrong_need
        if vertical == EDUCATION:
            level = "school" if wrong else random.choice(("certificate", "certificate", "degree"))
            return {"programme": random.choice(PROGRAMMES), "level": level, "years_of_work": random.randint(0, 25)}
        service = random.choice(SERVICES)
        place = "commercial" if wrong else random.choice(("house", "house", "house", "apartment"))
        fields: dict[str, str | int | bool] = {"service": service, "property_type": place}
        if random.random() < 0.8:
            fields["owns_home"] = random.random() < 0.85
        if service == "roofing":
            fields["roof_type"] = random.choice(("shingle", "shingle", "tile", "metal", "flat"))
        return fields

    def _touches(self) -> tuple[tuple[str, int, str], ...]:
        random = self._random
        pages = ("/", "/prices", "/how-it-works", "/reviews", "/ask")
        count = random.randint(0, 4)
        return tuple(("page_view", 15 + 40 * (count - place), random.choice(pages)) for place in range(count))


def _leave_open(draft: InquiryDraft) -> InquiryDraft:
    """Return the draft without the answers that a lead waits for."""
    fields = draft.bant["need"]["fields"]
    left_open = tuple(name for name in fields if name in WANTED_ANSWERS)
    answered = {name: value for name, value in fields.items() if name not in left_open}
    return msgspec.structs.replace(draft, bant={**draft.bant, "need": {"fields": answered}}, left_open=left_open)
