"""Secure defaults: one test for each, named after it."""

import ast
import functools
import inspect
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute

from marketplace.app import create_app
from marketplace.database.embedded import POSTGRES_OPTIONS, Engines
from marketplace.feed.http import admit_reader
from marketplace.runtime.settings import Docs, Settings, load
from marketplace.security.auth import SCOPES, CallerKind, _find_proven, create_key
from marketplace.web import gate
from marketplace.web.api import CallerProvider, require
from marketplace.web.openapi import is_documented, route_doc
from marketplace.webhook.transport import system_tls
from tests.builders.service import Served, serve, serve_ops
from tests.conftest import SECRETS
from tests.house.measure import dotted_name, nodes, read_sources

ROOT = Path(__file__).parents[3]


def nowhere() -> Settings:
    return load(SECRETS | {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "VALKEY_URL": "redis://127.0.0.1:1"})


def application(settings: Settings) -> Any:
    return create_app(settings, Engines(database_url=settings.database_url or "", valkey_url=settings.valkey_url or ""))


# --- what every answer carries, and what none does --------------------------------------------------------------------


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def answers_of_every_kind(api: Served) -> list[httpx.Response]:
    _, provider = await api.provider()
    calls: tuple[tuple[str, str, object, str | None, dict[str, str], int], ...] = (
        ("GET", "/healthz", None, "", {}, 200), ("GET", "/readyz", None, "", {}, 200),
        ("GET", "/metrics", None, "", {}, 404), ("GET", "/docs", None, "", {}, 200),
        ("GET", "/docs/assets/swagger-ui.css", None, "", {}, 200), ("GET", "/openapi.json", None, "", {}, 200),
        ("GET", "/v1/businesses", None, None, {}, 200), ("OPTIONS", "/v1/businesses", None, None, {}, 204),
        ("GET", "/v1/businesses", None, "", {}, 401), ("GET", "/v1/businesses", None, provider, {}, 403),
        ("GET", "/nothing", None, None, {}, 404), ("TRACE", "/v1/businesses", None, None, {}, 405),
        ("POST", "/v1/providers", b"{", None, {}, 400), ("POST", "/v1/providers", {}, None, {}, 422),
        ("POST", "/v1/providers", b"x", None, {"content-type": "text/yaml"}, 415),
        ("POST", "/v1/providers", b"x" * 2_000_000, None, {}, 413),
        ("GET", "/healthz", None, "", {f"x-{n}": "y" for n in range(120)}, 431),
    )  # fmt: skip
    answers = []
    for method, path, body, key, headers, status in calls:
        answer = await api.call(method, path, body, key=key, headers=headers)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        answers.append(answer)
    return answers


async def test_security_headers_are_on_every_answer_and_nothing_tells_the_server_or_grants_an_origin(
    api: Served,
) -> None:
    for answer in await answers_of_every_kind(api):
        where = f"{answer.request.method} {answer.request.url.path}: {answer.status_code}"
        for name, value in gate.ON_EVERY_ANSWER:
            assert answer.headers.get_list(name.decode()) == [value.decode()], where
        assert len(answer.headers.get_list("content-security-policy")) == 1, where
        names = answer.headers.keys() & {"server", "x-powered-by", "via", "set-cookie", "x-process-time"}
        assert not names, where
        assert not [name for name in answer.headers if name.startswith("access-control-")], where
        if answer.request.url.path.startswith("/v1") and answer.status_code != 204:
            assert answer.headers["cache-control"] == "no-store", where
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", where


async def test_metrics_name_no_tenant_and_no_lead(api: Served) -> None:
    provider, provider_key = await api.provider()
    business, key = await api.business()
    await api.call("GET", f"/v1/businesses/{business}")
    await api.call("GET", f"/v1/{business}/{provider}")
    await api.call("GET", "/v1/wallet", key=key)
    await api.call("GET", "/v1/inquiries/lead_01m7zxrk0zezh9kk0e0qy31s5c", key=provider_key)
    async with serve_ops(api.settings) as ops:
        page = (await ops.get("/metrics")).text
    assert "requests_total" in page
    assert not re.findall(r"(?:prov|biz|lead|key|sub|whe|asg)_[0-9a-z]{26}|lk_(?:live|test)_", page)
    assert not [key_text for key_text in (key, api.operator) if key_text.split("_")[2] in page]


DOCUMENTATION = ("/docs", "/docs/start.js", "/docs/assets/swagger-ui.css", "/openapi.json")


async def test_operational_pages_are_nowhere_at_the_apis_own_address_however_they_are_spelt(api: Served) -> None:
    for path in ("/metrics", "//metrics", "/%6detrics", "/metrics/", "/./metrics", "/v1/../metrics", "/METRICS"):
        for key in ("", api.operator):
            answer, _ = await api.raw(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nConnection: close\r\n\r\n".encode()
            )
            assert answer.startswith(b"HTTP/1.1 404 "), path
    async with serve_ops(api.settings) as ops:
        for path in ("/metrics", "/healthz", *DOCUMENTATION):
            answered = await ops.get(path)
            assert answered.status_code == 200, path
            for name, value in gate.ON_EVERY_ANSWER:
                assert answered.headers.get_list(name.decode()) == [value.decode()], path
        assert (await ops.get("/v1/businesses")).status_code == 404


