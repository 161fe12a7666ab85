"""``python -m device_sdk`` is the same as ``device-sdk``."""

import sys

from device_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
