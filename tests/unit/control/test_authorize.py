"""Who is let in, what a refusal says, and what is written down; over the socket, with a directory that the test makes up."""

from __future__ import annotations

import asyncio
import json
import os
import stat

import pytest

from clusterd.control import admission
from clusterd.control.audit import ARGUMENTS_MAX, Audit
from clusterd.control.authorize import Authorizer, Caller
from clusterd.control.client import ControlClient
from clusterd.control.curtail import curtailed
from clusterd.control.directory import Directory
from clusterd.control.routes import NEEDS, PATHS
from clusterd.core.model.access import RIGHTS, Access, Subjects
from clusterd.errors import PermissionDenied
from clusterd.system.users import Person
from tests.unit.control.serving import FakeService, serving

BASE = "/v1/clusters/local"
ALICE = 70_001
LAB = Access(
    admin=Subjects(users=["bob"], groups=["hpc-admins"]),
    operate=Subjects(groups=["helpdesk"]),
    view=Subjects(users=["alice"]),
)
PEOPLE = {
    1: Person(1, "bob"),
    ALICE: Person(ALICE, "alice"),
    3: Person(3, "dora", frozenset({100, 300})),
    4: Person(4, "eve", frozenset({300})),
}
UIDS, GIDS = {"bob": 1, "alice": ALICE}, {"helpdesk": 100, "hpc-admins": 200}


def authorizer(access=LAB, **people):
    directory = Directory(people.get("person", lambda uid: PEOPLE.get(uid, Person(uid))), UIDS.get, GIDS.get, 5.0)
    return Authorizer(lambda: access, lambda: "/etc/clusterd/profiles/lab.yaml", directory)


def decide(uid, verb, need, **options):
    """Return the caller's rights, or the text of the refusal."""

    async def run():
        made = authorizer(**options)
        caller = await made.identify(Caller(99, uid, uid))
        made.check(caller, verb, need)
        return caller.rights

    try:
        return asyncio.run(run())
    except PermissionDenied as error:
        return str(error)


def test_root_and_the_owner_have_all_rights_and_are_not_looked_up():
    def person(_uid):
        raise OSError("nobody asks")

    for uid in (0, os.geteuid()):
        assert decide(uid, "stop", ("admin",), person=person) == set(RIGHTS)


def test_users_and_groups_get_what_the_profile_says():
    assert decide(1, "reload", ("admin",)) == set(RIGHTS)
    assert decide(3, "scale", ("operate",)) == {"operate", "view"}
    assert decide(ALICE, "status", ("view",)) == {"view"}


def test_a_refusal_names_the_right_that_is_missing_and_who_can_give_it():
    assert decide(ALICE, "scale", ("operate",)) == (
        "alice has view here; `scale` needs operate\n"
        "ask an admin of this cluster (bob, group hpc-admins), who can have you added to access: in"
        " /etc/clusterd/profiles/lab.yaml"
    )
    assert decide(4, "logs", ("operate", "connect")).startswith(
        "eve has no right here; `logs` needs operate or connect\n"
    )
    without = decide(ALICE, "scale", ("operate",), access=Access(view=Subjects(users=["alice"])))
    assert "ask root or " in without


def test_a_uid_that_the_directory_does_not_know_has_no_right():
    told = decide(12345, "status", ("view",))
    assert told.startswith("uid 12345 has no right here (the user directory has no name for that uid")


def test_a_directory_that_fails_refuses_with_its_reason_and_never_grants():
    def person(_uid):
        raise OSError(5, "sssd is away")

    told = decide(1, "status", ("view",), person=person)
    assert told.startswith("uid 1 cannot be told from others: the user directory")
    assert "sssd is away" in told


def test_without_access_it_is_as_it_was():
    told = decide(1, "status", ("view",), access=Access())
    assert told.startswith("uid 1 (bob) may not command this daemon, which runs as uid")


def test_every_route_says_what_it_needs():
    assert sorted(NEEDS) == sorted(PATHS.values())
    for need in NEEDS.values():
        assert need
        assert set(need) <= set(RIGHTS)
    # What changes anything is for nobody who may only look, or only compute.
    changing = {NEEDS[name] for (method, _), name in PATHS.items() if method != "GET"}
    assert changing <= {("operate",), ("admin",)}


def test_a_route_without_a_right_is_for_admins(monkeypatch, served):
    monkeypatch.delitem(NEEDS, "status")
    served.be(3)
    with pytest.raises(PermissionDenied, match="`status` needs admin"):
        served.client.get(BASE)


class Reasons(FakeService):
    """Says what a process has printed last, in an answer and in a stream."""

    reason = 'exit status 1; its output ends: KeyError: "secret \\ word"'

    def clusters(self):
        return [{"reason": self.reason, "n": 1}, {"reason": "exit status 2; its log ends: x"}]

    async def _lines(self, follow):
        yield {"text": f"engines/1 died: {self.reason}", "seq": 1}


