"""The two views of the demo."""

from __future__ import annotations

import sys

import pytest

from device_sdk.cli.demo.view import LiveView, PlainView, Snapshot, bar, make_view

AWAY = Snapshot(
    elapsed=12.3,
    seconds=30.0,
    phase="sampling",
    network_up=False,
    node_state="waiting",
    subscriber_state="connecting",
    published=123,
    acknowledged=83,
    queue=40,
    queue_expected=80,
    peak_queue=41,
    received=82,
    duplicates=2,
    sample="load 0.5, 700 MB free",
)


@pytest.mark.parametrize(
    ("value", "full", "drawn"),
    [
        (0, 10, ".........."),
        (1, 1000, "#........."),
        (5, 10, "#####....."),
        (50, 10, "##########"),
        (0, 0, "." * 10),
    ],
)
def test_a_bar_shows_its_part_of_the_whole(value: int, full: int, drawn: str) -> None:
    assert bar(value, full, 10) == drawn


def test_the_plain_view_puts_everything_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView() as view:
        view.show(AWAY)
        view.note("the network is back")
    heading, line, remark = capsys.readouterr().out.splitlines()
    assert heading.split()[1:4] == ["network", "node", "subscriber"]
    assert heading.split()[4:] == ["published", "acknowledged", "received", "queue"]
    assert line.split()[:9] == ["12", "s", "DOWN", "waiting", "connecting", "123", "83", "82", "40"]
    assert line.endswith(" #####.....  load 0.5, 700 MB free")
    assert line.index("123") + 3 == heading.index("published") + len("published"), "columns line up"
    assert remark == "---- the network is back"


def test_the_live_view_shows_the_same_in_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich", reason="needs rich")
    monkeypatch.setenv("COLUMNS", "100")
    with LiveView() as view:
        view.note("the network goes away")
        view.show(AWAY)
    shown = capsys.readouterr().out
    for part in ("the network goes away", "DOWN", "waiting", "connecting", "123", "peak 41", "(2 twice)"):
        assert part in shown


def test_without_a_terminal_the_view_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(make_view(), PlainView)


def test_on_a_terminal_the_view_is_live_if_rich_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich", reason="needs rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with make_view() as view:
        assert isinstance(view, LiveView)
