"""Bodies that must be refused, each with its pointer and its code, and never with a 5xx."""

from typing import Any

import msgspec
import pytest

from marketplace.directory.checks import vertical_faults
from marketplace.directory.wire import closed
from routing.inquiry import NeedField
from routing.interest import InterestCriterion, UnmetConsequence
from routing.joining import PayJoined, RepeatInquiries
from routing.qualification import AuthorityPolicy, BudgetPolicy, NeedPolicy, Points
from routing.subscription import PriceRange
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, points
from tests.builders.marketplaces import roofing
from tests.builders.service import Served

BUSINESS = {"name": "Example", "zone": "UTC", "currency": "USD"}
PROVIDER = {"name": "Example", "payout": {"type": "fixed", "minor": 5}}
KEY = {"kind": "operator", "mode": "live", "name": "x"}
NOBODY = "prov_00000000000000000000000000"


FIELDS: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("/v1/businesses", BUSINESS | {"state": "active"}, "/state", "unknown_field"),
    ("/v1/businesses", BUSINESS | {"name": ""}, "/name", "value_not_allowed"),
    ("/v1/businesses", BUSINESS | {"name": " \t"}, "/name", "value_not_allowed"),
    ("/v1/businesses", BUSINESS | {"name": "\u3164"}, "/name", "value_not_allowed"),
    ("/v1/providers", PROVIDER | {"name": "\u200b\u00a0\u2800"}, "/name", "value_not_allowed"),
    ("/v1/keys", KEY | {"name": "\u0301\u0301"}, "/name", "value_not_allowed"),
    ("/v1/suppressions", {"phone": "+13125550100", "reason": "\ufe0f\u00ad"}, "/reason", "value_not_allowed"),
    ("/v1/businesses", BUSINESS | {"name": "x" * 101}, "/name", "too_long"),
    ("/v1/businesses", BUSINESS | {"name": "a\u0000b"}, "/name", "character_not_allowed"),
    ("/v1/businesses", BUSINESS | {"zone": "Chicago"}, "/zone", "zone_unknown"),
    ("/v1/businesses", BUSINESS | {"zone": "../../etc/passwd"}, "/zone", "zone_unknown"),
    ("/v1/businesses", BUSINESS | {"currency": "usd"}, "/currency", "value_not_allowed"),
    ("/v1/businesses", BUSINESS | {"credit_limit_minor": -1}, "/credit_limit_minor", "out_of_range"),
    ("/v1/businesses", BUSINESS | {"credit_limit_minor": 10**26}, "/credit_limit_minor", "out_of_range"),
    ("/v1/businesses", BUSINESS | {"credit_limit_minor": True}, "/credit_limit_minor", "type_wrong"),
    ("/v1/providers", {"name": "x"}, "/payout", "field_missing"),
    ("/v1/providers", PROVIDER | {"payout": {"type": "tip"}}, "/payout/type", "value_not_allowed"),
    ("/v1/providers", PROVIDER | {"payout": {"type": "fixed", "minor": -1}}, "/payout/minor", "out_of_range"),
    (
        "/v1/providers",
        PROVIDER | {"payout": {"type": "share", "basis_points": 10_001}},
        "/payout/basis_points",
        "out_of_range",
    ),
    (
        "/v1/providers",
        PROVIDER | {"payout": {"type": "fixed", "minor": 1, "basis_points": 1}},
        "/payout/basis_points",
        "unknown_field",
    ),
    ("/v1/keys", KEY | {"kind": "admin"}, "/kind", "value_not_allowed"),
    ("/v1/keys", KEY | {"mode": "prod"}, "/mode", "value_not_allowed"),
    ("/v1/keys", KEY | {"owner_id": NOBODY}, "/owner_id", "value_not_allowed"),
    ("/v1/keys", KEY | {"kind": "provider"}, "/owner_id", "field_missing"),
    ("/v1/keys", KEY | {"kind": "provider", "owner_id": NOBODY}, "/owner_id", "owner_unknown"),
    ("/v1/keys", KEY | {"kind": "business", "owner_id": NOBODY}, "/owner_id", "owner_unknown"),
    ("/v1/keys", KEY | {"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
    ("/v1/keys", KEY | {"expires_at": "2036-01-01T00:00:00"}, "/expires_at", "offset_missing"),
    ("/v1/keys", {"mode": "live", "name": "x"}, "/kind", "field_missing"),
    ("/v1/endpoints", {"kind": "pusk"}, "/kind", "value_not_allowed"),
    ("/v1/endpoints", {"url": "https://hooks.example.com/", "reason": "\u3164"}, "/reason", "value_not_allowed"),
    ("/v1/keys", KEY | {"reason": " "}, "/reason", "value_not_allowed"),
    ("/v1/suppressions", {"reason": "asked"}, "", "field_missing"),
    ("/v1/suppressions", {"reason": "asked", "phone": "12"}, "/phone", "phone_invalid"),
    ("/v1/suppressions", {"reason": "asked", "email": "a@b"}, "/email", "email_invalid"),
    ("/v1/verticals", {"slug": "Roof ing", "definition": roofing()}, "/slug", "value_not_allowed"),
)


async def test_a_bad_field_is_named_with_its_code(api: Served) -> None:
    for path, body, pointer, code in FIELDS:
        refused = await api.call("POST", path, body)
        faults = [(fault["pointer"], fault["code"]) for fault in refused.json().get("errors", ())]
        assert (refused.status_code, faults) == (422, [(pointer, code)]), refused.text


BODIES: tuple[tuple[bytes, int, str], ...] = (
    (b"", 400, "json_invalid"),
    (b"[]", 400, "body_not_object"),
    (b"{", 400, "json_invalid"),
    (b"\xff\xfe{}", 400, "json_invalid"),
    (b"[" * 5_000, 400, "json_too_deep"),
    (b'{"name":"' + b"x" * 70_000 + b'"}', 413, "body_too_large"),
)


async def test_a_body_that_cannot_be_read_is_told_why(api: Served) -> None:
    for raw, status, code in BODIES:
        refused = await api.call("POST", "/v1/businesses", raw)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text


async def test_a_bad_page_is_refused(api: Served) -> None:
    for query in ("limit=0", "limit=201", "limit=x", "limit=1e2", "cursor=x", "cursor=biz_1"):
        for path in ("/v1/providers", "/v1/keys", "/v1/endpoints", "/v1/subscriptions", "/v1/verticals"):
            assert (await api.call("GET", f"{path}?{query}")).status_code == 422, f"{path}?{query}"


VERTICALS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"name": " "}, "/definition/name", "malformed"),
    ({"currency": "dollars"}, "/definition/currency", "currency_unknown"),
    ({"currency": "XTS"}, "/definition/currency", "currency_unknown"),
    ({"window_days": 0}, "/definition/window_days", "out_of_range"),
    ({"window_days": 366}, "/definition/window_days", "out_of_range"),
    ({"patience_seconds": 3_601}, "/definition/patience_seconds", "out_of_range"),
    ({"minimum_score": 101}, "/definition/minimum_score", "out_of_range"),
    ({"budget": BudgetPolicy(minimum_minor=-1, points=points())}, "/definition/budget/minimum_minor", "out_of_range"),
    (
        {"budget": BudgetPolicy(minimum_minor=1, points=Points(meets=101, unknown=0))},
        "/definition/budget/points/meets",
        "out_of_range",
    ),
    (
        {"need": NeedPolicy(points=Points(meets=1, unknown=0, fails=-5))},
        "/definition/need/points/fails",
        "out_of_range",
    ),
    ({"authority": AuthorityPolicy(accepted=(), points=points())}, "/definition/authority/accepted", "never_matches"),
    (
        {"authority": AuthorityPolicy(accepted=(), points=Points(meets=0, unknown=0)), "minimum_score": 90},
        "/definition/minimum_score",
        "never_matches",
    ),
    (
        {"need": NeedPolicy(wanted={"colour": ("red",)}, points=points())},
        "/definition/need/wanted/colour",
        "unknown_need_field",
    ),
    (
        {"need": NeedPolicy(wanted={"roof_type": ("straw",)}, points=points())},
        "/definition/need/wanted/roof_type/0",
        "unknown_choice",
    ),
    (
        {"need": NeedPolicy(wanted={"square_metres": (True,)}, points=points())},
        "/definition/need/wanted/square_metres/0",
        "unknown_choice",
    ),
    (
        {"need": NeedPolicy(wanted={"roof_type": ()}, points=points())},
        "/definition/need/wanted/roof_type",
        "never_matches",
    ),
    (
        {"price_range": PriceRange(currency="USD", minimum_minor=2, maximum_minor=1)},
        "/definition/price_range",
        "never_matches",
    ),
    ({"price_range": PriceRange(currency="EUR")}, "/definition/price_range/currency", "currency_not_vertical"),
    (
        {"price_range": PriceRange(currency="USD", maximum_minor=0)},
        "/definition/price_range/maximum_minor",
        "out_of_range",
    ),
    (
        {"interest": (InterestCriterion(name="replied", kinds=("email_reply",), otherwise=UnmetConsequence.nurture),)},
        "/definition/interest/0/otherwise",
        "not_for_this_kind",
    ),
    ({"pay_joined": PayJoined.last, "provider_may_know": True}, "/definition/pay_joined", "never_matches"),
    (
        {"pay_joined": PayJoined.split, "repeat_inquiries": RepeatInquiries.joined},
        "/definition/pay_joined",
        "paid_not_told",
    ),
)