class Served:
    """A server, and whoever the kernel says is calling it."""

    def __init__(self, client, service, audit, monkeypatch):
        self.client, self.service, self._audit, self._patch = client, service, audit, monkeypatch

    def be(self, uid):
        self._patch.setattr(admission, "caller_of", lambda _socket: Caller(4711, uid, uid))

    def audited(self):
        return [json.loads(line) for line in self._audit.read_text().splitlines()] if self._audit.exists() else []


@pytest.fixture
def served(isolated, monkeypatch):
    path = isolated.runtime / "local" / "control.sock"
    audit = Audit(isolated.state / "audit.log")
    with serving(path, Reasons(), authorizer(), audit) as (service, _):
        yield Served(ControlClient(path), service, isolated.state / "audit.log", monkeypatch)
    audit.close()


def test_commands_and_refusals_are_written_down_and_questions_are_not(served, isolated):
    served.be(3)
    served.client.put(f"{BASE}/sets/gpu", {"n": 4})
    served.client.get(BASE)
    served.be(ALICE)
    served.client.get(BASE)
    for ask in (
        lambda: served.client.put(f"{BASE}/sets/gpu", {"n": 1}),
        lambda: served.client.get(f"{BASE}/logs", source="daemon"),
    ):
        with pytest.raises(PermissionDenied):
            ask()
    served.be(1)
    with pytest.raises(Exception, match="unknown key"):
        served.client.post(f"{BASE}/reload")
    served.client.post(f"{BASE}/engines/kill", {"targets": ["engines/1"]})
    lines = served.audited()
    assert [(line["user"], line["verb"], line["arguments"], line["outcome"]) for line in lines] == [
        ("dora", "scale", {"set": "gpu", "n": 4}, "done"),
        # Of who may not, nothing is read but the first line.
        ("alice", "scale", {"set": "gpu"}, "denied"),
        ("alice", "logs", {"source": "daemon"}, "denied"),
        ("bob", "reload", {}, "profile"),
        ("bob", "engines kill", {"command": "kill", "targets": ["engines/1"]}, "done"),
    ]
    assert (lines[1]["uid"], lines[1]["pid"]) == (ALICE, 4711)
    assert lines[1]["reason"] == "alice has view here; `scale` needs operate"
    assert stat.S_IMODE((isolated.state / "audit.log").stat().st_mode) == 0o600
    assert [call[0] for call in served.service.calls] == ["scale gpu", "engines kill"]


def test_who_may_only_look_does_not_see_what_was_printed(served):
    served.be(3)
    assert served.client.get("/v1/clusters")["clusters"][0]["reason"] == Reasons.reason
    served.be(ALICE)
    assert served.client.get("/v1/clusters")["clusters"] == [
        {"reason": "exit status 1", "n": 1},
        {"reason": "exit status 2"},
    ]
    [event] = served.client.stream(f"{BASE}/events")
    assert event == {"text": "engines/1 died: exit status 1", "seq": 1}


@pytest.mark.parametrize("text", ["", "plain", 'a "quoted" \\ end', "; its output ends", "ü; its log ends: \n"])
def test_json_stays_json_when_it_is_curtailed(text):
    data = json.dumps({"a": f"died; its output ends: {text}", "b": [text, 1]}).encode()
    assert json.loads(curtailed(data))["a"] == "died"
    assert json.loads(curtailed(data))["b"] == [text.partition("; its log ends: ")[0], 1]


DORA = Caller(1, 3, 3, "dora")


def test_the_log_is_rotated_and_found_again_when_it_was_moved(tmp_path):
    path = tmp_path / "audit.log"
    audit = Audit(path, max_bytes=600)
    for number in range(6):
        audit.note(0.0, DORA, "scale", {"n": number}, "done", "")
    lines = [line for file in ("audit.log.1", "audit.log") for line in (tmp_path / file).read_text().splitlines()]
    kept = [json.loads(line)["arguments"]["n"] for line in lines]
    assert kept == sorted(kept)
    assert kept[-1] == 5
    assert path.stat().st_size <= 600
    path.rename(tmp_path / "moved")
    audit.note(0.0, DORA, "stop", {}, "done", "")
    assert len(path.read_text().splitlines()) == 1
    audit.note(0.0, DORA, "engines kill", {"targets": ["engines/1"] * 1000}, "done", "")
    assert len(path.read_text().splitlines()[-1]) < 2 * ARGUMENTS_MAX
    audit.close()


def test_a_log_that_cannot_be_written_is_a_problem_and_no_more(tmp_path):
    audit = Audit(tmp_path / "missing" / "audit.log")
    audit.note(0.0, DORA, "scale", {}, "done", "")
    assert "audit.log cannot be written: No such file or directory" in audit.problem
    (tmp_path / "missing").mkdir()
    audit.note(0.0, DORA, "scale", {}, "done", "")
    assert audit.problem == ""
    audit.note_client(0.0, "notebook of alice", "stop")
    line = json.loads((tmp_path / "missing" / "audit.log").read_text().splitlines()[-1])
    assert (line["client"], line["verb"], line["uid"]) == ("notebook of alice", "stop", None)
    audit.close()
