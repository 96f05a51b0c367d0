"""Settings from environment variables: read once, validated at once, never changed.

Without DATABASE_URL the service is in embedded mode: it runs its own PostgreSQL in the data directory, and creates its
secrets there. With DATABASE_URL the secrets must be set, because data that outlives this machine needs keys that do.
"""

import base64
import difflib
import ipaddress
import os
from collections.abc import Mapping
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from marketplace.runtime import clock, mail_settings
from marketplace.runtime.mail_settings import MailSettings

SECRET_BYTES = 32  # AES-256 and HMAC-SHA-256 both take 256 bits
MIN_DISTINCT_BYTES = 16  # 32 random bytes hold about 30 different values; fewer than 16 never happens by chance
MOST_PER_MINUTE = 60_000  # the limiter remembers each request of the last minute, some 20 bytes apiece
OPS_DISTANCE = 1_000
PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "example",
    "password",
    "secret",
    "default",
    "insecure",
)


PREFIX = "MARKETPLACE_"
ELSEWHERE = tuple(
    PREFIX + name
    for name in (
        "CLOCK_SKEW_SECONDS",
        "EXAMPLES",
        "FAILPOINTS",
        "FAILPOINTS_ALLOWED",
        "KEY",
        "LEAVING",
        "LISTENERS",
        "PARENT",
    )
)
"""Variables read by other modules: for tests, for one command, and between processes."""
MOST_PROCESSES = 64
"""Most API processes and most workers of one `up`."""
USUALLY_MOST_PROCESSES = 6
"""Most of each unless a setting says otherwise: the pools of more could exceed the connections of PostgreSQL."""
LEAST_WORKERS = 2
"""Fewest workers unless a setting says otherwise: while one starts again, leads go to the other."""
SECRETS = ("MARKETPLACE_MASTER_KEY", "MARKETPLACE_PEPPER")


class StartError(Exception):
    """Raised when the service cannot start, with a stable code, a sentence, and a sentence with the remedy."""

    def __init__(self, code: str, sentence: str, remedy: str) -> None:
        super().__init__(f"{sentence} {remedy}")
        self.code = code
        self.sentence = sentence
        self.remedy = remedy


class SettingsFault(StrEnum):
    """Faults of the environment."""

    SECRET_MISSING = "secret_missing"
    """A secret is required outside embedded mode and is not set."""
    SECRET_PLACEHOLDER = "secret_placeholder"
    """A secret is a placeholder that anybody could guess."""
    SECRET_MALFORMED = "secret_malformed"
    """A secret is not the base64 of 32 bytes."""
    SECRET_REUSED = "secret_reused"
    """Two secrets have the same value."""
    NUMBER_INVALID = "number_invalid"
    """A number cannot be read or is outside its range."""
    FLAG_INVALID = "flag_invalid"
    """A switch is neither true nor false."""
    ADDRESS_INVALID = "address_invalid"
    """An address to listen on is not a host and a port."""
    NETWORK_INVALID = "network_invalid"
    """A list of networks holds something that is not CIDR notation."""
    URL_INVALID = "url_invalid"
    """A URL is malformed or of an unknown scheme."""
    MAIL_INVALID = "mail_invalid"
    """The mail server, the sender or the address for bounces is malformed or missing."""
    DATA_UNUSABLE = "data_unusable"
    """The data directory cannot be created or written."""
    NO_INSTALLATION = "no_installation"
    """The data directory holds no installation, and the command creates none."""
    VARIABLE_UNKNOWN = "variable_unknown"
    """A variable with our prefix is unknown: most likely a mistyped one, which would silently not apply."""


class Docs(StrEnum):
    """Places where the documentation page and the OpenAPI document are served."""

    public = "public"
    """At the API's own address, and at the operational one."""
    ops = "ops"
    """At the operational address alone."""
    off = "off"
    """Nowhere."""


