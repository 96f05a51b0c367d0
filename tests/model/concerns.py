"""Tables and rows that a statement touches, from its text and the catalog, to tell whether two steps are independent.

Nothing here is about one transition or another: tables are found by their names in a statement, in the functions that
it calls, and in the triggers and foreign keys of what it writes. A name too many costs schedules and never hides one.
"""

import re
from collections import defaultdict
from typing import Any, Final

import msgspec

from tests.model.interleaving import COMMIT, Step

CONTACT_READ: Final = "read_contact("
"The database function after whose answer a request with the contact is sent, and without which none is."
CHANGE: Final = re.compile(r"\b(?:update|delete from|on conflict)\s+(?:only\s+)?(?:public\.)?(\w+)")
ADD: Final = re.compile(r"\binsert into\s+(?:public\.)?(\w+)")
LOCK: Final = re.compile(r"\bfor (?:no key )?(?:update|share)\b")

CATALOG: Final = """
select 'table' as kind, relname::text as name, '' as more from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
union all select 'view', relname::text, pg_get_viewdef(oid) from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'v'
union all select 'function', proname::text, prosrc from pg_proc where pronamespace = 'public'::regnamespace
union all select 'trigger', tgrelid::regclass::text, tgfoid::regproc::text from pg_trigger where not tgisinternal
union all select 'parent', conrelid::regclass::text, confrelid::regclass::text from pg_constraint where contype = 'f'
union all select 'one of a kind', indrelid::regclass::text, '' from pg_index
    where (indisunique or indisexclusion) and not (indisprimary and pg_get_indexdef(indexrelid) like '%(id)')
"""


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """Names of tables: read, changed or locked in rows that exist, and given new rows."""

    reads: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()
    adds: frozenset[str] = frozenset()

    def __or__(self, other: "Touch") -> "Touch":
        return Touch(reads=self.reads | other.reads, changes=self.changes | other.changes, adds=self.adds | other.adds)

    @property
    def writes(self) -> frozenset[str]:
        return self.changes | self.adds


class Concerns:
    """Dependence between the next steps of two transitions, each transaction at READ COMMITTED.

    Two statements depend on each other when one changes or locks rows of a table in which the other does, or when
    both add rows to a table that takes some only once. The end of a transaction and a statement do when the statement
    reads or writes what the transaction wrote. With `answers_differ`, two that read a contact do, because a request
    follows each, and the server gives its answers in the order of the requests.
    """

    def __init__(self, rows: list[Any], answers_differ: bool) -> None:
        self._answers_differ = answers_differ
        self._named: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            self._named[row["kind"]][row["name"]].append(row["more"])
        self._known: dict[str, Touch] = {}

    @classmethod
    async def of(cls, connection: Any, *, answers_differ: bool) -> "Concerns":
        return cls(await connection.fetch(CATALOG), answers_differ)

    def touch(self, sql: str) -> Touch:
        """Return what a statement touches, with its triggers and functions."""
        if sql not in self._known:
            self._known[sql] = Touch()  # a function that calls itself touches no more by that
            self._known[sql] = self._read(re.sub(r"--[^\n]*|'[^']*'", " ", sql.lower()))
        return self._known[sql]

    def _read(self, sql: str) -> Touch:
        words = set(re.findall(r"\w+", sql))
        touch = Touch(reads=frozenset(words & self._named["table"].keys()))
        changes, adds = {name for name in CHANGE.findall(sql) if name in touch.reads}, set(ADD.findall(sql))
        if any("advisory" in word for word in words):
            changes.add("advisory")
        if " on conflict" in sql:
            changes |= adds
        touch |= Touch(changes=frozenset(changes), adds=frozenset(adds - changes))
        for name in words & (self._named["function"].keys() | self._named["view"].keys()):
            for source in self._named["function"][name] + self._named["view"][name]:
                touch |= self.touch(source)
        for table in touch.writes:  # of rows that are only locked, no trigger runs
            touch |= Touch(reads=frozenset(self._named["parent"][table]))
            for function in self._named["trigger"][table]:
                touch |= self.touch(function)
        if LOCK.search(sql):
            touch |= Touch(changes=frozenset(words & self._named["table"].keys()))
        return touch

    def __call__(self, first: Step, second: Step) -> bool:
        if self._answers_differ and CONTACT_READ in first.statement and CONTACT_READ in second.statement:
            return True
        left, right = self._now(first), self._now(second)
        if self._at_once(left, right):
            return True
        return bool(
            self._committed(first) & (right.reads | right.writes)
            or self._committed(second) & (left.reads | left.writes)
        )

    def _now(self, step: Step) -> Touch:
        return Touch() if step.statement == COMMIT else self.touch(step.statement)

    def _at_once(self, first: Touch, other: Touch) -> bool:
        both = first.writes & other.writes
        return bool(first.changes & other.changes or both & self._named["one of a kind"].keys())

    def _committed(self, step: Step) -> frozenset[str]:
        """Return what becomes visible to other transactions with this step."""
        if step.in_transaction and step.statement != COMMIT:
            return frozenset()
        writes = [self.touch(sql).writes for sql in (*step.uncommitted, step.statement) if sql != COMMIT]
        return frozenset().union(*writes)
