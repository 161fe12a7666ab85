"""A real Mosquitto through real proxies: SOCKS4, SOCKS5 and HTTP CONNECT, with every stream above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_sdk import Client
from device_sdk.errors import ConnectFailedError
from device_sdk.net.base import open_transport
from device_sdk.net.tls import TLSOptions
from tests.net.test_proxy import RealProxy, real_proxy
from tests.system.test_websocket import HOST, WebMosquitto, round_trip, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMES = ["http", "socks4", "socks5"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebMosquitto]:
    yield from running(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def guarded() -> Iterator[RealProxy]:
    """A proxy for SOCKS5 and HTTP that wants a user name and a password."""
    with real_proxy(f"http+socks5://{HOST}:0/#me:s3cret") as proxy:
        yield proxy


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mqtt_goes_through_a_proxy(broker: WebMosquitto, scheme: str) -> None:
    with real_proxy(f"{scheme}://{HOST}:0/") as proxy:
        round_trip(open_transport(broker.url(), proxy=f"{scheme}://{HOST}:{proxy.port}"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_websocket_over_tls_goes_through_a_proxy(broker: WebMosquitto, scheme: str) -> None:
    with real_proxy(f"{scheme}://{HOST}:0/") as proxy:
        round_trip(broker.secure(proxy=f"{scheme}://{HOST}:{proxy.port}"))


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_user_name_and_a_password_open_the_proxy(
    broker: WebMosquitto, guarded: RealProxy, scheme: str
) -> None:
    round_trip(broker.plain(proxy=f"{scheme}://me:s3cret@{HOST}:{guarded.port}"))


@pytest.mark.parametrize(
    ("proxy", "advice"),
    [
        ("http://", "give it a user name and a password"),
        ("http://me:wrong@", "does not accept this user name"),
        ("socks5://", "wants a user name and a password"),  # pproxy hangs up on those who offer none
        ("socks5://me:wrong@", "wants a user name and a password"),
    ],
)
def test_a_guarded_proxy_refuses_with_one_error_that_says_what_to_do(
    broker: WebMosquitto, guarded: RealProxy, proxy: str, advice: str
) -> None:
    client = Client(open_transport(broker.url(), proxy=f"{proxy}{HOST}:{guarded.port}"))
    with pytest.raises(ConnectFailedError, match=f"through .*{HOST}:{guarded.port}: it answered .*{advice}"):
        client.connect(5)
    client.close()


def test_the_environment_names_the_proxy(broker: WebMosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with real_proxy(f"socks5://{HOST}:0/") as proxy:
        monkeypatch.setenv("mqtt_proxy", f"socks://{HOST}:{proxy.port}")
        tls = TLSOptions(ca_file=broker.certificates.ca)
        transport = open_transport(f"wss://localhost:{broker.wss_port}", tls=tls)
        assert f"through socks://{HOST}" in transport.inner.description  # type: ignore[attr-defined]
        round_trip(transport)
