"""All faults: one list for each part of the client."""

from __future__ import annotations

from tests.faults.in_client import IN_CLIENT
from tests.faults.in_codec import IN_CODEC
from tests.faults.in_connections import IN_CONNECTIONS
from tests.faults.in_exchanges import IN_EXCHANGES
from tests.faults.in_strings import IN_STRINGS

__all__ = ["FAULTS"]

FAULTS = (*IN_CODEC, *IN_STRINGS, *IN_CONNECTIONS, *IN_EXCHANGES, *IN_CLIENT)
