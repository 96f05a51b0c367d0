"""One attempt by e-mail against real servers on real sockets that fail at every step in every way."""

import asyncio

import pytest

from marketplace.mail import transport
from marketplace.mail.transport import MailAttempt, MailClient, MailEnvelope
from marketplace.runtime.mail_settings import MailSecurity, MailServer
from marketplace.webhook.transport import ConnectionInfo
from routing.delivery import (
    AttemptOutcome,
    MailAnswer,
    MailSilence,
    MailStep,
    NoAnswerReason,
    NotSent,
    NotSentReason,
    classify_mail,
)
from tests.builders.mail_server import DROP, GARBAGE, STALL, ScriptedMailServer
from tests.receivers import Authority

ENVELOPE = MailEnvelope(sender="bounces+tag@leads.example", recipient="owner@roofs.example")
MESSAGE = b"Subject: A lead\r\n\r\nCall Ann.\r\n.5 acres\r\n"
BEFORE_THE_MESSAGE = ("greeting", "EHLO", "MAIL", "RCPT", "DATA")


class Exposure:
    """Stand-in for committing an exposure: counts the calls and returns the message."""

    def __init__(self, message: bytes | None = MESSAGE, seconds: float = 0) -> None:
        self.peers: list[ConnectionInfo] = []
        self._message = message
        self._seconds = seconds

    async def __call__(self, peer: ConnectionInfo) -> bytes | None:
        self.peers.append(peer)
        await asyncio.sleep(self._seconds)
        return self._message


def client_of(server: ScriptedMailServer, security: MailSecurity = MailSecurity.none, **options: object) -> MailClient:
    tls = options.pop("tls", None)
    where = MailServer(host="127.0.0.1", port=server.port, security=security, **options)  # type: ignore[arg-type]
    return MailClient(where, tls)  # type: ignore[arg-type]


async def attempt(server: ScriptedMailServer, exposure: Exposure, seconds: float = 0.3) -> MailAttempt:
    client = client_of(server)
    try:
        return await client.send(ENVELOPE, exposure, seconds)
    finally:
        await client.close()


# --- the good way


async def test_the_server_gets_the_envelope_and_exactly_the_message() -> None:
    async with ScriptedMailServer() as server:
        result = await attempt(server, exposure := Exposure())
    assert result.observation == MailAnswer(step=MailStep.content, status=250, text="stored")
    [mail] = server.mails
    assert (mail.sender, mail.recipient, mail.content) == (ENVELOPE.sender, ENVELOPE.recipient, MESSAGE)
    assert [peer.name for peer in exposure.peers] == [f"127.0.0.1:{server.port}"]
    assert result.address == f"127.0.0.1:{server.port}"
    assert None not in (result.connect_ms, result.expose_ms, result.first_byte_ms)


async def test_the_exposure_is_committed_after_the_recipient_is_accepted_and_before_data() -> None:
    async with ScriptedMailServer() as server:

        async def expose(_: ConnectionInfo) -> bytes:
            verbs = [command.partition(" ")[0] for command in server.commands]
            assert verbs == ["EHLO", "MAIL", "RCPT"]
            return MESSAGE

        client = client_of(server)
        await client.send(ENVELOPE, expose)
        await client.close()
    assert [command.partition(" ")[0] for command in server.commands][3:] == ["DATA", "QUIT"]


# --- every fault at every step


@pytest.mark.parametrize("step", BEFORE_THE_MESSAGE)
@pytest.mark.parametrize("fault", [STALL, DROP, GARBAGE, "421 closing", "450 later", "452 full", "552 full", "550 no"])
async def test_nothing_is_sent_when_a_step_before_the_message_fails(step: str, fault: str) -> None:
    async with ScriptedMailServer({step: fault}) as server:
        result = await attempt(server, exposure := Exposure())
    classified = classify_mail(result.observation, exposed=step == "DATA")
    assert classified.outcome is AttemptOutcome.not_sent
    assert classified.may_release == (step != "DATA")
    assert server.mails == []
    assert len(exposure.peers) == (step == "DATA")


