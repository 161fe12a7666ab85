"""Words of other libraries, and words in the wrong place, with ours for them. Only on the way of an error."""

from __future__ import annotations

import inspect

from device_sdk._text import did_you_mean, nearest
from device_sdk.errors import ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

__all__ = ["SCHEMES", "VERSIONS", "explain_arguments", "key_hint", "scheme_hint", "version_hint"]

# Word of paho-mqtt, aiomqtt, gmqtt, mosquitto or another client -> ours for it, where the function has it.
_OURS = {
    "birth_message": "birth",
    "ca_certs": "ca_file",
    "ca_cert": "ca_file",
    "cafile": "ca_file",
    "capath": "ca_path",
    "cadata": "ca_data",
    "callback": "on_message",
    "cert": "certificate",
    "certfile": "certificate",
    "clean": "clean_start",
    "clean_session": "clean_start",
    "clientid": "client_id",
    "crlfile": "crl_file",
    "identifier": "client_id",
    "keepalive": "keep_alive",
    "keyfile": "key",
    "keyfile_password": "key_password",
    "lwt": "will",
    "shutdown_message": "farewell",
    "will_message": "will",
    "last_will": "will",
    "max_delay": "longest",
    "max_inflight": "inflight",
    "max_inflight_messages": "inflight",
    "max_packet_size": "maximum_packet_size",
    "max_size": "max_bytes",
    "maxsize": "max_messages",
    "message": "payload",
    "min_delay": "first",
    "mqtt_version": "version",
    "passwd": "password",
    "protocol": "version",
    "psk_identity": "psk",
    "protocol_version": "version",
    "retained": "retain",
    "session_expiry_interval": "session_expiry",
    "ssl": "tls",
    "ssl_context": "tls",
    "ssl_params": "tls",
    "timeout": "connect_timeout",
    "tls_context": "tls",
    "tls_insecure": "insecure",
    "tls_params": "tls",
    "tls_version": "minimum_version",
    "uri": "url",
    "user": "user_name",
    "username": "user_name",
}

_ADDRESS = "the address is the first argument, a URL: 'mqtt://HOST:PORT', with TLS 'mqtts://HOST:PORT'"
_PAHO = "a program for paho-mqtt runs with 'import device_sdk.paho.client as mqtt'"
_IN_URL = "the kind of stream is in the URL: 'ws://HOST:PORT/PATH', 'unix:/run/mqtt.sock'"
_IN_TLS = "give tls=TLSOptions({name}=...)"
_IN_POLICY = "give policy=StorePolicy({name}=...)"
_IN_RECONNECT = "give reconnect=ReconnectPolicy({name}=...)"
_IN_NETWORK = "give network={{'{name}': ...}}"
_IN_PROPERTIES = "give properties={{'{name}': ...}}"

# Word that a client does not take -> where it belongs; the words of our own options are all here.
_ELSEWHERE = {
    **dict.fromkeys(("host", "hostname", "broker", "server", "address", "port"), _ADDRESS),
    **dict.fromkeys(("transport", "websocket_path", "path"), _IN_URL),
    **dict.fromkeys(
        ("ca_file", "ca_path", "ca_data", "certificate", "key", "key_password", "alpn", "server_name",
         "minimum_version", "ciphers", "context", "session_resumption", "insecure", "check_hostname",
         "crl_file", "psk", "psk_file"), _IN_TLS),
    **dict.fromkeys(
        ("max_messages", "max_bytes", "max_age", "overflow", "block_timeout", "keep_last", "unsendable",
         "replay", "replay_rate", "durability", "linger", "min_free", "max_shelf_messages",
         "max_shelf_bytes", "open_timeout"), _IN_POLICY),
    **dict.fromkeys(("first", "longest", "stable"), _IN_RECONNECT),
    **dict.fromkeys(
        ("bind", "interface", "tcp_keepalive", "user_timeout", "headers", "origin", "subprotocol",
         "target", "nameservers", "nameserver_port", "max_message_size"), _IN_NETWORK),
    **dict.fromkeys(
        ("request_problem_information", "request_response_information", "user_property"), _IN_PROPERTIES),
    "bind_address": "give network={{'bind': ...}}",
    "bind_port": "give network={{'bind': ...}}",
    "callback_api_version": f"it is paho-mqtt's; {_PAHO}",
    "cert_reqs": "give tls=TLSOptions(insecure=True) to check nothing",
    "extra_headers": "give network={{'headers': ...}}",
    "logger": "the log is that of logging.getLogger('device_sdk')",
    "loop": "AsyncClient uses the event loop that runs",
    "max_queued_messages": "give policy=StorePolicy(max_messages=...)",
    "proxy_args": "give proxy='socks5://HOST:PORT'",
    "queue_size": "give policy=StorePolicy(max_messages=...)",
    "reconnect_on_failure": "a client always reconnects; reconnect= has the bounds of the back-off",
    "reconnect_retries": "a client always reconnects; reconnect= has the bounds of the back-off",
    "userdata": "keep it in an object, and give a method of that as the handler",
    "websocket_headers": "give network={{'headers': ...}}",
    "will_set": "give will=Will(TOPIC, PAYLOAD)",
}  # fmt: skip

