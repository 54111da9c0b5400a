"""`clusterctl rotate-key`: the controller changes the keys, or, where none runs, they are changed in the files it will read.

With a controller the answer waits for a moment until peers that know where their file is have attached again: whoever is left then holds
a copy of the old one, and has to be told by people.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.model import connection
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.secrets import Keys, Secrets, secrets_name
from clusterd.core.wire.messages import ControllerStatus, RotateKeys
from clusterd.errors import ClusterdError, ControlError, ControllerLost
from clusterd.system import clock, fault, files

if TYPE_CHECKING:
    from clusterd.daemon.loop import Daemon
    from clusterd.daemon.places import Places

__all__ = ["change_in_files", "rotate_keys"]

ANSWER_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 3.0
"""So long may peers take to read their file and attach again before they are said to have a copy of the old one."""
LOOK_SECONDS: Final = 0.1
DOUBT: Final = "clusterctl status says how the controller is; keys that were changed show a grace there, and it is safe to ask again"
NATIVE: Final = ("clients", "engines", "agents")


async def rotate_keys(daemon: Daemon, grace: float) -> dict[str, Any]:
    """Change the keys.

    Returns:
        `where` (controller or files), `changed_at`, `until`, `left`, `using_old` (kind -> names), `files`, `ipython_file`.

    Raises:
        ControlError: an earlier change is not over, a file cannot be written, or there are no keys to change.
        ControllerLost: there is no connection to the controller that runs.
    """
    if not daemon.driver.supervisor.state.of_unit(CONTROLLER):
        answer = change_in_files(daemon.places, has_curve=grace == 0)
    else:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await daemon.link.request(lambda number: RotateKeys(number, grace))
        except TimeoutError:
            raise ControlError(
                f"the controller has not answered within {ANSWER_SECONDS:g} s",
                code="no_answer",
                hint=DOUBT,
            ) from None
        except ControllerLost as error:
            raise ControllerLost(error.message, hint=DOUBT) from error
        answer = {"where": "controller", **answer}
    fault.point("daemon.rotate.before_publish")
    copy = daemon.publisher.renew()
    if answer["where"] == "controller":
        answer |= await _settled(daemon, answer)
    answer["ipython_file"] = None if copy is None else str(copy)
    text = "the keys of the cluster were changed"
    if answer["left"]:
        text += f"; the earlier ones are accepted for {answer['left']:.0f} s more"
    daemon.story.tell("keys_changed", text, until=answer["until"], using_old=answer["using_old"])
    return answer


def change_in_files(places: Places, *, has_curve: bool) -> dict[str, Any]:
    """Change the keys that the next controller will have; nothing runs that could use the present ones.

    Args:
        places: the instance's files.
        has_curve: the CURVE pair as well; the next controller makes it, and puts it into the connection files.

    Raises:
        ControlError: no keys are kept, or a file cannot be read or written.
    """
    path = places.security / secrets_name()
    written = [path]
    try:
        kept = msgspec.json.decode(files.read_private(path), type=Secrets)
        now = clock.wall()
        client, engine, stock = (secrets.token_hex(32) for _ in range(3))
        kept.change(Keys(client, engine, stock, ("", "") if has_curve else None), now, 0.0)
        files.atomic_write(path, msgspec.json.encode(kept))
        sides = ((connection.ENGINE_FILE, kept.engine_key), (connection.CLIENT_FILE, kept.client_key))
        for name, key in sides:
            if (file := places.security / name).exists():
                content = connection.decode(files.read_private(file), str(file))
                content.clusterd.key = key
                if content.stock is not None:
                    content.stock.key = kept.stock_key
                files.atomic_write(file, connection.encode(content))
                written.append(file)
    except FileNotFoundError:
        raise ControlError(
            "there are no keys to change: no controller runs, and none is kept for the next one",
            hint="It makes new ones when it starts.",
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ControlError(f"the keys could not be changed in {places.security}: {error}") from error
    return {
        "where": "files",
        "changed_at": now,
        "until": None,
        "left": None,
        "using_old": {},
        "files": [str(file) for file in written],
    }


async def _settled(daemon: Daemon, answer: dict[str, Any]) -> dict[str, Any]:
    """How it stands when those who can have attached again; the controller's first word where it does not say."""
    deadline = clock.monotonic() + SETTLE_SECONDS
    about: dict[str, Any] = {}
    while clock.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        # Our own connection is made anew, too.
        with contextlib.suppress(ClusterdError, TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                status = await daemon.link.request(ControllerStatus)
            about = status["keys"]
            if not about["away"] and not any(about["using_old"].get(kind) for kind in NATIVE):
                break
    return about or {key: answer[key] for key in ("until", "left", "using_old")}