class SettingsError(StartError):
    """Raised when the environment cannot be used; `code` is a SettingsFault."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of an installation. Its text form shows no secret."""

    database_url: str | None
    valkey_url: str | None
    data_dir: Path
    master_key: bytes
    pepper: bytes
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = "http://127.0.0.1:8000"
    api_processes: int = 1
    workers: int = LEAST_WORKERS
    outbound_networks: tuple[str, ...] = ()
    outbound_http: bool = False
    outbound_ports: tuple[int, ...] = ()
    pool_size: int = 10
    worker_metrics_port: int | None = None
    trusted_proxies: tuple[str, ...] = ()
    docs: Docs = Docs.public
    ops_host: str = "127.0.0.1"
    ops_port: int = 9000
    rate_per_minute: int = 1_200
    submissions_per_minute: int = 6_000
    failures_per_minute: int = 120
    journal: Path | None = None
    shadow_leads: int = 500
    trustedform_url: str = "https://cert.trustedform.com"
    trustedform_key: str | None = None
    jornaya_url: str | None = None
    jornaya_key: str | None = None
    vapid_private_key: bytes | None = None
    mail: MailSettings | None = None

    @property
    def journal_dir(self) -> Path:
        """Directory of the exposure journal, best on another disk than the database's."""
        return self.journal or self.data_dir / "journal"

    @property
    def embedded(self) -> bool:
        """Return whether the service runs its own PostgreSQL."""
        return self.database_url is None

    @property
    def ops_url(self) -> str:
        """URL of the operational pages, as seen from this machine."""
        return f"http://{_url_host(self.ops_host)}:{self.ops_port}"

    @property
    def secure_cookies(self) -> bool:
        """Return whether the portal's cookies require TLS: always, except on this machine's loopback address."""
        parts = urlsplit(self.public_url)
        return parts.scheme == "https" or parts.hostname not in ("127.0.0.1", "::1", "localhost")

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value in describe(self).items())})"


class Environment(dict[str, str]):
    """Variables that are set to something. Records the names that are read, to find unknown ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__({name: value.strip() for name, value in environ.items() if value.strip()})
        self.names_read = set(ELSEWHERE)

    def get(self, name: str, default: Any = None) -> Any:
        self.names_read.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.names_read.add(str(name))
        return super().__contains__(name)


def load_existing(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an existing installation. Raises SettingsError, and creates nothing.

    For all commands except those that create an installation, so that a mistyped data directory is reported, not
    filled.
    """
    environment = Environment(environ)
    data_dir = _data_dir(environment)
    if "DATABASE_URL" not in environment and not is_installation(data_dir):
        raise SettingsError(
            SettingsFault.NO_INSTALLATION,
            f"There is no installation in {data_dir}.",
            "Set MARKETPLACE_DATA to the directory of one, or make one there with: marketplace up",
        )
    return load(environ)


