"""The daemon behind ``device-sdk run``: it reads sensors on time and publishes what they say.

One file per job::

    tables.py          what may stand in the TOML file: keys, bounds, defaults
    config.py          reading and checking it
    driver_options.py  the options of a driver, by the signature of its constructor
    schema.py          JSON Schema of the file
    link.py            the client, made from the configuration
    schedule.py        when a sensor is due
    worker.py          one thread per bus, the states of a sensor
    encode.py          readings -> payload
    availability.py    who is online, retained at the broker
    service.py         joins the client and the workers, from start to drain

docs/node.md describes it for users. Needs the extra ``node``.
"""
