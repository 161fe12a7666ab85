"""``framing=link``: on a serial line every byte arrives once, in order, unchanged, or the stream ends.

docs/link.md is the protocol. Only ``layer.py`` does I/O: elsewhere bytes and the time go in, frames out.

================  ====================================================================================
``frame.py``      one frame: header, CRC-32, COBS; a splitter that finds frames in bytes from a line
``timing.py``     all time-outs, from the rate of the line
``outbound.py``   frames on their way: window, credit, what has to be sent again
``inbound.py``    frames that came: order, room, what has to be acknowledged
``stream.py``     one epoch: the two above, heart-beats and the end
``caller.py``     the end that begins streams: the board, a client
``answerer.py``   the end that takes them: the gateway
``words.py``      what a CLOSE or a silence means, for people
``layer.py``      the caller's end as a transport
================  ====================================================================================
"""

from __future__ import annotations