def is_installation(data_dir: Path) -> bool:
    """Return whether a service has stored engines or secrets in this directory."""
    return any((data_dir / name).exists() for name in ("secrets.json", "engines.lock"))


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings; an empty variable counts as unset.

    In embedded mode, creates the data directory and, once, the secrets. Raises SettingsError for the first fault.
    """
    environment = Environment(environ)
    data_dir = _data_dir(environment)
    database_url = _url(environment, "DATABASE_URL", ("postgresql", "postgres"))
    host = environment.get("MARKETPLACE_HOST", "127.0.0.1")
    port = number(environment, "MARKETPLACE_PORT", 8000, 0, 65535)
    ops_host, ops_port = _ops_address(environment, port)
    public_url = _url(environment, "MARKETPLACE_PUBLIC_URL", ("http", "https")) or f"http://{_url_host(host)}:{port}"
    settings = Settings(
        database_url=database_url,
        valkey_url=_url(environment, "VALKEY_URL", ("redis", "rediss", "unix", "valkey", "valkeys")),
        data_dir=data_dir,
        master_key=b"",
        pepper=b"",
        host=host,
        port=port,
        public_url=public_url.rstrip("/"),
        api_processes=number(
            environment, "MARKETPLACE_API_PROCESSES", usual_api_processes(processors()), 1, MOST_PROCESSES
        ),
        workers=number(environment, "MARKETPLACE_WORKERS", usual_workers(processors()), 0, MOST_PROCESSES),
        outbound_networks=_networks(environment, "MARKETPLACE_OUTBOUND_NETWORKS"),
        outbound_http=_flag(environment, "MARKETPLACE_OUTBOUND_HTTP", False),
        outbound_ports=_ports(environment, "MARKETPLACE_OUTBOUND_PORTS"),
        pool_size=number(environment, "MARKETPLACE_POOL_SIZE", 10, 1, 1000),
        worker_metrics_port=number(environment, "MARKETPLACE_WORKER_METRICS_PORT", 0, 0, 65535) or None,
        trusted_proxies=_networks(environment, "MARKETPLACE_TRUSTED_PROXIES"),
        docs=_docs(environment),
        ops_host=ops_host,
        ops_port=ops_port,
        rate_per_minute=number(environment, "MARKETPLACE_RATE_PER_MINUTE", 1_200, 1, MOST_PER_MINUTE),
        submissions_per_minute=number(environment, "MARKETPLACE_SUBMISSIONS_PER_MINUTE", 6_000, 1, MOST_PER_MINUTE),
        failures_per_minute=number(environment, "MARKETPLACE_FAILURES_PER_MINUTE", 120, 1, MOST_PER_MINUTE),
        journal=_path(environment, "MARKETPLACE_JOURNAL"),
        shadow_leads=number(environment, "MARKETPLACE_SHADOW_LEADS", 500, 1, 100_000),
        trustedform_url=_url(environment, "MARKETPLACE_TRUSTEDFORM_URL", ("https", "http"))
        or "https://cert.trustedform.com",
        trustedform_key=_service_key(environment, "MARKETPLACE_TRUSTEDFORM_KEY"),
        jornaya_url=_url(environment, "MARKETPLACE_JORNAYA_URL", ("https", "http")),
        jornaya_key=_service_key(environment, "MARKETPLACE_JORNAYA_KEY"),
        vapid_private_key=_vapid_key(environment),
        mail=_mail(environment),
    )
    environment.names_read.update(SECRETS)
    _refuse_unknown(environment)
    master_key, pepper = _secrets(environment, data_dir, embedded=settings.embedded)  # last, because it may create them
    return msgspec.structs.replace(settings, master_key=master_key, pepper=pepper)


def _data_dir(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("MARKETPLACE_DATA", ".data")).expanduser().resolve()


def _refuse_unknown(environment: Environment) -> None:
    """Raise SettingsError for a variable with our prefix that nothing reads."""
    for name in sorted(environment.keys() - environment.names_read):
        if name.startswith(PREFIX):
            nearest = difflib.get_close_matches(name, environment.names_read - set(ELSEWHERE), 1, 0.5)
            remedy = f"Did you mean {nearest[0]}? Correct its name, or unset it." if nearest else "Unset it."
            raise SettingsError(
                SettingsFault.VARIABLE_UNKNOWN,
                f"{name} is set, and there is no such setting.",
                remedy,
            )


def describe(settings: Settings) -> dict[str, str]:
    """Return every setting as text for the log: keys are hidden, and so are passwords inside URLs."""
    texts = {name: str(getattr(settings, name)) for name in settings.__struct_fields__}
    for name in ("database_url", "valkey_url"):
        url = getattr(settings, name)
        texts[name] = "embedded" if url is None else without_password(url)
    keys = ("master_key", "pepper", "trustedform_key", "jornaya_key", "vapid_private_key")
    return texts | {name: "(hidden)" for name in keys if getattr(settings, name) is not None}


def without_password(url: str) -> str:
    """Return `url` without its password and its query, where drivers also accept one."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, user.split(":")[0] + at + host, parts.path, "", ""))


def secret_fault(secret: bytes) -> SettingsFault | None:
    """Return the fault of a secret: not 32 bytes, too few different values, or a placeholder; None for a good one."""
    if len(secret) != SECRET_BYTES:
        return SettingsFault.SECRET_MALFORMED
    if len(set(secret)) < MIN_DISTINCT_BYTES or any(word.encode() in secret.lower() for word in PLACEHOLDERS):
        return SettingsFault.SECRET_PLACEHOLDER
    return None


