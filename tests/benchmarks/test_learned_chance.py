"""The measurement of the learned chance on the education leads."""

from pathlib import Path

import pytest

from benchmarks.education_leads import FILE, MAPPING
from benchmarks.learned_chance import judge_bant, learn, main, read_leads
from marketplace.learning.training import plan_for
from marketplace.replay.mapping import load_mapping


def test_without_the_file_the_measurement_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.csv"
    monkeypatch.setattr("sys.argv", ["learned_chance.py", str(missing)])
    main()
    assert capsys.readouterr().out == f"Skipped: the file of leads is not at {missing}.\n"


@pytest.mark.slow
@pytest.mark.skipif(not FILE.exists(), reason=f"the public file of leads is not at {FILE}")
def test_the_card_ranks_real_leads_better_than_the_policy() -> None:
    mapping = load_mapping(MAPPING)
    assert mapping.definition is not None
    leads = read_leads(FILE, mapping)
    evaluation = learn(leads, plan_for(mapping.vertical, mapping.definition)).evaluation
    suggestion, best_of_bant = judge_bant(leads)
    assert evaluation.auc >= 0.86
    assert evaluation.calibration_error <= 0.03
    assert evaluation.won_of_best >= 0.83 > best_of_bant
    assert suggestion.auc >= 0.80
