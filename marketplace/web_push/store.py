"""The queries of web push as typed functions: one per query, no decision inside."""

from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows

SQL = Queries(__file__)


class PushSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A browser of a member that takes push messages. `keys` are sealed and bound to the id."""

    id: UUID
    member_id: UUID
    url: str
    keys: bytes
    device: str
    made_at: datetime


async def replace_subscription(connection: Connection, new: PushSubscription) -> None:
    """Store a subscription, in place of an earlier one of the same browser."""
    url_sha256 = sha256(new.url.encode()).digest()
    await connection.execute(SQL["delete_url"], url_sha256)
    await connection.execute(
        SQL["insert_subscription"], new.id, new.member_id, new.url, url_sha256, new.keys, new.device, new.made_at
    )


async def count_of_member(connection: Connection, member_id: UUID) -> int:
    """Return the number of the member's browsers."""
    return int(await connection.fetchval(SQL["count_of_member"], member_id))


async def list_of_member(connection: Connection, member_id: UUID) -> tuple[PushSubscription, ...]:
    """Return the member's browsers, newest first."""
    return await fetch_rows(connection, SQL["list_of_member"], PushSubscription, member_id)


async def delete_of_member(connection: Connection, subscription_id: UUID, member_id: UUID) -> bool:
    """Delete a browser of the member; return False if they have none with this id."""
    return await connection.fetchval(SQL["delete_of_member"], subscription_id, member_id) is not None


async def list_of_business(connection: Connection, business_id: UUID, limit: int) -> tuple[PushSubscription, ...]:
    """Return the browsers of the business's members who may take leads, newest first."""
    return await fetch_rows(connection, SQL["list_of_business"], PushSubscription, business_id, limit)


async def delete_ended(connection: Connection, subscription_id: UUID) -> None:
    """Delete a subscription that the browser has ended."""
    await connection.execute(SQL["delete_ended"], subscription_id)
