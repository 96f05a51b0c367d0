"""The comparison of the shipped mapping with what became of the leads."""

from pathlib import Path

import pytest

from benchmarks.education_leads import FILE, MAPPING, count, main
from marketplace.replay.mapping import load_mapping


def test_without_the_file_the_comparison_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.csv"
    monkeypatch.setattr("sys.argv", ["education_leads.py", str(missing)])
    main()
    assert capsys.readouterr().out == f"Skipped: the file of leads is not at {missing}.\n"


@pytest.mark.skipif(not FILE.exists(), reason=f"the public file of leads is not at {FILE}")
def test_rejected_leads_become_customers_far_less_often_than_qualified_ones() -> None:
    shares = {
        outcome: numbers["customers"] / numbers["leads"]
        for outcome, numbers in count(FILE, load_mapping(MAPPING)).items()
    }
    rejected = max(share for outcome, share in shares.items() if outcome.startswith("rejected"))
    qualified = min(share for outcome, share in shares.items() if outcome.startswith("qualified"))
    assert rejected < qualified / 2
