"""What a provider's page is asked: days in the member's zone, the session's mode, the provider's own figures alone."""

from datetime import timedelta
from urllib.parse import urlencode

import msgspec

from marketplace.portal.session import Viewer
from marketplace.reports.question import Question, read_question
from marketplace.runtime import clock
from marketplace.web.http import AnyRequest


def asked(request: AnyRequest, viewer: Viewer, days: int) -> Question:
    """The days in the address, else the last so many. Raises InvalidInput for days that are none."""
    given = {name: value for name in ("from", "to") if (value := request.query_params.get(name))}
    question = read_question({**given, "zone": viewer.zone, "mode": viewer.mode}, clock.now())
    first = question.first if "from" in given else question.last - timedelta(days=days - 1)
    vertical = request.query_params.get("vertical") or None
    return msgspec.structs.replace(question, first=first, provider_id=viewer.owner, vertical=vertical)


def rows_of(question: Question, **filters: str) -> str:
    """The list of the submissions behind a figure."""
    asked = {"from": question.first, "to": question.last, "vertical": question.vertical, **filters}
    return f"/provider/submissions?{urlencode({name: value for name, value in asked.items() if value is not None})}"
