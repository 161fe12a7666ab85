"""A drop-in for paho-mqtt: its names and its rules, on the core of device_sdk.

Change ``import paho.mqtt.client as mqtt`` into ``import device_sdk.paho.client as mqtt``, or leave the
program as it is and run it with ``python -m device_sdk.paho program.py`` (or ``-m module``). Programs
written for paho-mqtt 1.x take ``device_sdk.paho.v1.client`` or the option ``--v1``.
docs/moving-from-paho.md lists the differences.

The client has parts, and none of them keeps the client. To understand them, read in this order:

==================  =========================================================================================
client.py           ``Client``: the interface; ``_assemble()`` shows which part knows which
_attributes.py      attributes of the client that a part keeps, above all the callbacks
_private.py         private names of paho-mqtt that programs use all the same
_endpoint.py        settings of the way to the broker; makes the stream
_settings.py        settings: the fields of CONNECT, the wait between attempts, the bounds of the queue
_life_cycle.py      the states of a client, as a table
_program.py         calls the program: its callbacks and its log
_reports.py         events, as arguments of the callbacks of either version
_core.py            the engine and its lock: reading, writing, waiting, the store
_runner.py          the thread that runs callbacks
_connection.py      opens and closes the stream; the thread that writes new output
_outgoing.py        ``publish()``
_subscribing.py     ``subscribe()`` and ``unsubscribe()``
_acks.py            ``ack()``
_waker.py           ends the wait of a loop
_loop.py            the loops and their thread
==================  =========================================================================================

Below them: ``_engine.py`` and ``_protocol.py`` are the core's with the rules of paho-mqtt; ``_stream.py`` is
the socket, ``_websocket.py`` the handshake, ``_srv.py`` the brokers of a domain, ``_message.py`` messages and
their futures, ``_codes.py`` and ``_constants.py`` the numbers. ``publish.py`` and ``subscribe.py`` use
``_oneshot.py``; ``alias.py`` and ``__main__.py`` run programs that import paho. ``enums.py``,
``exception.py``, ``matcher.py``, ``packettypes.py``, ``properties.py``, ``reasoncodes.py``,
``subscribeoptions.py`` and ``v1/`` are public and named as in paho-mqtt.
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.paho.exception import MQTTException

__all__ = ["MQTTException", "__version__"]

_HOMES = {"MQTTException": "exception"}

#: The version of paho-mqtt whose interface this is; programs choose their call signatures by it.
__version__ = "2.2.0"


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
