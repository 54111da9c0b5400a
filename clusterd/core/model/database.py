"""Where a controller keeps the records of tasks: the settings of each kind of store. Sizes are bytes, ages seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from clusterd.core.model.setting import AGE, BYTES, GIB, MIB, PATH, form, setting

__all__ = ["DURABLE_DATABASES", "Database", "Durable", "MongodbRecords", "Records", "SqliteRecords"]

Database = Literal["memory", "sqlite", "mongodb", "none"]
Durable = Literal["off", "process", "disk"]
DURABLE_DATABASES = frozenset({"sqlite", "mongodb"})
"""Those that a controller can go on from where another one was killed."""

_MONTH = 30 * 86400.0


class Records(Struct, frozen=True, kw_only=True):
    """How much the controller remembers of finished tasks, with `database: memory`. The oldest go first."""

    tasks: Annotated[
        Annotated[int, Meta(ge=0, le=100_000_000)], setting("Finished tasks that are remembered.", "controller")
    ] = 65_536
    memory: Annotated[BYTES, setting("Memory for their results.", "controller", unit="bytes")] = 128 * MIB


class SqliteRecords(Struct, frozen=True, kw_only=True):
    """The file `db/tasks.db` in the state directory, with `database: sqlite`."""

    ttl: Annotated[
        AGE | None,
        setting(
            "Seconds that a finished task is remembered, also one whose client has not come for its outcome; null: without end.",
            "controller",
        ),
    ] = _MONTH
    max_size: Annotated[
        BYTES,
        setting(
            "Size of all records together; the oldest go first, but what is owed to a client, with `durable`, stays. Where that alone"
            " is too much, new tasks are refused.",
            "controller",
            unit="bytes",
        ),
    ] = 4 * GIB


class MongodbRecords(Struct, frozen=True, kw_only=True):
    """A MongoDB server, with `database: mongodb`. It needs the extra `clusterd[mongodb]`."""

    uri: Annotated[
        Annotated[
            str,
            # That it has no password is for a rule to say, which does not repeat it.
            form(r"^mongodb(\+srv)?://\S{1,2000}$", "a MongoDB URI"),
        ],
        setting(
            "Where it is. User and password stand in `credentials`, never here: others may read a profile.",
            "controller",
            example="mongodb://db1.example.org:27017/?tls=true",
        ),
    ] = "mongodb://127.0.0.1:27017"
    database: Annotated[
        Annotated[str, form(r"^[A-Za-z0-9_-]{1,63}$", "the name of a MongoDB database")],
        setting("Name of the database on it; each cluster has collections of its own there.", "controller"),
    ] = "clusterd"
    credentials: Annotated[
        PATH | None,
        setting(
            "File with a line `user:password`, mode 0600; null: none are needed.",
            "controller",
            example="/etc/clusterd/mongodb.credentials",
        ),
    ] = None
    options: Annotated[
        dict[
            Annotated[str, form(r"^[A-Za-z]{1,64}$", "the name of an option of MongoDB URIs")],
            Annotated[str, Meta(max_length=4096)],
        ],
        setting(
            "Further options as in a URI (TLS, replica set, time-outs). Values are text: quote numbers.",
            "controller",
            example={"tls": "true", "tlsCAFile": "/etc/ssl/site.pem"},
        ),
    ] = field(default_factory=dict)
    ttl: Annotated[
        AGE | None,
        setting(
            "Seconds that a finished task is remembered, also one whose client has not come for its outcome; null: without end.",
            "controller",
        ),
    ] = _MONTH
