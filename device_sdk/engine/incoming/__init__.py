"""The messages of others on their way in, and the subscriptions that ask for them.

========================  ==========================================  =====================================
File                      Its object                                  State that it owns
========================  ==========================================  =====================================
``subscriber.py``         :class:`Subscriber`: the engine talks to    whether received messages are sorted
                          this one
``router.py``             :class:`Router`: filters, handlers, and     wanted subscriptions
                          what is to be asked of the server
``request_line.py``       :class:`RequestLine`: what is asked next    requests that wait or are under way
``asking.py``             :class:`Asking`: sends them, one by one if  the connection that takes requests
                          the judgement wants it
``subscribe_request.py``  :class:`SubscribeRequest`: one SUBSCRIBE    its answer
                          or UNSUBSCRIBE
``filter_judge.py``       :class:`FilterJudge`: which filter was the  ends in a row, a suspect
                          reason for ends of connections
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
