"""The first page of an operator."""

from litestar import Response, get

from marketplace.auth import Kind
from marketplace.http import AnyRequest
from marketplace.portal.frame import page
from marketplace.portal.session import visitor


@get("/operator")
async def show_overview(request: AnyRequest) -> Response[bytes]:
    """Shows how things stand."""
    viewer = await visitor(request, Kind.operator)
    return page(request, viewer, "operator/overview.html")


handlers = (show_overview,)
