"""The command `marketplace key`, run on the marketplace's machine."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from marketplace.cli import marketplace
from marketplace.database.db import open_pool
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, StartError
from marketplace.security.auth import authenticate
from marketplace.security.sealing import Sealer
from tests.conftest import SECRETS


async def run(settings: Settings, *arguments: str) -> Result:
    """Run the command in a thread, because it has an event loop of its own."""
    environment = SECRETS | {"DATABASE_URL": settings.database_url, "VALKEY_URL": settings.valkey_url}
    return await asyncio.to_thread(CliRunner().invoke, marketplace, ["key", *arguments], env=environment)


def read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


async def test_the_first_operator_key_is_made_on_the_machine_and_works(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    arguments = ("create", "--kind", "operator", "--mode", "live", "--name", "first", "--expires", "30")
    made = await run(settings, *arguments, "--json", str(file))
    assert made.exit_code == 0, made.output
    text = read(file)["key"]
    assert made.output.strip() == text
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    pool = await open_pool(settings.database_url or "", "marketplace_api", size=1)
    caller = await authenticate(pool, Sealer(settings.master_key, settings.pepper), f"Bearer {text}", clock.now())
    actors = await pool.fetch("select actor from audit where action = 'key.create'")
    await pool.close()
    assert (caller.kind, caller.mode, caller.owner_id) == ("operator", "live", None)
    assert [row["actor"] for row in actors] == ["command line"]


async def test_keys_are_listed_without_their_texts_and_revoked_by_their_id(settings: Settings, tmp_path: Path) -> None:
    made = (await run(settings, "create", "--kind", "operator", "--mode", "test", "--name", "x")).output.strip()
    key_id = made.split("_")[2]
    file = tmp_path / "keys.json"
    listed = await run(settings, "list", "--json", str(file))
    assert key_id in listed.output
    assert made.split("_")[3] not in listed.output + file.read_text()
    assert (await run(settings, "revoke", key_id)).exit_code == 0
    await run(settings, "list", "--json", str(file))
    assert read(file)[0]["revoked_at"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--kind", "provider", "--mode", "live", "--name", "x"), "Name the provider"),
        (("create", "--kind", "operator", "--owner", "biz_1", "--mode", "live", "--name", "x"), "no owner"),
        (("revoke", "nothing"), "nothing with this id"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    settings: Settings, arguments: tuple[str, ...], words: str
) -> None:
    outcome = await run(settings, *arguments)
    assert isinstance(outcome.exception, StartError)
    assert words in outcome.exception.sentence
    assert outcome.exception.remedy
