"""Services, results and reasons of certificates of consent in the words of the pages."""

from typing import Final

from marketplace.certificates.services import ClaimReason
from marketplace.certificates.store import CertificateEvidence
from routing.certificate import CertificateKind, CertificateState

CERTIFICATE_KINDS: Final[dict[CertificateKind, str]] = {
    CertificateKind.trustedform: "TrustedForm",
    CertificateKind.jornaya: "Jornaya LeadiD",
}
CERTIFICATE_TONES: Final[dict[CertificateState, str]] = {
    CertificateState.pending: "busy",
    CertificateState.verified: "good",
    CertificateState.mismatched: "bad",
    CertificateState.refused: "bad",
    CertificateState.unanswered: "warn",
}
"Tone of the badge of each result."

CERTIFICATE_REASONS: Final[dict[ClaimReason, str]] = {
    ClaimReason.claimed: "The service keeps it, and it is of this person.",
    ClaimReason.phone_differs: "It was made for another phone number.",
    ClaimReason.email_differs: "It was made for another e-mail address.",
    ClaimReason.page_differs: "It was made on another website.",
    ClaimReason.not_valid: "The service does not know it, or it is too old.",
    ClaimReason.no_account: "We have no account at this service.",
    ClaimReason.key_refused: "The service did not accept our key.",
    ClaimReason.not_reached: "The service could not be reached.",
    ClaimReason.no_answer: "The service did not answer in time.",
    ClaimReason.busy: "The service was busy or had an error.",
    ClaimReason.redirected: "The service answered with another address.",
    ClaimReason.unreadable: "The answer of the service could not be read.",
    ClaimReason.erased: "The person was erased before it was checked.",
}
CONTACT_CORRECTED: Final = "The contact was corrected afterwards, and not compared again."


def reason_in_words(certificate: CertificateEvidence) -> str:
    """Return the reason of a certificate's state, and that its contact was corrected afterwards if it was."""
    reason = "" if certificate.reason is None else CERTIFICATE_REASONS[certificate.reason]
    return f"{reason} {CONTACT_CORRECTED}".strip() if certificate.contact_corrected else reason
