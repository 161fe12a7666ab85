"""Nothing breaks a rule but what is listed to be mended, and each rule notices a small bad example."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.architecture.rules import RULES
from tests.house.objects import classes
from tests.house.ratchet import Finding, Rule, lowered, problems, read_table, totals, written
from tests.house.rules import NAMED, PUBLIC_NAMES, methods, public_names
from tests.house.source import Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkout() -> Source:
    return Source.read(ROOT)


each_rule = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in RULES])


@each_rule
def test_the_rule_holds_except_where_it_is_to_be_mended(rule: Rule, checkout: Source) -> None:
    found = list(problems(rule, list(rule.find(checkout)), read_table().get(rule.name, {})))
    assert not found, "\n".join(found)


def test_the_table_names_only_rules_that_there_are() -> None:
    assert read_table().keys() <= {rule.name for rule in RULES}


def test_a_number_of_a_named_object_only_falls(checkout: Source) -> None:
    """What is below its number has won something: lower the number in tests/house/rules.py."""
    items = {item.key: item for item in classes(checkout)}
    table = read_table()
    for key, named in NAMED.items():
        item = items[key]
        assert (named.methods, named.attributes) != (25, 15), f"{key} needs no name any more"
        if key not in table.get("methods", {}) and named.methods > 25:
            assert methods(item) == named.methods, key
        if key not in table.get("attributes", {}) and named.attributes > 15:
            assert len(item.attributes) == named.attributes, key
    for key, number in PUBLIC_NAMES.items():
        assert len(public_names(items[key])) == number, key


# A small bad example for each rule: files, and what is found in them.


class Example(NamedTuple):
    """Sources by path, and the findings of the rule in them: number by place."""

    files: dict[str, str]
    found: dict[str, int]


def class_with(name: str, methods: int) -> str:
    """Return a class (with its bases, as it is written) that has so many public methods."""
    first = name[0].lower()
    return f"class {name}:\n" + "".join(f"    def {first}{n}(self): self.go()\n" for n in range(methods))


LADDER = "class A:\n    def a(self): self.go()\nclass B(A):\n    def b(self): self.go()\n"
CYCLE = "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from device_sdk.engine.{} import X\n"

EXAMPLES = {
    "methods": Example(
        {
            "device_sdk/net/base.py": class_with("Base", 13),
            "device_sdk/net/whole.py": "from device_sdk.net.base import Base\n"
            + class_with("Whole(Base)", 13),
        },
        {"device_sdk/net/whole.py:Whole": 26},
    ),
    "attributes": Example(
        {
            "device_sdk/net/base.py": (
                "class Base:\n"
                "    def __init__(self):\n"
                "        self._a = self.b = 0\n"
                "        self.c, (self.d, *self.e) = 1, (2, 3)\n"
                "        self.f: int\n"
                "        for self.g in (): pass\n"
                "        with open('x') as self.h: pass\n"
                "        setattr(self, 'i', 1)\n"
                "        def inside(): self.j += 1\n"
                "        self.elsewhere.k = self.not_written\n"
                "    @property\n"
                "    def k(self): return 1\n"
                "    @k.setter\n"
                "    def k(self, value): self.l = value\n"
                "    def go(self): self.k = 1\n"
            ),
            "device_sdk/net/whole.py": (
                "from device_sdk.net.base import Base\n"
                "class Whole(Base):\n"
                "    __slots__ = ('m', 'n', 'o')\n"
                "    constant = 1\n"
                "    def go(self): self.a = self.b = self._p = None\n"
            ),
        },
        {"device_sdk/net/whole.py:Whole": 16},
    ),
    "depth": Example(
        {"device_sdk/net/a.py": LADDER + "class C(B):\n    def c(self): self.go()\n"},
        {"device_sdk/net/a.py:C": 3},
    ),
    "public names": Example(
        {
            "device_sdk/client.py": class_with("Client", 14),
        },
        {"device_sdk/client.py:Client": 14},
    ),
    "function lines": Example(
        {"device_sdk/net/a.py": "def long():\n    '''Text.'''\n" + "    go()\n" * 46},
        {"device_sdk/net/a.py:long": 46},
    ),
    "file lines": Example({"device_sdk/net/a.py": "go()\n" * 501}, {"device_sdk/net/a.py": 501}),
    "modules in an import cycle": Example(
        {"device_sdk/engine/a.py": CYCLE.format("b"), "device_sdk/engine/b.py": CYCLE.format("a")},
        {"device_sdk/engine/a.py": 2, "device_sdk/engine/b.py": 2},
    ),
    "private names of others": Example(
        {
            "device_sdk/engine/a.py": (
                "from device_sdk.engine import b\n"
                "from device_sdk.engine.b import Other, _helper\n"
                "class A:\n"
                "    def go(self, other: Other, alike: A):\n"
                "        self._own = alike._own = other._hidden\n"
                "        return self.part._hidden, getattr(other, '_hidden'), b._helper, Other._hidden\n"
            ),
            "device_sdk/engine/b.py": (
                "def _helper(): pass\nclass Other:\n    def __init__(self): self._hidden = 1\n"
            ),
        },
        {"device_sdk/engine/a.py": 6},
    ),
    "private members of a base in another room": Example(
        {
            "device_sdk/engine/a.py": (
                "from abc import abstractmethod\n"
                "class Base:\n"
                "    def __init__(self): self._state = 1\n"
                "    def _hook(self): self.go()\n"
                "    @abstractmethod\n"
                "    def _asked_for(self): pass\n"
            ),
            "device_sdk/paho/_a.py": (
                "from device_sdk.engine.a import Base\n"
                "class Taken(Base):\n"
                "    def _hook(self): super()._hook()\n"
                "    def _asked_for(self): return self._state\n"
            ),
        },
        {"device_sdk/paho/_a.py": 3},
    ),
    "parts that hold the engine": Example(
        {
            "device_sdk/engine/part.py": (
                "class Part:\n"
                "    owner: Engine | None\n"
                "    def __init__(self, engine: Engine) -> Engine:\n"
                "        self._engine = engine\n"
            ),
            "device_sdk/engine/engine.py": "class Engine:\n    def go(self, engine: Engine): pass\n",
        },
        {"device_sdk/engine/part.py": 3},
    ),
    "attributes of others written": Example(
        {
            "device_sdk/engine/a.py": (
                "class Record:\n"
                "    __slots__ = ('count', 'text')\n"
                "class Part:\n"
                "    def __init__(self): self.state = self.text = 0\n"
                "    @property\n"
                "    def paused(self): return self.state\n"
                "    @paused.setter\n"
                "    def paused(self, paused: bool): self.state = paused\n"
                "class Whole:\n"
                "    def __init__(self, given: Part):\n"
                "        self.part = Part()\n"
                "        self.given = given\n"
                "        self.record = Record()\n"
                "    def go(self, other: Whole | None, maybe: Part | None, unknown):\n"
                "        self.part.state = self.given.state = maybe.state = unknown.state = 1\n"
                "        part = self.part\n"
                "        part.text, self.record.text = 1, 2\n"
                "        self.record.count = unknown.count = 3\n"
                "        other.part = None\n"
                "        self.part.paused = True\n"
            )
        },
        {"device_sdk/engine/a.py": 5},
    ),
    "the rig imports cli or node": Example(
        {"hil/device_sdk_hil/a.py": "from device_sdk.cli import broker\nX = 'device_sdk.node.config:Y'\n"},
        {"hil/device_sdk_hil/a.py": 2},
    ),
    "packets in a shell": Example(
        {"device_sdk/aio/a.py": "from device_sdk.mqtt.packets import Connack\nimport device_sdk.mqtt.wire\n"},
        {"device_sdk/aio/a.py": 2},
    ),
    "kinds of transport in the engine": Example(
        {
            "device_sdk/engine/a.py": (
                "from device_sdk.net.base import Transport\n"
                "from device_sdk.net.tcp import TcpTransport\n"
                "def go(url, transport):\n"
                "    if isinstance(url, Transport): raise ValueError(f'{url.scheme}')\n"
                "    if isinstance(transport, (str, TcpTransport)) or hasattr(transport, 'fd'): pass\n"
                "    return url.scheme == 'ws'\n"
            )
        },
        {"device_sdk/engine/a.py": 5},
    ),
    "contract methods for one stream": Example(
        {
            "device_sdk/net/base.py": (
                "class Transport(ABC):\n"
                "    @abstractmethod\n"
                "    def open(self): pass\n"
                "    def blink(self): pass\n"
            ),
            "device_sdk/net/streams.py": (
                "from device_sdk.net.base import Transport\n"
                "class Tcp(Transport):\n"
                "    def open(self): self.go()\n"
                "class Serial(Transport):\n"
                "    def open(self): self.go()\n"
                "    def blink(self): self.go()\n"
            ),
        },
        {"device_sdk/net/base.py": 1},
    ),
    "modules that their package does not list": Example(
        {
            "device_sdk/net/__init__.py": "'''Streams: a.py, b.py, c.py, d.py, e.py, not_f.py.'''",
            "device_sdk/store/__init__.py": "",
            **{f"device_sdk/net/{name}.py": "" for name in "abcdefg"},
            **{f"device_sdk/store/{name}.py": "" for name in "abcdef"},
        },
        {"device_sdk/net/__init__.py": 2},
    ),
    "kept exceptions that are raised themselves": Example(
        {
            "device_sdk/engine/a.py": (
                "_LATE = TimeoutError('late')\n"
                "class A:\n"
                "    def one(self): raise self.error\n"
                "    def two(self):\n"
                "        error = self.error or self.late\n"
                "        raise error\n"
                "    def three(self): raise _LATE\n"
                "    def four(self): raise fresh(self.error)\n"
                "    def five(self):\n"
                "        error, self.error = self.error, None\n"
                "        raise error\n"
                "    def six(self):\n"
                "        error = ValueError(self.text)\n"
                "        raise error\n"
            ),
        },
        {"device_sdk/engine/a.py": 3},
    ),
}


def test_each_rule_has_its_example() -> None:
    assert EXAMPLES.keys() == {rule.name for rule in RULES}


@each_rule
def test_the_rule_notices_a_bad_example(rule: Rule) -> None:
    example = EXAMPLES[rule.name]
    findings = list(rule.find(Source(example.files)))
    assert totals(findings) == example.found, findings


@each_rule
def test_the_rule_finds_nothing_in_a_good_example(rule: Rule) -> None:
    good = {
        "device_sdk/engine/part.py": (
            "class Part:\n"
            "    def __init__(self) -> None:\n"
            "        self._state = 0\n"
            "    def __eq__(self, other: object) -> bool:\n"
            "        return isinstance(other, Part) and other._state == self._state\n"
            "    def advance(self) -> None:\n"
            "        self._state += 1\n"
        ),
        "device_sdk/engine/whole.py": (
            "from device_sdk.engine.part import Part\n"
            "class Whole:\n"
            "    def __init__(self) -> None:\n"
            "        self.part = Part()\n"
            "    def go(self) -> None:\n"
            "        self.part.advance()\n"
        ),
    }
    assert not list(rule.find(Source(good)))


# What the rule of sizes leaves out


def objects(text: str) -> dict[str, tuple[int, bool]]:
    """Return depth, and whether it is counted, of the classes in a text."""
    return {
        item.name: (item.depth, item.is_counted) for item in classes(Source({"device_sdk/net/a.py": text}))
    }


def test_a_contract_and_a_row_of_a_table_are_no_rungs() -> None:
    text = (
        "class Contract(ABC):\n"
        "    def __init__(self): self.promised = 0\n"
        "    @abstractmethod\n"
        "    def open(self): '''Text.'''\n"
        "    def close(self): return None\n"
        "    def __exit__(self): self.close()\n"
        "class Base(Contract):\n"
        "    def open(self): self.go()\n"
        "class Row(Base):\n"
        "    kind = 1\n"
        "class WithCode(Contract):\n"
        "    @abstractmethod\n"
        "    def more(self): '''Text.'''\n"
        "    def open(self): self.go()\n"
    )
    assert objects(text) == {
        "Contract": (0, True),
        "Base": (1, True),
        "Row": (1, True),
        "WithCode": (1, True),
    }


def test_records_enumerations_and_exceptions_are_not_counted() -> None:
    text = (
        "class Slots:\n"
        "    __slots__ = ('a',)\n"
        "    def __init__(self): self.a = 1\n"
        "@dataclass(frozen=True)\n"
        "class Fields:\n"
        "    a: int\n"
        "class Kind(IntEnum):\n"
        "    def shown(self): return self.name.lower()\n"
        "class OurError(ValueError):\n"
        "    def shown(self): return self.args[0].lower()\n"
        "class WithBehaviour:\n"
        "    __slots__ = ('a',)\n"
        "    def go(self): self.a.go()\n"
        "class WithoutFields:\n"
        "    def __init__(self): self.a = 1\n"
    )
    counted = {name for name, (_, is_counted) in objects(text).items() if is_counted}
    assert counted == {"WithBehaviour", "WithoutFields"}


def test_a_base_is_found_through_an_alias_of_its_module_and_a_table_of_lazy_imports() -> None:
    source = Source(
        {
            "device_sdk/__init__.py": "_WHERE = {'Client': 'device_sdk.client:Client'}\n",
            "device_sdk/client.py": "class Client:\n    def go(self): self.a = 1\n",
            "device_sdk/paho/a.py": "from device_sdk import Client\nclass A(Client): pass\n",
            "device_sdk/paho/b.py": "from device_sdk.paho import a as other\nclass B(other.A): pass\n",
            "device_sdk/paho/c.py": "import device_sdk.paho.a as other\nclass C(other.A): pass\n",
        }
    )
    lines = {item.name: [each.name for each in item.line] for item in classes(source)}
    assert lines == {
        "Client": ["Client"],
        "A": ["A", "Client"],
        "B": ["B", "A", "Client"],
        "C": ["C", "A", "Client"],
    }


def test_code_lines_leave_out_what_only_explains() -> None:
    text = (
        '"""Module."""\n'
        "\n"
        "# A comment.\n"
        "X = '''two\n"
        "lines'''\n"
        "def f(\n"
        "    a,\n"
        "    b,\n"
        "):\n"
        '    """Text\n'
        '    of two lines."""\n'
        "    # A comment.\n"
        "    def inside():\n"
        '        """Text."""\n'
        "        return a\n"
        "\n"
        "    return inside\n"
        "def g(): return 1\n"
    )
    (module,) = Source({"device_sdk/a.py": text}).modules
    assert {f.name: module.function_code(f) for f in module.functions} == {"f": 3, "inside": 1, "g": 1}
    assert module.code == 2 + 2 + 1  # X; the two lines of code that are no signatures; g in one line


