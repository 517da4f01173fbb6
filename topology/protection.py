"""Protection at the door: values that mean nothing are no keys, so they never join two things.

The built-in ones hold for everybody; the bundle's own are in its section `identity` (`definitions.Protection`).  What
depends on a component (`unique`, `limit`) is decided by the graph's fold instead.
"""

from __future__ import annotations

from typing import Final

from milepost.topology.definitions import Protection

COMPANY: Final = "company"
NOTHING: Final = frozenset({"", "null", "none", "unknown", "n/a", "-1"})
"""Values that mean nothing, in any case and with blanks around them; so does one of zeros and dashes only."""
FREE_MAIL: Final = frozenset(
    {
        "gmail.com", "googlemail.com", "yahoo.com", "ymail.com", "hotmail.com", "outlook.com", "live.com", "msn.com",
        "icloud.com", "me.com", "mac.com", "aol.com", "gmx.com", "gmx.de", "gmx.net", "web.de", "mail.com", "mail.ru",
        "yandex.ru", "yandex.com", "proton.me", "protonmail.com", "zoho.com", "fastmail.com", "t-online.de", "qq.com",
        "163.com", "126.com", "naver.com", "orange.fr", "free.fr", "libero.it", "comcast.net", "verizon.net",
    }
)  # fmt: skip
"""Mail domains that are nobody's own: never a company's key."""


def means_nothing(entity: str, value: str) -> bool:
    """Whether a value is no key, whatever the bundle says."""
    text = value.strip().casefold()
    return text in NOTHING or not text.strip("0-") or (entity == COMPANY and text in FREE_MAIL)


def blocked(protection: Protection, entity: str, kind: str, value: str) -> bool:
    """Whether the bundle says that a value is no key."""
    of = entity, kind
    if value in protection.blocked.get(of, ()):
        return True
    if of not in protection.free_mail:
        return False
    text = value.strip().casefold()
    return text in protection.domains or text in FREE_MAIL
