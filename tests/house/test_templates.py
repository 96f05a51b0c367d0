"""Templates that a person can review: no line is longer than a diff shows."""

from pathlib import Path

TEMPLATES = Path(__file__).parents[2] / "marketplace" / "portal" / "templates"
LONGEST_LINE = 160


def test_no_line_of_a_template_is_longer_than_a_diff_shows() -> None:
    paths = sorted(TEMPLATES.rglob("*.html"))
    assert paths
    long = [
        f"{path.relative_to(TEMPLATES)}:{number}: {len(line)} characters"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]
    assert not long, f"break these lines within a tag or an expression, after a statement, or at a space: {long}"
