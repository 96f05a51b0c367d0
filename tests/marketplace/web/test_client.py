"""A program that was generated from the interface's description calls the interface."""

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import roofing_body
from tests.builders.service import Served, serve

PACKAGE = "generated_client"
SETTINGS = """post_hooks: []
package_name_override: generated_client
content_type_overrides:
  text/csv: application/octet-stream
"""
"Nothing is reformatted, and files, which are CSV here, are sent as they are: the generator knows no CSV."


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


@pytest.fixture
def importable(tmp_path: Path) -> Iterator[Path]:
    """A place from which a package is imported, and forgotten afterwards."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


async def generate(document: bytes, place: Path) -> str:
    """A client in `place`; all that the generator said."""
    (place / "openapi.json").write_bytes(document)
    (place / "settings.yaml").write_text(SETTINGS)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--output-path", PACKAGE,
        "--config", "settings.yaml", "--meta", "none", "--fail-on-warning", cwd=place,
        env=os.environ | {"COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_a_generated_client_has_every_operation_and_calls_the_api(api: Served, importable: Path) -> None:
    served = await api.call("GET", "/openapi.json", key="")
    output = await generate(served.content, importable)
    assert "warning" not in output.lower(), output
    paths = served.json()["paths"]
    names = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert {path.stem for path in (importable / PACKAGE / "api").glob("*/*.py")} - {"__init__"} == names
    await api.vertical()
    _, key = await api.provider()
    package: Any = importlib.import_module(PACKAGE)
    models: Any = importlib.import_module(f"{PACKAGE}.models")
    submit: Any = importlib.import_module(f"{PACKAGE}.api.inquiries.submit_inquiries")
    show: Any = importlib.import_module(f"{PACKAGE}.api.inquiries.show_inquiries")
    listing: Any = importlib.import_module(f"{PACKAGE}.api.parties.list_providers_parties")
    base = f"http://127.0.0.1:{api.port}"
    async with package.AuthenticatedClient(base_url=base, token=key) as provider:
        body = msgspec.json.decode(msgspec.json.encode(roofing_body(1, clock.now())))
        accepted = await submit.asyncio(client=provider, body=models.InquiryBody.from_dict(body))
        assert isinstance(accepted, models.SubmissionAccepted)
        assert abs((clock.now() - accepted.received_at).total_seconds()) < 60
        inquiry = await show.asyncio(accepted.id, client=provider)
        assert (inquiry.vertical, inquiry.provider_reference) == ("roofing", "ref-1")
        refused = await listing.asyncio(client=provider)
        assert (refused.code, refused.status) == ("scope_missing", 403)
    async with package.AuthenticatedClient(base_url=base, token=api.operator) as operator:
        page = await listing.asyncio(client=operator)
        assert [each.name for each in page.data] == ["Example Leads"]