def _secrets(environment: Mapping[str, str], data_dir: Path, *, embedded: bool) -> tuple[bytes, bytes]:
    """Return master key and pepper, from the environment or, in embedded mode, from the data directory."""
    stored = _stored_secrets(data_dir) if embedded and not all(name in environment for name in SECRETS) else {}
    master_key, pepper = (_secret(name, environment.get(name) or stored.get(name)) for name in SECRETS)
    if master_key == pepper:
        raise SettingsError(
            SettingsFault.SECRET_REUSED,
            "MARKETPLACE_MASTER_KEY and MARKETPLACE_PEPPER are the same value.",
            "Give each its own 32 random bytes, in base64.",
        )
    return master_key, pepper


def _secret(name: str, text: str | None) -> bytes:
    """Return a secret decoded from base64. Raises SettingsError."""
    remedy = f"Set {name} to 32 random bytes in base64, for instance from: openssl rand -base64 32"
    if text is None:
        raise SettingsError(SettingsFault.SECRET_MISSING, f"{name} must be given when DATABASE_URL is.", remedy)
    if any(word in text.lower() for word in PLACEHOLDERS):
        raise SettingsError(SettingsFault.SECRET_PLACEHOLDER, f"{name} is a placeholder.", remedy)
    try:
        secret = base64.b64decode(text, validate=True)
    except ValueError:  # not base64, or not even ASCII
        secret = b""
    match secret_fault(secret):
        case None:
            return secret
        case SettingsFault.SECRET_PLACEHOLDER as fault:
            raise SettingsError(fault, f"{name} is a placeholder.", remedy)
        case fault:
            raise SettingsError(fault, f"{name} is not the base64 of {SECRET_BYTES} bytes.", remedy)


def _stored_secrets(data_dir: Path) -> dict[str, str]:
    """Return the secrets in the data directory, created the first time; concurrent first starts get the same ones."""
    path = data_dir / "secrets.json"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = {name: base64.b64encode(clock.random_bytes(SECRET_BYTES)).decode() for name in SECRETS}
            _create_private(path, msgspec.json.encode(fresh))
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(
            SettingsFault.DATA_UNUSABLE,
            f"The secrets in {path} can be neither read nor created ({type(error).__name__}).",
            "Make the directory writable, set MARKETPLACE_DATA to one that is, or restore the file from a backup.",
        ) from error


