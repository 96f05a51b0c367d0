"""Lists of people who must not be contacted: their age, the upload of a file, undoing and removing."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.portal import contact_lists
from marketplace.portal.contact_lists import BODY_BYTES, IMPORTS, LISTS, OperatorUploadForm, address_of
from marketplace.portal.forms import changing, fill, show_again
from marketplace.portal.frame import page, redirect
from marketplace.portal.operator.compliance import TABS
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors
from marketplace.security.auth import CallerKind
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.store import ListKind
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/operator/compliance/lists"
KIND: Final = ListKind.do_not_contact


@get(HOME)
async def show_lists(request: AnyRequest) -> Response[bytes]:
    """Show the lists, newest first, with the last imports and the form to upload a file."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        return await LISTS.download((await contact_lists.load_lists(request, KIND, None, as_file=True)).lists)
    return await _page(request, viewer)


async def _page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    lists_page = await contact_lists.load_lists(request, KIND, None)
    return page(
        request,
        viewer,
        "operator/contact_lists.html",
        tabs=TABS,
        home=HOME,
        listing=LISTS,
        import_listing=IMPORTS,
        lists_page=lists_page,
        next_cursor=lists_page.next_cursor,
        form=contact_lists.show_upload(OperatorUploadForm, ""),
        address_of=address_of,
    )


@post(HOME, request_max_body_size=BODY_BYTES)
async def import_file(request: AnyRequest) -> Response[bytes]:
    """Import a file into the list of this name."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(OperatorUploadForm, fields)
        run = await contact_lists.import_form(request, viewer.actor, KIND, None, form)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, fields, error, _page(request, viewer))
    return redirect(request, HOME, contact_lists.result_in_words(run))


@post(f"{HOME}/{{list_id:str}}/undo")
async def undo(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Undo the last import into a list."""
    viewer, _ = await changing(request, CallerKind.operator)
    contact_list = await contact_lists.load_own_list(request, list_id, KIND, None)
    await lists_flow.undo_last(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"The last import into {contact_list.name} is undone.")


@post(f"{HOME}/{{list_id:str}}/remove")
async def remove(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Remove a list: no lead is checked against it any more."""
    viewer, _ = await changing(request, CallerKind.operator)
    contact_list = await contact_lists.load_own_list(request, list_id, KIND, None)
    await lists_flow.remove_list(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"{contact_list.name} is removed.")


handlers: tuple[Any, ...] = (show_lists, import_file, undo, remove)
