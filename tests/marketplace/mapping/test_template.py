"""Templates of request bodies: what they may do, how values are escaped, and where their length ends."""

import json
from time import process_time
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.mapping.shapes import BodyFormat
from marketplace.mapping.template import LONGEST_BODY, BodyTemplate, TemplateFault
from marketplace.mapping.variables import EXAMPLES, FULL, LISTS, OPEN, SPARSE, VARIABLES

JSON, FORM, XML = BodyFormat.json, BodyFormat.form, BodyFormat.xml


def lead_named(name: str) -> dict[str, object]:
    return {**SPARSE, "contact": {"full_name": name}}


@given(st.text())
def test_no_text_leaves_its_place_in_json(name: str) -> None:
    template = BodyTemplate(JSON, '{"name": "{{ contact.full_name }}", "whole": {{ contact.full_name | json }}}')
    name = name.encode("utf-8", "replace").decode()
    assert json.loads(template.render(lead_named(name))) == {"name": name, "whole": name}


@given(st.text())
def test_no_text_leaves_its_place_in_a_form(name: str) -> None:
    template = BodyTemplate(FORM, "name={{ contact.full_name }}&\n  admin=no")
    name = name.encode("utf-8", "replace").decode()
    values = parse_qs(template.render(lead_named(name)).decode(), keep_blank_values=True)
    assert values == {"name": [name], "admin": ["no"]}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_no_text_leaves_its_place_in_xml(name: str) -> None:
    template = BodyTemplate(XML, '<a b="{{ contact.full_name }}">{{ contact.full_name }}</a>')
    root = ElementTree.fromstring(template.render(lead_named(name)))
    assert (root.text or "", root.get("b")) == (name, name)


def test_what_xml_cannot_write_is_left_out() -> None:
    template = BodyTemplate(XML, "<a>{{ contact.full_name }}</a>")
    assert template.render(lead_named("a\x00\x0b\ufffeb")) == b"<a>ab</a>"


def test_lists_conditions_and_filters() -> None:
    source = (
        '{"answers": [{% for item in needs %}{"{{ item.name }}": {{ item.value | json }}}'
        "{% if not loop.last %},{% endif %}{% endfor %}], "
        '"city": {{ place.region | json }}, "who": "{{ contact.first_name | default("?") | upper }}"}'
    )
    template = BodyTemplate(JSON, source)
    full = json.loads(template.render(FULL))
    assert full["answers"] == [{"material": "tile"}, {"stories": 2}, {"owns_home": True}]
    assert (full["city"], full["who"]) == ("IL", "ROBIN Q.")
    assert json.loads(template.render(SPARSE)) == {"answers": [], "city": None, "who": "?"}


@pytest.mark.parametrize("name", [*VARIABLES, *(f"{group}.anything" for group in OPEN)])
def test_every_documented_variable_can_be_used(name: str) -> None:
    template = BodyTemplate(JSON, f"[{{{{ {name} | json }}}}]")
    for example in EXAMPLES:
        template.render(example)


@pytest.mark.parametrize("name", LISTS)
def test_every_documented_list_can_be_used(name: str) -> None:
    template = BodyTemplate(FORM, f"{{% for item in {name} %}}x={{{{ item.name }}}}{{% endfor %}}")
    assert template.render(SPARSE) == b""
    assert template.render(FULL) != b""


@pytest.mark.parametrize(
    "source",
    [
        "{{ unknown }}",
        "{{ contact.password }}",
        "{{ contact }}",
        "{{ contact.email.upper() }}",
        "{{ need.items }}{{ need.a.b }}",
        "{{ ''.__class__ }}",
        "{{ lead['__class__'] }}",
        "{{ lead[contact.email] }}",
        "{{ need.__class__.__mro__ }}",
        "{{ range(10) }}",
        "{% for i in range(1000000) %}x{% endfor %}",
        "{% for a in needs %}{% for b in needs %}x{% endfor %}{% endfor %}",
        "{% for lead in needs %}x{% endfor %}",
        "{% for a in needs recursive %}x{% endfor %}",
        "{% for a in needs if a.name %}x{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ contact.email | replace('a', 'aaaa') }}",
        "{{ contact.email | center(1000000000) }}",
        "{{ contact.email | attr('x') }}",
        "{{ contact.email is callable }}",
        "{% set x = 1 %}",
        "{% macro m() %}{{ m() }}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape true %}x{% endautoescape %}",
        "{{ [1, 2] }}",
        "{{ contact.email | json }}",
        "{{ contact.email",
        "{% if %}",
        "{{ loop.index }}",
        "{{ self }}",
        "{{ " + "(" * 5_000,
    ],
)
def test_a_template_cannot_do_anything_else(source: str) -> None:
    with pytest.raises(TemplateFault):
        BodyTemplate(FORM, source)


def test_the_names_of_dictionaries_are_no_methods() -> None:
    template = BodyTemplate(FORM, "a={{ need.items }}&b={{ need.get }}")
    assert template.render(SPARSE) == b"a=&b="


@pytest.mark.parametrize(
    ("body_format", "source"),
    [
        (JSON, '{"name": {{ contact.full_name }}}'),
        (JSON, '{"phone": "{{ contact.phone }}"'),
        (XML, "<a>{{ contact.phone }}"),
        (XML, "<a>{{ contact.phone }}</a><b/>"),
    ],
)
def test_a_result_that_is_not_in_its_format_is_refused(body_format: BodyFormat, source: str) -> None:
    template = BodyTemplate(body_format, source)
    with pytest.raises(TemplateFault, match="The result is not"):
        template.render(FULL)


def test_xml_has_no_entities_of_its_own() -> None:
    with pytest.raises(TemplateFault, match="entities"):
        BodyTemplate(XML, '<!DOCTYPE a [<!ENTITY x "xx">]><a>&x;</a>')


def test_a_body_ends_at_its_limit_and_takes_no_time() -> None:
    source = "{% for item in touches %}" + "{{ item.detail }}" * 500 + "{% endfor %}"
    lead = {**SPARSE, "touches": [{"kind": "x", "at": "x", "detail": "d" * 1_000}] * 1_000}
    template = BodyTemplate(FORM, source)
    began = process_time()
    with pytest.raises(TemplateFault, match=f"{LONGEST_BODY:,}"):
        template.render(lead)
    assert process_time() - began < 0.5
