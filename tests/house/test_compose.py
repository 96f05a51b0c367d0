"""compose.yaml says nothing that the service, PostgreSQL or Valkey would refuse, and nothing in clear text."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml  # type: ignore[import-untyped]
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from marketplace.database.embedded import Valkey, _valkey_server
from marketplace.runtime.settings import Settings, describe, load
from tests.conftest import SECRETS

ROOT = Path(__file__).parents[2]
GIVEN = SECRETS | {"POSTGRES_PASSWORD": "5f4dcc3b", "VALKEY_PASSWORD": "0a1b2c3d"}
PROCESSES = ("migrate", "api", "worker")


def resolve(text: str) -> str:
    """`text` with its variables as Docker Compose fills them in from GIVEN; `$$` stands for a dollar."""
    filled = re.sub(
        r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}",
        lambda found: GIVEN[found[1]] if found[2] != "-" else GIVEN.get(found[1], found[3]),
        text,
    )
    return filled.replace("$$", "$")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return parsed


def settings_of(service: dict[str, Any]) -> Settings:
    image = dict(re.findall(r"(MARKETPLACE_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    return load(image | {name: resolve(value) for name, value in service["environment"].items()})


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_is_given_settings_that_it_accepts(services: dict[str, Any], process: str) -> None:
    settings = settings_of(services[process])
    assert settings.database_url is not None
    assert settings.valkey_url is not None
    assert "sslmode=verify-full" in settings.database_url
    assert settings.valkey_url.startswith("rediss://:0a1b2c3d@valkey:")
    assert "ssl_check_hostname=true" in settings.valkey_url
    assert "ssl_check_hostname" in URL_QUERY_ARGUMENT_PARSERS
    assert "0a1b2c3d" not in str(describe(settings))


def test_the_owners_password_goes_to_the_migration_alone(services: dict[str, Any]) -> None:
    for name, service in services.items():
        has_password = GIVEN["POSTGRES_PASSWORD"] in resolve(str(service))
        assert has_password == (name in ("postgres", "migrate")), name


async def test_postgres_knows_every_setting_that_it_is_given_and_takes_tls_alone(
    services: dict[str, Any], pool: asyncpg.Pool
) -> None:
    words = [word for word in services["postgres"]["command"] if word.startswith("-c")]
    names = {word[2:].partition("=")[0] for word in words}
    count = await pool.fetchval("select count(*) from pg_settings where name = any($1)", list(names))
    assert count == len(names) >= 8
    lines = yaml.safe_load((ROOT / "compose.yaml").read_text())["configs"]["pg_hba"]["content"].split("\n")
    assert [line.split()[0] for line in lines if line] == ["local", "hostssl"]
    assert all(line.endswith("scram-sha-256") for line in lines if line)


def test_valkey_takes_every_option_that_it_is_given(services: dict[str, Any], tmp_path: Path) -> None:
    """Check options for TLS by name only: the wheel's server is built without it."""
    options = [resolve(word) for word in services["valkey"]["command"][1:]]
    assert "--port 0" in options
    assert "--requirepass 0a1b2c3d" in options
    assert {word.split()[0] for word in options if "tls" in word} >= {"--tls-port", "--tls-cert-file", "--tls-key-file"}
    plain = [word for word in options if "tls" not in word]
    engine = Valkey(tmp_path)
    engine.socket.parent.mkdir(parents=True, exist_ok=True)
    command = [_valkey_server(), *plain, f"--unixsocket {engine.socket}", f"--dir {tmp_path}", "--daemonize no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("Ready to accept connections" in line for line in process.stdout)
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("openssl") is None or os.geteuid() != 0, reason="needs openssl, and root as in Docker")
def test_the_certificates_are_made_once_and_are_those_of_the_engines(services: dict[str, Any], tmp_path: Path) -> None:
    script = resolve(services["certificates"]["command"][0])
    environment = {"PATH": os.environ["PATH"], "CERTIFICATES": str(tmp_path)}
    for _ in range(2):
        subprocess.run(["sh", "-euc", script], env=environment, check=True, capture_output=True)
    for name in ("postgres", "valkey"):
        verify = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), "-verify_hostname", name]
        ran = subprocess.run([*verify, str(tmp_path / f"{name}.crt")], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "ca.key").exists()


def test_every_service_waits_for_the_certificates(services: dict[str, Any]) -> None:
    for name in ("postgres", "valkey"):
        assert services[name]["depends_on"]["certificates"]["condition"] == "service_completed_successfully"
    for name in (*PROCESSES, "postgres", "valkey"):
        assert any(volume.startswith("certificates:/certificates:ro") for volume in services[name]["volumes"])
