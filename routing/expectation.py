"""Expected value of a sale: the price times the chance that the sale stays, and what the business itself may expect.

A sale stays unless the business gives the lead back. The shares of businesses with few leads are pulled to that of the
vertical. What a business may expect is the chance to win the lead times what a job is worth to it, less the price.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

import msgspec

PRIOR_LEADS: Final = 50
"""Leads of the vertical that are added to those of each business. With 50 leads of its own, the share of a business
counts for half: the standard error of a share of 10 % is then 4 percentage points, as much as businesses may differ."""

FEWEST_JOBS: Final = 10
"Jobs from which their mean value counts instead of the value that the business declared."


class BusinessSales(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a vertical that a business was charged for, those it gave back, and its jobs with their value.

    `declared_minor` is the value of a job as the business declared it, in minor units; None if it did not.
    """

    leads: int = 0
    returned: int = 0
    jobs: int = 0
    jobs_minor: int = 0
    declared_minor: int | None = None


class LeadExpectation(msgspec.Struct, frozen=True, kw_only=True):
    """Input of ranking by expected value: the chance of each business to win the lead, and its sales.

    `return_share` is the share of the vertical's leads that businesses gave back.
    """

    probabilities: Mapping[UUID, float]
    sales: Mapping[UUID, BusinessSales]
    return_share: float


def return_share_of(sales: Iterable[BusinessSales]) -> float:
    """Return the share of all leads that were given back; 0 without leads."""
    leads = returned = 0
    for business in sales:
        leads += business.leads
        returned += business.returned
    return returned / leads if leads else 0.0


def chance_to_stay(sales: BusinessSales | None, return_share: float) -> float:
    """Return the chance that a business keeps a lead. `return_share` is that of its vertical."""
    own = sales or BusinessSales()
    return 1 - (own.returned + PRIOR_LEADS * return_share) / (own.leads + PRIOR_LEADS)


def job_value_minor(sales: BusinessSales | None) -> float | None:
    """Return what a job is worth to a business, in minor units: the mean of its jobs, or what it declared, or None."""
    if sales is None:
        return None
    if sales.jobs >= FEWEST_JOBS:
        return sales.jobs_minor / sales.jobs
    return None if sales.declared_minor is None else float(sales.declared_minor)


def expected_gain_minor(probability: float | None, sales: BusinessSales | None, price_minor: int) -> float | None:
    """Return what a business may expect of a lead beyond its price, in minor units.

    None without a chance or a value of a job.
    """
    value = job_value_minor(sales)
    return None if value is None or probability is None else probability * value - price_minor
