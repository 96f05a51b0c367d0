"""Journeys of the three kinds of users, from the first page to the last."""

import re
from datetime import timedelta
from typing import Final

from playwright.sync_api import Browser, Page, expect

from marketplace.demo.verticals import CURRENCY, HOME
from marketplace.runtime import clock
from marketplace.security.auth import CallerKind
from tests.browser.eyes import PHONE, Eyes, come_in, tab
from tests.browser.installation import Marketplace

PASSWORD: Final = "copper kettle under the stairs"
WON: Final = "1 job won so far, $8,400.00; in a week that is still open and not yet in the estimate."


def join(eyes: Eyes, market: Marketplace, kind: CallerKind, owner: str) -> None:
    """Sign in by an invitation, and choose a password."""
    eyes.page.goto(market.invitation(kind, owner, f"{clock.new_id().hex}@example.com"))
    eyes.page.get_by_label("Your name").fill("Robin Newcomer")
    eyes.page.get_by_label("New password").fill(PASSWORD)
    eyes.page.get_by_role("button", name="Save and continue").click()
    eyes.page.wait_for_url(re.compile(f"/{kind}"))


def press(page: Page, name: str) -> None:
    """A button of the content, by its words."""
    page.locator("main").get_by_role("button", name=name, exact=True).first.click()


def follow(page: Page, name: str) -> None:
    """An entry of the navigation."""
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()


def test_a_business_signs_up_is_funded_receives_a_lead_wins_it_and_sees_that_in_its_report(
    market: Marketplace, browser: Browser
) -> None:
    made = market.ask(
        "POST",
        "/v1/businesses",
        {
            "name": "New Roofs",
            "zone": "America/Anchorage",
            "currency": CURRENCY,
            "credit_limit_minor": 0,
        },
    )
    with tab(browser, market.url) as eyes:
        page = eyes.page
        join(eyes, market, CallerKind.business, made["id"])
        set_up(page, market, market.deserted, market.open_door())
        pay(market, made["id"])
        follow(page, "Reports")
        expect(page.get_by_text("the outcome of 0 exclusive leads is known")).to_be_visible()
        expect(page.get_by_text("No job won so far.")).to_be_visible()
        assert market.ask_for_work(market.deserted).state == "delivered"
        follow(page, "Leads")
        page.locator('main a[href^="/business/leads/lead_"]').first.click()
        page.locator("main summary").get_by_text("Won", exact=True).click()
        page.get_by_label(re.compile("Won")).fill("8,400")
        press(page, "Record as won")
        expect(page.locator("main")).to_contain_text(re.compile("Now: (Won|Signed)"))
        follow(page, "Reports")
        expect(page.get_by_text("the outcome of 1 exclusive lead is known")).to_be_visible()
        expect(page.get_by_text(WON)).to_be_visible()
        follow(page, "Overview")
        expect(page.get_by_text(WON)).to_be_visible()
        follow(page, "Wallet")
        expect(page.locator("main")).to_contain_text("$948.00")
        assert eyes.faults == []


def pay(market: Marketplace, business_id: str) -> None:
    """A first payment of $1,000."""
    top_up = {
        "business_id": business_id,
        "amount_minor": 100_000,
        "currency": CURRENCY,
        "event_id": f"paid {business_id}",
    }
    market.ask("POST", "/v1/top-ups", top_up)


def begin_subscription(page: Page, market: Marketplace, postal_code: str) -> None:
    """The first four of the six steps, with no more than they ask for."""
    page.goto(f"{market.url}/business/onboarding")
    page.goto(f"{market.url}/business/onboarding/company")
    press(page, "Save and continue")
    page.locator(f'input[value="{HOME}"]').check()
    press(page, "Save and continue")
    page.get_by_label("Around these ZIP codes").fill(postal_code)
    page.get_by_label("Radius").fill("30")
    press(page, "Save and continue")
    page.get_by_label("At any hour").check()
    page.get_by_label(re.compile("Price per lead")).fill("52.00")
    press(page, "Save and continue")


def set_up(page: Page, market: Marketplace, postal_code: str, address: str) -> None:
    """The six steps with a server, with no more than they ask for."""
    begin_subscription(page, market, postal_code)
    page.get_by_text("Add the address of your CRM or server").click()
    page.get_by_label("Address").fill(address)
    press(page, "Add endpoint")
    press(page, "Verify")
    press(page, "Send a test lead")
    press(page, "Use this endpoint")
    page.goto(f"{market.url}/business/onboarding/wallet")
    page.get_by_label(re.compile("First payment")).fill("1,000")
    press(page, "Done")


