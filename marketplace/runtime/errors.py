"""Errors in words of the domain. They do not know HTTP status codes: problems.py has the one table."""

from collections.abc import Iterable

from marketplace.text.faults import BoundedList, Fault


class MarketplaceError(Exception):
    """Base of all errors that a caller may be told. `detail` is one sentence that says what to do."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(MarketplaceError):
    """Some fields are not valid; `faults` has all of them, or the first hundred."""

    def __init__(self, faults: Iterable[Fault], detail: str = "") -> None:
        bounded = faults if isinstance(faults, BoundedList) else BoundedList(faults)
        count = "1 field needs" if len(bounded) == 1 else f"{len(bounded)} fields need"
        subject = f"More than {len(bounded)} fields need" if bounded.left_out else count
        super().__init__(detail or f"{subject} attention.")
        self.faults = tuple(bounded)


class UnreadableBody(InvalidInput):
    """The body as a whole cannot be read."""


class IdempotencyKeyMissing(MarketplaceError):
    """Neither an Idempotency-Key nor a provider_reference was sent."""


class IdempotencyKeyInvalid(MarketplaceError):
    """The Idempotency-Key is empty, too long or has characters other than printable ASCII."""


class IdempotencyKeyReused(MarketplaceError):
    """The same key was used before with another body."""


class ProviderReferenceReused(MarketplaceError):
    """The same provider_reference was used before with another body."""


class NotAuthenticated(MarketplaceError):
    """The key is missing or unknown."""


class KeyRevoked(NotAuthenticated):
    """The key was revoked."""


class KeyExpired(NotAuthenticated):
    """The key has expired."""


class AmbiguousCredentials(MarketplaceError):
    """The request has several credentials: two keys, or a key and a session cookie."""


class KeyInUrl(MarketplaceError):
    """An API key is in the URL, where logs, histories and other sites can read it."""


class SignatureInvalid(MarketplaceError):
    """A webhook to us is unsigned, signed with another secret than its business's, or too old."""


class KeyWrongMode(MarketplaceError):
    """A test key was used where a live one is needed, or the reverse."""


class ScopeMissing(MarketplaceError):
    """The key is valid but lacks the scope."""


class NotSignedIn(MarketplaceError):
    """A portal page was requested without a session, or with one that has ended."""


class SignInFailed(MarketplaceError):
    """E-mail address and password do not match; the answer does not say which of the two is wrong."""


class CodeWrong(MarketplaceError):
    """The code of the second factor is wrong for this half minute, or was used before."""


class CrossSite(MarketplaceError):
    """A change was requested from a page of another site."""


class RoleMissing(MarketplaceError):
    """The member's role or kind of account does not allow this."""


class TokenExpired(MarketplaceError):
    """The link has expired, or never existed."""


class TokenUsed(MarketplaceError):
    """The link was used before."""


class OwnerSuspended(MarketplaceError):
    """The provider or business that owns the key is suspended."""


class NotFound(MarketplaceError):
    """The object does not exist or belongs to another account; the answer is the same for both."""


class Conflict(MarketplaceError):
    """The object has changed or exists already."""


class SubscriptionSuspended(Conflict):
    """The subscription refused or did not acknowledge too many leads; only an operator can resume it."""


class NotExposedYet(Conflict):
    """The lead was not shown to any business, so that there is no receipt for it."""


class NotSealedYet(Conflict):
    """The exposure is not in the audit chain yet; it will be in a second or two."""


class NotDelivered(Conflict):
    """The lead was not delivered to the business, or is no longer its own, so that it cannot report on it."""


class EventReused(Conflict):
    """The event_id was used before with other content."""


class AlreadyReturned(Conflict):
    """A return of the lead was requested before."""


class NothingCharged(Conflict):
    """The lead was never charged, so that there is nothing to refund."""


class ReturnWindowClosed(Conflict):
    """The lead was delivered too long ago to be returned."""


class ReturnQuotaReached(Conflict):
    """The business has returned as many leads as it may for now."""


class ChallengeFailed(Conflict):
    """An endpoint did not prove that it belongs to its owner; `detail` says what happened."""


class EndpointShared(Conflict):
    """Another business has registered the same URL, and one endpoint must not receive the leads of two businesses."""


class MediaTypeNotSupported(MarketplaceError):
    """The body is not application/json."""


class ContentEncodingNotSupported(MarketplaceError):
    """The body is compressed."""


class BodyTooLarge(MarketplaceError):
    """The body exceeds the size limit."""


class BodyTooSlow(MarketplaceError):
    """The body did not arrive within its time limit."""


class HeadTooLarge(MarketplaceError):
    """The request line and headers exceed the size limit."""


class HeadTooSlow(MarketplaceError):
    """The request line and headers did not arrive within their time limit."""


class RequestMalformed(MarketplaceError):
    """The request is not valid HTTP, or can be read in two ways."""


class HostNotServed(MarketplaceError):
    """The request has no Host header, several, or one of another service."""


class RateLimited(MarketplaceError):
    """The quota of the key or of the address is used up for the next `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TooManyStreams(MarketplaceError):
    """The key has its maximum number of streams open."""


class BodyIncomplete(MarketplaceError):
    """The caller closed the connection before the end of the body."""


class Unavailable(MarketplaceError):
    """PostgreSQL or Valkey is away or too busy; the same call may be sent again with the same key."""


class Overloaded(Unavailable):
    """More inquiries arrive than can be handled in time; nothing was stored, and the same call may be sent again."""
