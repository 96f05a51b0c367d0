"""Leads by e-mail: with the contact, exposed before it is sent; or by a link, which exposes nothing."""

import asyncio

import pytest

from marketplace.delivery.flow import AttemptResult, Delivery
from marketplace.delivery.store import SQL
from marketplace.mail.tokens import TokenPurpose
from marketplace.runtime.settings import Settings
from tests.builders.mail import ADDRESS, MailMarketplace, mailing, read_mail, text_of
from tests.builders.mail_server import DROP, ScriptedMailServer
from tests.builders.marketplaces import marketplace
from tests.builders.pausing import HeldUp

FULL = 100_000


async def test_a_lead_by_e_mail_is_exposed_before_it_is_sent_and_charged_on_250(settings: Settings) -> None:
    async with mailing(settings) as mail:
        buyer = await mail.buyer(with_adf=True)
        await mail.walker.walk((await mail.market.submit()).id)
        assert await mail.lead() == ("delivered", "taken")
        assert await mail.market.wallet(buyer) == (FULL - 5_000, 0)
        assert await mail.market.value("select channel from exposure") == "email"
        attempt = await mail.market.row("select outcome, status, address from attempt")
        assert tuple(attempt.values()) == ("accepted", 250, f"127.0.0.1:{mail.server.port}")
    [received] = mail.server.mails
    message, text = read_mail(received), text_of(received)
    assert "Robin" not in message["Subject"]
    assert message["To"].addresses[0].addr_spec == received.recipient == ADDRESS
    assert "tel:+1" in text
    assert "https://leads.example/mail/outcome/" in text
    assert [part.get_content_type() for part in message.iter_attachments()] == ["application/x-adf+xml"]
    tag = received.sender.partition("+")[2].partition("@")[0]
    assert mail.tokens.read_tag(TokenPurpose.bounce_of_lead, tag) is not None
    assert message["Message-ID"].startswith("<asg_")


@pytest.mark.parametrize("refusal", ["550 unknown", "450 grey"])
async def test_a_refused_recipient_exposes_nothing_and_the_next_business_gets_the_lead(
    settings: Settings, refusal: str
) -> None:
    async with mailing(settings, {"RCPT": [refusal, "250 ok"]}) as mail:
        await mail.buyer()
        lead_id = (await mail.market.submit()).id
        assignment_id = await mail.market.distribution.distribute(lead_id)
        assert assignment_id is not None
        result = await mail.delivery.deliver(assignment_id)
        assert result is (AttemptResult.released if refusal.startswith("5") else AttemptResult.retrying)
        assert await mail.market.value("select count(*) from exposure") == 0
        assert await mail.market.value("select answer_excerpt from attempt") == refusal.partition(" ")[2]


@pytest.mark.parametrize("ending", ["552 mailbox full", "451 later", DROP])
async def test_an_unclear_end_sends_the_same_message_to_the_same_business_again(
    settings: Settings, ending: str
) -> None:
    async with mailing(settings, {"content": [ending, "250 stored"]}) as mail:
        buyer = await mail.buyer()
        await mail.walker.walk((await mail.market.submit()).id)
        assert (await mail.lead())[0] == "exposed"
        assert await mail.market.wallet(buyer) == (FULL - 5_000, 5_000)
        assignment_id = await mail.market.value("select id from assignment")
        assert await mail.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert await mail.market.wallet(buyer) == (FULL - 5_000, 0)
    message_ids = {read_mail(received)["Message-ID"] for received in mail.server.mails}
    assert (len(mail.server.mails), len(message_ids)) == (2, 1)


async def test_a_process_that_ends_between_exposure_and_message_leaves_the_lead_to_the_same_business(
    settings: Settings,
) -> None:
    async with mailing(settings) as mail:
        await mail.buyer()
        await mail.buyer()
        assignment_id = await mail.market.distribution.distribute((await mail.market.submit()).id)
        assert assignment_id is not None
        held_up = HeldUp(mail.market.worker, SQL["read_contact"])
        ending = Delivery(
            held_up.pool, mail.market.sealer, mail.market.guard, mail.market.delivery._journal, mail=mail.sender
        )
        attempt = asyncio.create_task(ending.deliver(assignment_id))
        await held_up.arrived.wait()
        attempt.cancel()
        await asyncio.wait((attempt,))
        assert mail.server.mails == []
        assert (await mail.lead())[0] == "exposed"
        assert await mail.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert await mail.market.value("select count(*) from assignment") == 1
    assert len(mail.server.mails) == 1


async def test_a_hold_that_ends_before_the_exposure_sends_nothing(settings: Settings) -> None:
    async with mailing(settings) as mail:
        await mail.buyer()
        assignment_id = await mail.market.distribution.distribute((await mail.market.submit()).id)
        assert assignment_id is not None
        held_up = HeldUp(mail.market.worker, SQL["expose"])
        late = Delivery(
            held_up.pool, mail.market.sealer, mail.market.guard, mail.market.delivery._journal, mail=mail.sender
        )
        attempt = asyncio.create_task(late.deliver(assignment_id))
        await held_up.arrived.wait()
        await mail.market.owner.execute("update assignment set hold_until = clock_timestamp()")
        held_up.let_go.set()
        assert await attempt is AttemptResult.retrying
        assert (mail.server.mails, await mail.market.value("select count(*) from exposure")) == ([], 0)


async def test_a_link_exposes_nothing_and_names_nobody(settings: Settings) -> None:
    async with mailing(settings) as mail:
        buyer = await mail.buyer("link")
        await mail.walker.walk((await mail.market.submit()).id)
        assert (await mail.lead())[0] == "held"
        assert await mail.market.value("select count(*) from exposure") == 0
        assert await mail.market.wallet(buyer) == (FULL - 5_000, 5_000)
        assignment_id = await mail.market.value("select id from assignment")
        assert await mail.delivery.deliver(assignment_id) is AttemptResult.awaiting_reader
        assert await mail.outbox.send_due() == 1
        assert await mail.outbox.send_due() == 0
        assert await mail.market.value("select state from outgoing_mail") == "sent"
        assert await mail.market.value("select count(*) from feed_event") == 1
    [received] = mail.server.mails
    text = text_of(received)
    assert "https://leads.example/business/inbox/asg_" in text
    for private in ("Robin", "Example", "555 01", "60601"):
        assert private not in text


async def test_without_a_mail_server_the_lead_goes_on(settings: Settings) -> None:
    async with marketplace(settings) as market, ScriptedMailServer() as server:
        await MailMarketplace(market, server).buyer()
        assignment_id = await market.distribution.distribute((await market.submit()).id)
        assert assignment_id is not None
        assert await market.delivery.deliver(assignment_id) is AttemptResult.retrying
        assert await market.value("select reason from attempt") == "mail_server_unavailable"
