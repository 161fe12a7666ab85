"""Where the session and the queue are kept. See :mod:`device_sdk.store.base`."""
