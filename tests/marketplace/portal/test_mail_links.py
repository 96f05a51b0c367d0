"""Links in messages: a page for whoever opens them, and a change for whoever presses the button."""

from datetime import timedelta

from marketplace.mail.tokens import LinkToken, TokenPurpose, Tokens
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.mail import mailing, text_of
from tests.builders.portal import Browser, signed_in
from tests.builders.service import serve


async def test_an_outcome_is_recorded_by_the_button_and_not_by_opening_the_link(settings: Settings) -> None:
    async with mailing(settings) as mail, serve(settings) as api:
        await mail.buyer()
        await mail.walker.walk((await mail.market.submit()).id)
        text = text_of(mail.server.mails[0])
        path = text[text.index("/mail/outcome/") :].split()[0]
        browser = Browser(api)
        for _ in range(3):
            page = await browser.get(path)
            assert (page.status_code, "We reached them" in page.text, "Robin" in page.text) == (200, True, False)
        assert await mail.market.value("select count(*) from disposition") == 0
        for _ in range(2):
            assert "Recorded" in (await browser.post(path)).text
        rows = await mail.market.owner.fetch("select kind, source from disposition")
        assert [tuple(row) for row in rows] == [("contacted", "portal")]
        other_site = await browser.post(path, sec_fetch_site="cross-site")
        assert other_site.status_code == 403


async def test_an_outcome_link_ends_and_a_lead_that_lapsed_takes_none(settings: Settings) -> None:
    async with mailing(settings) as mail, serve(settings) as api:
        await mail.buyer()
        await mail.walker.walk((await mail.market.submit()).id)
        assignment_id = await mail.market.value("select id from assignment")
        now, tokens = clock.now(), Tokens(settings.master_key)
        links = {
            detail: tokens.link(
                TokenPurpose.outcome,
                LinkToken(subject=assignment_id, expires_at=now + timedelta(seconds=seconds), detail=detail),
            )
            for detail, seconds in (("contacted", -1), ("won", 60))
        }
        browser = Browser(api)
        for token in links.values():
            assert (await browser.post(f"/mail/outcome/{token}")).status_code == 410
        assert await mail.market.value("select count(*) from disposition") == 0


async def test_a_business_sets_up_e_mail_on_its_delivery_page(settings: Settings) -> None:
    async with mailing(settings) as mail, serve(mail.settings) as api:
        buyer = await mail.market.buyer(None)
        browser = await signed_in(api, CallerKind.business, buyer.business_id)
        wrong = await browser.post("/business/delivery/email", {"address": "owner", "mode": "link"})
        assert (wrong.status_code, "name@example.com" in wrong.text) == (422, True)
        added = await browser.post("/business/delivery/email", {"address": "a@roofs.example.com", "mode": "full"})
        assert added.status_code == 303
        assert "a@roofs.example.com" in (await browser.get("/business/delivery")).text
        await mail.outbox.send_due()
        text = text_of(mail.server.mails[0])
        path = text[text.index("/mail/confirm/") :].split()[0]
        assert "is confirmed" in (await Browser(api).post(path)).text
        endpoint = await mail.market.value("select endpoint_id from mail_target")
        page = f"/business/delivery/{ids.encode('whe', endpoint)}"
        for act, mode in (("full_adf", ("full", True)), ("link", ("link", False))):
            assert (await browser.post(page, {"act": act})).status_code == 303
            row = await mail.market.row("select mode, with_adf from mail_target")
            assert (row["mode"], row["with_adf"]) == mode
        assert (await browser.post(page, {"act": "test_mail"})).status_code == 303
        await mail.outbox.send_due()
        assert "This is a test" in text_of(mail.server.mails[1])
