"""Each bad input and exactly what is said about it, line and column included."""

from __future__ import annotations

import textwrap

import pytest

from clusterd.errors import ProfileError
from clusterd.profile import InvalidProfile, parse

QUOTED = "write {} in quotes"


def found(text: bytes) -> list[str]:
    with pytest.raises(InvalidProfile) as caught:
        parse(text, "p")
    return str(caught.value).splitlines()


# Not a profile at all: nothing after it can be trusted, so one mistake each (tabs: all of them).
TEXTS = {
    "empty": (b"", ["p:1:1: the file is empty (a profile begins with `version: 1`)"]),
    "only comments": (b"# nothing\n\n", ["p:1:1: the file is empty (a profile begins with `version: 1`)"]),
    "not UTF-8": (
        b"version: 1\ndescription: caf\xe9\n",
        ["p:2:17: not UTF-8: byte 0xe9 at offset 27 (save the file as UTF-8)"],
    ),
    "not UTF-8 after others": (
        "# é\nx: ".encode() + b"\xff",
        ["p:2:4: not UTF-8: byte 0xff at offset 8 (save the file as UTF-8)"],
    ),
    "UTF-16": ("version: 1".encode("utf-16"), ["p:1:1: not UTF-8 but UTF-16 (save the file as UTF-8)"]),
    "too large": (
        b"#" * (128 * 1024 + 1),
        ["p:1:1: the file is too large: a profile has at most 131072 bytes"],
    ),
    "control characters": (
        b"version: 1\ndescription: a\x01b\x07\n",
        [
            "p:2:15: character U+0001 is not allowed in YAML (remove it)",
            "p:2:17: character U+0007 is not allowed in YAML (remove it)",
        ],
    ),
    "tabs": (
        b"version: 1\nengine_sets:\n  engines:\n\tn: 4\n    max: 3\n \tbind: true\n",
        [
            "p:4:1: tab used for indentation (YAML is indented with spaces)",
            "p:6:2: tab used for indentation (YAML is indented with spaces)",
        ],
    ),
    "tab between words": (b"version:\t1", ["p:1:9: tab between words (use a space)"]),
    "indentation": (
        b"version: 1\n controller: {}\n",
        [
            (
                "p:2:12: not valid YAML: mapping values are not allowed here"
                " (check the indentation; a value that contains ': ' needs quotes)"
            )
        ],
    ),
    "open bracket": (
        b"version: [1",
        ["p:1:12: not valid YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"],
    ),
    "open quote": (
        b"version: '1",
        [
            (
                "p:1:12: not valid YAML: while scanning a quoted scalar: found unexpected end of stream"
                " (a quote or bracket is not closed)"
            )
        ],
    ),
    "two documents": (
        b"version: 1\n---\nversion: 1\n",
        ["p:2:1: not valid YAML: a second document begins here (a profile is one document: remove what follows '---')"],
    ),
    "undefined alias": (
        b"version: *x",
        [
            (
                "p:1:10: not valid YAML: found undefined alias 'x' (an alias (*name) needs an anchor (&name) before it;"
                " a text that begins with * needs quotes)"
            )
        ],
    ),
    "alias within itself": (b"a: &a [*a]", ["p:1:8: an alias refers to a value that contains it"]),
    "too deep": (b"[" * 40, ["p:1:17: nested more than 16 levels deep"]),
    "escape out of range": (b'a: "\\UFFFFFFFF"', ["p:1:7: a number here is out of range for YAML"]),
    "a text": (
        b"hello",
        [
            (
                "p:1:1: expected a mapping, found the text 'hello'"
                " (settings are written `name: value`; here: version, description, run_as, ...)"
            )
        ],
    ),
    "a list": (
        b"- version: 1",
        [
            (
                "p:1:1: expected a mapping, found a list"
                " (settings are written `name: value`; here: version, description, run_as, ...)"
            )
        ],
    ),
    "nothing in it": (
        b"{}",
        [
            "p:1:1: engine_sets is missing (add `engine_sets: {engines: {n: 4}}`)",
            "p:1:1: version is missing (add `version: 1`)",
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_a_text_that_is_no_profile(text, expected):
    assert found(text) == expected


# One line (or more) of an engine set, at line 4 and indented by 4; the set is `engines`.
SETTINGS = {
    "unknown key": (
        "preloads: [x]",
        ["p:4:5: unknown key 'preloads' in engine_sets.engines (did you mean 'preload'?)"],
    ),
    "unknown key, case": ("Max: 5", ["p:4:5: unknown key 'Max' in engine_sets.engines (did you mean 'max'?)"]),
    "unknown key, nothing near": ("zebra: 5", ["p:4:5: unknown key 'zebra' in engine_sets.engines"]),
    "key of another section": (
        "database: none",
        ["p:4:5: unknown key 'database' in engine_sets.engines (it belongs in controller)"],
    ),
    "key of the top level": (
        "run_as: lab",
        ["p:4:5: unknown key 'run_as' in engine_sets.engines (it belongs at the top level)"],
    ),
    "unknown key, nested": (
        "startup:\n      scrpt: x",
        ["p:5:7: unknown key 'scrpt' in engine_sets.engines.startup (did you mean 'script'?)"],
    ),
    "key that is a list": (
        "[a]: 1",
        ["p:4:5: the name of a setting in engine_sets.engines is a list (a text that begins with { or [ needs quotes)"],
    ),
    "merge": (
        "<<: {}",
        [
            (
                "p:4:5: merging with << is not supported in engine_sets.engines"
                " (write the settings out, or use an alias (*name) for a whole value)"
            )
        ],
    ),
    "duplicate key": (
        "bind: true\n    bind: false",
        ["p:5:5: duplicate key 'bind' in engine_sets.engines (first on line 4)"],
    ),
    "n: text": ("n: four", ["p:4:8: engine_sets.engines.n: expected a whole number, found the text 'four'"]),
    "n: quoted": (
        'n: "4"',
        ["p:4:8: engine_sets.engines.n: expected a whole number, found the text '4' (remove the quotes)"],
    ),
    "n: negative": ("n: -1", ["p:4:8: engine_sets.engines.n: must be at least 0, found -1"]),
    "n: huge": ("n: 99999\n    max: 9", ["p:4:8: engine_sets.engines.n: must be at most 65536, found 99999"]),
    "n: very huge": (
        "n: " + "9" * 30,
        ["p:4:8: engine_sets.engines.n: expected a whole number, found the number " + "9" * 30],
    ),
    "n: fraction": ("n: 4.5", ["p:4:8: engine_sets.engines.n: expected a whole number, found the number 4.5"]),
    "n: 4.0": ("n: 4.0", ["p:4:8: engine_sets.engines.n: expected a whole number, found the number 4.0 (write 4)"]),
    "n: underscore": (
        "n: 1_0",
        ["p:4:8: engine_sets.engines.n: expected a whole number, found the number 1_0 (write 10)"],
    ),
    "n: octal": ("n: 010", ["p:4:8: engine_sets.engines.n: expected a whole number, found the number 010 (write 8)"]),
    "n: exponent": (
        "n: 1e2",
        ["p:4:8: engine_sets.engines.n: expected a whole number, found the text '1e2' (write 100)"],
    ),
    "n: nothing": ("n:", ["p:4:5: engine_sets.engines.n: expected a whole number, found nothing"]),
    "n: null": ("n: null", ["p:4:8: engine_sets.engines.n: expected a whole number, found nothing (null)"]),
    "n: true": ("n: true", ["p:4:8: engine_sets.engines.n: expected a whole number, found the boolean true"]),
    "n: list": ("n: [4]", ["p:4:8: engine_sets.engines.n: expected a single value, found a list"]),
    "n: missing": ("bind: true", ["p:3:3: engine_sets.engines: n is missing (add `n: 4`)"]),
    "n above max": (
        "n: 8\n    max: 4",
        ["p:4:8: engine_sets.engines.n: 8 engines are more than max, 4 (lower n or raise max)"],
    ),
    "n above the default of max": (
        "n: 513",
        ["p:4:8: engine_sets.engines.n: 513 engines are more than max, 512 (lower n or raise max)"],
    ),
    "n above a max that is wrong itself": (
        "n: 8\n    max: -1",
        ["p:5:10: engine_sets.engines.max: must be at least 0, found -1"],
    ),
    "text: a number": (
        "work_dir: 1",
        ['p:4:15: engine_sets.engines.work_dir: expected text, found the number 1 (write "1" in quotes)'],
    ),
    "text: on": (
        "env: {A: on}",
        ['p:4:14: engine_sets.engines.env.A: expected text, found on, which YAML reads as true (write "on" in quotes)'],
    ),
    "text: no": (
        "env: {A: no}",
        [
            (
                "p:4:14: engine_sets.engines.env.A: expected text, found no, which YAML reads as false"
                ' (write "no" in quotes)'
            )
        ],
    ),
    "text: octal": (
        "env: {A: 010}",
        [
            (
                "p:4:14: engine_sets.engines.env.A: expected text, found 010, which YAML reads as the number 8"
                ' (write "010" in quotes)'
            )
        ],
    ),
    "text: underscore": (
        "env: {A: 1_000}",
        [
            (
                "p:4:14: engine_sets.engines.env.A: expected text, found 1_000, which YAML reads as the number 1000"
                ' (write "1_000" in quotes)'
            )
        ],
    ),
    "text: sexagesimal": (
        "env: {A: 1:30}",
        [
            (
                "p:4:14: engine_sets.engines.env.A: expected text, found 1:30, which YAML reads as the number 90"
                ' (write "1:30" in quotes)'
            )
        ],
    ),
    "text: date": (
        "env: {A: 2026-01-31}",
        ['p:4:14: engine_sets.engines.env.A: expected text, found the date 2026-01-31 (write "2026-01-31" in quotes)'],
    ),
    "text: nothing": ("env: {A: }", ["p:4:11: engine_sets.engines.env.A: expected text, found nothing"]),
    "text: empty": (
        'work_dir: ""',
        ["p:4:15: engine_sets.engines.work_dir: must not be empty (remove the line to have the default)"],
    ),
    "text: NUL": (r'env: {A: "a\0"}', ["p:4:14: engine_sets.engines.env.A: the character U+0000 is not allowed"]),
    "text: surrogate": (
        r'env: {A: "\ud800"}',
        ["p:4:14: engine_sets.engines.env.A: the character U+D800 is not allowed"],
    ),
    "text: too long": (
        f"preload: [{'a' * 300}]",
        ["p:4:15: engine_sets.engines.preload[0]: has 300 characters; at most 256 are allowed"],
    ),
    "name of a variable": (
        "env: {1A: x}",
        ["p:4:11: engine_sets.engines.env: '1A' is not the name of an environment variable"],
    ),
    "name that ends in a line break": (
        r'env: {"A\n": x}',
        [r"p:4:11: engine_sets.engines.env: 'A\n' is not the name of an environment variable"],
    ),
    "name of a module": (
        "preload: [numpy, 'os; rm']",
        ["p:4:22: engine_sets.engines.preload[1]: 'os; rm' is not the name of a Python module"],
    ),
    "list: a word": (
        "preload: numpy",
        ["p:4:14: engine_sets.engines.preload: expected a list, found the text 'numpy' (write [numpy])"],
    ),
    "list: a mapping": (
        "preload: {numpy: 1}",
        ["p:4:14: engine_sets.engines.preload: expected a list, found a mapping"],
    ),
    "mapping: a list": ("env: [A=1]", ["p:4:10: engine_sets.engines.env: expected a mapping, found a list"]),
    "section: a text": (
        "startup: math.py",
        [
            (
                "p:4:14: engine_sets.engines.startup: expected a mapping, found the text 'math.py'"
                " (settings are written `name: value`; here: script, command, ...)"
            )
        ],
    ),
    "boolean: yes": (
        "bind: yes",
        ["p:4:11: engine_sets.engines.bind: expected true or false, found 'yes' (write true)"],
    ),
    "boolean: 0": ("bind: 0", ["p:4:11: engine_sets.engines.bind: expected true or false, found '0' (write false)"]),
    "boolean: quoted": (
        "bind: 'true'",
        ["p:4:11: engine_sets.engines.bind: expected true or false, found 'true' (remove the quotes)"],
    ),
    "seconds: unit": (
        "stop_timeout: 5 min",
        [
            (
                "p:4:19: engine_sets.engines.stop_timeout: expected a number of seconds, found the text '5 min'"
                " (seconds have no unit: write 300)"
            )
        ],
    ),
    "seconds: sexagesimal": (
        "stop_timeout: 1:30",
        ["p:4:19: engine_sets.engines.stop_timeout: expected a number of seconds, found the number 1:30 (write 90)"],
    ),
    "seconds: infinite": (
        "stop_timeout: .inf",
        ["p:4:19: engine_sets.engines.stop_timeout: expected a number of seconds, found the number .inf"],
    ),
    "seconds: zero where more is needed": (
        "start_timeout: 0",
        ["p:4:20: engine_sets.engines.start_timeout: must be more than 0, found 0"],
    ),
    "word": (
        "restart: {policy: onfailure}",
        [
            (
                "p:4:23: engine_sets.engines.restart.policy: expected always, never or on-failure, found 'onfailure'"
                " (did you mean 'on-failure'?)"
            )
        ],
    ),
    "launcher": (
        "launcher: lokal",
        ["p:4:15: engine_sets.engines.launcher: expected local, found 'lokal' (did you mean 'local'?)"],
    ),
    "backoff": (
        "restart: {initial_backoff: 60}",
        ["p:4:32: engine_sets.engines.restart.initial_backoff: 60 is more than max_backoff, 30"],
    ),
    "backoff, where only the maximum is written": (
        "restart: {max_backoff: 0.1}",
        ["p:4:28: engine_sets.engines.restart.initial_backoff: 0.5 is more than max_backoff, 0.1"],
    ),
    "placeholder": (
        'env: {A: "{rank}"}',
        [
            (
                "p:4:14: engine_sets.engines.env.A: unknown placeholder '{rank}'"
                " (known: {local_rank} {slot} {set} {n}; a brace is written twice: {{ or }})"
            )
        ],
    ),
    "brace": (
        'env: {A: "a}"}',
        [
            (
                "p:4:14: engine_sets.engines.env.A: a single brace '}'"
                " (known: {local_rank} {slot} {set} {n}; a brace is written twice: {{ or }})"
            )
        ],
    ),
    "unsafe tag": (
        "work_dir: !!python/object/apply:os.system [id]",
        ["p:4:15: tag '!!python/object/apply:os.system' is not allowed (a profile is data: remove the tag)"],
    ),
    "unsafe tag on a name": (
        "!!python/name:os.system x: 1",
        ["p:4:5: tag '!!python/name:os.system' is not allowed (a profile is data: remove the tag)"],
    ),
    "unknown tag": (
        "work_dir: !vault x",
        ["p:4:15: tag '!vault' is not allowed (a profile is data: remove the tag)"],
    ),
    "binary": (
        "work_dir: !!binary eA==",
        ["p:4:15: tag '!!binary' is not allowed (a profile is data: remove the tag)"],
    ),
}


@pytest.mark.parametrize(("lines", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_is_wrong(lines, expected):
    # A last line gives n where the case has not set it, so that each has just its own mistakes.
    if not lines.startswith(("n:", "bind: true")) or "bind: false" in lines:
        lines += "\n    n: 1"
    assert found(f"version: 1\nengine_sets:\n  engines:\n    {lines}\n".encode()) == expected


# The whole controller section at line 2.
CONTROLLERS = {
    "stock as a boolean": (
        "controller: {stock: true}",
        ["p:2:21: controller.stock: expected curve, off or on, found 'true' (did you mean 'on'?)"],
    ),
    "publish": (
        "publish: ipythno",
        ["p:2:10: publish: expected ipython, found 'ipythno' (did you mean 'ipython'?)"],
    ),
    "a password in an address": (
        'controller: {mongodb: {uri: "mongodb://me:secret@db"}}',
        [
            "p:2:29: controller.mongodb.uri: user and password do not belong here (write them into a file named by credentials)"
        ],
    ),
    "database": (
        "controller: {database: memry}",
        [
            "p:2:24: controller.database: expected memory, mongodb, none or sqlite, found 'memry' (did you mean 'memory'?)"
        ],
    ),
    "durable without a database that lasts": (
        "controller: {durable: process}",
        [
            (
                "p:2:23: controller.durable: process needs a database that outlives the controller, not memory"
                " (set database to sqlite or mongodb)"
            )
        ],
    ),
    "durable without reuse": (
        "controller: {database: sqlite, reuse: false, durable: disk}",
        [
            "p:2:55: controller.durable: disk needs keys and ports that outlive the controller (set reuse: true)",
        ],
    ),
    "ports: one": (
        "controller: {ports: 50000}",
        ["p:2:21: controller.ports: expected a range of ports such as 50000-50100, found the number 50000"],
    ),
    "ports: order": (
        "controller: {ports: 50100-50000}",
        ["p:2:21: controller.ports: 50100-50000 is not a range of ports (ports are 1 to 65535, the lower one first)"],
    ),
    "ports: too high": (
        "controller: {ports: 65000-70000}",
        ["p:2:21: controller.ports: 65000-70000 is not a range of ports (ports are 1 to 65535, the lower one first)"],
    ),
    "ports: too few": (
        "controller: {ports: 50000-50002}",
        ["p:2:21: controller.ports: 50000-50002 has too few ports (a controller needs 18, or 4 with stock: off)"],
    ),
    "ports: too few without stock": (
        "controller: {stock: off, ports: 50000-50002}",
        ["p:2:33: controller.ports: 50000-50002 has too few ports (a controller needs 4)"],
    ),
    "publish without stock": (
        "controller: {stock: off}\npublish: ipython",
        ["p:3:10: publish: its clients are not served: controller.stock is off (set that to on or curve)"],
    ),
    "size: unit": (
        "controller: {max_message: 2 GB}",
        ["p:2:27: controller.max_message: expected a size such as 64 MiB, found the text '2 GB'"],
    ),
    "size: too small": (
        "controller: {max_message: 64 KiB}",
        ["p:2:27: controller.max_message: must be at least 1 MiB, found 64 KiB"],
    ),
    "ip": (
        "controller: {ip: 'a b'}",
        ["p:2:18: controller.ip: 'a b' is not an IP address or host name"],
    ),
    "a key of the engine sets": (
        "controller: {preload: [x]}",
        ["p:2:14: unknown key 'preload' in controller (it belongs in engine_sets.NAME)"],
    ),
    "user": ("run_as: Root!", ["p:2:9: run_as: 'Root!' is not a user name"]),
    "log level": (
        "log_level: warn",
        ["p:2:12: log_level: expected debug, error, info or warning, found 'warn' (did you mean 'warning'?)"],
    ),
}


@pytest.mark.parametrize(("line", "expected"), CONTROLLERS.values(), ids=CONTROLLERS)
def test_a_setting_of_the_controller_or_the_daemon_that_is_wrong(line, expected):
    assert found(f"version: 1\n{line}\nengine_sets: {{engines: {{n: 1}}}}\n".encode()) == expected


SETS = {
    "none": ("engine_sets: {}", ["p:2:14: engine_sets: must have at least one entry (add engines: {n: 4})"]),
    "nothing": ("engine_sets:", ["p:2:1: engine_sets: must have at least one entry (add engines: {n: 4})"]),
    "a list": ("engine_sets: [engines]", ["p:2:14: engine_sets: expected a mapping, found a list"]),
    "a set with nothing": ("engine_sets:\n  a:", ["p:3:3: engine_sets.a: n is missing (add `n: 4`)"]),
    "a set that is a number": (
        "engine_sets: {engines: 4}",
        [
            (
                "p:2:24: engine_sets.engines: expected a mapping, found the number 4"
                " (settings are written `name: value`; here: launcher, n, max, ...)"
            )
        ],
    ),
    "name": (
        "engine_sets: {a/b: {n: 1}}",
        [
            (
                "p:2:15: engine_sets: 'a/b' is not the name of an engine set"
                " (a letter, then up to 31 letters, digits, - or _)"
            )
        ],
    ),
    "the name of those in no set": (
        "engine_sets: {stock: {n: 1}}",
        [
            (
                "p:2:22: engine_sets.stock: an engine set cannot be called stock"
                " (engines that are in no set are listed under it)"
            )
        ],
    ),
    "reserved name": (
        "engine_sets: {daemon: {n: 1}}",
        [
            (
                "p:2:23: engine_sets.daemon: an engine set cannot be called daemon"
                " (`clusterctl logs` means the process by it)"
            )
        ],
    ),
}


@pytest.mark.parametrize(("lines", "expected"), SETS.values(), ids=SETS)
def test_engine_sets_that_are_wrong(lines, expected):
    assert found(f"version: 1\n{lines}\n".encode()) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("version: 2", "p:1:10: version: expected 1, found the number 2 (this clusterd knows: 1)"),
        ("version: '1'", "p:1:10: version: expected 1, found the text '1' (remove the quotes)"),
        ("version: one", "p:1:10: version: expected 1, found the text 'one' (this clusterd knows: 1)"),
        ("version:", "p:1:1: version: expected 1, found nothing"),
        ("description: x", "p:1:1: version is missing (add `version: 1`)"),
    ],
)
def test_version(line, expected):
    assert found(f"{line}\nengine_sets: {{engines: {{n: 1}}}}\n".encode()) == [expected]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_text():
    text = textwrap.dedent("""\
        version: 1
        contoller: {}
        engine_sets:
          engines:
            n: -1
            preload: numpy
          other:
            max: 4
            restart: {policy: often}
        """)
    assert found(text.encode()) == [
        "p:2:1: unknown key 'contoller' (did you mean 'controller'?)",
        "p:5:8: engine_sets.engines.n: must be at least 0, found -1",
        "p:6:14: engine_sets.engines.preload: expected a list, found the text 'numpy' (write [numpy])",
        "p:7:3: engine_sets.other: n is missing (add `n: 4`)",
        "p:9:23: engine_sets.other.restart.policy: expected always, never or on-failure, found 'often'",
    ]


def test_columns_count_characters_and_a_byte_order_mark_counts_as_nothing():
    text = "\ufeffversion: 2\nengine_sets: {é: {n: 1}, a: {n: x}}"
    assert [line.partition(": ")[0] for line in found(text.encode())] == ["p:1:10", "p:2:15", "p:2:33"]


def test_a_mistake_is_data_for_programs():
    with pytest.raises(ProfileError) as caught:
        parse(b"version: 1\nengine_sets: {engines: {nn: 4, n: 1}}", "p")
    (mistake,) = caught.value.mistakes
    assert mistake == (2, 25, "", "unknown key 'nn' in engine_sets.engines", "did you mean 'n'?")
    assert caught.value.code == "profile"


def test_no_more_than_a_hundred_mistakes_are_collected():
    lines = found(b"version: 1\n" + b"".join(b"x%d: 1\n" % i for i in range(500)))
    assert len(lines) == 101
    assert lines[-1] == "p: more than 100 mistakes; the rest is not shown"


def test_a_name_of_the_file_cannot_send_escapes_to_the_terminal():
    assert "\x1b" not in "".join(found(b'version: 1\nengine_sets: {"\\e[2J": {n: -1, "\\e": 1}}'))
