"""Attributes of a client that its parts keep: above all the callbacks."""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, overload

    Callback = Callable[..., object]
    Decorator = Callable[[Callback], Callback]

__all__ = ["NAMES", "Attribute", "CallbackAttribute", "Callbacks"]

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
        place, _, self.name = path.rpartition(".")
        find_place = attrgetter(place)

        def assign(client: Any, value: object) -> None:
            setattr(find_place(client), self.name, value)

        # Read without a Python call, because callbacks are, for every message.
        super().__init__(attrgetter(path), assign)


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
