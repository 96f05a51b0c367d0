"""Posting reference of one vertical for people and machines: fields, samples, answers, and what changed when.

Everything comes from the vertical's own definition and from the Structs that intake reads by, so that the reference
says what intake does.
"""

import copy
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from marketplace.directory.spec import EXAMPLE_CERTIFICATE, posting_spec
from marketplace.intake.http import SUBMISSIONS_PATH, SubmissionAccepted
from marketplace.intake.shapes import InquiryBody
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.text.faults import Fault
from marketplace.web.problems import describe
from routing.certificate import CERTIFICATES_IN_WORDS
from routing.consent import CHANNELS_IN_WORDS
from routing.currency import minor_digits
from routing.inquiry import EvidenceKind, NeedField
from routing.joining import PAY_IN_WORDS
from routing.lifecycle import LeadState
from routing.person import PERSON_IN_WORDS
from routing.qualification import Dimension, DimensionPolicy, ResultConsequence, evidence_in_words
from routing.vertical import VerticalDefinition

AREA_CODES: Final = (201, 202, 212, 213, 303, 305, 312, 313, 404, 412, 415, 503, 512, 602, 612, 617, 702, 713, 773, 816)
"Area codes of large cities. In each, the numbers 555-0100 to 555-0199 are reserved for examples."
FAULTY_PHONE: Final = "123"
EXAMPLE_ID: Final = "lead_01jd2x5y6z7a8b9c0d1e2f3g4h"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One field: its path, type, example, allowed values and use, and the code of its refusal."""

    field: str
    type: str
    required: bool
    example: str
    allowed: str
    feeds: str
    refused: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to expect: its status code, its body, and the next step."""

    title: str
    status: str
    body: str
    then: str


class PastVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical, in force since `made_at`."""

    version: int
    definition: VerticalDefinition
    made_at: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Changes for providers in one version of a vertical, compared with the version before."""

    version: int
    made_at: datetime
    lines: tuple[str, ...]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A request to copy, in one language."""

    language: str
    code: str


def pretty(value: Any) -> str:
    """Return indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


# Fields


def rows(vertical: Vertical) -> tuple[Row, ...]:
    """Return every field that a provider may send, in the order of the body."""
    definition = vertical.definition
    return tuple((*_about(vertical), *_contact(definition), *_bant(definition), *_consent(definition), *_rest()))


def _row(field: str, kind: str, required: bool, example: str, feeds: str, refused: str = "", allowed: str = "") -> Row:
    return Row(
        field=field, type=kind, required=required, example=example, allowed=allowed, feeds=feeds, refused=refused
    )


def _about(vertical: Vertical) -> Iterator[Row]:
    yield _row("vertical", "text", True, vertical.slug, "Which service", "vertical_unknown", vertical.slug)
    yield _row(
        "provider_reference",
        "text",
        False,
        "abc-1",
        "Your own id: repeats get the same answer",
        "409 when it came before with another body",
        "1 to 255 characters; required without an Idempotency-Key",
    )
    yield _row(
        "submitted_at",
        "time",
        False,
        "2026-11-21T10:00:00Z",
        "Your speed",
        "submitted_at_too_old",
        "with its offset, at most 90 days ago",
    )


def _contact(definition: VerticalDefinition) -> Iterator[Row]:
    yield _row("contact.full_name", "text", True, "Alex Example", "Contact", "name_empty", "up to 100 characters")
    yield _row(
        "contact.phone",
        "text",
        definition.requires_phone,
        "+13125550142",
        "Contact; who is a duplicate",
        "phone_invalid",
        "international form",
    )
    yield _row(
        "contact.email",
        "text",
        definition.requires_email,
        "alex@example.com",
        "Contact; who is a duplicate",
        "email_invalid",
    )
    yield _row("contact.postal_code", "text", definition.requires_postal_code, "60614", "Area", "postal_code_unknown")
    yield _row("contact.country", "text", False, "US", "Area", "value_not_allowed", "two letters, US if left out")
    yield _row("contact.street", "text", False, "1 Example Street", "Contact")
    yield _row("contact.role", "text", False, "head of purchasing", "What businesses filter by")
    yield _row(
        "contact.company_size", "whole number", False, "12", "What businesses filter by", "out_of_range", "from 1"
    )


