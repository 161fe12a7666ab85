"""Private names of paho-mqtt's client that programs and libraries use all the same.

Each is looked up in one of the parts, which do without it. docs/moving-from-paho.md says who uses which.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter

from device_sdk.paho._attributes import NAMES, Attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["serve_private_names"]

# Settings and state, to be read and set: private name -> where it is.
_KEPT = {
    "_callback_api_version": "_program.callback_api_version",
    "_connect_timeout": "_endpoint.connect_timeout",
    "_logger": "_program.logger",
    "_max_inflight_messages": "_limits.inflight",
    "_max_queued_messages": "_limits.queued",
    "_reconnect_delay": "_back_off.delay",
    "_reconnect_max_delay": "_back_off.longest",
    "_reconnect_min_delay": "_back_off.shortest",
    "_reconnect_on_failure": "_back_off.reconnects",
    **{f"_{name}": f"_program.callbacks.{name}" for name in NAMES},
}

# Methods: private name -> where it is.
_METHODS = {"_easy_log": "_program.log", "_sock_close": "_connection.drop"}

# What a method without arguments returns, to be read.
_ASKED = {
    "_inflight_messages": "_core.in_flight",
    "_sock": "_connection.socket",
    "_state": "_life.number",
}

_LOCKS = (
    "_callback_mutex",
    "_current_out_packet_mutex",  # 1.x
    "_in_callback_mutex",
    "_in_message_mutex",
    "_mid_generate_mutex",
    "_msgtime_mutex",
    "_out_message_mutex",
    "_out_packet_mutex",  # 1.x
    "_reconnect_delay_mutex",
)


class _NoLock:
    """A lock that excludes nobody: what paho-mqtt guards with it needs none here."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Return that it is taken."""
        return True

    def release(self) -> None:
        """Do nothing."""

    def locked(self) -> bool:
        """Return that nobody has it."""
        return False

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass


class _OutMessages:
    """The messages of QoS 1 and 2 that the broker has not acknowledged: their number, and the end of all."""

    def __init__(self, client: Any) -> None:
        self._count: Callable[[], int] = attrgetter("_core.outstanding")(client)
        self._drop: Callable[[], object] = attrgetter("_outgoing.drop")(client)

    def __len__(self) -> int:
        return self._count()

    def clear(self) -> None:
        """Drop them all, as ``drop_out_messages()`` does."""
        self._drop()


def _set_out_messages(client: Any, value: Any) -> None:
    """An empty container in their place drops them."""
    if len(value):
        raise TypeError("_out_messages: messages cannot be put in here; call publish()")
    _OutMessages(client).clear()


def _set_terminate(client: Any, value: object) -> None:
    """Let the loop end, or go on, as ``loop_stop()`` does without waiting for the thread."""
    find_loop = attrgetter("_loop.stop" if value else "_loop.resume")
    find_loop(client)()


_OTHERS = {
    "_out_messages": property(_OutMessages, _set_out_messages),
    "_in_messages": property(lambda _: {}),  # PUBREL finds its message whatever a program clears
    "_out_packet": property(lambda _: deque()),  # output of an ended connection is gone by itself
    "_thread_terminate": property(attrgetter("_loop.is_stopping"), _set_terminate),
}


def serve_private_names(client: type) -> None:
    """Give the class of the client the private names."""
    names = {
        **{name: Attribute(path) for name, path in _KEPT.items()},
        **{name: property(attrgetter(path)) for name, path in _METHODS.items()},
        **{name: _asked(path) for name, path in _ASKED.items()},
        **{name: _NoLock() for name in _LOCKS},
        **_OTHERS,
    }
    for name, served in names.items():
        setattr(client, name, served)


def _asked(path: str) -> property:
    find = attrgetter(path)
    return property(lambda client: find(client)())
