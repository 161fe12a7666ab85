"""What becomes of a signal that interrupts a thread inside a client.

Python runs the handler of a signal between any two steps of the main thread, also while that has the engine's
lock. The lock is an RLock for what it knows, not for being taken twice: who has it.

- The handler raises (Ctrl-C does): the lock must be given back. ``with`` does so, because no handler runs
  between taking the lock and entering the block. Where that is too slow, and where the lock is only tried,
  ``acquire()`` is the first call inside a ``try``, and the first call of what ends it is ``release()``: it
  raises RuntimeError, and does nothing, if the lock was never taken.
- The handler uses the client: with a plain lock it would wait for its own thread for ever, and taking the
  lock twice would show it a half-changed state. So it is told.
"""

from __future__ import annotations

from device_sdk._printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading

__all__ = ["has_lock", "reentered", "refuse_reentry"]


def refuse_reentry(lock: threading.RLock, what: str) -> None:
    """Raises: RuntimeError: ``what`` was called by the handler of a signal that has interrupted the lock's
    owner.
    """
    if has_lock(lock):
        raise reentered(what)


def reentered(what: str) -> RuntimeError:
    """Return the error of a call that has interrupted the client."""
    return RuntimeError(
        printable(
            f"{what} in the handler of a signal that has interrupted the client at work; "
            "set a flag in the handler, or start a thread there that makes the call"
        )
    )


def has_lock(lock: threading.RLock) -> bool:
    """Whether the calling thread has the lock."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return]
