"""The checks of arguments, the same for every client, before anything is queued or sent.

Each function raises :class:`ArgumentError` or :class:`ArgumentTypeError` with the name of the argument.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from device_sdk._arguments import LONGEST_SECONDS
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.mqtt.message import Subscription, check_payload_format, payload_bytes
from device_sdk.mqtt.options import MAY_BE_LEFT_OUT, check_range
from device_sdk.mqtt.topics import validate_filter
from device_sdk.mqtt.wire import encode_properties
from device_sdk.store.base import StorePolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions

__all__ = [
    "LARGEST_PAYLOAD",
    "WITH_WILL",
    "check_hooks",
    "check_payload",
    "check_subscriptions",
    "check_topic_filters",
    "check_types",
    "check_version",
    "connect_properties",
    "disconnect_fields",
    "made_up_client_id",
    "optional_seconds",
    "publish_properties",
    "random_fraction",
    "seconds",
    "session_name",
    "subscribe_properties",
]

LARGEST_PAYLOAD = 268_435_455 - 65_537 - 2 - 5  # bytes: the most that fits beside the longest topic name

#: Reason code of a DISCONNECT after which the server publishes the will. Source: MQTT 5.0 §3.14.2.1.
WITH_WILL = 0x04
_LACKING = {"use_topic_aliases": "topic aliases", "use_identifiers": "subscription identifiers"}
# Reason codes of DISCONNECT that a client may send. Source: MQTT 5.0 §3.14.2.1.
_CLIENT_REASONS = frozenset({0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, *range(0x93, 0x9A)})

_TYPES: dict[str, type] = {
    "client_id": str,
    "policy": StorePolicy,
    "reconnect": ReconnectPolicy,
}

# Properties of PUBLISH that are not the application's to give, and what to do instead.
_OUR_PROPERTIES = {
    "message_expiry_interval": "use expiry=",
    "subscription_identifier": "only servers send it",
    "topic_alias": "the client decides about it",
}

# Properties of CONNECT that have an argument of their own.
_ARGUMENTS = {
    "session_expiry_interval": "session_expiry",
    "receive_maximum": "receive_maximum",
    "maximum_packet_size": "maximum_packet_size",
    "topic_alias_maximum": "topic_alias_maximum",
}

# Properties of DISCONNECT that are not the application's to give. Source: MQTT 5.0 §3.14.2.2.5.
_NOT_IN_OUR_DISCONNECT = {
    "session_expiry_interval": "use session_expiry=",
    "server_reference": "only servers send it",
}


def check_types(**arguments: object) -> None:
    """Make sure that each is ``None`` or of the type that its name stands for."""
    for argument, value in arguments.items():
        wanted = _TYPES[argument]
        if value is not None and not isinstance(value, wanted):
            problem = f"must be a {wanted.__name__} or None, not {type(value).__name__}"
            raise ArgumentTypeError(argument, problem)


def check_hooks(**hooks: object) -> None:
    """Make sure that each is ``None`` or can be called."""
    for argument, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise ArgumentTypeError(argument, f"must be callable or None, not {type(hook).__name__}")


def seconds(argument: str, value: object, *, zero: bool = False) -> float:
    """Return a time span that can be waited for: above 0, or from 0 with ``zero``, up to 136 years."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ArgumentTypeError(argument, f"must be a number of seconds, not {type(value).__name__}")
    if not (0 < value <= LONGEST_SECONDS or (zero and value == 0)):
        least = "at least" if zero else "above"
        raise ArgumentError(argument, f"must be {least} 0 and at most {LONGEST_SECONDS} s, not {value!r}")
    return float(value)


def check_payload(payload: object, argument: str = "payload") -> bytes:
    """Return the payload as bytes that fit into a packet."""
    encoded = payload_bytes(payload, argument)
    if len(encoded) > LARGEST_PAYLOAD:
        raise ArgumentError(argument, f"has {len(encoded)} bytes; a packet holds {LARGEST_PAYLOAD} at most")
    return encoded


