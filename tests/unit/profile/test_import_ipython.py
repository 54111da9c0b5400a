"""ipyparallel profiles become ours without a line of them being run; what cannot be taken over is listed with its place."""

from __future__ import annotations

import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusterd.errors import ProfileError
from clusterd.profile import parse
from clusterd.profile.import_ipython import FILES, import_ipython
from clusterd.profile.python_config import MAX_TEXT, Note, read_config


def config(text):
    return read_config(textwrap.dedent(text), "f.py")


def values(text):
    return {".".join(key): found.value for key, found in config(text).settings.items()}


def notes(text):
    return [(note.line, note.subject) for note in config(text).notes]


READ = {
    "literals": (
        "c = get_config()\nc.A.a = 'x'\nc.A.b = 7\nc.A.c = -1.5\nc.A.d = True\nc.A.e = None\nc.A.f = ['x', (1, 2)]\nc.A.g = {'a': 1}\n",
        {"A.a": "x", "A.b": 7, "A.c": -1.5, "A.d": True, "A.e": None, "A.f": ["x", [1, 2]], "A.g": {"a": 1}},
    ),
    "the last one counts": ("c.A.a = 1\nc.A.a = 2\n", {"A.a": 2}),
    "names": (
        "queue = 'batch'\nc.A.a = queue\nc.A.b = c.A.d = queue + '@' + 'head'\n",
        {"A.a": "batch", "A.b": "batch@head", "A.d": "batch@head"},
    ),
    "typed": ("n: int = 3\nc.A.a = n * 3600\n", {"A.a": 10800}),
    "f-string": ("n = 3\nc.A.a = f'#PBS -l nodes={n}\\n'\n", {"A.a": "#PBS -l nodes=3\n"}),
    "lists": ("c.A.a = ['qsub'] + ['-A', 'lab']\n", {"A.a": ["qsub", "-A", "lab"]}),
    "texts side by side": ("c.A.a = ('one '\n 'two')\n", {"A.a": "one two"}),
    "comments": ("# c.A.a = 1\n'''docstring'''\nimport os\nfrom sys import path\npass\n", {}),
}


@pytest.mark.parametrize("name", READ)
def test_a_value_that_stands_there_is_read(name):
    text, expected = READ[name]
    assert values(text) == expected
    assert notes(text) == []


