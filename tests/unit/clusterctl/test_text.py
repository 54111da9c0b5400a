from __future__ import annotations

import pytest

from clusterctl.output import text


def status(**changes):
    entry = {"desired": 4, "observed": 4, "reason": "", "age": 0.31, "state": "running"}
    controller = {"state": "running", "desired": "running", "pid": 12, "uptime": 75.0, "restarts": 0, "reason": ""}
    base = {
        "cluster": "local",
        "state": "running",
        "desired": "running",
        "is_converged": True,
        "clients": 1,
        "daemon": {"pid": 11, "uptime": 80.0, "profile_file": "/etc/clusterd/profiles/local.yaml"},
        "controller": controller,
        "engine_sets": {"engines": entry},
        "tasks": {"queued": 3, "waiting": 1, "running": 4, "prefetched": 2, "completed": 17},
        "warnings": [],
    }
    return base | changes


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (0.31, "0.3 s"),
        (1.2, "1 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (6000, "2 h"),
        (200_000, "2 days"),
    ],
)
def test_ages(seconds, words):
    assert text.age(seconds) == words


def test_a_cluster_as_wished():
    assert text.status_lines(status()) == [
        "local: running",
        "  daemon      running   process 11, up 80 s, profile /etc/clusterd/profiles/local.yaml",
        "  controller  running   process 12, up 75 s",
        "  engines     4 of 4    seen 0.3 s ago",
        "  tasks       4 queued  6 on engines, 17 done; 1 client",
    ]


def test_stock_clients_and_engines():
    stock = {"served": "curve", "client_file": "/s/ipcontroller-client.json", "ipython_file": None}
    lines = text.status_lines(status(stock=stock, other_engines={"hand": 1, "stock": 3}))
    assert lines[-4:] == [
        "  hand        1         not of the profile",
        "  stock       3         not of the profile",
        "  tasks       4 queued  6 on engines, 17 done; 1 client",
        "  ipython     served    encrypted; client file /s/ipcontroller-client.json",
    ]
    published = {**stock, "served": "on", "ipython_file": "/h/.ipython/f"}
    assert text.status_lines(status(stock=published))[-1] == "  ipython     served    client file /h/.ipython/f"
    off = text.status_lines(status(stock={**stock, "served": "off"}))
    assert off[-1] == "  ipython     off       stock clients are not served: controller.stock of the profile"
    assert text.status_lines(status(stock={**stock, "served": None})) == text.status_lines(status())


def test_what_differs_is_told_with_its_reason():
    entry = {"desired": 4, "observed": 1, "reason": "3 in crash-loop: exit status 3", "age": 2.0, "state": "halted"}
    lines = text.status_lines(
        status(state="degraded", is_converged=False, engine_sets={"engines": entry}, tasks=None, warnings=["no numpy"])
    )
    assert lines[0] == "local: degraded (wished: running)"
    assert lines[3] == "  engines     1 of 4   3 in crash-loop: exit status 3; seen 2 s ago"
    assert lines[-1] == "  warning: no numpy"


def test_why_not_names_each_part():
    controller = {"state": "halted", "desired": "running", "reason": "crash loop"}
    entry = {"desired": 4, "observed": 1, "reason": "starting"}
    assert text.why_not(status(controller=controller, engine_sets={"engines": entry})) == (
        "controller is halted: crash loop\n  engines: 1 of 4: starting"
    )
    assert text.why_not(status(state="stopping")) == "it is stopping"


def test_an_observation_that_was_never_made_is_said_to_be_none():
    assert text.set_line({"desired": 2, "reason": "", "age": None}) == "not seen yet"
    assert text.set_line({"desired": 0, "reason": "", "age": None}) == ""


def test_engines_in_a_table():
    engines = [
        {
            "engine": "engines/0",
            "id": 7,
            "state": "idle",
            "since": 100.0,
            "pid": 5,
            "host": "a",
            "reason": "",
            "restarts": 2,
        },
        {"engine": "engines/10", "id": None, "state": "backoff", "reason": "killed by SIGSEGV"},
    ]
    assert text.engine_table(engines, 160.0) == [
        "ENGINE      ID  STATE    FOR   PROCESS  HOST",
        "engines/0   7   idle     60 s  5        a     restarted 2 times",
        "engines/10  -   backoff  -     -        -     killed by SIGSEGV",
    ]


def test_one_line_for_watch():
    assert text.summary(status()) == "local: running; controller running; engines 4/4"


def keys(**using_old):
    return {"changed_at": 1000.0, "until": 1060.0, "left": 41.0, "using_old": using_old, "away": 0}


def test_a_change_of_keys_names_who_uses_the_old_ones():
    until = text.moment(1060.0)
    assert text.key_lines(keys(clients=[], stock_engines=["a", "b"], stock_clients=["ann"]), 1019.0) == [
        f"the old ones are accepted until {until} (41 s more)",
        "2 stock engines (a, b) use the old key, and will be refused then",
        "1 stock client (ann) uses the old key, and will be refused then",
    ]
    assert text.key_lines(keys(engines=[]), 1019.0)[1] == "nobody uses them"
    (line,) = [
        line for line in text.status_lines(status(keys=keys(engines=["engines/3"]))) if line.startswith("  keys")
    ]
    assert "1 engine (engines/3) uses the old key" in line


def test_many_names_are_cut_and_without_a_grace_there_is_nothing_to_say():
    names = [f"engines/{number}" for number in range(20)]
    assert "20 engines (engines/0, " in text.key_lines(keys(engines=names), 1019.0)[1]
    assert ", ...)" in text.key_lines(keys(engines=names), 1019.0)[1]
    over = keys() | {"until": None}
    assert text.key_lines(over, 1100.0) == ["the old ones are refused"]
    assert not [line for line in text.status_lines(status(keys=over)) if line.startswith("  keys")]


def test_restarts_are_told_with_the_reason_of_the_last_one_where_nothing_else_tells_it():
    entry = {"desired": 1, "observed": 1, "reason": "", "age": 0.3, "restarts": 2, "last_end": "was killed by SIGKILL"}
    assert (
        text.set_line(entry)
        == "seen 0.3 s ago; its agent restarted 2 times, the last time because it was killed by SIGKILL"
    )
    waits = {**entry, "reason": "restarts in 1.0 s: was killed by SIGKILL"}
    assert text.set_line(waits).endswith("its agent restarted 2 times")
    assert text.orphan_lines([]) == ["nothing runs unclaimed"]
