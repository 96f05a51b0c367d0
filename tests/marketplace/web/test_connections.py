"""Closing of connections when the table is full: of the address that has the most, idle ones first."""

import pytest

from marketplace.web.connections import ConnectionTable, Proxies, RequestStage, source_of


def table(*hosts: str, proxies: tuple[str, ...] = ()) -> ConnectionTable[int]:
    """Connections 0, 1, 2 … of these addresses, all of them idle."""
    made: ConnectionTable[int] = ConnectionTable(Proxies(proxies))
    for number, host in enumerate(hosts):
        made.add(number, host)
    return made


MANY, FEW, PROXY = "198.51.100.7", "203.0.113.9", "10.0.0.2"


@pytest.mark.parametrize(
    ("hosts", "stages", "victim"),
    [
        pytest.param((FEW, MANY, MANY), {}, 1, id="the address with the most, its longest idle first"),
        pytest.param((MANY, MANY, FEW), {0: RequestStage.receiving}, 1, id="idle before one whose body is coming"),
        pytest.param(
            (MANY, MANY, FEW), {0: RequestStage.busy, 1: RequestStage.receiving}, 1, id="a body before an answer"
        ),
        pytest.param(
            (MANY, MANY, FEW), {0: RequestStage.busy, 1: RequestStage.busy}, 2, id="never one that is being answered"
        ),
        pytest.param(
            (MANY, FEW), {0: RequestStage.busy, 1: RequestStage.busy}, None, id="nobody where all are being answered"
        ),
        pytest.param((PROXY, PROXY, PROXY, FEW), {}, 3, id="a trusted proxy last"),
        pytest.param((PROXY, PROXY), {}, 0, id="a trusted proxy where there is nobody else"),
        pytest.param(("2001:db8::1", "2001:db8::2", FEW, "2001:db8:1::1"), {}, 0, id="a network of IPv6 is one place"),
        pytest.param(("::ffff:198.51.100.7", MANY, FEW), {}, 0, id="IPv4 in an IPv6 socket is the same place"),
        pytest.param((), {}, None, id="an empty table"),
    ],
)
def test_the_one_who_gives_up_a_connection(
    hosts: tuple[str, ...], stages: dict[int, RequestStage], victim: int | None
) -> None:
    made = table(*hosts, proxies=("10.0.0.0/8",))
    for number, stage in stages.items():
        made.move(number, stage)
    assert made.find_victim() == victim


def test_a_connection_that_was_used_waits_behind_the_others_of_its_address() -> None:
    made = table(MANY, MANY)
    made.move(0, RequestStage.busy)
    made.move(0, RequestStage.idle)
    assert made.find_victim() == 1


def test_a_connection_that_is_gone_is_in_no_count_and_may_go_again() -> None:
    made = table(MANY, MANY, FEW, FEW, FEW)
    for number in (2, 3, 4, 4):
        made.discard(number)
    made.move(4, RequestStage.busy)
    assert (len(made), made.find_victim()) == (2, 0)


@pytest.mark.parametrize("host", ["", "unknown", "_hidden", "[::1]:80", "1.2.3.4:80", "x" * 5_000, "fe80::1%eth0"])
def test_any_text_that_a_proxy_may_tell_has_a_name(host: str) -> None:
    assert len(source_of(host)) <= 64
