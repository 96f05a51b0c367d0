"""Connections that stay open after a complete answer, for the next message to the same server.

A message on a kept connection spares its server and us the resolving, the connecting and the TLS handshake. The address
was checked when the connection was opened, and the certificate verified; both are asked for again when it is MOST_AGE_S
old. A server that says anything on an idle connection, or closes it, gets a new one.
"""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from marketplace.runtime import clock

IDLE_S: Final = 30.0
"Time that a connection waits for the next message; web servers wait from 5 seconds (Node.js) to 75 (nginx)."
MOST_AGE_S: Final = 300.0
"Time from its opening in which a connection may be used again."
MOST_IDLE: Final = 8
"Idle connections to one server."
MOST_IN_ALL: Final = 500
"Idle connections of one process; beyond it, none is kept."

Server: TypeAlias = tuple[str, str, int, ssl.SSLContext | None]
"Scheme, host, port, and the context that verified the certificate."


class KeptConnection(asyncio.Protocol):
    """An idle connection to one server, and the address that was connected to. It closes itself after IDLE_S."""

    def __init__(
        self, transport: asyncio.Transport, address: str, opened_at: float, forget: Callable[["KeptConnection"], None]
    ) -> None:
        self.transport = transport
        self.address = address
        self.opened_at = opened_at
        self._forget = forget
        self._alarm = asyncio.get_running_loop().call_later(IDLE_S, transport.abort)
        transport.set_protocol(self)

    def take(self) -> bool:
        """End the idle time; return whether the connection can carry another message."""
        self._alarm.cancel()
        return not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Close a connection on which the server says something without having been asked."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.cancel()
        self._forget(self)


class KeptConnections:
    """Idle connections of one process, by server. Close it when the process ends."""

    def __init__(self) -> None:
        self._idle: dict[Server, list[KeptConnection]] = {}
        self._count = 0

    def take(self, server: Server) -> KeptConnection | None:
        """Return the connection to `server` that was used last, or None."""
        while connections := self._idle.get(server):
            connection = connections[-1]
            self._remove(server, connection)
            if connection.take():
                return connection
        return None

    def put(self, server: Server, transport: asyncio.Transport, address: str, opened_at: float) -> None:
        """Keep an open connection, or close it if it is too old or there are enough."""
        full = len(self._idle.get(server, ())) >= MOST_IDLE or self._count >= MOST_IN_ALL
        if full or clock.monotonic() - opened_at > MOST_AGE_S:
            transport.abort()
            return
        connection = KeptConnection(transport, address, opened_at, partial(self._remove, server))
        self._idle.setdefault(server, []).append(connection)
        self._count += 1

    def close(self) -> None:
        """Close all connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.transport.abort()

    def _remove(self, server: Server, connection: KeptConnection) -> None:
        """Remove a connection that is taken or closed, unless that has been done."""
        connections = self._idle.get(server, [])
        if connection in connections:
            connections.remove(connection)
            self._count -= 1
            if not connections:
                del self._idle[server]
