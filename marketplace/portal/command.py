"""`marketplace member`: invitations and links made on the server, such as for the first member of an account."""

import os
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import rich_click as click

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool, session
from marketplace.directory.parties import owner_of
from marketplace.portal import flow, store
from marketplace.portal.store import Member, Purpose, Role
from marketplace.runtime import errors
from marketplace.runtime.settings import Settings, load_existing
from marketplace.security import audit
from marketplace.security.auth import CallerKind, UnconfirmedAccess

T = TypeVar("T")

LONGEST_MINUTES = 24 * 60
MADE_HERE = "Made on the machine of the marketplace."


@click.group()
def member() -> None:
    """Give people access to the portal."""


@member.command()
@click.option("--kind", type=click.Choice([kind.value for kind in CallerKind]), required=True, help="Kind of account.")
@click.option("--owner", metavar="ID", help="The provider (prov_…) or business (biz_…); an operator has none.")
@click.option("--email", required=True, help="The address to sign in with.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default="owner", help="Rights of the member.")
def create(kind: str, owner: str | None, email: str, role: str) -> None:
    """Make an invitation: a link that works once within seven days."""
    settings = load_existing(os.environ)
    click.echo(f"{settings.public_url}/link/{_run(_create(settings, CallerKind(kind), owner, email, Role(role)))}")


@member.command()
@click.option("--email", required=True, help="The member's address.")
@click.option("--password", "for_password", is_flag=True, help="Make a link to set a new password.")
@click.option(
    "--factor",
    "for_factor",
    is_flag=True,
    help="Make a link to replace the second factor, such as after the loss of a phone.",
)
@click.option("--minutes", type=click.IntRange(1, LONGEST_MINUTES), default=15, help="Minutes until the link expires.")
def link(email: str, for_password: bool, for_factor: bool, minutes: int) -> None:
    """Make a link by which a member signs in once, without password and second factor.

    With --factor, the old second factor works until the first code of the new one.
    """
    settings = load_existing(os.environ)
    if for_password and for_factor:
        raise click.UsageError("Choose one of --password and --factor.")
    purpose = Purpose.reset if for_password else Purpose.factor if for_factor else Purpose.enter
    click.echo(f"{settings.public_url}/link/{_run(_link(settings, email, purpose, timedelta(minutes=minutes)))}")


async def _create(settings: Settings, kind: CallerKind, owner: str | None, email: str, role: Role) -> str:
    async with command_pool(settings, "marketplace_api") as pool:
        owner_id = owner_of(kind, owner)
        opened = None if owner_id is None else UnconfirmedAccess(by=audit.COMMAND_LINE, reason=MADE_HERE)
        return await flow.invite(pool, audit.COMMAND_LINE, kind, owner_id, role, email.strip(), opened=opened)


async def _link(settings: Settings, email: str, purpose: Purpose, lifetime: timedelta) -> str:
    async with command_pool(settings, "marketplace_api") as pool:
        member = await _load(pool, email)
        opened = None if member.owner_id is None else UnconfirmedAccess(by=audit.COMMAND_LINE, reason=MADE_HERE)
        return await flow.link_for(pool, audit.COMMAND_LINE, member, purpose, lifetime, opened)


async def _load(pool: Pool, email: str) -> Member:
    async with session(pool) as connection:
        member = await store.find_member_by_email(connection, email.strip().lower())
    if member is None:
        raise errors.NotFound("There is no member with this e-mail address.")
    return member


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command. Raises StartError for what the marketplace refuses."""
    return run_command(
        work,
        "member_refused",
        input_help="See: marketplace member create --help",
        help="See: marketplace member --help",
    )