def _bant(definition: VerticalDefinition) -> Iterator[Row]:
    points, currency = _points(definition), definition.currency
    units = f"minor units: {10 ** minor_digits(currency):,} make 1 {currency}"
    yield _row(
        "bant.budget.minor",
        "whole number",
        False,
        str(max(definition.budget.minimum_minor, 1)),
        f"Budget, {points['budget']}",
        "out_of_range",
        units,
    )
    yield _row("bant.budget.maximum_minor", "whole number", False, "", "Budget: the top of a range")
    yield _row("bant.budget.currency", "text", False, currency, "Budget", "currency_not_accepted", currency)
    yield _row(
        "bant.authority",
        "choice",
        False,
        "decision_maker",
        f"Authority, {points['authority']}",
        "value_not_allowed",
        "decision_maker, influencer, researcher",
    )
    yield _row(
        "bant.timing.within_days",
        "whole number",
        False,
        str(definition.timing.within_days),
        f"Timing, {points['timing']}",
        "timing_ambiguous",
        "days from submitting; or not_before",
    )
    yield _row(
        "bant.timing.not_before",
        "date",
        False,
        "2027-03-01",
        "Timing: nurtured until it is near enough",
        "timing_ambiguous",
    )
    yield _row("bant.need.summary", "text", False, "Leak after the storm", "Need: what the business reads")
    for name, need in definition.needs.items():
        yield _need(name, need, points["need"])
    yield _row(
        "bant.evidence",
        "object",
        False,
        '{"budget": "verified"}',
        "How each point is known",
        "value_not_allowed",
        "stated, inferred, verified",
    )


def _need(name: str, need: NeedField, points: str) -> Row:
    kinds = {"choice": "choice", "integer": "whole number", "boolean": "true or false"}
    feeds = f"Need, {points}" + (f": {need.label}" if need.label else "")
    refused = "need_field_missing" if need.required else "need_field_type"
    return _row(
        f"bant.need.fields.{name}", kinds[need.kind], need.required, _example(need), feeds, refused, allowed_of(need)
    )


def allowed_of(need: NeedField) -> str:
    """Return the allowed values of a question in words, empty if every value is allowed."""
    if need.kind == "choice":
        return ", ".join(need.choices)
    low, high = need.minimum, need.maximum
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    return f"from {low:,}" if low is not None else f"up to {high:,}" if high is not None else ""


def _example(need: NeedField) -> str:
    if need.kind == "choice":
        return need.choices[0] if need.choices else ""
    return "true" if need.kind == "boolean" else str(need.minimum if need.minimum is not None else 1)


def _points(definition: VerticalDefinition) -> dict[str, str]:
    """Return the most points that each dimension adds to the score, and the evidence it takes unless any will do."""
    policy = definition.policy(0)
    texts = {}
    for dimension, rule in zip(Dimension, policy.rules, strict=True):
        texts[dimension.value] = f"up to {policy.scale(rule.points.meets)} points"
        if rule.least_evidence is not EvidenceKind.inferred:
            texts[dimension.value] += f" if {evidence_in_words(rule.least_evidence)}"
    return texts


