"""The configuration: what is accepted, and every way to get it wrong."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from device_sdk.config.faults import ConfigFaults
from device_sdk.errors import ConfigError, MissingDependency
from device_sdk.net.tls import TlsTransport
from device_sdk.node.config import load_config, parse_config
from device_sdk.node.example import EXAMPLE
from device_sdk.node.link import open_broker
from device_sdk.testing import Certificates

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
[node]
id = "n1"
[broker]
url = "mqtt://127.0.0.1"
[[sensor]]
name = "machine"
driver = "host"
interval = "10s"
"""


def faults(text: str, folder: Path = Path()) -> dict[str, str]:
    """Path -> problem of everything that is wrong."""
    with pytest.raises(ConfigFaults) as caught:
        parse_config(text, "node.toml", folder)
    assert len({fault.path for fault in caught.value.faults}) == len(caught.value.faults)
    return {fault.path: fault.problem for fault in caught.value.faults}


def with_line(line: str, after: str) -> str:
    """The good configuration with one line more, or with another one of the same key."""
    key = line.partition("=")[0].strip()
    lines = [old for old in GOOD.splitlines() if old.partition("=")[0].strip() != key or "=" not in line]
    lines.insert(lines.index(after) + 1, line)
    return "\n".join(lines)


# Accepted


def test_the_example_has_no_errors_and_says_what_it_says() -> None:
    config = parse_config(EXAMPLE)
    assert config.node.id == "greenhouse-1"
    assert config.broker.url == "mqtt://127.0.0.1"
    assert config.queue.overflow == "drop_oldest"
    climate, machine = config.sensor
    assert (climate.interval, climate.driver_options) == (10, {"address": 0x76, "bus": "i2c-1"})
    assert (machine.interval, machine.driver_options) == (60, {})


def test_the_example_is_the_one_in_the_docs() -> None:
    assert EXAMPLE in (ROOT / "docs" / "node.md").read_text()


def test_what_is_left_out_has_a_default_and_topics_are_filled_in() -> None:
    config = parse_config(GOOD)
    (sensor,) = config.sensor
    assert config.node.availability == "n1/status"
    assert (sensor.topic, sensor.availability) == ("n1/machine", "n1/machine/status")
    assert (sensor.qos, sensor.retain, sensor.options, sensor.read_timeout) == (1, False, {}, 30)
    assert (config.broker.version, config.broker.keep_alive) == ("5.0", 60)
    assert (config.queue.max_messages, config.queue.overflow) == (None, "reject")


def test_topics_are_templates() -> None:
    config = parse_config(with_line('topic = "site/{node}/env/{sensor}"', 'driver = "host"'))
    assert config.sensor[0].topic == "site/n1/env/machine"


def test_the_same_node_runs_over_a_serial_line_with_one_line_changed() -> None:
    pytest.importorskip("serial", reason="needs pyserial")
    url = "serial:///dev/ttyUSB0?baud=115200"
    assert parse_config(with_line(f'url = "{url}"', "[broker]")).broker.url == url


@pytest.mark.parametrize(
    ("key", "value", "seconds"),
    [
        ("interval", "10", 10.0),
        ("interval", '"250ms"', 0.25),
        ("read_timeout", '"50s"', 50),
        ("keep_alive", '"1m"', 60),
    ],
)
def test_seconds_are_written_as_a_number_or_with_a_unit(key: str, value: str, seconds: float) -> None:
    after = "[broker]" if key == "keep_alive" else "[[sensor]]"
    config = parse_config(with_line(f"{key} = {value}", after))
    assert getattr(config.broker if key == "keep_alive" else config.sensor[0], key) == seconds


# Workers


@pytest.mark.parametrize(
    ("sensor", "worker"),
    [
        ('driver = "bme280"', "i2c-1"),
        ('driver = "bme280"\nbus = "/dev/i2c-7"', "i2c-7"),
        ('driver = "bme280"\nbus = "fake:tests.node.fakes:bus"', "fake:tests.node.fakes:bus"),
        ('driver = "host"', "host"),
        ('driver = "host"\nbus = "slow things"', "slow things"),
        ('driver = "function"\nbus = "i2c-1"\noptions = { function = "a:b" }', "i2c-1"),
    ],
)
def test_a_sensor_runs_on_the_thread_of_its_bus_or_else_of_its_driver(sensor: str, worker: str) -> None:
    text = GOOD.replace('driver = "host"', sensor)
    assert parse_config(text).sensor[0].worker == worker


