"""Database logins: each process has a login that owns nothing and may only act as its own roles.

Privileges are granted to group roles such as marketplace_api, which cannot log in. A login is a member of the groups
that it may act as and inherits nothing, so that `set role none` leaves it without privileges. The owner of the schema
logs in only to migrate.

Names and passwords are derived from the installation's master key: no process needs a further setting, and two
installations on one server never share a login.
"""

import base64
import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final, Literal

import asyncpg
import msgspec

Role = Literal["marketplace_api", "marketplace_worker", "marketplace_reports", "marketplace_feeder"]
"""Group roles that processes act as."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "marketplace_api": (),
    "marketplace_worker": (),
    "marketplace_reports": (),
    "marketplace_feeder": (),
    "marketplace_eraser": ("marketplace_api",),
    "marketplace_returner": ("marketplace_api",),
}
"""Every role that has privileges, with the groups that it is a member of."""

ACTS_AS: Final[Mapping[Role, tuple[str, ...]]] = {
    "marketplace_api": ("marketplace_api", "marketplace_eraser", "marketplace_returner"),
    "marketplace_worker": ("marketplace_worker",),
    "marketplace_reports": ("marketplace_reports",),
    "marketplace_feeder": ("marketplace_feeder",),
}
"""Groups that the login of each role may act as: in single transactions, the api erases and grants returns."""

SCRAM_ROUNDS: Final = 4096
"""PostgreSQL's default (scram_iterations), and the minimum of RFC 7677."""

_MISSING_MEMBERSHIPS: Final = """
select format('grant %I to %I', needed.of_group, needed.member) as statement
from unnest($1::text[], $2::text[]) with ordinality as needed (member, of_group, n)
where not exists (
    select from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member
    where g.rolname = needed.of_group and r.rolname = needed.member)
order by needed.n"""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials of one role's connections. Its text form shows no password."""

    role: Role
    name: str
    password: str
    salt: bytes

    def __repr__(self) -> str:
        return f"Login({self.name})"


def login_of(master_key: bytes, role: Role) -> Login:
    """Return the login of `role` in the installation with this master key."""
    installation = _derive(master_key, "installation").hex()[:8]
    return Login(
        role=role,
        name=f"{role}_{installation}",
        password=_derive(master_key, f"password:{role}").hex(),
        salt=_derive(master_key, f"salt:{role}")[:16],
    )


def _derive(master_key: bytes, purpose: str) -> bytes:
    return hmac.digest(master_key, f"marketplace database login:{purpose}".encode(), "sha256")


def scram_verifier(password: str, salt: bytes) -> str:
    """Return PostgreSQL's stored form of a password (RFC 5803). Nobody can log in with it, so it may be logged."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))
    encoded_salt, stored_key, server_key = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{encoded_salt}${stored_key}:{server_key}"


def script(master_key: bytes, owner: str) -> str:
    """Return SQL that creates all roles and logins, for an owner who may create roles; it may run repeatedly.

    `owner` is the login that will migrate. The text holds no password, only verifiers.
    """
    lines = [f"-- The marketplace's roles and logins. {_quote(owner)} owns the database and applies its migrations."]
    for statement in _creations(master_key).values():
        lines.append(f"do $$ begin {statement}; exception when duplicate_object then null; end $$;")
    lines += [f"grant {_quote(group)} to {_quote(member)};" for member, group in _memberships(master_key, owner)]
    return "\n".join(lines) + "\n"


async def prepare(connection: asyncpg.Connection, master_key: bytes) -> None:
    """Create the roles, logins and memberships that are missing. Several processes may run it at once on a server.

    Raises asyncpg.InsufficientPrivilegeError when something is missing and the connection's login may not create it.
    """
    creations = _creations(master_key)
    rows = await connection.fetch("select rolname from pg_roles where rolname = any($1)", list(creations))
    present = {row["rolname"] for row in rows}
    for name, statement in creations.items():
        if name not in present:
            with contextlib.suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):  # made meanwhile
                await connection.execute(statement)
    owner = await connection.fetchval("select rolname from pg_roles where rolname = current_user and not rolsuper")
    memberships = _memberships(master_key, owner)
    for row in await connection.fetch(_MISSING_MEMBERSHIPS, *zip(*memberships, strict=True)):
        with contextlib.suppress(asyncpg.UniqueViolationError, asyncpg.InternalServerError):  # granted meanwhile
            await connection.execute(row["statement"])


def _creations(master_key: bytes) -> dict[str, str]:
    """Return the statement that creates each role, by its name, groups first."""
    logins = [login_of(master_key, role) for role in ACTS_AS]
    return {name: f"create role {_quote(name)} nologin" for name in GROUPS} | {
        login.name: f"create role {_quote(login.name)} login noinherit"
        f" password '{scram_verifier(login.password, login.salt)}'"
        for login in logins
    }


def _memberships(master_key: bytes, owner: str | None) -> list[tuple[str, str]]:
    """Return pairs of a member and its group. Migrations require that an owner who is no superuser is in each group."""
    of_groups = [(name, group) for name, groups in GROUPS.items() for group in groups]
    of_logins = [(login_of(master_key, role).name, group) for role, groups in ACTS_AS.items() for group in groups]
    of_owner = [(owner, group) for group in GROUPS] if owner is not None else []
    return [*of_owner, *of_groups, *of_logins]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
