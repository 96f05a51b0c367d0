"""Lists over HTTP: what comes back of a file, every refusal, and the limits."""

from typing import Any

import httpx
import pytest

from marketplace.runtime import clock
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import http as lists_http
from tests.builders.inquiries import roofing_body
from tests.builders.service import Served

CSV = {"content-type": "text/csv"}


async def new_list(api: Served, key: str | None = None, **terms: Any) -> str:
    made = await api.make("/v1/lists", {"name": "National", **terms}, key=key)
    return str(made["id"])


async def send(api: Served, list_id: str, text: str, query: str = "", key: str | None = None) -> httpx.Response:
    return await api.call("POST", f"/v1/lists/{list_id}/imports{query}", text.encode(), key=key, headers=CSV)


async def test_a_file_is_imported_and_its_faults_are_named_by_row(api: Served) -> None:
    list_id = await new_list(api)
    run = (await send(api, list_id, "phone\n+13125550101\nx\n(312) 555-0101\n")).json()
    assert (run["state"], run["rows"], run["added"], run["repeated"], run["faulty"]) == ("done", 3, 1, 1, 1)
    detail = (await api.call("GET", f"/v1/lists/{list_id}/imports/{run['id']}")).json()
    assert detail["faults"] == [{"row": 3, "code": "phone_invalid"}]
    shown = (await api.call("GET", f"/v1/lists/{list_id}")).json()
    assert (shown["members"], shown["version"], shown["is_stale"]) == (1, 1, False)
    assert [row["id"] for row in (await api.call("GET", f"/v1/lists/{list_id}/imports")).json()["data"]] == [run["id"]]


async def test_an_inquiry_of_a_listed_person_is_suppressed_until_the_import_is_undone(api: Served) -> None:
    await api.vertical()
    _, key = await api.provider()
    list_id = await new_list(api)
    run = (await send(api, list_id, "+13125550101\n")).json()
    bodies = [roofing_body(1, clock.now(), provider_reference=f"r{number}") for number in range(2)]
    assert (await api.call("POST", "/v1/inquiries", bodies[0], key=key)).json()["state"] == "suppressed"
    assert (await api.call("POST", f"/v1/lists/{list_id}/imports/{run['id']}/undo")).json()["state"] == "undone"
    assert (await api.call("POST", "/v1/inquiries", bodies[1], key=key)).json()["state"] == "received"


REFUSED = [
    ("", "no_rows"),
    ("name,age\nJane,5\n", "field_missing"),
    ("+13125550101\n+131255", "file_cut"),
    ("1\n2\n+13125550101\n", "mostly_faulty"),
    ("\xff\xfe\x00", "field_missing"),
    ('"', "field_missing"),
    ('"3\r4",5\n', "no_rows"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED)
async def test_a_file_that_is_no_list_is_refused_with_a_code(api: Served, text: str, code: str) -> None:
    reply = await send(api, await new_list(api), text)
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, code), reply.text


async def test_bad_options_names_and_sizes_are_refused(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    list_id = await new_list(api)
    for query in ("?way=x", "?country=usa", "?smaller=perhaps"):
        assert (await send(api, list_id, "+13125550101\n", query)).status_code == 422
    assert (await api.call("POST", "/v1/lists", {"name": "National"})).status_code == 409
    assert (await api.call("POST", "/v1/lists", {"name": " "})).status_code == 422
    monkeypatch.setattr(lists_http, "LARGEST_UPLOAD", 5)
    assert (await send(api, list_id, "+13125550101\n")).status_code == 413


async def test_a_business_keeps_so_many_lists_of_its_own_and_none_that_stops_sales(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await api.business()
    monkeypatch.setattr(lists_flow, "MOST_LISTS", 1)
    assert (await api.call("POST", "/v1/lists", {"name": "a", "stops_sales": True}, key=key)).status_code == 422
    list_id = await new_list(api, key)
    assert (await api.call("POST", "/v1/lists", {"name": "b"}, key=key)).status_code == 409
    assert (await send(api, list_id, "+13125550101\n", key=key)).status_code == 201
    assert (await api.call("GET", "/v1/lists:kept-away", key=key)).json() == {"days": 30, "leads": None}
    assert (await api.call("GET", f"/v1/lists/{list_id}")).status_code == 404
    assert (await api.call("GET", "/v1/lists")).json()["data"] == []
