"""Every statement that reads what an import may have brought leaves out what was undone."""

import re
from pathlib import Path
from typing import Final

import marketplace
from marketplace.database.db import Queries

READS: Final = re.compile(r"(?:from|join)\s+(?:only\s+)?(disposition|shared_lead|shared_import)\b")
FOLLOWING: Final = frozenset({"take_turn", "keep_outcomes", "find_change", "list_after"})
"They ask which leads were spoken of by a transaction, or announce a change, and an undoing is one."
OWN: Final = frozenset({"list_own"})
"As above, for one business."


def test_every_statement_that_reads_dispositions_or_shared_leads_leaves_out_what_was_undone() -> None:
    readers, wrong = 0, []
    for path in sorted(Path(marketplace.__file__).parent.rglob("*.sql")):
        for name, text in Queries(str(path), path.name).statements.items():
            reads = READS.findall(text)
            if not reads or name in FOLLOWING | OWN:
                continue
            readers += 1
            if text.count("undone_at") < len(reads):
                wrong.append(f"{path.name}: {name} reads {', '.join(reads)}")
    assert not wrong
    assert readers >= 8
