"""Errors of PostgreSQL, Valkey and the operating system as a stable code, a sentence and a remedy."""

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import asyncpg
from redis import exceptions as valkey

from marketplace.runtime.errors import MarketplaceError, Unavailable
from marketplace.runtime.settings import StartError

Words = tuple[str, str, str]
"""Code, sentence, remedy."""

CHECK_URL: Final = "Check that DATABASE_URL names a running server, an existing database and a user who may use it."

_POSTGRES: Final[dict[type[BaseException], Words]] = {
    asyncpg.InvalidPasswordError: (
        "database_password_wrong",
        "PostgreSQL refuses the password.",
        "Check the password of DATABASE_URL, with special characters percent-encoded. The logins of processes are made"
        " by: marketplace migrate",
    ),
    asyncpg.InvalidAuthorizationSpecificationError: (
        "database_login_refused",
        "PostgreSQL refuses this login.",
        "Run marketplace migrate, which makes the logins of processes, and allow them in the server's pg_hba.conf.",
    ),
    asyncpg.InvalidCatalogNameError: (
        "database_missing",
        "The server has no database of that name.",
        "Create the database, or correct its name in DATABASE_URL.",
    ),
    asyncpg.TooManyConnectionsError: (
        "database_full",
        "PostgreSQL has no connection left.",
        "Raise max_connections (or the limit of the role or database), or lower MARKETPLACE_POOL_SIZE.",
    ),
    asyncpg.CannotConnectNowError: (
        "database_starting",
        "PostgreSQL is starting up, shutting down or recovering.",
        "Try again in a moment.",
    ),
    asyncpg.AdminShutdownError: ("database_stopped", "PostgreSQL was shut down.", "Start it and try again."),
    asyncpg.CrashShutdownError: ("database_stopped", "PostgreSQL crashed and restarts.", "Try again in a moment."),
    asyncpg.InsufficientPrivilegeError: (
        "database_permission_denied",
        "PostgreSQL denies this login a right that it needs.",
        "Run marketplace migrate as the owner of the database, then: marketplace doctor",
    ),
    asyncpg.ReadOnlySQLTransactionError: (
        "database_read_only",
        "The database takes no changes: it is a standby, or set to read only.",
        "Let DATABASE_URL name the primary server.",
    ),
    asyncpg.DiskFullError: ("database_disk_full", "PostgreSQL's disk is full.", "Free some space and try again."),
    asyncpg.OutOfMemoryError: ("database_memory", "PostgreSQL is out of memory.", "Give it more, and try again."),
    asyncpg.UndefinedTableError: ("schema_behind", "A table is missing.", "Run: marketplace migrate"),
    asyncpg.UndefinedColumnError: ("schema_behind", "A column is missing.", "Run: marketplace migrate"),
    asyncpg.UndefinedFunctionError: ("schema_behind", "A function is missing.", "Run: marketplace migrate"),
    asyncpg.UndefinedObjectError: (
        "database_too_old",
        "PostgreSQL does not know a setting or type that is needed.",
        "Upgrade the server to PostgreSQL 15 or later.",
    ),
    asyncpg.QueryCanceledError: (
        "database_slow",
        "PostgreSQL took too long over a statement.",
        "Find out what keeps the server busy, and try again.",
    ),
    asyncpg.LockNotAvailableError: (
        "database_locked",
        "Something else holds a lock that is needed.",
        "Look for long transactions in pg_stat_activity, and try again.",
    ),
    asyncpg.ClientConfigurationError: (
        "database_url_unusable",
        "DATABASE_URL cannot be used as it is.",
        "Check its options: sslrootcert and passfile must name files that can be read.",
    ),
    asyncpg.PostgresConnectionError: ("database_away", "The connection to PostgreSQL broke.", CHECK_URL),
    asyncpg.InternalClientError: ("database_away", "The server at that address is not PostgreSQL.", CHECK_URL),
    asyncpg.InterfaceError: ("database_away", "The connection to PostgreSQL broke.", CHECK_URL),
    asyncpg.PostgresError: (
        "database_error",
        "PostgreSQL refused a statement.",
        "Read the server's log, and run: marketplace doctor",
    ),
}

_VALKEY: Final[dict[type[BaseException], Words]] = {
    valkey.AuthenticationError: (
        "valkey_password_wrong",
        "Valkey refuses the user or password, or wants one.",
        "Put them into VALKEY_URL: redis://:PASSWORD@HOST:6379/0, with special characters percent-encoded.",
    ),
    valkey.NoPermissionError: (
        "valkey_permission_denied",
        "Valkey denies this user a command that is needed.",
        "Give the user of VALKEY_URL all commands on all keys and channels: ~* &* +@all",
    ),
    valkey.ReadOnlyError: (
        "valkey_read_only",
        "This Valkey is a replica and takes no changes.",
        "Let VALKEY_URL name the primary server.",
    ),
    valkey.BusyLoadingError: ("valkey_loading", "Valkey is still reading its file.", "Try again in a moment."),
    valkey.OutOfMemoryError: ("valkey_full", "Valkey's memory is full.", "Raise maxmemory, or empty it."),
    valkey.MaxConnectionsError: ("valkey_full", "Valkey takes no more connections.", "Raise its maxclients."),
    valkey.InvalidResponse: (
        "valkey_foreign",
        "The server at VALKEY_URL is not Valkey.",
        "Check its host, its port, and rediss:// for TLS.",
    ),
    valkey.TimeoutError: ("valkey_away", "Valkey does not answer in time.", "Start Valkey, or check VALKEY_URL."),
    valkey.ConnectionError: ("valkey_away", "Valkey does not answer.", "Start Valkey, or check VALKEY_URL."),
    valkey.ResponseError: (
        "valkey_refuses",
        "Valkey refuses a command that is needed.",
        "Use Valkey, or Redis 7 or later, and check what the user of VALKEY_URL may do.",
    ),
    valkey.RedisError: ("valkey_away", "Valkey does not answer.", "Start Valkey, or check VALKEY_URL."),
}

