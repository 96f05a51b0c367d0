"""Wallet summary in the header of every business page, and the number of notices that wait for an acknowledgement."""

from typing import Any

import msgspec
from litestar import Response

from marketplace.database.db import Connection, session
from marketplace.ledger import money
from marketplace.notices import store as notices_store
from marketplace.portal.business import store, wording
from marketplace.portal.frame import page
from marketplace.portal.session import Viewer
from marketplace.web.http import AnyRequest, services


class WalletSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Wallet of a business in minor units. Below `low_below_minor`, which the business sets, it counts as low."""

    available_minor: int
    held_minor: int
    credit_limit_minor: int
    currency: str
    low_below_minor: int | None

    @property
    def spendable_minor(self) -> int:
        """Money that can be spent, credit included."""
        return self.available_minor + self.credit_limit_minor

    @property
    def word(self) -> str:
        """State of the wallet: available, low or empty."""
        if self.spendable_minor <= 0:
            return "empty"
        return "low" if self.available_minor < (self.low_below_minor or 0) else "available"


async def load_wallet_summary(connection: Connection, viewer: Viewer) -> WalletSummary:
    """Return the wallet of the viewer's business; an empty one in USD if it has none."""
    wallet = await money.find_wallet(connection, viewer.owner)
    low = await store.find_low_below(connection, viewer.owner)
    if wallet is None:
        return WalletSummary(
            available_minor=0, held_minor=0, credit_limit_minor=0, currency="USD", low_below_minor=None
        )
    return WalletSummary(
        available_minor=wallet.available_minor,
        held_minor=wallet.held_minor,
        credit_limit_minor=wallet.credit_limit_minor,
        currency=wallet.currency,
        low_below_minor=low,
    )


async def business_page(
    request: AnyRequest, viewer: Viewer, template: str, *, wallet_summary: WalletSummary | None = None, **context: Any
) -> Response[bytes]:
    """Return a page of a business, with its wallet summary in the header and the number of its open notices."""
    async with session(services(request).pool) as connection:
        if wallet_summary is None:
            wallet_summary = await load_wallet_summary(connection, viewer)
        open_notices = await notices_store.count_open(connection, viewer.owner, viewer.mode)
    return page(
        request,
        viewer,
        template,
        wallet_summary=wallet_summary,
        open_notices=open_notices,
        wording=wording,
        **context,
    )
