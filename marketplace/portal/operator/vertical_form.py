"""Form for the rules of a vertical that are changed most often; all other rules are changed as JSON."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from marketplace.portal.business.leads import read_amount
from marketplace.portal.forms import Amount, ShownForm, label, show_form, split_codes, split_lines
from marketplace.portal.frame import field_amount, words
from routing.certificate import LONGEST_HOLD_SECONDS, CertificatePolicy, FailureConsequence
from routing.consent import Channel, ConsentPolicy
from routing.inquiry import amount_in_words
from routing.joining import PAY_IN_WORDS, PayJoined, RepeatInquiries
from routing.person import PERSON_IN_WORDS, SamePerson
from routing.qualification import LONGEST_NURTURE_DAYS, DimensionPolicy, NurtureDays, ResultConsequence
from routing.ranking import Strategy
from routing.subscription import PRICE_MINOR, PriceRange
from routing.vertical import MOST_DELAYED_PER_MILLE, MOST_EXPLORED_PER_MILLE, VerticalDefinition

CERTIFICATE_FAILURES: Final[dict[FailureConsequence, str]] = {
    FailureConsequence.reject: "The lead is not sold",
    FailureConsequence.hold: "The lead waits for an answer, then is not sold",
    FailureConsequence.accept_with_flag: "The lead is sold, and the business is told",
}
"What a failed certificate means, in words."

REPEATS: Final[dict[RepeatInquiries, str]] = {
    RepeatInquiries.duplicate: "It is a duplicate",
    RepeatInquiries.joined: "It is a duplicate, and its answers go to the earlier lead",
}
"Consequences of a repeated inquiry, in words."

RESULTS: Final[dict[ResultConsequence, str]] = {
    ResultConsequence.accept: "Only its points count",
    ResultConsequence.reject: "The lead is not sold",
    ResultConsequence.nurture: "The lead waits for a better answer",
}
"Consequences of a failing or unknown answer, in words."

LOW_SCORES: Final[dict[ResultConsequence, str]] = {
    ResultConsequence.accept: "The lead is sold all the same",
    ResultConsequence.reject: "The lead is not sold",
    ResultConsequence.nurture: "The lead waits for more points",
}
"Consequences of a low score, in words."

Texts = Annotated[str, Meta(max_length=1_000)]


class VerticalFiguresForm(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that are changed most often. Every other rule stays as it is."""

    minimum_score: Annotated[int, Meta(ge=0, le=100), label("Minimum score")]
    on_low_score: Annotated[ResultConsequence, label("If the score is lower")]
    budget_minimum: Annotated[Amount, label("Minimum budget, in {currency}")]
    within_days: Annotated[int, Meta(ge=0, le=3_650), label("Needed within, in days")]
    budget_fails: Annotated[ResultConsequence, label("If the budget is too low")]
    budget_unknown: Annotated[ResultConsequence, label("If the budget is not known")]
    authority_fails: Annotated[ResultConsequence, label("If the person may not decide")]
    authority_unknown: Annotated[ResultConsequence, label("If it is not known who decides")]
    need_fails: Annotated[ResultConsequence, label("If the need is not a wanted one")]
    need_unknown: Annotated[ResultConsequence, label("If a required answer is missing")]
    timing_fails: Annotated[ResultConsequence, label("If it is needed too late")]
    timing_unknown: Annotated[ResultConsequence, label("If it is not known when")]
    nurture_limit_days: Annotated[
        int,
        Meta(ge=0, le=LONGEST_NURTURE_DAYS),
        label("Waits for the person's own date for at most, in days", "A lead with a later date is needed too late."),
    ]
    nurture_days: Annotated[
        NurtureDays,
        label("Waits for an answer or points for at most, in days", "From the day on which the inquiry came."),
    ]
    patience_seconds: Annotated[int, Meta(ge=0, le=3_600), label("Waits for a business, in seconds")]
    reserve: Annotated[Amount, label("Lowest price of a lead, in {currency}")]
    strategy: Annotated[Strategy, label("Ranking")]
    job_minimum: Annotated[
        Amount | None, label("A job costs at least, in {currency}", "Compared with the budget and purchases.")
    ] = None
    job_maximum: Annotated[Amount | None, label("A job costs at most, in {currency}")] = None
    requires_named_seller: Annotated[
        bool,
        label(
            "Only to a business that the consent names",
            "A consent that names sellers is for them in any case. With this, one that names nobody is for nobody.",
        ),
    ] = False
    channels: tuple[Channel, ...] = ()
    purposes: Annotated[
        Texts,
        label("Only with consent to one of these purposes", "One in each line. Empty: any.", kind="textarea", rows=2),
    ] = ""
    jurisdictions: Annotated[
        Texts, label("Only with consent of these places", "Countries or states, such as US-CA US-TX. Empty: any.")
    ] = ""
    requires_certificate: Annotated[
        bool,
        label("Only with a certificate of consent", "An inquiry without one is refused, so tell your providers first."),
    ] = False
    certificate_failure: Annotated[FailureConsequence, label("If a certificate cannot be verified")] = (
        FailureConsequence.accept_with_flag
    )
    certificate_hold_seconds: Annotated[
        int,
        Meta(ge=60, le=LONGEST_HOLD_SECONDS),
        label("Waits for a certificate, in seconds", "Only where a lead waits for an answer. 60 to 3,600."),
    ] = 900
    same_person: Annotated[SamePerson, label("Two inquiries are one person's")] = SamePerson.either
    repeat_inquiries: Annotated[RepeatInquiries, label("If a person asks again")] = RepeatInquiries.duplicate
    provider_may_know: Annotated[
        bool, label("Tell the provider that an inquiry joined an earlier lead", "Not whose lead it is.")
    ] = False
    pay_joined: Annotated[
        PayJoined,
        label(
            "If other inquiries joined a lead before its delivery, its payout goes",
            "Providers that are paid must be told that their inquiry joined.",
        ),
    ] = PayJoined.first
    explore_per_mille: Annotated[
        int,
        Meta(ge=0, le=MOST_EXPLORED_PER_MILLE),
        label("Of 1,000 leads, so many in a random order", "Shows whether the ranking is better than chance. 0 to 50."),
    ] = 0
    delay_per_mille: Annotated[
        int,
        Meta(ge=0, le=MOST_DELAYED_PER_MILLE),
        label("Of 1,000 leads, so many wait before they are sold", "Shows what speed is worth. 0 to 50."),
    ] = 0
    delay_seconds: Annotated[int, Meta(ge=60, le=3_600), label("How long they wait, in seconds")] = 1_800


