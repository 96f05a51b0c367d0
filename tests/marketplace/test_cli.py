"""The command line, run as people run it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from marketplace.runtime.settings import Settings
from tests.builders.service import free_port
from tests.conftest import SECRETS
from tests.waiting import PATIENCE


def marketplace(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketplace.cli", *arguments],
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def of(settings: Settings) -> dict[str, str]:
    urls = {"DATABASE_URL": str(settings.database_url), "VALKEY_URL": str(settings.valkey_url)}
    return SECRETS | urls | {"MARKETPLACE_DATA": str(settings.data_dir)}


def test_help_names_every_command_and_imports_none() -> None:
    script = "import sys; from marketplace.cli import main\ntry: main()\nexcept SystemExit: print(sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True, timeout=100
    )
    for command in ("up", "serve", "work", "migrate", "doctor", "demo", "replay", "verify", "key"):
        assert f" {command} " in ran.stdout
    for heavy in ("asyncpg", "litestar", "uvicorn", "redis", "marketplace.app"):
        assert f"'{heavy}'" not in ran.stdout


@pytest.mark.parametrize("command", ["up", "serve", "work", "migrate", "doctor"])
def test_each_command_explains_itself(command: str) -> None:
    ran = marketplace(command, "--help")
    assert ran.returncode == 0
    assert f"marketplace {command}" in ran.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    ran = marketplace("sell")
    assert ran.returncode == 2
    assert "No such command" in ran.stderr


@pytest.mark.parametrize("command", ["up", "serve", "work", "migrate"])
def test_a_placeholder_secret_stops_every_process_with_the_remedy_and_no_traceback(command: str) -> None:
    ran = marketplace(command, **SECRETS | {"DATABASE_URL": "postgresql://db/leads", "MARKETPLACE_PEPPER": "changeme"})
    assert ran.returncode == 1
    assert ran.stderr.strip() == (
        "MARKETPLACE_PEPPER is a placeholder. "
        "Set MARKETPLACE_PEPPER to 32 random bytes in base64, for instance from: openssl rand -base64 32"
    )


def test_migrate_names_what_it_would_do_does_it_and_then_has_nothing_left(
    empty_database_url: str, tmp_path: Path
) -> None:
    environment = SECRETS | {"DATABASE_URL": empty_database_url, "VALKEY_URL": "redis://127.0.0.1:1"}
    assert "0001" in marketplace("migrate", "--dry-run", **environment).stdout
    ran = marketplace("migrate", "--to", "1", "--json", str(tmp_path / "out.json"), **environment)
    assert ran.returncode == 0, ran.stderr
    assert [row["state"] for row in json.loads((tmp_path / "out.json").read_text())] == ["applied"]
    assert "missing" in marketplace("migrate", "--status", **environment).stdout
    assert marketplace("migrate", **environment).returncode == 0
    assert marketplace("migrate", **environment).stdout == "The schema is up to date.\n"


def test_doctor_exits_0_for_a_sound_installation_and_1_for_an_unsafe_one(settings: Settings, tmp_path: Path) -> None:
    report = tmp_path / "findings.json"
    ran = marketplace("doctor", "--json", str(report), **of(settings))
    assert (ran.returncode, json.loads(report.read_text())) == (0, []), ran.stderr
    ran = marketplace("doctor", "--json", str(report), **of(settings) | {"MARKETPLACE_MASTER_KEY": "changeme"})
    assert ran.returncode == 1
    assert [finding["code"] for finding in json.loads(report.read_text())] == ["secret_placeholder"]
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_process_on_somebody_elses_database_refuses_a_schema_newer_than_itself(
    command: str, empty_database_url: str
) -> None:
    environment = SECRETS | {"DATABASE_URL": empty_database_url, "VALKEY_URL": "redis://127.0.0.1:1"}
    assert marketplace("migrate", "--to", "1", **environment).returncode == 0
    add = "insert into schema_migration (version, name, sha256) values (9999, '9999_future', 'x')"
    script = f"import asyncio, asyncpg\nasync def f():\n c = await asyncpg.connect({empty_database_url!r})\n"
    script += f" await c.execute({add!r})\nasyncio.run(f())"
    subprocess.run([sys.executable, "-c", script], check=True)
    ran = marketplace(command, **environment)
    assert ran.returncode == 1
    assert "newer than this code" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_up_starts_again_what_is_killed_and_leaves_with_0_when_told_to(enterable_dir: Path) -> None:
    environment = os.environ | {
        "MARKETPLACE_DATA": str(enterable_dir),
        "MARKETPLACE_PORT": str(free_port()),
        "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0",
        "MARKETPLACE_WORKERS": "1",
    }
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | dict.fromkeys(("DATABASE_URL", "VALKEY_URL"), "")
    command = [sys.executable, "-m", "marketplace.cli", "up", "--api", "2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("Ctrl-C") for line in process.stdout)
            for role in ("serve", "work"):
                before = _children(process.pid, role)
                assert len(before) == {"serve": 2, "work": 1}[role]
                before.pop().kill()
                deadline = time.monotonic() + PATIENCE
                while len(_children(process.pid, role) - before) < 1:
                    assert time.monotonic() < deadline, f"no {role} process was started again"
                    time.sleep(0.02)
            with urlopen(f"http://127.0.0.1:{environment['MARKETPLACE_PORT']}/healthz", timeout=PATIENCE) as reply:
                assert reply.status == 200
            process.terminate()
            assert process.stdout.read() == "Stopped.\n"
            assert process.wait() == 0
        finally:
            process.kill()
    assert not [
        left for left in psutil.process_iter(["cmdline"]) if str(enterable_dir) in " ".join(left.info["cmdline"] or ())
    ]


def _children(parent: int, role: str) -> set[psutil.Process]:
    """Return the processes of `up` that do `role`."""
    children = set()
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[-1:] == [role]:
                children.add(child)
    return children
