"""Settings: what is refused, what is made, what is never shown."""

import base64
import stat
import threading
from pathlib import Path

import pytest

from marketplace.certificates.flow import accounts_of
from marketplace.runtime.settings import (
    Docs,
    Settings,
    SettingsError,
    SettingsFault,
    describe,
    load,
    load_existing,
    processors,
    usual_api_processes,
    usual_workers,
)
from routing.certificate import CertificateKind

KEY = "pBDKZGV4cCGMeNbdOCyQOGgCWdLEy0tmCNSmTMRLKMM="
PEPPER = "tPZtG1cxyG2pgGVkZtSNxBgPRLfOw0aO6ZFvRGOsZ1k="
EXTERNAL = {
    "DATABASE_URL": "postgresql://app:hunter2@db.internal:5432/leads?password=hunter2",
    "VALKEY_URL": "rediss://:hunter2@cache.internal/0",
    "MARKETPLACE_MASTER_KEY": KEY,
    "MARKETPLACE_PEPPER": PEPPER,
}


def fault(**changes: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load(EXTERNAL | changes)
    assert raised.value.remedy
    return raised.value.code


def test_an_empty_environment_means_embedded_engines_and_sane_defaults(tmp_path: Path) -> None:
    settings = load({"MARKETPLACE_DATA": str(tmp_path)})
    assert settings.embedded
    assert (settings.host, settings.port, settings.pool_size) == ("127.0.0.1", 8000, 10)
    assert settings.api_processes == usual_api_processes(processors())
    assert settings.workers == usual_workers(processors())
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.outbound_networks == ()
    assert not settings.outbound_http


def test_there_are_processes_for_the_processors_and_never_a_single_worker() -> None:
    counts = {number: (usual_api_processes(number), usual_workers(number)) for number in (1, 2, 4, 8, 16, 96)}
    assert counts == {1: (1, 2), 2: (1, 2), 4: (1, 2), 8: (2, 3), 16: (4, 6), 96: (6, 6)}


def test_embedded_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    first = load({"MARKETPLACE_DATA": str(tmp_path)})
    again = load({"MARKETPLACE_DATA": str(tmp_path)})
    assert (first.master_key, first.pepper) == (again.master_key, again.pepper)
    assert len({first.master_key, first.pepper}) == 2
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]


def test_processes_that_start_at_once_agree_on_the_secrets(tmp_path: Path) -> None:
    keys: list[bytes] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        keys.append(load({"MARKETPLACE_DATA": str(tmp_path)}).master_key)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_an_external_database_makes_no_secret_and_no_directory(tmp_path: Path) -> None:
    settings = load(EXTERNAL | {"MARKETPLACE_DATA": str(tmp_path / "never")})
    assert settings.master_key == base64.b64decode(KEY)
    assert not (tmp_path / "never").exists()


def test_an_external_database_demands_secrets() -> None:
    assert fault(MARKETPLACE_MASTER_KEY="") == SettingsFault.SECRET_MISSING
    assert fault(MARKETPLACE_PEPPER="  ") == SettingsFault.SECRET_MISSING


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("changeme", SettingsFault.SECRET_PLACEHOLDER),
        ("please-CHANGE-ME-now", SettingsFault.SECRET_PLACEHOLDER),
        (base64.b64encode(b"\0" * 32).decode(), SettingsFault.SECRET_PLACEHOLDER),
        (base64.b64encode(b"ab" * 16).decode(), SettingsFault.SECRET_PLACEHOLDER),
        (base64.b64encode(b"changeme-changeme-0123456789abcd").decode(), SettingsFault.SECRET_PLACEHOLDER),
        (KEY[:20], SettingsFault.SECRET_MALFORMED),
        (KEY + KEY, SettingsFault.SECRET_MALFORMED),
        ("not base64 at all ☂", SettingsFault.SECRET_MALFORMED),
        (PEPPER, SettingsFault.SECRET_REUSED),
    ],
)
def test_what_is_no_secret_is_refused(secret: str, expected: SettingsFault) -> None:
    assert fault(MARKETPLACE_MASTER_KEY=secret) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MARKETPLACE_PORT", "eighty", SettingsFault.NUMBER_INVALID),
        ("MARKETPLACE_PORT", "65536", SettingsFault.NUMBER_INVALID),
        ("MARKETPLACE_PORT", "-1", SettingsFault.NUMBER_INVALID),
        ("MARKETPLACE_PORT", "\N{FULLWIDTH DIGIT EIGHT}", SettingsFault.NUMBER_INVALID),
        ("MARKETPLACE_POOL_SIZE", "0", SettingsFault.NUMBER_INVALID),
        ("MARKETPLACE_OUTBOUND_HTTP", "perhaps", SettingsFault.FLAG_INVALID),
        ("MARKETPLACE_OUTBOUND_NETWORKS", "10.0.0.0/8, nonsense", SettingsFault.NETWORK_INVALID),
        ("MARKETPLACE_OUTBOUND_NETWORKS", "10.0.0.1/8", SettingsFault.NETWORK_INVALID),
        ("DATABASE_URL", "mysql://db/leads", SettingsFault.URL_INVALID),
        ("DATABASE_URL", "postgresql://db:port/leads", SettingsFault.URL_INVALID),
        ("DATABASE_URL", "postgresql://app:p#ss@db/leads", SettingsFault.URL_INVALID),
        ("DATABASE_URL", "postgresql://app:p/ss@db/leads", SettingsFault.URL_INVALID),
        ("DATABASE_URL", "postgresql://db:0/leads", SettingsFault.URL_INVALID),
        ("VALKEY_URL", "http://cache", SettingsFault.URL_INVALID),
        ("MARKETPLACE_PUBLIC_URL", "leads.example", SettingsFault.URL_INVALID),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_remedy(name: str, value: str, expected: SettingsFault) -> None:
    assert fault(**{name: value}) == expected


