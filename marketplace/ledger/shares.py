"""Shares of the payout of a lead that other inquiries joined before it was exposed.

    load the claims and the policy by which the lead was awarded → divide (pure) → insert the shares with the payouts

The claims to a lead do not change once it is exposed, so that they may be loaded before its rows are locked. A payout
that goes whole to the provider of the lead has no shares.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from billing.shares import split_payout
from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.ledger.money import AssignmentPrice, PayoutShare
from routing.joining import Claimant, PayJoined, find_payees

SQL = Queries(__file__, "shares.sql")


class PayoutClaim(msgspec.Struct, frozen=True, kw_only=True):
    """An inquiry that joined a lead in time, with the policy by which the payout of the lead is divided."""

    provider_id: UUID
    inquiry_id: UUID
    pay_joined: PayJoined


async def load_shares(connection: Connection, price: AssignmentPrice) -> tuple[PayoutShare, ...]:
    """Return the shares of the payout of an exposed assignment; none if its provider gets the whole payout.

    An exposure must be committed: until then, more inquiries may join the lead.
    """
    claims = await fetch_rows(connection, SQL["list_claims"], PayoutClaim, price.assignment_id)
    return divide_payout(price, claims)


def divide_payout(price: AssignmentPrice, claims: Sequence[PayoutClaim]) -> tuple[PayoutShare, ...]:
    """Return the shares of a payout in the order of the claims; none if the provider of the lead gets all of it.

    A provider whose part would be less than one minor unit gets no share.
    """
    if not claims or price.payout_minor == 0:
        return ()
    first = Claimant(provider_id=price.provider_id, inquiry_id=None)
    joined = [Claimant(provider_id=claim.provider_id, inquiry_id=claim.inquiry_id) for claim in claims]
    payees = find_payees(claims[0].pay_joined, first, joined)
    amounts = split_payout(price.payout_minor, len(payees))
    parts = [(payee, minor) for payee, minor in zip(payees, amounts, strict=True) if minor > 0]
    if [payee for payee, _ in parts] == [first]:
        return ()
    shares, begins_minor = [], 0
    for number, (payee, amount_minor) in enumerate(parts):
        shares.append(
            PayoutShare(
                share=number,
                provider_id=payee.provider_id,
                inquiry_id=payee.inquiry_id,
                begins_minor=begins_minor,
                amount_minor=amount_minor,
            )
        )
        begins_minor += amount_minor
    return tuple(shares)
