"""`clusterctl connect`: what to type in Python, here and on another host, and what lets ipyparallel find the cluster by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterd.errors import ConnectionFileError, ControlError

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["connect"]


@click.command()
@click.option(
    "--ipython",
    "is_for_ipython",
    is_flag=True,
    help="Put the client file into the IPython directory ($IPYTHONDIR, else ~/.ipython), where"
    " `ipyparallel.Client(profile=NAME)` looks for it.",
)
@click.option("--profile-name", metavar="NAME", help="With --ipython: name of the IPython profile, if not the same.")
@click.option("--remove", "is_removing", is_flag=True, help="With --ipython: take the file away again.")
@click.option("--force", "is_forced", is_flag=True, help="With --ipython: even if it is another living controller's.")
@as_json
@click.pass_obj
def connect(
    target: Target, *, is_for_ipython: bool, profile_name: str | None, is_removing: bool, is_forced: bool, is_json: bool
) -> None:
    """Print how to connect from Python."""
    if is_for_ipython:
        _for_ipython(target, profile_name, is_removing=is_removing, is_forced=is_forced, is_json=is_json)
        return
    if profile_name is not None or is_removing or is_forced:
        raise click.UsageError("--profile-name, --remove and --force are for --ipython")
    answer = target.client().get(f"{target.path}/connection")
    print_answer(answer, _lines(answer), is_json=is_json)


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = ["import clusterd", f'client = clusterd.Client("{answer["profile"]}")']
    file = answer["client_file"]
    if not answer["is_ready"]:
        lines.append(f"# {file} is not there yet: the controller is {answer['controller']}")
        return lines
    if answer["is_local_only"]:
        lines.append(f"# on this host only ({answer['url']}); the connection file is {file}")
    else:
        lines.append(f"# on another host, with a copy of {file} (it holds a key: mode 0600):")
        lines.append('# client = clusterd.Client("path/to/ipcontroller-client.json")')
    if answer.get("ipython_file"):
        lines.append(f'# or ipyparallel.Client(profile="{answer["profile"]}")')
    elif answer.get("stock") in {"on", "curve"}:
        lines.append(f'# or ipyparallel.Client("{file}"); by name after: clusterctl connect --ipython')
    elif answer.get("stock") == "off":
        lines.append("# ipyparallel is not served: controller.stock of the profile is off")
    return lines


def _for_ipython(
    target: Target, profile_name: str | None, *, is_removing: bool, is_forced: bool, is_json: bool
) -> None:
    from clusterd.publish import place, publish_file, withdraw  # noqa: PLC0415 - for this option alone

    name = profile_name or target.name
    file = place(name)
    if is_removing:
        # The daemon may be gone, and its controller: what was put there is found all the same.
        was_there = withdraw(file, target.name, is_forced=is_forced)
        said = f"removed {file}" if was_there else f"there is no {file}"
        print_answer({"profile": target.name, "file": str(file), "is_removed": was_there}, [said], is_json=is_json)
        return
    answer = target.client().get(f"{target.path}/connection")
    if not answer["is_ready"]:
        raise ControlError(
            f"the controller of {answer['profile']} is {answer['controller']}",
            hint="try again when it runs: clusterctl status",
        )
    try:
        is_changed = publish_file(Path(answer["client_file"]), file, is_forced=is_forced, owner=answer["uid"])
    except OSError as error:
        raise ConnectionFileError(f"{error.filename or file}: {error.strerror}") from error
    told = {"profile": answer["profile"], "ipython_profile": name, "file": str(file), "is_changed": is_changed}
    lines = [
        f"{file} {'is' if is_changed else 'was already'} there; a key is in it, for you alone. In Python:",
        "import ipyparallel",
        f'client = ipyparallel.Client(profile="{name}")',
    ]
    print_answer(told, lines, is_json=is_json)
