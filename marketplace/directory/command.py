"""The command `marketplace key`, which makes, lists and revokes keys in the database, including the first one."""

import os
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from marketplace.database.commands import command_pool, run_command
from marketplace.directory import flow as directory_flow
from marketplace.directory.parties import KeyView, KeyWithSecret, owner_of, show_key
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit, auth
from marketplace.security.auth import CallerKind, UnconfirmedAccess
from marketplace.security.sealing import Sealer
from marketplace.text.characters import is_visible

T = TypeVar("T")

MOST_LISTED = 1_000
MADE_HERE = "Made on the machine of the marketplace."
VAPID_BYTES = 32
LONGEST_NAME = 100
"Limit of characters, the same as in the body of POST /v1/keys."


@click.group()
def key() -> None:
    """Make and revoke the keys that callers use."""


@key.command()
@click.option(
    "--kind", type=click.Choice([kind.value for kind in CallerKind]), required=True, help="The kind of its owner."
)
@click.option("--owner", metavar="ID", help="The provider (prov_…) or business (biz_…); an operator's key has none.")
@click.option("--mode", type=click.Choice(["live", "test"]), required=True, help="The mode of the leads it works on.")
@click.option("--name", required=True, help="Its purpose, in your words.")
@click.option(
    "--expires", type=click.IntRange(1, 3650), metavar="DAYS", help="Days until it expires; never if left out."
)
@JSON_FILE
def create(kind: str, owner: str | None, mode: str, name: str, expires: int | None, json_file: Path | None) -> None:
    """Make a key. Its text is shown once, here, and cannot be shown again."""
    if not is_visible(name) or len(name) > LONGEST_NAME:
        raise click.BadParameter(f"Give a name of 1 to {LONGEST_NAME} characters.", param_hint="--name")
    made = _run(_create(load_existing(os.environ), CallerKind(kind), owner, mode, name, expires))
    click.echo(made.key)
    write_json(json_file, made, private=True)


@key.command("list")
@click.option("--owner", metavar="ID", help="Only the keys of this provider or business.")
@JSON_FILE
def list_(owner: str | None, json_file: Path | None) -> None:
    """List keys, newest first, without their texts."""
    keys = _run(_list(load_existing(os.environ), owner))
    for row in keys:
        click.echo(f"{row.id}  {row.kind:8}  {row.mode}  {row.owner_id or '-':31}  {_describe_end(row):16}  {row.name}")
        if row.seen_in_url_at:
            click.echo(f"  It was sent in a web address on {row.seen_in_url_at:%Y-%m-%d}: replace it.")
    write_json(json_file, keys, private=True)


def _describe_end(key_row: KeyView) -> str:
    """Return "revoked", the day on which the key expires, or "no end"."""
    if key_row.revoked_at:
        return "revoked"
    return f"until {key_row.expires_at:%Y-%m-%d}" if key_row.expires_at else "no end"


@key.command()
@JSON_FILE
def vapid(json_file: Path | None) -> None:
    """Make a pair of keys for web push. Set the private one, and notifications are switched on."""
    from marketplace.web_push.encryption import encode_base64, load_private_key, public_bytes

    private = clock.random_bytes(VAPID_BYTES)
    pair = {
        "private_key": encode_base64(private),
        "public_key": encode_base64(public_bytes(load_private_key(private))),
    }
    click.echo(f"MARKETPLACE_VAPID_PRIVATE_KEY={pair['private_key']}")
    click.echo(f"The public key is {pair['public_key']}", err=True)
    write_json(json_file, pair, private=True)


@key.command()
@click.argument("key_id", metavar="ID")
@JSON_FILE
def revoke(key_id: str, json_file: Path | None) -> None:
    """Revoke a key for good, by its public id, which is the third part of its text."""
    ended = _run(_revoke(load_existing(os.environ), key_id))
    click.echo(f"{ended.id} is revoked.")
    write_json(json_file, ended, private=True)


async def _create(
    settings: Settings, kind: CallerKind, owner: str | None, mode: str, name: str, expires: int | None
) -> KeyWithSecret:
    """Make a key for the owner, whose account records that it was made on this machine."""
    sealer = Sealer(settings.master_key, settings.pepper)
    expires_at = None if expires is None else clock.now() + timedelta(days=expires)
    opened = None if kind is CallerKind.operator else UnconfirmedAccess(by=audit.COMMAND_LINE, reason=MADE_HERE)
    async with command_pool(settings, "marketplace_api") as pool:
        text = await directory_flow.create_key(
            pool,
            sealer,
            audit.COMMAND_LINE,
            kind=kind,
            owner_id=owner_of(kind, owner),
            mode=mode,
            name=name,
            expires_at=expires_at,
            opened=opened,
        )
    return KeyWithSecret(
        id=auth.key_id(text), key=text, kind=kind, owner_id=owner, mode=mode, name=name, expires_at=expires_at
    )


async def _list(settings: Settings, owner: str | None) -> tuple[KeyView, ...]:
    """Return up to MOST_LISTED keys, of this owner if one is passed."""
    kind = CallerKind.business if (owner or "").startswith("biz_") else CallerKind.provider
    owner_id = None if owner is None else owner_of(kind, owner)
    async with command_pool(settings, "marketplace_api") as pool, pool.acquire() as connection:
        return tuple(map(show_key, await auth.list_keys(connection, owner_id, None, MOST_LISTED)))


async def _revoke(settings: Settings, key_id: str) -> KeyView:
    """Revoke the key."""
    async with command_pool(settings, "marketplace_api") as pool:
        return show_key(await directory_flow.revoke_key(pool, audit.COMMAND_LINE, key_id))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command. Raises StartError for what the marketplace refuses."""
    return run_command(
        work, "key_refused", input_help="See: marketplace key create --help", help="See: marketplace key list"
    )
