"""The pages of a business."""

from marketplace.portal.business import (
    delivery,
    giving_back,
    imports,
    lead_list,
    leads,
    matching,
    onboarding,
    overview,
    reports,
    shared,
    wallet,
)
from marketplace.portal.live import Part

PARTS: tuple[Part, ...] = (overview.LATEST_PART, overview.FEED_PART, overview.WHY_PART)

handlers = (
    *overview.handlers,
    *onboarding.handlers,
    *lead_list.handlers,
    *leads.handlers,
    *matching.handlers,
    *delivery.handlers,
    *wallet.handlers,
    *giving_back.handlers,
    *reports.handlers,
    *shared.handlers,
    *imports.handlers,
)
