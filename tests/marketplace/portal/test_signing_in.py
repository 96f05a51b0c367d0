"""Signing in to the portal: who may, who may not, and what ends a session."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import process_time

import httpx
import pyotp
import pytest

from marketplace.database.db import Pool, open_pool
from marketplace.portal import flow, store
from marketplace.portal.passwords import AT_ONCE, WAITING, Passwords
from marketplace.portal.session import new_token
from marketplace.portal.store import Purpose, Role
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from marketplace.security.sealing import Sealer
from tests.builders.portal import Browser, signed_in
from tests.builders.service import PUBLIC_URL, Served, serve

PASSWORD = "four plain words here"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


@asynccontextmanager
async def own_pool(api: Served) -> AsyncIterator[Pool]:
    """A pool of the service's role, for calls without a request."""
    pool = await open_pool(api.settings.database_url or "", "marketplace_api", size=1)
    yield pool
    await pool.close()


async def invited(api: Served, kind: CallerKind, owner_id: str | None, email: str) -> str:
    owner = ids.decode(owner_id.split("_")[0], owner_id) if owner_id else None
    async with own_pool(api) as pool:
        return await flow.invite(pool, "a test", kind, owner, Role.owner, email)


async def link_for(api: Served, email: str, purpose: Purpose) -> str:
    async with own_pool(api) as pool:
        async with pool.acquire() as connection:
            member = await store.find_member_by_email(connection, email)
        assert member
        return await flow.link_for(pool, "a test", member, purpose)


async def first_link(api: Served) -> str | None:
    async with own_pool(api) as pool:
        return await flow.first_link(pool)


async def joined(api: Served, kind: str, owner_id: str | None, email: str) -> Browser:
    """Return the browser of a member who joined by invitation."""
    token = await invited(api, CallerKind(kind), owner_id, email)
    browser = Browser(api)
    reply = await browser.post(f"/link/{token}", {"name": "Ada Example", "password": PASSWORD})
    assert reply.status_code == 303, reply.text
    return browser


async def authenticator(api: Served, browser: Browser, page: str = "/sign-in/factor") -> pyotp.TOTP:
    """Return the authenticator for the secret that a page shows."""
    text = (await browser.get(page)).text
    [secret] = re.findall(r'class="secret">([A-Z2-7]+)<', text)
    return pyotp.TOTP(secret)


async def sign_in(api: Served, email: str, password: str = PASSWORD, browser: Browser | None = None) -> httpx.Response:
    return await (browser or Browser(api)).post("/sign-in", {"email": email, "password": password})


# --- getting in -------------------------------------------------------------------------------------------------------


async def test_an_invitation_makes_a_member_who_then_signs_in_with_the_password(api: Served) -> None:
    business, _ = await api.business()
    browser = await joined(api, "business", business, "ada@example.com")
    assert (await browser.get("/business")).status_code == 200
    again = Browser(api)
    reply = await sign_in(api, " ADA@Example.com ", browser=again)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert (await again.get("/business")).status_code == 200
    assert "member.join" in [action for action, _ in await api.audited()]


async def test_cookies_are_for_this_host_alone_and_unread_by_scripts(api: Served) -> None:
    business, _ = await api.business()
    await joined(api, "business", business, "ada@example.com")
    reply = await sign_in(api, "ada@example.com")
    lines = reply.headers.get_list("set-cookie")
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("__Host-")
        assert {"httponly", "secure", "samesite=lax", "path=/"} <= {part.strip().lower() for part in line.split(";")}
        assert "domain" not in line.lower()


async def test_an_unknown_address_and_a_wrong_password_look_alike(api: Served) -> None:
    business, _ = await api.business()
    await joined(api, "business", business, "ada@example.com")
    replies = [await sign_in(api, email, "not the password at all") for email in ("ada@example.com", "x@example.com")]
    assert [reply.status_code for reply in replies] == [422, 422]
    texts = [re.sub(r'value="[^"]*"', "", reply.text) for reply in replies]
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("production_hashes")
async def test_an_unknown_address_takes_the_time_of_a_hash(api: Served) -> None:
    business, _ = await api.business()
    await joined(api, "business", business, "ada@example.com")
    spent = {}
    for email in ("warm@example.com", "ada@example.com", "x@example.com"):
        begun = process_time()  # of this very process, whatever else the machine does
        await sign_in(api, email, "not the password at all")
        spent[email] = process_time() - begun
    assert 0.4 < spent["x@example.com"] / spent["ada@example.com"] < 2.5


