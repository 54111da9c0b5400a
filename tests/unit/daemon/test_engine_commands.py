from __future__ import annotations

import pytest

from clusterd.daemon.engine_commands import resolve
from clusterd.errors import ControlError

ENGINES = [
    {"engine": "engines/0", "set": "engines", "slot": 0, "id": 4},
    {"engine": "engines/3", "set": "engines", "slot": 3, "id": None},
    {"engine": "gpu/0", "set": "gpu", "slot": 0, "id": 3},
]


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["engines/3"], ["engines/3"]),
        ([3], ["engines/3"]),
        (["3"], ["engines/3"]),
        (["engine/0", "engines/0", 0], ["engines/0"]),
        (["id:3"], ["gpu/0"]),
        (["engines"], ["engines/0", "engines/3"]),
        (["gpu", "engines"], ["gpu/0", "engines/0", "engines/3"]),
    ],
)
def test_what_people_write(targets, found):
    assert [engine["engine"] for engine in resolve(targets, ENGINES)] == found


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("engines/1", "not_found"),
        ("id:9", "not_found"),
        ("cpu", "bad_request"),
        ("id:None", "not_found"),
        (-1, "bad_request"),
    ],
)
def test_what_means_nothing_is_refused(target, code):
    with pytest.raises(ControlError) as caught:
        resolve([0, target], ENGINES)
    assert caught.value.code == code
