"""Words that the pages of a business show for states, outcomes, reasons and other codes."""

from typing import Final, assert_never

from markupsafe import Markup

from billing.returns import ReturnReason
from marketplace.feedback.stages_store import StageColour
from marketplace.feedback.store import CallOutcome, DispositionKind, LostReason
from marketplace.portal.frame import badge
from routing.delivery import EndpointKind
from routing.lifecycle import AssignmentState
from routing.qualification import DimensionResult
from routing.quota import SuspensionReason

STATES: Final = {
    AssignmentState.exposed: "On its way",
    AssignmentState.delivered: "Delivered",
    AssignmentState.refused: "Refused",
    AssignmentState.lapsed: "Not received",
    AssignmentState.returned: "Returned",
}
STATE_TONES: Final = {
    AssignmentState.exposed: "busy",
    AssignmentState.delivered: "good",
    AssignmentState.refused: "warn",
    AssignmentState.lapsed: "warn",
    AssignmentState.returned: "muted",
}
STATE_NOTES: Final = {
    AssignmentState.exposed: "We do not know yet that you have it. We try for a day; you pay nothing until you do.",
    AssignmentState.refused: "This lead was refused on your side. It was not charged.",
    AssignmentState.lapsed: "You did not receive this lead within a day. It was not charged.",
    AssignmentState.returned: "You returned this lead and were refunded.",
}
KINDS: Final = {
    DispositionKind.contacted: "Contacted",
    DispositionKind.qualified: "Qualified",
    DispositionKind.appointment: "Appointment",
    DispositionKind.quoted: "Quoted",
    DispositionKind.won: "Won",
    DispositionKind.lost: "Lost",
    DispositionKind.unreachable: "No answer",
}
KIND_TONES: Final = {
    DispositionKind.contacted: "busy",
    DispositionKind.qualified: "busy",
    DispositionKind.appointment: "busy",
    DispositionKind.quoted: "busy",
    DispositionKind.won: "good",
    DispositionKind.lost: "bad",
    DispositionKind.unreachable: "warn",
}
KIND_COLOURS: Final = {
    DispositionKind.contacted: StageColour.blue,
    DispositionKind.qualified: StageColour.blue,
    DispositionKind.appointment: StageColour.blue,
    DispositionKind.quoted: StageColour.blue,
    DispositionKind.won: StageColour.green,
    DispositionKind.lost: StageColour.red,
    DispositionKind.unreachable: StageColour.amber,
}
"Colour of a stage on the board that has none of its own."
LOST: Final = {
    LostReason.price: "Too expensive",
    LostReason.competitor: "Chose another business",
    LostReason.not_interested: "Not interested",
    LostReason.no_need: "No work needed",
    LostReason.bad_timing: "Not now",
    LostReason.duplicate_job: "We had this job already",
    LostReason.other: "Another reason",
}
RETURNS: Final = {
    ReturnReason.duplicate: "We had this person from you before",
    ReturnReason.outside_area: "Outside the area of our subscription",
    ReturnReason.invalid_number: "The phone number is wrong",
    ReturnReason.bant_mismatch: "Not as described (budget, authority, need or timing)",
    ReturnReason.wrong_person: "Somebody else answered",
    ReturnReason.no_consent_recalled: "They do not remember making a request",
    ReturnReason.fraud: "The inquiry was made up",
    ReturnReason.other: "Something else",
}
CALLS: Final = {
    CallOutcome.no_answer: "No answer",
    CallOutcome.voicemail: "Voicemail",
    CallOutcome.not_in_service: "The number does not work",
    CallOutcome.somebody_else: "Somebody else answered",
    CallOutcome.asked_for_nothing: "They say they made no request",
    CallOutcome.spoke: "We spoke",
}
RETURN_STATES: Final = {"requested": "Under review", "granted": "Refunded", "denied": "Not refunded"}
RESULTS: Final = {
    DimensionResult.meets: "Meets",
    DimensionResult.fails: "Does not meet",
    DimensionResult.unknown: "Not known",
}
RESULT_TONES: Final = {DimensionResult.meets: "good", DimensionResult.fails: "bad", DimensionResult.unknown: "muted"}

TRANSFERS: Final = {
    "top_up": "Money added",
    "withdrawal": "Money paid out",
    "hold": "Held for a lead in delivery",
    "release": "Not charged: the money held for this lead was released",
    "capture": "Lead charged",
    "refund": "Lead refunded",
}

OUTCOMES: Final = {
    "accepted": "Received",
    "refused": "Refused",
    "gone": "Endpoint no longer exists",
    "not_sent": "Could not connect",
    "unknown": "No clear answer",
    "busy": "Asked us to wait",
    "redirect": "Redirected",
}
OUTCOME_TONES: Final = {
    "accepted": "good",
    "refused": "warn",
    "gone": "bad",
    "not_sent": "bad",
    "unknown": "bad",
    "busy": "warn",
    "redirect": "bad",
}

