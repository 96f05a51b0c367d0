"""Mapped requests: headers, authorization, and the faults that keep a mapping from being saved."""

import base64

import msgspec
import pytest

from marketplace.mapping.requests import authorize, build_request, mapping_faults
from marketplace.mapping.shapes import (
    BasicLogin,
    BearerToken,
    BodyFormat,
    ClientCredentials,
    Credentials,
    HeaderKey,
    RequestMapping,
    SentHeader,
)
from marketplace.webhook.address import ParsedUrl
from marketplace.webhook.transport import compose

PLAIN = RequestMapping(format=BodyFormat.json, body='{"phone": "{{ contact.phone }}"}')
CLIENT = ClientCredentials(token_url="https://login.example.com/token", client_id="a", client_secret="b")


def test_a_request_has_its_method_headers_and_login() -> None:
    mapping = msgspec.structs.replace(PLAIN, method="PUT", headers=(SentHeader(name="Version", value="2021-07-28"),))
    message = build_request(mapping, b"{}", {"webhook-id": "asg_1"}, authorize(BearerToken(token="t")))
    target = ParsedUrl(scheme="https", host="crm.example.com", port=443, path="/leads?a=1", address=None)
    assert compose(target, message).decode().split("\r\n") == [
        "PUT /leads?a=1 HTTP/1.1",
        "Host: crm.example.com",
        "Webhook-Id: asg_1",
        "Content-Type: application/json",
        "Version: 2021-07-28",
        "Authorization: Bearer t",
        "User-Agent: exclusive-lead-marketplace",
        "Accept-Encoding: identity",
        "Content-Length: 2",
        "Connection: close",
        "",
        "{}",
    ]


@pytest.mark.parametrize(
    ("credentials", "headers"),
    [
        (None, ()),
        (BearerToken(token="t"), (("authorization", "Bearer t"),)),
        (
            BasicLogin(user="ü", password="p:w"),
            (("authorization", "Basic " + base64.b64encode("ü:p:w".encode()).decode()),),
        ),
        (HeaderKey(header="x-api-token", key="k"), (("x-api-token", "k"),)),
        (CLIENT, (("authorization", "Bearer fetched"),)),
    ],
)
def test_each_login_has_its_header(credentials: Credentials | None, headers: tuple[tuple[str, str], ...]) -> None:
    assert authorize(credentials, "fetched") == headers


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "Authorization",
        "webhook-id",
        "Proxy-Authorization",
        "TE",
    ],
)
def test_a_header_of_ours_or_of_the_connection_cannot_be_set(name: str) -> None:
    mapping = msgspec.structs.replace(PLAIN, headers=(SentHeader(name=name, value="x"),))
    assert [fault.pointer for fault in mapping_faults(mapping, None)] == ["/headers/0/name"]
    assert [fault.pointer for fault in mapping_faults(PLAIN, HeaderKey(header=name, key="k"))] == [
        "/credentials/header"
    ]


def test_a_header_is_there_once() -> None:
    header = SentHeader(name="X-Key", value="x")
    mapping = msgspec.structs.replace(PLAIN, headers=(header,))
    assert "twice" in next(iter(mapping_faults(mapping, HeaderKey(header="x-key", key="k")))).detail


@pytest.mark.parametrize(
    "document",
    [
        {"headers": [{"name": "X", "value": "a\r\nB: c"}]},
        {"headers": [{"name": "X: y", "value": "a"}]},
        {"headers": [{"name": "X", "value": "ü"}]},
        {"headers": [{"name": "X", "value": " a"}]},
        {"method": "GET"},
        {"format": "yaml"},
        {"body": ""},
        {"body": "x" * 40_000},
    ],
)
def test_a_mapping_cannot_hold_another_request(document: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(PLAIN) | document, RequestMapping)


@pytest.mark.parametrize(
    "body",
    ['{"a": {{ contact.phone }}}', '{"a": "{{ contact.phone }}"', "{{ nothing }}", '{"a": {{ timing.within_days }}}'],
)
def test_a_template_that_fails_on_any_example_is_refused(body: str) -> None:
    faults = list(mapping_faults(msgspec.structs.replace(PLAIN, body=body), None))
    assert [fault.pointer for fault in faults] == ["/body"]
