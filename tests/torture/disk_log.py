"""The disk of :mod:`tests.torture.fuse_disk`, and the log of what was done to it.

A record is its kind (``W`` or ``F``), offset and length, then the data.
"""

from __future__ import annotations

import struct

RECORD = struct.Struct("<cQI")
WRITE, FLUSH = b"W", b"F"
IMAGE_BYTES = 16 << 20
IMAGE = "disk.img"
