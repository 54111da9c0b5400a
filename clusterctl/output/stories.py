"""What `explain` tells, as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterctl.output.text import age, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["story_lines", "task_line"]


def story_lines(story: dict[str, Any]) -> list[str]:
    """Return the lines of `explain`."""
    return list(_lines(story))


def task_line(task: dict[str, Any]) -> str:
    """Return one task that an engine runs: what, for how long, whose."""
    name = task.get("label") or task.get("function") or "a task"
    whose = f", of {task['owner']}" if task.get("owner") else ""
    return f"{name} ({task['short']}) for {age(task['for'])}{whose}"


def _lines(story: dict[str, Any]) -> Iterator[str]:
    reason = f": {story['reason']}" if story.get("reason") else ""
    yield f"{story['subject']} is {story['state']}{reason}"
    if story.get("tasks"):
        yield f"  it runs {task_line(story['tasks'][0])}"
        if more := len(story["tasks"]) - 1 + story.get("more_tasks", 0):
            yield f"  {more} more wait in it"
    if story.get("hint"):
        yield f"  {story['hint']}"
    yield from _steps(story)
    if story["output"]:
        yield from ("", "its log ends:", *(f"  {line}" for line in story["output"]))


def _steps(story: dict[str, Any]) -> Iterator[str]:
    first = story["first_abnormal"]
    if first is not None:
        over = " (it has passed)" if story["is_over"] else ""
        yield f"first abnormal step{over}: {moment(first['time'])} {first['text']}"
    elif story["steps"]:
        yield "nothing abnormal is known of it"
    if story["steps"]:
        yield ""
    if story["left_out"]:
        yield f"  ... {story['left_out']} older steps: clusterctl events"
    for step in story["steps"]:
        yield f"{'!' if step['is_abnormal'] else ' '} {moment(step['time'])} {step['text']}"
