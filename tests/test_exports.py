"""Every public module says what is public, and all of it is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import device_sdk


def public_modules() -> list[str]:
    found = pkgutil.walk_packages(device_sdk.__path__, "device_sdk.")
    return [module.name for module in found if not any(part[0] == "_" for part in module.name.split("."))]


@pytest.fixture(params=public_modules())
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_a_public_module_lists_its_names_and_documents_them(module: ModuleType) -> None:
    assert module.__doc__, "no docstring"
    if hasattr(module, "__path__") and not hasattr(module, "__all__"):
        return  # a package that only holds modules
    names: list[str] = vars(module)["__all__"]
    assert len(names) == len(set(names))
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_package_exports_each_name_it_lists() -> None:
    names: list[str] = vars(device_sdk)["__all__"]
    assert "Client" in names
    assert set(names) <= set(dir(device_sdk))
    for name in names:
        assert getattr(device_sdk, name) is not None


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    misspelt = "Cleint"
    with pytest.raises(AttributeError, match=misspelt):
        getattr(device_sdk, misspelt)


def arguments(client: type, method: str) -> list[tuple[object, ...]] | None:
    """Return names, kinds and defaults of a method's arguments; ``None`` for an attribute or a property."""
    function = getattr(client, method)
    if not callable(function):
        return None
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


def test_both_clients_have_the_same_public_names_with_the_same_arguments() -> None:
    ours, theirs = (
        {name: arguments(client, name) for name in dir(client) if not name.startswith("_")}
        for client in (device_sdk.Client, device_sdk.AsyncClient)
    )
    assert "publish" in ours
    assert ours == theirs
