"""Times until an event, with the cases that still wait for it: the estimate of Kaplan and Meier in continuous time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[Any]


def times_within(took: Times, waited: Times, shares: Sequence[float]) -> tuple[float | None, ...]:
    """Return for each of `shares` the time within which that share of the cases had the event; None if not reached.

    `took` has the times of the events, `waited` how long each other case has waited without one; NaN is no case. A case
    that has waited for ten minutes counts among those that may have the event up to then, and says nothing about later.
    So the event need not be certain: a share above the one that is ever reached has no time.
    """
    events, waiting = (np.sort(times[~np.isnan(times)]) for times in (took, waited))
    if not len(events):
        return (None,) * len(shares)
    at_risk = np.arange(len(events), 0, -1) + len(waiting) - np.searchsorted(waiting, events)
    without = np.cumprod(1 - 1 / at_risk)
    places = [int(np.searchsorted(-without, share - 1 - 1e-9)) for share in shares]
    return tuple(float(events[place]) if place < len(events) else None for place in places)
