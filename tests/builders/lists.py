"""A business's list of own customers with one import, for tests of access."""

from io import BytesIO

from marketplace.runtime import ids
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import ListKind, ListTerms
from tests.builders.marketplaces import Buyer, Marketplace


async def fill_list(market: Marketplace, buyer: Buyer) -> dict[str, str]:
    """Make the list of a business with one member; its id as `list`, that of its import as `limp`."""
    kind, owner = ListKind.own_customers, buyer.business_id
    made = await lists_flow.make_list(market.api, "test", kind, owner, "Customers", ListTerms())
    text = BytesIO(b"+13125559999\n")
    run = await lists_flow.import_stream(market.api, market.sealer, "test", made, text, "x.csv", ImportOptions())
    return {"list": ids.encode("list", made.id), "limp": ids.encode("limp", run.id)}
