"""A marketplace that sends e-mail through a mail server of the test, and the messages as a person reads them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import msgspec

from marketplace.delivery.flow import Delivery
from marketplace.delivery.mailing import MailSender
from marketplace.mail.tokens import Tokens
from marketplace.runtime.mail_settings import MailSecurity, MailServer, MailSettings, read_bounces, read_sender
from marketplace.runtime.settings import Settings
from marketplace.worker import Walker
from tests.builders.mail_server import ReceivedMail, ScriptedMailServer
from tests.builders.marketplaces import Buyer, Marketplace, marketplace

ADDRESS = "owner@roofs.example"


def mail_settings(port: int) -> MailSettings:
    """Settings of a mail server on this machine."""
    return MailSettings(
        server=MailServer(host="127.0.0.1", port=port, security=MailSecurity.none),
        sender=read_sender("Lead Line <leads@leads.example>"),
        bounces=read_bounces("b@leads.example"),
    )


class MailMarketplace:
    """A marketplace whose worker sends e-mail through a server of the test."""

    def __init__(self, market: Marketplace, server: ScriptedMailServer) -> None:
        self.market, self.server = market, server
        settings = msgspec.structs.replace(
            market.settings, mail=mail_settings(server.port), public_url="https://leads.example"
        )
        self.settings = settings
        sender = MailSender.of(market.worker, settings)
        assert sender is not None
        self.sender, self.outbox, self.tokens = sender, sender.outbox, Tokens(settings.master_key)
        self.delivery = Delivery(
            market.worker, market.sealer, market.guard, market.delivery._journal, market.publisher, mail=sender
        )
        self.walker = Walker(market.distribution, self.delivery)

    async def buyer(self, mode: str = "full", *, with_adf: bool = False) -> Buyer:
        """A business that receives its leads by e-mail."""
        buyer = await self.market.buyer(None, kind="email")
        await self.market.owner.execute(
            "insert into mail_target (endpoint_id, business_id, address, mode, with_adf) values ($1, $2, $3, $4, $5)",
            buyer.endpoint_id,
            buyer.business_id,
            ADDRESS,
            mode,
            with_adf,
        )
        return buyer

    async def lead(self) -> tuple[str, str | None]:
        """State of the lead and reason of its assignment."""
        row = await self.market.row(
            "select l.state, a.reason from lead l left join assignment a on a.lead_id = l.id "
            "order by l.received_at desc, a.awarded_at desc limit 1"
        )
        return row["state"], row["reason"]


@asynccontextmanager
async def mailing(
    settings: Settings, answers: Mapping[str, str | list[str]] | None = None
) -> AsyncIterator[MailMarketplace]:
    async with marketplace(settings) as market, ScriptedMailServer(answers) as server:
        mail = MailMarketplace(market, server)
        try:
            yield mail
        finally:
            await mail.sender.close()


def read_mail(mail: ReceivedMail) -> EmailMessage:
    """The message as a mail program reads it."""
    message = message_from_bytes(mail.content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(mail: ReceivedMail) -> str:
    """The plain text of a message."""
    body = read_mail(mail).get_body(("plain",))
    assert body is not None
    return str(body.get_content())