NOTED = {
    "environment": ("import os\nc.A.a = os.environ['HOME']\n", [(2, "A.a")]),
    "a call": ("c.A.a = int('7')\n", [(1, "A.a")]),
    "a name from a call": ("q = get()\nc.A.a = q\n", [(2, "A.a")]),
    "an unknown name": ("c.A.a = nothing\n", [(1, "A.a")]),
    "a condition": ("if x:\n    c.A.a = 1\nelse:\n    c.A.b = 2\n", [(2, "A.a"), (4, "A.b")]),
    "a name in a condition": ("q = 'a'\nif x:\n    q = 'b'\nc.A.a = q\n", [(2, "if x: q = 'b'"), (4, "A.a")]),
    "a loop": ("for q in 'ab':\n    pass\nc.A.a = q\n", [(1, "for q in 'ab': pass"), (3, "A.a")]),
    "more of a setting": ("c.A.a = ['x']\nc.A.a += ['y']\n", [(2, "A.a")]),
    "appended": ("c.A.a.append('y')\n", [(1, "A.a")]),
    "a list that is changed later": ("a = ['x']\na.append('y')\nc.A.a = a\n", [(2, "a.append('y')"), (3, "A.a")]),
    "a call alone": ("load_subconfig('ipython_config.py')\n", [(1, "load_subconfig('ipython_config.py')")]),
    "with": ("with open('x') as q:\n    c.A.a = q.read()\n", [(2, "A.a")]),
    "try": ("try:\n    c.A.a = 1\nexcept E:\n    pass\n", [(2, "A.a")]),
    "a function": ("def q():\n    return 1\nc.A.a = q()\n", [(3, "A.a")]),
    "several": ("a, b = 1, 2\nc.A.a = a\n", [(1, "a, b = (1, 2)"), (2, "A.a")]),
    "deeper": ("c.A.a.b = 1\n", [(1, "c.A.a.b = 1")]),
    "repetition": ("c.A.a = 'x' * 10**9\nc.A.b = [0] * 9\n", [(1, "A.a"), (2, "A.b")]),
    "a format": ("c.A.a = f'{1:5}'\nc.A.b = f'{1!r}'\nc.A.d = '%d' % 1\n", [(1, "A.a"), (2, "A.b"), (3, "A.d")]),
    "bytes": ("c.A.a = b'x'\n", [(1, "A.a")]),
    "other keys": ("c.A.a = {(1,): 2}\nc.A.b = {**x}\n", [(1, "A.a"), (2, "A.b")]),
    "mixed": ("c.A.a = 'x' + 1\nc.A.b = -'x'\n", [(1, "A.a"), (2, "A.b")]),
    "Python 2": ("print 'x'\n", [(1, "the whole file")]),
    "zero byte": ("c.A.a = 1\0\n", None),
    "deep": ("c.A.a = " + "-" * 60 + "1\n", [(1, "A.a")]),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_only_known_at_run_time_is_noted(name):
    text, expected = NOTED[name]
    found = config(text)
    if expected is None:
        assert [note.subject for note in found.notes] == ["the whole file"]
    else:
        assert [(note.line, note.subject) for note in found.notes] == expected
    # Nothing is half taken: a setting that is noted here is not set, but for what was plain before.
    assert set(values(text)) <= {"A.a"} if name == "more of a setting" else values(text) == {}


def test_a_value_that_is_computed_unsets_the_one_before():
    assert values("c.A.a = 1\nc.A.a = f()\n") == {}


@pytest.mark.parametrize("line", ["a = a + a", "a = [a, a]", "a = {'x': a, 'y': a}", "a = f'{a}{a}'", "a = a * a"])
def test_what_grows_with_each_line_is_given_up_in_time(line):
    for begin in ("a = 'xx'", "a = 99", "a = ['x']"):
        found = config(f"{begin}\n" + f"{line}\n" * 200 + "c.A.a = a\n")
        # A list that holds itself twice, thirty times over, takes a gigabyte to write down.
        assert all(len(repr(setting.value)) < 3 * MAX_TEXT for setting in found.settings.values())


def test_nothing_is_run(isolated):
    trap = isolated.home / "trap"
    text = f"import pathlib\npathlib.Path({str(trap)!r}).touch()\nc.A.a = open({str(trap)!r}, 'w').name\n"
    found = config(text)
    assert not trap.exists()
    assert found.settings == {}
    assert len(found.notes) == 2


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    read_config(text, "f.py")


def test_a_long_file_is_not_read():
    assert config("#" * (MAX_TEXT + 1)).notes == [
        Note("f.py", 0, "the whole file", f"it has more than {MAX_TEXT} characters")
    ]


@pytest.fixture
def directory(isolated):
    path = isolated.home / ".ipython" / "profile_pbs"
    path.mkdir(parents=True)
    return path


def write(directory, **files):
    for name, text in files.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text).replace("TEMPLATE", TEMPLATE))
    return import_ipython(directory)


TEMPLATE = """\
#!/bin/sh
#PBS -N ipengine
#PBS -l nodes={n//4}:ppn=4
cd $PBS_O_WORKDIR
mpiexec -n {n} ipengine --profile-dir={profile_dir}
"""


