"""A real Mosquitto with more lines in its configuration."""

from __future__ import annotations

from pathlib import Path

from device_sdk.testing.broker_process import MosquittoBroker

__all__ = ["MosquittoWith"]


class MosquittoWith(MosquittoBroker):
    """``setting``: the lines, which each start reads anew. They stand last, and so win."""

    def __init__(self, setting: str = "") -> None:
        super().__init__()
        self.setting = setting

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        with (folder / "mosquitto.conf").open("a", encoding="utf-8") as file:
            file.write(f"{self.setting}\n")
        return command
