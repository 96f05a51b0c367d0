"""Filters of a provider's reports: days in the member's zone, the session's mode, and the provider's own leads."""

from datetime import timedelta
from urllib.parse import urlencode

import msgspec

from marketplace.portal.session import Viewer
from marketplace.reports.question import Question, read_question
from marketplace.runtime import clock
from marketplace.web.http import AnyRequest


def question_of(request: AnyRequest, viewer: Viewer, days: int) -> Question:
    """Return the question for the days in the address, or for the last `days`. Raises InvalidInput for invalid days."""
    span = {name: value for name in ("from", "to") if (value := request.query_params.get(name))}
    question = read_question({**span, "zone": viewer.zone, "mode": viewer.mode}, clock.now())
    first = question.first if "from" in span else question.last - timedelta(days=days - 1)
    vertical = request.query_params.get("vertical") or None
    return msgspec.structs.replace(question, first=first, provider_id=viewer.owner, vertical=vertical)


def rows_of(question: Question, **filters: str) -> str:
    """Return the address of the list of submissions behind a figure."""
    parameters = {"from": question.first, "to": question.last, "vertical": question.vertical, **filters}
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"/provider/submissions?{query}"