def test_a_site_s_profile(directory):
    (directory / "pbs.engine.template").write_text(TEMPLATE)
    found = write(
        directory,
        ipcluster_config='''
            c = get_config()
            c.IPClusterEngines.engine_launcher_class = 'ipyparallel.apps.launcher.PBSEngineSetLauncher'
            c.IPClusterStart.controller_launcher_class = 'PBS'
            c.IPClusterEngines.n = 128
            c.IPClusterStart.delay = 5
            c.PBSLauncher.queue = 'batch'
            c.PBSEngineSetLauncher.queue = 'long'
            c.PBSEngineSetLauncher.batch_template_file = 'pbs.engine.template'
            c.PBSControllerLauncher.batch_template = """TEMPLATE"""
            c.BatchSystemLauncher.submit_command = ['qsub', '-A', 'lab']
            c.PBSEngineSetLauncher.environment = {'OMP_NUM_THREADS': '1', 'X': '{a}'}
            c.BatchSystemLauncher.namespace = {'walltime': '1:00'}
        ''',
        ipcontroller_config="""
            c.HubFactory.ip = '*'
            c.IPControllerApp.reuse_files = True
            c.IPControllerApp.location = 'head.site.org'
            c.HubFactory.db_class = 'ipyparallel.controller.sqlitedb.SQLiteDB'
            c.TaskScheduler.scheme_name = 'lru'
            c.HeartMonitor.period = 5000
            c.Session.key = open('/etc/key').read()
        """,
        ipengine_config="""
            c.IPEngineApp.startup_script = 'startup.py'
            c.IPEngineApp.startup_command = 'import numpy'
            c.IPEngineApp.work_dir = '/scratch'
            c.MPI.use = 'mpi4py'
        """,
    )
    batch = {"submit_args": ["-A", "lab"]}
    assert found.values["controller"] == {
        "launcher": "pbs",
        "ip": "*",
        "location": "head.site.org",
        "reuse": True,
        "task_scheme": "lru",
        "ping": 5.0,
        "database": "sqlite",
        "queue": "batch",
        **batch,
        "template": TEMPLATE,
    }
    assert found.values["engine_sets"]["engines"] == {
        "launcher": "pbs",
        "n": 128,
        "work_dir": "/scratch",
        "startup": {"script": str(directory / "startup.py"), "command": "import numpy"},
        "env": {"OMP_NUM_THREADS": "1", "X": "{{a}}"},
        "queue": "long",
        **batch,
        "template": TEMPLATE,
    }
    assert [(note.source, note.subject, note.reason) for note in found.notes] == [
        ("ipcluster_config.py", "IPClusterStart.delay", "not needed: engines wait for their controller"),
        ("ipcluster_config.py", "BatchSystemLauncher.namespace", "write these values into the template"),
        (
            "ipcontroller_config.py",
            "Session.key",
            "its value is computed: open('/etc/key').read(); write it into the profile",
        ),
        ("ipengine_config.py", "MPI.use", "has no counterpart; see whether it is needed"),
    ]
    assert yaml.safe_load(found.text) == found.values
    # The template stands there line by line, the notes above it.
    assert "      #PBS -l nodes={n//4}:ppn=4\n" in found.text
    assert (
        "#   ipcluster_config.py:6: IPClusterStart.delay: not needed: engines wait for their controller\n" in found.text
    )


LOCAL = """
    c.Cluster.n = 8
    c.Cluster.engine_launcher_class = 'local'
    c.LocalEngineSetLauncher.delay = 0.1
    c.Cluster.controller_ip = '10.0.0.1'
    c.BaseLauncher.stop_timeout = 30
"""


def test_a_local_profile_is_a_profile(directory):
    found = write(
        directory,
        ipcluster_config=LOCAL,
        ipcontroller_config="c.IPController.ports = ['10101-10130', 10131]\nc.IPController.enable_curve = True\n",
    )
    profile = parse(found.text.encode(), "imported")
    engines = profile.engine_sets["engines"]
    assert (engines.n, engines.launcher, engines.stop_timeout) == (8, "local", 30.0)
    assert (profile.controller.ip, profile.controller.ports, profile.controller.stock) == (
        "10.0.0.1",
        "10101-10131",
        "curve",
    )
    assert profile.publish == "ipython"
    assert [note.subject for note in found.notes] == ["LocalEngineSetLauncher.delay"]


def test_an_empty_profile_is_a_profile(directory):
    found = write(directory, ipcluster_config="# c.Cluster.n = 1\n")
    assert parse(found.text.encode(), "imported").engine_sets["engines"].n == 4
    assert [note.subject for note in found.notes] == ["n"]


def test_hosts_of_ssh(directory):
    found = write(
        directory,
        ipcluster_config="c.Cluster.engine_launcher_class = 'SSH'\nc.SSHEngineSetLauncher.engines = {'h1': 2, 'u@h2': (3, ['-x'])}\n",
    )
    assert found.values["engine_sets"]["engines"] == {"launcher": "ssh", "hosts": {"h1": 2, "u@h2": 3}, "n": 5}
    assert [note.reason for note in found.notes] == ["arguments of single hosts are not taken over"]


