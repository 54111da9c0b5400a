"""Makes the store that a controller is told to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.errors import StorageError
from clusterd.storage.taskstore.memory import MemoryStore
from clusterd.storage.taskstore.none import NoStore

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.core.model.database import MongodbRecords, Records, SqliteRecords
    from clusterd.storage.taskstore.base import TaskStore

DATABASES: Final = ("memory", "sqlite", "mongodb", "none")


def open_store(
    database: str,
    directory: Path,
    records: Records,
    sqlite: SqliteRecords,
    mongodb: MongodbRecords,
    cluster: str = "default",
    cluster_id: str = "",
    durable: str = "off",
) -> TaskStore:
    """Open a store.

    Args:
        database: one of DATABASES.
        directory: `db` in the state directory.
        records: bounds of memory.
        sqlite: bounds of a file.
        mongodb: which server.
        cluster: name of the cluster: those that share a server have collections of their own.
        durable: what a commit is to survive: off (nobody waits for it), process, disk.
        cluster_id: tells those apart that share a state directory; empty for one that has it alone.

    Raises:
        StorageError: it cannot be opened.
    """
    match database:
        case "none":
            return NoStore()
        case "memory":
            return MemoryStore(records.tasks, records.memory)
        case "sqlite":
            from clusterd.storage.taskstore.sqlite import SqliteStore  # noqa: PLC0415 - a ms that most need not pay

            path = directory / file_name(cluster_id)
            return SqliteStore(
                path,
                ttl=sqlite.ttl,
                max_bytes=sqlite.max_size,
                is_synced=durable == "disk",
                is_durable=durable != "off",
            )
        case "mongodb":
            from clusterd.storage.taskstore.mongodb import open_mongodb  # noqa: PLC0415 - an extra

            name = f"{cluster}-{cluster_id}" if cluster_id else cluster
            return open_mongodb(mongodb, name, is_durable=durable != "off")
        case _:
            raise StorageError(f"database {database!r} is none of {', '.join(DATABASES)}")


def file_name(cluster_id: str) -> str:
    """The file in the directory `db`."""
    return f"tasks-{cluster_id}.db" if cluster_id else "tasks.db"