def _consent(definition: VerticalDefinition) -> Iterator[Row]:
    yield _row(
        "consent.text",
        "text",
        True,
        "I agree to be contacted about my request.",
        "Proof of consent",
        "consent_text_empty",
        "the words exactly as shown",
    )
    yield _row("consent.given_at", "time", True, "2026-11-21T09:59:00Z", "Proof of consent", "consent_too_old")
    yield _row(
        "consent.page_url", "text", True, "https://www.example.com/quote", "Proof of consent", "consent_page_invalid"
    )
    yield _row("consent.ip", "text", False, "203.0.113.7", "Proof of consent", "consent_ip_invalid")
    yield _row(
        "consent.sellers",
        "list of texts",
        False,
        '["Example Roofs LLC"]',
        "Only a business that is named here may get the lead",
        "",
        "the businesses that the person agreed to hear from, as they were shown",
    )
    yield _row(
        "consent.channels",
        "list of texts",
        False,
        '["call", "text"]',
        "The ways in which the business may contact the person",
        "consent_channel_unknown",
        CHANNELS_IN_WORDS,
    )
    yield _row(
        "consent.certificates",
        "list of texts",
        definition.certificate.required,
        f'["{EXAMPLE_CERTIFICATE}"]',
        "Proof of consent, checked with its service before the lead is sold",
        "consent_certificate_invalid",
        CERTIFICATES_IN_WORDS,
    )
    yield _row(
        "consent.expires_at",
        "time",
        False,
        "2027-11-21T00:00:00Z",
        "The lead is sold before this time, or not at all",
        "consent_expired",
    )
    yield _row(
        "consent.jurisdiction",
        "text",
        False,
        "US-CA",
        "Businesses may require it",
        "consent_jurisdiction_invalid",
        "a country, or a part of it, in ISO 3166",
    )


def _rest() -> Iterator[Row]:
    yield _row("attribution.source", "text", False, "google", "Your reports; businesses may exclude a source")
    yield _row("attribution.form", "text", False, "quote-1", "Your reports")
    yield _row("attribution.campaign", "text", False, "autumn", "Your reports")
    yield _row(
        "attribution.sub_ids",
        "object",
        False,
        '{"publisher": "77"}',
        "Your reports, sub-id by sub-id",
        "",
        "up to 20 names",
    )
    yield _row(
        "touches[]",
        "list",
        False,
        '{"kind": "page_view", "at": "2026-11-21T09:58:00Z"}',
        "The person's way here, shipped as evidence",
        "touch_in_future",
        "up to 50",
    )
    yield _row("metadata", "object", False, '{"ticket": "9"}', "Given to the business as it is", "", "up to 20 names")


# Examples and answers


def example(vertical: Vertical, now: datetime) -> dict[str, Any]:
    """Return a body that passes every check, of an invented person who has most likely not been sent before."""
    body = copy.deepcopy(posting_spec(vertical, now.replace(microsecond=0)).example)
    number = int.from_bytes(clock.random_bytes(4))
    area, line = AREA_CODES[number % len(AREA_CODES)], 100 + number // len(AREA_CODES) % 100
    body["provider_reference"] = f"console-{number:08x}"
    body["contact"]["phone"] = f"+1{area}5550{line}"
    body["contact"]["email"] = f"alex.{number:08x}@example.com"
    return body


def faulty(vertical: Vertical, now: datetime) -> dict[str, Any]:
    """Return an example with an invalid telephone number."""
    body = example(vertical, now)
    body["contact"]["phone"] = FAULTY_PHONE
    return body