def connect_properties(properties: object, version: str, topic_alias_maximum: int) -> dict[str, Any]:
    """Return the properties of CONNECT as a dict of their own; the packet checks those that are not ours.

    ``None`` leaves out what the client would send: see ``MAY_BE_LEFT_OUT`` of the options.
    """
    given = _mapping_of_properties(properties, version)
    for name, argument in _ARGUMENTS.items():
        if name not in given or (given[name] is None and name in MAY_BE_LEFT_OUT):
            continue
        hint = "; None leaves it out of CONNECT" if name in MAY_BE_LEFT_OUT else ""
        raise ArgumentError("properties", f"{name} cannot be given here; use {argument}={hint}")
    if topic_alias_maximum and "maximum_packet_size" in given:
        # A message that is skipped because it is too large is not read as far as its alias.
        problem = "maximum_packet_size cannot be left out of CONNECT together with topic_alias_maximum"
        raise ArgumentError("properties", problem)
    return dict(given)


def publish_properties(properties: Mapping[str, Any], version: str, payload: bytes) -> bytes:
    """Return the property block of a PUBLISH with this payload, empty for MQTT 3.x, which has none."""
    if version != "5.0":
        if properties:
            raise ArgumentError("properties", f"MQTT {version} has no properties")
        return b""
    try:
        for name in _OUR_PROPERTIES.keys() & properties:
            raise ArgumentError("properties", f"{name} cannot be given here; {_OUR_PROPERTIES[name]}")
        block = encode_properties(properties, "publish")
    except (AttributeError, TypeError) as error:
        if isinstance(error, ArgumentTypeError):
            raise
        problem = f"must be a dict by property name, not {type(properties).__name__}"
        raise ArgumentTypeError("properties", problem) from None
    check_payload_format("payload", payload, properties)
    return block


def subscribe_properties(properties: object, version: str, packet: str, *, ours: bool) -> dict[str, Any]:
    """Return the properties of a SUBSCRIBE or UNSUBSCRIBE as a dict of their own, checked.

    ``ours``: the client chooses the subscription identifiers itself.
    """
    elsewhere = {"subscription_identifier": "use_identifiers=True chooses it"} if ours else {}
    return _packet_properties(properties, version, packet, elsewhere)


def _packet_properties(
    properties: object, version: str, packet: str, elsewhere: Mapping[str, str]
) -> dict[str, Any]:
    """Return the properties of a packet as a dict of their own, checked.

    ``elsewhere``: properties that cannot be given here, and what to do instead.
    """
    given = _mapping_of_properties(properties, version)
    for name in elsewhere.keys() & given:
        raise ArgumentError("properties", f"{name} cannot be given here; {elsewhere[name]}")
    encode_properties(given, packet)
    checked = dict(given)
    if "user_property" in checked:
        checked["user_property"] = [tuple(pair) for pair in checked["user_property"]]
    return checked


def _mapping_of_properties(properties: object, version: str) -> Mapping[str, Any]:
    if properties is None:
        return {}
    if not isinstance(properties, Mapping):
        problem = f"must be a dict by property name, not {type(properties).__name__}"
        raise ArgumentTypeError("properties", problem)
    if properties and version != "5.0":
        raise ArgumentError("properties", f"MQTT {version} has no properties")
    return properties


def check_subscriptions(topic: object, version: str) -> list[Subscription]:
    """Return one Subscription or a list of them as a list that this version can ask for."""
    wanted = [topic] if isinstance(topic, Subscription) else topic
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(item, Subscription) for item in wanted):
        raise ArgumentTypeError("topic", "must be a str, a Subscription or a list of Subscriptions")
    if not wanted:
        raise ArgumentError("topic", "is an empty list; name at least one topic filter")
    for subscription in wanted:
        _check_subscription(subscription, version)
    return list(wanted)


