"""URLs and addresses that a webhook may use."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.webhook.address import (
    AddressRules,
    ParsedUrl,
    Resolver,
    UrlFault,
    UrlRefusal,
    VettedAddresses,
    check_url,
    refusal,
    resolve_by_system,
    resolve_public,
)
from routing.delivery import NotSent, NotSentReason

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def _fault(url: str) -> UrlFault | None:
    verdict = check_url(url, own_hosts=("leads.example.com",))
    return verdict.fault if isinstance(verdict, UrlRefusal) else None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com:6379/_x",
        "javascript:alert(1)",
        "//example.com/",
        "example.com/hook",
        "",
    ],
)
def test_only_https_urls_are_accepted(url: str) -> None:
    assert _fault(url) is UrlFault.url_scheme


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "127。0。0。1",
        "10.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::7f00:1]",
        "[fd00:ec2::254]",
    ],
)
def test_a_private_address_is_refused_in_any_spelling(host: str) -> None:
    assert _fault(f"https://{host}/hook") is UrlFault.url_address_not_public
    assert _fault(f"https://{host}:8443") is UrlFault.url_address_not_public


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///hook",
        "https:example.com",
        "https://example.com/a b",
        " https://example.com/",
        "https://example.com/\r\nHost: x",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/hook#part",
        "https://example.com:/",
        "https://example.com:443:443/",
        "https://exa mple.com/",
        "https://-example.com/",
        "https://example..com/",
        "https://[::1%25eth0]/",
        "https://[::1/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://example.com/ü",
        f"https://{'a' * 64}.com/",
        f"https://example.com/{'a' * 2048}",
    ],
)
def test_what_is_not_a_plain_url_is_refused(url: str) -> None:
    assert _fault(url) is UrlFault.url_invalid


@pytest.mark.parametrize("url", ["https://me:secret@example.com/", "https://example.com%2f@127.0.0.1/", "https://@h/"])
def test_a_url_with_credentials_is_refused(url: str) -> None:
    assert _fault(url) is UrlFault.url_credentials


@pytest.mark.parametrize("port", ["0", "22", "6379", "65536", "99999"])
def test_only_the_ports_of_the_web_and_those_given_are_accepted(port: str) -> None:
    assert _fault(f"https://example.com:{port}/") is UrlFault.url_port
    assert isinstance(check_url("https://example.com:9443/", ports=(9443,)), ParsedUrl)


@pytest.mark.parametrize("host", ["leads.example.com", "LEADS.example.com.", "\uff4ceads.example.com"])
def test_a_url_that_points_back_at_the_service_is_refused(host: str) -> None:
    assert _fault(f"https://{host}/hook") is UrlFault.url_loops_to_service


def test_an_allowed_url_is_parsed_once_for_check_and_use() -> None:
    assert check_url("HTTPS://Bücher.Example:8443/hook?key=a%20b") == ParsedUrl(
        scheme="https", host="xn--bcher-kva.example", port=8443, path="/hook?key=a%20b", address=None
    )
    assert check_url("https://8.8.8.8?q") == ParsedUrl(
        scheme="https", host="8.8.8.8", port=443, path="/?q", address=IPv4Address("8.8.8.8")
    )


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("https://example.com/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
    ],
)
def test_the_host_header_names_the_port_only_where_it_is_unusual(url: str, header: str) -> None:
    target = check_url(url)
    assert isinstance(target, ParsedUrl)
    assert target.host_header == header


def test_the_operators_networks_win_on_any_port() -> None:
    guard = AddressRules(http_allowed=True, networks=LOOPBACK)
    for url in ("http://127.0.0.1:9000/", "https://127.1/", "https://[::1]:9000/", "http://[::ffff:127.0.0.1]:9000/"):
        assert isinstance(guard.check(url), ParsedUrl)
    assert isinstance(guard.check("https://10.0.0.1/"), UrlRefusal)
    assert isinstance(guard.check("ftp://127.0.0.1/"), UrlRefusal)


@given(
    st.text(max_size=40), st.sampled_from(["", "https://", "https://127.0.0.1", "https://example.com/", "https://["])
)
def test_no_text_makes_the_check_fail(text: str, start: str) -> None:
    verdict = check_url(start + text)
    if isinstance(verdict, ParsedUrl):
        assert verdict.host.isascii()
        assert verdict.address is None or refusal(verdict.address) is None


@given(st.ip_addresses(v=4))
def test_every_numeric_spelling_of_an_address_gets_the_same_verdict(address: IPv4Address) -> None:
    whole = int(address)
    a, host_bits = whole >> 24, whole & 0xFFFFFF
    verdicts = {
        _fault(f"https://{spelt}/") for spelt in (address, whole, hex(whole), f"0{whole:o}", f"{a}.{host_bits}")
    }
    assert verdicts == {UrlFault.url_address_not_public if refusal(address) else None}


@pytest.mark.parametrize(
    "address",
    [
        # IPv4: private, loopback, link-local, shared, benchmarks, documentation, multicast, class E
        *(
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
        ),
        *(
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
        ),
        *("192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        # IPv6: the same, and IPv4 inside
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1"),
        *("2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "3fff:fff::1"),
        *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1", "1::1"),
    ],
)
def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str) -> None:
    assert refusal(ip_address(address)) is not None


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
        *("128.0.0.1", "168.63.129.15", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.0.1"),
        *("198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111"),
        *("2a00:1450::1", "3ffe::1"),
    ],
)
def test_a_public_address_right_beside_the_forbidden_ones_is_allowed(address: str) -> None:
    assert refusal(ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_allowed(address: IPv4Address) -> None:
    inner = getattr(address, "ipv4_mapped", None) or address
    if inner.is_private or inner.is_multicast or inner.is_reserved or inner.is_link_local:
        assert refusal(address) is not None


def _resolving(*addresses: str) -> Resolver:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return addresses

    return resolve


async def test_a_name_with_public_and_private_addresses_is_used_by_its_public_ones_alone() -> None:
    mixed = _resolving("10.0.0.7", "8.8.8.8", "::1", "1.1.1.1", "8.8.8.8")
    assert await resolve_public("mixed.example", 443, resolver=mixed) == VettedAddresses(
        addresses=("8.8.8.8", "1.1.1.1"), refused=("10.0.0.7 is private", "::1 is loopback")
    )


async def test_a_name_with_private_addresses_only_is_refused_with_the_reason() -> None:
    assert await resolve_public("inside.example", 443, resolver=_resolving("10.0.0.7")) == NotSent(
        reason=NotSentReason.address_refused, detail="inside.example: 10.0.0.7 is private"
    )


async def test_a_name_that_turns_private_after_saving_is_refused_when_sending() -> None:
    before, now = AddressRules(resolver=_resolving("8.8.8.8")), AddressRules(resolver=_resolving("169.254.169.254"))
    target = before.check("https://rebinding.example/")
    assert isinstance(target, ParsedUrl)
    assert isinstance(await before.resolve(target), VettedAddresses)
    refused = await now.resolve(target)
    assert isinstance(refused, NotSent)
    assert refused.reason is NotSentReason.address_refused


async def test_a_name_without_addresses_is_a_failed_look_up() -> None:
    failed = await resolve_public("nowhere.example", 443, resolver=_resolving())
    assert isinstance(failed, NotSent)
    assert failed.reason is NotSentReason.dns_failed


async def test_both_families_take_turns_so_that_a_broken_one_costs_a_single_try() -> None:
    both = _resolving("2606:4700::1", "2606:4700::2", "2606:4700::3", "8.8.8.8")
    vetted = await resolve_public("both.example", 443, resolver=both)
    assert isinstance(vetted, VettedAddresses)
    assert vetted.addresses == ("2606:4700::1", "8.8.8.8", "2606:4700::2", "2606:4700::3")


async def test_an_operator_may_open_a_network_to_names_too() -> None:
    inside = _resolving("127.0.0.1")
    assert await resolve_public("crm.internal", 443, networks=LOOPBACK, resolver=inside) == VettedAddresses(
        addresses=("127.0.0.1",)
    )


async def test_the_system_resolves_the_name_of_this_machine_to_loopback_and_the_guard_refuses_it() -> None:
    assert "127.0.0.1" in await resolve_by_system("localhost", 443)
    assert isinstance(await resolve_public("localhost", 443), NotSent)
