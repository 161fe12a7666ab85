"""SUBSCRIBE and UNSUBSCRIBE on their way out: all at once, or one by one on a careful connection."""

from __future__ import annotations

from device_sdk.engine.incoming.filter_judge import REFUSE
from device_sdk.engine.outgoing.outbox import CAREFUL, detours
from device_sdk.errors import SubscribeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.filter_judge import FilterJudge
    from device_sdk.engine.incoming.router import Router
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.engine.outgoing.poison import End
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Asking"]

_PATIENCE = 30.0  # seconds that messages wait for the answer to one request


class Asking:
    """Sends the requests of the router. The caller of every method holds the engine's lock.

    On a careful connection a topic filter is alone unanswered, without any message beside it: so it is
    certain what the server ended a connection for. ``online``: the connection that takes requests.
    """

    __slots__ = (
        "_events", "_judge", "_last", "_outbox", "_published", "_requests", "_router", "_sent_at", "_session",
        "online",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        session: Session,
        events: Events,
        judge: FilterJudge | None,
        outbox: Outbox | None,
    ) -> None:
        self.online: Protocol | None = None
        self._router = router
        self._requests = router.requests
        self._session = session
        self._events = events
        self._judge = judge
        self._outbox = outbox
        self._last: SubscribeRequest | None = None  # that was sent alone
        self._sent_at = 0.0
        self._published = 0  # messages, when the server answered last

    def begin(self, protocol: Protocol) -> None:
        """Ask on this connection from now on."""
        self.online = protocol
        self._published = self._events.stats.published
        if self._judge is not None:
            self._judge.keep(self._requests.asked)
        self.go_on()

    def stop(self) -> None:
        """Ask for nothing any more on this connection."""
        self.online = None

    def go_on(self) -> None:
        """Send what waits, if it is time."""
        if self.online is None:
            return
        if self._outbox is not None and detours(self._outbox) & CAREFUL:
            self._outbox.want_fill(True)  # the careful connection asks for the next one
            return
        for request, error in self._router.send(self.online):
            self.report(request, error)

    def report(self, request: SubscribeRequest, error: DeviceSdkError) -> None:
        """Report a refused request; the store forgets what is not wanted any more."""
        self._events.notify("subscribe_refused", str(error), error)
        for topic_filter in request.topic_filters:
            if topic_filter not in self._router.wanted:
                self._session.record(("unsubscribed", topic_filter))

    def answered(self) -> None:
        """The server has answered a request, and so has read what was sent before."""
        self._published = self._events.stats.published

    # A careful connection

    def doubt(self) -> None:
        """Something was sent that has no answer."""
        self._published = -1

    @property
    def is_over(self) -> bool:
        """Whether requests can go their usual way again."""
        judge = self._judge
        if judge is None or judge.is_control or judge.suspect is not None:
            return judge is None
        return not judge.highest_rank or not self._requests.asked

    @property
    def wants_ping(self) -> bool:
        """Whether messages of QoS 0, which have no answer, may have been sent since the last answer."""
        return self._events.stats.published != self._published

    def deadline(self, now: float) -> float | None:
        """Return when the careful connection wants to look again."""
        moments = [] if self._judge is None else [self._judge.deadline(now)]
        if self._is_unanswered:
            moments.append(self._sent_at + _PATIENCE)
        return min((moment for moment in moments if moment is not None and moment > now), default=None)

    def is_waiting(self, now: float) -> bool:
        """Whether nothing may be sent: the last request has no answer yet."""
        return self._is_unanswered and now < self._sent_at + _PATIENCE

    @property
    def _is_unanswered(self) -> bool:
        return self._last in self._requests.sent.values()

    def holds_messages(self, now: float) -> bool:
        """Whether messages have to wait although nothing is to be asked."""
        return self._judge is not None and self._judge.holds_messages(now)

    def next(self) -> SubscribeRequest | None:
        """Return what is to be asked next, if anything is."""
        judge, online = self._judge, self.online
        if judge is None or online is None:
            return None
        request = self._requests.next(judge)
        if request is None and judge.wants_answer and not self._requests.sent:
            request = self._router.ask_witness(judge, online.version)
        return request

    def send(self, request: SubscribeRequest, now: float) -> None:
        """Send this one."""
        assert self.online is not None
        self._sent_at, self._last = now, request
        for failed, error in self._router.send(self.online, request):
            self.report(failed, error)

    def decide(self, now: float) -> None:
        """Decide about a filter that this connection goes without."""
        judge, router = self._judge, self._router
        suspect = None if judge is None else judge.suspect
        if judge is None or suspect is None or self.online is None:
            return
        if not judge.is_control or (self._requests.sent and not suspect.is_proven):
            return
        if judge.decide(now, can_ask=not suspect.is_proven and self.next() is not None) == REFUSE:
            error = SubscribeRefused(suspect.verdict, suspect.reason_code)
            for request in router.refuse(suspect.topic_filter, error):
                self.report(request, error)

    def ended(self, end: End | None, now: float, *, is_careful: bool) -> bool:
        """An accepted connection is over; ``end``: something of ours may be the reason.

        Returns: whether it is a topic filter, if anything is.
        """
        judge = self._judge
        if judge is None:
            return False
        unanswered = self._requests.sent.values()
        asked = [one for each in unanswered if each.subscriptions is not None for one in each.topic_filters]
        alone = None
        if is_careful and end is not None and end.is_clear and len(asked) == len(unanswered) == 1:
            alone = asked[0]
        before = judge.suspect
        if self._requests.has_witness:
            asked = []
        is_ours = judge.ended(end, asked, alone, now - self._sent_at)
        suspect = judge.suspect
        if suspect is not None and suspect is not before:
            self._events.notify("suspect", suspect.suspicion, value=suspect.topic_filter)
        return is_ours
