"""What the brokers of the matrix have in common: a port for each stream, one user, known deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from device_sdk.net.tls import TLSOptions
from device_sdk.testing.broker_process import ChildBroker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from device_sdk.testing import Certificates

__all__ = [
    "HOST",
    "PASSWORD",
    "USER_NAME",
    "Deviation",
    "MatrixBroker",
    "with_environment",
    "written",
]

HOST = "127.0.0.1"
USER_NAME = "node@localhost"  # ejabberd's users have a domain
PASSWORD = "s3cret"


@dataclass(frozen=True)
class Deviation:
    """What a broker does otherwise than the rest in one feature, and what the test expects instead.

    Without ``expected`` the feature does not work there: its test has to fail, so that we hear of the day
    when the broker has learned it. ``versions`` and ``streams`` say where; empty is everywhere.
    """

    feature: str
    reason: str
    expected: object = None
    versions: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()

    def concerns(self, feature: str, version: str, stream: str) -> bool:
        """Tell whether it is about this feature there."""
        return (
            feature == self.feature
            and version in (self.versions or (version,))
            and stream in (self.streams or (stream,))
        )


class MatrixBroker(ChildBroker):
    """A broker with a port for each stream. ``streams`` says which versions it speaks on which of them."""

    origin: ClassVar[str]
    """Where it comes from, for the table in the documentation."""

    streams: ClassVar[dict[str, tuple[str, ...]]]
    deviations: ClassVar[tuple[Deviation, ...]] = ()
    path: ClassVar[str] = "/mqtt"
    """Of the WebSocket."""

    alone: ClassVar[bool] = False
    """Whether it needs a process for each stream and version; the others serve all ways with one."""

    def __init__(self, certificates: Certificates, ways: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self.certificates = certificates
        self.ways = list(ways)
        self._port_of = {stream: self._reserve_port() for stream in sorted({stream for stream, _ in ways})}

    @classmethod
    def all_ways(cls) -> list[tuple[str, str]]:
        """Return every pair of stream and version that it speaks."""
        return [(stream, version) for stream, versions in cls.streams.items() for version in versions]

    def url(self, version: str = "5.0") -> str:
        """Return where a client without TLS connects to."""
        return f"mqtt://{HOST}:{self.port('tcp')}"

    def port(self, stream: str) -> int:
        return self._port_of[stream]

    def options(self, stream: str, version: str) -> dict[str, Any]:
        """Return the arguments of a client that comes over this stream."""
        arguments = {"version": version, "user_name": USER_NAME, "password": PASSWORD}
        if stream == "unix":
            return {"url": f"unix:{self.folder}/mqtt.sock", **arguments}
        port = self.port(stream)
        match stream:
            case "tcp":
                return {"url": f"mqtt://{HOST}:{port}", **arguments}
            case "ws":
                return {"url": f"ws://{HOST}:{port}{self.path}", **arguments}
            case "wss":
                url = f"wss://localhost:{port}{self.path}"
            case _:
                url = f"mqtts://localhost:{port}"
        identity = self.certificates.client if stream == "client certificate" else None
        tls = TLSOptions(
            ca_file=self.certificates.ca,
            certificate=identity.certificate if identity else None,
            key=identity.key if identity else None,
        )
        return {"url": url, "tls": tls, **arguments}

    def _ports(self) -> tuple[int, ...]:
        return tuple(port for stream, port in self._port_of.items() if stream != "unix")


def written(folder: Path, name: str, text: str) -> Path:
    """Write the text into a file of the folder and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def with_environment(variables: Mapping[str, object], command: list[str]) -> list[str]:
    """Return a command line that runs the command with these environment variables."""
    return ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