def early(vertical: Vertical, now: datetime) -> dict[str, Any]:
    """Return an example of a person with a later start: its lead is nurtured until then."""
    body = example(vertical, now)
    timing = vertical.definition.timing
    days = timing.within_days + max(1, timing.nurture_limit_days // 2)
    body["bant"]["timing"] = {"not_before": (now + timedelta(days=days)).date()}
    return body


def samples(body: dict[str, Any], url: str, key: str = "lk_test_\u2026") -> tuple[Sample, ...]:
    """Return the request in four languages, to be sent from a server, because a page would reveal the key."""
    text, address = pretty(body), f"{url}{SUBMISSIONS_PATH}"
    quoted = text.replace("'", "'\\''")
    return (
        Sample(language="curl", code=(
            f"curl {address} \\\n  -H 'Authorization: Bearer {key}' \\\n  -H 'Content-Type: application/json' \\\n"
            f"  --data-binary @- <<'JSON'\n{text}\nJSON"
        )),
        Sample(language="Python", code=(
            'import json, urllib.request\n\n'
            f"body = json.loads('''{text}''')\n"
            f'request = urllib.request.Request(\n    "{address}",\n    data=json.dumps(body).encode(),\n'
            f'    headers={{"Authorization": "Bearer {key}", "Content-Type": "application/json"}},\n)\n'
            "with urllib.request.urlopen(request, timeout=10) as answer:\n"
            "    print(answer.status, answer.read().decode())"
        )),
        Sample(language="PHP", code=(
            f"<?php\n$body = '{quoted}';\n$curl = curl_init('{address}');\ncurl_setopt_array($curl, [\n"
            "    CURLOPT_POST => true,\n    CURLOPT_POSTFIELDS => $body,\n    CURLOPT_RETURNTRANSFER => true,\n"
            f"    CURLOPT_TIMEOUT => 10,\n    CURLOPT_HTTPHEADER => ['Authorization: Bearer {key}', "
            "'Content-Type: application/json'],\n]);\necho curl_exec($curl), curl_getinfo($curl, CURLINFO_HTTP_CODE);"
        )),
        Sample(language="JavaScript", code=(
            f"// On your server, never in a page: anyone who sees the key can use it.\nconst body = {text};\n"
            f'const answer = await fetch("{address}", {{\n  method: "POST",\n'
            f'  headers: {{ "Authorization": "Bearer {key}", "Content-Type": "application/json" }},\n'
            "  body: JSON.stringify(body),\n});\nconsole.log(answer.status, await answer.json());"
        )),
    )  # fmt: skip


def answers(now: datetime) -> tuple[Answer, ...]:
    """Return the answers to expect, with the bodies that intake sends."""
    fault = Fault(
        pointer="/contact/phone",
        code="phone_invalid",
        detail="Send a phone number that exists, in international form such as +1 202 555 0143.",
    )
    request = ids.encode("req", clock.new_id())
    refused = pretty(describe(errors.InvalidInput((fault,)), request))
    another = "This provider_reference came with another body. Use a new one."
    reused = describe(errors.ProviderReferenceReused(another), request)
    limited = describe(errors.RateLimited("Wait for 12 seconds.", 12), request)
    away = describe(errors.Unavailable("away"), request)
    return (
        Answer(title="Accepted", status="202", body=pretty(_first(LeadState.received, now)),
               then="On disk. Ask for its state later, or send Prefer: wait=2 to be told the outcome at once."),
        Answer(title="Duplicate", status="200", body=pretty(_first(LeadState.duplicate, now)),
               then="The same person was here before in this service. Nothing to mend, nothing to send again."),
        Answer(title="Refused", status=f"{describe(errors.InvalidInput((fault,)), request).status}", body=refused,
               then="Every fault at once, each with where, what and how. Mend them and send it again."),
        Answer(title="Reference used before", status=str(reused.status), body=pretty(reused),
               then="Another inquiry came under this reference. Use a new one for a new inquiry."),
        Answer(title="Too many", status=str(limited.status), body=pretty(limited),
               then="Wait for the seconds in Retry-After, then send the same body again."),
        Answer(title="Away", status=str(away.status), body=pretty(away),
               then="Send the same body with the same reference after 1, 2, 4, 8 \u2026 seconds: it is taken once."),
    )  # fmt: skip


def _first(state: LeadState, now: datetime) -> SubmissionAccepted:
    links = {"self": f"{SUBMISSIONS_PATH}/{EXAMPLE_ID}", "trace": f"/v1/leads/{EXAMPLE_ID}/trace"}
    return SubmissionAccepted(
        id=EXAMPLE_ID, state=state, mode="test", received_at=now.replace(microsecond=0), links=links
    )


# JSON Schema and change log


def schema(vertical: Vertical) -> dict[str, Any]:
    """Return the JSON Schema of the body, narrowed to the questions of this vertical."""
    whole = msgspec.json.schema(InquiryBody)
    parts = whole["$defs"]
    definition = vertical.definition
    body, contact, need = parts["InquiryBody"], parts["ContactBody"], parts["NeedBody"]
    body["properties"]["vertical"] = {"const": vertical.slug}
    body["required"] = sorted({*body["required"], "consent"})
    required = posting_spec(vertical, clock.now()).required_contact
    contact["required"] = sorted({*contact["required"], *required})
    need["properties"]["fields"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _need_schema(field) for name, field in definition.needs.items()},
        "required": [name for name, field in definition.needs.items() if field.required],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": definition.name, **whole}


def _need_schema(need: NeedField) -> dict[str, Any]:
    if need.kind == "choice":
        return {"enum": list(need.choices)}
    if need.kind == "boolean":
        return {"type": "boolean"}
    bounds = {"minimum": need.minimum, "maximum": need.maximum}
    return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}


