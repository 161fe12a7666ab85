"""Text from outside has few ways out of the package, and each makes it safe: read from the source.

An error of the package's own tree, a :class:`Log`, a :class:`ClientEvent` and ``cli/terminal.py`` do it by
themselves. These tests find what goes past them.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, RIG = ROOT / "device_sdk", ROOT / "hil" / "device_sdk_hil"

# Files that may use the module logging, and why.
LOGGING = {
    "_log.py": "makes every line of the package safe",
    "cli/common.py": "sets up the handler of the command",
    "cli/connection.py": "filters a logger",
    "cli/demo/subscriber.py": "asks for the level",
    "cli/node.py": "asks for the level",
    "cli/terminal.py": "has the formatter of the command",
    "net/upgrade.py": "silences the logger of another package",
    "paho/_codes.py": "names the levels",
    "paho/_program.py": "passes lines on to the logger of the program, and makes them safe",
    "paho/client.py": "takes the logger of the program",
}
PRINTING = {
    "cli/demo/view.py": "rich shows a text of the demo",
    "cli/terminal.py": "makes every line safe",
    "launch.py": "runs without the package, and names a file",
}

# Places whose values are the developer's own, in a test of his: `testing` reports to a test.
OF_TESTS = "testing/"


def trees() -> Iterator[tuple[str, ast.Module]]:
    for folder in (PACKAGE, RIG):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if not name.startswith(OF_TESTS):
                yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_logging(tree: ast.AST) -> bool:
    return any(
        alias.name.partition(".")[0] == "logging"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ) or any(isinstance(node, ast.ImportFrom) and node.module == "logging" for node in ast.walk(tree))


def prints(tree: ast.AST) -> bool:
    """Whether something is printed, or written to a standard stream; lines of docstrings are no code."""
    ways = (
        "print",
        "input",
        "sys.stdout.write",
        "sys.stderr.write",
        "sys.stdout.buffer.write",
        "warnings.warn",
    )
    return any(
        isinstance(node, ast.Call)
        and (ast.unparse(node.func) in ways or ast.unparse(node.func).endswith("console.print"))
        and not (len(node.args) >= 1 and isinstance(node.args[0], ast.Constant))
        for node in ast.walk(tree)
    )


def unsafe_values(call: ast.Call) -> list[str]:
    """What stands as it is in the text of an exception: no ``!r``, no format of a number, no printable()."""
    found: list[str] = []
    waiting: list[ast.AST] = list(call.args)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Call(func=ast.Name(id="printable")):
                continue
            case ast.FormattedValue(value=ast.Attribute(attr="__name__")):
                continue
            case ast.FormattedValue(conversion=conversion, format_spec=spec):
                if conversion != ord("r") and spec is None:
                    found.append(ast.unparse(node.value))
                continue
            case ast.Call(func=ast.Name(id="str")):
                found.append(ast.unparse(node))
        waiting.extend(ast.iter_child_nodes(node))
    return found


def builtin_errors(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call that makes an exception which is not of the package's tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kind = getattr(builtins, node.func.id, None)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                yield node


def test_only_the_log_of_the_package_writes_to_loggers() -> None:
    assert {name for name, tree in trees() if imports_logging(tree)} == LOGGING.keys()


def test_only_the_terminal_prints() -> None:
    assert {name for name, tree in trees() if prints(tree)} == PRINTING.keys()


def test_an_exception_of_another_tree_quotes_only_what_is_safe() -> None:
    found = [
        f"{name}:{call.lineno}: {ast.unparse(call.func)}: {values}"
        for name, tree in trees()
        for call in builtin_errors(tree)
        if (values := unsafe_values(call))
    ]
    assert not found, "\n".join(found)


def test_the_rules_notice_small_bad_examples() -> None:
    assert imports_logging(ast.parse("import logging.handlers"))
    assert prints(ast.parse("print(topic)")) and not prints(ast.parse("print('done')"))
    (call,) = builtin_errors(ast.parse("raise TimeoutError(f'{topic} in {seconds:g} s, {name!r}')"))
    assert unsafe_values(call) == ["topic"]
    (call,) = builtin_errors(ast.parse("raise ValueError(printable(f'{topic}'))"))
    assert unsafe_values(call) == []
