"""Pages for operators."""

from marketplace.portal.live import LivePart
from marketplace.portal.operator import (
    audit_trail,
    certificates,
    compliance,
    contact_lists,
    deliveries,
    explorer,
    journey_reports,
    lead_list,
    notices,
    overview,
    parties,
    people,
    reports,
    returns_desk,
    scorecards,
    suspensions,
    system,
    unroutable,
    verticals,
    waiting,
    wallets,
    what_if,
)

PARTS: tuple[LivePart, ...] = overview.PARTS

handlers = (
    *overview.handlers,
    *audit_trail.handlers,
    *compliance.handlers,
    *certificates.handlers,
    *contact_lists.handlers,
    *notices.handlers,
    *people.handlers,
    *deliveries.handlers,
    *system.handlers,
    *verticals.handlers,
    *what_if.handlers,
    *scorecards.handlers,
    *parties.handlers,
    *wallets.handlers,
    *explorer.handlers,
    *returns_desk.handlers,
    *unroutable.handlers,
    *waiting.handlers,
    *suspensions.handlers,
    *lead_list.handlers,
    *reports.handlers,
    *journey_reports.handlers,
)
