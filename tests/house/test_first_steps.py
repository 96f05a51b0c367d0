"""The first five minutes of the README, run as they stand, give what the README shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.runtime.settings import Settings
from tests.builders.service import free_port
from tests.house.test_documents import FENCE, README
from tests.marketplace.test_cli import of
from tests.waiting import PATIENCE

FIGURES = re.compile(r"\d[\d.,]*(?= rows| checks| s\.)")
"""Of what verify counted, and how long it took."""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="the README uses jq")
def test_the_first_five_minutes_of_the_readme_give_what_it_shows(settings: Settings, tmp_path: Path) -> None:
    fences = FENCE.findall(README.read_text().partition("## The first five minutes")[2])
    script = "set -e\n" + "\n".join(text for language, text in fences if language == "sh")
    output = [line for language, text in fences if language != "sh" for line in text.splitlines()]
    port = str(free_port())
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    script = script.replace(".venv/bin/marketplace", f"{sys.executable} -m marketplace.cli")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | of(settings)
    environment |= {"MARKETPLACE_PORT": port, "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0", "MARKETPLACE_WORKERS": "1"}
    command = [sys.executable, "-m", "marketplace.cli", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("Ctrl-C") for line in process.stdout)
            ran = _run(script, environment, tmp_path)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
    printed = FIGURES.sub("N", ran.stdout).splitlines()
    assert len(output) == 9
    assert [line for line in output if FIGURES.sub("N", line) not in printed] == []


def _run(script: str, environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