def show_figures(definition: VerticalDefinition) -> ShownForm:
    """Return the form with the rules of a definition."""
    prices = definition.price_range
    values: dict[str, object] = {
        "minimum_score": definition.minimum_score,
        "on_low_score": definition.on_low_score,
        "budget_minimum": field_amount(definition.budget.minimum_minor, definition.currency),
        "within_days": definition.timing.within_days,
        "nurture_limit_days": min(definition.timing.nurture_limit_days, LONGEST_NURTURE_DAYS),
        "nurture_days": definition.nurture_days,
        "patience_seconds": definition.patience_seconds,
        "reserve": field_amount(definition.reserve_minor, definition.currency),
        "strategy": definition.strategy,
        "job_minimum": _shown_price(prices.minimum_minor if prices else None, definition.currency),
        "job_maximum": _shown_price(prices.maximum_minor if prices else None, definition.currency),
        "requires_named_seller": "1" if definition.consent.requires_named_seller else "",
        "purposes": "\n".join(definition.consent.purposes),
        "jurisdictions": " ".join(definition.consent.jurisdictions),
        "requires_certificate": "1" if definition.certificate.required else "",
        "certificate_failure": definition.certificate.on_failure,
        "certificate_hold_seconds": definition.certificate.hold_seconds,
        "same_person": definition.same_person,
        "repeat_inquiries": definition.repeat_inquiries,
        "provider_may_know": "1" if definition.provider_may_know else "",
        "pay_joined": definition.pay_joined,
        "explore_per_mille": definition.explore_per_mille,
        "delay_per_mille": definition.delay_per_mille,
        "delay_seconds": definition.delay_seconds,
    }
    options = {
        "on_low_score": tuple(LOW_SCORES.items()),
        "strategy": [(strategy, words(strategy)) for strategy in Strategy],
        "certificate_failure": tuple(CERTIFICATE_FAILURES.items()),
        "same_person": tuple((each, f"If {text}") for each, text in PERSON_IN_WORDS.items()),
        "repeat_inquiries": tuple(REPEATS.items()),
        "pay_joined": tuple((each, text.capitalize()) for each, text in PAY_IN_WORDS.items()),
    }
    for dimension in ("budget", "authority", "need", "timing"):
        rule: DimensionPolicy = getattr(definition, dimension)
        values |= {f"{dimension}_fails": rule.on_fails, f"{dimension}_unknown": rule.unknown_consequence}
        options |= {f"{dimension}_{result}": tuple(RESULTS.items()) for result in ("fails", "unknown")}
    return show_form(VerticalFiguresForm, values, options, currency=definition.currency)


