"""The options of a driver, checked against the signature of its constructor before it is called."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from device_sdk._text import did_you_mean
from device_sdk.drivers.base import driver_class
from device_sdk.errors import ArgumentError, MissingDependency
from device_sdk.node.config_errors import mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["default_of", "option_problems", "takes_option"]

# Annotation -> the TOML types that fit and their name. An annotation that is not here fits everything.
_FITS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "Path": ((str,), "a path"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "Mapping": ((dict,), "a table"),
    "dict": ((dict,), "a table"),
    "Sequence": ((list,), "an array"),
    "list": ((list,), "an array"),
}
# Cannot be written in a file, so they fit nothing there.
_ONLY_IN_PYTHON = {"None", "I2CBus", "Callable"}


def option_problems(kind: str, options: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is wrong with the options of this kind of driver: pairs of the option and the problem.

    Nothing is opened. The driver's own checks run too, if there is nothing else to complain about: its
    constructor touches no hardware. Raises: ArgumentError: there is no such kind.
    """
    try:
        driver = driver_class(kind)
    except MissingDependency:
        return []  # told when the sensor is opened: the others go on
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
                problems.append((name, mismatch(expected, options[name], name)))
        elif parameter.default is inspect.Parameter.empty:
            problems.append((name, f"{kind} needs this option"))
    if not problems:
        try:
            driver(**options)
        except ArgumentError as error:
            argument = error.argument.partition(".")[0]
            problems.append((argument, str(error).removeprefix(f"{argument}: ")))
        except MissingDependency:
            pass
        except Exception as error:
            problems.append(("", f"{kind} does not take these options: {type(error).__name__}: {error}"))
    return problems


def takes_option(kind: str, name: str) -> bool:
    """Tell whether this kind of driver has an option of that name. Raises: ArgumentError: no such kind."""
    try:
        return name in inspect.signature(driver_class(kind)).parameters
    except MissingDependency:
        return False


def default_of(kind: str, name: str) -> object:
    """Return the default of an option for which :func:`takes_option` is true."""
    return inspect.signature(driver_class(kind)).parameters[name].default


def _expected(annotation: Any, value: object) -> str:
    """Return what the annotation wants instead of the value, or an empty text if the value fits."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    inner = r"\[[^\[\]]*\]"
    while re.search(inner, text):
        text = re.sub(inner, "", text)
    wanted = []
    for name in (part.strip().rpartition(".")[2] for part in text.split("|")):
        if name in _ONLY_IN_PYTHON:
            continue
        if name not in _FITS:
            return ""
        types, called = _FITS[name]
        # A bool is an int to Python, but not to whoever wrote the file.
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            return ""
        wanted.append(called)
    return " or ".join(wanted)


def _listed(names: Mapping[str, object]) -> str:
    return f"; there is: {', '.join(names)}" if names else "; it has none"
