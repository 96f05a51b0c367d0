"""What the pages of a business call things: an office manager's words for our own."""

from typing import Final

from billing.returns import ReturnReason
from marketplace.feedback.store import CallOutcome, DispositionKind, LostReason
from routing.lifecycle import AssignmentState
from routing.qualification import DimensionResult
from routing.quota import SuspensionReason

STATES: Final = {
    AssignmentState.exposed: "On its way",
    AssignmentState.delivered: "Delivered",
    AssignmentState.refused: "Refused",
    AssignmentState.lapsed: "Not received",
    AssignmentState.returned: "Given back",
}
STATE_TONES: Final = {
    AssignmentState.exposed: "busy",
    AssignmentState.delivered: "good",
    AssignmentState.refused: "warn",
    AssignmentState.lapsed: "warn",
    AssignmentState.returned: "muted",
}
STATE_NOTES: Final = {
    AssignmentState.exposed: "Your server has not confirmed it yet. We try for a day; you pay nothing until it does.",
    AssignmentState.refused: "Your server turned this lead down. It was not charged.",
    AssignmentState.lapsed: "Your server never confirmed this lead within a day. It was not charged.",
    AssignmentState.returned: "You gave this lead back and were refunded.",
}
KINDS: Final = {
    DispositionKind.contacted: "Contacted",
    DispositionKind.qualified: "Appointment",
    DispositionKind.quoted: "Quoted",
    DispositionKind.won: "Won",
    DispositionKind.lost: "Lost",
    DispositionKind.unreachable: "No answer",
}
KIND_TONES: Final = {
    DispositionKind.contacted: "busy",
    DispositionKind.qualified: "busy",
    DispositionKind.quoted: "busy",
    DispositionKind.won: "good",
    DispositionKind.lost: "bad",
    DispositionKind.unreachable: "warn",
}
LOST: Final = {
    LostReason.price: "Too expensive",
    LostReason.competitor: "Went with somebody else",
    LostReason.not_interested: "Not interested",
    LostReason.no_need: "No work needed",
    LostReason.bad_timing: "Not now",
    LostReason.duplicate_job: "We had this job already",
    LostReason.other: "Another reason",
}
RETURNS: Final = {
    ReturnReason.duplicate: "We had this person from you before",
    ReturnReason.outside_area: "Outside the area we ordered",
    ReturnReason.invalid_number: "The phone number is wrong",
    ReturnReason.bant_mismatch: "Not as described (budget, authority, need or timing)",
    ReturnReason.wrong_person: "Somebody else answered",
    ReturnReason.no_consent_recalled: "They do not remember asking",
    ReturnReason.fraud: "The inquiry was made up",
    ReturnReason.other: "Something else",
}
CALLS: Final = {
    CallOutcome.no_answer: "No answer",
    CallOutcome.voicemail: "A machine answered",
    CallOutcome.not_in_service: "The number does not work",
    CallOutcome.somebody_else: "Somebody else answered",
    CallOutcome.asked_for_nothing: "They say they asked for nothing",
    CallOutcome.spoke: "We spoke",
}
RETURN_STATES: Final = {"requested": "Being looked at", "granted": "Refunded", "denied": "Not refunded"}
RESULTS: Final = {
    DimensionResult.meets: "Meets",
    DimensionResult.fails: "Does not meet",
    DimensionResult.unknown: "Not known",
}
RESULT_TONES: Final = {DimensionResult.meets: "good", DimensionResult.fails: "bad", DimensionResult.unknown: "muted"}

TRANSFERS: Final = {
    "top_up": "Money added",
    "withdrawal": "Money paid out",
    "hold": "Held for a lead under way",
    "release": "Not charged: the money held for this lead was given back",
    "capture": "Lead charged",
    "refund": "Lead refunded",
}

OUTCOMES: Final = {
    "accepted": "Received",
    "refused": "Turned down",
    "gone": "Says it is gone for good",
    "not_sent": "Could not connect",
    "unknown": "No clear answer",
    "busy": "Asked us to wait",
    "redirect": "Pointed elsewhere",
}
OUTCOME_TONES: Final = {
    "accepted": "good", "refused": "warn", "gone": "bad", "not_sent": "bad", "unknown": "bad", "busy": "warn",
    "redirect": "bad",
}  # fmt: skip

ANSWERS: Final = {
    "cut_off": ", but the answer broke off before its end. We send the lead again",
    "compressed": ", but the answer was compressed, although we ask for none. We send the lead again",
    "not_understood": (
        ", but we cannot tell from it whether you have the lead. We send it again. "
        'Please answer with an empty body, with "OK", or with the JSON {"status": "accepted"}'
    ),
}
"What follows the status of an answer that is no evidence of receipt."

SOURCES: Final = {
    "api": "by your software",
    "webhook": "by your CRM",
    "csv": "from a file",
    "portal": "here",
    "demo": "as an example",
}


NO_PUBLIC_ADDRESS: Final = "Your server's name does not lead to an address on the public internet."


def suspension_words(reason: SuspensionReason, counted: int, shown: int) -> str:
    """Why a subscription was suspended, with its figures: `5 of the last 5 leads were refused.`"""
    what = "refused" if reason is SuspensionReason.refusals else "not confirmed as received"
    return f"{counted:,} of the last {shown:,} leads were {what}."


def attempt_words(outcome: str, reason: str, status: int | None) -> str:
    """The result of one attempt as a sentence: `Your server answered 500.`"""
    if status is not None:
        return f"Your server answered {status}{ANSWERS.get(reason, '')}."
    known = {
        "dns_failed": NO_PUBLIC_ADDRESS,
        "connect_failed": "Your server did not take the connection.",
        "connect_timeout": "Your server did not take the connection in time.",
        "tls_failed": "The secure connection could not be made: look at your certificate.",
        "breaker_open": "We left your server alone for a while, because it had failed repeatedly.",
        "url_refused": "The endpoint is switched off, or its address may not be used.",
        "address_refused": NO_PUBLIC_ADDRESS,
        "timeout": "Your server gave no answer in 20 seconds.",
        "hold_over": "It could not be sent in time, and went to the next business.",
    }
    return known.get(reason, f"{OUTCOMES.get(outcome, outcome)}: {reason.replace('_', ' ')}.")