@pytest.mark.parametrize(
    ("password", "status"), [("x" * 1_025, 422), ("a\x00b" * 9, 422), ("ä" * 600, 422), ("x", 422)]
)
async def test_no_password_of_any_shape_is_an_error_of_ours(api: Served, password: str, status: int) -> None:
    assert (await sign_in(api, "ada@example.com", password)).status_code == status


async def test_a_long_passphrase_with_spaces_is_taken_as_it_is(api: Served) -> None:
    business, _ = await api.business()
    token = await invited(api, CallerKind.business, business, "ada@example.com")
    phrase = "  a passphrase of sixty-four characters with spaces at both ends  "
    assert (await Browser(api).post(f"/link/{token}", {"name": "Ada", "password": phrase})).status_code == 303
    assert (await sign_in(api, "ada@example.com", phrase.strip())).status_code == 422
    assert (await sign_in(api, "ada@example.com", phrase)).status_code == 303


async def test_guesses_are_slowed_down_and_never_keep_a_member_out_of_the_usual_browser(api: Served) -> None:
    business, _ = await api.business()
    usual = await joined(api, "business", business, "ada@example.com")
    statuses = [(await sign_in(api, "ada@example.com", f"guess number {n} of many")).status_code for n in range(7)]
    assert statuses[:6] == [422] * 5 + [429]
    refused = await sign_in(api, "ada@example.com")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert (await sign_in(api, "ada@example.com", browser=usual)).status_code == 303


@pytest.mark.usefixtures("production_hashes")
async def test_a_thousand_guesses_from_one_address_end_at_its_limit(api: Served) -> None:
    replies = await asyncio.gather(*(sign_in(api, f"{n}@example.com", "x") for n in range(40)))
    assert {reply.status_code for reply in replies} <= {422, 429, 503}
    assert sum(reply.status_code == 422 for reply in replies) <= 30


