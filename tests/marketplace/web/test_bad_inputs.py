"""Every kind of bad input that the open surfaces can get, over real HTTP to a real process, and the answer to each.

One service answers all rows of a table; every row is a person of its own. Each post carries marks in all fields that
can name a person, and no answer and no log line ever repeats one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import pytest_asyncio

from marketplace.intake.contact import Contact
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import load
from marketplace.security.auth import CallerKind, key_id
from marketplace.security.sealing import SealedContact
from marketplace.web.http import BODY_LIMIT
from tests.builders.inquiries import changed, iso, roofing_body
from tests.builders.marketplaces import Marketplace, anywhere
from tests.builders.service import NOWHERE, Service, service
from tests.conftest import SECRETS, Administration, Ready, new_database
from tests.receivers import Receiver, drop_after_read, ok

MARK = "zq7f3a"
IP = "192.0.2.77"
PATH = "/v1/inquiries"
UNKNOWN_LEAD = "lead_01m7zxrk0zezh9kk0e0qy31s5c"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def surface(
    servers: Ready, administration: Administration, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """One API for every row that this process runs, with nobody behind it who would walk a lead."""
    home = tmp_path_factory.mktemp("surface")
    async for url in new_database(administration, servers.admin_url, servers.template):
        settings = load(SECRETS | {"DATABASE_URL": url, "VALKEY_URL": NOWHERE, "MARKETPLACE_DATA": str(home)})
        async with service(settings, home / "api.log", MARKETPLACE_PUBLIC_URL="https://leads.example.org") as found:
            yield found
            assert MARK not in found.serving.log
            assert IP not in found.serving.log
            assert "Traceback" not in found.serving.log


def inquiry(number: int, **sections: Any) -> dict[str, Any]:
    """A good inquiry with a mark in every field that can name a person."""
    body = roofing_body(number, clock.now())
    marks = {
        "contact.full_name": f"Robin {MARK}",
        "contact.email": f"{MARK}.{number}@example.com",
        "contact.street": f"1 {MARK} Street",
        "contact.role": f"{MARK} owner",
        "bant.need.summary": f"ask for {MARK}",
        "consent.text": f"I, {MARK}, agree.",
        "consent.page_url": f"https://{MARK}.example.com/quote?name={MARK}",
        "consent.ip": IP,
        "consent.user_agent": f"{MARK}/1.0",
        "metadata": {"nickname": MARK},
    }
    for path, value in marks.items():
        body = changed(body, path, value)
    return body | sections


def assert_clear(answer: httpx.Response, *never: str) -> None:
    """A refusal that a program can act on and that tells nothing."""
    assert answer.status_code < 500, answer.text
    for secret in (MARK, IP, "31255501", "Traceback", 'File "', "asyncpg", *never):
        assert secret not in answer.text, answer.text
    assert answer.headers["cache-control"] == "no-store"
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["instance"] == answer.headers["request-id"]
        assert all(problem[word] for word in ("type", "title", "detail", "code"))


# --- A: one field -----------------------------------------------------------------------------------------------------


def ago(**spans: float) -> str:
    return iso(clock.now() - timedelta(**spans))


BAD_FIELDS: tuple[tuple[str, str, object, str], ...] = (
    ("A10 a state", "status", "sold", "unknown_field"),
    ("A10 a price", "price", 0, "unknown_field"),
    ("E5 a business", "business_id", "biz_00000000000000000000000000", "unknown_field"),
    ("E5 a wallet", "wallet", {"available_minor": 1}, "unknown_field"),
    ("E5 a provider", "contact.provider_id", "prov_1", "unknown_field"),
    ("E5 a mode", "mode", "test", "unknown_field"),
    ("E5 a verdict", "bant.verdict", {"score": 100}, "unknown_field"),
    *(
        (f"A11 NUL in {path}", path, f"{MARK}\x00", "character_not_allowed")
        for path in (
            "contact.full_name",
            "contact.email",
            "contact.street",
            "bant.need.summary",
            "consent.text",
            "consent.user_agent",
            "attribution.campaign",
            "provider_reference",
        )
    ),
    ("A11 escape in a name", "contact.full_name", "Robin\x1b[2J", "character_not_allowed"),
    ("A11 half a surrogate pair", "contact.full_name", b'"Robin \\ud800"', "character_not_allowed"),
    ("A12 10^26", "bant.budget.minor", 10**26, "out_of_range"),
    ("A12 2^63", "bant.budget.minor", 2**63, "out_of_range"),
    ("A12 negative", "bant.budget.minor", -1, "out_of_range"),
    ("A12 more than a trillion", "bant.budget.minor", 10**12 + 1, "out_of_range"),
    ("A12 1e400", "bant.budget.minor", b"1e400", "out_of_range"),
    ("A12 NaN", "bant.budget.minor", b"NaN", "out_of_range"),
    ("A12 Infinity", "bant.budget.minor", b"-Infinity", "out_of_range"),
    ("A12 ten thousand digits", "bant.budget.minor", b"9" * 10_000, "out_of_range"),
    ("A12 a fraction", "bant.budget.minor", 1.5, "type_wrong"),
    ("A12 a truth", "bant.budget.minor", True, "type_wrong"),
    ("A12 a text", "bant.budget.minor", "1200000", "type_wrong"),
    ("A12 a range upside down", "bant.budget.maximum_minor", 1, "out_of_range"),
    ("A18 too short", "contact.phone", "+1 555 0100", "phone_invalid"),
    ("A18 zeros", "contact.phone", "0000000000", "phone_invalid"),
    ("A18 premium rate", "contact.phone", "+1 900 234 5678", "phone_type_not_accepted"),
    ("A18 letters", "contact.phone", "call me maybe", "phone_invalid"),
    ("A18 200 characters", "contact.phone", "1" * 200, "too_long"),
    ("A18 two lines", "contact.phone", "12\r\n34", "phone_invalid"),
    ("A18 nothing", "contact.phone", None, "field_missing"),
    ("A19 no dot", "contact.email", "a@b", "email_invalid"),
    ("A19 quoted local part", "contact.email", '"a b"@example.com', "email_invalid"),
    ("A19 markup", "contact.email", "<script>@x", "email_invalid"),
    ("A19 two lines", "contact.email", f"{MARK}@example.com\r\nBcc: all@example.com", "email_invalid"),
    ("A19 a trailing line end", "contact.email", f"{MARK}@example.com\n", "email_invalid"),
    ("A19 a list", "contact.email", f"{MARK}@example.com,b@example.com", "email_invalid"),
    ("A19 300 characters", "contact.email", f"{'a' * 290}@example.com", "too_long"),
    ("A20 over 100 characters", "contact.full_name", "R" * 101, "too_long"),
    ("A20 nothing to see", "contact.full_name", "\u202e\u200f \t", "name_empty"),
    ("A21 over 2,000 characters", "bant.need.summary", MARK + "x" * 2_000, "too_long"),
    ("A22 missing", "consent", None, "consent_missing"),
    ("A22 no text", "consent.text", " \n", "consent_text_empty"),
    ("A22 in the future", "consent.given_at", lambda: ago(hours=-1), "consent_in_future"),
    ("A22 after the submission", "consent.given_at", lambda: ago(seconds=1), "consent_after_submission"),
    ("A22 91 days old", "consent.given_at", lambda: ago(days=91), "consent_too_old"),
    ("A22 no page", "consent.page_url", None, "consent_page_missing"),
    ("A22 a page that is none", "consent.page_url", f"javascript:alert('{MARK}')", "consent_page_invalid"),
    ("A22 an address that is none", "consent.ip", f"{MARK}.1.1", "consent_ip_invalid"),
    ("A22 ended", "consent.expires_at", lambda: ago(seconds=1), "consent_expired"),
    ("A22 no place", "consent.jurisdiction", "Texas", "consent_jurisdiction_invalid"),
    ("A22 without an offset", "consent.given_at", "2026-11-21T10:00:00", "offset_missing"),
    ("submitted tomorrow", "submitted_at", lambda: ago(days=-1), "submitted_at_in_future"),
    ("submitted last year", "submitted_at", lambda: ago(days=365), "submitted_at_too_old"),
    ("an unknown vertical", "vertical", "alchemy", "vertical_unknown"),
    ("an unknown postal code", "contact.postal_code", "00000", "postal_code_unknown"),
    ("an unknown country", "contact.country", "ZZ", "value_not_allowed"),
    ("another currency", "bant.budget.currency", "EUR", "currency_not_accepted"),
    ("an unknown need", "bant.need.fields", {"roof_type": "tile", "colour": "red"}, "need_field_unknown"),
    ("a need without its answer", "bant.need.fields", {}, "need_field_missing"),
    ("a need of another kind", "bant.need.fields.roof_type", 7, "need_field_type"),
    ("an empty object for a text", "contact.full_name", {}, "type_wrong"),
    ("a list for an object", "contact", [], "type_wrong"),
)


@pytest.mark.parametrize(
    ("number", "path", "value", "code"),
    [pytest.param(number, *row[1:], id=row[0]) for number, row in enumerate(BAD_FIELDS)],
)
async def test_a_bad_field_is_refused_by_name_and_never_repeated(
    surface: Service, number: int, path: str, value: Any, code: str
) -> None:
    verbatim = value if isinstance(value, bytes) else None
    sent = "VERBATIM" if verbatim else value() if callable(value) else value
    raw = msgspec.json.encode(changed(inquiry(number), path, sent))
    answer = await surface.call("POST", PATH, raw.replace(b'"VERBATIM"', verbatim or b""))
    assert_clear(answer, *([sent] if isinstance(sent, str) and len(sent) > 5 else []))
    faults = {(fault["pointer"].removesuffix("/colour"), fault["code"]) for fault in answer.json()["errors"]}
    place = "/" + path.replace(".", "/")
    assert answer.status_code == 422
    assert (place, code) in faults or (f"{place}/roof_type", code) in faults, answer.text
    assert (
        await surface.market.value("select count(*) from inquiry where provider_reference = $1", f"ref-{number}") == 0
    )


TRUSTEDFORM = f"https://cert.trustedform.com/{'a' * 40}"
BAD_ENTRIES: tuple[tuple[str, str, list[str], int, str], ...] = (
    # number, field of the consent, entries, place of the first bad one, code
    ("A22 an unknown channel", "channels", ["call", MARK], 1, "consent_channel_unknown"),
    ("A22 an ambiguous channel", "channels", ["mail"], 0, "consent_channel_unknown"),
    ("A23 another host", "certificates", [TRUSTEDFORM.replace("cert", MARK)], 0, "consent_certificate_invalid"),
    ("A23 without TLS", "certificates", [TRUSTEDFORM.replace("https", "http")], 0, "consent_certificate_invalid"),
    ("A23 a LeadiD that is none", "certificates", [f"{MARK}-1"], 0, "consent_certificate_invalid"),
    ("A23 two of one service", "certificates", [TRUSTEDFORM, f"{TRUSTEDFORM[:-1]}b"], 1, "consent_certificate_invalid"),
)


@pytest.mark.parametrize(
    ("number", "field", "entries", "place", "code"),
    [pytest.param(900 + number, *row[1:], id=row[0]) for number, row in enumerate(BAD_ENTRIES)],
)
async def test_a_bad_entry_of_a_consent_is_refused_by_its_place_and_never_repeated(
    surface: Service, number: int, field: str, entries: list[str], place: int, code: str
) -> None:
    body = changed(inquiry(number), f"consent.{field}", entries)
    answer = await surface.call("POST", PATH, msgspec.json.encode(body))
    assert_clear(answer, MARK)
    assert answer.status_code == 422
    faults = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
    assert faults == [(f"/consent/{field}/{place}", code)]


# --- A: what only looks bad -------------------------------------------------------------------------------------------


def opened(field: str, expected: object) -> Callable[[Contact], bool]:
    return lambda contact: getattr(contact, field) == expected


GOOD_FIELDS: tuple[tuple[str, str, object, Callable[[Contact], bool]], ...] = (
    ("A18 Arabic digits", "contact.phone", "+١٣١٢٥٥٥٠١٠٠", opened("phone", "+13125550100")),
    ("A18 an extension", "contact.phone", "(312) 555-0101 ext. 7", opened("phone_extension", "7")),
    ("A19 an umlaut domain", "contact.email", "robin@exämple.com", opened("email", "robin@xn--exmple-cua.com")),
    ("A19 a homograph domain", "contact.email", "robin@ex\u0430mple.com", opened("email", "robin@xn--exmple-4nf.com")),
    ("A19 a disposable domain", "contact.email", "robin@mailinator.com", opened("email", "robin@mailinator.com")),
    ("A20 a turned name", "contact.full_name", "Robin \u202egnp.exe", opened("full_name", "Robin gnp.exe")),
    ("A20 zalgo", "contact.full_name", "R\u0335\u0321o\u0334b", opened("full_name", "R\u0335\u0321o\u0334b")),
    ("A20 emoji alone", "contact.full_name", "\U0001f600", opened("full_name", "\U0001f600")),
    ("A20 SQL", "contact.full_name", "'; drop table lead; --", opened("full_name", "'; drop table lead; --")),
    ("A20 a template", "contact.full_name", "{{7*7}}", opened("full_name", "{{7*7}}")),
    ("A20 a formula", "contact.full_name", '=HYPERLINK("x")', opened("full_name", '=HYPERLINK("x")')),
    ("A21 a card number", "bant.need.summary", "my card 4111 1111 1111 1111",
     lambda contact: contact.summary is not None and "4111" not in contact.summary and "my card" in contact.summary),
    ("A21 another's phone", "bant.need.summary", "ask Kim, +1 312 555 0188",
     opened("summary", "ask Kim, +1 312 555 0188")),
    ("line ends of a browser", "bant.need.summary", "a leak\r\nafter a storm\rand\tmore",
     opened("summary", "a leak\nafter a storm\nand\tmore")),
    ("line ends in the consent", "consent.text", "I agree.\r\nReally.",
     lambda contact: contact.consent.text == "I agree.\r\nReally."),
)  # fmt: skip


@pytest.mark.parametrize(
    ("number", "path", "value", "kept"),
    [pytest.param(number, *row[1:], id=row[0]) for number, row in enumerate(GOOD_FIELDS)],
)
async def test_what_only_looks_bad_is_accepted_as_data(
    surface: Service, number: int, path: str, value: str, kept: Callable[[Contact], bool]
) -> None:
    body = changed(inquiry(number, provider_reference=f"good-{number}"), path, value)
    answer = await surface.call("POST", PATH, body)
    assert answer.status_code == 202, answer.text
    assert_clear(answer, value)
    assert kept(await contact_of(surface, answer.json()["id"]))


async def contact_of(surface: Service, lead: str) -> Contact:
    """Return the sealed contact, opened with the master key."""
    lead_id = ids.decode("lead", lead)
    assert lead_id is not None
    row = await surface.market.row(
        "select c.sealed, k.wrapped, k.master_key_id from contact c join data_key k using (lead_id) where lead_id = $1",
        lead_id,
    )
    sealed = SealedContact(box=row["sealed"], wrapped=row["wrapped"], master_key_id=row["master_key_id"])
    return msgspec.json.decode(surface.market.sealer.open_contact(lead_id, sealed), type=Contact)


# --- A: the whole request ---------------------------------------------------------------------------------------------

GOOD = {"content-type": "application/json"}
UNREADABLE: tuple[tuple[str, bytes | None, dict[str, str], int, str], ...] = (
    ("A1 no key and no reference", None, {}, 400, "idempotency_key_missing"),
    ("A2 256 characters", None, {"idempotency-key": "k" * 256}, 400, "idempotency_key_invalid"),
    ("A2 nothing", None, {"idempotency-key": ""}, 400, "idempotency_key_invalid"),
    ("A2 a tab", None, {"idempotency-key": "a\tb"}, 400, "idempotency_key_invalid"),
    ("A7 objects 5,000 deep", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {}, 400, "json_too_deep"),
    ("A7 lists 5,000 deep", b"[" * 5_000, {}, 400, "json_too_deep"),
    ("A7 21 deep in metadata", b'{"metadata":' + b'{"a":' * 20 + b"1" + b"}" * 21, {}, 400, "json_too_deep"),
    ("no JSON", b"{", {}, 400, "json_invalid"),
    ("no body", b"", {}, 400, "json_invalid"),
    ("a byte order mark", b"\xef\xbb\xbf{}", {}, 400, "json_invalid"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), {}, 400, "json_invalid"),
    ("a list", b"[]", {}, 400, "body_not_object"),
    ("a thousand keys", b"{" + b",".join(b'"k%d":1' % n for n in range(1_000)) + b"}", {}, 400, "json_too_many_keys"),
    ("A14 gzip", b"\x1f\x8b", {"content-encoding": "gzip"}, 415, "content_encoding_not_supported"),
    ("A14 brotli", b"x", {"content-encoding": "br"}, 415, "content_encoding_not_supported"),
    ("A14 twice", b"x", {"content-encoding": "identity, gzip"}, 415, "content_encoding_not_supported"),
    ("a form", b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "media_type_not_supported"),
    ("text that is JSON", b"{}", {"content-type": "text/plain"}, 415, "media_type_not_supported"),
    ("A15 one byte too many", b'"' + b"x" * (BODY_LIMIT - 1) + b'"', {}, 413, "body_too_large"),
    ("A15 9 MB", b'{"contact":{"full_name":"' + b"x" * 9_000_000 + b'"}}', {}, 413, "body_too_large"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "headers", "status", "code"), [pytest.param(*row[1:], id=row[0]) for row in UNREADABLE]
)
async def test_a_request_that_cannot_be_read_is_told_why(
    surface: Service, raw: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    body = changed(inquiry(99), "provider_reference", None) if raw is None else raw
    for path in (PATH, f"{PATH}:validate") if raw is not None else (PATH,):
        answer = await surface.call("POST", path, body, headers=GOOD | headers)
        assert_clear(answer)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def head(surface: Service, *lines: str) -> bytes:
    """A POST that the caller ends as it likes."""
    authorised = f"Authorization: Bearer {surface.provider_key}"
    return "\r\n".join(
        [f"POST {PATH} HTTP/1.1", "Host: x", authorised, "Content-Type: application/json", *lines, ""]
    ).encode()


async def test_two_idempotency_keys_are_none(surface: Service) -> None:
    raw = msgspec.json.encode(inquiry(99))
    length = f"Content-Length: {len(raw)}"
    two = head(surface, "Idempotency-Key: a", "Idempotency-Key: a", length, "Connection: close")
    answer, _ = await surface.raw(two + b"\r\n" + raw)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"idempotency_key_invalid"' in answer


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(surface: Service) -> None:
    answer, closed = await surface.raw(head(surface, f"Content-Length: {BODY_LIMIT + 1}") + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"body_too_large"' in answer
    assert closed


async def test_a_body_without_an_announced_length_is_refused_at_the_limit_and_not_read_on(surface: Service) -> None:
    chunks = (b"1000\r\n" + b"x" * 4_096 + b"\r\n") * (BODY_LIMIT // 4_096)
    answer, closed = await surface.raw(head(surface, "Transfer-Encoding: chunked") + b"\r\n", chunks, b"1\r\nx\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert closed


async def test_a_body_of_the_very_limit_is_read(surface: Service) -> None:
    raw = msgspec.json.encode(inquiry(98))
    answer = await surface.call("POST", f"{PATH}:validate", raw + b" " * (BODY_LIMIT - len(raw)))
    assert answer.status_code == 200, answer.text


AMBIGUOUS: tuple[tuple[str, bytes], ...] = (
    ("length and chunks", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    ("a negative length", b"Content-Length: -1\r\n\r\n"),
    ("a folded header", b"X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ("a bare line feed", b"X-Bare: a\nContent-Length: 0\r\n\r\n"),
    ("a space before the colon", b"X-Space : a\r\nContent-Length: 0\r\n\r\n"),
    ("a NUL in a header", b"X-Nul: a\0b\r\nContent-Length: 0\r\n\r\n"),
)


@pytest.mark.parametrize("rest", [pytest.param(row[1], id=f"A16 {row[0]}") for row in AMBIGUOUS])
async def test_a_request_that_could_be_read_in_two_ways_is_refused_by_the_server_which_hangs_up(
    surface: Service, rest: bytes
) -> None:
    answer, closed = await surface.raw(head(surface) + rest)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert closed


@pytest.mark.parametrize(
    "rest", [b"X-Long: " + b"x" * 2_000_000, b"X-Many: x\r\n" * 200_000], ids=["A16 long", "A16 many"]
)
async def test_a_huge_head_is_refused_before_it_ends_and_the_server_hangs_up(surface: Service, rest: bytes) -> None:
    answer, closed = await surface.raw(head(surface, "Content-Length: 0") + rest)
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")
    assert closed


# --- A: the same again ------------------------------------------------------------------------------------------------


async def test_fifty_of_the_same_at_once_are_one_lead_and_one_answer(surface: Service) -> None:
    raw = msgspec.json.encode(changed(inquiry(90), "provider_reference", None))
    answers = await asyncio.gather(
        *(surface.call("POST", PATH, raw, headers={"idempotency-key": "fifty"}) for _ in range(50))
    )
    assert Counter(answer.status_code for answer in answers) == {202: 50}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {"true": 49, None: 1}
    assert await surface.market.value("select count(*) from inquiry where idempotency_key = 'fifty'") == 1


@pytest.mark.parametrize(("by", "code", "status"), [
    ("idempotency-key", "idempotency_key_reused", 422), ("provider_reference", "provider_reference_reused", 409),
])  # fmt: skip
async def test_another_body_under_a_used_name_is_refused_with_the_first_ones_time_and_nothing_of_its_content(
    surface: Service, by: str, code: str, status: int
) -> None:
    number, headers = (91, {"idempotency-key": "once"}) if by == "idempotency-key" else (92, {})
    reference = None if headers else "once"
    first = changed(inquiry(number), "provider_reference", reference)
    accepted = await surface.call("POST", PATH, first, headers=headers)
    assert accepted.status_code == 202
    refused = await surface.call("POST", PATH, changed(first, "contact.full_name", f"{MARK} Two"), headers=headers)
    assert_clear(refused)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert accepted.json()["received_at"][:10] in refused.json()["detail"]
    again = await surface.call("POST", PATH, first, headers=headers)
    assert (again.status_code, again.content) == (202, accepted.content)


async def test_a_key_and_a_reference_are_each_providers_own(surface: Service) -> None:
    other = await surface.market.another_provider()
    other_key = await surface.key(owner_id=other.owner)
    headers = {"idempotency-key": "mine"}
    first = await surface.call("POST", PATH, inquiry(93, provider_reference="mine"), headers=headers)
    second = await surface.call("POST", PATH, inquiry(94, provider_reference="mine"), headers=headers, key=other_key)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]


async def test_a_refused_body_may_be_mended_under_the_same_key(surface: Service) -> None:
    headers = {"idempotency-key": "mended"}
    refused = await surface.call("POST", PATH, changed(inquiry(95), "contact.phone", "1"), headers=headers)
    mended = await surface.call("POST", PATH, inquiry(95, provider_reference="mended"), headers=headers)
    assert (refused.status_code, mended.status_code) == (422, 202)


async def test_the_same_person_by_another_provider_is_a_duplicate_without_a_hint(surface: Service) -> None:
    other_key = await surface.key(owner_id=(await surface.market.another_provider()).owner)
    first = await surface.call("POST", PATH, inquiry(96, provider_reference="first"))
    second = await surface.call("POST", PATH, inquiry(96, provider_reference="second"), key=other_key)
    assert (first.status_code, second.status_code, second.json()["state"]) == (202, 200, "duplicate")
    assert_clear(second, first.json()["id"], first.json()["received_at"])
    answer_of_other = await surface.call("GET", f"{PATH}/{second.json()['id']}", key=other_key)
    assert_clear(answer_of_other, first.json()["id"])


async def test_a_person_who_asked_not_to_be_contacted_is_suppressed_and_stored_without_contact(
    surface: Service,
) -> None:
    body = inquiry(97, provider_reference="suppressed")
    suppression = {"phone": body["contact"]["phone"], "reason": "asked"}
    assert (await surface.call("POST", "/v1/suppressions", suppression)).status_code == 201
    answer = await surface.call("POST", PATH, body)
    assert_clear(answer)
    assert (answer.status_code, answer.json()["state"]) == (200, "suppressed")
    lead_id = ids.decode("lead", answer.json()["id"])
    assert await surface.market.value("select count(*) from contact where lead_id = $1", lead_id) == 0
    assert await surface.market.value("select count(*) from data_key where lead_id = $1", lead_id) == 0


# --- A30, A32: addresses and methods ----------------------------------------------------------------------------------

METHODS = (
    ("DELETE", PATH, {"GET", "POST"}),
    ("PUT", PATH, {"GET", "POST"}),
    ("TRACE", PATH, {"GET", "POST"}),
    ("TRACE", "/healthz", {"GET"}),
    ("PROPFIND", PATH, {"GET", "POST"}),
    ("HEAD", f"{PATH}:validate", {"POST"}),
    ("GET", f"{PATH}:validate", {"POST"}),
    ("POST", "/healthz", {"GET"}),
    ("POST", f"{PATH}/{UNKNOWN_LEAD}", {"GET", "PATCH"}),
    ("PATCH", f"{PATH}/{UNKNOWN_LEAD}/touches", {"POST"}),
    ("POST", "/docs/assets/swagger-ui.css", {"GET"}),
)


@pytest.mark.parametrize(("method", "path", "allowed"), METHODS)
async def test_a_wrong_method_is_answered_with_the_right_ones(
    surface: Service, method: str, path: str, allowed: set[str]
) -> None:
    answer = await surface.call(method, path)
    assert answer.status_code == 405, answer.text
    assert set(answer.headers["allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed
    if method != "HEAD":
        assert_clear(answer)
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", [PATH, "/healthz", "/v1/wallet", "/docs"])
async def test_no_foreign_page_is_granted_anything(surface: Service, path: str) -> None:
    foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for method in ("OPTIONS", "GET", "POST"):
        answer = await surface.call(method, path, headers=foreign, key="")
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.status_code < 500


async def test_an_inquiry_of_another_provider_looks_exactly_like_none(surface: Service) -> None:
    mine = await surface.call("POST", PATH, inquiry(89, provider_reference="mine alone"))
    other_key = await surface.key(owner_id=(await surface.market.another_provider()).owner)
    test_key = await surface.key(mode="test")
    touches = {"touches": [{"kind": "reply", "at": ago(seconds=1)}]}
    for lead in (mine.json()["id"], UNKNOWN_LEAD, "lead_1", UNKNOWN_LEAD.replace("lead", "asg"), "..%2f..", "%00"):
        for key in (other_key, test_key):
            lead_answer = await surface.call("GET", f"{PATH}/{lead}", key=key)
            touched = await surface.call("POST", f"{PATH}/{lead}/touches", touches, key=key)
            traced = await surface.call("GET", f"/v1/leads/{lead}/trace", key=key)
            assert [reply.status_code for reply in (lead_answer, touched, traced)] == [404, 404, 404], lead
            assert all(reply.json()["code"] == "not_found" for reply in (lead_answer, touched, traced))
    theirs, nobodys = [
        (await surface.call("GET", f"{PATH}/{lead}", key=other_key)).json() | {"instance": ""}
        for lead in (mine.json()["id"], UNKNOWN_LEAD)
    ]
    assert theirs == nobodys


@pytest.mark.parametrize("path", ["/v2/inquiries", "/v1", "/.env", "/v1/inquiries/a/b/c", "/docs/assets/../app.py"])
async def test_an_address_with_nothing_behind_it_says_so(surface: Service, path: str) -> None:
    answer = await surface.call("GET", path)
    assert_clear(answer)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# --- C: where webhooks may go -----------------------------------------------------------------------------------------

URLS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("C1", "url_scheme", ("http://hooks.example.com/", "ftp://example.com/", "file:///etc/passwd",
                          "gopher://example.com/", "javascript:alert(1)", "//example.com/")),
    ("C2", "url_address_not_public", ("https://127.0.0.1/", "https://2130706433/", "https://0x7f000001/",
                                      "https://017700000001/", "https://127.1/", "https://①②⑦.⓪.⓪.①/",
                                      "https://0/", "https://10.1.2.3/", "https://169.254.169.254/latest/meta-data/")),
    ("C3", "url_address_not_public", (*(f"https://[{address}]/" for address in (
        "::1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "3fff::1",
        "5f00::1", "ff02::1", "fe80::1", "fd00::1", "::")), "https://192.88.99.1/", "https://168.63.129.16/",
                                                              "https://224.0.0.1/", "https://255.255.255.255/")),
    ("C7", "url_loops_to_service", ("https://leads.example.org/v1/inquiries", "https://LEADS.example.org./x")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "url"), [pytest.param(code, url, id=f"{case} {url}") for case, code, urls in URLS for url in urls]
)
async def test_a_url_that_no_webhook_may_use_is_refused_when_it_is_saved(surface: Service, code: str, url: str) -> None:
    owner = await surface.key(
        CallerKind.business, (await surface.market.buyer("https://hooks.example.com/")).business_id
    )
    answer = await surface.call("POST", "/v1/endpoints", {"url": url}, key=owner)
    assert_clear(answer)
    assert (answer.status_code, [fault["code"] for fault in answer.json()["errors"]]) == (422, [code])


PROVEN = "update endpoint set verified_at = now() where id = $1 returning id"


async def test_a_new_endpoint_is_unverified_shows_its_secret_once_and_is_nobody_elses(surface: Service) -> None:
    keys = [
        await surface.key(CallerKind.business, (await surface.market.buyer("https://hooks.example.com/")).business_id)
        for _ in range(2)
    ]
    form = {"url": "https://door.example.com/leads"}
    made = await surface.call("POST", "/v1/endpoints", form, key=keys[0])
    endpoint, secret = made.json()["id"], made.json()["secret"]
    assert (made.status_code, made.json()["state"]) == (201, "unverified")
    unproven = await surface.call("POST", "/v1/endpoints", form, key=keys[1])
    assert_clear(unproven, endpoint, secret)
    assert (unproven.status_code, unproven.json()["state"]) == (201, "unverified")
    switched = await surface.call("PATCH", f"/v1/endpoints/{endpoint}", {"state": "active"}, key=keys[0])
    assert switched.status_code == 409
    await surface.market.value(PROVEN, ids.decode("whe", endpoint))
    shared = await surface.call("POST", "/v1/endpoints", form, key=keys[1])
    assert_clear(shared, endpoint, secret)
    assert (shared.status_code, shared.json()["code"]) == (409, "endpoint_shared")
    read = await surface.call("GET", f"/v1/endpoints/{endpoint}", key=keys[1])
    assert read.status_code == 404
    operator = await surface.key(CallerKind.operator)
    for key in (keys[0], operator):
        for path in ("/v1/endpoints", f"/v1/endpoints/{endpoint}"):
            assert secret not in (await surface.call("GET", path, key=key)).text
    rotated = await surface.call("POST", f"/v1/endpoints/{endpoint}/rotate-secret", key=keys[0])
    assert rotated.json()["secret"] != secret


# --- E: keys, scopes, pages -------------------------------------------------------------------------------------------


async def test_a_key_that_is_no_longer_good_says_why_and_one_that_never_was_says_nothing(surface: Service) -> None:
    operator, revoked = await surface.key(CallerKind.operator), await surface.key()
    expired = await surface.key(expires_at=clock.now() + timedelta(microseconds=1))
    await surface.call("DELETE", f"/v1/keys/{key_id(revoked)}", key=operator)
    own_key, other = await surface.key(), await surface.key()
    parts, other_parts = own_key.split("_"), other.split("_")
    forged = "_".join(["lk", "live", parts[2], other_parts[3], parts[4]])
    rows = [
        (revoked, "key_revoked"), (expired, "key_expired"), ("", "not_authenticated"), ("x", "not_authenticated"),
        (forged, "not_authenticated"), (own_key[:-1], "not_authenticated"),
        (own_key.replace("live", "test"), "not_authenticated"),
    ]  # fmt: skip
    for key, code in rows:
        answer = await surface.call("GET", PATH, key=key)
        assert_clear(answer, *([key] if key and key != "x" else []))
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "authorization", ["Basic bGs6eA==", "Bearer", "Bearer " + "x" * 20_000, "Bearer lk_live_é_é_é", "Bearer lk____"]
)
async def test_a_malformed_authorization_is_no_key(surface: Service, authorization: str) -> None:
    answer = await surface.call("GET", PATH, key="", headers={"authorization": authorization})
    assert_clear(answer)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


async def test_a_test_key_changes_nothing_that_is_live(surface: Service) -> None:
    operator = await surface.key(CallerKind.operator, mode="test")
    provider_form = {"name": "Example Leads", "payout": {"type": "share", "basis_points": 1}}
    answer = await surface.call("POST", "/v1/providers", provider_form, key=operator)
    assert_clear(answer)
    assert (answer.status_code, answer.json()["code"]) == (403, "key_wrong_mode")


@pytest.mark.parametrize(
    ("kind", "path", "scope"),
    [
        (CallerKind.provider, "/v1/wallet", "wallet:read"),
        (CallerKind.provider, "/v1/subscriptions", "subscriptions:write"),
        (CallerKind.provider, "/v1/providers", "operate"),
        (CallerKind.business, PATH, "leads:write"),
        (CallerKind.business, "/v1/keys", "operate"),
        (CallerKind.operator, PATH, "leads:write"),
    ],
)
async def test_a_key_of_another_kind_is_told_the_scope_that_it_lacks(
    surface: Service, kind: CallerKind, path: str, scope: str
) -> None:
    owner = (
        (await surface.market.buyer("https://hooks.example.com/")).business_id if kind is CallerKind.business else None
    )
    answer = await surface.call("GET", path, key=await surface.key(kind, owner))
    assert_clear(answer)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert scope in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "code"),
    [(f"limit={limit}", "limit_max_200") for limit in ("1000000000", "201", "0", "-1", "1e2", "", "٣", "9" * 5_000)]
    + [(f"cursor={cursor}", "cursor_invalid") for cursor in ("", "1", "lead_1", "' or 1=1 --", UNKNOWN_LEAD + "0")]
    + [(f"{name}=%00", "character_not_allowed") for name in ("cursor", "limit", "other")],
)
async def test_a_page_beyond_the_limits_is_refused(surface: Service, query: str, code: str) -> None:
    answer = await surface.call("GET", f"{PATH}?{query}")
    assert_clear(answer)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


async def test_nobody_sorts_or_filters_by_what_the_page_does_not_offer(surface: Service) -> None:
    plain = await surface.call("GET", f"{PATH}?limit=5")
    odd = await surface.call("GET", f"{PATH}?limit=5&offset=-1&sort=secret_hmac&filter=(a%2B)%2B$&state[$ne]=x")
    assert odd.status_code == 200
    assert [row["id"] for row in odd.json()["data"]] == [row["id"] for row in plain.json()["data"]]


# --- H: returns -------------------------------------------------------------------------------------------------------


async def sold_again(market: Marketplace, number: int) -> UUID:
    """Return an address without history, so that the rows of this table may run in any order."""
    contact = roofing_body(number)["contact"]
    contact |= {"phone": f"+1 415 555 01{number}", "email": f"returned.{number}@example.com"}
    return await market.sold(number, contact=contact, provider_reference=f"returned-{number}")


async def test_a_return_that_cannot_be_is_refused_for_its_reason_and_moves_no_money(surface: Service) -> None:
    market = surface.market
    async with Receiver(ok, ok, drop_after_read) as door:
        buyer = await market.buyer(door.url, anywhere(priority=0))
        twice, late, lapsed = [ids.encode("lead", await sold_again(market, number)) for number in (91, 92, 93)]
    owner = await surface.key(CallerKind.business, buyer.business_id)
    stranger = await surface.key(CallerKind.business, (await market.buyer("https://hooks.example.com/")).business_id)
    await market.owner.execute(
        "update assignment set settled_at = now() - interval '7 days 1 minute' where lead_id = $1",
        ids.decode("lead", late),
    )
    return_form = {"reason": "other", "note": f"It is {MARK}."}
    first = await surface.call("POST", f"/v1/leads/{twice}/return", return_form, key=owner)
    assert first.status_code == 201, first.text
    before = await market.wallet(buyer)
    rows = (
        ("H5 filed twice", twice, owner, 409, "already_returned"),
        ("H5 after the window", late, owner, 409, "return_window_closed"),
        ("H5 never charged", lapsed, owner, 409, "nothing_charged"),
        ("H5 by another tenant", twice, stranger, 404, "not_found"),
        ("H5 of nothing", UNKNOWN_LEAD, owner, 404, "not_found"),
        ("H5 by a provider", twice, surface.provider_key, 403, "scope_missing"),
    )
    for case, lead, key, status, code in rows:
        answer = await surface.call("POST", f"/v1/leads/{lead}/return", return_form, key=key)
        assert_clear(answer)
        assert (answer.status_code, answer.json()["code"]) == (status, code), case
    assert await market.wallet(buyer) == before