NEEDS: tuple[tuple[str, NeedField, str, str], ...] = (
    ("Bad Name", NeedField(kind="boolean"), "", "malformed"),
    ("a/b", NeedField(kind="boolean"), "", "malformed"),
    ("empty", NeedField(kind="choice"), "/choices", "choices_missing"),
    ("twice", NeedField(kind="choice", choices=("a", "a")), "/choices", "choice_repeated"),
    ("blank", NeedField(kind="choice", choices=("a", " ")), "/choices/1", "malformed"),
    ("many", NeedField(kind="choice", choices=tuple(map(str, range(201)))), "/choices", "too_long"),
    ("choosy", NeedField(kind="boolean", choices=("a",)), "/choices", "not_for_this_kind"),
    ("bounded", NeedField(kind="boolean", minimum=1), "", "not_for_this_kind"),
    ("crossed", NeedField(kind="integer", minimum=2, maximum=1), "", "never_matches"),
    ("wordy", NeedField(kind="boolean", label="x" * 201), "/label", "too_long"),
)


@pytest.mark.parametrize(("changes", "pointer", "code"), VERTICALS)
def test_a_vertical_that_could_not_work_is_refused(changes: dict[str, Any], pointer: str, code: str) -> None:
    faults = [(fault.pointer, fault.code) for fault in vertical_faults(roofing(**changes))]
    assert (pointer, code) in faults