@pytest.mark.parametrize(
    ("fault", "observation"),
    [
        (STALL, MailSilence(step=MailStep.content, reason=NoAnswerReason.timeout)),
        (DROP, MailSilence(step=MailStep.content, reason=NoAnswerReason.closed)),
        (GARBAGE, MailSilence(step=MailStep.content, reason=NoAnswerReason.malformed)),
        ("421 closing", MailAnswer(step=MailStep.content, status=421, text="closing")),
        ("451 scanning", MailAnswer(step=MailStep.content, status=451, text="scanning")),
        ("552 full", MailAnswer(step=MailStep.content, status=552, text="full")),
        ("554 spam", MailAnswer(step=MailStep.content, status=554, text="spam")),
    ],
)
async def test_after_the_message_only_250_is_evidence(fault: str, observation: MailAnswer | MailSilence) -> None:
    async with ScriptedMailServer({"content": fault}) as server:
        result = await attempt(server, Exposure())
    assert result.observation == observation
    assert classify_mail(result.observation, exposed=True).outcome is AttemptOutcome.unknown


async def test_nobody_listens() -> None:
    async with ScriptedMailServer() as server:
        client = client_of(server)
    result = await client.send(ENVELOPE, exposure := Exposure())
    assert result.observation == MailSilence(step=MailStep.connect, reason=NoAnswerReason.closed)
    assert exposure.peers == []


async def test_an_exposure_that_is_not_committed_sends_nothing_and_leaves_the_connection_usable() -> None:
    async with ScriptedMailServer() as server:
        client = client_of(server)
        nothing = await client.send(ENVELOPE, Exposure(None))
        later = await client.send(ENVELOPE, Exposure())
        await client.close()
    assert nothing.observation == NotSent(reason=NotSentReason.abandoned)
    assert later.observation == MailAnswer(step=MailStep.content, status=250, text="stored")
    assert (len(server.mails), server.connections) == (1, 1)


async def test_an_exposure_that_takes_all_the_time_sends_nothing() -> None:
    async with ScriptedMailServer() as server:
        result = await attempt(server, Exposure(seconds=0.1), seconds=0.05)
    assert result.observation == NotSent(reason=NotSentReason.too_late)
    assert server.mails == []


# --- connections that stay open


async def test_messages_share_a_connection() -> None:
    async with ScriptedMailServer() as server:
        client = client_of(server)
        for _ in range(3):
            await client.send(ENVELOPE, Exposure())
        await client.close()
    assert (len(server.mails), server.connections) == (3, 1)


async def test_a_refused_recipient_leaves_the_connection_to_the_next_message() -> None:
    async with ScriptedMailServer({"RCPT": ["550 unknown", "250 ok"]}) as server:
        client = client_of(server)
        refused = await client.send(ENVELOPE, Exposure())
        await client.send(ENVELOPE, Exposure())
        await client.close()
    assert refused.observation == MailAnswer(step=MailStep.recipient, status=550, text="unknown")
    assert (len(server.mails), server.connections) == (1, 1)


@pytest.mark.parametrize("ending", [DROP, "421 idle for too long"])
async def test_a_connection_that_the_server_ended_is_replaced_and_the_message_sent_once(ending: str) -> None:
    async with ScriptedMailServer({"MAIL": ["250 ok", ending, "250 ok"]}) as server:
        client = client_of(server)
        await client.send(ENVELOPE, Exposure())
        await client.send(ENVELOPE, exposure := Exposure())
        await client.close()
    assert (len(server.mails), server.connections, len(exposure.peers)) == (2, 2, 1)


async def test_messages_wait_when_there_are_enough_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_CONNECTIONS", 2)
    async with ScriptedMailServer() as server:
        client = client_of(server)
        await asyncio.gather(*(client.send(ENVELOPE, Exposure(seconds=0.01)) for _ in range(8)))
        await client.close()
    assert (len(server.mails), server.connections) == (8, 2)


