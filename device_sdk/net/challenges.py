"""The schemes of authentication that an HTTP server or proxy asks for. Source: RFC 9110 §11.6.1, §11.7.1."""

from __future__ import annotations

import re

__all__ = ["challenges"]

# A scheme begins the value or follows a comma; what has a '=' behind it is a parameter.
_SCHEME = re.compile(rb"(?:^|,)[ \t]*([A-Za-z][A-Za-z0-9-]{0,30})(?=[ \t]*(?:,|$)|[ \t]+[^ \t=,])")


def challenges(head: bytes, header: bytes) -> list[str]:
    """Return the names, such as ``["Negotiate", "NTLM"]``, in the headers of this name, in order."""
    found: list[str] = []
    for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:]):
        if name.strip().lower() == header.lower():
            found += [scheme.decode("ascii") for scheme in _SCHEME.findall(value.strip())]
    return found[:8]