_WIRES, _TIME_OUT = "check supply and wires of the device", "give what it waits for a time-out"


@pytest.mark.parametrize(
    ("sensor", "first", "has_thread"),
    [
        ('driver = "bme280"', _WIRES, True),
        ('driver = "sysfs"\noptions = { device = "hwmon:cpu" }', _WIRES, False),
        ('driver = "function"\noptions = { function = "time:time" }', _TIME_OUT, False),
        ('driver = "host"\nbus = "slow disks"', _TIME_OUT, True),
    ],
)
def test_the_log_can_say_what_to_do_with_a_sensor_that_hangs(
    sensor: str, first: str, has_thread: bool
) -> None:
    thread = "" if has_thread else ', give it a thread of its own with bus = "any name"'
    advice = parse_config(GOOD.replace('driver = "host"', sensor)).sensor[0].advice
    assert advice == f"{first}{thread}, or give it a longer read_timeout"


@pytest.mark.parametrize(
    ("sensor", "place"),
    [
        ('driver = "bme280"\noptions = { address = 0x77 }', "bme280 on i2c-1 at 0x77"),
        ('driver = "sht4x"\nbus = "/dev/i2c-7"', "sht4x on /dev/i2c-7 at 0x44"),
        ('driver = "host"', "host"),
    ],
)
def test_the_log_can_say_where_a_sensor_is(sensor: str, place: str) -> None:
    assert parse_config(GOOD.replace('driver = "host"', sensor)).sensor[0].place == place


# Refused


@pytest.mark.parametrize(
    ("line", "after", "path", "words"),
    [
        ('id = "green house"', "[node]", "node.id", ["letters", '"green house"']),
        ("id = 7", "[node]", "node.id", ["a name", "found 7"]),
        ("drian = 5", "[node]", "node.drian", ["no such key", "did you mean 'drain'"]),
        ("colour = 5", "[node]", "node.colour", ["no such key", "there is: id, availability, drain"]),
        ('drain = "1h"', "[node]", "node.drain", ['at most "10m"', '"1h"']),
        ('availability = "{sensor}/x"', "[node]", "node.availability", ["{sensor}", "{node}"]),
        ('url = "mqtt//x"', "[broker]", "broker.url", ["no scheme", "mqtt://broker.example"]),
        ('url = "gopher://x"', "[broker]", "broker.url", ["gopher", "mqtt"]),
        ("url = 1883", "[broker]", "broker.url", ["mqtt://127.0.0.1", "a whole number"]),
        ('version = "5.1"', "[broker]", "broker.version", ['"3.1.1"', '"5.1"', "did you mean '5.0'"]),
        ("version = 5.0", "[broker]", "broker.version", ['"5.0"', "found 5.0"]),
        ("keep_alive = 70_000", "[broker]", "broker.keep_alive", ["65535", "70000"]),
        ('keep_alive = "1.5s"', "[broker]", "broker.keep_alive", ["whole seconds", "1.5s"]),
        ('client_id = ""', "[broker]", "broker.client_id", ["not empty"]),
        ("reconnect_longest = 0", "[broker]", "broker.reconnect_longest", ["1s", "found 0"]),
        ('password_file = "none.txt"', "[broker]", "broker.password_file", ["none.txt", "No such file"]),
        ('name = "a/b"', "[[sensor]]", "sensor[0].name", ["letters", '"a/b"']),
        ('driver = "hots"', "[[sensor]]", "sensor[0].driver", ["bme280", '"hots"', "did you mean 'host'"]),
        ("driver = true", "[[sensor]]", "sensor[0].driver", ["bme280", "found true"]),
        ('interval = "soon"', "[[sensor]]", "sensor[0].interval", ['"10s"', '"soon"']),
        ("interval = 0", "[[sensor]]", "sensor[0].interval", ["10ms", "found 0"]),
        ("interval = nan", "[[sensor]]", "sensor[0].interval", ["10ms", "NaN"]),
        ("interval = 1979-05-27", "[[sensor]]", "sensor[0].interval", ["10ms", "1979-05-27"]),
        ('read_timeout = "1m"', "[[sensor]]", "sensor[0].read_timeout", ['"100ms" to "50s"', '"1m"']),
        ("read_timeout = 0", "[[sensor]]", "sensor[0].read_timeout", ["100ms", "found 0"]),
        ("qos = 3", "[[sensor]]", "sensor[0].qos", ["0, 1 or 2", "found 3"]),
        ("qos = 1.5", "[[sensor]]", "sensor[0].qos", ["0, 1 or 2", "found 1.5"]),
        ('retain = "yes"', "[[sensor]]", "sensor[0].retain", ["true or false", '"yes"']),
        ('topic = "a/#"', "[[sensor]]", "sensor[0].topic", ["topic name", '"a/#"', "wildcard"]),
        ('topic = ""', "[[sensor]]", "sensor[0].topic", ["topic name", "one character"]),
        ('topic = "{nod}/x"', "[[sensor]]", "sensor[0].topic", ["{nod}", "did you mean '{node}'"]),
        ('topic = "n1/status"', "[[sensor]]", "sensor[0].topic", ["node.availability", '"n1/status"']),
        ("bus = 1", "[[sensor]]", "sensor[0].bus", ['"i2c-1"', "found 1"]),
        ("options = 5", "[[sensor]]", "sensor[0].options", ["a table", "found 5"]),
        ("options = { lopback = true }", "[[sensor]]", "sensor[0].options.lopback", ["'loopback'"]),
        ("options = { x = 1 }", "[[sensor]]", "sensor[0].options.x", ["no such option", "root, loopback"]),
        ('options = { loopback = "y" }', "[[sensor]]", "sensor[0].options.loopback", ["true or", '"y"']),
        ("options = { root = [1] }", "[[sensor]]", "sensor[0].options.root", ["a text or a path", "[1]"]),
        ("overflow = 1", "id = \"n1\"", "node.overflow", ["no such key"]),
    ],
)  # fmt: skip
def test_one_wrong_line_is_one_fault_with_its_place(
    line: str, after: str, path: str, words: list[str]
) -> None:
    text = with_line(line, after)
    with pytest.raises(ConfigFaults) as caught:
        parse_config(text, "node.toml")
    (fault,) = caught.value.faults
    assert fault.path == path
    assert fault.line == text.splitlines().index(line) + 1
    assert all(word in fault.problem for word in words), fault.problem


