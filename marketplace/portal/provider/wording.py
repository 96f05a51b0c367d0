"""What became of a submission in a provider's words: never who has it, never what they paid."""

from typing import Final

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
"Each state as its badge says it, with the badge's tone."

REASONS: Final[dict[str, str]] = {
    RejectionReason.budget_below_minimum: "The budget is below the minimum of this service.",
    RejectionReason.authority_not_accepted: "The person has no say in the purchase.",
    RejectionReason.need_not_wanted: "The need is not one that this service takes.",
    RejectionReason.timing_too_late: "It is wanted too far ahead.",
    RejectionReason.budget_unknown: "No budget was given, and this service insists on one.",
    RejectionReason.authority_unknown: "Nothing was said about who decides, and this service insists on it.",
    RejectionReason.need_unknown: "A question that matters was left unanswered.",
    RejectionReason.timing_unknown: "Nothing was said about when, and this service insists on it.",
    RejectionReason.score_below_minimum: "Nothing rejects it alone; all answers together score too low.",
    Rule.outside_area: "No business covers this area at the moment.",
    Rule.attribute: "No business takes these answers.",
    Rule.budget_minimum: "The budget is below what businesses ask for.",
    Rule.timing_minimum: "It is wanted later than businesses accept.",
    Rule.bant_minimum: "A point that businesses insist on is not met.",
    Rule.score_minimum: "The score is below what businesses ask for.",
    Rule.authority: "Businesses want somebody with more say in the purchase.",
    Rule.role: "Businesses want another role.",
    Rule.company_size: "Businesses want a company of another size.",
    Rule.phone_type: "Businesses do not take this kind of phone number.",
    Rule.source_excluded: "Businesses exclude this source.",
    Rule.disposable_email: "Businesses do not take throw-away e-mail addresses.",
    "no_subscription": "No business takes this service at the moment.",
    "withdrawn": "The person asked not to be contacted.",
}
WITHOUT_REASON: Final = frozenset({
    LeadState.received, LeadState.held, LeadState.exposed, LeadState.delivered, LeadState.duplicate,
    LeadState.suppressed,
})  # fmt: skip
THEIR_OWN: Final = "No business was free to take it at that moment."
"For whatever is a business's own affair: pauses, hours, caps and money."

PHONE_VERIFICATIONS: Final[dict[PhoneVerification | None, str]] = {
    PhoneVerification.valid: "in a published range",
    PhoneVerification.possible: "possible: no published range has it",
}

FAULTS: Final[dict[str, str]] = {
    "field_missing": "Always send this field.",
    "unknown_field": "Leave it out: the field is not known. Names are case-sensitive.",
    "type_wrong": "Send the type that the spec names, such as 12 and not \u201c12\u201d.",
    "value_not_allowed": "Send one of the values that the spec lists.",
    "out_of_range": "Send a number within the bounds of the spec.",
    "too_long": "Shorten it to the limit of the spec.",
    "offset_missing": "Send times with their offset, such as 2026-11-21T10:00:00Z.",
    "json_invalid": "Send valid JSON in UTF-8.",
    "body_not_object": "Send one JSON object.",
    "character_not_allowed": "Take control characters out of it.",
    "phone_invalid": "Send a number that exists, in the form +1 312 555 0142.",
    "phone_type_not_accepted": "Send the person's own number, not a toll-free or premium one.",
    "email_invalid": "Send an address of the form name@example.com.",
    "postal_code_unknown": "Send a postal code that exists, such as 60614.",
    "name_empty": "Send the person's name as they write it.",
    "vertical_unknown": "Send the slug of a service as the spec writes it.",
    "submitted_at_in_future": "Check your server's clock: the time lies ahead of ours.",
    "submitted_at_too_old": "Send people who are waiting, not an old list.",
    "consent_text_empty": "Send the words of consent exactly as shown.",
    "consent_in_future": "Check your server's clock: the time lies ahead of ours.",
    "consent_after_submission": "Consent is given before the form is sent, not after.",
    "consent_too_old": "Ask for consent again: it is too old to speak for this inquiry.",
    "consent_page_missing": "Send the address of the page on which consent was given.",
    "consent_page_invalid": "Send a whole address, with https:// in front.",
    "consent_ip_invalid": "Send an IP address such as 203.0.113.7, or leave it out.",
    "currency_not_accepted": "Send amounts in the currency of this service.",
    "timing_ambiguous": "Send within_days or not_before, not both.",
    "need_field_unknown": "Send only the questions of this service's spec.",
    "need_field_type": "Send the type that the question asks for.",
    "need_field_missing": "Answer every required question of the service.",
    "touch_in_future": "Check your server's clock: the time lies ahead of ours.",
    "consent_missing": "Send the consent: text, given_at and page_url.",
    "idempotency_key_missing": "Send a provider_reference, or an Idempotency-Key.",
}
"What to do about a fault, by its code."

RETURNS: Final[dict[str, str]] = {
    "duplicate": "The business had this person before.",
    "outside_area": "The place is outside the area that was ordered.",
    "invalid_number": "The telephone number does not work.",
    "bant_mismatch": "The answers do not match what was found.",
    "wrong_person": "Whoever answered is somebody else.",
    "no_consent_recalled": "The person does not remember asking.",
    "fraud": "The inquiry was made up.",
    "other": "Another reason; see the finding.",
}
"Why a lead was asked to be given back."

CALLS: Final[dict[str, str]] = {
    "no_answer": "No answer",
    "voicemail": "A machine answered",
    "not_in_service": "The number does not work",
    "somebody_else": "Somebody else answered",
    "asked_for_nothing": "They say they asked for nothing",
    "spoke": "They spoke",
}
"What came of a call that the business made."


def reason_in_words(reason: str | None) -> str:
    """A stored reason as a sentence; what is a business's own affair stays theirs."""
    if reason is None:
        return ""
    if " " in reason:  # written as a sentence already, such as why a lead is nurtured
        return reason[:1].upper() + reason[1:]
    return REASONS.get(reason) or (THEIR_OWN if reason in set(Rule) else reason.replace("_", " ").capitalize() + ".")


def why(state: LeadState, reason: str | None) -> str:
    """Why a submission stands where it stands: the words of a return for one that was given back, none for a sale."""
    if state is LeadState.returned:
        return RETURNS.get(reason or "", "")
    return "" if state in WITHOUT_REASON else reason_in_words(reason)


def fault_in_words(code: str) -> str:
    return FAULTS.get(code) or "Read what the answer says in errors[].detail."
