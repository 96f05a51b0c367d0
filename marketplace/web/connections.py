"""The connections of one API process, by address: who gives one up when the table is full.

While there is room, an address may have as many as it opens. When the table is full, a newcomer takes the place of the
longest waiting connection of the address that has the most, so that no address keeps the others out. A connection
whose request is being answered is never taken.
"""

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from itertools import chain
from typing import Any, Final, Generic, TypeVar, cast

LONGEST_SOURCE: Final = 64

Connection = TypeVar("Connection")


def source_of(host: str) -> str:
    """The name under which an address is counted: an IPv6 network of 64 bits is one place, as one line gets it.

    What is no address, as a proxy may tell of a caller, counts under its own text.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host[:LONGEST_SOURCE]
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((str(address), 64), strict=False))


class Proxies:
    """The networks whose word is believed about where a request comes from."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(text) for text in networks)

    def include(self, host: str) -> bool:
        """Whether `host`, an address or the path of a local socket, is one of them."""
        if not self._networks:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class RequestStage(IntEnum):
    """How far the request of a connection has come; connections of a lower stage are given up first."""

    idle = 0
    "Nothing of a request has come, or not the whole head of one."
    receiving = 1
    "The head has come, and the body is on its way."
    busy = 2
    "The request has come in full and is being answered."


class _ConnectionSource:
    """The connections of one address by stage, in each stage in the order in which they entered it."""

    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted
        self.stages: tuple[dict[Any, None], ...] = tuple({} for _ in RequestStage)

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    def find_victim(self) -> Any:
        return next(chain(self.stages[RequestStage.idle], self.stages[RequestStage.receiving]), None)


class ConnectionTable(Generic[Connection]):
    """Connections by source and stage. Those of trusted proxies, which stand for many callers, are given up last."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._places: dict[Connection, tuple[str, RequestStage]] = {}
        self._sources: dict[str, _ConnectionSource] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, connection: Connection, host: str) -> None:
        """Enter a connection that was just made from the address `host`."""
        name = source_of(host)
        source = self._sources.setdefault(name, _ConnectionSource(self._proxies.include(host)))
        source.stages[RequestStage.idle][connection] = None
        self._places[connection] = name, RequestStage.idle

    def discard(self, connection: Connection) -> None:
        """Forget a connection; one that is not in the table is ignored."""
        if (place := self._places.pop(connection, None)) is not None:
            name, stage = place
            source = self._sources[name]
            del source.stages[stage][connection]
            if not len(source):
                del self._sources[name]

    def move(self, connection: Connection, stage: RequestStage) -> None:
        """Note that a connection has entered a stage; one that is not in the table is ignored."""
        if (place := self._places.get(connection)) is not None:
            name, earlier = place
            stages = self._sources[name].stages
            del stages[earlier][connection]
            stages[stage][connection] = None
            self._places[connection] = name, stage

    def find_victim(self) -> Connection | None:
        """The connection to give up for a newcomer; None when every connection is being answered."""
        candidates = ((source, source.find_victim()) for source in self._sources.values())
        holders = [(source, victim) for source, victim in candidates if victim is not None]
        if not holders:
            return None
        _, victim = max(holders, key=lambda holder: (not holder[0].trusted, len(holder[0])))
        return cast(Connection, victim)
