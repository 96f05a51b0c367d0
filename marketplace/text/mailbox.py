"""Normal form of e-mail addresses, so that one person with several spellings is recognised.

Providers deliver many spellings to one mailbox. Two addresses are compared by the form that `mailbox` returns. For an
unknown provider the rules of most servers are assumed, so that in doubt two spellings are the same person. Mail is sent
to the address as entered, never to this form.
"""

import unicodedata
from typing import Final

import msgspec

from marketplace.text.characters import drop_ignorable


class MailboxRule(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of a mail provider: its main domain, characters ignored in names, and the marks that begin a tag."""

    domain: str | None = None
    ignored: str = ""
    tags: str = "+"


_GOOGLE: Final = MailboxRule(domain="gmail.com", ignored=".")
"https://support.google.com/mail/answer/7436150 (dots), /answer/10313 (googlemail.com)."
_APPLE: Final = MailboxRule(domain="icloud.com")
"https://support.apple.com/102540: an address at me.com or mac.com is also one at icloud.com."
_PROTON: Final = MailboxRule(domain="proton.me", ignored="._-")
"https://proton.me/support/addresses-and-aliases: dots, hyphens and underscores; pm.me and protonmail.com are aliases."
_YAHOO: Final = MailboxRule(tags="+-")
"https://help.yahoo.com/kb/SLN28815.html: base-keyword; a name of Yahoo's has no hyphen of its own."
_YANDEX: Final = MailboxRule(domain="yandex.ru")
"https://yandex.com/support/mail/web/preferences/aliases.html: one mailbox under every domain of Yandex."
_HYPHEN_AS_DOT: Final = frozenset({"yandex.ru"})
"Yandex reads a hyphen in a name as a dot."

_RULES: Final = {
    **dict.fromkeys(("gmail.com", "googlemail.com"), _GOOGLE),
    **dict.fromkeys(("icloud.com", "me.com", "mac.com"), _APPLE),
    **dict.fromkeys(("proton.me", "protonmail.com", "protonmail.ch", "pm.me"), _PROTON),
    **dict.fromkeys(("ymail.com", "rocketmail.com", "myyahoo.com"), _YAHOO),
    **dict.fromkeys(
        ("yandex.ru", "yandex.com", "yandex.by", "yandex.kz", "yandex.ua", "yandex.com.tr", "ya.ru"), _YANDEX
    ),
}
_FASTMAIL: Final = (".fastmail.com", ".fastmail.fm")
"https://www.fastmail.help/hc/en-us/articles/360060591053: tag@name.fastmail.com is name@fastmail.com."
_ANY: Final = MailboxRule()
"A plus begins a tag: RFC 5233, and the default of Exchange Online, Fastmail, Google Workspace, Postfix and Zoho."


def mailbox(address: str) -> str:
    """Return the same form for all addresses that reach the mailbox of `address`, whose domain is in ASCII.

    Letters are compared in Unicode's compatibility form without case, so that full-width and capital letters are equal.
    """
    name, domain, rule = _untagged(address)
    plain = "".join(character for character in name if character not in rule.ignored) or name
    domain = rule.domain or domain
    return f"{plain.replace('-', '.') if domain in _HYPHEN_AS_DOT else plain}@{domain}"


def spellings(address: str) -> tuple[str, ...]:
    """Return all forms under which the address may be on record: `mailbox` first, then those of older records.

    Older records have the hash of the address in lower case. A keyed hash cannot be converted, so that this form and
    those without a tag are searched and stored as well.
    """
    name, domain, rule = _untagged(address)
    older = (f"{name}@{rule.domain or domain}", f"{name}@{domain}", address.lower())
    return tuple(dict.fromkeys((mailbox(address), *older)))


def _untagged(address: str) -> tuple[str, str, MailboxRule]:
    """Return the name without case and tag, the domain, and the rules of its provider."""
    name, _, domain = address.rpartition("@")
    domain = domain.lower()
    name = drop_ignorable(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()))
    if domain.endswith(_FASTMAIL) and domain.count(".") == 2:
        name, _, domain = domain.partition(".")
    rule = _RULES.get(domain) or (_YAHOO if domain.startswith("yahoo.") else _ANY)
    for mark in rule.tags:
        name = name.partition(mark)[0] or name
    return name, domain, rule
