"""One invented portal user of each kind, and links that sign you in as that user."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import open_pool, session
from marketplace.portal import flow, store
from marketplace.portal.store import Member, Purpose, Role
from marketplace.runtime import clock
from marketplace.security import audit
from marketplace.security.auth import CallerKind

LIFETIME: Final = timedelta(hours=12)
"""Validity of an unused link: a demo seldom runs for longer."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """A portal user: kind, name of the business or provider, and e-mail address."""

    kind: CallerKind
    whose: str
    email: str
    member_id: UUID


async def make_visitors(
    database_url: str, master_key: bytes, business_id: UUID, provider_id: UUID, tag: str = ""
) -> tuple[Visitor, ...]:
    """Create an owner of the business, an owner of the provider, and an operator.

    `tag` makes the e-mail addresses of several runs on one database distinct.
    """
    pool = await open_pool(database_url, "marketplace_api", size=1, master_key=master_key)
    async with pool, session(pool) as connection:
        made = []
        for kind, owner_id in (
            (CallerKind.business, business_id),
            (CallerKind.provider, provider_id),
            (CallerKind.operator, None),
        ):
            member = Member(
                id=clock.new_id(),
                kind=kind,
                owner_id=owner_id,
                email=f"{kind}{tag}@example.com",
                name=f"Robin {kind.capitalize()}",
                role=Role.owner,
                state="active",
                zone=None,
                has_password=False,
                has_factor=False,
                created_at=clock.now(),
            )
            await store.insert_member(connection, member, None)
            whose = "the operator" if owner_id is None else await store.find_owner(connection, kind, owner_id)
            made.append(Visitor(kind=kind, whose=whose or str(kind), email=member.email, member_id=member.id))
    return tuple(made)


async def link_in(database_url: str, master_key: bytes, public_url: str, visitor: Visitor) -> str:
    """Return a link that signs in as this user, once."""
    pool = await open_pool(database_url, "marketplace_api", size=1, master_key=master_key)
    async with pool:
        async with session(pool) as connection:
            member = await store.find_member(connection, visitor.member_id)
        if member is None:
            raise ValueError("this visitor is no member")
        return f"{public_url}/link/{await flow.link_for(pool, audit.COMMAND_LINE, member, Purpose.enter, LIFETIME)}"
