"""Refusals as RFC 9457 problems: one table from error class to slug, status and title, and one way to render them.

A problem never repeats contact data, and no exception reaches a client as a traceback.
"""

from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from marketplace.database.db import NOT_NOW
from marketplace.runtime import errors
from marketplace.runtime.log import logger
from marketplace.text.faults import Fault

RETRY_AFTER_SECONDS: Final = "2"
"Restarted engines are back within two seconds; earlier retries only add load."

MEDIA_TYPE: Final = "application/problem+json"


class ProblemKind(msgspec.Struct, frozen=True, kw_only=True):
    """Slug (the stable code), status and title of a class of errors."""

    slug: str
    status: int
    title: str


PROBLEMS: Final[dict[type[errors.MarketplaceError], ProblemKind]] = {
    errors.InvalidInput: ProblemKind(slug="validation_failed", status=422, title="Some fields are not valid"),
    errors.UnreadableBody: ProblemKind(slug="body_unreadable", status=400, title="The body cannot be read"),
    errors.IdempotencyKeyMissing: ProblemKind(slug="idempotency_key_missing", status=400, title="No idempotency key"),
    errors.IdempotencyKeyInvalid: ProblemKind(
        slug="idempotency_key_invalid", status=400, title="The idempotency key is not valid"
    ),
    errors.IdempotencyKeyReused: ProblemKind(
        slug="idempotency_key_reused", status=422, title="The idempotency key was used for another body"
    ),
    errors.ProviderReferenceReused: ProblemKind(
        slug="provider_reference_reused", status=409, title="The provider_reference was used for another body"
    ),
    errors.NotAuthenticated: ProblemKind(slug="not_authenticated", status=401, title="No valid key"),
    errors.KeyRevoked: ProblemKind(slug="key_revoked", status=401, title="The key was revoked"),
    errors.KeyExpired: ProblemKind(slug="key_expired", status=401, title="The key has expired"),
    errors.AmbiguousCredentials: ProblemKind(
        slug="ambiguous_credentials", status=400, title="The request has several credentials"
    ),
    errors.KeyInUrl: ProblemKind(slug="key_in_url", status=400, title="The address contains a key"),
    errors.SignatureInvalid: ProblemKind(slug="signature_invalid", status=401, title="The signature is not valid"),
    errors.KeyWrongMode: ProblemKind(slug="key_wrong_mode", status=403, title="The key has the wrong mode"),
    errors.ScopeMissing: ProblemKind(slug="scope_missing", status=403, title="The key may not do this"),
    errors.NotSignedIn: ProblemKind(slug="not_signed_in", status=401, title="You are not signed in"),
    errors.SignInFailed: ProblemKind(slug="sign_in_failed", status=422, title="Sign-in failed"),
    errors.CodeWrong: ProblemKind(slug="code_wrong", status=422, title="The code is not valid"),
    errors.CrossSite: ProblemKind(slug="csrf", status=403, title="The request came from another site"),
    errors.RoleMissing: ProblemKind(slug="role_missing", status=403, title="Your role does not allow this"),
    errors.TokenExpired: ProblemKind(slug="token_expired", status=410, title="This link has expired"),
    errors.TokenUsed: ProblemKind(slug="token_used", status=410, title="This link was used"),
    errors.OwnerSuspended: ProblemKind(slug="owner_suspended", status=403, title="The account is suspended"),
    errors.NotFound: ProblemKind(slug="not_found", status=404, title="Not found"),
    errors.Conflict: ProblemKind(slug="conflict", status=409, title="Conflict"),
    errors.SubscriptionSuspended: ProblemKind(
        slug="subscription_suspended", status=409, title="The subscription is suspended"
    ),
    errors.NotExposedYet: ProblemKind(
        slug="not_exposed_yet", status=409, title="The lead has not been shown to anybody"
    ),
    errors.NotSealedYet: ProblemKind(slug="not_sealed_yet", status=409, title="The exposure is not sealed yet"),
    errors.NotDelivered: ProblemKind(slug="not_delivered", status=409, title="The lead is not delivered to you"),
    errors.EventReused: ProblemKind(
        slug="event_id_reused", status=409, title="The event_id was used for something else"
    ),
    errors.AlreadyReturned: ProblemKind(slug="already_returned", status=409, title="The lead was returned before"),
    errors.NothingCharged: ProblemKind(slug="nothing_charged", status=409, title="Nothing was charged for this lead"),
    errors.ReturnWindowClosed: ProblemKind(
        slug="return_window_closed", status=409, title="The time to return this lead is over"
    ),
    errors.ReturnQuotaReached: ProblemKind(
        slug="return_quota_reached", status=409, title="No more leads may be returned for now"
    ),
    errors.ChallengeFailed: ProblemKind(
        slug="challenge_failed", status=409, title="The endpoint did not return the challenge"
    ),
    errors.EndpointShared: ProblemKind(slug="endpoint_shared", status=409, title="The URL belongs to another business"),
    errors.MediaTypeNotSupported: ProblemKind(
        slug="media_type_not_supported", status=415, title="The body must be application/json"
    ),
    errors.ContentEncodingNotSupported: ProblemKind(
        slug="content_encoding_not_supported", status=415, title="The body must not be compressed"
    ),
    errors.BodyTooLarge: ProblemKind(slug="body_too_large", status=413, title="The body is too large"),
    errors.BodyTooSlow: ProblemKind(slug="body_too_slow", status=408, title="The body took too long"),
    errors.HeadTooLarge: ProblemKind(slug="head_too_large", status=431, title="The headers are too large"),
    errors.HeadTooSlow: ProblemKind(slug="head_too_slow", status=408, title="The headers took too long"),
    errors.RequestMalformed: ProblemKind(slug="request_malformed", status=400, title="The request is not valid HTTP"),
    errors.HostNotServed: ProblemKind(slug="host_not_served", status=400, title="This host is not served here"),
    errors.RateLimited: ProblemKind(slug="rate_limited", status=429, title="Too many requests"),
    errors.TooManyStreams: ProblemKind(slug="too_many_streams", status=429, title="Too many streams"),
    errors.BodyIncomplete: ProblemKind(slug="body_incomplete", status=400, title="The body was cut short"),
    errors.Unavailable: ProblemKind(slug="temporarily_unavailable", status=503, title="Temporarily unavailable"),
    errors.Overloaded: ProblemKind(slug="overloaded", status=503, title="Overloaded"),
}