def test_lists_and_switches_are_read_as_people_write_them() -> None:
    settings = load(
        EXTERNAL
        | {
            "MARKETPLACE_OUTBOUND_NETWORKS": "10.0.0.0/8, fd00::/8",
            "MARKETPLACE_OUTBOUND_HTTP": "Yes",
            "MARKETPLACE_DOCS": "0",
            "MARKETPLACE_PUBLIC_URL": "https://leads.example/",
            "MARKETPLACE_WORKER_METRICS_PORT": "9100",
        }
    )
    assert settings.outbound_networks == ("10.0.0.0/8", "fd00::/8")
    assert (settings.outbound_http, settings.docs) == (True, Docs.off)
    assert settings.public_url == "https://leads.example"
    assert settings.worker_metrics_port == 9100


@pytest.mark.parametrize(
    ("environment", "host", "port"),
    [
        ({}, "127.0.0.1", 9000),
        ({"MARKETPLACE_PORT": "8001"}, "127.0.0.1", 9001),
        ({"MARKETPLACE_PORT": "65000"}, "127.0.0.1", 64999),
        ({"MARKETPLACE_PORT": "0"}, "127.0.0.1", 0),
        ({"MARKETPLACE_HOST": "0.0.0.0"}, "127.0.0.1", 9000),
        ({"MARKETPLACE_OPS_ADDRESS": "0.0.0.0:9100"}, "0.0.0.0", 9100),
        ({"MARKETPLACE_OPS_ADDRESS": "[::1]:9100"}, "::1", 9100),
        ({"MARKETPLACE_OPS_ADDRESS": "ops.internal:0"}, "ops.internal", 0),
    ],
)
def test_operational_pages_have_an_address_of_their_own(environment: dict[str, str], host: str, port: int) -> None:
    settings = load(EXTERNAL | environment)
    assert (settings.ops_host, settings.ops_port) == (host, port)


@pytest.mark.parametrize("text", ["9100", ":9100", "localhost", "localhost:", "localhost:x", "localhost:65536", "h:-1"])
def test_an_operational_address_that_is_none_is_refused(text: str) -> None:
    assert fault(MARKETPLACE_OPS_ADDRESS=text) == SettingsFault.ADDRESS_INVALID


@pytest.mark.parametrize(
    ("text", "docs"), [("", Docs.public), ("true", Docs.public), ("OPS", Docs.ops), ("off", Docs.off)]
)
def test_the_documentation_is_served_where_it_is_chosen(text: str, docs: Docs) -> None:
    assert load(EXTERNAL | {"MARKETPLACE_DOCS": text}).docs is docs


SERVICE_KEYS = {"MARKETPLACE_TRUSTEDFORM_KEY": "key-of-trustedform", "MARKETPLACE_JORNAYA_KEY": "key-of-jornaya"}


def test_an_account_at_a_service_needs_its_key_and_its_address() -> None:
    assert accounts_of(load(EXTERNAL)) == {}
    assert list(accounts_of(load(EXTERNAL | SERVICE_KEYS))) == [CertificateKind.trustedform]
    adapter = {"MARKETPLACE_JORNAYA_URL": "https://adapter.internal/claims/"}
    accounts = accounts_of(load(EXTERNAL | SERVICE_KEYS | adapter))
    assert accounts[CertificateKind.jornaya].url == "https://adapter.internal/claims"
    assert accounts[CertificateKind.trustedform].url == "https://cert.trustedform.com"


