"""The source as the figures and the guards read it: parsed, never imported.

A :class:`Source` holds the modules of the package and of the rig by their paths, so that this checkout,
another commit and three lines in a test are read in the same way. A code line is a physical line with a
token of the program: no blank line, no comment, no docstring.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Tokens that are no code.
_EMPTY = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


class Module:
    """One file: ``path`` relative to the checkout, ``name`` dotted, ``tree`` its syntax."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text, path)
        parts = path.removeprefix("hil/").removesuffix(".py").split("/")
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """The numbers of the code lines, signatures included."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in _EMPTY:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if (text := docstring(node)) is not None:
                lines.difference_update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        return frozenset(lines)

    @cached_property
    def functions(self) -> list[Function]:
        """Every function of the file, methods and nested ones included."""
        return [node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)]

    def function_code(self, function: Function) -> int:
        """Return the code lines of the body: no signature, decorator, docstring, comment or blank line."""
        body = range(function.body[0].lineno, (function.end_lineno or function.lineno) + 1)
        return len(self.code_lines.intersection(body))

    @cached_property
    def code(self) -> int:
        """The code lines of the file without the signatures of its functions."""
        signatures: set[int] = set()
        for function in self.functions:
            signatures.update(range(function.lineno, max(function.body[0].lineno, function.lineno + 1)))
        one_liners = {f.body[0].lineno for f in self.functions if docstring(f) is None}
        return len(self.code_lines - (signatures - one_liners))


class Source:
    """All modules of the package and of the rig, by path."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = [Module(path, text) for path, text in sorted(modules.items())]

    @classmethod
    def read(cls, root: Path) -> Source:
        """Read ``device_sdk`` and ``hil/device_sdk_hil`` of the checkout at ``root``."""
        paths = [*root.glob("device_sdk/**/*.py"), *root.glob("hil/device_sdk_hil/**/*.py")]
        return cls({path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths})

    def within(self, *folders: str) -> Iterator[Module]:
        """Yield the modules below these folders of the checkout."""
        for module in self.modules:
            if module.path.startswith(folders):
                yield module


def docstring(node: ast.AST) -> ast.Expr | None:
    """Return the statement that is the node's docstring."""
    if not isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) or not node.body:
        return None
    first = node.body[0]
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return first if is_text and isinstance(first, ast.Expr) else None
