"""A real HTTP/1.1 server that behaves as the world's receivers do: well, badly, and with intent.

    async with Receiver(status(503), ok) as receiver:
        ... post to receiver.url ...
    receiver.visits[0].raw      # every byte of the first connection
    receiver.visits[1].body     # the body of the second

The first connection meets the first behaviour, the second the second, and so on; the last one repeats.
"""

import asyncio
import gzip
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Visit:
    """One connection to a receiver, from the receiver's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.raw = b""
        self.requests: list[bytes] = []
        self._reader = reader
        self._writer = writer

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers as they were written, without the request line."""
        head = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")
        return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    async def read_request(self) -> None:
        """Read one whole request."""
        while b"\r\n\r\n" not in self.raw:
            await self._read_some()
        length = int(self.headers.get("Content-Length", "0"))
        while len(self.body) < length:
            await self._read_some()

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def wait_for_hang_up(self) -> None:
        """Read until the sender has gone."""
        while await self._reader.read(65536):
            pass

    def hang_up(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """End the connection by RST instead of FIN, as a crashed server does."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def end_without_notice(self) -> None:
        """End the TCP connection in order, and leave TLS open, as somebody between the two sides could."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        socket.socket(fileno=os.dup(sock.fileno())).shutdown(socket.SHUT_WR)

    async def _read_some(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise ConnectionError("the sender has gone")
        self.raw += data


Behaviour = Callable[[Visit], Awaitable[None]]


class Receiver:
    """A server on a free port of 127.0.0.1; `visits` holds all connections in the order of their arrival."""

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.visits: list[Visit] = []
        self._behaviours = behaviours or (ok,)
        self._tls = tls
        self._host = host
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return self.url_of("127.0.0.1")

    def url_of(self, host: str) -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/hook"

    async def __aenter__(self) -> "Receiver":
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for visit in self.visits:
            visit.hang_up()
        await asyncio.sleep(0)  # the turn of the loop in which the sockets are closed

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        behaviour = self._behaviours[min(len(self.visits), len(self._behaviours) - 1)]
        self.visits.append(visit)
        task = asyncio.create_task(self._entertain(visit, behaviour, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    @staticmethod
    async def _entertain(visit: Visit, behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(visit)
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass  # the sender has gone, which is its right


# --- those that answer ------------------------------------------------------------------------------------------------


def answer(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Read the request, answer with a status, a body and headers (`retry_after="5"`)."""

    async def behave(visit: Visit) -> None:
        await visit.read_request()
        await visit.write(_head(code, {"content_length": str(len(body))} | headers) + body)

    return behave


def status(code: int) -> Behaviour:
    """A bare status: 4xx, 5xx, 410."""
    return answer(code)


def redirect(location: str, code: int = 302) -> Behaviour:
    return answer(code, location=location)


def refuse(reason: str, code: int = 200) -> Behaviour:
    """The agreed way to say no: by JSON, whatever the status."""
    return answer(code, f'{{"status":"refused","reason":"{reason}"}}'.encode(), content_type="application/json")


ok = answer(200)
gzipped_refusal = answer(200, gzip.compress(b'{"status":"refused"}'), content_encoding="gzip")
html_page = answer(200, b"<!doctype html><title>Sign in</title>", content_type="text/html; charset=utf-8")
accept = answer(200, b'{"status":"accepted"}', content_type="application/json")


async def ok_without_length(visit: Visit) -> None:
    """A body that ends when the connection does."""
    await visit.read_request()
    await visit.write(_head(200) + b'{"status":"accepted"}')


async def ok_ended_by_closing_alone(visit: Visit) -> None:
    """Headers without a length and no body: nobody can tell it from an answer that was cut before its body."""
    await visit.read_request()
    await visit.write(_head(200))


async def ok_in_chunks(visit: Visit) -> None:
    await visit.read_request()
    body = b'15\r\n{"status":"accepted"}\r\n0\r\n\r\n'
    await visit.write(_head(200, {"transfer_encoding": "chunked"}) + body)


async def cut_chunks(visit: Visit) -> None:
    """Chunks whose end never comes."""
    await visit.read_request()
    await visit.write(_head(200, {"transfer_encoding": "chunked"}) + b"2\r\nOK\r\n")


async def answer_before_the_question(visit: Visit) -> None:
    """A proper 200 on the open connection, before anything was sent."""
    await visit.write(_head(200, {"content_length": "0"}))
    await visit.wait_for_hang_up()


async def cut_refusal(visit: Visit) -> None:
    """A refusal of 45 bytes that ends after 16."""
    await visit.read_request()
    await visit.write(_head(200, {"content_length": "45", "content_type": "application/json"}) + b'{"status": "refu')


async def cut_tls(visit: Visit) -> None:
    """A body without a length whose connection ends without the close_notify that TLS ends with."""
    await visit.read_request()
    await visit.write(_head(200) + b'{"status":"accepted"}')
    visit.end_without_notice()


async def ok_after_early_hints(visit: Visit) -> None:
    """100 and 103 first, 200 then, both proper."""
    await visit.read_request()
    await visit.write(_head(100) + _head(103, {"link": "</a.css>"}) + _head(200, {"content_length": "0"}))


def after(seconds: float, behaviour: Behaviour) -> Behaviour:
    """Wait, then behave."""

    async def behave(visit: Visit) -> None:
        await asyncio.sleep(seconds)
        await behaviour(visit)

    return behave


def one_by_one(*behaviours: Behaviour) -> Behaviour:
    """Answer several requests on the same connection, each by its behaviour, and then close it."""

    async def behave(visit: Visit) -> None:
        for behaviour in behaviours:
            visit.raw = b""
            await behaviour(visit)
            visit.requests.append(visit.raw)

    return behave


# --- those that do not ------------------------------------------------------------------------------------------------


async def hang(visit: Visit) -> None:
    """Read everything, say nothing."""
    await visit.read_request()
    await visit.wait_for_hang_up()


async def drop_after_read(visit: Visit) -> None:
    await visit.read_request()


async def reset_after_read(visit: Visit) -> None:
    await visit.read_request()
    visit.reset()


async def drop_before_read(visit: Visit) -> None:
    visit.reset()


async def garbage(visit: Visit) -> None:
    """Something that is not HTTP."""
    await visit.read_request()
    await visit.write(b"\x16\x03\x01\x00\xa5 220 mail.example ESMTP\r\n\r\n")


async def banner(visit: Visit) -> None:
    """Speak first, as mail and shell servers do."""
    await visit.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await visit.wait_for_hang_up()


async def cut_headers(visit: Visit) -> None:
    await visit.read_request()
    await visit.write(b"HTTP/1.1 200 OK\r\nContent-Le")


async def cut_body(visit: Visit) -> None:
    """A whole 200, then half a body."""
    await visit.read_request()
    await visit.write(_head(200, {"content_length": "1000"}) + b'{"status":"acc')


# --- those that mean harm ---------------------------------------------------------------------------------------------


async def drip(visit: Visit) -> None:
    """One header byte at a time: each read succeeds, the whole never does."""
    await visit.read_request()
    await visit.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await _for_ever(visit, b"a", 0.02)


async def drip_body(visit: Visit) -> None:
    """A 200 whose body comes one byte at a time."""
    await visit.read_request()
    await visit.write(_head(200, {"content_length": "1000000"}))
    await _for_ever(visit, b"a", 0.02)


async def endless_headers(visit: Visit) -> None:
    await visit.read_request()
    await visit.write(b"HTTP/1.1 200 OK\r\n")
    await _for_ever(visit, b"X-More: and more\r\n" * 50)


async def endless_continue(visit: Visit) -> None:
    await visit.read_request()
    await _for_ever(visit, _head(100))


async def huge_body(visit: Visit) -> None:
    """A gigabyte."""
    await visit.read_request()
    await visit.write(_head(200, {"content_length": str(2**30)}))
    await _for_ever(visit, b"a" * 65536)


async def gzip_bomb(visit: Visit) -> None:
    """A small body that would unpack to 50 MB."""
    await visit.read_request()
    bomb = gzip.compress(bytes(50_000_000))
    await visit.write(_head(200, {"content_encoding": "gzip", "content_length": str(len(bomb))}) + bomb)


async def _for_ever(visit: Visit, data: bytes, pause: float = 0) -> None:
    while True:
        await visit.write(data)
        await asyncio.sleep(pause)


def _head(code: int, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {code} Whatever"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


# --- certificates -----------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the tests' own, which signs whatever it is asked to, and also what it should not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        self._certificate = self._sign(self._name, self._key, days=(-1, 30), authority=True)

    def client(self) -> ssl.SSLContext:
        """What a client uses that trusts this authority alone."""
        context = ssl.create_default_context(cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def server(self, host: str = "receiver.example", *, days: tuple[float, float] = (-1, 30)) -> ssl.SSLContext:
        """A server's side with a certificate for `host`, valid from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        return self._context(self._sign(name, key, days=days, host=host), key)

    def files(self, host: str) -> tuple[Path, Path, Path]:
        """Files for another program: the authority's certificate, one for `host`, and its private key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        authority, certificate, private = (self._folder / f"{host}.{part}.pem" for part in ("authority", "cert", "key"))
        pem = serialization.Encoding.PEM
        authority.write_bytes(self._certificate.public_bytes(pem))
        certificate.write_bytes(self._sign(name, key, days=(-1, 30), host=host).public_bytes(pem))
        private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return authority, certificate, private

    def self_signed_server(self) -> ssl.SSLContext:
        """A server's side whose certificate nobody vouches for."""
        return Authority(self._folder)._context_of_authority()

    def _context_of_authority(self) -> ssl.SSLContext:
        return self._context(self._certificate, self._key)

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        days: tuple[float, float],
        host: str = "receiver.example",
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        return builder.sign(self._key, hashes.SHA256())

    def _context(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
        pem = self._folder / f"{certificate.serial_number}.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context
