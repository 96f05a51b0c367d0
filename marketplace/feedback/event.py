"""The event of a change of stage, as it is sent to a business's endpoint and listed by the API."""

from datetime import datetime
from typing import Literal

import msgspec

from marketplace.feedback.store import DispositionKind


class StageChangedData(msgspec.Struct, frozen=True, kw_only=True):
    """The lead and its stages, without contact data. `stage` is null if an undone move was the first of its lead.

    With `undone`, the disposition of this `kind` does not count any more, and the lead is in `stage` again.
    """

    lead_id: str
    assignment_id: str
    mode: str
    stage: str | None
    previous_stage: str | None
    kind: DispositionKind
    undone: bool
    value_minor: int | None
    currency: str
    starts_at: datetime | None
    happened_at: datetime


class StageChangedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of yours is in another stage. The endpoint that you chose for changes is sent it as a webhook."""

    type: Literal["lead.stage_changed"] = "lead.stage_changed"
    timestamp: datetime
    data: StageChangedData