@pytest.mark.parametrize(
    ("driver", "path", "words"),
    [
        ('driver = "bme280"\nbus = "i2c1"', "bus", ["'i2c-1'", "'i2c1'"]),
        ('driver = "bme280"\nbus = "1"', "bus", ["found '1'; did you mean 'i2c-1'?"]),
        ('driver = "bme280"\nbus = 7', "bus", ['expected a text, found 7; did you mean "i2c-7"?']),
        ('driver = "bme280"\naddress = 0x76', "address", ["an option of bme280: write it as options.a"]),
        ('driver = "host"\nbus = 7', "bus", ["found 7"]),
        ('driver = "host"\naddress = 0x76', "address", ["no such key"]),
        ('driver = "host"\noptions = { disks = "/" }', "options.disks", ['found "/"; write ["/"]']),
        ('driver = "host"\noptions = { disks = 1 }', "options.disks", ["expected an array, found 1"]),
        ('driver = "bme280"\noptions = { address = "76" }', "options.address", ["a whole number", '"76"']),
        ('driver = "bme280"\noptions = { address = true }', "options.address", ["a whole number", "true"]),
        ('driver = "bme280"\noptions = { address = 0x10 }', "options.address", ["0x76 or 0x77", "0x10"]),
        ('driver = "bme280"\noptions = { bus = "i2c-1" }', "options.bus", ["beside the driver"]),
        ('driver = "sysfs"', "options.device", ["needs this option"]),
        ('driver = "sysfs"\noptions = { device = "cpu" }', "options.device", ["hwmon:NAME", "'cpu'"]),
        ('driver = "circuitpython"\noptions = { driver = "a:b", channels = ["x"] }', "options.channels",
         ["no standard unit"]),
    ],
)  # fmt: skip
def test_a_wrong_option_of_a_driver_is_found_without_opening_it(
    driver: str, path: str, words: list[str]
) -> None:
    ((found, problem),) = faults(GOOD.replace('driver = "host"', driver)).items()
    assert found == f"sensor[0].{path}"
    assert all(word in problem for word in words), problem


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
[node]
id = "n 1"
[broker]
url = "mqtt//x"
keep_alive = -1
[queue]
overflow = "drop_oldst"
[[sensor]]
name = "a"
driver = "host"
interval = "soon"
topic = "#"
options = { loopback = 1 }
[[sensor]]
name = "a"
driver = "hots"
[extra]
"""
    with pytest.raises(ConfigFaults) as caught:
        parse_config(text, "node.toml")
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [
        (2, "node.id"),
        (4, "broker.url"),
        (5, "broker.keep_alive"),
        (7, "queue.overflow"),
        (11, "sensor[0].interval"),
        (12, "sensor[0].topic"),
        (13, "sensor[0].options.loopback"),
        (14, "sensor[1].interval"),
        (15, "sensor[1].name"),
        (16, "sensor[1].driver"),
        (17, "extra"),
    ]
    first, *others = str(caught.value).splitlines()
    assert first == "node.toml has 11 errors:"
    assert others[-3] == (
        '  line 15: sensor[1].name: expected another one than sensor[0].name has, found "a" again'
    )


def test_an_empty_file_lacks_three_tables() -> None:
    assert faults("") == {
        "node": "expected [node], but it is missing",
        "broker": "expected [broker], but it is missing",
        "sensor": "expected at least one [[sensor]], but it is missing",
    }


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("[[sensor]]", "[sensor]", "sensor", "found one table [sensor]; write [[sensor]]"),
        ("[node]", "[[node]]", "node", "expected a table [node]"),
        ("[[sensor]]", "sensor = []\n[x]", "sensor", "expected at least one [[sensor]]"),
    ],
)
def test_one_table_and_many_tables_are_told_apart(old: str, new: str, path: str, words: str) -> None:
    assert words in faults(GOOD.replace(old, new))[path]


def test_a_text_that_is_not_toml_is_one_fault_with_its_line() -> None:
    with pytest.raises(ConfigFaults, match=r"line 2: not TOML"):
        parse_config("[node]\nid = \n")


def test_two_sensors_may_not_share_a_topic() -> None:
    second = '[[sensor]]\nname = "b"\ndriver = "host"\ninterval = 1\ntopic = "n1/machine"\n'
    assert "sensor[0].topic" in faults(GOOD + second)["sensor[1].topic"]


# Secrets


def test_a_secret_is_in_no_error_and_in_no_repr(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    config = parse_config(with_line('password_file = "secret"', "[broker]"), folder=tmp_path)
    assert config.broker.password == "geheim"
    assert "geheim" not in repr(config)
    in_url = parse_config(with_line('url = "mqtt://me:geheim@127.0.0.1"', "[broker]"))
    assert "geheim" not in repr(in_url)


@pytest.mark.parametrize(
    "line",
    [
        'password = ["geheim"]',
        'pasword = "geheim"',
        'url = "mqtt://me:geheim@127.0.0.1:port"',
        'url = ["mqtt://me:geheim@127.0.0.1"]',
        'password = "geheim',
    ],
)
def test_a_wrong_line_with_a_secret_does_not_show_it(line: str) -> None:
    assert "geheim" not in str(faults(with_line(line, "[broker]")))


def test_password_and_password_file_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim")
    text = with_line('password = "x"\npassword_file = "secret"', "[broker]")
    assert faults(text, tmp_path) == {
        "broker.password_file": "expected one of password and password_file, found both"
    }


# Files


def test_a_file_is_read_and_its_folder_is_where_paths_begin(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim")
    path = tmp_path / "node.toml"
    path.write_text(with_line('password_file = "secret"', "[broker]"))
    assert load_config(path).broker.password == "geheim"
    path.write_text("[node]")
    with pytest.raises(ConfigFaults, match=r"node\.toml has 3 errors"):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b"#" * (1 << 20) + b"\n", "longer than")],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load_config(path)


def test_a_missing_extra_for_the_broker_is_told_after_the_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_transport(url: object, **_: object) -> object:
        raise MissingDependency("a serial line", "serial")

    monkeypatch.setattr("device_sdk.node.link.open_transport", open_transport)
    with pytest.raises(MissingDependency, match="pyserial"):
        parse_config(GOOD)
    wrong = GOOD.replace('driver = "host"', 'driver = "hots"')
    assert faults(wrong).keys() == {"sensor[0].driver"}


# TLS, proxy and the queue's file


def test_paths_begin_at_the_folder_of_the_configuration(tmp_path: Path) -> None:
    ca = Certificates(tmp_path).ca
    tls = f'[tls]\nca_file = "{ca.name}"\n[queue]\nfile = "queue.db"\nmax_age = "7d"'
    config = parse_config(GOOD.replace("mqtt://", "mqtts://") + tls, folder=tmp_path)
    assert (config.tls.ca_file, config.queue.file) == (str(ca), str(tmp_path / "queue.db"))
    assert config.queue.max_age == 7 * 86_400
    assert not (tmp_path / "queue.db").exists()  # nothing is opened for a check


def test_each_tls_key_reaches_its_option(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    keys = f'ca_file = "{certificates.ca.name}"\ncrl_file = "{certificates.revocations("crl").name}"'
    text = GOOD.replace("mqtt://", "mqtts://") + f"[tls]\n{keys}\ncheck_hostname = false"
    transport = open_broker(parse_config(text, folder=tmp_path))
    assert isinstance(transport, TlsTransport)
    context = transport._terms.options.current_context()
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


NO_PSK = not getattr(ssl, "HAS_PSK", False)


@pytest.mark.parametrize(
    ("lines", "path", "words"),
    [
        ('[tls]\nca_file = "none.pem"', "tls.ca_file", ["none.pem", "No such file"]),
        ('[tls]\nkey = "key.pem"', "tls.key", ["certificate"]),
        ('[tls]\ncrl_file = "none.pem"', "tls.crl_file", ["none.pem", "No such file"]),
        ('[tls]\npsk_file = "none.psk"', "tls.psk_file", ["Python 3.13" if NO_PSK else "No such file"]),
        ('[tls]\npsk_file = "a"\ncheck_hostname = false', "tls.psk_file", ["leave out check_hostname"]),
        ("[tls]\ncheck_hostname = 0", "tls.check_hostname", ["true or false"]),
        ('[tls]\nca_fiel = "x"', "tls.ca_fiel", ["did you mean 'ca_file'"]),
        ('[queue]\nkeep_last = ["a/#/b"]', "queue.keep_last", ["#"]),
        ('[queue]\nkeep_last = "a"', "queue.keep_last", ["a list of topic filters"]),
        ('[queue]\nmax_age = "soon"', "queue.max_age", ['"7d"', '"soon"']),
        ("[queue]\nreplay_rate = 0", "queue.replay_rate", ["above 0", "found 0"]),
        ('[queue]\ndurability = "yes"', "queue.durability", ['"batch"', '"yes"']),
    ],
)
def test_a_fault_in_tls_or_queue_names_its_key(
    lines: str, path: str, words: list[str], tmp_path: Path
) -> None:
    text = GOOD.replace("mqtt://", "mqtts://") + lines
    problem = faults(text, tmp_path)[path]
    for word in words:
        assert word in problem


def test_a_proxy_that_is_none_is_a_fault_of_its_key() -> None:
    assert "broker.proxy" in faults(with_line('proxy = "gopher://x"', "[broker]"))


def test_all_mistakes_in_the_options_of_a_sensor_are_told_at_once() -> None:
    sensor = """
[[sensor]]
name = "a"
interval = 10
driver = "circuitpython"
[sensor.options]
driver = "adafruit_mcp9808"
adress = 0x18
watch = "gain"
start = "go"
[sensor.options.channels]
temperature = { scale = "2" }
pressure = { unit = "hectopascal" }
lux = {}
[[sensor]]
name = "b"
interval = 10
driver = "function"
[sensor.options]
function = "funcs.py"
units = { a = 3, b = "V", c = "C" }
"""
    with pytest.raises(ConfigError) as caught:
        parse_config('[node]\nid = "n"\n[broker]\nurl = "mqtt://127.0.0.1"\n' + sensor)
    text = str(caught.value)
    for words in (
        "sensor[0].options.adress", "sensor[0].options.driver", "sensor[0].options.watch",
        "sensor[0].options.start", "temperature.scale", "pressure.unit", "sensor[1].options.function",
        "funcs:name", "a: expected the name of a unit, found 3", "the SenML name of 'C' is 'Cel'",
    ):  # fmt: skip
        assert words in text, words
