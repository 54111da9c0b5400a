from __future__ import annotations

import json

from clusterd.daemon import story as story_module
from clusterd.daemon import story_file
from clusterd.daemon.story import LIFE, Story
from clusterd.daemon.story_file import StoryFile


def told(story):
    return [event["text"] for event in story.all()]


def test_a_daemon_knows_what_its_predecessor_told(tmp_path):
    first = Story(StoryFile(tmp_path / "events.jsonl"))
    first.tell("a", "one", unit="engines", slots=[1, 2])
    for _ in range(10):
        first.touch()
    first.tell("b", "two")
    second = Story(StoryFile(tmp_path / "events.jsonl"))
    assert second.all() == first.all()
    # A number of the first life is never given again: who has it hears what is new.
    assert second.number == LIFE + 1
    second.tell("c", "three")
    assert [event["text"] for event in second.since(first.number)] == ["three"]
    assert Story(StoryFile(tmp_path / "events.jsonl")).number == 2 * LIFE + 1


def test_the_file_is_private_and_a_line_that_was_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "events.jsonl"
    Story(StoryFile(path)).tell("a", "one")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:
        file.write('{"seq": 3, "time": 1.0, "ev')
    story = Story(StoryFile(path))
    story.tell("b", "two")
    with path.open("ab") as file:
        file.write(b'[1, 2]\n\xff\xfe\n{"seq": "x"}\n')
    assert told(Story(StoryFile(path))) == ["one", "two"]


def test_it_is_rotated_and_both_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(story_file, "MAX_BYTES", story_file._ROOM + 2000)
    story = Story(StoryFile(tmp_path / "events.jsonl"))
    for number in range(60):
        story.tell("e", f"event {number}")
    sizes = [file.stat().st_size for file in sorted(tmp_path.iterdir())]
    assert len(sizes) == 2
    assert max(sizes) < 2200
    found = told(Story(StoryFile(tmp_path / "events.jsonl")))
    assert found == [f"event {number}" for number in range(60 - len(found), 60)]
    assert len(found) > 20


def test_no_more_is_read_than_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(story_module, "KEPT", 5)
    story = Story(StoryFile(tmp_path / "events.jsonl"))
    for number in range(9):
        story.tell("e", str(number))
    assert told(Story(StoryFile(tmp_path / "events.jsonl"))) == ["4", "5", "6", "7", "8"]


def test_a_directory_that_cannot_be_written_loses_the_story_and_nothing_else(tmp_path):
    story = Story(StoryFile(tmp_path / "missing" / "events.jsonl"))
    story.tell("a", "one")
    assert told(story) == ["one"]


def test_a_full_disk_loses_lines_and_later_ones_are_whole(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    file = StoryFile(path)
    story = Story(file)
    story.tell("a", "one")
    real = story_file.write_all

    def half(descriptor, data):
        real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(story_file, "write_all", half)
    story.tell("b", "lost")
    monkeypatch.setattr(story_file, "write_all", real)
    story.tell("c", "three")
    assert told(Story(StoryFile(path))) == ["one", "three"]
    assert len([line for line in path.read_text().splitlines() if line.endswith("}")]) == 2
    assert json.loads(path.read_text().splitlines()[0])["text"] == "one"
