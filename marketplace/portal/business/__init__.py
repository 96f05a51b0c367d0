"""The pages of a business."""

from marketplace.portal.business import (
    answers,
    board,
    board_stages,
    customers,
    delivery,
    imports,
    inbox,
    keys,
    lead_list,
    leads,
    matching,
    missed_leads,
    notices,
    onboarding,
    overview,
    practice,
    receiving,
    reports,
    returns,
    shared_leads,
    statement,
    wallet,
)
from marketplace.portal.live import LivePart

PARTS: tuple[LivePart, ...] = (overview.LATEST_PART, overview.FEED_PART, overview.WHY_PART, inbox.CARDS_PART)

handlers = (
    *overview.handlers,
    *onboarding.handlers,
    *inbox.handlers,
    *practice.handlers,
    *lead_list.handlers,
    *leads.handlers,
    *board.handlers,
    *board_stages.handlers,
    *matching.handlers,
    *customers.handlers,
    *receiving.handlers,
    *keys.handlers,
    *delivery.handlers,
    *answers.handlers,
    *wallet.handlers,
    *statement.handlers,
    *returns.handlers,
    *notices.handlers,
    *reports.handlers,
    *missed_leads.handlers,
    *shared_leads.handlers,
    *imports.handlers,
)
