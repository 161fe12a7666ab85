"""Which room may import which: read from the source, nothing is imported.

Imports under ``if TYPE_CHECKING:`` count: a room that needs another room's types depends on it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "device_sdk"

# A room is a module or a package directly in device_sdk. It may import itself and the rooms named here.
BELOW_SHELLS = {"errors", "mqtt", "net", "store", "engine"}
BELOW_NODE = BELOW_SHELLS | {"config", "drivers", "client_base", "threads", "client", "aio", "paho"}
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "_folding": set(),
    "_log": set(),
    "_arguments": set(),
    "_clock": set(),
    "_load": {"errors"},
    "_peers": set(),
    "_printable": set(),
    "_text": set(),
    "_traceback": set(),
    "_weak": set(),
    "_words": {"errors"},
    "errors": set(),
    "mqtt": {"errors"},
    "net": {"errors"},
    "store": {"errors"},
    "config": {"errors"},
    "drivers": {"errors"},
    "engine": {"errors", "mqtt", "net", "store"},
    "threads": {"errors", "mqtt", "engine"},
    "client_base": BELOW_SHELLS,
    "client": BELOW_SHELLS | {"client_base", "threads"},
    "aio": {"errors", "mqtt", "engine", "client_base"},
    "paho": BELOW_SHELLS,
    "node": BELOW_NODE | {"__init__"},
    "cli": BELOW_NODE | {"node", "__init__"},
    "testing": {"errors", "mqtt", "net", "drivers"},
    "__init__": BELOW_NODE,
    "__main__": {"cli"},
}
FOR_EVERYBODY = {
    "_arguments", "_clock", "_version", "_folding", "_log", "_load", "_peers", "_printable", "_text",
    "_traceback", "_weak", "_words",
}  # fmt: skip

# File pattern -> rooms it may import besides. The demo starts a real broker and cuts the network to it.
EXCEPTIONS: dict[str, set[str]] = {"cli/demo/*.py": {"testing"}}

# File pattern -> modules it may import inside a function, because most programs never need them.
LAZY_IMPORTS: dict[str, set[str]] = {
    "__init__.py": {"importlib.import_module"},
    "_log.py": {"logging", "device_sdk._traceback.safe_traceback"},
    "cli/demo/view.py": {"rich.live.Live", "rich.table.Table"},
}

# Files that import what a table names ("module:Class"), when it is asked for. Nobody else imports by name.
TABLE_OWNERS = {"__init__.py", "_load.py"}


@cache
def sources(*folders: Path) -> list[tuple[Path, ast.Module]]:
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [(path, ast.parse(path.read_text(encoding="utf-8"), str(path))) for path in paths]


def imports(tree: ast.AST) -> set[str]:
    """Dotted names that the import statements and the "module:Name" strings below a node refer to."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                found.update(f"{'.' * level}{module or ''}.{alias.name}" for alias in names)
            case ast.Constant(value=str(text)) if re.fullmatch(r"device_sdk(\.\w+)+:\w+", text):
                found.add(text.partition(":")[0])
    return found


def rooms(tree: ast.AST) -> set[str]:
    """Rooms that are imported; ``from device_sdk import Client`` imports the room ``__init__``."""
    names = {dotted.split(".")[1] for dotted in imports(tree) if dotted.startswith("device_sdk.")}
    return {name if name in MAY_IMPORT else "__init__" for name in names}


def granted(table: dict[str, set[str]], path: Path) -> set[str]:
    return {item for pattern, items in table.items() if path in PACKAGE.glob(pattern) for item in items}


def test_a_room_imports_only_the_rooms_below_it() -> None:
    for path, tree in sources(PACKAGE):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed = {room} | MAY_IMPORT[room] | FOR_EVERYBODY | granted(EXCEPTIONS, path)
        assert rooms(tree) <= allowed, f"{path}: must not import {sorted(rooms(tree) - allowed)}"


def test_the_rig_needs_neither_the_command_line_nor_the_node() -> None:
    for path, tree in sources(ROOT / "hil"):
        assert not rooms(tree) & {"cli", "node"}, f"{path}: the rig uses config and testing"


def test_imports_are_absolute_and_at_the_top_of_the_file() -> None:
    for path, tree in sources(PACKAGE):
        functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        hidden = {dotted for function in functions for dotted in imports(function)}
        hidden -= granted(LAZY_IMPORTS, path)
        assert not hidden, f"{path}: imports {sorted(hidden)} inside a function"
        relative = {dotted for dotted in imports(tree) if dotted.startswith(".")}
        assert not relative, f"{path}: write device_sdk... instead of {sorted(relative)}"


def test_only_the_owners_of_lazy_tables_import_by_name() -> None:
    owners = {
        path.relative_to(PACKAGE).as_posix()
        for path, tree in sources(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
    }
    assert owners == TABLE_OWNERS


def test_every_exception_is_still_needed() -> None:
    for table, used_by in ((EXCEPTIONS, rooms), (LAZY_IMPORTS, imports)):
        for pattern, granted_items in table.items():
            trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.glob(pattern)]
            unused = granted_items - {item for tree in trees for item in used_by(tree)}
            assert not unused, f"{pattern}: nothing there imports {sorted(unused)} any more"
