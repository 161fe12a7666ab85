"""The options of a driver, checked against the signature of its constructor before it is called."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from device_sdk._text import did_you_mean
from device_sdk.config.faults import mismatch, shown
from device_sdk.drivers.base import driver_class
from device_sdk.errors import ArgumentError, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["default_address", "default_of", "option_problems", "options_schema", "takes_option"]


class _Fit(NamedTuple):
    """Values that fit an annotation: TOML types, their name for people, their name in JSON Schema."""

    types: tuple[type, ...]
    called: str
    json_type: str


# For an annotation that is not here, every value fits.
_FITS: dict[str, _Fit] = {
    "str": _Fit((str,), "a text", "string"),
    "Path": _Fit((str,), "a path", "string"),
    "bool": _Fit((bool,), "true or false", "boolean"),
    "int": _Fit((int,), "a whole number", "integer"),
    "float": _Fit((int, float), "a number", "number"),
    "Mapping": _Fit((dict,), "a table", "object"),
    "dict": _Fit((dict,), "a table", "object"),
    "Sequence": _Fit((list,), "an array", "array"),
    "list": _Fit((list,), "an array", "array"),
}
# Cannot be written in a file, so they fit nothing there.
_ONLY_IN_PYTHON = {"None", "I2CBus", "Callable"}


def option_problems(kind: str, options: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the problems of the options of this kind of driver: pairs of option and problem.

    Nothing is opened. If these checks find nothing, the driver's own checks run too: its constructor touches
    no hardware. Raises: ArgumentError: there is no such kind.
    """
    try:
        driver = driver_class(kind)
    except MissingDependency:
        return []  # reported when the sensor is opened: the others go on
    parameters = inspect.signature(driver).parameters
    problems = [
        (name, f"{kind} has no such option{did_you_mean(name, parameters) or _listed(parameters)}")
        for name in options
        if name not in parameters
    ]
    for name, parameter in parameters.items():
        if name in options:
            expected = _expected(parameter.annotation, options[name])
            if expected:
                problems.append(
                    (name, mismatch(expected, options[name], name, _as_array(expected, options[name])))
                )
        elif parameter.default is inspect.Parameter.empty:
            problems.append((name, f"{kind} needs this option"))
    wrong = {name for name, _ in problems}
    rest = {name: value for name, value in options.items() if name not in wrong}
    return problems + _problems_of(kind, rest)


def _problems_of(kind: str, options: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what the constructor says about options, again and again without each that it names."""
    driver = driver_class(kind)
    parameters = inspect.signature(driver).parameters
    needed = {name for name, each in parameters.items() if each.default is inspect.Parameter.empty}
    problems: list[tuple[str, str]] = []
    while needed <= options.keys():
        try:
            driver(**options)
        except ArgumentError as error:
            argument, _, within = error.argument.partition(".")
            problems.append((argument, str(error).removeprefix(f"{argument}: ")))
            if argument not in options:
                break
            options = _without(options, argument, within)
        except MissingDependency:
            break
        except Exception as error:
            problems.append(("", f"{kind} does not take these options: {type(error).__name__}: {error}"))
            break
        else:
            break
    return problems


def _without(options: Mapping[str, object], name: str, within: str) -> dict[str, object]:
    """Return options without one, or without the wrong entry of its table if others are left in it."""
    rest = dict(options)
    table = rest.pop(name)
    if isinstance(table, dict):
        left = {key: value for key, value in table.items() if not f"{within}.".startswith(f"{key}.")}
        if 0 < len(left) < len(table):
            rest[name] = left
    return rest


def takes_option(kind: str, name: str) -> bool:
    """Return whether this kind of driver has an option of that name. Raises: ArgumentError: no such kind."""
    try:
        return name in inspect.signature(driver_class(kind)).parameters
    except MissingDependency:
        return False


def default_of(kind: str, name: str) -> object:
    """Return the default of an option for which :func:`takes_option` is true."""
    return inspect.signature(driver_class(kind)).parameters[name].default


def default_address(kind: str) -> int | None:
    """Return the address at which this kind of driver looks for its chip, if it knows one."""
    try:
        addresses: tuple[int, ...] = getattr(driver_class(kind), "addresses", ())
    except MissingDependency:
        return None
    return addresses[0] if addresses else None


def options_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a driver's options; empty (unknown) if its extra is not installed.

    Raises: ArgumentError: there is no such kind.
    """
    try:
        parameters = inspect.signature(driver_class(kind)).parameters
    except MissingDependency:
        return {}
    properties: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        types = sorted({fit.json_type for fit in _fits(parameter.annotation)})
        properties[name] = {"type": types if len(types) > 1 else types[0]} if types else {}
        if isinstance(parameter.default, (str, int, float)):
            properties[name]["default"] = parameter.default
    needed = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _expected(annotation: Any, value: object) -> str:
    """Return what the annotation expects instead of the value; an empty text if the value fits."""
    wanted = _fits(annotation)
    for fit in wanted:
        # A bool is an int to Python, but not to the author of the file.
        if isinstance(value, fit.types) and (bool in fit.types or not isinstance(value, bool)):
            return ""
    return " or ".join(fit.called for fit in wanted)


def _fits(annotation: Any) -> list[_Fit]:
    """Return the values that fit an annotation; empty: all."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    inner = r"\[[^\[\]]*\]"
    while re.search(inner, text):
        text = re.sub(inner, "", text)
    names = [part.strip().rpartition(".")[2] for part in text.split("|")]
    names = [name for name in names if name not in _ONLY_IN_PYTHON]
    return [_FITS[name] for name in names] if all(name in _FITS for name in names) else []


def _as_array(expected: str, value: object) -> str:
    """Return how to write a single value where an array is expected."""
    return f"; write [{shown(value)}]" if expected == "an array" and isinstance(value, str) else ""


def _listed(names: Mapping[str, object]) -> str:
    return f"; there is: {', '.join(names)}" if names else "; it has none"
