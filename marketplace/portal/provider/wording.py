"""States, reasons and faults in the words of a provider's pages; never the business, never its price."""

from typing import Final

from routing.decision import ASKED_AGAIN, CERTIFICATE_FAILED, CERTIFICATE_PENDING, CONSENT_EXPIRED, NURTURE_ENDED
from routing.inquiry import PhoneVerification
from routing.lifecycle import LeadState
from routing.matching import Rule
from routing.qualification import RejectionReason

STATES: Final[dict[LeadState, tuple[str, str]]] = {
    LeadState.received: ("Accepted", "busy"),
    LeadState.rejected: ("Not qualified", "bad"),
    LeadState.duplicate: ("Duplicate", "muted"),
    LeadState.suppressed: ("Do not contact", "muted"),
    LeadState.nurturing: ("Too early", "busy"),
    LeadState.expired: ("Expired", "bad"),
    LeadState.prospect: ("Qualified", "busy"),
    LeadState.unsold: ("Unsold", "warn"),
    LeadState.held: ("Being delivered", "busy"),
    LeadState.exposed: ("Being delivered", "busy"),
    LeadState.delivered: ("Sold", "good"),
    LeadState.refused: ("Refused", "bad"),
    LeadState.lapsed: ("Not confirmed", "warn"),
    LeadState.returned: ("Returned", "bad"),
}
"Word and tone of the badge of each state."

REASONS: Final[dict[str, str]] = {
    RejectionReason.budget_below_minimum: "The budget is below the minimum of this service.",
    RejectionReason.authority_not_accepted: "The person has no say in the purchase.",
    RejectionReason.need_not_wanted: "This service does not take this kind of need.",
    RejectionReason.timing_too_late: "The date is too far ahead.",
    RejectionReason.budget_unknown: "No budget was given, and this service requires one.",
    RejectionReason.authority_unknown: "It is not known who decides, and this service requires it.",
    RejectionReason.need_unknown: "A required question was not answered.",
    RejectionReason.timing_unknown: "No date was given, and this service requires one.",
    RejectionReason.interest_missing: "The person has not shown the interest that this service requires.",
    RejectionReason.score_below_minimum: "The total score of the answers is too low.",
    Rule.consent_seller: "The consent names no business that takes this lead.",
    Rule.consent_channel: "The consent does not cover a way of contact that businesses need.",
    Rule.consent_purpose: "The consent is for another purpose.",
    Rule.consent_jurisdiction: "The consent is of another country or state.",
    Rule.outside_area: "No business covers this area at the moment.",
    Rule.attribute: "No business takes these answers.",
    Rule.budget_minimum: "The budget is below what businesses require.",
    Rule.timing_minimum: "The date is later than businesses accept.",
    Rule.bant_minimum: "A criterion that businesses require is not met.",
    Rule.score_minimum: "The score is below what businesses require.",
    Rule.authority: "Businesses require a person with more say in the purchase.",
    Rule.role: "Businesses require another role.",
    Rule.company_size: "Businesses require a company of another size.",
    Rule.price_range: "Businesses work at other prices.",
    Rule.phone_type: "Businesses do not take this kind of phone number.",
    Rule.source_excluded: "Businesses exclude this source.",
    Rule.disposable_email: "Businesses do not take throw-away e-mail addresses.",
    CONSENT_EXPIRED: "The person's consent ended before the lead was sold.",
    ASKED_AGAIN: "The person has asked again meanwhile, and the later inquiry counts.",
    CERTIFICATE_PENDING: "Its certificate of consent is being checked.",
    CERTIFICATE_FAILED: "Its certificate of consent could not be verified.",
    NURTURE_ENDED: "It waited for a better answer as long as this service allows.",
    "given_back": "You gave it back before its time.",
    "delayed": "It waits for a few minutes, to show what speed is worth.",
    "no_subscription": "No business takes this service at the moment.",
    "withdrawn": "The person asked not to be contacted.",
}
WITHOUT_REASON: Final = frozenset(
    {
        LeadState.received,
        LeadState.held,
        LeadState.exposed,
        LeadState.delivered,
        LeadState.duplicate,
        LeadState.suppressed,
    }
)
NOT_AVAILABLE: Final = "No business was available at that moment."
"Stands for all reasons that concern the business alone: pauses, hours, caps and money."

PHONE_VERIFICATIONS: Final[dict[PhoneVerification | None, str]] = {
    PhoneVerification.valid: "in a published number range",
    PhoneVerification.possible: "possible, but in no published number range",
}

