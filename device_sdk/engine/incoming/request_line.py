"""SUBSCRIBE and UNSUBSCRIBE packets that wait for their turn, then for their answers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.incoming.filter_judge import FilterJudge
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest

__all__ = ["RequestLine"]


class RequestLine:
    """The requests of one client. ``unsent``: on this connection; ``sent``: without an answer.

    The caller of every method holds the engine's lock.
    """

    __slots__ = ("_witness", "sent", "unsent")

    def __init__(self) -> None:
        self.unsent: list[SubscribeRequest] = []
        self.sent: dict[int, SubscribeRequest] = {}
        self._witness: SubscribeRequest | None = None

    @property
    def asked(self) -> set[str]:
        """The topic filters of every SUBSCRIBE here."""
        requests = (*self.sent.values(), *self.unsent)
        return {one for each in requests if each.subscriptions is not None for one in each.topic_filters}

    @property
    def has_witness(self) -> bool:
        """Whether the request of :meth:`add_witness` is unanswered."""
        return self._witness is not None and self._witness in self.sent.values()

    def add_witness(self, request: SubscribeRequest) -> None:
        """Send this one, which is nobody's, so that the server says something."""
        self._witness = request
        self.unsent.insert(0, request)

    def next(self, judge: FilterJudge) -> SubscribeRequest | None:
        """Return what is to be sent next, the most doubtful filter first, with one filter in a SUBSCRIBE.

        What is left out stays where it is. No request overtakes another one that has a filter in common.
        """
        unsent, passed = self.unsent, set[str]()
        best, best_rank, highest = None, -1, judge.highest_rank
        position = 0
        while position < len(unsent) and best_rank < highest:
            request = unsent[position]
            topic_filters = request.topic_filters
            if request.subscriptions is not None and len(topic_filters) > 1:
                unsent[position : position + 1] = request.split()
                continue
            is_left = request.subscriptions is not None and judge.leaves_out(topic_filters[0])
            if not is_left and passed.isdisjoint(topic_filters):
                rank = judge.rank(topic_filters)
                if rank > best_rank:
                    best, best_rank = request, rank
            passed.update(topic_filters)
            position += 1
        return best

    def take_out(self, topic_filter: str) -> list[SubscribeRequest]:
        """Remove every SUBSCRIBE that waits with this filter, and return them with it alone."""
        unsent = [
            request
            for whole in self.unsent
            for request in (whole.split() if topic_filter in whole.topic_filters else (whole,))
        ]
        taken = [
            one for one in unsent if one.subscriptions is not None and one.topic_filters == [topic_filter]
        ]
        self.unsent[:] = [request for request in unsent if request not in taken]
        return taken

    def disconnected(self) -> None:
        """The connection is over: what was not answered is asked again on the next one."""
        witness, self._witness = self._witness, None
        # A witness is not what is asked for if the session is lost.
        self.unsent[:] = [one for one in (*self.sent.values(), *self.unsent) if one is not witness]
        self.sent.clear()

    def clear(self) -> None:
        """Nothing waits any more."""
        self.unsent.clear()
        self.sent.clear()
