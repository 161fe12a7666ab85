"""The way to a connection: which server, with which credentials, and whether it resumes the session.

=====================  =============================================  ====================================
File                   Its object                                     State that it owns
=====================  =============================================  ====================================
``connector.py``       :class:`Connector`: the engine talks to this   the attempt under way
                       one
``brokers.py``         :class:`Brokers`: whose turn it is             failures in a row, which server has
                                                                      the session
``back_off.py``        :class:`ReconnectPolicy`, :func:`classify`     none: pure functions
``attempt.py``         :class:`Attempt`, :class:`Opener`: a stream    threads that may be left behind
                       is opened in a thread of its own
``credentials.py``     :class:`Credentials`: user name, password,     none
                       will
``resumption.py``      :class:`Resumption`: clean start or not, and   the session at the server, as far as
                       whether a session is lost                      it can be known here
``versions.py``        :class:`Versions`: 5.0, or 3.1.1 for a server  servers that refused 5.0, and until
                       that has refused it                            when that counts
``take_overs.py``      :class:`TakeOvers`: two clients with one name  connections ended early, in a row
``will_trial.py``      :class:`WillTrial`: whether the will is why    which wills are left out, until when
                       CONNECT is refused
``other_end.py``       :func:`explain`: words for a peer that is no  none
                       broker, imported for the first of them
``authentication.py``  :class:`Authentication`: AUTH exchanges        a re-authentication under way
=====================  =============================================  ====================================

Lock: the engine's guards everything here, except :class:`Attempt` and what calls the application:
``Credentials.ask()`` and the methods of an :class:`Authenticator` run without it.
"""
