"""Subscriptions that their vertical leaves without any lead are refused by the rule."""

from typing import Any

import msgspec
import pytest

from routing.contradictions import contradictions
from routing.inquiry import Authority
from routing.qualification import Dimension, ResultConsequence
from routing.subscription import BantMinimum, FieldRule, Persona, PriceRange
from routing.vertical import VerticalDefinition
from tests.builders.marketplaces import roofing
from tests.builders.subscriptions import a_definition

ROOFING = roofing()
HIGHEST = sum(policy.points.meets for policy in (ROOFING.budget, ROOFING.authority, ROOFING.need, ROOFING.timing))
PRICES = PriceRange(currency=ROOFING.currency, minimum_minor=100, maximum_minor=200)
PRICED = msgspec.structs.replace(ROOFING, price_range=PRICES)
UNACCEPTED = tuple(authority for authority in Authority if authority not in ROOFING.authority.accepted)


def market(on_fails: ResultConsequence, **wanted: Any) -> VerticalDefinition:
    """The vertical where failing authority and need have this consequence, and these answers are wanted."""
    replace = msgspec.structs.replace
    return replace(
        ROOFING,
        authority=replace(ROOFING.authority, on_fails=on_fails),
        need=replace(ROOFING.need, on_fails=on_fails, wanted=wanted),
    )


STRICT = market(ResultConsequence.reject, roof_type=("tile", "metal"))
LENIENT = market(ResultConsequence.accept, roof_type=("tile", "metal"))
OTHER_ROOF = (FieldRule(field="roof_type", any_of=("slate",)),)


@pytest.mark.parametrize(
    ("overrides", "vertical", "pointers"),
    [
        ({}, STRICT, []),
        ({"bant": BantMinimum(minimum_score=HIGHEST)}, STRICT, []),
        ({"bant": BantMinimum(minimum_score=HIGHEST + 1)}, LENIENT, ["/bant/minimum_score"]),
        ({"persona": Persona(authorities=UNACCEPTED)}, STRICT, ["/persona/authorities"]),
        ({"persona": Persona(authorities=UNACCEPTED)}, LENIENT, []),
        (
            {"persona": Persona(authorities=UNACCEPTED), "bant": BantMinimum(must_meet=(Dimension.authority,))},
            LENIENT,
            ["/persona/authorities"],
        ),
        ({"persona": Persona(authorities=tuple(Authority))}, STRICT, []),
        ({"attributes": OTHER_ROOF}, STRICT, ["/attributes"]),
        ({"attributes": OTHER_ROOF}, LENIENT, []),
        ({"attributes": OTHER_ROOF, "bant": BantMinimum(must_meet=(Dimension.need,))}, LENIENT, ["/attributes"]),
        ({"attributes": (FieldRule(field="roof_type", any_of=("slate", "tile")),)}, STRICT, []),
        ({"attributes": (FieldRule(field="roof_type", none_of=("tile", "metal")),)}, STRICT, []),
        (
            {
                "attributes": (FieldRule(field="roof_type", none_of=("tile", "metal")),),
                "bant": BantMinimum(must_meet=(Dimension.need,)),
            },
            STRICT,
            ["/attributes"],
        ),
        ({"persona": Persona(minimum_price_minor=200, maximum_price_minor=300)}, PRICED, []),
        ({"persona": Persona(minimum_price_minor=201)}, PRICED, ["/persona/minimum_price_minor"]),
        ({"persona": Persona(maximum_price_minor=99)}, PRICED, ["/persona/maximum_price_minor"]),
    ],
)
def test_a_rule_that_no_qualified_lead_passes_is_named(
    overrides: dict[str, Any], vertical: VerticalDefinition, pointers: list[str]
) -> None:
    faults = tuple(contradictions(a_definition(**overrides), vertical))
    assert [(fault.pointer, fault.code) for fault in faults] == [(pointer, "never_matches") for pointer in pointers]