def _create_private(path: Path, content: bytes) -> None:
    """Create a file readable by its owner alone, completely or not at all; an existing one stays."""
    draft = path.with_name(f".{path.name}.{clock.new_id()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first, and its secrets are used
    finally:
        draft.unlink()


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_api_processes(processors: int) -> int:
    """Return the API processes of a machine: of a lead's processor time, a fifth is the API's (docs/BENCHMARKS.md)."""
    return min(ceil(processors / 5), USUALLY_MOST_PROCESSES)


def usual_workers(processors: int) -> int:
    """Return the workers of a machine: of a lead's processor time, a third is theirs (docs/BENCHMARKS.md)."""
    return min(max(LEAST_WORKERS, ceil(processors / 3)), USUALLY_MOST_PROCESSES)


def number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """Return the integer that `name` is set to, or `default`. Raises SettingsError."""
    text = environment.get(name, str(default))
    if text.isascii() and text.isdecimal() and low <= int(text) <= high:
        return int(text)
    raise SettingsError(
        SettingsFault.NUMBER_INVALID, f"{name} is {text!r}.", f"Set it to a whole number from {low} to {high}."
    )


def _flag(environment: Mapping[str, str], name: str, default: bool) -> bool:
    text = environment.get(name, str(default)).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise SettingsError(SettingsFault.FLAG_INVALID, f"{name} is {text!r}.", "Set it to true or false.")


def _docs(environment: Mapping[str, str]) -> Docs:
    if environment.get("MARKETPLACE_DOCS", "").lower() == Docs.ops:
        return Docs.ops
    return Docs.public if _flag(environment, "MARKETPLACE_DOCS", True) else Docs.off


def _ops_address(environment: Mapping[str, str], port: int) -> tuple[str, int]:
    """Return host and port of the operational pages.

    By default the loopback address and the API's port plus a thousand, so that every API process on a machine has its
    own. With port 0 for the API, any free port. Raises SettingsError.
    """
    text = environment.get("MARKETPLACE_OPS_ADDRESS")
    if text is None:
        if port == 0:
            return "127.0.0.1", 0
        usual = port + OPS_DISTANCE
        return "127.0.0.1", usual if usual <= 65535 else port - 1
    host, _, digits = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host and digits.isascii() and digits.isdecimal() and len(digits) <= 5 and int(digits) <= 65535:
        return host, int(digits)
    raise SettingsError(
        SettingsFault.ADDRESS_INVALID,
        f"MARKETPLACE_OPS_ADDRESS is {text!r}.",
        "Set it to a host and a port, such as 127.0.0.1:9000 or [::1]:9000.",
    )


def _networks(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    texts = [text.strip() for text in environment.get(name, "").split(",") if text.strip()]
    try:
        return tuple(str(ipaddress.ip_network(text)) for text in texts)
    except ValueError as error:
        raise SettingsError(
            SettingsFault.NETWORK_INVALID,
            f"{name} holds something that is not a network: {error}.",
            "Set it to networks in CIDR notation with commas between them, such as 10.0.0.0/8,192.168.1.7/32.",
        ) from error


def _ports(environment: Mapping[str, str], name: str) -> tuple[int, ...]:
    texts = [text.strip() for text in environment.get(name, "").split(",") if text.strip()]
    if all(text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535 for text in texts):
        return tuple(int(text) for text in texts)
    raise SettingsError(
        SettingsFault.NUMBER_INVALID,
        f"{name} is {environment[name]!r}.",
        "Set it to port numbers with commas between them.",
    )


def _service_key(environment: Mapping[str, str], name: str) -> str | None:
    """Return the key of an account at another service. Raises SettingsError for one that no header can carry."""
    key = environment.get(name)
    if key is None or (key.isascii() and key.isprintable() and " " not in key and len(key) <= 500):
        return key
    raise SettingsError(
        SettingsFault.SECRET_MALFORMED,
        f"{name} is not a key.",
        "Set it to the key as the service shows it: visible ASCII characters without spaces.",
    )


def _vapid_key(environment: Mapping[str, str]) -> bytes | None:
    """Return the private key for web push, 32 bytes. Raises SettingsError for anything else."""
    text = environment.get("MARKETPLACE_VAPID_PRIVATE_KEY")
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) == SECRET_BYTES:
        return raw
    raise SettingsError(
        SettingsFault.SECRET_MALFORMED,
        "MARKETPLACE_VAPID_PRIVATE_KEY is not the private key of a pair for web push.",
        "Make a pair with: marketplace key vapid",
    )


def _mail(environment: Mapping[str, str]) -> MailSettings | None:
    """Return the settings of e-mail, or None without a mail server. Raises SettingsError."""
    url, sender = environment.get("SMTP_URL"), environment.get("MARKETPLACE_MAIL_FROM")
    bounces = environment.get("MARKETPLACE_MAIL_BOUNCES") or sender
    if url is None:
        return None
    name = "SMTP_URL"
    try:
        server = mail_settings.read_server(url)
        name = "MARKETPLACE_MAIL_FROM"
        from_address = mail_settings.read_sender(sender or "")
        name = "MARKETPLACE_MAIL_BOUNCES"
        return MailSettings(server=server, sender=from_address, bounces=mail_settings.read_bounces(bounces or ""))
    except ValueError as error:
        what = "is missing" if environment.get(name) is None else "cannot be used"
        raise SettingsError(SettingsFault.MAIL_INVALID, f"{name} {what}.", str(error)) from error


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]).expanduser().resolve() if name in environment else None


def _url(environment: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str | None:
    url = environment.get(name)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
        valid = parts.scheme in schemes and 0 not in ports and bool(parts.netloc or parts.path) and not parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(
            SettingsFault.URL_INVALID,
            f"{name} is not a URL that can be used.",
            f"Begin it with {schemes[0]}:// and write special characters of a user or password percent-encoded,"
            " such as %23 for # and %2F for /.",
        )
    return url


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