@pytest.mark.parametrize(("name", "need", "below", "code"), NEEDS)
def test_a_question_that_nobody_could_answer_is_refused(name: str, need: NeedField, below: str, code: str) -> None:
    [fault] = vertical_faults(roofing(needs=ROOFING_NEEDS | {name: need}))
    assert (fault.pointer, fault.code) == (f"/definition/needs/{name.replace('/', '~1')}{below}", code)


def test_a_vertical_without_fault_passes() -> None:
    assert vertical_faults(roofing()) == ()


async def test_points_that_reward_knowing_worse_things_are_refused(api: Served) -> None:
    definition = msgspec.to_builtins(roofing())
    definition["timing"]["points"] = {"meets": 1, "unknown": 5, "fails": 0}
    refused = await api.call("POST", "/v1/verticals", {"slug": "roofing", "definition": definition})
    [fault] = refused.json()["errors"]
    assert (refused.status_code, fault["pointer"]) == (422, "/definition/timing/points")
    assert "Points must rise" in fault["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/endpoints/sub_00000000000000000000000000"),
        ("GET", "/v1/subscriptions/1"),
        ("GET", "/v1/providers/prov_'"),
        ("DELETE", "/v1/keys/%00"),
        ("GET", "/v1/spec/%00"),
    ],
)
async def test_what_is_no_id_of_such_a_thing_finds_nothing(api: Served, method: str, path: str) -> None:
    assert (await api.call(method, path)).status_code == 404


def test_closing_a_shape_forbids_unknown_fields_all_the_way_down_and_changes_nothing_else() -> None:
    raw = msgspec.json.encode(roofing())
    assert msgspec.json.encode(msgspec.json.decode(raw, type=closed(VerticalDefinition))) == raw
    document = msgspec.json.decode(raw)
    document["needs"]["roof_type"]["colour"] = "red"
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.convert(document, closed(VerticalDefinition))
