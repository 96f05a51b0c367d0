"""Open connections of one API process by client address, and the choice of one to close when the table is full.

While there is room, an address may open any number. When the table is full, a new connection replaces the longest
waiting one of the address that has the most, so that no address keeps others out. A connection whose request is being
answered is never closed.
"""

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from itertools import chain
from typing import Any, Final, Generic, TypeVar, cast

LONGEST_SOURCE: Final = 64

Connection = TypeVar("Connection")


def source_of(host: str) -> str:
    """Return the name under which a client address is counted: an IPv4 address, or the /64 network of an IPv6 address.

    One customer line usually gets a whole /64. A text that is no address, as a proxy may send, is counted as it is.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host[:LONGEST_SOURCE]
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((str(address), 64), strict=False))


class Proxies:
    """Networks of the trusted proxies, whose forwarding headers are believed."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(text) for text in networks)

    def include(self, host: str) -> bool:
        """Return whether `host`, an address or the path of a local socket, is in one of the networks."""
        if not self._networks:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class RequestStage(IntEnum):
    """Progress of a connection's request; connections of a lower stage are closed first."""

    idle = 0
    "The head of a request has not arrived, or not completely."
    receiving = 1
    "The head has arrived, the body not yet."
    busy = 2
    "The request has arrived and is being answered."


class _ConnectionSource:
    """Connections of one address by stage, in the order in which they entered the stage."""

    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted
        self.stages: tuple[dict[Any, None], ...] = tuple({} for _ in RequestStage)

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    def find_victim(self) -> Any:
        return next(chain(self.stages[RequestStage.idle], self.stages[RequestStage.receiving]), None)


class ConnectionTable(Generic[Connection]):
    """Connections by source and stage. Those of trusted proxies, which serve many callers, are closed last."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._places: dict[Connection, tuple[str, RequestStage]] = {}
        self._sources: dict[str, _ConnectionSource] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, connection: Connection, host: str) -> None:
        """Add a new connection from the address `host`."""
        name = source_of(host)
        source = self._sources.setdefault(name, _ConnectionSource(self._proxies.include(host)))
        source.stages[RequestStage.idle][connection] = None
        self._places[connection] = name, RequestStage.idle

    def discard(self, connection: Connection) -> None:
        """Remove a connection; an unknown one is ignored."""
        if (place := self._places.pop(connection, None)) is not None:
            name, stage = place
            source = self._sources[name]
            del source.stages[stage][connection]
            if not len(source):
                del self._sources[name]

    def move(self, connection: Connection, stage: RequestStage) -> None:
        """Record that a connection has entered a stage; an unknown one is ignored."""
        if (place := self._places.get(connection)) is not None:
            name, earlier = place
            stages = self._sources[name].stages
            del stages[earlier][connection]
            stages[stage][connection] = None
            self._places[connection] = name, stage

    def find_victim(self) -> Connection | None:
        """Return the connection to close for a new one; None when every connection is being answered."""
        candidates = ((source, source.find_victim()) for source in self._sources.values())
        holders = [(source, victim) for source, victim in candidates if victim is not None]
        if not holders:
            return None
        _, victim = max(holders, key=lambda holder: (not holder[0].trusted, len(holder[0])))
        return cast(Connection, victim)
