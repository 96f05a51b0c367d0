"""Many stored leads: the disk that they need, and the pages that are timed."""

import pytest

from benchmarks import growth
from marketplace.runtime.settings import StartError


def test_the_main_pages_are_pages_of_the_portal() -> None:
    assert {page.path for page in growth.main_pages()} == growth.MAIN_PAGES


def test_too_little_disk_is_said_in_one_sentence_before_the_start() -> None:
    growth.check_disk((0, 1_000_000), free=200_000_000_000)
    with pytest.raises(StartError, match=r"10,000,000 leads need \d+ GB in .*, which has 5 GB\. Free some space"):
        growth.check_disk((0, 10_000_000), free=5_000_000_000)
