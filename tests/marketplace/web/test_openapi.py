"""The interface's description is whole and valid, and its page asks nothing from anybody else."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from litestar.routes import HTTPRoute

from marketplace.app import create_app
from marketplace.database.embedded import Engines
from marketplace.runtime.settings import Settings, load
from marketplace.web.openapi import BODILESS, REFUSALS, route_doc
from tests.builders.service import Served, serve
from tests.conftest import SECRETS

METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="module")
def app() -> Any:
    """The application, never started: what it would serve."""
    nowhere = load(SECRETS | {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "VALKEY_URL": "redis://127.0.0.1:1"})
    return create_app(nowhere, Engines(database_url=nowhere.database_url or "", valkey_url=nowhere.valkey_url or ""))


@pytest.fixture(scope="module")
def document(app: Any) -> Any:
    import json

    return json.loads(app.state.openapi)


def routes(app: Any) -> Iterator[tuple[str, str, Any]]:
    """Path, method and handler of everything under /v1 and /in."""
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith(("/v1", "/in/")):
            for handler in route.route_handlers:
                for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                    yield route.path_format, method.lower(), handler


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object anywhere in the document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_every_route_is_in_the_document_and_the_document_has_no_other(app: Any, document: Any) -> None:
    described = {(path, method) for path, method, _ in operations(document)}
    assert {(path, method) for path, method, _ in routes(app)} == described
    assert len(described) > 35


def test_every_route_tells_its_refusals(app: Any, document: Any) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, method, handler in routes(app):
        doc = route_doc(handler)
        responses = document["paths"][path][method]["responses"]
        expected = set(REFUSALS) if doc.body is not None else BODILESS | ({422} if doc.query else set())
        assert {str(status) for status in expected | set(doc.answers)} == responses.keys(), f"{method} {path}"
        for status in expected - set(doc.answers):
            assert responses[str(status)]["content"] == problem, f"{method} {path} {status}"


def test_the_document_has_the_structure_of_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    schemes = document["components"]["securitySchemes"]
    assert all(name in schemes for need in document["security"] for name in need)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert path.startswith("/"), where
        assert method in METHODS, where
        assert operation["summary"].strip(), where
        assert operation["tags"], where
        assert operation["responses"], where
        for status, response in operation["responses"].items():
            assert re.fullmatch("[1-5][0-9]{2}", status), where
            assert response["description"], where
            assert all({"schema"} == media.keys() for media in response.get("content", {}).values()), where
        for parameter in operation["parameters"]:
            assert {"name", "in", "schema"} <= parameter.keys(), where
            assert parameter["in"] in ("query", "header", "path"), where
            assert parameter.get("required", False) or parameter["in"] != "path", where


def test_every_operation_has_a_name_of_its_own(document: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_the_parameters_of_a_path_are_those_in_its_braces_and_none_comes_twice(document: Any) -> None:
    for path, method, operation in operations(document):
        in_path = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        assert in_path == re.findall(r"\{([^}]+)\}", path), f"{method} {path}"
        places = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(set(places)) == len(places), f"{method} {path}"


def test_every_reference_leads_to_a_schema_and_every_schema_is_referred_to(document: Any) -> None:
    schemas = document["components"]["schemas"]
    references = {node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)}
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for node in nodes(document):
        for reference in node.get("discriminator", {}).get("mapping", {}).values():
            assert reference.removeprefix("#/components/schemas/") in schemas, reference
    assert {f"#/components/schemas/{name}" for name in schemas} <= references
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)


def test_every_schema_is_of_json_schema_2020_12(document: Any) -> None:
    kinds = {"null", "boolean", "object", "array", "number", "string", "integer"}
    for schema in nodes(document["components"]["schemas"]):
        kind = schema.get("type")
        if isinstance(kind, str) and "nullable" not in kinds:
            assert kind in kinds
        assert "nullable" not in schema
        if isinstance(schema.get("properties"), dict) and isinstance(schema.get("required"), list):
            assert set(schema["required"]) <= schema["properties"].keys()


def test_every_name_is_one_that_programs_can_have(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert [name for name in schemas if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)] == []
    assert [name for name, schema in schemas.items() if schema["title"] != name] == []
    assert len({name.lower() for name in schemas}) == len(schemas)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z_]+", name)] == []


def test_every_time_says_that_it_is_one_and_no_list_is_described_by_false(document: Any) -> None:
    times = []
    for schema in nodes(document):
        assert schema.get("items") is not False
        for name, field in schema.get("properties", {}).items():
            kinds = field.get("anyOf", [field]) if isinstance(field, dict) else []
            if name.endswith("_at") and "properties" not in field:
                times += [name for kind in kinds if kind.get("type") == "string" and kind.get("format") != "date-time"]
    assert times == []


def test_no_schema_offers_what_a_caller_may_not_set(document: Any) -> None:
    inquiry = document["components"]["schemas"]["InquiryBody"]
    assert inquiry["additionalProperties"] is False
    assert not {"state", "price", "status", "mode", "business_id"} & inquiry["properties"].keys()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def test_the_page_and_all_that_it_needs_come_from_here(api: Served) -> None:
    page = await api.call("GET", "/docs", key="")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) == 4
    assert "<script>" not in page.text
    for address in sources:
        assert not urlsplit(address).netloc
        asset = await api.call("GET", urljoin("/docs", address), key="")
        assert asset.status_code == 200
        assert asset.content
        assert asset.headers["x-content-type-options"] == "nosniff"
        if address.endswith(".css"):
            assert not re.findall(r"url\((?!\"?data:|'?data:)[^)]*\)|@import", asset.text)


async def test_the_document_is_served_as_it_was_made(api: Served) -> None:
    start = await api.call("GET", "/docs/start.js", key="")
    [address] = re.findall(r'url: "([^"]+)"', start.text)
    assert "validatorUrl: null" in start.text
    served = await api.call("GET", address, key="")
    assert served.headers["content-type"] == "application/json"
    assert served.json()["openapi"].startswith("3.1.")
