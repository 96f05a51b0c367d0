"""A mail server on a real socket that answers each step as a test tells it to: with a code, never, or by closing."""

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import msgspec

STALL: Final = "stall"
DROP: Final = "drop"
GARBAGE: Final = "garbage"

USUAL: Final = {
    "greeting": "220 ready",
    "EHLO": "250 ok",
    "AUTH": "235 welcome",
    "MAIL": "250 sender ok",
    "RCPT": "250 recipient ok",
    "DATA": "354 go on",
    "content": "250 stored",
    "RSET": "250 reset",
    "NOOP": "250 ok",
    "QUIT": "221 bye",
}


class ReceivedMail(msgspec.Struct, frozen=True, kw_only=True):
    """One message that the server read to its end, with its envelope. `accepted` is whether it answered 250."""

    sender: str
    recipient: str
    content: bytes
    accepted: bool


class ScriptedMailServer:
    """A server whose answers are given by step: a line such as `450 later`, STALL, DROP, or a list of those in turn."""

    def __init__(
        self,
        answers: Mapping[str, str | list[str]] | None = None,
        *,
        extensions: tuple[str, ...] = ("8BITMIME",),
        tls: ssl.SSLContext | None = None,
        tls_at_once: bool = False,
    ) -> None:
        self._answers = {
            step: list(lines) if isinstance(lines, list) else lines for step, lines in (answers or {}).items()
        }
        self._extensions = extensions + (("STARTTLS",) if tls and not tls_at_once else ())
        self._tls = tls
        self._tls_at_once = tls_at_once
        self.mails: list[ReceivedMail] = []
        self.commands: list[str] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        context = self._tls if self._tls_at_once else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await _Session(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def answer(self, step: str) -> str:
        """The answer at this step; the last one of a list stays."""
        lines = self._answers.get(step, USUAL[step])
        if isinstance(lines, str):
            return lines
        return lines.pop(0) if len(lines) > 1 else lines[0]


class _Session:
    """One connection."""

    def __init__(self, server: ScriptedMailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._sender = self._recipient = ""

    async def run(self) -> None:
        if not await self._say("greeting"):
            return
        while line := await self._reader.readline():
            command = line.decode("utf-8").rstrip("\r\n")
            self._server.commands.append(command)
            verb = command.partition(" ")[0].upper()
            if verb == "STARTTLS":
                await self._start_tls()
            elif not await self._follow(verb, command):
                return

    async def _follow(self, verb: str, command: str) -> bool:
        if verb == "MAIL":
            self._sender = command.partition("<")[2].partition(">")[0]
        if verb == "RCPT":
            self._recipient = command.partition("<")[2].partition(">")[0]
        if verb == "EHLO" and self._server.answer("EHLO") == USUAL["EHLO"]:
            lines = ("mail.example", *self._server._extensions)
            await self._write("\r\n".join(f"250{'-' if line != lines[-1] else ' '}{line}" for line in lines))
            return True
        if not await self._say(verb):
            return False
        return verb != "QUIT" and (verb != "DATA" or not self._last.startswith("354") or await self._read_message())

    async def _read_message(self) -> bool:
        content = bytearray()
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                return False
            content += line[1:] if line.startswith(b".") else line
        self._last = self._server.answer("content")
        self._server.mails.append(
            ReceivedMail(
                sender=self._sender,
                recipient=self._recipient,
                content=bytes(content),
                accepted=self._last.startswith("250"),
            )
        )
        return await self._give(self._last)

    async def _start_tls(self) -> None:
        assert self._server._tls is not None
        await self._write("220 go on")
        await self._writer.start_tls(self._server._tls)

    async def _say(self, step: str) -> bool:
        """Answer this step; return False if the connection is to end."""
        self._last = self._server.answer(step)
        return await self._give(self._last)

    async def _give(self, answer: str) -> bool:
        if answer == STALL:
            await asyncio.sleep(3600)
        if answer == DROP:
            return False
        await self._write("ceci n'est pas SMTP" if answer == GARBAGE else answer)
        return not answer.startswith(("221", "421"))

    async def _write(self, text: str) -> None:
        self._writer.write(text.encode() + b"\r\n")
        await self._writer.drain()