# Scheme of another client -> ours. Source: the URLs of Paho's C, Java and Go clients, MQTT.js, mosquitto_pub.
SCHEMES = {
    "http": "ws",
    "https": "wss",
    "mqtt+ssl": "mqtts",
    "mqtt+tcp": "mqtt",
    "mqtt+tls": "mqtts",
    "mqtt+unix": "unix",
    "mqtt+ws": "ws",
    "mqtt+wss": "wss",
    "mqtt-ws": "ws",
    "mqtt-wss": "wss",
    "mqtts+ssl": "mqtts",
    "mqtts+tls": "mqtts",
    "rfc-2217": "rfc2217",
    "secure-mqtt": "mqtts",
    "ssl": "mqtts",
    "ssl+tcp": "mqtts",
    "tcps": "mqtts",
    "tls": "mqtts",
    "tty": "serial",
    "uart": "serial",
    "websocket": "ws",
    "wxs": "wss",
    "wx": "ws",
}

# Version as other clients write it -> as we do.
VERSIONS = {
    **dict.fromkeys((5, 5.0, "5", "v5", "mqttv5", "mqtt5"), "5.0"),
    **dict.fromkeys((4, 311, "4", "311", "v311", "v3.1.1", "mqttv311"), "3.1.1"),
    **dict.fromkeys((3, 31, 3.1, "3", "31", "v31", "v3.1", "mqttv31"), "3.1"),
}


def explain_arguments(
    call: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> ArgumentTypeError | None:
    """Return the error for arguments that do not fit a method; ``None`` if Python's own says it all."""
    parameters = dict(inspect.signature(call).parameters)
    del parameters["self"]
    own = type(arguments[0]).__name__
    who = own if call.__name__ == "__init__" else call.__name__
    takes_url = "url" in parameters
    for name in options:
        if name not in parameters:
            return ArgumentTypeError(
                name, f"{who}() has no such argument{_instead(name, parameters, takes_url)}"
            )
    given = arguments[1:]
    if (takes_url or who == "connect") and given:
        argument = "url" if takes_url else "timeout"
        return ArgumentTypeError(argument, _address_in_parts(who, own, given))
    if takes_url and "url" not in options:
        return ArgumentTypeError("url", f"is missing: {own}('mqtt://HOST:PORT'); {_PAHO}")
    return None


def _instead(name: str, parameters: Iterable[str], is_client: bool) -> str:
    """Return what to write for an unknown name, behind a semicolon."""
    ours = _OURS.get(name)
    if ours is not None and ours in parameters:
        return f"; did you mean {ours!r}?"
    if hint := did_you_mean(name.lower(), parameters):
        return hint
    if is_client and (where := _ELSEWHERE.get(name, _ELSEWHERE.get(ours or ""))):
        return f"; {where.format(name=name if name in _ELSEWHERE else ours)}"
    return f"; there is: {', '.join(parameters)}"


def _address_in_parts(who: str, own: str, given: tuple[Any, ...]) -> str:
    """Return the words for ``Client("host", 1883, 60)``, and for ``connect("host", 1883, 60)``."""
    host = given[0] if given and isinstance(given[0], str) and given[0].isprintable() else "HOST"
    port = given[1] if len(given) > 1 and type(given[1]) is int else "PORT"
    keep_alive = f", keep_alive={given[2]}" if len(given) > 2 and type(given[2]) is int else ""
    url = host if "://" in host else f"mqtt://{host}:{port}"
    where = "" if who == own else f"connect() takes a timeout only, the address is given to {own}(); "
    return f"{where}write {own}({url!r}{keep_alive}), other arguments by their names; {_PAHO}"


def key_hint(key: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'keep_alive'?"`` for a key of a table, ``""`` if nothing is known of it."""
    ours = _OURS.get(key)
    if ours is not None and ours in known:
        return f"; did you mean {ours!r}?"
    if "url" in known and _ELSEWHERE.get(key) == _ADDRESS:
        return '; the address is one URL: url = "mqtt://HOST:PORT"'
    return did_you_mean(key, known)


def scheme_hint(scheme: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'mqtts://'?"`` for a scheme that nobody serves here, if one is near."""
    near = scheme if scheme in SCHEMES else nearest(scheme, [*known, *SCHEMES])
    return f"; did you mean '{SCHEMES.get(near, near)}://'?" if near else ""


def version_hint(version: object) -> str:
    """Return ``"; did you mean '5.0'?"`` for a version as another client writes it."""
    word = version.lower().replace(" ", "").replace("_", "") if isinstance(version, str) else version
    try:
        ours = VERSIONS.get(word)
    except TypeError:  # not hashable
        ours = None
    return f"; did you mean {ours!r}?" if ours else ""
