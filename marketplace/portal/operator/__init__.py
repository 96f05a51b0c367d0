"""The pages of an operator."""

from marketplace.portal.live import Part
from marketplace.portal.operator import (
    audit_trail,
    behind,
    compliance,
    deliveries,
    explorer,
    overview,
    parties,
    reports,
    returns_desk,
    suspensions,
    system,
    unroutable,
    verticals,
    wallets,
)

PARTS: tuple[Part, ...] = overview.PARTS

handlers = (
    *overview.handlers, *audit_trail.handlers, *compliance.handlers, *deliveries.handlers, *system.handlers,
    *verticals.handlers, *parties.handlers, *wallets.handlers, *explorer.handlers, *returns_desk.handlers,
    *unroutable.handlers, *suspensions.handlers, *behind.handlers, *reports.handlers,
)  # fmt: skip
