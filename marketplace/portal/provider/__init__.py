"""Pages for providers."""

from marketplace.portal.live import LivePart
from marketplace.portal.provider import (
    approvals,
    console,
    earnings,
    keys,
    onboarding,
    overview,
    quality,
    spec,
    submissions,
    waiting,
)

PARTS: tuple[LivePart, ...] = ()

handlers = (
    *overview.handlers,
    *onboarding.handlers,
    *spec.handlers,
    *console.handlers,
    *submissions.handlers,
    *waiting.handlers,
    *quality.handlers,
    *earnings.handlers,
    *keys.handlers,
    *approvals.handlers,
)