def changes(versions: Sequence[PastVersion]) -> tuple[Change, ...]:
    """Return the changes of each version, newest first, without versions that change nothing for providers."""
    changed = []
    for place, newer in enumerate(versions):
        older = versions[place + 1] if place + 1 < len(versions) else None
        lines = tuple(_differences(newer.definition, older.definition)) if older else ("First version.",)
        if lines and (older is not None or newer.version == 1):
            changed.append(Change(version=newer.version, made_at=newer.made_at, lines=lines))
    return tuple(changed)


def _differences(new: VerticalDefinition, old: VerticalDefinition) -> Iterator[str]:
    for name in ("phone", "email", "postal_code"):
        before, after = getattr(old, f"requires_{name}"), getattr(new, f"requires_{name}")
        if before != after:
            yield f"contact.{name} is {'required now' if after else 'no longer required'}."
    for name in sorted(new.needs.keys() | old.needs.keys()):
        yield from _difference(name, new.needs.get(name), old.needs.get(name))
    if new.budget.minimum_minor != old.budget.minimum_minor:
        yield "The minimum budget has changed."
    if new.timing.within_days != old.timing.within_days:
        yield f"Ready means within {new.timing.within_days} days now, {old.timing.within_days} before."
    for name in Dimension:
        yield from _rule_difference(name, getattr(new, name), getattr(old, name))
    if new.window_days != old.window_days:
        yield f"The same person counts as a duplicate for {new.window_days} days now, {old.window_days} before."
    if new.same_person is not old.same_person:
        yield f"Two inquiries are one person's if {PERSON_IN_WORDS[new.same_person]}."
    if new.pay_joined is not old.pay_joined:
        where = PAY_IN_WORDS[new.pay_joined]
        yield f"The payout of a lead that other inquiries joined before its delivery goes {where}."


def _rule_difference(name: str, new: DimensionPolicy, old: DimensionPolicy) -> Iterator[str]:
    if new.least_evidence is not old.least_evidence:
        yield f"bant.{name} counts if {evidence_in_words(new.least_evidence)}."
    if new.unknown_consequence is not old.unknown_consequence:
        rejected = new.unknown_consequence is ResultConsequence.reject
        yield f"A lead without bant.{name} is {'rejected now' if rejected else 'no longer rejected for that'}."


def _difference(name: str, new: NeedField | None, old: NeedField | None) -> Iterator[str]:
    field = f"bant.need.fields.{name}"
    if new is None:
        yield f"{field} was taken out: leave it out."
    elif old is None:
        yield f"{field} is new{', and required' if new.required else ''}."
    else:
        if new.required != old.required:
            yield f"{field} is {'required now' if new.required else 'no longer required'}."
        if allowed_of(new) != allowed_of(old) or new.kind != old.kind:
            yield f"{field} takes other values now: {allowed_of(new) or new.kind}."
