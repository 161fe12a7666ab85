"""Attributes of a client that its parts keep: above all the callbacks."""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, overload

    Callback = Callable[..., object]
    Decorator = Callable[[Callback], Callback]

__all__ = ["NAMES", "Attribute", "CallbackAttribute", "Callbacks", "setting"]

NAMES = (
    "on_connect",
    "on_connect_fail",
    "on_disconnect",
    "on_log",
    "on_message",
    "on_pre_connect",
    "on_publish",
    "on_socket_close",
    "on_socket_open",
    "on_socket_register_write",
    "on_socket_unregister_write",
    "on_subscribe",
    "on_unsubscribe",
)


class Callbacks:
    """The functions that a program has set as callbacks; ``None`` where it has set none."""

    __slots__ = NAMES

    def __init__(self) -> None:
        for name in NAMES:
            setattr(self, name, None)


class Attribute(property):
    """An attribute of the client that one of its parts keeps, at ``path``: ``_connect.client_id``."""

    def __init__(self, path: str) -> None:
        place, _, name = path.rpartition(".")
        find_place = attrgetter(place)

        def assign(client: Any, value: object) -> None:
            setattr(find_place(client), name, value)

        # Read without a Python call, because callbacks are, for every message.
        super().__init__(attrgetter(path), assign)
        self.name = name


class _Setting(Attribute):
    def __init__(self, check: Callable[[Any, str], None], path: str, doc: str) -> None:
        super().__init__(path)
        self.__doc__ = f"{doc} Change it only without a connection."
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, client: Any, value: object, /) -> None:
        self._check(client, self.name)
        super().__set__(client, value)


def setting(check: Callable[[Any, str], None], path: str, doc: str) -> Any:
    """Return an attribute that the program may change only without a connection.

    ``check``: called with the client and the name before a change; it raises if there is a connection. The
    class names the type: ``port: int = setting(...)``.
    """
    return _Setting(check, path, doc)


class CallbackAttribute(Attribute):
    """One callback, to be read and set like a plain attribute.

    A subclass of the client may define a method of the same name instead: look it up at the client. ``doc``:
    its arguments, and when it is called.
    """

    def __init__(self, path: str, doc: str) -> None:
        super().__init__(path)
        self.__doc__ = doc  # as an argument of property() it would be hidden by that of this class

    if TYPE_CHECKING:

        @overload
        def __get__(self, client: None, owner: type, /) -> Self: ...
        @overload
        def __get__(self, client: object, owner: type | None = None, /) -> Callback | None: ...
        def __get__(self, client: object, owner: type | None = None, /) -> Any: ...
        def __set__(self, client: Any, func: Callback | None, /) -> None: ...

    def decorator(self) -> Callable[[Any], Decorator]:
        """Return the method of the client that sets this callback as a decorator: ``log_callback``."""
        name = self.name

        def set_callback(self: Any) -> Decorator:
            def decorator(func: Callback) -> Callback:
                setattr(self, name, func)
                return func

            return decorator

        set_callback.__name__ = f"{name.removeprefix('on_')}_callback"
        set_callback.__qualname__ = f"Client.{set_callback.__name__}"
        del set_callback.__annotations__["self"]  # no method that help() shows has it
        set_callback.__doc__ = f"As a decorator: sets :attr:`{name}`."
        return set_callback
