"""Temporary directories for embedded engines."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a directory that PostgreSQL's account can enter, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place
