"""Navigation of each kind of member, shown on every page and walked by tests."""

from typing import Final

import msgspec

from marketplace.security.auth import CallerKind


class NavigationEntry(msgspec.Struct, frozen=True):
    """An entry of the navigation. `group` is the heading above it on wide screens."""

    path: str
    name: str
    group: str = ""


ACCOUNT: Final = (
    NavigationEntry("/account/team", "Team", "Account"),
    NavigationEntry("/account/profile", "Profile", "Account"),
    NavigationEntry("/account/activity", "Activity", "Account"),
)

MARKETPLACE_ACCESS: Final = (NavigationEntry("/account/access", "Marketplace access", "Account"),)

BUSINESS: Final = (
    NavigationEntry("/business", "Overview"),
    NavigationEntry("/business/inbox", "Inbox"),
    NavigationEntry("/business/leads", "Leads"),
    NavigationEntry("/business/board", "Board"),
    NavigationEntry("/business/feed", "Live feed"),
    NavigationEntry("/business/wallet", "Wallet"),
    NavigationEntry("/business/reports", "Reports"),
    NavigationEntry("/business/matching", "Matching rules", "Set-up"),
    NavigationEntry("/business/customers", "My customers", "Set-up"),
    NavigationEntry("/business/receiving", "Receiving leads", "Set-up"),
    NavigationEntry("/business/delivery", "Delivery", "Set-up"),
    NavigationEntry("/business/keys", "Keys", "Set-up"),
    NavigationEntry("/business/returns", "Returns", "Set-up"),
    NavigationEntry("/business/notices", "Notices", "Set-up"),
    NavigationEntry("/business/onboarding", "First steps", "Set-up"),
)
PROVIDER: Final = (
    NavigationEntry("/provider", "Overview"),
    NavigationEntry("/provider/submissions", "Submissions"),
    NavigationEntry("/provider/waiting", "Waiting"),
    NavigationEntry("/provider/quality", "Quality"),
    NavigationEntry("/provider/earnings", "Earnings"),
    NavigationEntry("/provider/start", "First steps", "Integration"),
    NavigationEntry("/provider/spec", "Posting spec", "Integration"),
    NavigationEntry("/provider/console", "Console", "Integration"),
    NavigationEntry("/provider/keys", "Keys", "Integration"),
)
OPERATOR: Final = (
    NavigationEntry("/operator", "Overview"),
    NavigationEntry("/operator/routing", "Routing explorer"),
    NavigationEntry("/operator/unroutable", "Unroutable"),
    NavigationEntry("/operator/waiting", "Waiting leads"),
    NavigationEntry("/operator/returns", "Returns desk"),
    NavigationEntry("/operator/leads", "Leads"),
    NavigationEntry("/operator/reports", "Reports"),
    NavigationEntry("/operator/businesses", "Businesses", "Back office"),
    NavigationEntry("/operator/providers", "Providers", "Back office"),
    NavigationEntry("/operator/wallets", "Wallets", "Back office"),
    NavigationEntry("/operator/verticals", "Verticals", "Back office"),
    NavigationEntry("/operator/deliveries", "Deliveries", "Back office"),
    NavigationEntry("/operator/people", "People", "Back office"),
    NavigationEntry("/operator/compliance", "Compliance", "Back office"),
    NavigationEntry("/operator/audit", "Audit", "Back office"),
    NavigationEntry("/operator/system", "System", "Back office"),
    NavigationEntry("/operator/going-live", "Going live", "Back office"),
)

NAVIGATION: Final = {
    CallerKind.business: (*BUSINESS, *ACCOUNT, *MARKETPLACE_ACCESS),
    CallerKind.provider: (*PROVIDER, *ACCOUNT, *MARKETPLACE_ACCESS),
    CallerKind.operator: (*OPERATOR, *ACCOUNT),
}

HOMES: Final = {CallerKind.business: "/business", CallerKind.provider: "/provider", CallerKind.operator: "/operator"}


def current(kind: CallerKind, path: str) -> str:
    """Return the path of the entry that `path` belongs to, the longest that it begins with; empty if there is none."""
    entries = [entry.path for entry in NAVIGATION[kind] if path == entry.path or path.startswith(f"{entry.path}/")]
    return max(entries, key=len, default="")
