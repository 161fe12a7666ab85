"""Write docs/conformance.md: ``python -m tests.conformance`` in the root of the project."""

from tests.conformance.catalogue import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