def test_a_business_without_a_server_takes_a_lead_on_a_phone_calls_and_wins_it(
    market: Marketplace, browser: Browser
) -> None:
    body = {"name": "Island Roofs", "zone": "Pacific/Honolulu", "currency": CURRENCY, "credit_limit_minor": 0}
    made = market.ask("POST", "/v1/businesses", body)
    with tab(browser, market.url) as eyes:
        page = eyes.page
        page.set_viewport_size(PHONE)
        join(eyes, market, CallerKind.business, made["id"])
        begin_subscription(page, market, market.prairie)
        press(page, "Receive leads here")
        pay(market, made["id"])
        follow(page, "Inbox")
        expect(page.locator("main")).to_contain_text("No lead waits for you now")
        expect(page.locator("[data-live-state=live]")).to_be_visible()
        market.ask_for_work(market.prairie)
        card = page.locator(".inbox-card")
        expect(card).to_contain_text(re.compile("left"))
        expect(page).to_have_title(re.compile(r"^\(1\) Inbox"))
        take = card.get_by_role("button", name="Take this lead")
        assert take.evaluate("button => button.getBoundingClientRect().bottom <= window.innerHeight")
        eyes.look()
        page.set_viewport_size(PHONE)
        take.click()
        page.wait_for_url(re.compile("/business/leads/lead_"))
        expect(page.locator("main")).to_contain_text("This lead is yours alone")
        expect(page.locator('main a[href^="tel:+"]').first).to_be_visible()
        page.locator("main summary").get_by_text("Won", exact=True).click()
        page.get_by_label(re.compile("Won")).fill("8,400")
        press(page, "Record as won")
        expect(page.locator("main")).to_contain_text(re.compile("Now: (Won|Signed)"))
        follow(page, "Wallet")
        expect(page.locator("main")).to_contain_text("$948.00")
        market.ask("PATCH", f"/v1/businesses/{made['id']}", {"state": "frozen"})
        assert eyes.faults == []


def test_the_inbox_works_without_a_script(market: Marketplace, browser: Browser) -> None:
    with tab(browser, market.url, java_script_enabled=False) as eyes:
        come_in(eyes, market, CallerKind.business)
        eyes.page.goto(f"{market.url}/business/inbox")
        assert eyes.page.locator('meta[http-equiv="refresh"]').count() == 1
        eyes.page.goto(f"{market.url}/business/inbox/practice")
        press(eyes.page, "Take this lead")
        expect(eyes.page.locator("main")).to_contain_text("Alex Example")
        assert eyes.faults == []


def test_an_office_manager_works_the_board_on_a_phone(market: Marketplace, browser: Browser) -> None:
    visit = clock.now() + timedelta(days=20)
    with tab(browser, market.url) as eyes:
        page = eyes.page
        page.set_viewport_size(PHONE)
        come_in(eyes, market, CallerKind.business)
        follow(page, "Board")
        page.get_by_role("link", name="Stages", exact=True).click()
        page.get_by_label("Name").last.fill("Site visit")
        page.get_by_label("Counts as").last.select_option("appointment")
        press(page, "Add")
        follow(page, "Board")
        lead = page.locator('[data-stage="new"] [data-lead]').first.get_attribute("data-lead")
        card = page.locator(f'[data-lead="{lead}"]')
        card.get_by_text("Move", exact=True).click()
        card.get_by_role("button", name="Site visit").click()
        page.get_by_label(re.compile("When the appointment begins")).fill(f"{visit:%Y-%m-%d}T10:00")
        press(page, "Move")
        visits = page.locator(".lane").filter(has=page.get_by_role("link", name="Site visit"))
        expect(visits.locator(f'[data-lead="{lead}"]')).to_contain_text(f"Appointment {visit:%-d %b %Y}, 10:00")
        card.get_by_role("link", name="Next action").click()
        page.get_by_label("Next action").fill("Bring the samples")
        page.get_by_label(re.compile("Remind me")).fill(f"{visit:%Y-%m-%d}T09:00")
        press(page, "Save")
        expect(page.locator("main")).to_contain_text("Bring the samples")
        page.goto(f"{market.url}/business/board?moved={lead}")
        expect(card).to_contain_text("Bring the samples")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        press(page, "Undo")
        expect(page.locator('[data-stage="new"]').locator(f'[data-lead="{lead}"]')).to_be_visible()
        assert eyes.faults == []


