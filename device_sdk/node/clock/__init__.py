"""When a sample was taken, on a board whose clock may be wrong for minutes after it has started.

Most boards have no clock of their own: until the network gives them the time they are in 1970, or where
fake-hwclock left them. A sample is taken at a moment of ``CLOCK_BOOTTIME``, and gets its time when there is
one to give.

====================  ===================================================================================
``evidence.py``       what shows that the kernel's wall clock is right; ``chrony.py`` asks chronyd
``wall_clock.py``     the time of a moment, from the kernel's clock or from a message or a GPS receiver
``waiting_room.py``   the samples whose time is not known yet, in a file that survives a power cut
``gate.py``           lets samples through: at once, when the time is known, or without a time
``sources.py``        a message or a sensor as a source of the time
``build.py``          makes the gate of a node from its configuration
====================  ===================================================================================
"""
