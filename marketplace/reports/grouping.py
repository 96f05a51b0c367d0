"""Groups of leads in a report: by vertical, by provider, or by the week in which they were received."""

from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
import numpy as np

from marketplace.database.db import Pool, session
from marketplace.reports.figures import DAY, LeadSelection, Numbers, Party, list_parties, local_minutes
from marketplace.reports.question import Question
from marketplace.runtime import ids

EPOCH: Final = date(1970, 1, 1)
THURSDAY: Final = 3
"Days from the Monday of the week of 1970-01-01 to that day."


class LeadGrouping(StrEnum):
    """Grouping of the report."""

    vertical = "vertical"
    provider = "provider"
    week = "week"


class GroupName(NamedTuple):
    """Key of a group in the API, and its name: a week by its Monday, a provider by its id, a vertical by its slug."""

    key: str
    name: str


async def list_group_parties(pool: Pool, by: LeadGrouping) -> dict[int, Party]:
    """Return the providers or verticals by number; none for weeks."""
    if by is LeadGrouping.week:
        return {}
    async with session(pool) as connection:
        return await list_parties(connection, by)


def group_codes(question: Question, leads: LeadSelection, by: LeadGrouping) -> Numbers:
    """Return the group of each lead: the number of its vertical or provider, or of its week in the question's zone."""
    if by is LeadGrouping.week:
        return np.asarray((local_minutes(leads.minutes(), question.zone) // DAY + THURSDAY) // 7, np.int64)
    return leads[by].astype(np.int64)


def name_group(by: LeadGrouping, code: int, parties: Mapping[int, Party]) -> GroupName:
    """Return key and name of a group."""
    if by is LeadGrouping.week:
        monday = (EPOCH + timedelta(days=7 * code - THURSDAY)).isoformat()
        return GroupName(monday, monday)
    party = parties[code]
    return GroupName(ids.encode("prov", party.id) if by is LeadGrouping.provider else party.name, party.name)


def group_question(question: Question, by: LeadGrouping, key: str) -> Question:
    """Return the question about one group alone, by its key."""
    match by:
        case LeadGrouping.vertical:
            return msgspec.structs.replace(question, vertical=key)
        case LeadGrouping.provider:
            return msgspec.structs.replace(question, provider_id=ids.decode("prov", key))
        case LeadGrouping.week:
            monday = date.fromisoformat(key)
            first, last = max(monday, question.first), min(monday + timedelta(days=6), question.last)
            return msgspec.structs.replace(question, first=first, last=last)