def test_slurm_s_own_settings(directory):
    found = write(
        directory,
        ipcluster_config="""
            c.Cluster.engine_launcher_class = 'slurm'
            c.Cluster.n = 2
            c.SlurmEngineSetLauncher.account = 'lab'
            c.SlurmLauncher.qos = 'high'
            c.SlurmLauncher.timelimit = '1-00:00:00'
            c.SlurmLauncher.options = '--export=ALL --job-name="my job"'
        """,
    )
    assert found.values["engine_sets"]["engines"] == {
        "launcher": "slurm",
        "n": 2,
        "account": "lab",
        "walltime": "1-00:00:00",
        "submit_args": ["--qos=high", "--export=ALL", "--job-name=my job"],
    }
    assert found.notes == ()


REFUSED = {
    "c.Cluster.engine_launcher_class = 'mysite.MoabLauncher'": "there is no launcher for 'mysite.MoabLauncher'; local is set instead",
    "c.Cluster.engine_launcher_class = ['x']": "['x'] is not of a kind that can be taken over",
    "c.TaskScheduler.scheme_name = 'new'": "there is no scheme 'new'",
    "c.IPController.db_class = 'my.DB'": "there is no database for 'my.DB'",
    "c.IPController.ports = [1, 5]": "is not one range of ports",
    "c.IPController.ports = ['a-b']": "'a-b' is no range of ports",
    "c.IPController.ip = 'a'\nc.IPController.engine_ip = 'b'": "one address is listened on, a",
    "c.Cluster.n = True": "True is not of a kind that can be taken over",
    "c.Cluster.engine_launcher_class = 'ssh'\nc.SSHEngineSetLauncher.engines = {'h': 'x'}": "is no mapping of hosts to numbers",
    "c.Cluster.engine_launcher_class = 'pbs'\nc.PBSLauncher.batch_template_file = '~nobody-at-all/x'": (
        "~nobody-at-all/x: Could not determine home directory."
    ),
    "c.Cluster.engine_launcher_class = 'pbs'\nc.PBSLauncher.submit_command = ['msub']": "msub is not called; the system's own command is",
    "c.Cluster.engine_launcher_class = 'pbs'\nc.PBSLauncher.submit_command = [7]": "is no list of words",
    "c.Cluster.engine_launcher_class = 'slurm'\nc.SlurmLauncher.options = '\"'": "cannot be split into words: No closing quotation",
    "c.Cluster.engine_launcher_class = 'pbs'\nc.PBSLauncher.batch_template = 'x'\nc.PBSLauncher.batch_template_file = 'y'": (
        "batch_template is set, too, and wins"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_without_a_counterpart_is_noted(directory, text):
    found = write(directory, ipcluster_config=text)
    assert REFUSED[text] in [note.reason for note in found.notes]


def test_a_template_that_cannot_stand_in_the_profile_is_named(directory):
    text = (
        "c.Cluster.engine_launcher_class = 'pbs'\nc.PBSLauncher.batch_template_file = 'a.template'\nc.Cluster.n = 1\n"
    )
    path = directory / "a.template"
    found = write(directory, ipcluster_config=text)
    assert [note.reason for note in found.notes] == [f"{path}: No such file or directory"]
    path.write_text("x" * 70_000)
    found = write(directory, ipcluster_config=text)
    assert found.values["engine_sets"]["engines"]["template_file"] == str(path)
    assert found.notes == ()
    path.write_bytes(b"\xff")
    (note,) = write(directory, ipcluster_config=text).notes
    assert note.reason.startswith(f"{path}: 'utf-8' codec can't decode")


def test_a_template_that_nothing_names_is_noted(directory):
    (directory / "old.template").touch()
    assert [note.source for note in write(directory, ipcluster_config="c.Cluster.n = 1\n").notes] == ["old.template"]


def test_files_of_the_startup_directory_are_noted(directory):
    (directory / "startup").mkdir()
    (directory / "startup" / "00-first.py").touch()
    assert "startup: its Python files: engines do not run them" in write(directory, ipcluster_config="").text


def test_a_directory_without_a_profile_is_refused(isolated):
    with pytest.raises(ProfileError, match="there is no ipcluster_config") as caught:
        import_ipython(isolated.home / "nothing")
    assert "profile_pbs" in caught.value.hint
    (isolated.home / FILES[0]).mkdir()
    with pytest.raises(ProfileError, match="cannot be read: Is a directory"):
        import_ipython(isolated.home)


def test_comments_end_with_their_line(directory):
    found = write(directory, ipcluster_config="c.A.a = f('\\x85\\u2028')\nc.A['\u2028version: 2'] = 1\n")
    assert yaml.safe_load(found.text) == found.values
