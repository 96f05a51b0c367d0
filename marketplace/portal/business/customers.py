"""A business's lists of its own customers, whose leads are not sold to it."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.portal import contact_lists
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.contact_lists import BODY_BYTES, IMPORTS, LISTS, UploadForm, address_of
from marketplace.portal.forms import changing, fill, show_again
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import FEWEST_SHOWN, load_kept_away
from marketplace.suppression_lists.store import ListKind
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/business/customers"
KIND: Final = ListKind.own_customers
USUAL_NAME: Final = "My customers"


@get(HOME)
async def show_customers(request: AnyRequest) -> Response[bytes]:
    """Show the lists, the number of leads that they kept away, and the form to upload a file."""
    viewer = await visitor(request, CallerKind.business)
    if wants_csv(request):
        lists_page = await contact_lists.load_lists(request, KIND, viewer.owner, as_file=True)
        return await LISTS.download(lists_page.lists, "my-customers")
    return await _page(request, viewer)


async def _page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    lists_page = await contact_lists.load_lists(request, KIND, viewer.owner)
    async with session(services(request).pool) as connection:
        kept_away = await load_kept_away(connection, viewer.owner, clock.now())
    return await business_page(
        request,
        viewer,
        "business/customers.html",
        home=HOME,
        listing=LISTS,
        import_listing=IMPORTS,
        lists_page=lists_page,
        next_cursor=lists_page.next_cursor,
        form=contact_lists.show_upload(UploadForm, USUAL_NAME),
        address_of=address_of,
        kept_away=kept_away,
        fewest=FEWEST_SHOWN,
    )


@post(HOME, request_max_body_size=BODY_BYTES)
async def import_customers(request: AnyRequest) -> Response[bytes]:
    """Import a file into the list of this name."""
    viewer, fields = await changing(request, CallerKind.business)
    try:
        form = fill(UploadForm, fields)
        run = await contact_lists.import_form(request, viewer.actor, KIND, viewer.owner, form)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, fields, error, _page(request, viewer))
    return redirect(request, HOME, contact_lists.result_in_words(run))


@post(f"{HOME}/{{list_id:str}}/undo")
async def undo_customers(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Undo the last import into a list."""
    viewer, _ = await changing(request, CallerKind.business)
    contact_list = await contact_lists.load_own_list(request, list_id, KIND, viewer.owner)
    await lists_flow.undo_last(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"The last import into {contact_list.name} is undone.")


@post(f"{HOME}/{{list_id:str}}/remove")
async def remove_customers(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Remove a list: its people may be sold to the business again."""
    viewer, _ = await changing(request, CallerKind.business)
    contact_list = await contact_lists.load_own_list(request, list_id, KIND, viewer.owner)
    await lists_flow.remove_list(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"{contact_list.name} is removed.")


handlers: tuple[Any, ...] = (show_customers, import_customers, undo_customers, remove_customers)
