"""What `clusterd engine` understands of its arguments and of the environment that ipyparallel makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterd.engine.options import parse


def test_a_file_that_is_named_goes_before_everything():
    environ = {"IPP_CONNECTION_INFO": "{}", "IPP_PROFILE_DIR": "/p"}
    options = parse(["--file", "/f"], environ)
    assert (options.file, options.content) == (Path("/f"), b"")
    # It holds a key, and user code sees the environment.
    assert "IPP_CONNECTION_INFO" not in environ


def test_what_the_environment_holds_goes_before_a_directory():
    options = parse(["--profile-dir=/p"], {"IPP_CONNECTION_INFO": '{"a": 1}'})
    assert options.content == b'{"a": 1}'
    assert options.is_launched


@pytest.mark.parametrize(
    ("argv", "environ", "file"),
    [
        (["--profile-dir", "/p"], {}, "/p/security/ipcontroller-engine.json"),
        (["--profile-dir=/p", "--cluster-id=c"], {}, "/p/security/ipcontroller-c-engine.json"),
        ([], {"IPP_PROFILE_DIR": "/q", "IPP_CLUSTER_ID": "d"}, "/q/security/ipcontroller-d-engine.json"),
        (
            ["--cluster-id="],
            {"IPP_PROFILE_DIR": "/q", "IPP_CLUSTER_ID": "d"},
            "/q/security/ipcontroller-engine.json",
        ),
        (["--profile-dir", "/p"], {"IPP_PROFILE_DIR": "/q"}, "/p/security/ipcontroller-engine.json"),
    ],
)
def test_where_the_file_is(argv, environ, file):
    options = parse(argv, environ)
    assert options.file == Path(file)
    assert options.is_launched == bool(environ)


def test_options_of_ipengine_are_passed_over_and_mentioned(capsys):
    foreign = ["--debug", "--log-level=10", "--IPEngine.timeout=5", "--Session.key=''", "--log-to-file"]
    parse(["--file", "/f", *foreign], {})
    assert capsys.readouterr().err == (
        "clusterd engine: options of ipengine that mean nothing here: "
        "--debug --log-level=10 --IPEngine.timeout=5 --Session.key='' --log-to-file\n"
    )


@pytest.mark.parametrize("words", [["--fil", "/f"], ["--file", "/f", "--time=3"], ["--file", "/f", "more"]])
def test_a_typing_error_is_one(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(words, {})
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_nothing_says_where(capsys):
    with pytest.raises(SystemExit) as ended:
        parse([], {})
    assert ended.value.code == 2
    assert "IPP_CONNECTION_INFO or IPP_PROFILE_DIR in the environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "environ", "number"),
    [
        (["--mpi"], {"OMPI_COMM_WORLD_RANK": "3"}, 3),
        (["--mpi"], {"PMI_RANK": "0"}, 0),
        (["--mpi"], {}, -1),
        ([], {"PMI_RANK": "2"}, -1),
        (["--mpi", "--id", "7"], {"PMI_RANK": "2"}, 7),
    ],
)
def test_the_rank_is_the_wanted_number(argv, environ, number):
    assert parse(["--file", "/f", *argv], environ).id == number
