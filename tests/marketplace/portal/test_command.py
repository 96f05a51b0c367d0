"""`marketplace member`: links for new and existing members, and the messages of refusals."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from marketplace.cli import marketplace
from marketplace.runtime.settings import Settings, StartError
from tests.builders.portal import Browser, signed_in
from tests.builders.service import Served, serve
from tests.conftest import SECRETS

HOST = "https://portal.example.com"
PASSWORD = "four plain words here"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def run(settings: Settings, *arguments: str) -> Result:
    """Run the command in a thread, because it has an event loop of its own."""
    environment = SECRETS | {
        "DATABASE_URL": settings.database_url, "VALKEY_URL": settings.valkey_url, "MARKETPLACE_PUBLIC_URL": HOST,
    }  # fmt: skip
    return await asyncio.to_thread(CliRunner().invoke, marketplace, ["member", *arguments], env=environment)


async def path_of(settings: Settings, *arguments: str) -> str:
    """Return the path of the link that a command prints, and check that it prints nothing more."""
    made = await run(settings, *arguments)
    assert made.exit_code == 0, made.output
    [line] = made.output.splitlines()
    assert line.startswith(f"{HOST}/link/")
    return line.removeprefix(HOST)


async def test_an_invitation_made_on_the_machine_makes_a_member_of_that_account_and_role(
    api: Served, settings: Settings
) -> None:
    business, _ = await api.business()
    arguments = (
        "create",
        "--kind",
        "business",
        "--owner",
        business,
        "--email",
        " Ada@Example.com ",
        "--role",
        "viewer",
    )
    path = await path_of(settings, *arguments)
    browser = Browser(api)
    assert "ada@example.com" in (await browser.get(path)).text
    assert (await browser.post(path, {"name": "Ada", "password": PASSWORD})).status_code == 303
    assert (await browser.get("/business")).status_code == 200
    row = await api.pool.fetchrow("select kind, role, email from member")
    assert tuple(row) == ("business", "viewer", "ada@example.com")
    actors = await api.pool.fetch("select actor from audit where action = 'member.invite'")
    assert [row["actor"] for row in actors] == ["command line"]
    again = await run(settings, *arguments)
    assert isinstance(again.exception, StartError)
    assert again.exception.sentence == "This e-mail address already belongs to a member of this account."


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kind", "business", "--email", "a@b.cd"), ("--kind", "operator", "--owner", "biz_x", "--email", "a@b.cd"),
        ("--kind", "provider", "--owner", "biz_x", "--email", "a@b.cd"),
    ],
)  # fmt: skip
async def test_whose_member_it_is_must_fit_the_kind_and_is_said_in_a_sentence(
    settings: Settings, arguments: tuple[str, ...]
) -> None:
    made = await run(settings, "create", *arguments)
    assert isinstance(made.exception, StartError)
    assert made.exception.sentence.endswith(".")
    assert "create --help" in made.exception.remedy


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("create",), ("create", "--kind", "guest", "--email", "a@b.cd"),
        ("create", "--kind", "operator", "--email", "a@b.cd", "--role", "king"), ("link",),
        ("link", "--email", "a@b.cd", "--minutes", "0"), ("link", "--email", "a@b.cd", "--minutes", "1441"),
        ("link", "--email", "a@b.cd", "--password", "--factor"), ("forget",),
    ],
)  # fmt: skip
async def test_what_the_command_does_not_know_is_a_usage_error(settings: Settings, arguments: tuple[str, ...]) -> None:
    assert (await run(settings, *arguments)).exit_code == 2


async def test_a_link_lets_a_member_in_once_and_ends_when_it_says(api: Served, settings: Settings) -> None:
    business, _ = await api.business()
    await signed_in(api, "business", business)
    email = await api.pool.fetchval("select email from member")
    browser = Browser(api)
    path = await path_of(settings, "link", "--email", email.upper(), "--minutes", "5")
    assert (await browser.post(path)).status_code == 303
    assert (await browser.get("/business")).status_code == 200
    assert (await Browser(api).post(path)).status_code == 410
    minutes = "select extract(epoch from expires_at - made_at)::int / 60 from one_time_link order by made_at"
    await path_of(settings, "link", "--email", email, "--password")
    assert [row[0] for row in await api.pool.fetch(minutes)] == [5, 15]
    assert await api.pool.fetchval("select purpose from one_time_link order by made_at desc limit 1") == "reset"


async def test_a_link_for_a_new_second_factor_leaves_the_old_one_in_use(api: Served, settings: Settings) -> None:
    await signed_in(api, "operator")
    email = await api.pool.fetchval("update member set totp = 'x', totp_confirmed_at = now() returning email")
    await path_of(settings, "link", "--email", email, "--factor")
    assert await api.pool.fetchval("select totp = 'x' and totp_confirmed_at is not null from member")
    assert await api.pool.fetchval("select purpose from one_time_link") == "factor"


async def test_nobody_of_this_address_is_said_in_a_sentence(settings: Settings) -> None:
    ran = await run(settings, "link", "--email", "nobody@example.com")
    assert isinstance(ran.exception, StartError)
    assert ran.exception.sentence == "There is no member with this e-mail address."