_TLS: Final = (
    "tls_failed",
    "The server's TLS certificate is not trusted, or the server does not use TLS.",
    "Give the certificate of its authority in the URL (sslrootcert=FILE), and the host name that it was issued for.",
)
_REMEDIES: Final[dict[int, str]] = {
    errno.ENOSPC: "Free some space and try again.",
    errno.EDQUOT: "Free some space and try again.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n",
    errno.ENFILE: "Raise the limit of open files: ulimit -n",
    errno.EADDRINUSE: "Stop what listens there, or choose another port.",
    errno.EADDRNOTAVAIL: "Choose an address of this machine.",
}
_FILES: Final[dict[int, str]] = {
    errno.ENOSPC: "The disk is full.",
    errno.EDQUOT: "The quota of the disk is used up.",
    errno.EROFS: "The file system is read only.",
    errno.EACCES: "Access to a file or directory is denied.",
    errno.EPERM: "Access to a file or directory is denied.",
    errno.ENOENT: "A file or directory is missing.",
    errno.ENOTDIR: "A part of a path is no directory.",
    errno.EISDIR: "There is a directory where a file is expected.",
    errno.EMFILE: "Too many files are open.",
    errno.ENFILE: "Too many files are open.",
    errno.ENAMETOOLONG: "A path is too long.",
    errno.EADDRINUSE: "The address is in use by another program.",
    errno.EADDRNOTAVAIL: "This machine does not have the address.",
}


def database_error(error: BaseException) -> StartError:
    """Return the error for people after a failure of PostgreSQL, without values of the database or passwords."""
    if (words := _network_words(error, "PostgreSQL", "DATABASE_URL", "database_away")) is not None:
        return StartError(*words)
    code, sentence, remedy = _find_words(_POSTGRES, error) or ("database_away", "PostgreSQL cannot be used.", CHECK_URL)
    return StartError(code, _add_class(sentence, error), remedy)


def valkey_error(error: BaseException) -> StartError:
    """Return the error for people after a failure of Valkey, without keys of Valkey or passwords."""
    if type(error) is valkey.ConnectionError and (cause := error.__cause__ or error.__context__) is not None:
        error = cause  # the driver wraps the error that kept it from connecting
    if str(error).startswith(("NOAUTH", "WRONGPASS")):
        return StartError(*_VALKEY[valkey.AuthenticationError])
    words = _find_words(_VALKEY, error) or _network_words(error, "Valkey", "VALKEY_URL", "valkey_away")
    return StartError(*(words or _VALKEY[valkey.RedisError]))


def machine_error(error: OSError) -> StartError:
    """Return the error for people for an error of the operating system."""
    sentence = _FILES.get(error.errno or 0, f"The operating system refuses ({error.strerror or type(error).__name__}).")
    file = f" ({error.filename})" if isinstance(error.filename, str) else ""
    remedy = _REMEDIES.get(error.errno or 0, "Check the path and its permissions, or name another.")
    return StartError("machine_refuses", f"{sentence.removesuffix('.')}{file}.", remedy)


def plain_error(error: BaseException) -> StartError | None:
    """Return the error for people after a command failed; None if neither engines nor machine caused it."""
    leaves = tuple(leaves_of(error))
    start_error = next((leaf for leaf in leaves if isinstance(leaf, StartError)), None)
    return start_error or next((words for leaf in leaves if (words := _words_of(leaf)) is not None), None)


def _words_of(error: BaseException) -> StartError | None:
    """Return the error for people for a single error, or None."""
    match error:
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return database_error(error)
        case valkey.RedisError():
            return valkey_error(error)
        case MarketplaceError():
            remedy = "Run: marketplace doctor" if isinstance(error, Unavailable) else ""
            return StartError("refused", error.detail or "A server that is needed does not answer.", remedy)
        case ConnectionError() | TimeoutError() | ssl.SSLError() | socket.gaierror():
            sentence = f"A server that is needed does not answer ({type(error).__name__})."
            return StartError(
                "engine_away", sentence, "Check the addresses in the settings, and run: marketplace doctor"
            )
        case OSError():
            return machine_error(error)
    return None


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in an exception group, nested ones too; `error` itself when it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves_of(member)
    else:
        yield error


def _network_words(error: BaseException, server: str, variable: str, code: str) -> Words | None:
    """Return the words for an error of the connection to a server, or None when it is no such error."""
    check = f"Check the host and port of {variable}, and whether a firewall is between."
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionError) and "SSL" in str(error)):
        return _TLS
    match error:
        case socket.gaierror():
            return "host_unknown", f"The name of {server}'s host is not known.", f"Correct the host of {variable}."
        case ConnectionRefusedError():
            sentence = f"Nothing takes connections where {variable} points."
            return code, sentence, f"Start {server}, or correct the host and port of {variable}."
        case TimeoutError():
            return code, f"{server} does not answer in time.", check
        case FileNotFoundError() | PermissionError():
            sentence = f"The socket of {server}, or a file that {variable} names, cannot be opened."
            return code, sentence, f"Start {server}, or correct {variable}."
        case OSError():
            return code, f"{server} cannot be reached ({type(error).__name__}).", check
    return None


def _find_words(table: dict[type[BaseException], Words], error: BaseException) -> Words | None:
    """Return the words for the nearest base class of `error` in the table, or None."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _add_class(sentence: str, error: BaseException) -> str:
    return f"{sentence.removesuffix('.')} ({type(error).__name__})."
