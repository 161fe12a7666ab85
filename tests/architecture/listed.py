"""The list of files in the docstring of a package: complete where a reader needs one."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tests.house.ratchet import Finding, Rule
from tests.house.source import Module, Source

# So many modules are found without a list.
FEW = 6


def _unlisted(source: Source) -> Iterator[Finding]:
    """Find the modules that the docstring of a large package does not name as ``name.py``."""
    folders: dict[str, list[Module]] = defaultdict(list)
    for module in source.modules:
        folders[module.path.rpartition("/")[0]].append(module)
    for folder, found in folders.items():
        files = [module.path.rpartition("/")[2] for module in found if not module.is_package]
        if len(files) > FEW:
            text = next((ast.get_docstring(module.tree) or "" for module in found if module.is_package), "")
            for file in files:
                if not re.search(rf"(?<!\w){re.escape(file)}", text):
                    yield Finding(f"{folder}/__init__.py", f"its docstring does not list {file}")


UNLISTED_MODULES = Rule("modules that their package does not list", "a line for each file", _unlisted)
