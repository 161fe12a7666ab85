"""The messages of others on their way in, and the subscriptions that ask for them.

========================  ==========================================  =====================================
File                      Its object                                  State that it owns
========================  ==========================================  =====================================
``subscriber.py``         :class:`Subscriber`: the engine talks to    whether received messages are sorted
                          this one
``router.py``             :class:`Router`: filters, handlers, and     wanted subscriptions, requests that
                          what is to be asked of the server           wait or are under way
``subscribe_request.py``  :class:`SubscribeRequest`: one SUBSCRIBE    its answer
                          or UNSUBSCRIBE
``subscription_ids.py``   :class:`SubscriptionIds`                    which identifier stands for which
                                                                      filters
``in_hand.py``            :class:`InHand`: when reading pauses        messages not finished, their bytes
``manual_ack.py``         :class:`ManualAcks`: tokens on messages     redelivery keys
``calls.py``              :class:`Calls`, :class:`Call`: request and  calls that wait for a response
                          response
``inbox.py``              :class:`Inbox`: messages for programs that  messages that no handler takes
                          pull, by threads
``dispatch.py``           :class:`Dispatch`: messages without a       none
                          handler, handlers that fail
========================  ==========================================  =====================================

The life of a message: ``Connection`` takes it from the protocol. ``Subscriber.sort()`` sees it only where
tokens, calls or a full :class:`InHand` want that. ``Events`` holds it until the callback side takes it,
:meth:`Router.route` finds its handlers, and :meth:`Engine.handled` lets its acknowledgement leave.

Lock: the engine's guards everything here, except the queue of an :class:`Inbox`, which has its own.
"""
