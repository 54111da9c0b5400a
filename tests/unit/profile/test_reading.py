"""What is taken, bounds on time and size, and the expansion of paths."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clusterd.core.model.profile import EngineSet, Profile
from clusterd.errors import ProfileError
from clusterd.profile import InvalidProfile, effective_yaml, expanded, parse, read
from clusterd.profile.text import MAX_BYTES, MAX_NODES

ISSUE = b"""\
version: 1
description: Engines on this machine
controller: {launcher: local, ip: 127.0.0.1, reuse: true, database: memory}
engine_sets:
  engines:
    launcher: local
    n: 4
    max: 512
    python: /opt/conda/envs/lab/bin/python
    preload: [numpy]
    work_dir: ~/scratch
    startup: {script: startup.py, command: "import math"}
    env: {OMP_NUM_THREADS: "1", CUDA_VISIBLE_DEVICES: "{local_rank}"}
    cpus_per_engine: 1
"""


def engines(text: str) -> EngineSet:
    return parse(f"version: 1\nengine_sets:\n  engines:\n    {text}\n".encode(), "p").engine_sets["engines"]


def test_every_setting_of_the_documented_example_arrives():
    profile = parse(ISSUE, "p")
    assert profile.controller.database == "memory"
    found = profile.engine_sets["engines"]
    assert found == EngineSet(
        n=4,
        python="/opt/conda/envs/lab/bin/python",
        preload=["numpy"],
        work_dir="~/scratch",
        startup=type(found.startup)(script="startup.py", command="import math"),
        env={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "{local_rank}"},
    )


def test_a_profile_of_two_lines_has_the_defaults():
    assert parse(b"version: 1\nengine_sets: {engines: {n: 0}}", "p") == Profile(
        version=1, engine_sets={"engines": EngineSet(n=0)}
    )


@pytest.mark.parametrize("word", ["on", "off", "curve", '"on"', "'off'"])
def test_on_and_off_mean_what_is_written_although_yaml_makes_booleans_of_them(word):
    text = f"version: 1\ncontroller: {{stock: {word}}}\nengine_sets: {{engines: {{n: 0}}}}"
    assert parse(text.encode(), "p").controller.stock == word.strip("\"'")


def test_a_section_list_or_mapping_with_nothing_in_it_has_its_default():
    text = (
        b"version: 1\ncontroller:\n  restart:\n  env:\nengine_sets:\n  engines:\n    n: 0\n    setup:\n    startup: ~\n"
    )
    assert parse(text, "p") == Profile(version=1, engine_sets={"engines": EngineSet(n=0)})


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("{n: 1, start_timeout: 5}", "start_timeout", 5.0),
        ("{n: 1, start_timeout: 0.25}", "start_timeout", 0.25),
        ("{n: 1, start_timeout: 1.5e+2}", "start_timeout", 150.0),
        ("{n: 1, drain_timeout: null}", "drain_timeout", None),
        ("{n: +4}", "n", 4),
        ("{n: 1, bind: True}", "bind", True),
        ("{n: 1, work_dir: !!str 010}", "work_dir", "010"),
        ("{n: 1, env: {A: '{{{n}}}'}}", "env", {"A": "{{{n}}}"}),
        ("{n: 1, setup: ['a', \"b\"]}", "setup", ["a", "b"]),
    ],
)
def test_values(text, name, value):
    found = getattr(engines(text), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 2**20), ("3 MiB", 3 * 2**20), ("1GiB", 2**30), ("'2 GiB'", 2**31), ("2048 KiB", 2**21)],
)
def test_sizes(text, size):
    profile = parse(f"version: 1\ncontroller: {{max_message: {text}}}\nengine_sets: {{a: {{n: 1}}}}".encode(), "p")
    assert profile.controller.max_message == size


def test_a_block_of_code_may_have_tabs_and_several_lines():
    assert engines("n: 1\n    startup:\n      command: |\n        if True:\n        \tx = 1").startup.command == (
        "if True:\n\tx = 1\n"
    )


def test_a_few_aliases_are_fine():
    text = b"version: 1\nengine_sets: {a: {n: 1, env: &e {X: y}, startup: &s {command: z}}, b: {n: 1, env: *e, startup: *s}}"
    profile = parse(text, "p")
    assert profile.engine_sets["a"] == profile.engine_sets["b"]


def bomb(levels: int) -> bytes:
    lines = [b"l0: &l0 [x, x, x, x, x, x, x, x, x]\n"]
    lines += [b"l%d: &l%d [%s]\n" % (i, i, b", ".join([b"*l%d" % (i - 1)] * 9)) for i in range(1, levels)]
    return b"version: 1\n" + b"".join(lines)


def test_an_alias_bomb_stops_where_it_passes_the_bound():
    # 9 * 9 * 9 * 9 values and the lists that hold them pass 10,000 in the fifth line.
    with pytest.raises(InvalidProfile) as caught:
        parse(bomb(30), "p")
    (mistake,) = caught.value.mistakes
    assert mistake.message == f"more than {MAX_NODES} values (aliases expanded)"
    assert mistake.line == 6


def test_a_profile_with_as_many_values_as_allowed_is_read():
    setup = ", ".join(["x"] * 9_900)
    assert len(engines(f"{{n: 1, setup: [{setup}]}}").setup) == 9_900


def outcome(text: bytes) -> Profile | InvalidProfile:
    try:
        return parse(text, "p")
    except InvalidProfile as error:
        return error


def check(found: Profile | InvalidProfile) -> None:
    if isinstance(found, Profile):
        # A profile is one that can travel, be shown, and be read again.
        assert parse(effective_yaml(found).encode(), "again") == found
        return
    assert found.mistakes
    assert all(mistake.line >= 1 and mistake.column >= 1 for mistake in found.mistakes)
    str(found).encode()  # could be printed


# Pieces that mean something to YAML, to our reader, or to what lies between them.
PIECES = [
    "version: 1",
    "engine_sets:",
    "  engines:",
    "    n: 4",
    "&a ",
    "*a",
    "!!str ",
    "!!python/name:os ",
    "!x ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "- ",
    "? ",
    "\n",
    "\t",
    "  ",
    "'",
    '"',
    "\n",
    "\n",
    ">-\n",
    "# c\n",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "%YAML 99999999999999999999.1\n",
    "%TAG ! x\n",
    "\\U00110000",
    "\\ud800",
    "\\xff",
    "\\0",
    "~",
    "null",
    "<<: ",
    "=",
    "1_000",
    "1:30\n",
    "010",
    "0x",
    ".inf",
    "-.nan",
    "2024-01-01",
    "yes",
    "env: ",
    "preload: ",
    "controller: ",
    "restart: ",
    "\r",
    "\r\n",
    "%ff",
    "!<x> ",
    "!e!x ",
    "@",
    "`",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x00",
]


@settings(deadline=2000, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=60).map(lambda p: "".join(p).encode())
    )
)
@example(b'"\\UFFFFFFFF"')
@example(b"%YAML " + b"9" * 5000 + b".1\n---\na")
@example(b"version: " + b"9" * 5000)
@example(b"[" * MAX_BYTES)
@example(b"- " * (MAX_BYTES // 2))
@example(b"a: [" * (MAX_BYTES // 4))
@example(b"{" + b"a, " * (MAX_BYTES // 4))
@example(b"- &a x\n" + b"- *a\n" * (MAX_BYTES // 6))
@example(b"version: " + b"1:" * (MAX_BYTES // 4))
@example(b"\tx\n" * (MAX_BYTES // 4))
@example(b"a\x01" * (MAX_BYTES // 2))
@example(b'version: 1\nengine_sets: {a: {n: 1, env: {A: "' + b"{" * 60_000 + b'"}}}')
def test_any_bytes_are_a_profile_or_mistakes_and_nothing_else(text):
    check(outcome(text))


@settings(deadline=2000, max_examples=200)
@given(st.data())
def test_a_profile_with_a_piece_of_something_else_in_it(data):
    at = data.draw(st.integers(0, len(ISSUE)))
    cut = data.draw(st.integers(0, 6))
    piece = data.draw(st.one_of(st.sampled_from(PIECES).map(str.encode), st.binary(max_size=3)))
    check(outcome(ISSUE[:at] + piece + ISSUE[at + cut :]))


def test_paths_are_expanded_each_from_its_own_place():
    profile = parse(ISSUE, "p")
    found = expanded(profile, directory=Path("/etc/x"), home=Path("/home/lab")).engine_sets["engines"]
    assert found.startup.script == "/etc/x/startup.py"
    assert found.work_dir == "/home/lab/scratch"
    assert found.python == "/opt/conda/envs/lab/bin/python"


@pytest.mark.parametrize(
    ("python", "expected"),
    [("python3.11", "python3.11"), ("~/v/bin/python", "/h/v/bin/python"), ("v/bin/python", "/h/v/bin/python")],
)
def test_an_interpreter_without_a_slash_is_left_to_path(python, expected):
    profile = parse(f"version: 1\nengine_sets: {{a: {{n: 1, python: {python}}}}}".encode(), "p")
    assert expanded(profile, directory=Path("/x"), home=Path("/h")).engine_sets["a"].python == expected


def test_the_home_of_somebody_who_does_not_exist():
    profile = parse(b"version: 1\nengine_sets: {a: {n: 1, work_dir: ~no-such-user/x}}", "p")
    with pytest.raises(ProfileError, match=r"^~no-such-user/x: there is no user no-such-user\nwrite the whole path$"):
        expanded(profile, directory=Path("/x"), home=Path("/h"))


def test_read_expands_from_where_the_file_is(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(ISSUE)
    found = read(file).engine_sets["engines"]
    assert found.startup.script == str(tmp_path / "startup.py")
    assert found.work_dir == f"{os.environ['HOME']}/scratch"


def test_mistakes_name_the_file(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("version: 3\nengine_sets: {a: {n: 1}}")
    with pytest.raises(InvalidProfile) as caught:
        read(file)
    assert str(caught.value) == f"{file}:1:10: version: expected 1, found the number 3 (this clusterd knows: 1)"


def test_home_is_that_of_the_user_that_everything_runs_as(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("version: 1\nrun_as: root\nengine_sets: {a: {n: 1}}")
    assert read(file).engine_sets["a"].work_dir == pwd.getpwnam("root").pw_dir


def test_a_user_that_this_host_does_not_have_matters_to_root_alone(tmp_path, monkeypatch):
    file = tmp_path / "x.yaml"
    file.write_text("version: 1\nrun_as: nosuchuser\nengine_sets: {a: {n: 1}}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ProfileError, match=r"^run_as: there is no user nosuchuser on this host\nmake it: useradd"):
        read(file)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert read(file).engine_sets["a"].work_dir == os.environ["HOME"]