@pytest.mark.usefixtures("production_hashes")
async def test_more_hashes_at_once_than_there_are_places_are_told_to_come_back() -> None:
    passwords = Passwords()
    outcomes = await asyncio.gather(
        *(passwords.hash("x" * 12) for _ in range(AT_ONCE + WAITING + 5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 5
    passwords.close()


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_coming_in_makes_a_new_session_and_ends_the_one_that_was_there(api: Served) -> None:
    business, _ = await api.business()
    browser = await joined(api, "business", business, "ada@example.com")
    before = browser.cookies["__Host-session"]
    await sign_in(api, "ada@example.com", browser=browser)
    assert browser.cookies["__Host-session"] != before
    planted = Browser(api, {"__Host-session": before})
    assert (await planted.get("/business")).status_code == 303


async def test_a_planted_id_is_not_taken_over(api: Served) -> None:
    business, _ = await api.business()
    await joined(api, "business", business, "ada@example.com")
    browser = Browser(api, {"__Host-session": "A" * 43})
    await sign_in(api, "ada@example.com", browser=browser)
    assert browser.cookies["__Host-session"] != "A" * 43


async def test_of_a_session_and_of_a_link_only_digests_are_kept(api: Served) -> None:
    business, _ = await api.business()
    token = await invited(api, CallerKind.business, business, "b@example.com")
    browser = await joined(api, "business", business, "ada@example.com")
    secret = browser.cookies["__Host-session"]
    for table in ("portal_session", "one_time_link", "member", "audit", "sign_in_try"):
        text = str([dict(row) for row in await api.pool.fetch(f"select * from {table}")])
        assert secret not in text
        assert token not in text
        assert PASSWORD not in text


async def test_signing_out_ends_the_session_here_and_there(api: Served) -> None:
    business, _ = await api.business()
    browser = await signed_in(api, "business", business)
    copy = Browser(api, browser.cookies)
    reply = await browser.post("/sign-out")
    assert reply.headers["clear-site-data"] == '"cache", "storage"'
    assert "__Host-session" not in browser.cookies
    assert (await copy.get("/business")).status_code == 303


async def test_a_new_password_ends_every_other_session(api: Served) -> None:
    business, _ = await api.business()
    browser = await joined(api, "business", business, "ada@example.com")
    other = Browser(api)
    await sign_in(api, "ada@example.com", browser=other)
    wrong = await browser.post("/account/password", {"current_password": "x", "fresh_password": "another four words"})
    assert wrong.status_code == 422
    change = {"current_password": PASSWORD, "fresh_password": "another four words"}
    assert (await browser.post("/account/password", change)).status_code == 303
    assert (await browser.get("/business")).status_code == 200
    assert (await other.get("/business")).status_code == 303
    assert (await sign_in(api, "ada@example.com")).status_code == 422


async def test_a_session_ends_when_it_was_not_used_for_half_a_day_and_after_a_week_anyway(api: Served) -> None:
    business, _ = await api.business()
    for column, age in (("seen_at", "12 hours 1 second"), ("expires_at", "1 second")):
        browser = await signed_in(api, "business", business)
        await api.pool.execute(
            f"update portal_session set {column} = now() - interval '{age}' where member_id = $1", browser.member_id
        )
        assert (await browser.get("/business")).status_code == 303


async def test_a_change_of_role_ends_the_sessions_of_whom_it_is_about(api: Served) -> None:
    business, _ = await api.business()
    owner = await signed_in(api, "business", business)
    other = await signed_in(api, "business", business)
    assert other.member_id
    path = f"/account/team/{ids.encode('mem', other.member_id)}"
    assert (await owner.post(path, {"act": "role", "role": "viewer"})).status_code == 303
    assert (await other.get("/business")).status_code == 303


async def test_a_role_saved_as_it_is_ends_no_session(api: Served) -> None:
    owner = await signed_in(api, "business", (await api.business())[0])
    assert owner.member_id
    path = f"/account/team/{ids.encode('mem', owner.member_id)}"
    for _ in range(2):
        assert (await owner.post(path, {"act": "role", "role": "owner"})).status_code == 303
        assert (await owner.get("/account/team")).status_code == 200


async def test_the_last_owner_stays(api: Served) -> None:
    business, _ = await api.business()
    owner = await signed_in(api, "business", business)
    assert owner.member_id
    path = f"/account/team/{ids.encode('mem', owner.member_id)}"
    for change in ({"act": "disable"}, {"act": "role", "role": "member"}):
        assert (await owner.post(path, change)).status_code == 409


# --- the second factor ------------------------------------------------------------------------------------------------


async def test_an_operator_sets_up_a_second_factor_before_anything_else(api: Served) -> None:
    browser = await joined(api, "operator", None, "op@example.com")
    assert (await browser.get("/operator")).headers["location"].startswith("/sign-in")
    factor = await authenticator(api, browser)
    before = browser.cookies["__Host-session"]
    assert (await browser.post("/sign-in/code", {"code": "000000"})).status_code == 422
    assert (await browser.post("/sign-in/code", {"code": factor.now()})).status_code == 303
    assert browser.cookies["__Host-session"] != before
    assert (await browser.get("/operator")).status_code == 200


async def test_a_code_works_once_and_the_next_sign_in_asks_for_another(api: Served) -> None:
    browser = await joined(api, "operator", None, "op@example.com")
    factor = await authenticator(api, browser)
    at = clock.now().timestamp()
    code = factor.at(at)
    assert (await browser.post("/sign-in/code", {"code": code})).status_code == 303
    again = Browser(api)
    assert (await sign_in(api, "op@example.com", browser=again)).headers["location"] == "/sign-in/code"
    assert (await again.post("/sign-in/code", {"code": code})).status_code == 422
    assert (await again.get("/operator")).status_code == 303
    assert (await again.post("/sign-in/code", {"code": factor.at(at + 30)})).status_code == 303


async def test_a_code_from_two_hours_off_is_wrong_and_after_five_tries_comes_a_wait(api: Served) -> None:
    browser = await joined(api, "operator", None, "op@example.com")
    factor = await authenticator(api, browser)
    far = factor.at(clock.now().timestamp() - 7_200)
    statuses = [(await browser.post("/sign-in/code", {"code": far})).status_code for _ in range(7)]
    assert statuses[:5] == [422] * 5
    assert 429 in statuses[5:]


async def test_the_same_code_sent_twice_at_once_opens_one_session(api: Served) -> None:
    browser = await joined(api, "operator", None, "op@example.com")
    factor = await authenticator(api, browser)
    twins = [Browser(api, browser.cookies) for _ in range(2)]
    code = factor.now()
    replies = await asyncio.gather(*(twin.post("/sign-in/code", {"code": code}) for twin in twins))
    assert sum(reply.headers.get("location") == "/" for reply in replies) == 1
    assert await api.pool.fetchval("select count(*) from portal_session where state = 'open'") == 1


async def protected(api: Served, email: str) -> tuple[Browser, pyotp.TOTP, float]:
    """Return a business's member with a second factor, the factor, and the time of its used code."""
    business, _ = await api.business()
    browser = await joined(api, "business", business, email)
    assert (await browser.post("/account/factor", {"current_password": PASSWORD})).status_code == 303
    factor = await authenticator(api, browser, "/account/factor")
    at = clock.now().timestamp()
    assert (await browser.post("/account/factor/code", {"code": factor.at(at)})).status_code == 303
    return browser, factor, at


async def test_others_may_set_a_second_factor_up_and_take_it_away_by_a_code_of_it(api: Served) -> None:
    browser, factor, at = await protected(api, "ada@example.com")
    assert (await sign_in(api, "ada@example.com")).headers["location"] == "/sign-in/code"
    for code in ("", "000000", factor.at(at)):
        fields = {"current_password": PASSWORD, "code": code}
        assert (await browser.post("/account/factor/remove", fields)).status_code == 422
    assert (await sign_in(api, "ada@example.com")).headers["location"] == "/sign-in/code"
    fields = {"current_password": PASSWORD, "code": factor.at(at + 30)}
    assert (await browser.post("/account/factor/remove", fields)).status_code == 303
    assert (await sign_in(api, "ada@example.com")).headers["location"] == "/"


async def test_a_second_factor_is_renewed_by_the_old_one_which_counts_until_the_first_code_of_the_new(
    api: Served,
) -> None:
    browser, old, at = await protected(api, "ada@example.com")
    refused = await browser.post("/account/factor", {"current_password": PASSWORD})
    assert (refused.status_code, "six digits" in refused.text) == (422, True)
    assert (await browser.get("/account/factor")).status_code == 303
    fields = {"current_password": PASSWORD, "code": old.at(at + 30)}
    assert (await browser.post("/account/factor", fields)).status_code == 303
    new = await authenticator(api, browser, "/account/factor")

    stranger = Browser(api)  # who has the password alone, while the renewal is under way
    assert (await sign_in(api, "ada@example.com", browser=stranger)).headers["location"] == "/sign-in/code"
    assert "secret=" not in (await stranger.get("/sign-in/code")).text
    assert (await stranger.get("/sign-in/factor")).headers["location"].startswith("/sign-in")
    assert (await stranger.post("/sign-in/code", {"code": new.now()})).status_code == 422
    assert (await stranger.get("/business")).status_code == 303

    assert (await browser.post("/account/factor/code", {"code": new.at(at + 30)})).status_code == 303
    assert (await stranger.get("/sign-in/code")).headers["location"].startswith("/sign-in")
    await api.pool.execute("update member set totp_step = 0")
    again = Browser(api)
    await sign_in(api, "ada@example.com", browser=again)
    assert (await again.post("/sign-in/code", {"code": old.now()})).status_code == 422
    assert (await again.post("/sign-in/code", {"code": new.now()})).status_code == 303


async def test_a_renewal_that_another_session_began_is_not_seen(api: Served) -> None:
    browser, factor, at = await protected(api, "ada@example.com")
    other = Browser(api)
    await sign_in(api, "ada@example.com", browser=other)
    assert (await other.post("/sign-in/code", {"code": factor.at(at + 30)})).status_code == 303
    await api.pool.execute("update member set totp_step = 0")
    fields = {"current_password": PASSWORD, "code": factor.at(at)}
    assert (await browser.post("/account/factor", fields)).status_code == 303
    assert (await other.get("/account/factor")).headers["location"] == "/account/profile"
    assert (await other.get("/business")).status_code == 200


async def test_a_link_for_a_lost_factor_asks_for_the_password_and_leaves_the_old_one_until_the_first_code(
    api: Served,
) -> None:
    operator = await joined(api, "operator", None, "op@example.com")
    old = await authenticator(api, operator)
    assert (await operator.post("/sign-in/code", {"code": old.now()})).status_code == 303
    token = await link_for(api, "op@example.com", Purpose.factor)
    browser = Browser(api)
    assert (await browser.post(f"/link/{token}", {"password": "not the password"})).status_code == 422
    reply = await browser.post(f"/link/{token}", {"password": PASSWORD})
    assert reply.headers["location"] == "/sign-in/factor"
    assert (await browser.get("/operator")).status_code == 303
    new = await authenticator(api, browser)
    assert (await sign_in(api, "op@example.com")).headers["location"] == "/sign-in/code"
    assert (await operator.get("/operator")).status_code == 200
    assert (await browser.post("/sign-in/code", {"code": new.now()})).status_code == 303
    assert (await operator.get("/operator")).status_code == 303
    assert (await browser.get("/operator")).status_code == 200
    assert {"member.link_factor", "member.begin_factor", "member.prove_code"} <= {
        action for action, _ in await api.audited()
    }


async def test_nobody_makes_a_link_in_place_of_the_own_password_or_factor(api: Served) -> None:
    business, _ = await api.business()
    owner = await signed_in(api, "business", business)
    assert owner.member_id
    for act in ("reset", "renew_factor"):
        reply = await owner.post(f"/account/team/{ids.encode('mem', owner.member_id)}", {"act": act})
        assert reply.status_code == 409
        assert "/link/" not in reply.text
    assert not await api.pool.fetchval("select count(*) from one_time_link")


async def test_an_operator_whose_password_alone_is_known_is_not_taken_over(api: Served) -> None:
    operator = await joined(api, "operator", None, "op@example.com")
    factor = await authenticator(api, operator)
    assert (await operator.post("/sign-in/code", {"code": factor.now()})).status_code == 303
    begun = await operator.post("/account/factor", {"current_password": PASSWORD})
    assert begun.status_code == 422
    thief = Browser(api)
    assert (await sign_in(api, "op@example.com", browser=thief)).headers["location"] == "/sign-in/code"
    for path, fields in (
        ("/account/factor", {"current_password": PASSWORD}), ("/account/factor/code", {"code": "000000"}),
        ("/account/factor/remove", {"current_password": PASSWORD}),
        ("/account/password", {"current_password": PASSWORD, "fresh_password": "another four words"}),
    ):  # fmt: skip
        assert (await thief.post(path, fields)).status_code == 303, path
    assert (await thief.get("/sign-in/factor")).headers["location"].startswith("/sign-in")
    assert (await thief.get("/operator")).headers["location"].startswith("/sign-in")


# --- what a password may be, and what is written down of a failure ----------------------------------------------------


@pytest.mark.parametrize("password", [
    "passwordpassword", "Password1234!", "123456789012", "qwertyuiop123", "letmeinletmein", "iloveyou1234",
    "p@ssw0rdp@ssw0rd", "administrator", "aaaaaaaaaaaaaaa", "abcdefghijkl", "Summer2026!!!!", "welcome2026!!",
    "ada@example.com", "adaexample2026", "marketplace2026",
])  # fmt: skip
async def test_a_common_password_is_refused_wherever_one_is_chosen(api: Served, password: str) -> None:
    business, _ = await api.business()
    token = await invited(api, CallerKind.business, business, "ada@example.com")
    refused = await Browser(api).post(f"/link/{token}", {"name": "Ada Example", "password": password})
    assert (refused.status_code, "easy to guess" in refused.text) == (422, True)


@pytest.mark.parametrize("password", ["correct horse battery staple", "seventeen green tractors", "kV9#mQ2$xL7!"])
async def test_no_rule_asks_for_certain_characters(password: str) -> None:
    passwords = Passwords()
    await passwords.demand_strong(password, "ada@example.com", "Ada Example")
    passwords.close()


async def test_a_common_password_is_refused_on_the_profile_and_by_a_reset_link_too(api: Served) -> None:
    business, _ = await api.business()
    browser = await joined(api, "business", business, "ada@example.com")
    change = {"current_password": PASSWORD, "fresh_password": "Password1234!"}
    assert (await browser.post("/account/password", change)).status_code == 422
    token = await link_for(api, "ada@example.com", Purpose.reset)
    assert (await Browser(api).post(f"/link/{token}", {"password": "Password1234!"})).status_code == 422
    assert (await sign_in(api, "ada@example.com")).status_code == 303


async def test_every_failed_try_is_audited_with_member_and_address_and_without_what_was_typed(api: Served) -> None:
    browser, _, _ = await protected(api, "ada@example.com")
    member = ids.encode("mem", await api.pool.fetchval("select id from member"))
    await sign_in(api, "ada@example.com", "a wrong secret text")
    await sign_in(api, "my.secret@text.example", "a wrong secret text")
    await browser.post("/account/factor", {"current_password": "a wrong secret text"})
    half = Browser(api)
    await sign_in(api, "ada@example.com", browser=half)
    await half.post("/sign-in/code", {"code": "000000"})
    rows = await api.pool.fetch(
        "select action, object, detail ->> 'address' as address, detail::text as detail, actor from audit"
        " where action like '%failed' order by at, id"
    )
    assert [(row["action"], row["object"], row["address"], row["actor"]) for row in rows] == [
        ("member.sign_in_failed", member, "127.0.0.1", "visitor"),
        ("member.sign_in_failed", "unknown member", "127.0.0.1", "visitor"),
        ("member.password_failed", member, "127.0.0.1", "visitor"),
        ("member.code_failed", member, "127.0.0.1", "visitor"),
    ]
    assert "secret" not in str([dict(row) for row in rows])


# --- links that work once ---------------------------------------------------------------------------------------------


async def test_a_link_works_once_and_reading_it_uses_nothing_up(api: Served) -> None:
    business, _ = await api.business()
    token = await invited(api, CallerKind.business, business, "ada@example.com")
    for _ in range(2):
        assert (await Browser(api).get(f"/link/{token}")).status_code == 200
    fields = {"name": "Ada", "password": PASSWORD}
    replies = await asyncio.gather(*(Browser(api).post(f"/link/{token}", fields) for _ in range(3)))
    assert sorted(reply.status_code for reply in replies)[0] == 303
    assert sum(reply.status_code == 303 for reply in replies) == 1
    used = await Browser(api).get(f"/link/{token}")
    assert used.status_code == 410
    assert "token_used" in used.text


async def test_a_link_out_of_its_time_and_one_that_never_was_look_alike(api: Served) -> None:
    business, _ = await api.business()
    token = await invited(api, CallerKind.business, business, "ada@example.com")
    await api.pool.execute("update one_time_link set expires_at = now() - interval '1 second'")
    for text in (token, "x" * 43, "'--", "a" * 400):
        reply = await Browser(api).get(f"/link/{text}")
        assert reply.status_code == 410, text
        assert "token_expired" in reply.text
    for text in (f"%{ord(token[0]):02x}{token[1:]}", "%78" + "x" * 42, "%00"):  # another spelling is no address of ours
        reply = await Browser(api).get(f"/link/{text}")
        assert (reply.status_code, "not_found" in reply.text) == (404, True), text


async def test_a_link_is_of_the_configured_origin_whatever_the_request_says(api: Served) -> None:
    business, _ = await api.business()
    owner = await signed_in(api, "business", business)
    fields = {"email": "new@example.com", "role": "member"}
    reply = await owner.post("/account/team", fields, host="evil.example.com", x_forwarded_host="evil.example.com")
    assert f"{PUBLIC_URL}/link/" in reply.text
    assert "evil.example.com" not in reply.text


async def test_a_link_from_the_machine_lets_an_operator_in_without_a_second_factor(api: Served) -> None:
    await joined(api, "operator", None, "op@example.com")
    token = await link_for(api, "op@example.com", Purpose.enter)
    browser = Browser(api)
    assert (await browser.post(f"/link/{token}")).status_code == 303
    assert (await browser.get("/operator")).status_code == 200


async def test_the_first_operator_comes_by_the_link_of_the_first_start_and_nobody_after(api: Served) -> None:
    tokens = [await first_link(api) for _ in range(2)]
    fields = {"email": "Op@Example.com", "name": "Op", "password": PASSWORD}
    assert (await Browser(api).get("/setup")).status_code == 200
    assert (await Browser(api).post(f"/link/{tokens[0]}", fields)).headers["location"] == "/sign-in/factor"
    late = await Browser(api).post(f"/link/{tokens[1]}", fields | {"email": "other@example.com"})
    assert late.status_code == 410
    assert await first_link(api) is None
    assert (await Browser(api).get("/setup")).status_code == 303


async def test_a_reset_link_ends_sessions_and_every_other_link(api: Served) -> None:
    business, _ = await api.business()
    browser = await joined(api, "business", business, "ada@example.com")
    first, second = [await link_for(api, "ada@example.com", Purpose.reset) for _ in range(2)]
    assert (await Browser(api).post(f"/link/{first}", {"password": "short"})).status_code == 422
    assert (await Browser(api).post(f"/link/{first}", {"password": "another four words"})).status_code == 303
    assert (await browser.get("/business")).status_code == 303
    assert (await Browser(api).get(f"/link/{second}")).status_code == 410


# --- who asks ---------------------------------------------------------------------------------------------------------


async def test_a_change_needs_the_token_of_this_session_and_a_page_of_ours(api: Served) -> None:
    business, _ = await api.business()
    browser, other = await signed_in(api, "business", business), await signed_in(api, "business", business)
    stolen = new_token(other.cookies["__Host-session"])
    fields = {"name": "Robin", "zone": "UTC"}
    for csrf in ("", "x", stolen, stolen[:-4] + "AAAA"):
        reply = await browser.post("/account/profile", fields | {"csrf": csrf})
        assert reply.status_code == 403, csrf
        assert "csrf" in reply.text
    for headers in ({"origin": "https://evil.example.com"}, {"sec_fetch_site": "cross-site"}, {"origin": "null"}):
        assert (await browser.post("/account/profile", fields, **headers)).status_code == 403, headers
        assert (await Browser(api).post("/sign-in", {"email": "a@b.cd", "password": "x"}, **headers)).status_code == 403
    assert (await browser.post("/account/profile", fields, sec_fetch_site="same-origin")).status_code == 303
    assert (await browser.post("/account/profile", fields, content_type="text/plain")).status_code == 415


async def test_nobody_is_sent_to_another_host_after_signing_in(api: Served) -> None:
    business, _ = await api.business()
    await joined(api, "business", business, "ada@example.com")
    for target, there in (
        ("/business?x=1", "/business?x=1"), ("//evil.example.com", "/"), ("https://evil.example.com", "/"),
        ("/\\evil.example.com", "/"), ("/\tevil", "/"), ("javascript:alert(1)", "/"), ("/sign-out", "/"),
    ):  # fmt: skip
        reply = await Browser(api).post("/sign-in", {"email": "ada@example.com", "password": PASSWORD, "next": target})
        assert reply.headers["location"] == there, target


async def test_a_viewer_changes_nothing(api: Served) -> None:
    business, _ = await api.business()
    viewer = await signed_in(api, "business", business, role="viewer")
    reply = await viewer.post("/account/team", {"email": "x@example.com", "role": "owner"})
    assert reply.status_code == 403
    assert "role_missing" in reply.text


@pytest.mark.usefixtures("production_hashes")
async def test_passwords_are_argon2id_and_secrets_of_factors_are_sealed(api: Served, settings: Settings) -> None:
    browser = await joined(api, "operator", None, "op@example.com")
    factor = await authenticator(api, browser)
    row = await api.pool.fetchrow(
        "select password_hash, factor as totp, id from member m join portal_session on member_id = id"
    )
    assert row["password_hash"].startswith("$argon2id$v=19$m=47104,t=2,p=1$")
    assert factor.secret.encode() not in row["totp"]
    assert Sealer(settings.master_key, settings.pepper).open_secret(row["id"], row["totp"]) == factor.secret


SIGN_UP = {
    "company": "Northside Roofing",
    "zone": "America/Chicago",
    "name": "Ada Example",
    "email": "ada@northside.example.com",
    "password": PASSWORD,
}


async def sign_up_path(api: Served) -> str:
    """Return the path of a link that an operator makes on the page of businesses."""
    operator = await signed_in(api, "operator")
    page = (await operator.post("/operator/businesses/sign-up-link", {"currency": "USD"})).text
    found = re.search(r"/link/[\w-]+", page)
    assert found, page
    return found[0]


async def test_a_business_signs_itself_up_by_a_link_and_is_in_its_first_steps(api: Served) -> None:
    path, browser = await sign_up_path(api), Browser(api)
    assert "Sign up your business" in (await browser.get(path)).text
    reply = await browser.post(path, SIGN_UP)
    assert (reply.status_code, reply.headers["location"]) == (303, "/business/onboarding")
    assert "Your company" in (await browser.get("/business/onboarding")).text
    row = await api.pool.fetchrow(
        "select b.name, b.zone, b.state, w.currency, m.role, m.email from business b "
        "join wallet w on w.business_id = b.id join member m on m.owner_id = b.id"
    )
    assert tuple(row) == (
        "Northside Roofing", "America/Chicago", "active", "USD", "owner", "ada@northside.example.com"
    )  # fmt: skip
    assert (await Browser(api).post(path, SIGN_UP | {"email": "b@example.com"})).status_code == 410
    assert await api.pool.fetchval("select count(*) from business") == 1


async def test_a_sign_up_with_faults_makes_nothing_and_leaves_the_link(api: Served) -> None:
    path = await sign_up_path(api)
    wrong = ({"company": ""}, {"zone": "Mars/Olympus"}, {"email": "x"}, {"password": "short"}, {"name": "\u200b"})
    for change in wrong:
        assert (await Browser(api).post(path, SIGN_UP | change)).status_code == 422, change
    assert await api.pool.fetchval("select count(*) from business") == 0
    assert (await Browser(api).post(path, SIGN_UP)).status_code == 303


async def test_an_address_that_has_access_already_ends_the_link_and_makes_no_business(api: Served) -> None:
    assert (await Browser(api).post(await sign_up_path(api), SIGN_UP)).status_code == 303
    path = await sign_up_path(api)
    assert (await Browser(api).post(path, SIGN_UP)).status_code == 409
    assert (await Browser(api).post(path, SIGN_UP | {"email": "b@example.com"})).status_code == 410
    assert await api.pool.fetchval("select count(*) from business") == 1


async def test_of_two_sign_ups_at_once_by_one_link_one_makes_a_business(api: Served) -> None:
    path = await sign_up_path(api)
    replies = await asyncio.gather(
        *(Browser(api).post(path, SIGN_UP | {"email": f"{number}@example.com"}) for number in range(3))
    )
    assert sorted(reply.status_code for reply in replies) == [303, 410, 410]
    assert await api.pool.fetchval("select count(*) from business") == 1
