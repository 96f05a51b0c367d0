"""Amounts owed to providers, and the payments that were made to them."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.wire import Currency
from marketplace.funds import flow as funds_flow
from marketplace.portal.business.leads import field_fault
from marketplace.portal.forms import Amount, Reason, changing, fill, label, show_again, show_form
from marketplace.portal.frame import field_amount, page, redirect
from marketplace.portal.frame import money as format_money
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import OwedToProvider
from marketplace.portal.operator.links import provider_link
from marketplace.portal.operator.wallets import HOME, TABS, read_amount_between
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, FaultCode
from marketplace.web.http import AnyRequest, services, wants_csv

PAGE: Final = f"{HOME}/providers"
MOST_PROVIDERS: Final = 1_000

ProviderId = Annotated[str, Meta(min_length=1, max_length=64, extra={"placeholder": "prov_…"})]


class ProviderPaymentForm(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that was made to a provider. `reference` is the payment's own id: the same one is recorded once."""

    provider: Annotated[ProviderId, label("Provider id")]
    amount: Annotated[Amount, label("Amount", "At most what is owed, for example 1,250.00")]
    currency: Annotated[Currency, label("Currency", maxlength=3)]
    reference: Annotated[
        str,
        Meta(min_length=1, max_length=255, pattern=WORDS),
        label("Payment reference", "As your bank shows it. A payment with the same reference is recorded only once."),
    ]
    reason: Annotated[Reason, label("Reason", "For example: earnings of November.")]


def _payment_link(row: OwedToProvider) -> Link | None:
    """Return the link to the form, filled in with the amount that is owed; None if nothing is."""
    if row.owed_minor <= 0:
        return None
    owed = field_amount(row.owed_minor, row.currency)
    provider = ids.encode("prov", row.provider_id)
    return Link(f"{PAGE}?provider={provider}&currency={row.currency}&amount={owed}#payment", "Record a payment")


OWED: Final = Listing[OwedToProvider](
    caption="Providers",
    name="owed-to-providers",
    columns=(
        only_in_file("provider", lambda row: ids.encode("prov", row.provider_id)),
        Column(
            "Provider",
            lambda row: provider_link(row.provider_id, row.provider),
            file="name",
            value=lambda row: row.provider,
        ),
        Column("Earned", lambda row: Money(row.earned_minor, row.currency), file="earned_minor", style="num"),
        Column("Taken back", lambda row: Money(-row.taken_minor, row.currency), file="taken_minor", style="num"),
        Column("Paid", lambda row: Money(-row.paid_minor, row.currency), file="paid_minor", style="num"),
        Column("Owed now", lambda row: Money(row.owed_minor, row.currency), file="owed_minor", style="num"),
        only_in_file("currency", lambda row: row.currency),
        Column(
            "Last payment",
            lambda row: row.last_paid_at,
            file="last_paid_at",
            value=lambda row: row.last_paid_at.isoformat() if row.last_paid_at else "",
            time="day",
        ),
    ),
)


@get(PAGE)
async def show_owed(request: AnyRequest) -> Response[bytes]:
    """Show what each provider earned, was paid and is owed, the largest amount owed first."""
    return await _owed_page(request, await visitor(request, CallerKind.operator))


async def _owed_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    async with session(services(request).reports) as connection:
        rows = await back_office_store.list_owed(connection, MOST_PROVIDERS)
    if wants_csv(request):
        return await OWED.download(rows)
    query = request.query_params
    values = {name: query.get(name, "") for name in ("provider", "amount", "currency")}
    return page(
        request,
        viewer,
        "operator/provider_payments.html",
        tabs=TABS,
        listing=OWED,
        rows=rows,
        payment_link=_payment_link,
        form=show_form(ProviderPaymentForm, values),
    )


@post(PAGE)
async def record_payment(request: AnyRequest) -> Response[bytes]:
    """Record a payment that was made to a provider. The same reference is recorded once."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(ProviderPaymentForm, fields)
        provider_id = ids.decode("prov", form.provider.strip())
        if provider_id is None:
            detail = "Enter the id of a provider, prov_…. You find it on the page of the provider."
            raise field_fault("provider", FaultCode.value_not_allowed, detail)
        minor = read_amount_between(form.amount, form.currency, "amount", least=1)
        is_new = await funds_flow.record_provider_payment(
            services(request).pool,
            viewer.actor,
            provider_id,
            minor,
            form.currency,
            form.reference.strip(),
            form.reason.strip(),
        )
    except (errors.InvalidInput, errors.NotFound, errors.Conflict) as error:
        return await show_again(request, fields, error, _owed_page(request, viewer))
    text = f"A payment of {format_money(minor, form.currency)} was recorded."
    return redirect(request, PAGE, text if is_new else "This payment was recorded before. Nothing was changed.")


handlers: tuple[Any, ...] = (show_owed, record_payment)
