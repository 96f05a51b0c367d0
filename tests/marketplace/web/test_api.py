"""Providers run one after another, so that a request is refused by the first check that fails."""

from typing import Any

import pytest
from litestar.routes import HTTPRoute

from marketplace.runtime.settings import Docs
from tests.builders.service import borrow_routes

with borrow_routes(Docs.public) as app:
    DOCUMENTED = [
        (f"{method} {route.path_format}", route.route_handler_map[method][1])
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in sorted(route.route_handler_map)
        if any("api" in handler.opt for handler in route.route_handlers)
    ]


@pytest.mark.parametrize(("address", "model"), DOCUMENTED)
def test_no_two_providers_of_a_handler_are_independent(address: str, model: Any) -> None:
    assert [len(batch) for batch in model.dependency_batches if len(batch) != 1] == [], address
