"""Every refusal is a problem with a stable code, and no exception ever tells more than it may."""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import asyncpg
import pytest
from litestar.exceptions import ClientException, HTTPException, InternalServerException, MethodNotAllowedException

from marketplace.database.db import NOT_NOW
from marketplace.runtime import errors
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.openapi import REFUSALS
from marketplace.web.problems import PROBLEMS, describe

SECRET = "robin@example.com"


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_has_its_row_and_every_row_its_error() -> None:
    ours = {child for child in subclasses(errors.MarketplaceError) if child.__module__.startswith("marketplace")}
    assert set(PROBLEMS) == ours


def test_every_code_is_a_slug_of_its_own_with_a_title_and_a_documented_status() -> None:
    slugs = [entry.slug for entry in PROBLEMS.values()]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", slug) for slug in slugs)
    assert all(entry.title and not entry.title.endswith(".") for entry in PROBLEMS.values())
    only_on_pages = {410}
    assert {entry.status for entry in PROBLEMS.values()} - only_on_pages <= set(REFUSALS)


def test_only_an_absent_engine_and_too_much_work_are_faults_of_ours() -> None:
    slugs = [entry.slug for entry in PROBLEMS.values() if entry.status >= 500]
    assert slugs == ["temporarily_unavailable", "overloaded"]


def test_no_domain_error_knows_its_status() -> None:
    source = Path(errors.__file__).read_text()
    assert not re.search(r"\b[45][0-9]{2}\b", source)


@pytest.mark.parametrize("error", [kind for kind in NOT_NOW if kind is not asyncpg.InterfaceError])
def test_whatever_means_not_now_is_a_503_that_says_to_come_back(error: type[Exception]) -> None:
    problem = describe(error(SECRET), "req_1")
    assert (problem.status, problem.code) == (503, "temporarily_unavailable")
    assert SECRET not in str(problem)
    assert "same key" in problem.detail


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET), asyncpg.UniqueViolationError(SECRET),
        asyncpg.DataError(SECRET), InternalServerException(detail=SECRET),
    ],
)  # fmt: skip
def test_an_unforeseen_error_tells_nothing_but_the_request_id(error: Exception) -> None:
    problem = describe(error, "req_1")
    assert (problem.status, problem.instance, problem.errors) == (500, "req_1", ())
    assert SECRET not in str(problem)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ClientException(detail=SECRET), 400, "request_invalid"),
        (MethodNotAllowedException(detail=SECRET), 405, "method_not_allowed"),
        (HTTPException(detail=SECRET, status_code=418), 418, "request_refused"),
        (HTTPException(detail=SECRET, status_code=429), 429, "rate_limited"),
    ],
)
def test_a_refusal_of_the_framework_is_told_in_our_words(error: Exception, status: int, code: str) -> None:
    problem = describe(error, "req_1")
    assert (problem.status, problem.code) == (status, code)
    assert SECRET not in str(problem)


def test_all_faults_come_with_their_places() -> None:
    faults = tuple(Fault(pointer=f"/{name}", code=FaultCode.too_long, detail="Shorten this.") for name in "ab")
    problem = describe(errors.InvalidInput(faults), "")
    assert (problem.code, problem.errors) == ("validation_failed", faults)
    assert problem.detail == "2 fields need attention."


def test_one_fault_needs_attention() -> None:
    faults = (Fault(pointer="/a", code=FaultCode.too_long, detail="Shorten this."),)
    assert describe(errors.InvalidInput(faults), "").detail == "1 field needs attention."


def test_an_unreadable_body_has_the_code_of_what_makes_it_so() -> None:
    fault = Fault(pointer="", code=FaultCode.json_too_deep, detail="Nest less.")
    problem = describe(errors.UnreadableBody((fault,), fault.detail), "")
    assert (problem.status, problem.code, problem.detail) == (400, "json_too_deep", "Nest less.")


def test_every_code_of_a_fault_is_its_own_word() -> None:
    assert issubclass(FaultCode, StrEnum)
    assert all(code.name == code.value for code in FaultCode)
