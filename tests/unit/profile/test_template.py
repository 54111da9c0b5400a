"""`profile create`: every setting, explained; nothing is ever replaced."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from clusterd.core.model.profile import EngineSet, Profile, Startup
from clusterd.errors import ProfileError
from clusterd.profile import create, parse, read
from clusterd.profile.settings import all_settings
from clusterd.profile.template import template
from clusterd.profile.trust import SHIPPED

BASE = Profile(version=1, engine_sets={"engines": EngineSet(n=4)})
RICH = Profile(
    version=1,
    description="quotes \" and ' and: colons # and é",
    engine_sets={
        "engines": EngineSet(n=4, setup=["module load x", "a: b", "on", "010", ""[:0] or "- x"], max=9),
        "gpu": EngineSet(
            n=0,
            startup=Startup(command="if True:\n\tx = 1\n"),
            env={"A": "1:30", "B": "{{x}}", "C": "", "D": "~", "E": "two\nlines", "F": "\u2028 \U0001f600"},
            drain_timeout=None,
        ),
    },
)


def uncommented(text: str) -> str:
    return re.sub(r"^( *)#(?=[^ #\n])", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("profile", [BASE, RICH], ids=["defaults", "rich"])
def test_as_it_is_and_with_every_line_uncommented_it_means_the_same(profile):
    text = template(profile, name="lab", base="local")
    assert parse(text.encode(), "p") == profile
    assert uncommented(text) != text
    assert parse(uncommented(text).encode(), "p") == profile


def test_each_line_can_be_uncommented_alone():
    lines = template(BASE, name="lab", base="local").splitlines()
    tried = 0
    for at, line in enumerate(lines):
        if uncommented(line) != line:
            changed = [*lines[:at], uncommented(line), *lines[at + 1 :]]
            assert parse("\n".join(changed).encode(), "p") == BASE
            tried += 1
    assert tried > 40


def test_every_setting_stands_there_with_its_explanation():
    text = template(BASE, name="lab", base="local")
    words = " ".join(re.sub(r"^ *# ", "", line) for line in text.splitlines())
    for path, setting in all_settings():
        assert re.search(rf"^ *#?{path.rpartition('.')[2]}:", text, flags=re.MULTILINE), path
        assert " ".join(setting.shape.description.split()) in words, path


def test_no_line_is_longer_than_a_terminal_shows():
    assert max(map(len, template(BASE, name="lab", base="local").splitlines())) <= 118


def test_it_is_written_where_the_user_looks_first_and_reads_back(isolated):
    path = create("lab", "local")
    assert path == Path(os.environ["CLUSTERD_CONFIG_DIR"]) / "profiles" / "lab.yaml"
    assert path.stat().st_mode & 0o777 == 0o644
    assert read(path) == read(SHIPPED / "local.yaml")
    assert [entry.name for entry in path.parent.iterdir()] == ["lab.yaml"]


def test_the_mode_does_not_depend_on_the_umask():
    old = os.umask(0o077)
    try:
        assert create("lab", "local").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def test_an_existing_file_is_never_replaced():
    path = create("lab", "local")
    path.write_text("mine")
    with pytest.raises(ProfileError) as caught:
        create("lab", "local")
    assert str(caught.value) == (
        f"{path} exists, and is not replaced\nedit it, choose another name, or remove it first: rm {path}"
    )
    assert path.read_text() == "mine"
    assert [entry.name for entry in path.parent.iterdir()] == ["lab.yaml"]


def test_a_script_of_the_base_is_found_from_the_new_place(tmp_path, monkeypatch):
    directory = tmp_path / "profiles"
    directory.mkdir()
    base = directory / "base.yaml"
    base.write_text("version: 1\nengine_sets: {a: {n: 1, work_dir: ~/x, startup: {script: s.py}}}")
    monkeypatch.setenv("CLUSTERD_CONFIG_DIR", str(tmp_path))
    found = parse(create("lab", "base").read_bytes(), "p").engine_sets["a"]
    assert found.startup.script == str(directory / "s.py")
    assert found.work_dir == "~/x"  # still whoever's home it is


@pytest.mark.parametrize(
    ("name", "base", "message"),
    [
        ("../x", "local", "cannot be the name"),
        ("lab", "nowhere", "there is no profile nowhere"),
        ("lab", "../local", "cannot be the name"),
    ],
)
def test_what_cannot_be_created(name, base, message):
    with pytest.raises(ProfileError, match=message):
        create(name, base)


def test_a_directory_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLUSTERD_CONFIG_DIR", str(tmp_path / "file"))
    with pytest.raises(ProfileError, match="cannot be written: Not a directory"):
        create("lab", "local")
