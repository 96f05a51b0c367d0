"""The export of a person names each list that has the person, and since when; never a hash."""

from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO

import pytest

from marketplace.people.flow import encode_export, export_person
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import ContactList, ImportWay, ListKind, ListTerms
from tests.builders.marketplaces import Marketplace, marketplace

PHONE, EMAIL = "phone:+13125550101", "email:robin.1@example.com"


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as made:
        yield made


async def fill(market: Marketplace, contact_list: ContactList, text: str) -> None:
    current = await lists_flow.load_list(market.api, contact_list.id, None)
    options, file = ImportOptions(way=ImportWay.add), BytesIO(text.encode())
    await lists_flow.import_stream(market.api, market.sealer, "test", current, file, "list.csv", options)


async def new_list(market: Marketplace, name: str, text: str, owner: object = None) -> ContactList:
    kind = ListKind.do_not_contact if owner is None else ListKind.own_customers
    made = await lists_flow.make_list(market.api, "test", kind, owner, name, ListTerms())  # type: ignore[arg-type]
    await fill(market, made, text)
    return made


async def test_an_export_names_each_list_that_has_the_person_and_since_when(market: Marketplace) -> None:
    buyer = await market.buyer(None)
    began = clock.now()
    national = await new_list(market, "National", "+13125550101\n")
    joined = clock.now()
    await fill(market, national, "+13125550199\n")
    digest = sha256(b"robin.1@example.com").hexdigest()
    await new_list(market, "Clients", f"{digest}\n+13125550101\n", buyer.business_id)
    await new_list(market, "Others", "+13125550102\n")
    removed = await new_list(market, "Removed", "+13125550101\n")
    await lists_flow.remove_list(market.api, "test", removed)
    undone = await new_list(market, "Undone", "+13125550103\n")
    await fill(market, undone, "+13125550101\n")
    await lists_flow.undo_last(market.api, "test", await lists_flow.load_list(market.api, undone.id, None))
    export = await export_person(market.api, market.sealer, "key_x", (PHONE, EMAIL), "access request")
    assert [(row.kind, row.name, row.business) for row in export.lists] == [
        ("do_not_contact", "National", None),
        ("own_customers", "Clients", "Example Business"),
    ]
    assert export.lists[0].since is not None
    assert began <= export.lists[0].since <= joined
    text = encode_export(export).decode()
    assert digest not in text
    assert "13125550101" not in text
    stranger = await export_person(market.api, market.sealer, "key_x", ("phone:+13125550177",), "access request")
    assert stranger.lists == ()
