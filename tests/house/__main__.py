"""Print the figures of a checkout: ``python -m tests.house [--commit COMMIT]`` in the root of the project.

``--lower`` writes smaller numbers into ``to_mend.toml`` where the source has become better (ratchet.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.architecture.rules import RULES
from tests.house.figures import read_checkout, report
from tests.house.ratchet import TO_MEND, lowered, read_table, written
from tests.house.source import Source

ROOT = Path(__file__).resolve().parents[2]


def report_of(commit: str, root: Path = ROOT) -> str:
    """Return the figures of a commit. Raises: CalledProcessError: there is no such commit."""
    archive = subprocess.run(
        ["git", "archive", commit, "device_sdk", "tests", "hil"], cwd=root, stdout=subprocess.PIPE, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return report(read_checkout(Path(folder)), RULES)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--commit", help="another commit instead of this checkout")
    parser.add_argument("--lower", action="store_true", help="follow improvements in to_mend.toml")
    options = parser.parse_args()
    if options.lower:
        TO_MEND.write_text(written(lowered(read_table(), RULES, Source.read(ROOT))), encoding="utf-8")
    else:
        sys.stdout.write(report_of(options.commit) if options.commit else report(read_checkout(ROOT), RULES))


if __name__ == "__main__":
    main()
