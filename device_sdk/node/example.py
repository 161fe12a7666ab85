"""The configuration that ``device-sdk config example`` prints."""

from __future__ import annotations

__all__ = ["EXAMPLE"]

EXAMPLE = """\
# A sensor node. "device-sdk config check FILE" looks for errors, "device-sdk run FILE" runs it.

[node]
id = "greenhouse-1"

[broker]
url = "mqtt://127.0.0.1"        # over a serial line: "serial:///dev/ttyUSB0?baud=115200"
# user_name = "greenhouse-1"
# password_file = "mqtt.password"

# [tls]                         # for a URL such as "mqtts://broker.example"; without it the system's CAs
# ca_file = "ca.pem"

# [clock]                       # a board without a clock of its own waits for the time before it publishes
# wait = "10m"                  # at most; "never": until the time is known

[queue]                         # messages that wait while the broker is away
# file = "greenhouse-1.db"      # survives restarts and power cuts
max_messages = 10_000
overflow = "drop_oldest"

[[sensor]]
name = "climate"
driver = "bme280"
bus = "i2c-1"
interval = "10s"
options = { address = 0x76 }

[[sensor]]
name = "machine"
driver = "host"
interval = "1m"
topic = "{node}/{sensor}"
qos = 1
"""
