"""Kinds and states of notices in words, for the pages of businesses and operators."""

from collections.abc import Mapping
from typing import Final

from marketplace.notices.store import NoticeKind, NoticeRow, NoticeState
from marketplace.web.http import AnyRequest

NOTICE_KINDS: Final[Mapping[NoticeKind, str]] = {
    NoticeKind.erased: "Delete all data of this person",
    NoticeKind.revoked: "Stop contacting this person",
    NoticeKind.updated: "Read the changed facts of this lead",
}
NOTICE_STATES: Final[Mapping[NoticeState, str]] = {
    NoticeState.due: "Open",
    NoticeState.acknowledged: "Acknowledged",
    NoticeState.overdue: "Overdue",
    NoticeState.withdrawn: "Replaced by an erasure",
}
NOTICE_TONES: Final[Mapping[NoticeState, str]] = {
    NoticeState.due: "busy",
    NoticeState.acknowledged: "good",
    NoticeState.overdue: "bad",
    NoticeState.withdrawn: "muted",
}
CHANNELS: Final[Mapping[str, str]] = {"call": "calls", "text": "text messages", "email": "e-mail", "post": "letters"}


def channels_of(notice: NoticeRow) -> str:
    """Return the channels of a revoked consent in words, empty for other notices."""
    channels = notice.detail.get("channels", ())
    if len(channels) == len(CHANNELS):
        return "all"
    return ", ".join(CHANNELS.get(channel, channel) for channel in channels)


def read_state(request: AnyRequest) -> NoticeState | None:
    """Return the state in the query of a page, or None without one that there is."""
    text = request.query_params.get("state")
    return NoticeState(text) if text in set(NOTICE_STATES) else None
