"""The engine: everything a client does, except waiting for the network. docs/architecture.md is the map.

==================  =================================  ====================================================
File                Its object                         State that it owns
==================  =================================  ====================================================
``engine.py``       :class:`Engine`: a shell drives    the lock, the parts, the present connection
                    this one
``life_cycle.py``   :class:`LifeCycle`: states and     state, ``retry_at``, last error
                    transitions, in one table
``reactions.py``    :class:`Reactions`: what follows   none: it asks the parts
                    from accepted, refused, lost
``connection.py``   :class:`Connection`: bytes in,     one network connection, made with its stream and
                    bytes out, events                  dropped whole
``stream.py``       :class:`Stream`: the transport of  output on its way to the transport
                    a connection
``events.py``       :class:`Events`: work for the      the list of callbacks, the counters
                    callback side
``consumers.py``    :class:`Consumers`: handlers that  which threads handle messages, which are blocked
                    wait for the server
``outgoing/``       messages on their way out          see there
``incoming/``       messages on their way in           see there
``connecting/``     the way to a connection            see there
``arguments.py``    checks of what applications give   none
``build.py``        brokers and store from arguments   none
``reentry.py``       signals that interrupt a thread    none
                    which has the lock
``packet_log.py``   packets in the log                 lines not written yet
==================  =================================  ====================================================

The lock: one lock guards all state of an engine. A method says whether its caller holds it; those that begin
with ``on_`` belong to the owner of the transport and take it themselves. It is never held while code of the
application runs, nor during ``open()``, ``recv()``, ``send()`` or a commit; but the handler of a signal may
run at any time: see ``reentry.py``.

Parts: each knows what it needs, none the engine. Upward go returned values, and one callback:
``Connection`` calls ``Reactions.react``. References form no cycle, so a dropped client is freed at once.
"""
