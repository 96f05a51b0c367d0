"""Log output of a process: its own lines by allow-list, those of libraries by name alone."""

import subprocess
import sys

SCRIPT = """
import logging
from marketplace.runtime import log
log.configure()
log.logger("test").info("hello", lead="lead_1", email="robin@example.com")
try:
    raise ValueError("robin@example.com")
except ValueError:
    logging.getLogger("library").exception("robin@example.com did it")
"""


def test_neither_our_lines_nor_a_librarys_traceback_can_show_contact_data() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=100)
    ours, theirs = ran.stderr.splitlines()
    assert '"lead":"lead_1"' in ours
    assert "robin" not in ran.stderr + ran.stdout
    assert theirs == "ERROR library ValueError"