def _check_subscription(wanted: Subscription, version: str) -> None:
    validate_filter(wanted.topic)
    check_range("qos", wanted.qos, 0, 2)
    check_range("retain_handling", wanted.retain_handling, 0, 2)
    if wanted.no_local and wanted.topic.startswith("$share/"):
        raise ArgumentError("no_local", "is not allowed on a shared subscription [MQTT-3.8.3-4]")
    for argument in ("no_local", "retain_as_published", "retain_handling"):
        if getattr(wanted, argument) and version != "5.0":
            raise ArgumentError(argument, f"MQTT {version} has no subscription options but the QoS")


def check_topic_filters(topic: object) -> list[str]:
    """Return one topic filter or a list of them as a list."""
    if not isinstance(topic, (str, list, tuple)):
        raise ArgumentTypeError("topic", f"must be a str or a list of str, not {type(topic).__name__}")
    topic_filters = [topic] if isinstance(topic, str) else list(topic)
    if not topic_filters:
        raise ArgumentError("topic", "is an empty list; name at least one topic filter")
    for topic_filter in topic_filters:
        validate_filter(topic_filter)
    return topic_filters


def disconnect_fields(
    options: ConnectOptions, reason_code: object, session_expiry: object, properties: object = None
) -> tuple[int, dict[str, Any]]:
    """Return reason code and properties of the DISCONNECT that ends the client. Source: MQTT 5.0 §3.14.2."""
    code = check_range("reason_code", reason_code, 0, 255)
    if code not in _CLIENT_REASONS:
        raise ArgumentError("reason_code", f"0x{code:02x} is none that a client may send in DISCONNECT")
    for argument, given in (("reason_code", code), ("session_expiry", session_expiry is not None)):
        if given and options.version != "5.0":
            raise ArgumentError(argument, f"DISCONNECT of MQTT {options.version} has no fields")
    fields = _packet_properties(properties, options.version, "disconnect", _NOT_IN_OUR_DISCONNECT)
    if session_expiry is None:
        return code, fields
    expiry = check_range("session_expiry", session_expiry, 0, 0xFFFFFFFF)
    if expiry and not options.properties.get("session_expiry_interval", options.session_expiry):
        problem = (
            "cannot be above 0 in DISCONNECT, because it was 0 in CONNECT, or left out (MQTT 5.0 §3.14.2.2.2)"
        )
        raise ArgumentError("session_expiry", problem)
    return code, {**fields, "session_expiry_interval": expiry}


def made_up_client_id() -> str:
    """Return a name that every server has to accept: 23 letters and digits. Source: [MQTT-3.1.3-5]."""
    return f"devicesdk{os.urandom(7).hex()}"


def session_name(client_id: str | None, version: str | None) -> str:
    """Return the client identifier of CONNECT; an empty one asks an MQTT 5.0 server to make it up."""
    if client_id is None or not (client_id or version == "5.0"):
        return made_up_client_id()
    return client_id


def optional_seconds(argument: str, value: object) -> float | None:
    """Return a time span as :func:`seconds`, or ``None`` for ``None``."""
    return None if value is None else seconds(argument, value)


def random_fraction() -> float:
    """Return a random number from 0 to 1; :mod:`random` would cost more than the rest of the client."""
    return int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


def check_version(options: ConnectOptions, **wanted: bool) -> None:
    """Make sure that the version has what is wanted. Raises: ArgumentError: by name."""
    if options.bridge and options.version == "5.0":
        problem = "is a mark in MQTT 3.x; in MQTT 5.0 give no_local= and retain_as_published= to subscribe()"
        raise ArgumentError("bridge", problem)
    for argument, is_wanted in wanted.items():
        if is_wanted and options.negotiates:
            raise ArgumentError(argument, f'needs version="5.0"; MQTT 3.1.1 has no {_LACKING[argument]}')
        if is_wanted and options.version != "5.0":
            raise ArgumentError(argument, f"MQTT {options.version} has no {_LACKING[argument]}")
