"""The manual pages say what the code does: no setting, option, exit code or variable is missing, none is made up."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd.daemon.main as daemon
from clusterctl import exit_codes
from clusterctl.main import VERBS
from clusterd.__main__ import WORDS
from clusterd.profile.settings import all_settings

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "packaging" / "man").glob("*.[1-9]"))


@pytest.fixture(scope="module")
def generate():
    path = ROOT / "packaging" / "generate.py"
    spec = importlib.util.spec_from_file_location("packaging_generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(name):
    """A page without what only roff reads."""
    text = (ROOT / "packaging" / "man" / name).read_text()
    return re.sub(r"\\f[A-Z]", "", text).replace("\\-", "-").replace("\\&", "")


def test_there_are_three_pages():
    assert [page.name for page in PAGES] == ["clusterctl.1", "clusterd-profile.5", "clusterd.1"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_as_the_code_has_it(generate, page):
    assert generate.page(page.read_text()) == page.read_text(), "run: python packaging/generate.py"


def test_a_region_that_is_not_current_is_noticed(generate):
    stale = '.\\" begin exit-status\n.TP\n\\fB0\\fR\nNever.\n.\\" end exit-status\n'
    assert "Never" not in generate.page(stale)
    assert exit_codes.MEANINGS[exit_codes.NO_DAEMON] in generate.page(stale)


def test_every_setting_is_in_the_page_once_for_each_place():
    page = text_of("clusterd-profile.5")
    names = [
        path.rpartition(".")[2] for path, setting in all_settings() if not (setting.section or setting.named_sections)
    ]
    assert sorted(re.findall(r"^\.TP\n(\w+): ", page, re.MULTILINE)) == sorted(names)
    sections = {f"{path}" for path, setting in all_settings() if setting.section}
    assert sections | {"engine_sets.NAME"} == set(re.findall(r"^\.SS ([a-z][\w.]+)$", page, re.MULTILINE))


def test_every_verb_of_clusterctl_is_a_heading():
    assert {*VERBS} <= {line.split()[1] for line in text_of("clusterctl.1").splitlines() if line.startswith(".SS ")}


@pytest.mark.parametrize("word", WORDS)
def test_every_option_of_clusterd_is_explained_and_no_other(word):
    told = subprocess.run(
        [sys.executable, "-m", "clusterd", word, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    section = text_of("clusterd.1").partition(f".SS clusterd {word}\n")[2]
    section = re.split(r"^\.S[SH] ", section, maxsplit=1, flags=re.MULTILINE)[0]
    headings = "\n".join(re.findall(r"^\.TP\n(.*)", section, re.MULTILINE))
    options = set(re.findall(r"--[a-z-]+", told)) - {"--help"}
    assert set(re.findall(r"--[a-z-]+", headings)) == options


def test_exit_codes_of_the_daemon():
    codes = text_of("clusterd.1").partition(".SH EXIT STATUS")[2].partition(".SH ")[0]
    assert set(re.findall(r"^\.B (\d+)$", codes, re.MULTILINE)) == {
        "0",
        "1",
        "2",
        str(daemon.LOCKED),
        str(daemon.CONFIG),
    }


def test_every_variable_is_explained_and_no_other():
    read = set()
    for package in ("clusterd", "clusterctl"):
        for path in (ROOT / package).rglob("*.py"):
            read |= set(re.findall(r"\"(CLUSTERD_[A-Z_]+)\"", path.read_text()))
    # For tests of the program itself, and said so there; and a field of systemd's journal.
    read = {name for name in read if not name.startswith("CLUSTERD_FAULT") and name != "CLUSTERD_SET"}
    sections = text_of("clusterd.1").partition(".SH ENVIRONMENT")[2].partition(".SH ")[0]
    assert set(re.findall(r"CLUSTERD_[A-Z_]+", sections)) == read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_roff_has_nothing_to_complain_about(page):
    program = shutil.which("groff")
    if program is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [program, "-man", "-Tutf8", "-ww", str(page)],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert "SEE ALSO" in re.sub(r".\x08|\x1b\[\d*m", "", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_complain_about(page):
    program = shutil.which("mandoc")
    if program is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        [program, "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0