ANSWERS: Final = {
    "cut_off": ", but the answer was cut off. We send the lead again",
    "compressed": ", but the answer was compressed in a way that we cannot read. We send the lead again",
    "not_understood": (
        ", but we cannot tell from it whether you have the lead. We send it again. "
        'Answer with an empty body or the JSON {"status": "accepted"}, or say what your server\'s answers mean'
    ),
}
"Words after the status of an answer that does not confirm receipt."

SOURCES: Final = {
    "api": "by your software",
    "webhook": "by your CRM",
    "csv": "from a file",
    "portal": "on this site",
    "demo": "as an example",
}


NO_PUBLIC_ADDRESS: Final = "Your server's host name has no address on the public internet."


BOUNCES: Final = {
    "5.1": "The address does not exist",
    "5.2": "The mailbox is full or switched off",
    "5.3": "The mail server could not take the message",
    "5.4": "The mail server could not be reached",
    "5.7": "The mail server refused the message, for instance as spam",
}
"Words for the first two parts of a status code of RFC 3463."


def bounce_words(status: str) -> str:
    """Return the reason for which a message came back: `The address does not exist (5.1.1).`"""
    if not status.startswith("5"):
        return f"Delayed: the mail server keeps trying ({status})."
    return f"{BOUNCES.get(status.rpartition('.')[0], 'The message could not be delivered')} ({status})."


def suspension_words(reason: SuspensionReason, failed: int, leads: int) -> str:
    """Return the reason of a suspension with its figures: `5 of the last 5 leads were refused.`"""
    what = "refused" if reason is SuspensionReason.refusals else "not confirmed as received"
    return f"{failed:,} of the last {leads:,} leads were {what}."


MAIL_ANSWERS: Final = {
    "mail_server_unavailable": "We could not send e-mail at that moment.",
    "mail_server_insecure": "We could not send e-mail at that moment.",
    "mail_login_refused": "We could not send e-mail at that moment.",
    "mail_sender_refused": "We could not send e-mail at that moment.",
    "mail_recipient_deferred": "The mailbox took no e-mail at that moment.",
    "mail_recipient_refused": "The mail server says that this address takes no e-mail.",
    "mail_address_unsupported": "The address has letters before the @ that our mail server cannot send to.",
    "mail_data_refused": "The mail server did not take the message.",
    "mail_deferred": "The mail server asked for the message again later. We send it again.",
    "mail_content_refused": "The mail server did not deliver the message. We send it again.",
}
"Results of sending a lead by e-mail."

MAIL_STORED: Final = 250
"Status of a mail server that took a message. No web server answers with it."


def attempt_words(outcome: str, reason: str, status: int | None) -> str:
    """Return the result of an attempt as a sentence: `Your server answered 500.`"""
    if reason in MAIL_ANSWERS:
        return MAIL_ANSWERS[reason]
    if status == MAIL_STORED:
        return "The mail server took the message."
    if status is not None:
        return f"Your server answered {status}{ANSWERS.get(reason, '')}."
    sentences = {
        "dns_failed": NO_PUBLIC_ADDRESS,
        "connect_failed": "We could not connect to your server.",
        "connect_timeout": "Your server did not accept the connection in time.",
        "tls_failed": "The secure connection failed: check your server's certificate.",
        "breaker_open": "Not sent: your server had failed repeatedly, so we paused deliveries for a while.",
        "url_refused": "The endpoint is switched off, or its address is not allowed.",
        "address_refused": NO_PUBLIC_ADDRESS,
        "mapping_failed": "Not sent: your template could not be filled in with this lead.",
        "authorization_failed": "Not sent: your software gave us no access token. Check the client's id and secret.",
        "timeout": "Your server gave no answer in 20 seconds.",
        "hold_over": "The lead could not be sent in time, and went to another business.",
    }
    return sentences.get(reason, f"{OUTCOMES.get(outcome, outcome)}: {reason.replace('_', ' ')}.")


def outcome_badge(outcome: str) -> Markup:
    """Return the badge of an attempt's outcome."""
    return badge(OUTCOMES.get(outcome, outcome), OUTCOME_TONES.get(outcome, "muted"))


def endpoint_name(kind: EndpointKind, address: str | None) -> str:
    """Return a way to receive leads in words; the address of a webhook or of e-mail."""
    match kind:
        case EndpointKind.push:
            return address or ""
        case EndpointKind.feed:
            return "Feed that your software reads"
        case EndpointKind.inbox:
            return "Inbox, here and on your phone"
        case EndpointKind.email:
            return address or "E-mail"
        case _:
            assert_never(kind)


def answer_words(value: str | int | bool) -> str:
    """Return a person's answer to a question of the vertical: `Yes`, `1,200`, `Clay tile`."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return f"{value:,}" if isinstance(value, int) else value.replace("_", " ").capitalize()