def test_a_stop_reaches_the_business_that_has_the_persons_number(market: Marketplace, browser: Browser) -> None:
    business = {"name": "Island Roofs", "zone": "Pacific/Honolulu", "currency": CURRENCY, "credit_limit_minor": 0}
    made = market.ask("POST", "/v1/businesses", business)
    with tab(browser, market.url) as holder, tab(browser, market.url) as operator:
        join(holder, market, CallerKind.business, made["id"])
        set_up(holder.page, market, market.island, market.open_door("consent.revoked"))
        pay(market, made["id"])
        assert market.ask_for_work(market.island).state == "delivered"
        follow(holder.page, "Leads")
        holder.page.locator('main a[href^="/business/leads/lead_"]').first.click()
        call = holder.page.locator('main a[href^="tel:"]').first.get_attribute("href")
        assert call
        phone = call.removeprefix("tel:")

        come_in(operator, market, CallerKind.operator)
        operator.page.get_by_label("Who has this person's number?").fill(phone)
        press(operator.page, "Find")  # the one click
        leads = operator.page.get_by_role("table", name="Leads of this person")
        expect(leads.get_by_role("link", name="Island Roofs")).to_be_visible()

        key = market.scene.furnished.provider_keys[0]
        market.ask("POST", "/v1/revocations", {"phone": phone, "reason": "Said stop on the telephone"}, key)
        follow(holder.page, "Notices")
        notices = holder.page.get_by_role("table", name="Notices")
        expect(notices).to_contain_text("Stop contacting this person")
        expect(notices).to_contain_text("Open")
        holder.page.get_by_role("button", name=re.compile("Acknowledge lead_")).click()
        expect(notices).to_contain_text("Acknowledged")

        follow(operator.page, "Compliance")
        operator.page.get_by_role("link", name="Notices", exact=True).click()
        row = operator.page.get_by_role("row").filter(has=operator.page.get_by_role("link", name="Island Roofs"))
        expect(row).to_contain_text("Acknowledged")
        assert holder.faults == operator.faults == []


def test_a_provider_comes_from_the_first_key_to_a_live_one_through_the_console(
    market: Marketplace, browser: Browser
) -> None:
    payout = {"type": "share", "basis_points": 5_000}
    made = market.ask("POST", "/v1/providers", {"name": "New Forms", "payout": payout})
    with tab(browser, market.url) as eyes, tab(browser, market.url) as other:
        page = eyes.page
        join(eyes, market, CallerKind.provider, made["id"])
        make_key(page, "test")
        rehearse(page)
        follow(page, "First steps")
        press(page, "Ask to go live")
        come_in(other, market, CallerKind.operator)
        follow(other.page, "Going live")
        press(other.page, "Approve New Forms")
        key = make_key(page, "live")
        assert market.ask_for_work(market.deserted, key).state is not None
        follow(page, "Submissions")
        expect(page.locator('main a[href^="/provider/submissions/lead_"]')).to_have_count(1)
        assert [fault for fault in eyes.faults if "422" not in fault] == []
        assert other.faults == []


def make_key(page: Page, mode: str) -> str:
    """A key's text, which its page shows once."""
    follow(page, "Keys")
    page.get_by_label("Name", exact=True).fill(f"{mode} key")
    page.get_by_label("Mode").select_option(mode)
    press(page, "Make key")
    key = page.locator(".copy code").first.inner_text()
    assert key.startswith(f"lk_{mode}_")
    return key


def rehearse(page: Page) -> None:
    """A good inquiry, the same again, and one with a fault."""
    follow(page, "Console")
    press(page, "Send")
    expect(page.locator("#answer")).to_contain_text("202")
    press(page, "Send")
    page.get_by_role("link", name="with faults").click()
    press(page, "Send")
    expect(page.locator("#answer")).to_contain_text("422")


def test_an_operator_finds_out_why_a_lead_was_unsold_and_grants_a_return(market: Marketplace, browser: Browser) -> None:
    unsold = market.ask_for_work(market.scene.world.far[0])
    assert unsold.state == "unsold"
    with tab(browser, market.url) as eyes:
        page = eyes.page
        come_in(eyes, market, CallerKind.operator)
        follow(page, "Routing explorer")
        page.get_by_label("Lead id").fill(str(unsold.id))
        press(page, "Explain")
        expect(page.get_by_role("table", name="Every candidate against every filter")).to_contain_text("km outside")
        press(page, "Run")
        expect(page.locator("main")).to_contain_text("The result is the same")
        follow(page, "Returns desk")
        waiting = page.locator('main a[href^="/operator/returns/ret_"]')
        before = waiting.count()
        waiting.first.click()
        page.get_by_label("What you found").fill("The call record shows it.")
        press(page, "Grant the return")
        expect(page.locator("main")).to_contain_text("Return granted")
        follow(page, "Returns desk")
        expect(waiting).to_have_count(before - 1)
        assert eyes.faults == []
