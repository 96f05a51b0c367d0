"""Where each kind of member can go: the head of every page, and the list that the tests walk."""

from typing import Final

import msgspec

from marketplace.auth import Kind


class Place(msgspec.Struct, frozen=True):
    """One entry of the navigation. `group` is its heading on wide screens."""

    path: str
    name: str
    group: str = ""


ACCOUNT: Final = (
    Place("/account/team", "Team", "Account"),
    Place("/account/profile", "Profile", "Account"),
    Place("/account/activity", "Activity", "Account"),
)

ENTRANCES: Final = (Place("/account/access", "Marketplace access", "Account"),)

BUSINESS: Final = (
    Place("/business", "Overview"),
    Place("/business/leads", "Leads"),
    Place("/business/feed", "Live feed"),
    Place("/business/wallet", "Wallet"),
    Place("/business/reports", "Reports"),
    Place("/business/matching", "Matching rules", "Set-up"),
    Place("/business/delivery", "Delivery", "Set-up"),
    Place("/business/returns", "Returns", "Set-up"),
    Place("/business/onboarding", "First steps", "Set-up"),
)
PROVIDER: Final = (
    Place("/provider", "Overview"),
    Place("/provider/submissions", "Submissions"),
    Place("/provider/quality", "Quality"),
    Place("/provider/earnings", "Earnings"),
    Place("/provider/start", "Getting started", "Integration"),
    Place("/provider/spec", "Posting spec", "Integration"),
    Place("/provider/console", "Console", "Integration"),
    Place("/provider/keys", "Keys", "Integration"),
)
OPERATOR: Final = (
    Place("/operator", "Control room"),
    Place("/operator/routing", "Routing explorer"),
    Place("/operator/unroutable", "Unroutable"),
    Place("/operator/returns", "Returns desk"),
    Place("/operator/leads", "Leads"),
    Place("/operator/reports", "Reports"),
    Place("/operator/businesses", "Businesses", "Back office"),
    Place("/operator/providers", "Providers", "Back office"),
    Place("/operator/wallets", "Wallets", "Back office"),
    Place("/operator/verticals", "Verticals", "Back office"),
    Place("/operator/deliveries", "Deliveries", "Back office"),
    Place("/operator/compliance", "Compliance", "Back office"),
    Place("/operator/audit", "Audit", "Back office"),
    Place("/operator/system", "System", "Back office"),
    Place("/operator/going-live", "Going live", "Back office"),
)

NAVIGATION: Final = {
    Kind.business: (*BUSINESS, *ACCOUNT, *ENTRANCES),
    Kind.provider: (*PROVIDER, *ACCOUNT, *ENTRANCES),
    Kind.operator: (*OPERATOR, *ACCOUNT),
}

HOMES: Final = {Kind.business: "/business", Kind.provider: "/provider", Kind.operator: "/operator"}


def current(kind: Kind, path: str) -> str:
    """The path of the entry that `path` belongs to: the longest that it begins with, or none."""
    found = [place.path for place in NAVIGATION[kind] if path == place.path or path.startswith(f"{place.path}/")]
    return max(found, key=len, default="")
