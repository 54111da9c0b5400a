from __future__ import annotations

import pytest

from clusterd.control import requests
from clusterd.control.requests import decode_body, decode_query
from clusterd.errors import ControlError


def refusal(function, *arguments):
    with pytest.raises(ControlError) as caught:
        function(*arguments)
    assert caught.value.code == "bad_request"
    return str(caught.value)


def test_an_empty_body_is_an_empty_object():
    assert decode_body(requests.Stop, b"") == decode_body(requests.Stop, b" {} \n") == requests.Stop()


@pytest.mark.parametrize(
    ("kind", "body", "parts"),
    [
        (requests.Scale, b'{"n": "many"}', ["field `n`", "expected int"]),
        (requests.Scale, b'{"n": -1}', ["field `n`", ">= 0"]),
        (requests.Scale, b'{"n": 3.5}', ["field `n`"]),
        (requests.Scale, b'{"n": true}', ["field `n`"]),
        (requests.Scale, b'{"n": 99999999}', ["field `n`", "65536"]),
        (requests.Scale, b"{}", ["field `n` is missing"]),
        (requests.Scale, b'{"n": 1, "drian_timeout": 3}', ["unknown field `drian_timeout`", "mean `drain_timeout`"]),
        (requests.Scale, b"[1]", ["expected object"]),
        (requests.Scale, b"null", ["expected object"]),
        (requests.Scale, b"n=3", ["not JSON"]),
        (requests.Scale, b'{"n": 3', ["not JSON"]),
        (requests.Scale, b"\xff\xfe{}", ["not JSON"]),
        (requests.Targets, b'{"targets": []}', ["field `targets`"]),
        (requests.Targets, b'{"targets": [1, null]}', ["field `targets`"]),
        (requests.Empty, b'{"x": 1}', ["unknown field `x`", "no field is taken here"]),
    ],
)
def test_a_wrong_body_is_told_by_its_field(kind, body, parts):
    message = refusal(decode_body, kind, body)
    for part in parts:
        assert part in message


def test_query_parameters_are_words_of_people():
    assert decode_query(requests.Logs, {"follow": "yes", "tail": "5"}) == requests.Logs(follow=True, tail=5)
    assert decode_query(requests.Events, {"follow": "0", "since": "17"}) == requests.Events(follow=False, since=17)
    assert "parameter `tail`" in refusal(decode_query, requests.Logs, {"tail": "all"})
    assert "mean `follow`" in refusal(decode_query, requests.Logs, {"folow": "1"})
    assert "converged" in refusal(decode_query, requests.StatusQuery, {"wait": "done"})
