"""Base of ``publish`` and ``subscribe``: a client for one task, set up from their arguments."""

from __future__ import annotations

import device_sdk.paho.client as paho
from device_sdk.paho.enums import CallbackAPIVersion
from device_sdk.paho.exception import MQTTException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext
    from typing import Any

__all__ = ["Task"]


class Task:
    """One client that connects, runs the steps of its task, and ends.

    An exception in a step, in any thread, ends the task and is raised by :meth:`run`.
    """

    def __init__(self, **arguments: Any) -> None:
        """Create the client; ``arguments`` are those of the client's constructor."""
        self.client = paho.Client(CallbackAPIVersion.VERSION2, **arguments)
        self.client.enable_logger()
        self._failure: Exception | None = None

    def configure(
        self,
        will: Mapping[str, Any] | None,
        auth: Mapping[str, Any] | None,
        tls: dict[str, Any] | SSLContext | None,
        proxy_args: Mapping[str, Any] | None,
    ) -> None:
        """Apply the optional settings. Raises: KeyError: ``auth`` has no username."""
        if proxy_args is not None:
            self.client.proxy_set(**proxy_args)
        if auth:
            if not auth.get("username"):
                raise KeyError("auth has no 'username'")
            self.client.username_pw_set(auth["username"], auth.get("password"))
        if will is not None:
            self.client.will_set(**will)
        if isinstance(tls, dict):
            options = {name: value for name, value in tls.items() if name != "insecure"}
            self.client.tls_set(**options)
            if tls.get("insecure"):
                self.client.tls_insecure_set(True)
        elif tls is not None:
            self.client.tls_set_context(tls)

    def step(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a part of the task; its exception ends the task."""
        try:
            function(*arguments)
        except Exception as error:
            self._failure = error
            self.client.disconnect()

    def when_connected(self, function: Callable[[], None]) -> None:
        """Run a step after each CONNACK that accepts; a refusal ends the task with MQTTException."""

        def accepted(reason_code: Any) -> None:
            if reason_code != 0:
                raise MQTTException(paho.connack_string(reason_code))
            function()

        def on_connect(client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
            self.step(accepted, reason_code)

        self.client.on_connect = on_connect

    def run(self, hostname: str, port: int, keepalive: int) -> None:
        """Connect, and return when the client has disconnected. Raises: OSError; any error of a step."""
        self.client.connect(hostname, port, keepalive)
        self.client.loop_forever()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
