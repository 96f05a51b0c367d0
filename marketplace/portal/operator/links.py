"""Links from lists of the back office to the page of a business, a provider or a lead."""

from uuid import UUID

from marketplace.portal.frame import short
from marketplace.portal.listing import Link
from marketplace.runtime import ids


def business_link(business_id: UUID, name: object) -> Link:
    return Link(f"/operator/businesses/{ids.encode('biz', business_id)}", name)


def provider_link(provider_id: UUID, name: object) -> Link:
    return Link(f"/operator/providers/{ids.encode('prov', provider_id)}", name)


def lead_link(lead_id: UUID) -> Link:
    """Return the link to the routing explorer, with the lead's id cut short."""
    lead = ids.encode("lead", lead_id)
    return Link(f"/operator/routing/{lead}", short(lead))