@pytest.mark.parametrize("key", ["two words", "schlüssel", "x" * 501, "a\tb"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    assert fault(MARKETPLACE_TRUSTEDFORM_KEY=key) == SettingsFault.SECRET_MALFORMED


def test_no_text_form_of_the_settings_shows_a_secret() -> None:
    settings = load(EXTERNAL | SERVICE_KEYS)
    text = f"{settings!r} {settings} {describe(settings)}"
    for secret in ("hunter2", KEY, PEPPER, repr(settings.master_key), repr(settings.pepper), *SERVICE_KEYS.values()):
        assert secret not in text
    assert "db.internal:5432/leads" in text
    assert set(describe(settings)) == set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:p%23s%2Fs%40@[::1]:5432/leads?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql://db1:5432,db2:5433/leads",
        "postgresql:///leads?host=/run/postgresql",
    ],
)
def test_urls_of_every_form_that_postgres_takes_are_taken(url: str) -> None:
    assert load(EXTERNAL | {"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MARKETPLACE_OUTBOUND_NETWORK", "MARKETPLACE_OUTBOUND_NETWORKS"),
        ("MARKETPLACE_DATADIR", "MARKETPLACE_DATA"),
        ("MARKETPLACE_MASTERKEY", "MARKETPLACE_MASTER_KEY"),
        ("MARKETPLACE_PORTS", "MARKETPLACE_PORT"),
    ],
)
def test_a_variable_of_ours_that_there_is_not_is_refused_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as raised:
        load({name: "x"})
    assert raised.value.code == SettingsFault.VARIABLE_UNKNOWN
    assert f"Did you mean {nearest}?" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_every_variable_that_another_module_reads_is_known() -> None:
    load(EXTERNAL | {"MARKETPLACE_FAILPOINTS": "x", "MARKETPLACE_PARENT": "1", "MARKETPLACE_KEY": "k"})


def test_a_mistyped_data_directory_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load_existing({"MARKETPLACE_DATA": str(tmp_path / "mistyped")})
    assert raised.value.code == SettingsFault.NO_INSTALLATION
    assert str(tmp_path / "mistyped") in raised.value.sentence
    assert list(tmp_path.iterdir()) == []
    made = load({"MARKETPLACE_DATA": str(tmp_path / "mine")})
    assert load_existing({"MARKETPLACE_DATA": str(tmp_path / "mine")}) == made


# --- e-mail

MAIL = {"SMTP_URL": "smtp://leads:p%40ss@mail.example", "MARKETPLACE_MAIL_FROM": "Lead Line <leads@example.com>"}


@pytest.mark.parametrize(
    ("url", "host", "port", "security"),
    [
        ("smtp://mail.example", "mail.example", 587, "starttls"),
        ("smtp://mail.example:2525", "mail.example", 2525, "starttls"),
        ("smtps://mail.example", "mail.example", 465, "implicit"),
        ("smtp://mail.example?tls=none", "mail.example", 25, "none"),
        ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, "none"),
    ],
)
def test_the_mail_server_is_read_from_its_url(url: str, host: str, port: int, security: str) -> None:
    mail = load(EXTERNAL | MAIL | {"SMTP_URL": url}).mail
    assert mail is not None
    assert (mail.server.host, mail.server.port, mail.server.security) == (host, port, security)


def test_user_and_password_are_decoded_and_not_shown() -> None:
    settings = load(EXTERNAL | MAIL)
    assert settings.mail is not None
    assert (settings.mail.server.user, settings.mail.server.password) == ("leads", "p@ss")
    assert (settings.mail.sender.display_name, settings.mail.sender.addr_spec) == ("Lead Line", "leads@example.com")
    assert settings.mail.bounces.addr_spec == "leads@example.com"
    assert "p@ss" not in f"{settings!r} {describe(settings)}"


@pytest.mark.parametrize(
    "changes",
    [
        {"SMTP_URL": "http://mail.example"},
        {"SMTP_URL": "smtp://"},
        {"SMTP_URL": "smtp://mail.example/path"},
        {"SMTP_URL": "smtp://mail.example?tls=maybe"},
        {"SMTP_URL": "smtp://mail.example:0"},
        {"SMTP_URL": "smtp://mail.example:99999"},
        {"SMTP_URL": "smtp://leads:p@mail.example?tls=none"},
        {"MARKETPLACE_MAIL_FROM": ""},
        {"MARKETPLACE_MAIL_FROM": "Lead Line"},
        {"MARKETPLACE_MAIL_FROM": "j\u00f6rg@example.com"},
        {"MARKETPLACE_MAIL_FROM": "a\nBcc: b@example.com <leads@example.com>"},
        {"MARKETPLACE_MAIL_BOUNCES": "bounces+tag@example.com"},
        {"MARKETPLACE_MAIL_BOUNCES": "an-address-that-is-too-long@example.com"},
    ],
)
def test_settings_of_e_mail_that_cannot_work_are_refused(changes: dict[str, str]) -> None:
    assert fault(**(MAIL | changes)) == "mail_invalid"


def test_without_a_mail_server_there_is_no_mail() -> None:
    assert load(EXTERNAL).mail is None
