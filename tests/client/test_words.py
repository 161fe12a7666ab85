"""Arguments that do not fit: words of other clients, our own misspelt or misplaced, addresses in parts."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

import pytest

from device_sdk import AsyncClient, Client, ReconnectPolicy, StorePolicy, Subscription, TLSOptions, Will
from device_sdk._arguments import explained
from device_sdk._words import _ELSEWHERE, _OURS, SCHEMES, VERSIONS
from device_sdk.config.faults import unknown
from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.net.base import TRANSPORTS, open_transport, parse_url, transport_options

URL = "mqtt://127.0.0.1:1"
EXPLAINED = [Client, AsyncClient, TLSOptions, StorePolicy, ReconnectPolicy, Will, Subscription]
NEEDED: dict[type, tuple[Any, ...]] = {
    Client: (URL,), AsyncClient: (URL,), Will: ("a", b""), Subscription: ("a",),
}  # fmt: skip
URLS = ("mqtt://h", "wss://h", "mqtts+srv://h", "unix:/s", "serial:/dev/ttyS0")


def named(kind: type) -> list[str]:
    """The arguments that can be given by name."""
    return [name for name in inspect.signature(kind).parameters if name != "url"]


def problem(kind: type, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ArgumentTypeError) as caught:
        kind(*(arguments or NEEDED.get(kind, ())), **options)
    assert isinstance(caught.value, TypeError)
    assert caught.value.argument in (*options, "url")
    return str(caught.value)


@pytest.mark.parametrize("word", sorted(_OURS))
def test_a_word_of_another_client_leads_to_ours(word: str) -> None:
    takers = [kind for kind in EXPLAINED if _OURS[word] in named(kind) or _OURS[word] in ("url", "payload")]
    assert takers, "nothing takes it"
    found = [problem(kind, **{word: 1}) for kind in takers]
    assert any(f"did you mean {_OURS[word]!r}?" in text for text in found)


@pytest.mark.parametrize("word", sorted(_ELSEWHERE))
def test_a_word_that_belongs_elsewhere_is_sent_there(word: str) -> None:
    text = problem(Client, **{word: 1})
    assert text.startswith(f"{word}: Client() has no such argument; ")
    assert "there is" not in text
    assert "{" not in text.replace("{'", "")


def test_our_own_options_that_are_not_of_the_client_are_all_in_the_table() -> None:
    others = {name for kind in (TLSOptions, StorePolicy, ReconnectPolicy) for name in named(kind)}
    streams = {name for url in URLS for name in transport_options(parse_url(url)) or ()}
    streams -= {"proxy", "tls", "largest_packet", "resource"}
    assert others | streams <= set(_ELSEWHERE)


@pytest.mark.parametrize("kind", EXPLAINED)
def test_a_misspelt_word_of_ours_is_recognised(kind: type) -> None:
    for name in named(kind):
        misspelt = name[:2] + name[3:] if len(name) > 4 else f"{name}s"
        if misspelt not in named(kind):
            assert "did you mean" in problem(kind, **{misspelt: 1}), misspelt
            assert f"did you mean {name!r}?" in problem(kind, **{name.upper(): 1})


def test_a_word_like_no_other_is_answered_with_all_there_are() -> None:
    text = problem(StorePolicy, qwxyz=1)
    assert text.startswith("qwxyz: StorePolicy() has no such argument; there is: max_messages, max_bytes,")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (("h", 1883, 60), "Client('mqtt://h:1883', keep_alive=60)"),
        (("h", 1883), "Client('mqtt://h:1883')"),
        (("mqtt://h", 1883, 60), "Client('mqtt://h', keep_alive=60)"),
        ((object(), "id"), "Client('mqtt://HOST:PORT')"),
        (("a\x1b\n", 5), "Client('mqtt://HOST:5')"),
    ],
)
def test_an_address_in_parts_is_written_as_a_url(given: tuple[Any, ...], written: str) -> None:
    text = problem(Client, *given)
    assert text.startswith(f"url: write {written}, other arguments by their names;")
    assert "import device_sdk.paho.client as mqtt" in text


def test_a_client_without_a_url_is_told_where_the_address_goes() -> None:
    with pytest.raises(ArgumentTypeError, match=r"url: is missing: Client\('mqtt://HOST:PORT'\)"):
        Client()  # type: ignore[call-arg]
    with pytest.raises(ArgumentTypeError, match=r"url: is missing: AsyncClient\("):
        AsyncClient(client_id="a")  # type: ignore[call-arg]


def test_connect_takes_no_address() -> None:
    client: Any = Client(URL)
    with pytest.raises(ArgumentTypeError, match=r"Client\('mqtt://h:1883', keep_alive=60\)"):
        client.connect("h", 1883, 60)
    with pytest.raises(ArgumentTypeError, match=r"host: connect\(\) has no such argument"):
        client.connect(host="h")
    client.close()


def test_help_and_signature_are_those_of_the_function_itself() -> None:
    assert list(inspect.signature(Client).parameters)[:3] == ["url", "tls", "proxy"]
    assert inspect.signature(Client).parameters["keep_alive"].default == 60
    assert "__signature__" not in vars(Client)
    shown = pydoc.plain(pydoc.render_doc(Client))
    assert "Client(url: 'str | Transport | Sequence[str | Transport]', *, tls:" in shown
    assert "keep_alive: seconds of silence" in shown
    assert Client.__init__.__qualname__ == "BaseClient.__init__"
    assert Client.connect.__name__ == "connect"


def test_a_type_error_from_inside_stays_what_it_is() -> None:
    class Own:
        @explained
        def __init__(self, url: str) -> None:
            len(5)  # type: ignore[arg-type]

        @explained
        def two(self, one: int, other: int) -> None: ...

    with pytest.raises(TypeError, match=r"object of type 'int' has no len"):
        Own("a")
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        Own.__new__(Own).two(1)  # type: ignore[call-arg]
    assert not isinstance(caught.value, ArgumentError)


# Addresses


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_scheme_of_another_client_leads_to_ours(scheme: str) -> None:
    assert SCHEMES[scheme] in TRANSPORTS
    with pytest.raises(ArgumentError) as caught:
        Client(f"{scheme}://broker.example")
    assert f"did you mean '{SCHEMES[scheme]}://'?" in str(caught.value)


@pytest.mark.parametrize(("wrong", "right"), [("mqqt", "mqtt"), ("mqts", "mqtts"), ("serail", "serial")])
def test_a_misspelt_scheme_is_recognised(wrong: str, right: str) -> None:
    with pytest.raises(ArgumentError, match=f"did you mean '{right}://'\\?; there are: memory, mqtt"):
        open_transport(f"{wrong}://broker.example")


def test_a_scheme_like_http_is_taken_for_it() -> None:
    with pytest.raises(ArgumentError, match=r"no transport for 'htp' is installed; did you mean 'ws://'\?"):
        Client("htp://broker.example")


def test_the_scheme_tcp_is_a_plain_connection() -> None:
    assert open_transport("tcp://h").description == "tcp h:1883"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("broker.example", "mqtt://broker.example"),
        ("192.0.2.7", "mqtt://192.0.2.7"),
        ("localhost:1883", "mqtt://localhost:1883"),
        ("broker.example:8883", "mqtts://broker.example:8883"),
        ("::1", "mqtt://[::1]"),
        ("mqtt:broker.example", "mqtt://broker.example"),
        ("/dev/ttyUSB0", "serial:///dev/ttyUSB0"),
        ("/run/mqtt.sock", "unix:/run/mqtt.sock"),
        ("", "mqtt://broker.example:1883"),
        ("user:secret@h", "mqtt://broker.example:1883"),
    ],
)
def test_an_address_without_a_scheme_is_shown_with_one(text: str, written: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(text)
    assert str(caught.value).endswith(f"has no scheme; write {written!r}")
    assert "secret" not in str(caught.value)


# Values


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_a_version_as_others_write_it_leads_to_ours(version: Any) -> None:
    with pytest.raises(ArgumentError, match=f"did you mean '{VERSIONS[version]}'\\?"):
        Client(URL, version=version)


def test_a_version_of_the_paho_constants_leads_to_ours() -> None:
    with pytest.raises(ArgumentError, match=r"did you mean '5\.0'\?"):
        Client(URL, version="MQTT v5")
    with pytest.raises(ArgumentError, match=r'version: must be "5.0", "3.1.1", "3.1" or None, not \'9\'$'):
        Client(URL, version="9")


def test_a_misspelt_property_is_recognised() -> None:
    client = Client(URL)
    with pytest.raises(ArgumentError, match=r"content_typ: is not .*; did you mean 'content_type'\?"):
        client.publish("a", b"", properties={"content_typ": "text/plain"})
    client.close()


def test_a_misspelt_option_of_the_network_is_recognised() -> None:
    with pytest.raises(ArgumentError, match=r"bnid: is no option of tcp .*; did you mean 'bind'\?"):
        Client([URL, "unix:/s"], network={"bnid": "192.0.2.1"})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("keepalive", "; did you mean 'keep_alive'?"),
        ("clientid", "; did you mean 'client_id'?"),
        ("protocol", "; did you mean 'version'?"),
        ("host", '; the address is one URL: url = "mqtt://HOST:PORT"'),
        ("port", '; the address is one URL: url = "mqtt://HOST:PORT"'),
        ("qwxyz", "; there is: url, user_name,"),
    ],
)
def test_a_key_of_a_configuration_that_others_have_leads_to_ours(key: str, hint: str) -> None:
    known = ("url", "user_name", "client_id", "version", "keep_alive")
    assert unknown(key, known).startswith(f"there is no such key{hint}")
