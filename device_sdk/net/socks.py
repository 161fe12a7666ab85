"""The SOCKS dialogues, by PySocks, on a socket that is connected and stays non-blocking.

PySocks reads and writes as if the socket could block. Here each of its reads and writes waits first, until
the deadline of ``open()`` or an ``abort()``.
"""

from __future__ import annotations

import select
import socket

from device_sdk.errors import MissingDependency
from device_sdk.net.proxy import ProxyRefusal

try:
    import socks  # type: ignore[import-untyped]
except ImportError as error:
    raise MissingDependency("a SOCKS proxy", "proxy") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.net.base import ParsedUrl

__all__ = ["ask_socks"]


def ask_socks(
    sock: socket.socket, wait: Callable[[int], None], url: ParsedUrl, proxy: ParsedUrl
) -> socket.socket:
    """Have the proxy at the other end of ``sock`` connect to the URL's host, and return the tunnel.

    ``wait(events)`` returns when the socket is ready or raises OSError. ``sock`` is consumed in any case.
    Raises: OSError, UnicodeError: an impossible host name. ProxyRefusal.
    """
    version4 = proxy.scheme.startswith("socks4")
    dialogue = _Dialogue(sock, wait)
    try:
        dialogue.set_proxy(
            socks.SOCKS4 if version4 else socks.SOCKS5, proxy.host, proxy.port,
            proxy.query["rdns"] == "1", proxy.user_name, proxy.password,
        )  # fmt: skip
        if version4:
            dialogue._negotiate_SOCKS4(url.host, url.port)
        else:
            dialogue._negotiate_SOCKS5(url.host, url.port)
        return socket.socket(fileno=dialogue.detach())
    except socks.SOCKS5AuthError as error:
        advice = "give it a user name and a password that it knows"
        raise ProxyRefusal(_quoted(error), advice, retry="never") from error
    except (socks.SOCKS4Error, socks.SOCKS5Error) as error:
        advice = "check the broker's host and port, and whether the proxy allows them"
        raise ProxyRefusal(_quoted(error), advice) from error
    except socks.ProxyError as error:
        advice = (
            f"this is not how a {proxy.scheme} proxy answers: check its kind, host and port, and whether it "
            "wants a user name and a password"
        )
        raise ProxyRefusal(f"nothing useful ({error})", advice) from error
    finally:
        dialogue.close()


class _Dialogue(socks.socksocket):  # type: ignore[misc]
    """PySocks's socket around one that is connected already."""

    def __init__(self, sock: socket.socket, wait: Callable[[int], None]) -> None:
        super().__init__(sock.family, socket.SOCK_STREAM, fileno=sock.detach())
        self._wait = wait
        self.setblocking(False)

    def recv_into(self, buffer: Any, *args: int) -> int:
        """Receive; called by the file that PySocks reads from."""
        self._wait(select.POLLIN)
        return socket.socket.recv_into(self, buffer, *args)

    def send(self, data: Any, *args: int) -> int:
        """Send; called by the file that PySocks writes to."""
        self._wait(select.POLLOUT)
        return socket.socket.send(self, data, *args)


def _quoted(error: Exception) -> str:
    return repr(str(error))
