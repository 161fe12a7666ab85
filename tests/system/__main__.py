"""Write docs/brokers-tested.md: ``python -m tests.system`` in the root of the project."""

from tests.system.table import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
