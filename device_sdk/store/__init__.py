"""Where the session and the queue are kept: in memory now, on disk later. See :mod:`device_sdk.store.base`."""
