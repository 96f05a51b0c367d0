"""Explanations of the codes of refusals, at the address that each refusal names as its type (RFC 9457).

Public, as HTML for people and as JSON for programs. A code's explanation is the docstring of its class of errors.
"""

import inspect
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from marketplace.portal.frame import page
from marketplace.runtime import errors
from marketplace.web.http import JSON, AnyRequest, preferred
from marketplace.web.problems import PROBLEMS, ProblemKind

HOME: Final = "/problems"


class ProblemExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Meaning of a code, and whether the same request may be sent again."""

    type: str
    code: str
    status: int
    title: str
    meaning: str
    advice: str


FRAMEWORK: Final = (
    (
        ProblemKind(slug="method_not_allowed", status=405, title="Method not allowed"),
        "The address takes other methods.",
    ),
    (ProblemKind(slug="request_invalid", status=400, title="Request invalid"), "The request could not be read."),
    (ProblemKind(slug="request_refused", status=400, title="Request refused"), "The request could not be read."),
    (
        ProblemKind(slug="internal_error", status=500, title="Something went wrong on our side"),
        "A fault of this service. It is logged under the request id in `instance`.",
    ),
)
"Refusals that no class of errors stands for."


def advise(status: int) -> str:
    """Return whether the same request may be sent again, by the status of its refusal."""
    if status == 429:
        return "Wait as many seconds as the Retry-After header says, then send the same request again."
    if status in (408, 500, 503):
        return "Send the same request again, with the same idempotency key. Nothing is done twice."
    if status in (401, 403):
        return "Send the request with a key or as a member that may do this."
    if status == 409:
        return "Read the object again: it has changed, or is in a state that does not allow this."
    return "The same request is refused again. Correct it as `detail` and `errors` say."


def _explain(kind: ProblemKind, meaning: str) -> ProblemExplanation:
    return ProblemExplanation(
        type=f"{HOME}/{kind.slug}",
        code=kind.slug,
        status=kind.status,
        title=kind.title,
        meaning=" ".join(meaning.split()),
        advice=advise(kind.status),
    )


EXPLANATIONS: Final = {
    explanation.code: explanation
    for explanation in (
        *(_explain(kind, inspect.getdoc(error) or kind.title) for error, kind in PROBLEMS.items()),
        *(_explain(kind, meaning) for kind, meaning in FRAMEWORK),
    )
}
"Every explanation by its code."


@get(HOME)
async def list_problems(request: AnyRequest) -> Response[Any]:
    """List the codes of all refusals."""
    rows = sorted(EXPLANATIONS.values(), key=lambda row: (row.status, row.code))
    return _answer(request, {"data": rows}, rows)


@get(f"{HOME}/{{code:str}}")
async def show_problem(request: AnyRequest, code: FromPath[str]) -> Response[Any]:
    """Explain the code of a refusal."""
    explanation = EXPLANATIONS.get(code)
    if explanation is None:
        raise errors.NotFound(f"There is no such code. {HOME} lists all of them.")
    return _answer(request, explanation, [explanation])


def _answer(request: AnyRequest, content: object, rows: list[ProblemExplanation]) -> Response[Any]:
    """Return the content as JSON where the caller prefers that, and the rows as a page otherwise."""
    if "accept" in request.headers and preferred(request, "accept", (JSON, "text/html")) == "text/html":
        return page(request, None, "problem_codes.html", rows=rows, home=HOME)
    return Response(msgspec.json.encode(content), media_type=JSON)


handlers = (list_problems, show_problem)
