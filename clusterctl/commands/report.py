"""`clusterctl report`: one archive for a ticket, with what is needed to find a fault and without secrets."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.reports.gathering import Gathering
from clusterctl.reports.redaction import REMOVED, Redactor, credentials_of, secrets_in
from clusterd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterctl.target import Target

__all__ = ["report"]


@click.command()
@click.option("-o", "--output", metavar="FILE", help="Where to; by default a new file in the present directory.")
@as_json
@click.pass_obj
def report(target: Target, *, output: str | None, is_json: bool) -> None:
    """Write an archive for a ticket: profile, status, events, stories of what is not well, logs, versions, environment.

    Keys, tokens, passwords and what looks like one are removed. Read it before you send it: what users print is in the logs.
    It works without a daemon as well, with what the files tell.
    """
    name = target.name
    gathering = Gathering(target)
    secrets = credentials_of(gathering.profile)
    try:
        secrets |= secrets_in(gathering.state / "security")
    except (OSError, ValueError) as error:
        # Without them nobody could say what must not be in it.
        raise ControlError(
            f"the keys of {name} cannot be read, so it is not known what to remove: {error}",
            code="denied",
            hint="run this as the user whose cluster it is, or as root",
        ) from error
    redactor = Redactor(secrets)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(output or f"clusterd-report-{name}-{stamp}.tar.gz")
    parts = [(part, redactor.clean(text)) for part, text in gathering.parts()]
    note = [f"clusterctl report of {name}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}", f"{REMOVED}: was a secret"]
    parts.insert(0, ("README.txt", redactor.clean("\n".join([*note, "", *gathering.problems, ""]))))
    _write(path, f"clusterd-report-{name}-{stamp}", parts)
    lines = [f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB); read it before you send it"]
    lines += [f"  missing: {problem}" for problem in gathering.problems]
    answer = {"file": str(path.resolve()), "parts": [part for part, _ in parts], "missing": gathering.problems}
    print_answer(answer, lines, is_json=is_json)


def _write(path: Path, folder: str, parts: Iterable[tuple[str, str]]) -> None:
    """Write the archive, readable for its owner alone from the beginning; never over something else."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControlError(
            f"cannot write {path}: {error.strerror}", code="usage", hint="-o FILE names another"
        ) from error
    now = int(time.time())
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in parts:
                data = text.encode(errors="replace")
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, now
                archive.addfile(member, io.BytesIO(data))
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