# The table


RULE = Rule("a rule", "mend it", lambda source: iter(()))


def finding(where: str, amount: int = 1) -> Finding:
    return Finding(where, f"line 7: {where}", amount)


def test_what_is_worse_than_the_table_says_where() -> None:
    (text,) = problems(RULE, [finding("a.py"), finding("a.py")], {"a.py": 1})
    assert text == "a.py: a rule: 2, allowed 1; mend it\n    line 7: a.py\n    line 7: a.py"


def test_what_is_better_than_the_table_or_gone_has_to_be_taken_out_of_it() -> None:
    better, gone = problems(RULE, [finding("a.py")], {"a.py": 2, "b.py": 1})
    assert better.startswith("a.py: a rule: 1 is better than the 2") and "--lower" in better
    assert gone.startswith("b.py: a rule: 0 is better")


def test_what_is_as_the_table_says_is_no_problem() -> None:
    assert not list(problems(RULE, [finding("a.py", 3)], {"a.py": 3}))


def test_lowering_follows_improvements_and_never_allows_more() -> None:
    rule = RULE._replace(find=lambda source: iter([finding("less", 2), finding("more", 9), finding("new")]))
    table = lowered({"a rule": {"less": 3, "more": 5, "gone": 1}}, [rule], Source({}))
    assert table == {"a rule": {"less": 2, "more": 5}}


def test_the_table_is_read_as_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = {"a rule": {"device_sdk/a.py:A": 30}}
    path = tmp_path / "to_mend.toml"
    path.write_text(written(table | {"empty": {}}), encoding="utf-8")
    monkeypatch.setattr("tests.house.ratchet.TO_MEND", path)
    assert read_table() == table
