"""Texts that must say something: in each of them something can be seen."""

import importlib
import json
import pkgutil
import re
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, inspect

import marketplace
from marketplace.directory.checks import vertical_faults
from marketplace.text.faults import WORDS, read
from tests.builders.marketplaces import roofing

UNSEEN = (
    " ",
    "\t",
    "\u3164",
    "\u2800",
    "\u200b",
    "\ufeff\u2060",
    "\u00a0\u3000",
    "\u0301\u20dd",
    "\ufe0f",
    "\u115f",
    "\x7f",
)

SAYS_SOMETHING = frozenset(
    {"name", "key_name", "reason", "finding", "stage", "event_id", "reference", "who", "full_name", "source"}
)
"Names of fields that mean nothing when they are empty."

ELSEWHERE = {
    ("ContactBody", "full_name"): "checked with the meaning of an inquiry: name_empty",
    ("SubscriptionForm", "name"): "an empty one leaves the name as it is",
    ("AttributionBody", "source"): "may be empty",
    ("AssumptionForm", "source"): "may be empty",
    ("ContractForm", "reason"): "a place in JSON, or nothing",
    ("ContractForm", "reference"): "a place in JSON, or nothing",
    ("CorrectionForm", "full_name"): "an empty one leaves the name as it is",
    ("MoveForm", "stage"): "the id of a stage",
    ("NameForm", "stage"): "the id of a stage",
    ("StageChange", "stage"): "made here, of a stage that is there",
    ("DueStageChange", "stage"): "made here, of a stage that is there",
}


def fields() -> list[tuple[type[msgspec.Struct], str]]:
    """Every such field of every body and form that somebody sends."""
    for module in pkgutil.walk_packages(marketplace.__path__, "marketplace."):
        if not module.name.endswith(("cli", "__main__")):
            importlib.import_module(module.name)
    places = []
    for shape in subclasses(msgspec.Struct):
        sent = re.fullmatch(r"New[A-Z]\w+|\w+(Form|Change|Body)", shape.__name__)
        if not sent or not shape.__module__.startswith("marketplace.") or shape.__module__.endswith("store"):
            continue
        for field in msgspec.structs.fields(shape):
            if field.encode_name in SAYS_SOMETHING and texts(inspect.type_info(field.type)):
                places.append((shape, field.encode_name))
    return sorted(places, key=lambda one: (one[0].__module__, one[0].__name__, one[1]))


def subclasses(shape: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    classes: set[type[msgspec.Struct]] = set()
    for child in shape.__subclasses__():
        classes |= {child} | subclasses(child)
    return classes


def texts(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):  # a label and other words for the form
        return texts(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(map(texts, kind.types))
    return isinstance(kind, inspect.StrType)


FIELDS = fields()


@pytest.mark.parametrize(
    ("shape", "field"), [pytest.param(*one, id=f"{one[0].__module__}.{one[0].__name__}.{one[1]}") for one in FIELDS]
)
def test_nothing_visible_is_refused(shape: type[msgspec.Struct], field: str) -> None:
    if (shape.__name__, field) in ELSEWHERE:
        pytest.skip(ELSEWHERE[shape.__name__, field])
    for text in UNSEEN:
        for raw in (json.dumps({field: text}), json.dumps({field: text}, ensure_ascii=False)):
            outcome = read(raw.encode(), shape)
            assert isinstance(outcome, tuple)
            assert f"/{field}" in [fault.pointer for fault in outcome], ascii(text)


def test_the_fields_are_found() -> None:
    names = {(shape.__name__, field) for shape, field in FIELDS}
    assert {
        ("NewBusiness", "name"),
        ("ProviderForm", "name"),
        ("JoinForm", "name"),
        ("NewSubscription", "name"),
    } <= names
    assert len(names) > 25


class Inner(msgspec.Struct):
    name: Annotated[str, Meta(pattern=WORDS)] = "x"


class Outer(msgspec.Struct):
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    by_name: dict[Annotated[str, Meta(pattern=WORDS)], int] = {}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inner": {"name": "\u3164"}}, "/inner/name"),
        ({"several": [{}, {"name": "\u3164"}]}, "/several/1/name"),
        ({"by_name": {"\u3164": 1}}, "/by_name/\u3164"),
    ],
)
def test_it_is_found_at_any_depth(body: dict[str, object], pointer: str) -> None:
    outcome = read(json.dumps(body).encode(), Outer)
    assert isinstance(outcome, tuple)
    assert [(fault.pointer, fault.code) for fault in outcome] == [(pointer, "value_not_allowed")]
    assert "seen" in outcome[0].detail


@pytest.mark.parametrize("name", ["李", "Zoë", "Zo\u0308e", "א\u05b7", "😀", "x\u3164"])
def test_a_name_in_any_script_is_a_name(name: str) -> None:
    assert read(json.dumps({"name": name}).encode(), Inner) == Inner(name=name)


def test_a_vertical_has_a_visible_name_and_visible_choices() -> None:
    definition = roofing()
    field = msgspec.structs.replace(definition.needs["roof_type"], choices=("tile", "\u3164"))
    unseen = msgspec.structs.replace(definition, name="\u2800", needs=definition.needs | {"roof_type": field})
    pointers = {fault.pointer for fault in vertical_faults(unseen)}
    assert {"/definition/name", "/definition/needs/roof_type/choices/1"} <= pointers