@pytest.mark.parametrize(("docs", "at_ops"), [(Docs.ops, 200), (Docs.off, 404)])
async def test_the_documentation_is_gone_where_it_is_switched_off(settings: Settings, docs: Docs, at_ops: int) -> None:
    changed = msgspec.structs.replace(settings, docs=docs)
    async with serve(changed) as api, serve_ops(changed) as ops:
        for path in DOCUMENTATION:
            assert (await api.call("GET", path, key="")).status_code == 404
            assert (await ops.get(path)).status_code == at_ops


# --- how it is served -------------------------------------------------------------------------------------------------


def test_debugging_is_off_and_no_answer_is_cached() -> None:
    app = application(nowhere())
    assert app.debug is False
    handlers = [handler for route in app.routes if isinstance(route, HTTPRoute) for handler in route.route_handlers]
    assert handlers
    assert not [handler for handler in handlers if handler.cache]
    assert app.cors_config is None
    assert app.openapi_config is None


def test_the_server_tells_no_version_takes_no_websockets_and_trusts_no_proxy() -> None:
    config = gate.serving(application(nowhere()), nowhere())
    assert (config.server_header, config.proxy_headers, config.ws, config.access_log) == (False, False, "none", False)


def test_every_handler_that_is_not_public_asks_who_calls_before_anything_else() -> None:
    unguarded, guarded = [], 0
    for route in application(nowhere()).routes:
        for handler, model in route.route_handler_map.values() if isinstance(route, HTTPRoute) else ():
            if is_documented(handler) and "OPTIONS" not in handler.http_methods and not route_doc(handler).public:
                first = [each.provide for batch in model.dependency_batches[:1] for each in batch]
                admitted = len(first) == 1 and isinstance(first[0], CallerProvider)
                unguarded += [] if admitted else [handler.fn.__name__]
                guarded += admitted
    assert unguarded == []
    assert guarded > 35
    assert "await http.principal(" in inspect.getsource(require)
    assert set(re.findall(r"await (\w+)\(", inspect.getsource(admit_reader))) == {"_redeem_ticket", "principal"}
    assert SCOPES.keys() == set(CallerKind)


def test_webhooks_go_over_verified_tls_of_1_2_or_later() -> None:
    context = system_tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_our_own_database_logs_no_parameters_and_no_details() -> None:
    quiet = {"log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0", "log_error_verbosity": "terse"}
    assert quiet.items() <= POSTGRES_OPTIONS.items()


async def test_of_a_key_only_a_hash_is_kept_that_no_other_pepper_makes(api: Served) -> None:
    secret = api.operator.split("_")[3]
    row = await api.pool.fetchrow("select * from api_key where id = $1", api.operator.split("_")[2])
    assert secret not in str(dict(row))
    assert len(row["secret_hmac"]) == 32
    assert "compare_digest" in inspect.getsource(_find_proven)
    assert "keyed_hash" in inspect.getsource(create_key)


# --- what the source may not hold -------------------------------------------------------------------------------------

UNSAFE_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "xml", "lxml"}
WRITES_XML = {
    "marketplace/mail/adf.py": "makes a document and reads none",
    "marketplace/mapping/template.py": "escapes texts, and asks whether what a template made is well formed",
}
"Modules that may import `xml`, and why: neither reads the XML of anybody else."
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"}


@functools.cache
def source_faults() -> tuple[list[str], list[str]]:
    """Read every file once; return the unsafe imports and calls, and the statements that are put together."""
    unsafe: list[str] = []
    put_together: list[str] = []
    for path, tree in read_sources():
        unsafe += unsafe_code(path, tree)
        if path != "marketplace/operations/verify.py":
            put_together += statements_put_together(path, tree)
    return unsafe, put_together


def unsafe_code(path: str, tree: ast.Module) -> Iterator[str]:
    unsafe = UNSAFE_IMPORTS - {"xml"} if path in WRITES_XML else UNSAFE_IMPORTS
    for node in nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"{path}: {name.name}" for name in names if name.name.split(".")[0] in unsafe)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in unsafe:
                yield f"{path}: {module}"
            case ast.Call(func=function, keywords=words):
                if dotted_name(function) in UNSAFE_CALLS:
                    yield f"{path}: {dotted_name(function)}"
                if any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in words):
                    yield f"{path}: a shell"


def test_nothing_unpickles_evaluates_or_reads_yaml_or_xml() -> None:
    assert source_faults()[0] == []


STATEMENTS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare", "copy_from_query"}


def statements_put_together(path: str, tree: ast.Module) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STATEMENTS:
            yield from (f"{path}:{node.lineno}" for argument in node.args[:1] if _is_put_together(argument))


def test_no_statement_is_put_together_from_values() -> None:
    """Only constants of ours, in capitals, may stand inside one; `verify` asks about the rows of its own statements."""
    assert source_faults()[1] == []


def _is_put_together(statement: ast.expr) -> bool:
    match statement:
        case ast.JoinedStr(values=values):
            filled = [value.value for value in values if isinstance(value, ast.FormattedValue)]
            return not all(isinstance(value, ast.Name) and value.id.isupper() for value in filled)
        case ast.BinOp() | ast.Call(func=ast.Attribute(attr="format" | "join" | "replace")):
            return True
    return False


def test_the_framework_is_newer_than_its_known_holes() -> None:
    pins = dict(re.findall(r"^([a-z-]+)==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    version = tuple(int(part) for part in pins["litestar"].split("."))
    assert version >= (2, 22)