FAULTS: Final[dict[str, str]] = {
    "field_missing": "Always send this field.",
    "unknown_field": "Remove the field: it is unknown. Names are case-sensitive.",
    "type_wrong": "Send the type that the spec names, such as 12 and not \u201c12\u201d.",
    "value_not_allowed": "Send one of the values that the spec lists.",
    "out_of_range": "Send a number within the bounds of the spec.",
    "too_long": "Shorten it to the limit of the spec.",
    "offset_missing": "Send times with their offset, such as 2026-11-21T10:00:00Z.",
    "json_invalid": "Send valid JSON in UTF-8.",
    "body_not_object": "Send one JSON object.",
    "character_not_allowed": "Remove control characters.",
    "phone_invalid": "Send a number that exists, in the form +1 312 555 0142.",
    "phone_type_not_accepted": "Send the person's own number, not a toll-free or premium one.",
    "email_invalid": "Send an address of the form name@example.com.",
    "postal_code_unknown": "Send a postal code that exists, such as 60614.",
    "name_empty": "Send the person's name as they write it.",
    "vertical_unknown": "Send the slug of a service as the spec writes it.",
    "submitted_at_in_future": "Check your server's clock: the time is in the future.",
    "submitted_at_too_old": "Send inquiries when they are made. This one is too old.",
    "consent_text_empty": "Send the consent text exactly as the person saw it.",
    "consent_in_future": "Check your server's clock: the time is in the future.",
    "consent_after_submission": "Send a consent that was given before the form was submitted.",
    "consent_too_old": "Ask the person for consent again: this one is too old.",
    "consent_page_missing": "Send the address of the page on which consent was given.",
    "consent_page_invalid": "Send a full address that begins with https://.",
    "consent_ip_invalid": "Send an IP address such as 203.0.113.7, or leave it out.",
    "consent_channel_unknown": "Send the channels as call, text, email or post.",
    "consent_certificate_invalid": "Send a TrustedForm address or a Jornaya UUID, one of each service at most.",
    "consent_certificate_missing": "Send a certificate of consent: this service requires one.",
    "consent_expired": "Ask the person for consent again: it has ended.",
    "consent_jurisdiction_invalid": "Send a country such as US, or a state such as US-CA.",
    "currency_not_accepted": "Send amounts in the currency of this service.",
    "timing_ambiguous": "Send within_days or not_before, not both.",
    "need_field_unknown": "Send only the questions of this service's spec.",
    "need_field_type": "Send the type that the question asks for.",
    "need_field_missing": "Answer every required question of the service.",
    "touch_in_future": "Check your server's clock: the time is in the future.",
    "consent_missing": "Send the consent: text, given_at and page_url.",
    "idempotency_key_missing": "Send a provider_reference, or an Idempotency-Key.",
}
"Advice for each fault, by its code."

RETURNS: Final[dict[str, str]] = {
    "duplicate": "The business already had this person.",
    "outside_area": "The place is outside the area of the subscription.",
    "invalid_number": "The phone number does not work.",
    "bant_mismatch": "The person's answers to the business differ from those of the inquiry.",
    "wrong_person": "Somebody else answered.",
    "no_consent_recalled": "The person does not remember the inquiry.",
    "fraud": "The inquiry was made up.",
    "other": "Another reason. See the finding.",
}
"Reasons of return requests."

CALLS: Final[dict[str, str]] = {
    "no_answer": "No answer",
    "voicemail": "Voicemail",
    "not_in_service": "The number is not in service",
    "somebody_else": "Somebody else answered",
    "asked_for_nothing": "The person denies the inquiry",
    "spoke": "Spoke to the person",
}
"Outcomes of a call by the business."


def reason_in_words(reason: str | None) -> str:
    """Return a stored reason as a sentence; reasons that concern the business alone as NOT_AVAILABLE."""
    if reason is None:
        return ""
    if " " in reason:  # already a sentence, such as the reason for which a lead is nurtured
        return reason[:1].upper() + reason[1:]
    if reason in REASONS:
        return REASONS[reason]
    return NOT_AVAILABLE if reason in set(Rule) else reason.replace("_", " ").capitalize() + "."


def why(state: LeadState, reason: str | None) -> str:
    """Return the reason of a submission's state, which for a returned lead is that of the return; empty for a sale."""
    if state is LeadState.returned:
        return RETURNS.get(reason or "", "")
    return "" if state in WITHOUT_REASON else reason_in_words(reason)


def fault_in_words(code: str) -> str:
    """Return the advice for a fault."""
    return FAULTS.get(code) or "Read errors[].detail in the answer."
