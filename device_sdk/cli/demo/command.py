"""``device-sdk demo``: the main job on real input, through a network outage, with the books checked after.

A node samples this machine's sensors and publishes every sample at QoS 1. A subscriber in a process of its
own receives them in a persistent session. Both reach a real broker through a proxy that cuts the network in
the middle of the run. In the end every sequence number that was published must have reached the subscriber.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from device_sdk import Client
from device_sdk.cli.common import ExitCode, command_parser, positive_seconds
from device_sdk.cli.demo.node import Node
from device_sdk.cli.demo.plan import DRAIN_S, Plan, make_plan
from device_sdk.cli.demo.scene import Network, Report, Scene
from device_sdk.cli.demo.subscriber import SubscriberProcess
from device_sdk.cli.demo.view import make_view
from device_sdk.cli.stop_signals import StopSignals
from device_sdk.cli.terminal import say, say_json
from device_sdk.errors import ArgumentError, ConnectFailedError, DeviceSdkError
from device_sdk.net.base import parse_url
from device_sdk.testing.broker_process import BROKERS, find_broker
from device_sdk.testing.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

__all__ = ["demo"]

_PROBE_S = 5.0
_FORGET_S = 3.0


def demo(argv: list[str]) -> int:
    """Run the demo. Exit code 0 only if something was published and nothing was lost."""
    arguments = _parse(argv)
    plan = make_plan(arguments.seconds, arguments.outage)
    with StopSignals() as signals, ExitStack() as stack:
        if arguments.url:
            report = _run(arguments, plan, signals, arguments.url, None)
        else:
            broker = stack.enter_context(find_broker(arguments.broker))
            report = _run(arguments, plan, signals, broker.url(arguments.version), broker)
    _print_report(report)
    if arguments.json:
        say_json(asdict(report))
    if report.lost:
        return ExitCode.FAILED
    return ExitCode.OK if report.published else ExitCode.INTERRUPTED


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = command_parser(
        "demo",
        "Publish this machine's sensors through a network outage and check that nothing is lost.\n"
        "Starts a broker of its own, mosquitto or iotcore, unless --url names one.",
    )
    parser.add_argument("--seconds", type=positive_seconds, default=30.0, metavar="N", help="default: 30")
    parser.add_argument("--url", metavar="U", help="use this broker: mqtt://[user:password@]host[:port]")
    parser.add_argument("--broker", choices=BROKERS, help="which one to start (default: the first installed)")
    parser.add_argument(
        "-V", dest="version", choices=("5.0", "3.1.1"), default="5.0", help="MQTT version (default: 5.0)"
    )
    fault = parser.add_mutually_exclusive_group()
    fault.add_argument("--no-outage", dest="outage", action="store_false", help="leave the network alone")
    fault.add_argument(
        "--restart-broker", action="store_true", help="stop and start the broker instead (mosquitto only)"
    )
    parser.add_argument("--json", action="store_true", help="make the last line the result as a JSON object")
    arguments = parser.parse_args(argv)
    if arguments.url and (arguments.restart_broker or arguments.broker):
        parser.error("--url names a broker that is not ours: leave out --broker and --restart-broker")
    if arguments.restart_broker:
        if arguments.broker == "iotcore":
            parser.error("--restart-broker needs a broker that keeps its data: mosquitto, not iotcore")
        arguments.broker = "mosquitto"
    return arguments


def _run(
    arguments: argparse.Namespace, plan: Plan, signals: StopSignals, url: str, broker: ChildBroker | None
) -> Report:
    """Set the stage, play the scene, take the stage down again."""
    host, port = _reachable_address(url)
    run = f"{os.getpid():x}-{time.time_ns() // 1_000_000:x}"
    topic, node_id, subscriber_id = f"device-sdk/demo/{run}", f"demo-node-{run}", f"demo-sub-{run}"
    # Longer than the run, so that no outage ends a session.
    expiry = round(plan.seconds + DRAIN_S + 60)
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(host, port))
        proxied = _through(url, proxy.port)
        # The node first: should the broker refuse, its error says why better than a child process could.
        node = stack.enter_context(Node(proxied, topic, node_id, arguments.version, expiry))
        subscriber = SubscriberProcess(proxied, topic, subscriber_id, arguments.version, expiry)
        stack.enter_context(subscriber)
        _introduce(plan, arguments.seconds, broker.name if broker else f"the broker at {host}:{port}")
        view = stack.enter_context(make_view())
        network = Network(plan, proxy, broker if arguments.restart_broker else None, view)
        scene = Scene(plan, node, subscriber, network, view, signals)
        scene.play()
        scene.drain()
        subscriber.stop()
        node.stop()
        if broker is None:
            _forget_sessions(url, (node_id, subscriber_id), arguments.version)
        return scene.report()


def _reachable_address(url: str) -> tuple[str, int]:
    """Return host and port after checking that the port is open: through the proxy it always seems open."""
    parsed = parse_url(url)
    if parsed.scheme != "mqtt":
        raise ArgumentError("url", f"the demo's proxy passes plain mqtt:// only, not {parsed.scheme}://")
    try:
        socket.create_connection((parsed.host, parsed.port), timeout=_PROBE_S).close()
    except OSError as error:
        raise ConnectFailedError(
            f"no broker answers at {parsed.address}: {error.strerror or error}"
        ) from error
    return parsed.host, parsed.port


def _through(url: str, port: int) -> str:
    """Return the URL with the proxy's address in the place of the broker's; credentials stay."""
    authority = url.partition("://")[2].partition("/")[0]
    user_info, at, _ = authority.rpartition("@")
    return f"mqtt://{user_info}{at}127.0.0.1:{port}"


def _forget_sessions(url: str, client_ids: tuple[str, ...], version: str) -> None:
    """Connect once with Clean Start for each, so that a foreign broker keeps no session of this run."""
    for client_id in client_ids:
        client = Client(url, client_id=client_id, version=version, clean_start=True, session_expiry=0)
        with suppress(DeviceSdkError, TimeoutError):
            client.connect(_FORGET_S)
        client.close(drain=0)


def _introduce(plan: Plan, asked: float, broker: str) -> None:
    if plan.seconds > asked:
        say(f"Running {plan.seconds:.1f} s instead of {asked:g} s: the outage does not fit otherwise.")
    say(
        f"Publishing this machine's sensors {1 / plan.interval:.3g} times per second to {broker}.", flush=True
    )


def _print_report(report: Report) -> None:
    say("")
    for name, value in asdict(report).items():
        say(f"{name:<17}{value:>8}")
    say("")
    if report.lost:
        say(f"{report.lost} of {report.published} samples never reached the subscriber.")
    elif report.published:
        say("Every sample reached the subscriber.")
    else:
        say("Interrupted before the first sample.")
