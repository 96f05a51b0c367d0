"""Admission of inquiries under overload: how many a second are taken in, and from whom.

Workers report how long new leads wait for their first decision. While that is short, every inquiry is taken in. When it
is long, this process takes in what the workers handle and no more, less still while the wait stays long. When the wait
is short again, the limit rises until nothing has to be refused. So the limit follows from the measured time in the
queue, and needs no setting. A refusal comes before anything is read or written.

Long is more than WAIT_HIGH_S and more than GROWN times the shortest wait of the last MEMORY_S: on a slow machine leads
take longer though none waits for another, and taking in fewer would not help. One or two long waits are no overload:
the machine may have stood still for a moment.

Providers share the limit equally. What one does not use, the others may.
"""

from collections import OrderedDict, deque
from typing import Final

import msgspec

from marketplace.runtime.queue import WorkerLoad

WAIT_HIGH_S: Final = 0.1
"""A shorter wait of leads is never an overload. Below queue.FRESH_MS: a job that has waited for longer is claimed after
newer ones."""
LONG_STEPS: Final = 3
"Long waits in a row that begin a limit."
GROWN: Final = 1.8
"""Factor by which the wait grows in an overload, above the shortest. Below 1 / LOW_SHARE, so that the waits to which an
overload is held do not raise the bound."""
MEMORY_S: Final = 10.0
"Time in which the shortest wait, and the most that the workers handle, are looked for."
LOW_SHARE: Final = 0.5
"Part of the long wait, below which the limit rises."
STEP_S: Final = 0.1
"Interval of changes of the limit: workers report as often."
FEEDBACK_S: Final = 0.3
"Time after a decrease in which its effect is awaited before the next."
FIRST_SHARE: Final = 0.7
"First limit, as a share of the leads that the workers handle: the rest reduces what waits already."
LEAST_SHARE: Final = 0.5
"Lowest limit, as a share of the most leads that the workers handled in MEMORY_S."
DECREASE: Final = 0.9
INCREASE: Final = 1.05
"Factor of the limit in each step with a short wait: it doubles in 1.4 seconds."
LEAST_PER_SECOND: Final = 5.0
BURST_S: Final = 0.1
"Seconds of the limit that may be used at once."
ACTIVE_S: Final = 1.0
"Time after its last inquiry for which a provider has a share."
MOST_KEYS: Final = 10_000
"Keys whose provider is remembered."


class _Share(msgspec.Struct, kw_only=True):
    """Inquiries that one provider may send now, and the time of its last one. Mutable, because it counts down."""

    credit: float
    asked_at: float


class Admission:
    """Limit of one process on the inquiries that it takes in. All times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.limit: float | None = None
        "Inquiries taken in per second; None while all are."
        self._shares: dict[str, _Share] = {}
        self._spare = 0.0
        self._filled_at = 0.0
        self._next_step = 0.0
        self._long_steps = 0
        self._offered = 0
        self._loads: deque[tuple[float, WorkerLoad]] = deque()
        self._providers: OrderedDict[str, str] = OrderedDict()

    def see(self, load: WorkerLoad | None, now: float) -> None:
        """Adapt the limit to the load of the workers, None if nothing is known of it; at most once in STEP_S."""
        if now < self._next_step:
            return
        offered, self._offered = self._offered, 0
        elapsed, self._next_step = max(STEP_S, now - self._next_step + STEP_S), now + STEP_S
        waited_s = load.waited_s if load else 0.0
        long_s = self._remember(load, now)
        self._long_steps = self._long_steps + 1 if waited_s > long_s else 0
        if self._long_steps >= LONG_STEPS or (self._long_steps and self.limit is not None):
            self._lower(now)
        elif self.limit is not None and waited_s < LOW_SHARE * long_s:
            self.limit *= INCREASE
            if self.limit > 2 * offered / elapsed:
                self.limit = None

    def _remember(self, load: WorkerLoad | None, now: float) -> float:
        """Add a load to those of the last MEMORY_S, and return the wait above which it is an overload."""
        if load is not None and load.per_second:
            self._loads.append((now, load))
        while self._loads and self._loads[0][0] < now - MEMORY_S:
            self._loads.popleft()
        return max(WAIT_HIGH_S, GROWN * min((past.waited_s for _, past in self._loads), default=0.0))

    def _lower(self, now: float) -> None:
        handled = max((past.per_second for _, past in self._loads), default=0.0)
        if self.limit is None:
            self._shares.clear()
            self._spare, self._filled_at = 0.0, now
            self.limit = FIRST_SHARE * handled
        else:
            self.limit = max(DECREASE * self.limit, LEAST_SHARE * handled)
        self.limit = max(self.limit, LEAST_PER_SECOND)
        self._next_step = now + FEEDBACK_S

    def refuses(self, key: str, now: float) -> bool:
        """Return whether an inquiry under this key would be refused, before its caller is known for certain.

        Of keys not seen before, none is refused.
        """
        self._offered += 1
        provider = self._providers.get(key)
        if self.limit is None or provider is None:
            return False
        self._fill(provider, now)
        return self._shares[provider].credit < 1 and self._spare < 1

    def take(self, provider: str, key: str, now: float) -> bool:
        """Take one inquiry of this provider off its share, or off what others leave; return whether there was one."""
        self._providers[key] = provider
        if len(self._providers) > MOST_KEYS:
            self._providers.popitem(last=False)
        if self.limit is None:
            return True
        self._fill(provider, now)
        share = self._shares[provider]
        if share.credit >= 1:
            share.credit -= 1
            return True
        if self._spare >= 1:
            self._spare -= 1
            return True
        return False

    def _fill(self, provider: str, now: float) -> None:
        """Divide the limit of the time since the last call among the providers that are active."""
        assert self.limit is not None
        self._shares.setdefault(provider, _Share(credit=1.0, asked_at=now)).asked_at = now
        elapsed, self._filled_at = min(now - self._filled_at, BURST_S), now
        active = {name: share for name, share in self._shares.items() if now - share.asked_at < ACTIVE_S}
        part, most = elapsed * self.limit / len(active), max(1.0, BURST_S * self.limit / len(active))
        for share in active.values():
            self._spare += max(0.0, share.credit + part - most)
            share.credit = min(most, share.credit + part)
        self._spare = min(self._spare, max(1.0, BURST_S * self.limit))
        self._shares = active
