"""The tests of device_sdk: one folder for each room."""
