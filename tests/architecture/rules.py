"""Every rule about the source that counts what it finds, for the tests and for ``python -m tests.house``."""

from __future__ import annotations

from tests.architecture.alarms import FOR_ONE_STREAM, KINDS_OF_TRANSPORT, PACKETS_IN_SHELLS, RIG_IMPORTS
from tests.architecture.cycles import IMPORT_CYCLES
from tests.architecture.kept import KEPT_EXCEPTIONS
from tests.architecture.listed import UNLISTED_MODULES
from tests.architecture.parts import HOLDS_ENGINE, WRITES_TO_OTHERS
from tests.architecture.private import PRIVATE_MEMBERS, PRIVATE_NAMES
from tests.house.rules import SIZES

RULES = [
    *SIZES,
    IMPORT_CYCLES,
    PRIVATE_NAMES,
    PRIVATE_MEMBERS,
    HOLDS_ENGINE,
    WRITES_TO_OTHERS,
    RIG_IMPORTS,
    PACKETS_IN_SHELLS,
    KINDS_OF_TRANSPORT,
    FOR_ONE_STREAM,
    UNLISTED_MODULES,
    KEPT_EXCEPTIONS,
]
