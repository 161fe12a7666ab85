"""The messages of the application on their way out.

==================  ==================================================  ===============================
File                Its object                                          State that it owns
==================  ==================================================  ===============================
``publisher.py``    :class:`Publisher`: the engine talks to this one    whether there is a connection
``write_ahead.py``  :class:`WriteAhead`: changes for the store          whether a failure was reported
``outbox.py``       :class:`Outbox`: the queue                          next sequence number, ``ahead``
``backlog.py``      :class:`Backlog`: messages that wait, in order      two lanes in memory, the counts
``pages.py``        :class:`Pages`: messages that only the store holds  how far they were read, weak
                                                                        references to their deliveries
``places.py``       :class:`Places`: where the oldest of them are,    sequence numbers and bytes
                    for ``drop_oldest``
``held.py``         :class:`Held`: messages that the present server     those that were stepped over
                    cannot take
``postponed.py``    :class:`Postponed`: topics with a message that      those messages, when each is
                    exceeded the server's quota                         published again
``keep_last.py``    :class:`KeepLast`: the newest message of a topic    which message waits on a topic
``bounds.py``       :class:`Bounds`: whether one more may wait          the bounds
``overflow.py``     :class:`Overflow`: what goes for a new message      dropped ones nobody has a delivery of
``replay.py``       :class:`Replay`: from the backlog into the window   the pace of the replay
``presence.py``     :class:`Presence`: birth and farewell               which are to be said or unanswered
``birth_trial.py``  :class:`BirthTrial`: a birth that ends            ends in a row, a verdict
                    connections
``greetings.py``    :class:`Greetings`: what is to be said              one call of the application at a time
``suspicion.py``    :class:`Suspicion`: ends of connections             the judgement about each server
``poison.py``       :class:`Poison`: which message was the reason       ends in a row, a suspect, bad topics
``careful.py``      :class:`Careful`: messages go one by one            the message alone in flight
``stepped_over.py``  :class:`SteppedOver`: messages whose turn passes   those messages
``endings.py``      :class:`Endings`: ends without acknowledgement      what a closed client left
``cancelling.py``   :class:`Cancelling`: messages taken back            none
``delivery.py``     :class:`Delivery`: the handle of the application    the state of one message
``waits.py``        :class:`Waits`: blocking until something is so      the threads that wait
``ack_watch.py``    :class:`AckWatch`: a window that is stuck           the oldest message in flight
==================  ==================================================  ===============================

Who knows whom: Outbox has a Backlog (with its Pages, their Places and its KeepLast), Bounds, Overflow,
Replay, Endings and Waits. Bounds, Overflow and Replay know the Backlog, the latter two the Endings too.
Publisher has an Outbox, a Presence, which has Greetings, and a Postponed and a Suspicion that know the
Outbox; the latter has a Poison for each server and, while one of them asks for it, a Careful with its
SteppedOver. A Delivery knows Waits and nothing else, and Waits keeps no delivery. So there is no cycle: a
dropped client is freed at once, even if the application keeps deliveries. Waits calls Cancelling, which knows
the Outbox, through a weak reference.

Lock: the engine's guards everything here. The callers of all methods hold it, except those of
:class:`Delivery`, which any thread may call, and of ``Waits.wait_done()``, ``wait_stored()`` and
``cancel()``, which take it themselves. Nothing here does I/O or calls the application.

The life of a message, in the words of :attr:`Delivery.state`:

- *queued*: ``Outbox.add()`` has given it a sequence number and put it into the backlog, in memory or beyond.
  With room in the window the engine passes it to the protocol at once, and it is never in the backlog.
- *stored*: the store has written it; it survives a restart.
  It is *held* while a server is connected that cannot take it: stepped over, in its place for the next one.
- *sent*: ``Replay.fill()`` has moved it into the window: ``session.in_flight``, after PUBREC
  ``session.released``. QoS 0 ends here.
- *acknowledged* or *refused*: the server has answered. The protocol ends it, not this package.
- *expired*, *dropped*, *cancelled* or *invalidated*: ``Endings`` has ended it. Its time was over; or there
  was no room for it, or the client was closed and could not keep it; or the application has taken it back; or
  the server lost the session and the application does not want it repeated. Otherwise a lost session puts it
  back: *queued* again, before all others.
"""
