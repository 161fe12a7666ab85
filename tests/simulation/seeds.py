"""Seeds of runs that failed once, with what they found. A seed that fails becomes a line here.

A seed is a run as long as plans and faults are drawn as they were: after a change of that it is some other
run, and no worse. What a seed has found is kept by a planted bug, see :mod:`tests.simulation.planted`.
"""

from __future__ import annotations

__all__ = ["SEEDS"]

SEEDS: dict[int, str] = {
    12: "a QoS 2 message handled offline came again after a restart in good order",
    95: "MQTT 3.1: the session of a clean start counted as present, and nothing was subscribed any more",
}
