"""The code blocks of a page of the documentation, by the heading above them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Block(NamedTuple):
    """A code block: the heading that it stands under, its language, its text."""

    heading: str
    language: str
    text: str


def blocks(name: str) -> list[Block]:
    """Return the code blocks of a page in order."""
    found = []
    heading = ""
    text = (DOCS / name).read_text(encoding="utf-8")
    for match in re.finditer(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            found.append(Block(heading, match[2], match[3]))
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE))
    return found
