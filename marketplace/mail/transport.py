"""Send one message through the mail server, step by step, so that it is known whether a byte of it was sent.

Everything that may fail comes first: connection, TLS, log-in, sender and recipient. Then the caller commits the
exposure and returns the message, and only then DATA begins. Connections stay open for the next message. If one has been
closed by the server meanwhile, nothing was sent on it, and a new one is opened.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

import idna
import msgspec
from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from marketplace.runtime import clock, failpoints
from marketplace.runtime.mail_settings import MailSecurity, MailServer
from marketplace.webhook.transport import ConnectionInfo, system_tls
from routing.delivery import (
    MailAnswer,
    MailObservation,
    MailSilence,
    MailStep,
    NoAnswerReason,
    NotSent,
    NotSentReason,
)

DEADLINE_SECONDS: Final = 20.0
"Time for one attempt, as for a webhook's."
STEP_SECONDS: Final = 5.0
"Time for each step before the message; three of them in a row leave a webhook's time for the answer."
IDLE_SECONDS: Final = 30.0
"Time that a connection waits for the next message. Mail servers close an idle one after 60 seconds or more."
MOST_AGE_SECONDS: Final = 300.0
MOST_MESSAGES: Final = 100
"Messages over one connection: a usual limit of mail servers."
MOST_CONNECTIONS: Final = 10
"Connections of one process at once; many mail servers refuse more from one client."
MAX_TEXT: Final = 500
"Characters of a server's answer that are stored."


class MailEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """Sender and recipient of a message. A recipient may have letters outside ASCII."""

    sender: str
    recipient: str

    @property
    def needs_utf8(self) -> bool:
        """True if the part before the @ is not in ASCII, which requires SMTPUTF8 of every server on the way."""
        return not self.recipient.rpartition("@")[0].isascii()


class MailAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """Observation of one attempt, and the duration of its phases in milliseconds, None for one not reached.

    `connect_ms` ends with the log-in, and is None on a connection that was open already; `expose_ms` is the time of the
    caller's commit, `first_byte_ms` the time from DATA to the answer to the message.
    """

    observation: MailObservation
    address: str | None = None
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    expose_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float


OnRecipientAccepted = Callable[[ConnectionInfo], Awaitable[bytes | None]]


class MailClient:
    """Connections of one process to one mail server. Close it when the process ends."""

    def __init__(self, server: MailServer, tls: ssl.SSLContext | None = None) -> None:
        """Keep what each connection needs. `tls` is for a certificate authority of one's own."""
        self._server = server
        self._tls = tls
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def send(
        self,
        envelope: MailEnvelope,
        on_accepted: OnRecipientAccepted,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> MailAttempt:
        """Make one attempt and return what was observed. Errors of the network do not raise.

        `on_accepted` is called once the server has accepted the recipient. It commits the exposure and returns the
        message, with lines that end in CRLF, or None to send nothing. The deadline does not interrupt it; if it used up
        the time, nothing is sent (`too_late`).
        """
        attempt = _Attempt(envelope, clock.monotonic() + deadline_seconds)
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._slots.acquire()
        except TimeoutError:
            return attempt.end(MailSilence(step=MailStep.connect, reason=NoAnswerReason.timeout))
        try:
            return attempt.end(await self._send(attempt, on_accepted))
        finally:
            self._slots.release()

    async def _send(self, attempt: "_Attempt", on_accepted: OnRecipientAccepted) -> MailObservation:
        obstacle = await self._address(attempt)
        if obstacle is not None:
            return obstacle
        observation = await attempt.deliver(on_accepted)
        self._keep(attempt.connection)
        return observation

    async def _address(self, attempt: "_Attempt") -> MailObservation | None:
        """Give sender and recipient to the server; return what prevented it, or None."""
        while (connection := self._take()) is not None:
            obstacle = await attempt.address(connection)
            if connection.usable or not _ended_by_server(obstacle):
                return self._return_unless_sending(attempt, obstacle)
        connection = _Connection(self._server, self._tls)
        opened = await attempt.open(connection)
        if opened is not None:
            connection.close()
            return opened
        return self._return_unless_sending(attempt, await attempt.address(connection))

    def _return_unless_sending(self, attempt: "_Attempt", obstacle: MailObservation | None) -> MailObservation | None:
        """Keep the connection of an attempt that ended at sender or recipient, and return the obstacle."""
        if obstacle is not None:
            self._keep(attempt.connection)
        return obstacle

    def _take(self) -> "_Connection | None":
        """Return the idle connection that was used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def _keep(self, connection: "_Connection | None") -> None:
        """Keep a connection for the next message, or close it."""
        if connection is None:
            return
        if connection.usable and connection.clean:
            connection.used_at = clock.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        """Close the idle connections, with QUIT."""
        connections, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit() for connection in connections))


def _ended_by_server(obstacle: MailObservation | None) -> bool:
    """Return whether a connection had been closed by the server, or was about to be (421)."""
    match obstacle:
        case MailAnswer(status=421):
            return True
        case MailSilence(reason=reason):
            return reason is not NoAnswerReason.timeout
        case _:
            return False


class _Connection:
    """One connection to the mail server. `clean` is false while a message is under way on it."""

    def __init__(self, server: MailServer, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._tls = tls
        implicit = server.security is MailSecurity.implicit
        self.client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=implicit,
            start_tls=False,
            tls_context=None if server.security is MailSecurity.none else tls or system_tls(),
            local_hostname="localhost" if server.security is MailSecurity.none else None,
            timeout=STEP_SECONDS,
        )
        self.opened_at = self.used_at = clock.monotonic()
        self.messages = 0
        self.clean = True

    @property
    def usable(self) -> bool:
        """True if the connection is open, and neither too old nor used too often."""
        now = clock.monotonic()
        return (
            self.client.is_connected
            and now - self.used_at < IDLE_SECONDS
            and now - self.opened_at < MOST_AGE_SECONDS
            and self.messages < MOST_MESSAGES
        )

    @property
    def peer(self) -> ConnectionInfo:
        """Address, port and certificate of the server."""
        peer = self.client.get_transport_info("peername")
        secure: ssl.SSLObject | None = self.client.get_transport_info("ssl_object")
        certificate = secure.getpeercert(binary_form=True) if secure else None
        return ConnectionInfo(
            address=str(peer[0]),
            port=int(peer[1]),
            tls_fingerprint=sha256(certificate).digest() if certificate else None,
        )

    def close(self) -> None:
        """Close the connection without waiting for the server."""
        self.client.close()

    async def quit(self) -> None:
        """Say QUIT and close the connection, whatever the server answers."""
        try:
            await self.client.quit(timeout=1.0)
        except (SMTPException, OSError):
            self.client.close()


class _Attempt:
    """State of one attempt: its step, its connection, and the duration of each phase."""

    def __init__(self, envelope: MailEnvelope, deadline: float) -> None:
        self._envelope = envelope
        self._deadline = deadline
        self._started = clock.monotonic()
        self._step = MailStep.connect
        self._peer: ConnectionInfo | None = None
        self._connect_ms: float | None = None
        self._expose_ms: float | None = None
        self._first_byte_ms: float | None = None
        self.connection: _Connection | None = None

    async def open(self, connection: _Connection) -> MailObservation | None:
        """Connect, secure the connection and log in; return the obstacle, or None."""
        began = clock.monotonic()
        obstacle = await self._observe(self._open(connection))
        self._connect_ms = _to_ms(clock.monotonic() - began)
        return obstacle

    async def _open(self, connection: _Connection) -> NotSent | None:
        client, server = connection.client, connection._server
        self._step = MailStep.connect
        await client.connect()
        self._step = MailStep.hello
        await client.ehlo()
        if server.security is MailSecurity.starttls:
            self._step = MailStep.starttls
            if not client.supports_extension("starttls"):
                return NotSent(reason=NotSentReason.mail_server_insecure, detail="the server offers no STARTTLS")
            await client.starttls()
            self._step = MailStep.hello
            await client.ehlo()
        if server.user is not None:
            self._step = MailStep.login
            if not client.supported_auth_methods:
                return NotSent(reason=NotSentReason.mail_login_refused, detail="the server offers no log-in")
            await client.login(server.user, server.password)
        return None

    async def address(self, connection: _Connection) -> MailObservation | None:
        """Name sender and recipient; return the obstacle, or None once the recipient is accepted."""
        self.connection, self._peer = connection, connection.peer
        connection.clean = False
        obstacle = await self._observe(self._address(connection))
        if isinstance(obstacle, MailAnswer | NotSent):
            await self._reset(connection)
        return obstacle

    async def _address(self, connection: _Connection) -> NotSent | None:
        client, envelope = connection.client, self._envelope
        options: tuple[str, ...] = ()
        encoding = "ascii"
        if envelope.needs_utf8:
            if not client.supports_extension("smtputf8"):
                return NotSent(reason=NotSentReason.mail_address_unsupported, detail="the server has no SMTPUTF8")
            options, encoding = (("SMTPUTF8", "BODY=8BITMIME"), "utf-8")
        self._step = MailStep.sender
        await client.mail(envelope.sender, options=options, encoding=encoding)
        self._step = MailStep.recipient
        await client.rcpt(_wire_address(envelope.recipient), encoding=encoding)
        return None

    async def deliver(self, on_accepted: OnRecipientAccepted) -> MailObservation:
        """Call `on_accepted` and send the message that it returns; return the server's answer."""
        connection, peer = self.connection, self._peer
        assert connection is not None
        assert peer is not None
        began = clock.monotonic()
        message = await on_accepted(peer)
        self._expose_ms = _to_ms(clock.monotonic() - began)
        if message is None or self._remaining_seconds() <= 0:
            await self._reset(connection)
            return NotSent(reason=NotSentReason.abandoned if message is None else NotSentReason.too_late)
        began = clock.monotonic()
        observation = await self._observe(self._transmit(connection, message))
        self._first_byte_ms = _to_ms(clock.monotonic() - began)
        assert observation is not None
        connection.messages += 1
        connection.clean = isinstance(observation, MailAnswer)
        return observation

    async def _transmit(self, connection: _Connection, message: bytes) -> MailAnswer:
        """Send DATA and the message, and return the answer to the last one that was answered."""
        client = connection.client
        self._step = MailStep.data
        ready = await client.execute_command(b"DATA")
        if ready.code != 354:
            return self._answer(ready.code, ready.message)
        self._step = MailStep.content
        if client.protocol is None:
            raise SMTPServerDisconnected("closed before the message")
        client.protocol.write(_dot_stuffed(message))
        await failpoints.reach("after_write_before_answer")
        if client.protocol is None:
            raise SMTPServerDisconnected("closed after the message")
        answer = await client.protocol.read_response(timeout=None)
        return self._answer(answer.code, answer.message)

    async def _reset(self, connection: _Connection) -> None:
        """Make the connection ready for another message, or close it."""
        try:
            await connection.client.rset(timeout=1.0)
            connection.clean = True
        except (SMTPException, OSError):
            connection.close()

    async def _observe(self, work: Awaitable[MailObservation | None]) -> MailObservation | None:
        """Await the work until the deadline, and return its result or what its error means."""
        try:
            async with asyncio.timeout(max(0.0, self._remaining_seconds())):
                return await work
        except SMTPResponseException as error:
            if not 100 <= error.code <= 999:
                return MailSilence(step=self._step, reason=NoAnswerReason.malformed)
            return self._answer(error.code, error.message)
        except (SMTPTimeoutError, TimeoutError):
            return MailSilence(step=self._step, reason=NoAnswerReason.timeout)
        except (SMTPException, OSError) as error:
            fault = error if isinstance(error, ssl.SSLError) else error.__cause__
            if isinstance(fault, ssl.SSLError) and self._step in (MailStep.connect, MailStep.starttls):
                detail = getattr(fault, "verify_message", None) or fault.reason or "the TLS handshake failed"
                return NotSent(reason=NotSentReason.mail_server_insecure, detail=str(detail)[:MAX_TEXT])
            return MailSilence(step=self._step, reason=NoAnswerReason.closed)

    def _answer(self, code: int, text: str) -> MailAnswer:
        return MailAnswer(step=self._step, status=code, text=text[:MAX_TEXT])

    def end(self, observation: MailObservation) -> MailAttempt:
        """Return the record of this attempt, which ended with `observation`."""
        return MailAttempt(
            observation=observation,
            address=self._peer.name if self._peer else None,
            connect_ms=self._connect_ms,
            expose_ms=self._expose_ms,
            first_byte_ms=self._first_byte_ms,
            total_ms=_to_ms(clock.monotonic() - self._started),
        )

    def _remaining_seconds(self) -> float:
        """Return the seconds until the attempt's deadline; negative after it."""
        return self._deadline - clock.monotonic()


def _wire_address(address: str) -> str:
    """Return the address with its domain in ASCII. Raises idna.IDNAError for a domain that has no such form."""
    name, _, domain = address.rpartition("@")
    return f"{name}@{domain if domain.isascii() else idna.encode(domain, uts46=True).decode()}"


_LEADING_DOT = re.compile(rb"(?m)^\.")


def _dot_stuffed(message: bytes) -> bytes:
    """Return the message as DATA sends it: a dot that begins a line is doubled, and a line with one dot ends it."""
    ending = b"" if message.endswith(b"\r\n") else b"\r\n"
    return _LEADING_DOT.sub(b"..", message) + ending + b".\r\n"


def _to_ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
