"""clusterd: IPython-style parallel computing as a proper service.

`clusterd.Client` is the user's door; everything else is started as a program.
Importing this package must stay cheap (`clusterctl` does it at every call):
names are resolved lazily and nothing third-party is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"
__all__ = ["Client", "Dependency", "__version__", "errors"]

if TYPE_CHECKING:
    from clusterd import errors
    from clusterd.client import Client, Dependency


def __getattr__(name: str) -> Any:
    # PEP 562: the client pulls in zmq and cloudpickle (60 ms), which clusterctl, daemon and agent never need.
    if name in ("Client", "Dependency"):
        from clusterd import client  # noqa: PLC0415 - see the comment above

        return getattr(client, name)
    if name == "errors":
        # Not `from clusterd import errors`: that asks this very function for the name, for ever.
        from importlib import import_module  # noqa: PLC0415

        return import_module("clusterd.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext clusterd`: `%px` and its family; see `clusterd.client.magics`."""
    from clusterd.client import magics  # noqa: PLC0415 - as above

    magics.load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext clusterd`."""
    from clusterd.client import magics  # noqa: PLC0415 - as above

    magics.unload_ipython_extension(shell)
