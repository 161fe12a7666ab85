"""Faults in text: UTF-8, topic names, topic filters, and what an application hands over."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v311

__all__ = ["IN_STRINGS"]

_TOPICS, _WIRE = "mqtt/topics.py", "mqtt/wire.py"

IN_STRINGS = (
    Fault(
        "a surrogate is written in a string",
        v5("MQTT-1.5.4-1", "MQTT-1.5.7-1", "MQTT-3.1.3-4", "MQTT-3.1.3-12", "MQTT-3.3.2-13", "MQTT-3.3.2-19")
        + v311("MQTT-1.5.3-1", "MQTT-3.1.3-4", "MQTT-3.1.3-11"),
        _WIRE,
        "raw = value.encode()",
        'raw = value.encode("utf-8", "surrogatepass")',
    ),
    Fault(
        "a surrogate is written in a topic",
        v5("MQTT-3.1.3-11", "MQTT-3.8.3-1", "MQTT-3.10.3-1")
        + v311("MQTT-3.1.3-10", "MQTT-3.8.3-1", "MQTT-3.10.3-1"),
        _TOPICS,
        "encoded = text.encode()",
        'encoded = text.encode("utf-8", "surrogatepass")',
    ),
    Fault(
        "a surrogate is read",
        v5("MQTT-1.5.4-1", "MQTT-3.3.2-13", "MQTT-3.3.2-19") + v311("MQTT-1.5.3-1"),
        _WIRE,
        "text = raw.decode()",
        'text = raw.decode("utf-8", "surrogatepass")',
    ),
    Fault(
        "what is not UTF-8 is read with replacements",
        v5("MQTT-3.3.2-1") + v311("MQTT-3.3.2-1"),
        _WIRE,
        "text = raw.decode()",
        'text = raw.decode(errors="replace")',
    ),
    Fault(
        "a NUL is read",
        v5("MQTT-1.5.4-2"),
        _WIRE,
        'if "\\0" in text:',
        'if "\\0\\0" in text:',
    ),
    Fault(
        "a NUL is written",
        v5("MQTT-1.5.4-2") + v311("MQTT-1.5.3-2"),
        _WIRE,
        'if "\\0" in value:',
        'if "\\0\\0" in value:',
    ),
    Fault(
        "the value of a string pair is not checked when it is read",
        v5("MQTT-1.5.7-1"),
        _WIRE,
        "    value, position = read_string(data, position, end)\n    return [name, value]",
        "    raw, position = read_binary(data, position, end)\n    return [name, repr(raw)]",
    ),
    Fault(
        "a byte order mark is taken off what is read",
        v5("MQTT-1.5.4-3") + v311("MQTT-1.5.3-3"),
        _WIRE,
        "text = raw.decode()",
        'text = raw.decode("utf-8-sig")',
    ),
    Fault(
        "a byte order mark is taken off a topic",
        v5("MQTT-1.5.4-3") + v311("MQTT-1.5.3-3"),
        _TOPICS,
        "encoded = text.encode()",
        'encoded = text.lstrip("\\ufeff").encode()',
    ),
    # Topic names
    Fault(
        "a topic name may have a wildcard",
        v5("MQTT-3.3.2-2", "MQTT-4.7.0-1") + v311("MQTT-3.3.2-2", "MQTT-4.7.1-1"),
        _TOPICS,
        'if "#" in topic or "+" in topic:',
        "if topic in '#+':",
    ),
    Fault(
        "a topic name may be empty",
        v5("MQTT-4.7.3-1") + v311("MQTT-4.7.3-1"),
        _TOPICS,
        "    if not topic:\n",
        "    if topic is None:\n",
    ),
    Fault(
        "a topic name may have a NUL",
        v5("MQTT-4.7.3-2") + v311("MQTT-4.7.3-2"),
        _TOPICS,
        'if "\\0" in topic:',
        'if topic == "\\0":',
    ),
    Fault(
        "a topic may have 65,536 bytes",
        v5("MQTT-4.7.3-3") + v311("MQTT-4.7.3-3"),
        _TOPICS,
        "_MAX_BYTES = 65_535",
        "_MAX_BYTES = 65_536",
    ),
    # Topic filters
    Fault(
        "a topic filter may be empty",
        v5("MQTT-4.7.3-1") + v311("MQTT-4.7.3-1"),
        _TOPICS,
        "    if not topic_filter:\n",
        "    if topic_filter is None:\n",
    ),
    Fault(
        "a topic filter may have a NUL",
        v5("MQTT-4.7.3-2") + v311("MQTT-4.7.3-2"),
        _TOPICS,
        'if "\\0" in topic_filter:',
        'if topic_filter == "\\0":',
    ),
    Fault(
        "# may be in front of other levels",
        v5("MQTT-4.7.1-1") + v311("MQTT-4.7.1-2"),
        _TOPICS,
        'if "#" in level:',
        'if "##" in level:',
    ),
    Fault(
        "+ may be part of a level",
        v5("MQTT-4.7.1-2") + v311("MQTT-4.7.1-3"),
        _TOPICS,
        'if "+" in level and level != "+":',
        'if "++" in level:',
    ),
    Fault(
        "a wildcard may be part of the last level",
        v5("MQTT-4.7.1-1", "MQTT-4.7.1-2") + v311("MQTT-4.7.1-2", "MQTT-4.7.1-3"),
        _TOPICS,
        'if ("#" in last or "+" in last) and len(last) > 1:',
        'if ("##" in last or "++" in last) and len(last) > 1:',
    ),
    Fault(
        "a share name may be empty",
        v5("MQTT-4.8.2-1"),
        _TOPICS,
        "if len(levels) < 3 or not levels[1] or",
        "if len(levels) < 3 or",
    ),
    Fault(
        "a share name may have a wildcard",
        v5("MQTT-4.8.2-2"),
        _TOPICS,
        'if "#" in levels[1] or "+" in levels[1]:',
        'if "#" in levels[1]:',
    ),
    Fault(
        "a share name needs no filter behind it",
        v5("MQTT-4.8.2-2"),
        _TOPICS,
        'not levels[1] or levels[2:] == [""]',
        "not levels[1]",
    ),
    Fault(
        "a filter that begins with a wildcard matches $ topics",
        v5("MQTT-4.7.2-1") + v311("MQTT-4.7.2-1"),
        _TOPICS,
        'if topic[:1] == "$" and topic_filter[:1] in ("#", "+"):',
        'if topic[:1] == "$" and topic_filter[:1] == "#":',
    ),
    Fault(
        "handlers of a filter that begins with a wildcard get $ topics",
        v5("MQTT-4.7.2-1") + v311("MQTT-4.7.2-1"),
        _TOPICS,
        '        if topic[:1] == "$":\n            # [MQTT',
        '        if topic[:1] == "$$":\n            # [MQTT',
    ),
    Fault(
        "empty levels are left out when topics are compared",
        v5("MQTT-4.7.3-4") + v311("MQTT-4.7.3-4"),
        _TOPICS,
        '    levels = topic.split("/")\n    wanted = topic_filter.split("/")\n',
        '    levels = [level for level in topic.split("/") if level]\n    wanted = topic_filter.split("/")\n',
    ),
    Fault(
        "upper and lower case are the same when topics are compared",
        v5("MQTT-4.7.3-4") + v311("MQTT-4.7.3-4"),
        _TOPICS,
        '    levels = topic.split("/")\n    wanted = topic_filter.split("/")\n',
        '    levels = topic.lower().split("/")\n    wanted = topic_filter.lower().split("/")\n',
    ),
    # What an application asks for
    Fault(
        "SUBSCRIBE without a filter is sent",
        v5("MQTT-3.8.3-2") + v311("MQTT-3.8.3-3"),
        "engine/arguments.py",
        "    if not wanted:\n",
        "    if wanted is None:\n",
    ),
    Fault(
        "UNSUBSCRIBE without a filter is sent",
        v5("MQTT-3.10.3-2") + v311("MQTT-3.10.3-2"),
        "engine/arguments.py",
        "    if not topic_filters:\n",
        "    if topic_filters is None:\n",
    ),
    Fault(
        "no local is asked for on a shared subscription",
        v5("MQTT-3.8.3-4"),
        "engine/arguments.py",
        'if wanted.no_local and wanted.topic.startswith("$share/"):',
        'if wanted.no_local and wanted.topic == "$share/":',
    ),
    Fault(
        "an application may give a topic alias",
        v5("MQTT-3.3.2-8", "MQTT-3.3.2-9", "MQTT-3.2.2-17"),
        "engine/arguments.py",
        '    "topic_alias": "the client decides about it",\n',
        "",
    ),
    Fault(
        "an application may give a subscription identifier with a message",
        v5("MQTT-3.3.4-6"),
        "engine/arguments.py",
        '    "subscription_identifier": "only servers send it",\n',
        "",
    ),
)
