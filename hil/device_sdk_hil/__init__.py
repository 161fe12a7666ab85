"""The rig: a pytest plugin that runs a program on virtual or real hardware and injects faults.

Installed with device_sdk, used with the extra ``hil``; docs/hil.md describes it for users. One file per job::

    plugin.py        options, marks and fixtures; all that a pytest run without a rig ever loads
    rig.py           rig.toml, and the capabilities of its rig
    timeline.py      the events of one test, in one file
    dut.py           the device under test: a process
    broker.py        the broker, and a listener for everything that arrives there
    serial_line.py   the line from the DUT to the broker
    sensor_bus.py    the I2C bus; remote_bus.py carries it into the process of the DUT
    launch.py        starts the DUT so that it cannot outlive the test
"""
