"""SrvTransport: what a domain says in the DNS, asked of a name server in this process."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from device_sdk.errors import ArgumentError, ConnectFailedError, MissingDependency, TransportClosedError
from device_sdk.net.base import Transport, open_transport
from device_sdk.net.srv import find_servers
from tests.net.test_tcp import HOST, TcpRig
from tests.net.transport_contract import PATIENCE, TransportContract, open_files, receive, soon

# "priority weight port target" for each name.
Zone = dict[str, list[str]]


class NameServer:
    """Answers SRV questions from a table over UDP, or does what it is told instead."""

    def __init__(self, zone: Zone, rcode: dns.rcode.Rcode | None = None, *, silent: bool = False) -> None:
        self.zone = zone
        self.asked: list[str] = []
        self.on_question: Callable[[], None] = lambda: None
        self._rcode = rcode
        self._silent = silent
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((HOST, 0))
        self.port = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, client = self._sock.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text()
            self.asked.append(name)
            self.on_question()
            if self._silent:
                continue
            response = dns.message.make_response(query)
            response.flags |= dns.flags.RA
            if records := self.zone.get(name):
                response.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *records))
            elif name not in self.zone:
                response.set_rcode(dns.rcode.NXDOMAIN)
            if self._rcode is not None:
                response.set_rcode(self._rcode)
            self._sock.sendto(response.to_wire(), client)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (HOST, self.port))
        self._thread.join(PATIENCE)
        self._sock.close()


@contextmanager
def name_server(
    zone: Zone, rcode: dns.rcode.Rcode | None = None, *, silent: bool = False
) -> Iterator[NameServer]:
    server = NameServer(zone, rcode, silent=silent)
    try:
        yield server
    finally:
        server.close()


def asking(server: NameServer, url: str = "mqtt+srv://fleet.example", **options: Any) -> Transport:
    return open_transport(url, nameservers=[HOST], nameserver_port=server.port, **options)


def servers(zone: Zone | list[str], domain: str = "fleet.example", **options: Any) -> list[tuple[str, int]]:
    records = {f"_mqtt._tcp.{domain}.": zone} if isinstance(zone, list) else zone
    with name_server(records) as server:
        return find_servers(
            domain, deadline=soon(), nameservers=[HOST], nameserver_port=server.port, **options
        )


class SrvRig(TcpRig):
    """The domain's first broker refuses, the second is the rig's."""

    def __init__(self) -> None:
        super().__init__()
        port = self.listener.getsockname()[1]
        refused = self.refusing.getsockname()[1]
        self.names = NameServer(
            {
                "_mqtt._tcp.fleet.example.": [f"1 0 {refused} 127.0.0.1.", f"2 0 {port} 127.0.0.1."],
                "_mqtt._tcp.down.example.": [f"1 0 {refused} 127.0.0.1."],
            }
        )
        self.transport = asking(self.names)

    def unreachable(self) -> Transport:
        return asking(self.names, "mqtt+srv://down.example")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        with super().unresponsive() as silent:
            port = silent.description.rpartition(":")[2]
            self.names.zone["_mqtt._tcp.slow.example."] = [f"1 0 {port} 127.0.0.1."]
            yield asking(self.names, "mqtt+srv://slow.example")

    def close(self) -> None:
        super().close()
        self.names.close()


class TestSrvTransport(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[SrvRig]:
        rig = SrvRig()
        yield rig
        rig.close()


def test_the_lowest_priority_comes_first() -> None:
    zone = ["20 0 1883 c.example.", "10 0 1884 b.example.", "0 0 1885 a.example."]
    assert servers(zone) == [("a.example", 1885), ("b.example", 1884), ("c.example", 1883)]


def test_weight_decides_among_equals() -> None:
    zone = ["1 90 1883 often.example.", "1 10 1883 seldom.example.", "1 0 1883 never.example."]
    with name_server({"_mqtt._tcp.fleet.example.": zone}) as server:
        orders = [
            find_servers("fleet.example", deadline=soon(), nameservers=[HOST], nameserver_port=server.port)
            for _ in range(200)
        ]
    first = Counter(order[0][0] for order in orders)
    assert all(len(order) == 3 for order in orders)
    assert first["often.example"] > 140  # 180 expected; below 140 once in 10**20 runs
    assert first["seldom.example"] > 0


def test_the_secure_service_has_its_own_record() -> None:
    zone = {
        "_mqtt._tcp.d.example.": ["0 0 1 plain.example."],
        "_secure-mqtt._tcp.d.example.": ["0 0 2 tls.example."],
    }
    assert servers(zone, "d.example") == [("plain.example", 1)]
    assert servers(zone, "d.example.", secure=True) == [("tls.example", 2)]


def test_no_more_than_sixteen_servers_are_tried() -> None:
    assert len(servers([f"{n} 0 1883 b{n}.example." for n in range(40)])) == 16


def test_a_point_as_target_means_that_there_is_no_service() -> None:
    with pytest.raises(ConnectFailedError, match=r"fleet\.example says that it has no broker"):
        servers(["0 0 0 ."])


@pytest.mark.parametrize("zone", [{}, {"_mqtt._tcp.fleet.example.": []}])
def test_a_domain_without_the_record_is_named(zone: Zone) -> None:
    with pytest.raises(ConnectFailedError, match=r"no record _mqtt\._tcp\.fleet\.example\. SRV; write the"):
        servers(zone)


def test_a_name_server_that_refuses_is_an_error() -> None:
    with name_server({}, dns.rcode.SERVFAIL) as server, pytest.raises(ConnectFailedError, match="SERVFAIL"):
        asking(server).open(time.monotonic() + 1)


def test_a_name_server_that_does_not_answer_is_left_at_the_deadline() -> None:
    with name_server({}, silent=True) as server:
        start = time.monotonic()
        with pytest.raises(ConnectFailedError, match="timed out"):
            asking(server).open(start + 0.2)
        assert 0.2 <= time.monotonic() - start < PATIENCE


def test_an_abort_during_the_look_up_counts() -> None:
    with name_server({"_mqtt._tcp.fleet.example.": ["0 0 1 127.0.0.1."]}) as server:
        transport = asking(server)
        server.on_question = transport.abort
        before = open_files()
        with pytest.raises(TransportClosedError, match="aborted"):
            transport.open(soon())
        assert open_files() == before
        transport.close()


def test_a_close_during_the_look_up_abandons_that_open() -> None:
    with name_server({"_mqtt._tcp.fleet.example.": ["0 0 1 127.0.0.1."]}) as server:
        transport = asking(server)
        server.on_question = transport.close
        with pytest.raises(TransportClosedError, match="aborted"):
            transport.open(soon())


def test_the_failure_names_every_broker_that_was_tried() -> None:
    with socket.socket() as refusing:
        refusing.bind((HOST, 0))
        port = refusing.getsockname()[1]
        with name_server(
            {"_mqtt._tcp.fleet.example.": [f"1 0 {port} 127.0.0.1.", f"2 0 {port} 127.0.0.2."]}
        ) as server:
            before = open_files()
            with pytest.raises(ConnectFailedError) as caught:
                asking(server).open(soon())
            assert open_files() == before
    text = str(caught.value)
    assert text.startswith("no broker of fleet.example can be reached: cannot connect to 127.0.0.1:")
    assert "; cannot connect to 127.0.0.2:" in text


def test_a_secure_look_up_stays_within_the_domain() -> None:
    zone = {"_secure-mqtt._tcp.fleet.example.": ["0 0 8883 mqtt.evil.example.", "1 0 8883 notfleet.example."]}
    with name_server(zone) as server, pytest.raises(ConnectFailedError) as caught:
        asking(server, "mqtts+srv://fleet.example").open(soon())
    assert "mqtt.evil.example is not in the domain" in str(caught.value)
    assert "notfleet.example is not in the domain" in str(caught.value)


def test_options_reach_the_stream_to_the_broker() -> None:
    rig = SrvRig()
    transport = asking(rig.names, bind="127.0.0.2")
    transport.open(soon())
    peer = rig.accept()
    assert rig.peers[-1].sock.getpeername()[0] == "127.0.0.2"
    transport.close()
    assert receive(peer, 1) == b""
    rig.close()
    with pytest.raises(TypeError, match="colour"):
        open_transport("mqtt+srv://h", colour="red")


@pytest.mark.parametrize(
    "url", ["mqtt+srv://", "mqtt+srv://h:1883", "mqtt+srv://h/x", "mqtts+srv://h?a=1", "mqtt+srv://[::1]"]
)
def test_a_url_that_is_more_than_a_domain_is_an_error(url: str) -> None:
    with pytest.raises(ArgumentError, match="//DOMAIN"):
        open_transport(url)


def test_dnspython_that_is_not_installed_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", None)
    monkeypatch.delitem(sys.modules, "device_sdk.net.srv")
    with pytest.raises(MissingDependency, match="pip install 'dnspython>="):
        open_transport("mqtt+srv://h")
