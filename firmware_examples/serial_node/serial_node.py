"""A board without a network: it publishes its own readings over a serial line. Wiring: README.md.

Run it with the URL of the line, such as 'serial:///dev/ttyUSB0?baud=115200'. SIGTERM or Ctrl-C ends it: it
waits up to 10 s for what is under way, and the exit status is 1 if something did not get through.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys

from device_sdk import Client, Message, ReconnectPolicy, StorePolicy, Will
from device_sdk.drivers import open_driver

NODE = "serial-1"
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

log = logging.getLogger("serial_node")


class SerialNode:
    """Reads the board and publishes the sample, again and again."""

    def __init__(self, url: str) -> None:
        self.interval = 1.0
        self.client = Client(
            url,
            client_id=NODE,
            keep_alive=20,  # a line that is cut behind the adapter looks like silence; this finds it
            birth=Message(f"{NODE}/status", b"online", qos=1, retain=True),
            will=Will(f"{NODE}/status", b"offline", qos=1, retain=True),
            farewell=Message(f"{NODE}/status", b"offline", qos=1, retain=True),
            policy=StorePolicy(overflow="drop_oldest"),
            reconnect=ReconnectPolicy(longest=5),
        )
        self.client.subscribe(f"{NODE}/interval", qos=1, on_message=self.set_interval)

    def set_interval(self, message: Message) -> None:
        """Take a new interval; an exception here would be logged and harm nothing, but this says more."""
        try:
            seconds = float(message.payload)
        except ValueError:
            seconds = 0.0
        if 0.01 <= seconds <= 3600:
            self.interval = seconds
            log.info("a sample every %g s", seconds)
        else:
            log.warning("no interval from 0.01 to 3600: %.20r", message.payload)

    def run(self) -> bool:
        """Publish until a signal comes; return whether the broker has everything."""
        seq = 0
        with open_driver("host") as board:
            self.client.start()
            while signal.sigtimedwait(STOP_SIGNALS, self.interval) is None:
                readings = board.read()
                sample: dict[str, object] = {"seq": seq, "time": readings[0].time}
                sample.update((reading.channel, reading.value) for reading in readings)
                self.client.publish(f"{NODE}/board", json.dumps(sample), qos=1)
                seq += 1
        log.info("stopping")
        self.client.close(drain=10)
        return self.client.stats.dropped == 0


def main() -> int:
    """Run the node."""
    parser = argparse.ArgumentParser(description="Publish how this board is doing over a serial line.")
    parser.add_argument("url", help="of the line, such as 'serial:///dev/ttyUSB0?baud=115200'")
    url = parser.parse_args().url
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # Blocked before the client has threads, so that only sigtimedwait() gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    return 0 if SerialNode(url).run() else 1


if __name__ == "__main__":
    sys.exit(main())
