"""Connections that stay open after a complete answer, for the next message to the same server.

A message on a kept connection spares its server and us the resolving, the connecting and the TLS handshake. The address
was checked when the connection was opened, and the certificate verified; both are asked for again when it is MOST_AGE_S
old. A server that says anything on an idle connection, or closes it, gets a new one.

A connection may be reserved for one message before that message exists, so that its exposure can be committed together
with the award. A reserved connection still closes itself at the end of its idle time.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, TypeAlias
from uuid import UUID

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
        self,
        server: Server,
        transport: asyncio.Transport,
        address: str,
        opened_at: float,
        forget: Callable[["KeptConnection"], None],
    ) -> None:
        self.server = server
        self.transport = transport
        self.address = address
        self.opened_at = opened_at
        self.reserved_for: UUID | None = None
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
        self._reserved: dict[UUID, KeptConnection] = {}
        self._count = 0

    def reserve(self, server: Server, assignment_id: UUID) -> KeptConnection | None:
        """Set the connection to `server` that was used last aside for one assignment; return it, or None."""
        connections = self._idle.get(server)
        if not connections:
            return None
        connection = self._reserved[assignment_id] = connections.pop()
        connection.reserved_for = assignment_id
        if not connections:
            del self._idle[server]
        return connection

    def take_reserved(self, assignment_id: UUID) -> KeptConnection | None:
        """Return the connection that is reserved for an assignment, or None; it is reserved no longer."""
        connection = self._reserved.pop(assignment_id, None)
        if connection is None:
            return None
        self._count -= 1
        return connection if connection.take() else None

    def unreserve(self, assignment_id: UUID) -> None:
        """Make a reserved connection available to all messages to its server again, if there is one."""
        connection = self._reserved.pop(assignment_id, None)
        if connection is not None:
            connection.reserved_for = None
            self._idle.setdefault(connection.server, []).append(connection)

    def take(self, server: Server) -> KeptConnection | None:
        """Return the connection to `server` that was used last, or None."""
        while connections := self._idle.get(server):
            connection = connections[-1]
            self._remove(connection)
            if connection.take():
                return connection
        return None

    def put(self, server: Server, transport: asyncio.Transport, address: str, opened_at: float) -> None:
        """Keep an open connection, or close it if it is too old or there are enough."""
        full = len(self._idle.get(server, ())) >= MOST_IDLE or self._count >= MOST_IN_ALL
        if full or clock.monotonic() - opened_at > MOST_AGE_S:
            transport.abort()
            return
        connection = KeptConnection(server, transport, address, opened_at, self._remove)
        self._idle.setdefault(server, []).append(connection)
        self._count += 1

    def close(self) -> None:
        """Close all connections."""
        for connections in (*self._idle.values(), list(self._reserved.values())):
            for connection in connections:
                connection.transport.abort()

    def _remove(self, connection: KeptConnection) -> None:
        """Remove a connection that is taken or closed, unless that has been done."""
        connections = self._idle.get(connection.server, [])
        if connection in connections:
            connections.remove(connection)
            self._count -= 1
            if not connections:
                del self._idle[connection.server]
        elif connection.reserved_for in self._reserved:
            del self._reserved[connection.reserved_for]
            self._count -= 1
