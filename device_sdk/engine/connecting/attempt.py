"""One attempt to connect, in a thread that can be left behind: a name look-up may hang."""

from __future__ import annotations

import threading
from time import monotonic

from device_sdk._weak import unframed
from device_sdk.errors import ConnectFailedError, DeviceSdkError, TransportClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from device_sdk.engine.connecting.brokers import Broker
    from device_sdk.engine.connecting.credentials import Credentials, Fields
    from device_sdk.engine.outgoing.greetings import Greeting

    class Opens(Protocol):
        """The part of an engine that has its streams opened by an :class:`Opener`."""

        def attempt(self) -> Attempt: ...
        def on_open(self, now: float) -> None: ...
        def on_open_failed(self, error: DeviceSdkError, now: float) -> None: ...


__all__ = ["Attempt", "Opener", "Opening"]

_GRACE_SECONDS = 1.0  # how late open() may be before it is abandoned
_MOST_LEFT_BEHIND = 4  # threads that hang; while there are so many, no attempt begins


class Attempt:
    """One attempt. :meth:`open` may run in a thread that is left behind; nobody looks at it then.

    ``is_return``: a connection to another server works meanwhile, and goes on if this attempt fails.
    ``is_outdated``: circumstances have changed since it began; its outcome means nothing. ``birth``: of the
    connection, which the application was asked for, or why there is none.
    """

    __slots__ = (
        "_credentials", "_lock", "_opens", "_over",
        "birth", "broker", "fields", "is_outdated", "is_return", "transport",
    )  # fmt: skip

    def __init__(self, broker: Broker, credentials: Credentials, *, is_return: bool) -> None:
        self.broker = broker
        self.transport = broker.transport
        self.is_return = is_return
        self.is_outdated = False
        self.fields: Fields = (None, None, None)
        self.birth: Greeting | DeviceSdkError | None = None
        self._credentials = credentials
        self._lock = threading.Lock()
        self._opens = False  # the transport is this attempt's
        self._over = False

    def open(self, deadline: float) -> None:
        """Ask the application, then open the stream; blocks. Raises: as :meth:`Transport.open`."""
        self.fields = self._credentials.ask(self.broker)
        self.birth = self._credentials.ask_birth()
        with self._lock:
            self._check()  # the application may have taken so long that the transport is a later attempt's
            self._opens = True
        self.transport.open(deadline)
        try:
            self._check()
        except TransportClosedError:  # close() came just before the transport began, and could not hold it
            self.transport.close()
            raise

    def _check(self) -> None:
        if self._over:
            raise TransportClosedError(f"{self.transport.description}: this attempt was left behind")

    @property
    def step(self) -> str:
        """What it is at, for an error text."""
        if self._opens:
            return f"open() of {self.transport.description}"
        return "credentials(), will() or birth()"

    def outdate(self) -> None:
        """Abort the attempt, whose outcome means nothing from now on. Any thread."""
        self.is_outdated = True
        self.abort()

    def abort(self) -> None:
        """End the attempt for good, and its stream as :meth:`Transport.abort`. Any thread."""
        with self._lock:
            self._over = True
        if self._opens:
            self.transport.abort()

    def close(self) -> None:
        """End the attempt for good, and its stream as :meth:`Transport.close`."""
        with self._lock:
            self._over = True
        if self._opens:
            self.transport.close()


class Opening:
    """Opens the transport within ``seconds``, and calls ``wake`` from its thread in the end.

    ``done``: open() has returned, with ``error`` or ``None``. The owner of the transport abandons an attempt
    that is not done at ``give_up_at``, which is ``grace`` seconds after the time that open() was given; that
    is in monotonic seconds, ``give_up_at`` in those of ``now``.
    Raises: RuntimeError: no more threads.
    """

    def __init__(
        self, attempt: Attempt, now: float, seconds: float, grace: float, wake: Callable[[], None]
    ) -> None:
        self._attempt = attempt
        self._deadline = monotonic() + seconds
        self._wake = wake
        self._seconds = seconds
        self.give_up_at = now + seconds + grace
        self.error: DeviceSdkError | None = None
        self.done = False
        threading.Thread(target=self._run, name="device-sdk open", daemon=True).start()

    def abandon(self) -> DeviceSdkError:
        """Leave the attempt behind, and return what to say about it.

        After both calls it keeps nothing open and disturbs no later one.
        """
        step = self._attempt.step
        self._attempt.abort()
        self._attempt.close()
        return ConnectFailedError(f"{step} has not returned within {self._seconds:g} s, and is left behind")

    def _run(self) -> None:
        try:
            self._attempt.open(self._deadline)
        except DeviceSdkError as error:
            self.error = unframed(error)  # its frames would keep the descriptors of a life alive
        except BaseException as error:  # also sys.exit() in a callable of the application
            self.error = ConnectFailedError(f"{type(error).__name__}: {error}")
        self.done = True
        self._wake()


class Opener:
    """Opens the streams of one engine, one at a time. Belongs to the owner of the transport.

    Attempts that hang are left behind, four at most: their threads cannot be ended.

    ``seconds``: what open() gets. ``give_up_at``: when to :meth:`look` at the latest; ``None``: nothing is
    being opened.
    """

    __slots__ = ("_left_behind", "_opening", "_seconds", "_target", "give_up_at")

    def __init__(self, target: Opens, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._opening: Opening | None = None
        self._left_behind: list[Opening] = []
        self.give_up_at: float | None = None

    def begin(self, now: float, wake: Callable[[], None]) -> bool:
        """Begin to open what the engine wants. Not under the lock: a thread takes its time to start.

        ``wake`` is called from that thread in the end. It is not kept: it belongs to the owner of this
        object, whose descriptors are closed when nothing refers to it any more.

        Returns: whether something is being opened; if not, the engine knows that the attempt has failed.
        """
        self._left_behind = [opening for opening in self._left_behind if not opening.done]
        if len(self._left_behind) >= _MOST_LEFT_BEHIND:
            attempt = self._target.attempt()
            attempt.close()
            text = f"{len(self._left_behind)} earlier attempts hang; none begins before one of them ends"
            self._target.on_open_failed(ConnectFailedError(text), now)
            return False
        try:
            opening = Opening(self._target.attempt(), now, self._seconds, _GRACE_SECONDS, wake)
        except RuntimeError as error:  # no more threads
            self._target.on_open_failed(ConnectFailedError(str(error)), now)
            return False
        self._opening, self.give_up_at = opening, opening.give_up_at
        return True

    def look(self, now: float) -> None:
        """Tell the engine when the transport is open, or has failed to open, or takes far too long."""
        opening = self._opening
        if opening is None:
            return
        if opening.done:  # before the error is read: its thread sets that first
            error = opening.error
        elif now < opening.give_up_at:
            return
        else:
            error = opening.abandon()
            self._left_behind.append(opening)
        self._opening = self.give_up_at = None
        if error is None:
            self._target.on_open(now)
        else:
            self._target.on_open_failed(error, now)

    def abandon(self) -> None:
        """Leave behind what is being opened, if anything is; the engine is not told."""
        opening = self._opening
        self._opening = self.give_up_at = None
        if opening is not None:
            opening.abandon()
