"""README's section on the client does what it says: the script and the notebook, word for word."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from tests.waiting import until

SECTION = (
    (Path(__file__).parents[2] / "README.md")
    .read_text()
    .partition("## What the client can do\n")[2]
    .partition("\n## ")[0]
)
(SCRIPT,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(NOTEBOOK,) = re.findall(r"```ipython\n(.*?)```", SECTION, re.DOTALL)


def shown(script):
    """Values of the expressions that are lines of their own, in order."""
    return re.sub(
        r"^((?:list|client\.task_records|client\.resubmit|client\.purge_tasks|view\.with)\(?.*)$",
        r"values.append(\1)",
        script,
        flags=re.MULTILINE,
    )


def test_the_script(client):
    names = {"client": client, "view": client.load_balanced_view(), "values": []}
    exec(compile(shown(SCRIPT), "README", "exec"), names)  # noqa: S102 - it is what is tested
    printed, pid, squares, records, again, purged = names["values"]
    assert printed is None
    assert pid == client[names["first"].engine_id].apply_sync(__import__("os").getpid)
    assert squares == [0, 1, 4, 9, 16]
    (record,) = records
    assert record["msg_id"] == names["future"].task_id
    assert (record["status"], record["engine_id"]) == ("ok", names["future"].engine_id)
    assert record["started"] <= record["completed"]
    assert again == 22
    assert purged >= 7
    assert names["future"].result() == 22
    # A stream that nobody holds any more ends; here the test does.
    names["squares"].close()
    until(lambda: not any(thread.name == "clusterd-map" for thread in threading.enumerate()), "the end of the stream")


def test_the_notebook(client, shell, capsys):
    shell.user_ns["client"] = client
    # A cell of its own for each line, but those of %%px.
    head, cell, rest = re.match(r"(.*?)(%%px.*?\n[^%]*\n)(.*)", NOTEBOOK, re.DOTALL).groups()
    for each in (*head.splitlines(), cell):
        result = shell.run_cell(each)
        assert result.success, (each, capsys.readouterr())
    assert shell.user_ns["job"].wait(30)
    capsys.readouterr()
    for each in rest.splitlines():
        assert shell.run_cell(each).success
    assert capsys.readouterr().out == "[stdout:0] 2\n[stdout:1] 2\n%autopx is on\n"
