"""The store and the brokers of a client, made of what an application gave to it.

Each function raises :class:`ArgumentError` or :class:`ArgumentTypeError` with the name of the argument.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from device_sdk._load import load
from device_sdk.engine.connecting.brokers import Broker
from device_sdk.errors import ArgumentError, ArgumentTypeError, StoreError
from device_sdk.net.base import ParsedUrl, Transport, open_transport, parse_url, transport_options
from device_sdk.store.base import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.store.base import StorePolicy

__all__ = ["brokers_for", "store_for"]

#: What ``store=`` may be besides a ready Store -> "module:class", imported when it is used.
STORES = {"path": "device_sdk.store.sqlite:SqliteStore"}

_TLS_OPTIONS = "device_sdk.net.tls:TLSOptions"
_DID_YOU_MEAN = "device_sdk._text:did_you_mean"  # only for an error, see there

# Options of a transport that a client has as arguments -> the name there.
_NOT_IN_NETWORK = {"url": "url", "tls": "tls", "proxy": "proxy", "largest_packet": "maximum_packet_size"}


def store_for(store: object, policy: StorePolicy) -> Store | None:
    """Return the store that is meant: a ready one, a file by its path, or ``None``. Nothing is opened yet.

    Raises: StoreError: this Python cannot open files of this kind.
    """
    if store is None or isinstance(store, Store):
        return store
    if not isinstance(store, (str, os.PathLike)):
        problem = f"must be the path of a file, a Store or None, not {type(store).__name__}"
        raise ArgumentTypeError("store", problem)
    if not os.fspath(store):
        raise ArgumentError("store", "is an empty path; None is the memory of the client")
    try:
        kind = load(STORES["path"])
    except ModuleNotFoundError as error:
        if error.name not in ("sqlite3", "_sqlite3"):
            raise
        raise StoreError(
            f"store={os.fspath(store)!r} needs the module sqlite3, which was left out of this Python; "
            "install it (python3-sqlite3 on OpenWrt, python3-modules on Yocto), or pass another kind of Store"
        ) from error
    opened: Store = kind(store, policy)
    return opened


def brokers_for(
    url: object, tls: object, proxy: object, network: object, *, largest_packet: int = 0
) -> list[Broker]:
    """Return the brokers of one URL or Transport, or of a list of them, with their transports not opened.

    ``network``: further options of the transports by name. With several URLs each transport gets those that
    it knows, and one that none of them knows is an error. ``tls`` and ``proxy`` are for each URL.
    ``largest_packet``: bytes; offered to each transport, for a bound of its own to let that pass.
    """
    places = list(url) if isinstance(url, (list, tuple)) else [url]
    if not places:
        raise ArgumentError("url", "is an empty list; name at least one broker")
    demands: dict[str, Any] = {}
    if tls is not None:
        demands["tls"] = _tls_options(tls)
    if proxy is not None:
        demands["proxy"] = proxy
    wishes = _checked_network(network)
    granted: set[str] = set()
    brokers = []
    for place in places:
        if isinstance(place, Transport):
            brokers.append(Broker(place, place.description))
        elif isinstance(place, str):
            parsed = parse_url(place)
            transport, taken = _transport_for(parsed, demands, wishes, largest_packet)
            granted |= taken
            address = parsed.address or parsed.path
            brokers.append(Broker(transport, address, parsed.user_name, parsed.password))
        else:
            problem = f"must be a str, a Transport or a list of them, not {type(place).__name__}"
            raise ArgumentTypeError("url", problem)
    if len({id(broker.transport) for broker in brokers}) < len(brokers):
        raise ArgumentError("url", "names one Transport object twice")
    for name in (*demands, *wishes):
        if name not in granted:
            streams = ", ".join(sorted({broker.transport.description for broker in brokers}))
            hint = load(_DID_YOU_MEAN)(name, {option for place in places for option in _options_of(place)})
            raise ArgumentError(name, f"is no option of {streams}{hint}")
    return brokers


def _options_of(place: object) -> frozenset[str]:
    return (isinstance(place, str) and transport_options(parse_url(place))) or frozenset()


def _checked_network(network: object) -> dict[str, Any]:
    if network is None:
        return {}
    if not isinstance(network, Mapping) or not all(isinstance(name, str) for name in network):
        raise ArgumentTypeError("network", "must be a dict of options of the transport by their names")
    for name, argument in _NOT_IN_NETWORK.items():
        if name in network:
            raise ArgumentError("network", f"{name} is an argument of its own: write {argument}=...")
    return dict(network)


def _tls_options(tls: object) -> object:
    kind = load(_TLS_OPTIONS)
    if isinstance(tls, kind):
        return tls
    if hasattr(tls, "wrap_bio"):
        options: object = kind(context=tls)
        return options
    raise ArgumentTypeError("tls", f"must be TLSOptions or an ssl.SSLContext, not {type(tls).__name__}")


def _transport_for(
    url: ParsedUrl, demands: dict[str, Any], wishes: dict[str, Any], largest_packet: int
) -> tuple[Transport, set[str]]:
    """Return the transport, and which of the demands and wishes it takes."""
    known = transport_options(url)
    if known is None:  # only the transport itself can say
        known = frozenset((*demands, *wishes))
    if "proxy" in demands and "proxy" not in known:
        raise ArgumentError("proxy", f"is no option of {url.scheme}://")
    given = demands | {name: value for name, value in wishes.items() if name in known}
    # A largest packet of another type is refused later, under the name that the application knows it by.
    offered = type(largest_packet) is int and "largest_packet" in known
    offers = {"largest_packet": largest_packet} if offered else {}
    try:
        return open_transport(url, **offers, **given), set(given)
    except TypeError as error:
        if isinstance(error, ArgumentTypeError) or not wishes:
            raise
        problem = f"{url.scheme}:// cannot use {', '.join(wishes)}: {error}"
        raise ArgumentTypeError("network", problem) from error
