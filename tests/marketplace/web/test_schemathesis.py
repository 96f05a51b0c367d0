"""The interface against its own document: whatever is sent, the answer is one that the document knows.

Each kind of key sends data that fits the document and data that breaks it to every route. MARKETPLACE_EXAMPLES in the
environment asks for more examples of each route than the few that every run of the tests can afford.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from marketplace.app import create_app
from marketplace.database.embedded import Engines
from marketplace.runtime.settings import Settings, load
from marketplace.security.auth import CallerKind
from tests.builders.marketplaces import marketplace
from tests.builders.service import Served, serve
from tests.conftest import SECRETS

EXAMPLES = os.environ.get("MARKETPLACE_EXAMPLES", "4")

ROUTES = {
    CallerKind.provider: "^/v1/(inquiries|spec|earnings|leads/[^/]+/trace|suppressions|revocations|revocation-hook)",
    CallerKind.business: (
        "^/(v1/(endpoints|wallet|leads$|leads/[^/]+(/(erasure|receipt|dispositions|return|acknowledge|next-action).*)?$"
        "|dispositions|pipeline|next-actions|stage-changes|feedback-hook|feed(/|$)|imports|shared-leads|roi-assumptions|notices)|in/feedback|in/revocations)"
    ),
    CallerKind.operator: (
        "^/v1/(verticals|providers|businesses|keys|subscriptions|erasures|top-ups|receipt-key|returns|reports|simulations"
        "|people|lists|deletion-requests)"
    ),
}
"Each route is tried by one who may use it; what the others are answered has a table of its own."

RULES = """
[checks]
# A refused field is not always one that a schema can tell: a telephone number, a vertical that does not exist.
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409"]

[[operations]]
# Nor whether a zone exists, whether a day comes before another, and what the text of a file says.
include-path-regex = "^/v1/(reports|shared-leads|roi-assumptions|lists)"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]

[[operations]]
# Nor whether a time lies within the years that the rules can compute with, 1971 to 2999.
include-path-regex = "^/v1/(leads|dispositions|returns|erasures)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]

[[operations]]
# Longer than whoever tries them waits: a stream ends after half an hour, a poll waits for as long as it is asked to.
include-path-regex = "^/v1/feed(/events)?$"
enabled = false

[[operations]]
# Its body repeats the rules of a vertical and of a subscription, whose routes are tried with each value of each field.
include-path-regex = "^/v1/simulations$"
include-method = ["POST"]
phases.coverage.enabled = false
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]

[[operations]]
include-method = ["POST", "PUT", "PATCH"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]
"""


@pytest.fixture
async def keys(settings: Settings) -> AsyncIterator[tuple[Served, dict[CallerKind, str]]]:
    """A small marketplace, and a key of each kind."""
    generous = msgspec.structs.replace(
        settings, rate_per_minute=60_000, submissions_per_minute=60_000, failures_per_minute=60_000
    )
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        api = await stack.enter_async_context(serve(generous))
        buyer = await market.buyer("http://127.0.0.1:9/")
        owners = {
            CallerKind.provider: market.provider.owner,
            CallerKind.business: buyer.business_id,
            CallerKind.operator: None,
        }
        yield api, {kind: await api.key(kind, owner) for kind, owner in owners.items()}


@pytest.mark.parametrize("kind", CallerKind)
async def test_every_answer_is_one_that_the_document_knows(
    keys: tuple[Served, dict[CallerKind, str]], kind: CallerKind, tmp_path: Path
) -> None:
    api, key_of = keys
    (tmp_path / "schemathesis.toml").write_text(RULES)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{api.port}/openapi.json",
        "--url", f"http://127.0.0.1:{api.port}", "--header", f"Authorization: Bearer {key_of[kind]}",
        "--checks", "all", "--mode", "all", "--max-examples", EXAMPLES, "--seed", "1", "--no-shrink",
        "--continue-on-failure", "--include-path-regex", ROUTES[kind], "--warnings", "off",
        cwd=tmp_path, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output


def test_every_route_is_tried_by_somebody() -> None:
    nowhere = load(SECRETS | {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "VALKEY_URL": "redis://127.0.0.1:1"})
    app = create_app(nowhere, Engines(database_url=nowhere.database_url or "", valkey_url=nowhere.valkey_url or ""))
    for path in msgspec.json.decode(app.state.openapi)["paths"]:
        assert len([kind for kind, routes in ROUTES.items() if re.search(routes, path)]) == 1, path
