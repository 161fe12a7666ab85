"""Both ends of a link on a line in memory: what is lost, damaged, repeated or restarted never shows."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.net.link import words
from device_sdk.net.link.answerer import Answerer
from device_sdk.net.link.caller import Caller
from device_sdk.net.link.frame import ACK, CLOSE, DATA, HELLO, WELCOME, Frame, Hello, Splitter, encode
from device_sdk.net.link.stream import LinkStream
from tests.net.link_line import Faults, Line

BULK = Random(1).randbytes(16384)
NOISE = 1 / 500
SIZES = st.tuples(st.sampled_from([64, 128, 256, 1024]), st.sampled_from([1, 2, 4, 8, 64]))


def frames(data: bytes) -> list[Frame]:
    return list(Splitter().feed(data))


def received(line: Line) -> tuple[bytes, bytes]:
    """Return what the gateway and the board have received in all epochs."""
    return (
        b"".join(map(bytes, line.gateway.received.values())),
        b"".join(map(bytes, line.board.received.values())),
    )


def check_prefixes(line: Line) -> None:
    """In each epoch what came is the beginning of what was sent."""
    for sender, receiver in ((line.board, line.gateway), (line.gateway, line.board)):
        for epoch, data in receiver.received.items():
            assert sender.sent.get(epoch, bytearray()).startswith(data)


def test_bytes_go_both_ways_at_once() -> None:
    line = Line()
    line.board.write(BULK)
    line.gateway.write(BULK[::-1])
    assert line.run(lambda: received(line) == (BULK, BULK[::-1]), 5)


@pytest.mark.parametrize("baud", [1200, 9600, 115_200, 921_600])
def test_a_quiet_line_at_any_rate_repeats_nothing(baud: int) -> None:
    line = Line(baud)
    line.board.write(BULK[:4096])
    board, gateway = line.connect()
    assert line.run(lambda: received(line)[0] == BULK[:4096], 4096 * 12 / baud + 1)
    line.run(lambda: False, 3 * board.timing.heartbeat)
    assert (board.outbound.repeated, gateway.inbound.repeats) == (0, 0)
    assert (board.end, gateway.end) == (None, None)


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.binary(max_size=3000), SIZES, st.integers(0, 2**32))
def test_a_noisy_line_delivers_every_byte_once_in_order_and_unchanged(
    up: bytes, down: bytes, sizes: tuple[int, int], seed: int
) -> None:
    line = Line(115_200, *sizes)
    noise = NOISE if sizes[0] < 1024 else NOISE / 8
    line.disturb(seed, flip=noise, drop=noise / 4, repeat=noise / 4)
    line.board.write(up)
    line.gateway.write(down)
    line.connect()
    assert line.run(lambda: received(line) == (up, down), 300)
    check_prefixes(line)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.floats(0.001, 0.8), st.sampled_from(["board", "gateway", "cut"])), max_size=6),
    st.booleans(),
)
def test_ends_that_restart_at_any_moment_never_mix_two_epochs(
    seed: int, restarts: list[tuple[float, str]], has_random_numbers: bool
) -> None:
    """A board without random numbers has the same nonce each time, so it waits for silence when it starts."""
    line, draw = Line(), Random(seed)
    line.disturb(seed, flip=NOISE)
    line.board.write(BULK)
    line.gateway.write(BULK[::-1])
    for seconds, who in restarts:
        line.run(lambda: False, seconds)
        check_prefixes(line)
        if who == "board":
            # What the new program sends is its own: the rest of the old one's is gone with it.
            line.board.unsent = BULK[:5000]
            line.restart_board(draw.getrandbits(32) if has_random_numbers else 1)
            if not has_random_numbers:
                line.down.cut()
        elif who == "gateway":
            line.gateway.unsent = BULK[:5000]
            line.restart_gateway(draw.getrandbits(16))
        else:
            line.up.cut()
            line.down.cut()
        stream = line.board.half.stream
        if stream is not None and stream.end is not None:  # its owner opens it again
            line.board.unsent = BULK[:5000]
            line.restart_board(draw.getrandbits(32) if has_random_numbers else 1)
    line.run(lambda: False, 6)
    check_prefixes(line)


def test_a_board_that_restarts_with_the_same_nonce_is_seen_at_once() -> None:
    line = Line(nonce=0)
    old, at_gateway = line.connect()
    line.restart_board(0)
    new, again = line.connect()
    assert line.run(lambda: line.gateway.half.stream is not at_gateway, 0.1)
    assert at_gateway.end == words.RESTARTED
    assert line.gateway.half.stream is not None
    assert line.gateway.half.stream.epoch == new.epoch != old.epoch
    assert again.end == words.RESTARTED or again is line.gateway.half.stream


def test_a_gateway_that_restarts_ends_the_stream_of_the_board_at_its_next_word() -> None:
    line = Line()
    board, _ = line.connect()
    line.restart_gateway(4711)
    line.board.write(b"anybody there?")
    assert line.run(lambda: board.end is not None, 0.1)
    assert board.end == words.UNKNOWN


def test_a_line_that_is_cut_is_noticed_by_both_ends_within_four_seconds() -> None:
    line = Line()
    board, gateway = line.connect()
    line.run(lambda: False, 10)
    line.up.faults = line.down.faults = lambda data: b""
    start = line.now
    assert line.run(lambda: board.end is not None and gateway.end is not None, 10)
    assert (board.end, gateway.end) == (words.SILENT, words.SILENT)
    assert 2.9 < line.now - start < 4.1


def test_an_idle_line_lives_on_heart_beats() -> None:
    line = Line()
    board, gateway = line.connect()
    carried = line.up.carried
    line.run(lambda: False, 100)
    assert (board.end, gateway.end) == (None, None)
    assert 90 * 13 <= line.up.carried - carried <= 101 * 13


def test_a_close_says_why_and_comes_behind_all_data() -> None:
    line = Line()
    board, gateway = line.connect()
    line.gateway.write(b"last words")
    line.step()
    line.run(lambda: not line.gateway.unsent, 1)
    gateway.close(words.AWAY)
    assert line.run(lambda: board.end is not None, 1)
    assert board.end == words.AWAY
    assert received(line)[1] == b"last words"


def test_an_orderly_close_with_data_missing_is_no_orderly_end() -> None:
    line = Line()
    board, gateway = line.connect()
    line.run(lambda: False, 0.5)
    line.down.faults = lambda data: b""
    line.gateway.write(b"lost")
    line.run(lambda: False, 0.05)
    line.down.faults = bytes
    gateway.close(words.DONE)
    assert line.run(lambda: board.end is not None, 1)
    assert board.end == words.CUT_SHORT


def test_a_frame_for_a_stream_that_the_gateway_has_closed_is_answered_with_the_reason() -> None:
    line = Line()
    board, gateway = line.connect()
    line.down.faults = lambda data: b""
    gateway.close(words.REFUSED)
    line.run(lambda: False, 0.1)
    line.down.faults = bytes
    line.board.write(b"CONNECT")
    assert line.run(lambda: board.end is not None, 1)
    assert board.end == words.REFUSED


def test_a_reader_that_pauses_stops_the_sender_for_as_long_as_it_likes() -> None:
    line = Line()
    board, _ = line.connect()
    line.gateway.reads = False
    line.board.write(BULK)
    line.run(lambda: False, 300)
    assert board.end is None
    assert len(line.board.sent[board.epoch]) == 8 * (256 - 10)
    line.gateway.reads = True
    assert line.run(lambda: received(line)[0] == BULK, 5)
    assert board.outbound.repeated == 0


def test_a_lost_frame_is_repeated_before_its_time_out_when_others_follow() -> None:
    line = Line()
    board, _ = line.connect()
    line.run(lambda: False, 0.5)
    lost = iter([b""])
    line.up.faults = lambda data: next(lost, data)
    line.board.write(BULK[:1500])
    assert line.run(lambda: received(line)[0] == BULK[:1500], board.timing.answer)
    assert board.outbound.repeated == 1


def test_the_last_frame_before_a_pause_is_repeated_after_the_time_out() -> None:
    line = Line()
    board, _ = line.connect()
    line.run(lambda: False, 0.5)
    lost = iter([b""])
    line.up.faults = lambda data: next(lost, data)
    start = line.now
    line.board.write(b"alone")
    assert line.run(lambda: received(line)[0] == b"alone", 1)
    assert board.timing.answer <= line.now - start < board.timing.answer + 0.1


def test_time_outs_that_have_doubled_are_short_again_after_an_acknowledgement() -> None:
    line = Line()
    board, _ = line.connect()
    line.run(lambda: False, 0.5)
    lost = iter([b""] * 3)
    line.up.faults = lambda data: next(lost, data)
    line.board.write(b"one")
    assert line.run(lambda: board.outbound.repeated == 3 and board.outbound.waiting == 0, 5)
    lost = iter([b""])
    start = line.now
    line.board.write(b"two")
    assert line.run(lambda: received(line)[0] == b"onetwo", 1)
    assert line.now - start < 1.5 * board.timing.answer


def test_a_window_that_is_read_again_is_announced_at_once() -> None:
    end, stream = opened()
    for seq in range(8):
        end.receive(encode(DATA, 9, seq, 0, 8, b"x"), 0.0)
    assert [frame.credit for frame in frames(end.next_frame(0.0))] == [0]
    assert end.next_frame(0.0) == b""
    assert stream.take() == b"x" * 8
    assert [(frame.kind, frame.credit) for frame in frames(end.next_frame(0.0))] == [(ACK, 8)]


def test_frames_of_another_epoch_are_nobodys_data() -> None:
    end, stream = opened()
    end.receive(encode(DATA, 8, 0, 0, 8, b"old") + encode(CLOSE, 8, 0, 0, 8, b"\0\1"), 0.0)
    assert (stream.take(), stream.end, end.next_frame(0.0)) == (b"", None, b"")
    gateway = Answerer(115_200, 256, 8, 8)
    gateway.receive(encode(HELLO, 0, 0, 0, 0, Hello(1, 256, 8, 5).pack()), 0.0)
    gateway.next_frame(0.0)
    gateway.receive(encode(ACK, 9, 0, 0, 8) + encode(DATA, 10, 0, 0, 8, b"old"), 0.0)
    assert gateway.stream is not None
    assert gateway.stream.take() == b""
    (frame,) = frames(gateway.next_frame(0.0))
    assert (frame.kind, frame.epoch, frame.payload[0]) == (CLOSE, 10, words.UNKNOWN)


def test_a_welcome_with_another_epoch_ends_the_stream() -> None:
    end, stream = opened()
    end.receive(welcome(9), 0.0)
    assert stream.end is None
    end.receive(welcome(10), 0.0)
    assert stream.end == words.RESTARTED


# Bad input


def caller(now: float = 0.0) -> Caller:
    return Caller(115_200, 256, 8, 0xC0FFEE, now)


def welcome(epoch: int, frame: int = 256, window: int = 8, nonce: int = 0xC0FFEE, version: int = 1) -> bytes:
    return encode(WELCOME, epoch, 0, 0, window, Hello(version, frame, window, nonce).pack())


@pytest.mark.parametrize(
    ("frame", "window"), [(63, 8), (257, 8), (65535, 8), (256, 0), (256, 9), (256, 255), (0, 0)]
)
def test_a_welcome_with_more_than_was_offered_or_too_little_is_refused(frame: int, window: int) -> None:
    end = caller()
    end.receive(welcome(9, frame, window), 0.0)
    assert (end.stream, end.failure) == (None, words.TERMS)


def test_a_welcome_of_another_version_is_refused_with_these_words() -> None:
    end = caller()
    end.receive(welcome(9, version=2), 0.0)
    assert end.stream is None
    assert "another version" in end.explain()


def test_a_welcome_for_another_hello_is_passed_over() -> None:
    end = caller()
    end.receive(welcome(9, nonce=1), 0.0)
    assert (end.stream, end.failure) == (None, None)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(0, 256, 8, 5), words.VERSIONS),
        (Hello(1, 63, 8, 5), words.TERMS),
        (Hello(1, 256, 0, 5), words.TERMS),
    ],
)
def test_a_hello_that_cannot_be_answered_is_refused_to_the_one_that_said_it(
    hello: Hello, reason: int
) -> None:
    gateway = Answerer(115_200, 256, 8, 7)
    gateway.receive(encode(HELLO, 0, 0, 0, 0, hello.pack()), 0.0)
    (frame,) = frames(gateway.next_frame(0.0))
    assert (frame.kind, frame.payload) == (CLOSE, bytes((reason, 1)) + hello.nonce.to_bytes(4, "little"))
    assert (gateway.next_frame(0.0), gateway.stream) == (b"", None)
    board = Caller(115_200, 256, 8, hello.nonce, 0.0)
    board.receive(encode(CLOSE, 0, 0, 0, 0, frame.payload), 0.0)
    assert board.failure == reason
    assert board.next_frame(1.0) == b""


def test_huge_claims_and_later_versions_get_what_this_end_can_do() -> None:
    gateway = Answerer(115_200, 256, 8, 7)
    gateway.receive(encode(HELLO, 0, 0, 0, 0, Hello(9, 65535, 255, 5).pack() + b"of version 9"), 0.0)
    (frame,) = frames(gateway.next_frame(0.0))
    agreed = Hello.unpack(frame.payload)
    assert agreed is not None
    assert (agreed.version, agreed.frame, agreed.window, agreed.nonce) == (1, 256, 8, 5)


def test_a_peer_that_says_hello_for_ever_opens_nothing_and_gets_an_answer_each_time() -> None:
    gateway = Answerer(115_200, 256, 8, 7)
    for nonce in range(70_000):
        gateway.receive(encode(HELLO, 0, 0, 0, 0, Hello(1, 256, 8, nonce).pack()), 0.0)
        (frame,) = frames(gateway.next_frame(0.0))
        assert frame.epoch != 0
        assert gateway.stream is None


def test_a_hello_of_three_bytes_is_passed_over() -> None:
    gateway = Answerer(115_200, 256, 8, 7)
    gateway.receive(encode(HELLO, 0, 0, 0, 0, b"\1\0\0"), 0.0)
    assert gateway.next_frame(0.0) == b""


def opened(window: int = 8) -> tuple[Caller, LinkStream]:
    end = caller()
    end.receive(welcome(9, window=window), 0.0)
    assert end.stream is not None
    assert [frame.kind for frame in frames(end.next_frame(0.0))] == [ACK]
    return end, end.stream


def test_a_flood_beyond_the_window_is_dropped() -> None:
    end, stream = opened()
    for seq in range(1000):
        end.receive(encode(DATA, 9, seq & 255, 0, 8, bytes(246)), 0.0)
    assert len(stream.take()) == 8 * 246
    assert stream.end is None


def test_a_flood_behind_a_gap_is_dropped() -> None:
    end, stream = opened()
    for seq in range(1, 256):
        end.receive(encode(DATA, 9, seq, 0, 8, b"x"), 0.0)
    end.receive(encode(DATA, 9, 0, 0, 8, b"0"), 0.0)
    assert stream.take() == b"0" + b"x" * 7


@pytest.mark.parametrize("payload", [b"", bytes(247)])
def test_a_data_frame_of_a_size_that_was_not_agreed_ends_the_stream(payload: bytes) -> None:
    end, stream = opened()
    end.receive(encode(DATA, 9, 0, 0, 8, payload), 0.0)
    (frame,) = frames(end.next_frame(0.0))
    assert (frame.kind, frame.payload[0], stream.end) == (CLOSE, words.VIOLATION, words.VIOLATION)


def test_an_acknowledgement_of_what_was_not_sent_counts_for_nothing() -> None:
    end, stream = opened()
    assert stream.send(b"one", 0.0) == 3
    end.receive(encode(ACK, 9, 0, 1, 8), 0.0)  # before it has left
    assert stream.outbound.waiting == 1
    end.next_frame(0.0)
    end.receive(encode(ACK, 9, 0, 2, 8), 0.0)
    assert stream.outbound.waiting == 1
    end.receive(encode(ACK, 9, 0, 1, 8), 0.0)
    assert stream.outbound.waiting == 0


def test_a_peer_that_lives_but_acknowledges_nothing_is_left_in_the_end() -> None:
    end, stream = opened()
    stream.send(b"one", 0.0)
    now, sent = 0.0, 0
    while stream.end is None and now < 100:
        end.receive(encode(ACK, 9, 0, 0, 8), now)
        end.handle_deadline(now)
        while end.next_frame(now):
            sent += 1
        now += 0.5
    assert stream.end == words.STALLED
    assert now < 40
    assert sent < 100


def test_no_silence_is_busy() -> None:
    """The next deadline is later once the work that was due is done."""
    end, stream = opened()
    stream.send(b"one", 0.0)
    now, steps = 0.0, 0
    while (due := end.next_deadline(blocked=False)) is not None and steps < 200:
        now = max(now, due)
        end.handle_deadline(now)
        while end.next_frame(now):
            pass
        steps += 1
    assert stream.end == words.SILENT
    assert steps < 20


@settings(max_examples=200)
@given(
    st.lists(
        st.binary(max_size=40)
        | st.builds(
            encode,
            st.integers(0, 6), st.sampled_from([0, 8, 9, 10]), st.integers(0, 255), st.integers(0, 255),
            st.integers(0, 255), st.binary(max_size=16),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_whatever_comes_is_taken_without_an_exception_and_with_little_memory(pieces: list[bytes]) -> None:
    end, stream = opened()
    gateway = Answerer(115_200, 256, 8, 8)
    stream.send(BULK, 0.0)
    for piece in pieces:
        for each in (end, gateway):
            each.receive(piece, 0.1)
            each.handle_deadline(0.1)
            for _ in range(40):
                if not each.next_frame(0.1):
                    break
            else:
                raise AssertionError("frames for ever")
        assert stream.outbound.waiting <= 8


def test_faults_of_the_line_in_memory_are_as_frequent_as_asked() -> None:
    data = bytes(100_000)
    assert 150 < sum(map(bool, Faults(1, flip=NOISE)(data))) < 250
    assert len(Faults(1, drop=0.5)(data)) < 60_000
    assert len(Faults(1, repeat=0.5)(data)) > 140_000


# Words


@pytest.mark.parametrize(
    ("heard", "text"),
    [
        (b"", "nothing came: check wiring"),
        (encode(HELLO, 0, 0, 0, 0, Hello(1, 256, 8, 0xC0FFEE).pack()), "our own HELLO comes back"),
        (encode(HELLO, 0, 0, 0, 0, Hello(1, 256, 8, 1).pack()), "one of the two must be the gateway"),
        (b"\r\nraspberrypi login: ", "a console"),
        (b"\xf0\x80\xf8\0\x86", "compare baud rate and parity"),
    ],
)
def test_no_welcome_is_explained_by_what_came_instead(heard: bytes, text: str) -> None:
    end = caller()
    end.receive(heard, 0.0)
    assert text in end.explain()


def test_a_reason_that_is_not_known_is_a_number() -> None:
    assert "reason 77" in words.explain(77)
