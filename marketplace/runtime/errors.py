"""What can go wrong, in words of the domain. No error here knows an HTTP status: problems.py has the one table."""

from collections.abc import Iterable

from marketplace.text.faults import BoundedList, Fault


class MarketplaceError(Exception):
    """The root of everything a caller may be told. `detail` is one sentence that says what to do."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(MarketplaceError):
    """Some fields cannot be accepted; `faults` has all of them, or the first hundred where there are more."""

    def __init__(self, faults: Iterable[Fault], detail: str = "") -> None:
        kept = faults if isinstance(faults, BoundedList) else BoundedList(faults)
        count = "1 field needs" if len(kept) == 1 else f"{len(kept)} fields need"
        more = f"More than {len(kept)} fields need" if kept.left_out else count
        super().__init__(detail or f"{more} attention.")
        self.faults = tuple(kept)


class UnreadableBody(InvalidInput):
    """The body as a whole cannot be read."""


class IdempotencyKeyMissing(MarketplaceError):
    """Neither an Idempotency-Key nor a provider_reference was given."""


class IdempotencyKeyInvalid(MarketplaceError):
    """The Idempotency-Key is too long, empty or has characters that no header may carry."""


class IdempotencyKeyReused(MarketplaceError):
    """The same key came before with another body."""


class ProviderReferenceReused(MarketplaceError):
    """The same provider_reference came before with another body."""


class NotAuthenticated(MarketplaceError):
    """No key, or one that does not exist."""


class KeyRevoked(NotAuthenticated):
    """The key was revoked."""


class KeyExpired(NotAuthenticated):
    """The key has expired."""


class AmbiguousCredentials(MarketplaceError):
    """The request brings several credentials: two keys, or a key beside the cookie of a session."""


class KeyInUrl(MarketplaceError):
    """An API key stands in the address, where logs, histories and other sites see it."""


class SignatureInvalid(MarketplaceError):
    """A webhook to us is not signed, or not with the secret of the business it names, or not just now."""


class KeyWrongMode(MarketplaceError):
    """A test key where a live one is needed, or the reverse."""


class ScopeMissing(MarketplaceError):
    """The key is good but not for this."""


class NotSignedIn(MarketplaceError):
    """A page of the portal was asked for without a session, or with one that has ended."""


class SignInFailed(MarketplaceError):
    """The e-mail address and the password do not belong together; nobody learns which of the two is wrong."""


class CodeWrong(MarketplaceError):
    """The second factor's code is not the one of this half minute, or was used before."""


class CrossSite(MarketplaceError):
    """A change was asked for by a page that is not ours."""


class RoleMissing(MarketplaceError):
    """The member's role, or side of the marketplace, does not go so far."""


class TokenExpired(MarketplaceError):
    """The link's time is over, or there never was such a link."""


class TokenUsed(MarketplaceError):
    """The link was used before."""


class OwnerSuspended(MarketplaceError):
    """The provider or business behind the key is suspended."""


class NotFound(MarketplaceError):
    """No such thing, or not yours: the two answers are the same."""


class Conflict(MarketplaceError):
    """The thing has changed, or exists already."""


class SubscriptionSuspended(Conflict):
    """It refused, or did not acknowledge, too many leads; only an operator resumes it."""


class NotExposedYet(Conflict):
    """Nobody has been shown this lead, so that there is nothing to give a receipt for."""


class NotSealedYet(Conflict):
    """The exposure has not got its place in the audit chain; it will in a second or two."""


class NotDelivered(Conflict):
    """The business has not been given this lead, or does not have it any more, so that it can report nothing of it."""


class EventReused(Conflict):
    """The event_id came before with something else in it."""


class AlreadyReturned(Conflict):
    """The lead was given back before, or asked to be."""


class NothingCharged(Conflict):
    """The lead was never charged, so that there is nothing to give back for."""


class ReturnWindowClosed(Conflict):
    """It is too long since the lead was delivered."""


class ReturnQuotaReached(Conflict):
    """The business has given back as many leads as it may for now."""


class ChallengeFailed(Conflict):
    """An endpoint did not prove that it is its owner's; `detail` says exactly what happened."""


class EndpointShared(Conflict):
    """Another business has registered the same URL, and one door must not see two businesses' leads."""


class MediaTypeNotSupported(MarketplaceError):
    """The body is not application/json."""


class ContentEncodingNotSupported(MarketplaceError):
    """The body is compressed."""


class BodyTooLarge(MarketplaceError):
    """The body passes the size limit."""


class BodyTooSlow(MarketplaceError):
    """The body did not arrive in its time."""


class HeadTooLarge(MarketplaceError):
    """The request line and headers pass the size limit."""


class HeadTooSlow(MarketplaceError):
    """The request line and headers did not arrive in their time."""


class RequestMalformed(MarketplaceError):
    """What came is not HTTP, or could be read in two ways."""


class HostNotServed(MarketplaceError):
    """The request names no host, several, or one that is not ours."""


class RateLimited(MarketplaceError):
    """The quota of the key, or of the address, is used up for the next `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TooManyStreams(MarketplaceError):
    """The key has as many streams open as it may."""


class BodyIncomplete(MarketplaceError):
    """The caller hung up in the middle of the body."""


class Unavailable(MarketplaceError):
    """An engine is away or too busy; the same call may be sent again with the same key."""
