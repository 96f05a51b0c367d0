"""Forms of browsers, read into a Struct: all faults at once, each at its field."""

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from marketplace.portal.forms import FormFields, field_errors, fill, label, show_form, typed
from marketplace.portal.frame import ENVIRONMENT
from marketplace.runtime.errors import InvalidInput


class Colour(StrEnum):
    red = "red"
    blue = "blue"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A form with a field of each kind."""

    name: Annotated[str, Meta(min_length=1, max_length=10)]
    note: str | None = None
    count: Annotated[int, Meta(ge=1)] = 1
    share: float | None = None
    ticked: bool = False
    colour: Colour = Colour.red
    day: date | None = None
    chosen: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    shares: tuple[float, ...] | None = None
    colours: tuple[Colour, ...] | None = None


def of(**fields: str | tuple[str, ...]) -> FormFields:
    """Return the fields as a browser sends them."""
    return {name: (text,) if isinstance(text, str) else text for name, text in fields.items()}


def faults(form: FormFields) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        fill(Form, form)
    return field_errors(caught.value)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("note", "", None), ("note", " ", " "), ("note", "12", "12"), ("count", "12", 12), ("count", " 1,250 ", 1_250),
        ("count", "", 1), ("share", "2.5", 2.5), ("share", "", None), ("share", "3", 3.0), ("ticked", "1", True),
        ("ticked", "on", True), ("ticked", "", False), ("ticked", "0", False), ("ticked", "off", False),
        ("colour", "blue", Colour.blue), ("day", "2026-11-22", date(2026, 11, 22)), ("day", "", None),
        ("chosen", ("a", "", "b"), ("a", "b")), ("chosen", (), ()), ("numbers", ("0", "12"), (0, 12)),
        ("numbers", ("", "3"), (3,)), ("shares", ("2.5", "3"), (2.5, 3.0)), ("colours", ("", "blue"), (Colour.blue,)),
        ("note", ("first", "last"), "last"),
    ],
)  # fmt: skip
def test_each_field_is_read_as_its_own_kind(field: str, text: Any, value: object) -> None:
    assert getattr(fill(Form, of(name="x", **{field: text})), field) == value


def test_what_is_not_sent_has_its_default_and_what_is_not_known_is_ignored() -> None:
    assert fill(Form, of(name="Ada", utm_source="mail", csrf="x")) == Form(name="Ada")


def test_every_fault_is_told_at_once_each_at_its_field() -> None:
    errors = faults(of(name="x" * 11, count="many", share="half", colour="green", day="tomorrow"))
    assert set(errors) == {"name", "count", "share", "colour", "day"}
    assert all(sentence.endswith(".") for sentence in errors.values())


@pytest.mark.parametrize("form", [of(), of(name="")])
def test_a_required_field_that_is_missing_or_empty_is_named(form: FormFields) -> None:
    assert set(faults(form)) == {"name"}


@pytest.mark.parametrize("text", ["٣", "1.5", "--1", "9" * 25, "1e3", "0x1", "nan"])
def test_a_number_is_only_what_looks_like_one(text: str) -> None:
    assert set(faults(of(name="x", count=text))) == {"count"}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_no_number_is_none_of_the_numbers_that_are_none(text: str) -> None:
    assert set(faults(of(name="x", share=text))) == {"share"}


def test_what_was_typed_is_shown_again_but_never_a_password_nor_the_token() -> None:
    form = of(name="Ada", csrf="secret", password="secret", fresh_password="secret", note="")
    assert typed(form) == {"name": "Ada", "note": ""}


def test_no_sentence_repeats_what_was_typed() -> None:
    assert "eleven letters" not in " ".join(faults(of(name="eleven letters")).values())


Price = Annotated[str, Meta(max_length=20, extra={"inputmode": "decimal"})]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A form whose fields are declared with labels."""

    name: Annotated[str, Meta(min_length=1, max_length=10), label("Name", "As people call you.")]
    days: Annotated[Annotated[int, Meta(ge=1, le=30)] | None, label("Days", required=True)] = None
    price: Annotated[Price | None, label("Price, in {currency}", "A job in {currency}.")] = None
    colour: Annotated[Colour, label("Colour")] = Colour.red
    agreed: Annotated[bool, label("I agree")] = False
    words: Annotated[str, label("Words", kind="textarea", rows=2)] = ""
    hidden: str = ""


def test_a_form_is_shown_by_the_declaration_that_reads_it() -> None:
    form = show_form(Address, currency="USD")
    assert [(field.name, field.kind, field.label, field.required) for field in form.fields] == [
        ("name", "text", "Name", True),
        ("days", "number", "Days", True),
        ("price", "text", "Price, in USD", False),
        ("colour", "select", "Colour", True),
        ("agreed", "checkbox", "I agree", True),
        ("words", "textarea", "Words", False),
    ]
    assert [field.hint for field in form.fields[:3]] == ["As people call you.", "", "A job in USD."]
    assert [dict(field.attributes) for field in form.fields] == [
        {"maxlength": 10},
        {"min": 1, "max": 30},
        {"maxlength": 20, "inputmode": "decimal"},
        {},
        {},
        {"rows": 2},
    ]
    assert fill(Address, of(name="Ada", days="7", agreed="1")) == Address(name="Ada", days=7, agreed=True)


def test_a_page_shows_a_whole_form_or_the_fields_that_it_names() -> None:
    fields = '{{ ui.fields(form) }}|{{ ui.fields(form, "days", "name") }}'
    source = '{% import "components.html" as ui with context %}' + fields
    text = ENVIRONMENT.from_string(source).render(
        form=show_form(Address, currency="USD"), faults={}, typed={"name": "Ada"}
    )
    whole, named = (re.findall(r'(?:input|select|textarea)[^>]* name="(\w+)"', part) for part in text.split("|"))
    assert whole == ["name", "days", "price", "colour", "agreed", "words"]
    assert named == ["name", "days"]
    assert len(re.findall(r'maxlength="10"[^>]* required[^>]* value="Ada"', text)) == 2
