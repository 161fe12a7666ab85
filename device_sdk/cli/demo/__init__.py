"""``device-sdk demo``: a node, a broker, an outage and the books.

==================  ==========================================================================
File                Contents
==================  ==========================================================================
``command.py``      options, the stage, the result
``plan.py``         the timetable
``scene.py``        the run: sampling, outage, drain, report
``node.py``         the node that samples and publishes
``subscriber.py``   the subscriber, a process of its own
``view.py``         the live table, or one line a second
==================  ==========================================================================

The demo needs a real broker and a proxy that cuts the network. Both are in ``device_sdk.testing``; nothing
else in the package imports that.
"""