# --- encryption and log-in


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("security", [MailSecurity.implicit, MailSecurity.starttls])
async def test_the_message_goes_over_tls_with_a_log_in(authority: Authority, security: MailSecurity) -> None:
    tls, at_once = authority.server("localhost"), security is MailSecurity.implicit
    extensions = ("AUTH PLAIN",)
    async with ScriptedMailServer(extensions=extensions, tls=tls, tls_at_once=at_once) as server:
        where = MailServer(host="localhost", port=server.port, security=security, user="leads", password="p@ss")
        client = MailClient(where, authority.client())
        result = await client.send(ENVELOPE, exposure := Exposure())
        await client.close()
    assert result.observation == MailAnswer(step=MailStep.content, status=250, text="stored")
    assert "AUTH PLAIN AGxlYWRzAHBAc3M=" in server.commands
    assert exposure.peers[0].tls_fingerprint is not None


async def test_without_starttls_nothing_is_sent() -> None:
    async with ScriptedMailServer() as server:
        client = client_of(server, MailSecurity.starttls)
        result = await client.send(ENVELOPE, exposure := Exposure())
    assert isinstance(result.observation, NotSent)
    assert result.observation.reason is NotSentReason.mail_server_insecure
    assert (exposure.peers, len(server.mails)) == ([], 0)


@pytest.mark.parametrize("security", [MailSecurity.implicit, MailSecurity.starttls])
@pytest.mark.parametrize("host", ["another.example", ""])
async def test_a_certificate_that_is_not_valid_sends_nothing(
    authority: Authority, security: MailSecurity, host: str
) -> None:
    tls = authority.server(host) if host else authority.self_signed_server()
    async with ScriptedMailServer(tls=tls, tls_at_once=security is MailSecurity.implicit) as server:
        where = MailServer(host="localhost", port=server.port, security=security)
        client = MailClient(where, authority.client())
        result = await client.send(ENVELOPE, exposure := Exposure())
    assert isinstance(result.observation, NotSent), result.observation
    assert result.observation.reason is NotSentReason.mail_server_insecure
    assert (exposure.peers, server.mails) == ([], [])


@pytest.mark.parametrize(
    ("extensions", "answer", "reason"),
    [
        (("AUTH PLAIN",), "535 wrong", NotSentReason.mail_login_refused),
        (("AUTH PLAIN",), "454 later", NotSentReason.mail_server_unavailable),
        ((), "235 ok", NotSentReason.mail_login_refused),
    ],
)
async def test_a_refused_log_in_sends_nothing(extensions: tuple[str, ...], answer: str, reason: NotSentReason) -> None:
    async with ScriptedMailServer({"AUTH": answer}, extensions=extensions) as server:
        client = client_of(server, user="leads", password="wrong")
        result = await client.send(ENVELOPE, exposure := Exposure())
    assert classify_mail(result.observation, exposed=False).reason is reason
    assert exposure.peers == []


# --- addresses outside ASCII


async def test_letters_outside_ascii_before_the_at_need_smtputf8() -> None:
    envelope = MailEnvelope(sender=ENVELOPE.sender, recipient="jörg@dächer.example")
    async with ScriptedMailServer() as server:
        client = client_of(server)
        result = await client.send(envelope, exposure := Exposure())
        await client.close()
    assert isinstance(result.observation, NotSent)
    assert result.observation.reason is NotSentReason.mail_address_unsupported
    assert exposure.peers == []
    async with ScriptedMailServer(extensions=("8BITMIME", "SMTPUTF8")) as server:
        client = client_of(server)
        await client.send(envelope, Exposure())
        await client.close()
    assert [mail.recipient for mail in server.mails] == ["jörg@xn--dcher-gra.example"]


async def test_a_domain_outside_ascii_needs_no_support_of_the_server() -> None:
    envelope = MailEnvelope(sender=ENVELOPE.sender, recipient="joerg@dächer.example")
    async with ScriptedMailServer() as server:
        client = client_of(server)
        await client.send(envelope, Exposure())
        await client.close()
    assert [mail.recipient for mail in server.mails] == ["joerg@xn--dcher-gra.example"]