_BY_STATUS: Final = {
    400: "request_invalid",
    401: "not_authenticated",
    403: "scope_missing",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_not_supported",
    429: "rate_limited",
}
"Codes of the framework's own refusals, by status."


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every refusal. `code` is stable; `errors` has one row per field that needs attention."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    errors: tuple[Fault, ...] = ()


def describe(error: Exception, request_id: str) -> Problem:
    """Return the problem for any exception; an unexpected one shows only its request id."""
    detail, faults = "", tuple[Fault, ...]()
    if isinstance(error, errors.MarketplaceError):
        entry, detail = PROBLEMS[type(error)], error.detail
        faults = error.faults if isinstance(error, errors.InvalidInput) else ()
    elif isinstance(error, NOT_NOW):
        entry = PROBLEMS[errors.Unavailable]
    elif isinstance(error, HTTPException):
        slug = _BY_STATUS.get(error.status_code, "request_refused")
        entry = ProblemKind(slug=slug, status=error.status_code, title=slug.replace("_", " ").capitalize())
        detail = {404: "There is nothing at this address.", 405: "This address does not take that method."}.get(
            error.status_code, "The request could not be read."
        )
    else:
        entry = ProblemKind(slug="internal_error", status=500, title="Something went wrong on our side")
        detail = "We have logged it under this request id. The same call may be sent again with the same key."
    if entry.status == 503 and not isinstance(error, errors.Overloaded):
        detail = "An engine is away or busy. Nothing is lost: send the same call again with the same key."
    code = faults[0].code if isinstance(error, errors.UnreadableBody) and faults else entry.slug
    return Problem(
        type=f"/problems/{entry.slug}",
        title=entry.title,
        status=entry.status,
        detail=detail or entry.title,
        code=code,
        instance=request_id,
        errors=tuple(faults),
    )


def render(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the answer for an exception: Litestar's exception handler of all routes."""
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    problem = describe(error, request_id)
    request.scope["state"]["code"] = problem.code
    if problem.status == 500:
        logger("api").error("unforeseen", error=type(error).__name__, request_id=request_id)
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=_headers(problem, error),
    )


def spell(error: errors.MarketplaceError, request_id: str = "") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of a refusal that is sent without the framework."""
    problem = describe(error, request_id)
    body = msgspec.json.encode(problem)
    headers = {**_headers(problem, error), "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
    return problem.status, [(name.lower().encode(), value.encode()) for name, value in headers.items()], body


def _headers(problem: Problem, error: Exception) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.retry_after_s)
    elif problem.status in (503, 429) or isinstance(error, errors.NotSealedYet):
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (408, 413):
        headers["Connection"] = "close"  # what follows on this connection is the rest of that body
    if isinstance(error, HTTPException) and error.headers and "allow" in error.headers:
        headers["Allow"] = error.headers["allow"]
    return headers
