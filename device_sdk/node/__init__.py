"""The daemon behind ``device-sdk run``: it reads sensors on time and publishes their readings.

=====================  ===========================================================================
``tables.py``          keys, types, bounds and defaults of the TOML file
``config.py``          reads and checks it
``driver_options.py``  the options of a driver, by the signature of its constructor
``schema.py``          JSON Schema of the file
``example.py``         the example that ``device-sdk config example`` prints
``link.py``            makes the client from the configuration
``schedule.py``        the ticks of a sensor
``life_cycle.py``      the states of a sensor and every transition between them
``sensor.py``          one sensor: its driver object, its schedule and its state
``readings.py``        the check of what a driver returned
``worker.py``          one thread per bus; it owns the sensors of that bus, and is left behind when it hangs
``watch.py``           the thread that waits for the deadlines of the calls into drivers
``outlet.py``          numbers the samples of a sensor, and hands them on
``sample.py``          a sample that is not encoded yet
``clock/``             the time of a sample; the room in which it waits for it
``encode.py``          sample -> payload
``availability.py``    online and offline of node and sensors, retained at the broker; any thread
``uplink.py``          the client, and the one that takes its place when the queue's file can be opened
``systemd.py``         what systemd is told: ready, alive, status, stopping
``service.py``         joins the client and the workers, from start to drain
=====================  ===========================================================================

Read ``service.py`` first, then ``worker.py`` and ``sensor.py``. docs/node.md describes the daemon for users.
Needs the extra ``node``.
"""
