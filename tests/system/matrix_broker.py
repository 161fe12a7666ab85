"""What the brokers of the matrix have in common: a port for each stream, one user, known deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from device_sdk.net.tls import TLSOptions
from device_sdk.testing.broker_process import ChildBroker

if TYPE_CHECKING:
    from collections.abc import Mapping
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

    shared_port: ClassVar[bool] = True
    """Whether all versions come to the same port."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        ports = {
            self._listener(stream, version) for stream, found in self.streams.items() for version in found
        }
        self.port_of = {listener: self._reserve_port() for listener in sorted(ports)}

    def url(self, version: str = "5.0") -> str:
        """Return where a client without TLS connects to."""
        return f"mqtt://{HOST}:{self.port('tcp', version)}"

    def port(self, stream: str, version: str = "") -> int:
        return self.port_of[self._listener(stream, version)]

    def options(self, stream: str, version: str) -> dict[str, Any]:
        """Return the arguments of a client that comes over this stream."""
        arguments = {"version": version, "user_name": USER_NAME, "password": PASSWORD}
        if stream == "unix":
            return {"url": f"unix:{self.folder}/mqtt.sock", **arguments}
        port = self.port(stream, version)
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

    def _listener(self, stream: str, version: str) -> str:
        return stream if self.shared_port else f"{stream} {version}"

    def _ports(self) -> tuple[int, ...]:
        return tuple(port for listener, port in self.port_of.items() if not listener.startswith("unix"))


def written(folder: Path, name: str, text: str) -> Path:
    """Write the text into a file of the folder and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def with_environment(variables: Mapping[str, object], command: list[str]) -> list[str]:
    """Return a command line that runs the command with these environment variables."""
    return ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
