"""One attempt to open a transport, in a thread that can be left behind: a name look-up may hang."""

from __future__ import annotations

import threading

from device_sdk.errors import ConnectFailedError, DeviceSdkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.attempt import Attempt

__all__ = ["Opening"]


class Opening:
    """Opens the transport within ``seconds`` of ``now``, and calls ``wake`` from its thread in the end.

    ``done``: open() has returned, with ``error`` or ``None``. The owner of the transport abandons an attempt
    that is not done at ``give_up_at``, which is ``grace`` seconds after the time that open() was given.
    Raises: RuntimeError: no more threads.
    """

    def __init__(
        self, attempt: Attempt, now: float, seconds: float, grace: float, wake: Callable[[], None]
    ) -> None:
        self._attempt = attempt
        self._deadline = now + seconds
        self._wake = wake
        self._seconds = seconds
        self.give_up_at = self._deadline + grace
        self.error: DeviceSdkError | None = None
        self.done = False
        threading.Thread(target=self._run, name="device-sdk open", daemon=True).start()

    def abandon(self) -> DeviceSdkError:
        """Leave the attempt behind, and return what to say about it.

        After both calls it keeps nothing open and disturbs no later one.
        """
        self._attempt.abort()
        self._attempt.close()
        return ConnectFailedError(f"open() did not return within {self._seconds:g} s")

    def _run(self) -> None:
        try:
            self._attempt.open(self._deadline)
        except DeviceSdkError as error:
            self.error = error.with_traceback(None)  # its frames would keep the descriptors of a life alive
        except BaseException as error:  # also sys.exit() in a callable of the application
            self.error = ConnectFailedError(f"{type(error).__name__}: {error}")
        self.done = True
        self._wake()