def apply_figures(form: VerticalFiguresForm, current: VerticalDefinition) -> VerticalDefinition:
    """Return the current rules with those of the form in their place. Raises InvalidInput for an invalid amount."""
    replace = msgspec.structs.replace
    timing = replace(
        current.timing,
        within_days=form.within_days,
        nurture_limit_days=form.nurture_limit_days,
        **_consequences(current.timing, form.timing_fails, form.timing_unknown),
    )
    minimum_minor = read_amount(form.budget_minimum, current.currency, "budget_minimum")
    budget_results = _consequences(current.budget, form.budget_fails, form.budget_unknown)
    authority_results = _consequences(current.authority, form.authority_fails, form.authority_unknown)
    return replace(
        current,
        minimum_score=form.minimum_score,
        on_low_score=form.on_low_score,
        nurture_days=form.nurture_days,
        patience_seconds=form.patience_seconds,
        reserve_minor=read_amount(form.reserve, current.currency, "reserve") or PRICE_MINOR[0],
        strategy=form.strategy,
        price_range=_price_range(form, current.currency),
        consent=ConsentPolicy(
            requires_named_seller=form.requires_named_seller,
            channels=form.channels,
            purposes=split_lines(form.purposes),
            jurisdictions=split_codes(form.jurisdictions.upper()),
        ),
        certificate=CertificatePolicy(
            required=form.requires_certificate,
            on_failure=form.certificate_failure,
            hold_seconds=form.certificate_hold_seconds,
        ),
        same_person=form.same_person,
        repeat_inquiries=form.repeat_inquiries,
        provider_may_know=form.provider_may_know,
        pay_joined=form.pay_joined,
        explore_per_mille=form.explore_per_mille,
        delay_per_mille=form.delay_per_mille,
        delay_seconds=form.delay_seconds,
        budget=replace(current.budget, minimum_minor=minimum_minor or 0, **budget_results),
        authority=replace(current.authority, **authority_results),
        need=replace(current.need, **_consequences(current.need, form.need_fails, form.need_unknown)),
        timing=timing,
    )


def price_range_in_words(prices: PriceRange | None) -> str:
    """Return what jobs cost, such as "USD 500 to USD 20,000"; empty without a limit."""
    if prices is None:
        return ""
    low, high = (
        None if minor is None else amount_in_words(minor, prices.currency)
        for minor in (prices.minimum_minor, prices.maximum_minor)
    )
    if low is None:
        return f"At most {high}" if high else ""
    return f"{low} to {high}" if high else f"At least {low}"


def _price_range(form: VerticalFiguresForm, currency: str) -> PriceRange | None:
    """Return what jobs cost, None without a limit. Raises InvalidInput for an amount that is none."""
    minimum_minor = read_amount(form.job_minimum, currency, "job_minimum")
    maximum_minor = read_amount(form.job_maximum, currency, "job_maximum")
    if minimum_minor is None and maximum_minor is None:
        return None
    return PriceRange(currency=currency, minimum_minor=minimum_minor, maximum_minor=maximum_minor)


def _shown_price(minor: int | None, currency: str) -> str:
    return "" if minor is None else field_amount(minor, currency)


def _consequences(
    rule: DimensionPolicy, fails: ResultConsequence, unknown: ResultConsequence
) -> dict[str, ResultConsequence | None]:
    """Return the consequences of one dimension; a rule that leaves the unknown to its `on_fails` goes on doing so."""
    follows = rule.on_unknown is None and unknown == fails
    return {"on_fails": fails, "on_unknown": None if follows else unknown}
