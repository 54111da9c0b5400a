"""`database: mongodb`: a document for each task in the collection CLUSTER.tasks, what is large in the GridFS bucket CLUSTER.buffers.

The server may be away, at the start too: work goes on, records wait within their bound, and questions are refused at once, because
they come from the thread that serves everybody. Writing a row twice is the same as writing it once, so a batch that failed
half-way is written again. Documents are bounded by 16 MiB (https://www.mongodb.com/docs/manual/reference/limits/). User and password
come from a file of mode 0600; they are in no argument and no text.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clusterd.errors import StorageError
from clusterd.storage.taskstore import documents
from clusterd.storage.taskstore.durable import DurableStore
from clusterd.storage.taskstore.row import HIDDEN, OUTCOME, REQUEST
from clusterd.system import files

try:
    import gridfs
    import pymongo
    from bson.errors import BSONError
    from pymongo.errors import ConnectionFailure, DocumentTooLarge, PyMongoError
except ImportError as error:
    raise StorageError(
        "database: mongodb needs pymongo, which is not installed", hint="pip install 'clusterd[mongodb]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from clusterd.core.model.database import MongodbRecords
    from clusterd.storage.taskstore.pages import Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

# A question holds up the controller no longer than this when the server has just gone.
SELECTION_MS: Final = 2000
SOCKET_MS: Final = 20_000
CULL: Final = 1000
# What has ended and is owed to a stock client grows old, too: nobody ever says that it is not wanted any more.
_INDEXES: Final = ("order", "submitted", "completed", "client", "engine")
_FILES_INDEX: Final = "metadata.task"


class MongoStore(DurableStore):
    """Records on a MongoDB server."""

    kind: ClassVar[str] = "mongodb"


def open_mongodb(settings: MongodbRecords, cluster: str, *, is_durable: bool = False) -> MongoStore:
    """The store that a profile asks for.

    Raises:
        StorageError: the settings cannot be used; not that the server is away.
    """
    return MongoStore(MongoDatabase(settings, cluster, is_durable=is_durable), is_durable=is_durable)


class MongoDatabase:
    """The collections of one cluster: a `backend.Backend`. How much they may hold is the server's business."""

    has_excess = False
    refusal = ""

    def __init__(self, settings: MongodbRecords, cluster: str, *, is_durable: bool = False) -> None:
        self._ttl = settings.ttl
        self._where = settings.uri
        try:
            self._client: Any = pymongo.MongoClient(
                settings.uri,
                **{
                    "serverSelectionTimeoutMS": SELECTION_MS,
                    "socketTimeoutMS": SOCKET_MS,
                    "appname": "clusterd",
                    **settings.options,
                    **_credentials(settings.credentials),
                },
            )
        except (PyMongoError, ValueError, TypeError) as error:
            raise StorageError(f"MongoDB at {settings.uri} cannot be used: {error}") from error
        database = self._client[settings.database]
        concern = pymongo.WriteConcern(w=1, j=True) if is_durable and "w" not in settings.options else None
        self._tasks = database.get_collection(f"{cluster}.tasks", write_concern=concern)
        self._functions = database.get_collection(f"{cluster}.functions", write_concern=concern)
        self._bucket = gridfs.GridFSBucket(database, f"{cluster}.buffers")
        self._files = database[f"{cluster}.buffers.files"]
        self._has_indexes = False
        # The server did not answer the last time that it was asked.
        self._is_away = False
        self._records = 0
        self._bytes = 0

    def open(self) -> int:
        """See `Backend`: nothing is asked of the server, which may be away. Orders grow with time, so none is used twice."""
        return int(time.time() * 1_000_000)

    # --- the writer's thread ---

    def write(self, rows: Sequence[tuple[TaskRow, int]], purged: Collection[str], settled: Collection[str]) -> None:
        """See `Backend`."""
        with self._guarded(is_asking=False):
            self._make_indexes()
            if purged:
                self._remove(list(purged))
            operations: list[Any] = []
            for row, parts in rows:
                fields = documents.fields_of(row, parts, self._upload)
                if parts & REQUEST:
                    operations.append(pymongo.ReplaceOne({"_id": row.msg_id}, fields, upsert=True))
                else:
                    # Without upsert: what was purged meanwhile stays so.
                    operations.append(pymongo.UpdateOne({"_id": row.msg_id}, {"$set": fields}))
            if operations:
                self._records += self._tasks.bulk_write(operations, ordered=False).upserted_count
            if settled:
                self._tasks.update_many({"_id": {"$in": list(settled)}}, {"$set": {"is_owed": False}})
        self._bytes += sum(row.size for row, parts in rows if parts & (REQUEST | OUTCOME))

    def _make_indexes(self) -> None:
        if self._has_indexes:
            return
        for name in _INDEXES:
            self._tasks.create_index(name)
        self._files.create_index(_FILES_INDEX)
        self._count()
        self._has_indexes = True

    def _count(self) -> None:
        (found,) = list(
            self._tasks.aggregate([{"$group": {"_id": None, "records": {"$sum": 1}, "bytes": {"$sum": "$size"}}}])
        ) or [{"records": 0, "bytes": 0}]
        self._records, self._bytes = int(found["records"]), int(found["bytes"])

    def _upload(self, msg_id: str, part: str, data: Any) -> str:
        """Store what is too large for a document; what was there under this name is replaced."""
        name = f"{msg_id}/{part}"
        with contextlib.suppress(gridfs.NoFile):
            self._bucket.delete(name)
        with self._bucket.open_upload_stream_with_id(name, name, metadata={"task": msg_id}) as stream:
            view = memoryview(data)
            for start in range(0, len(view), documents.PIECE):
                stream.write(bytes(view[start : start + documents.PIECE]))
        return name

    def _remove(self, msg_ids: list[str]) -> None:
        self._records -= self._tasks.delete_many({"_id": {"$in": msg_ids}}).deleted_count
        for found in self._files.find({_FILES_INDEX: {"$in": msg_ids}}, {"_id": 1}):
            with contextlib.suppress(gridfs.NoFile):
                self._bucket.delete(found["_id"])

    def tidy(self, now: float, is_kept: Callable[[str], bool]) -> int:
        """See `Backend`."""
        removed = 0
        with self._guarded(is_asking=False):
            self._make_indexes()
            if self._ttl is not None:
                before = now - self._ttl
                # What an earlier controller left unended, and owes to nobody, has nobody who could end it.
                # What has ended grows old, also when it is owed: a client that was killed never says that it does not want it any more.
                removed += self._cull({"completed": {"$lt": before}}, is_kept)
                removed += self._cull(
                    {"completed": None, "submitted": {"$lt": before}, "is_owed": {"$ne": True}}, is_kept
                )
            self._count()
        return removed

    def _cull(self, where: dict[str, Any], is_kept: Callable[[str], bool]) -> int:
        removed, last = 0, -1
        while True:
            old = {**where, "order": {"$gt": last}}
            found = list(self._tasks.find(old, {"order": 1}).sort("order", 1).limit(CULL))
            if not found:
                return removed
            last = found[-1]["order"]
            doomed = [document["_id"] for document in found if not is_kept(document["_id"])]
            self._remove(doomed)
            removed += len(doomed)

    # --- the caller's thread ---

    def get(self, msg_id: str, *, buffers: bool) -> TaskRow | None:
        """See `Backend`."""
        with self._guarded():
            found = self._tasks.find_one({"_id": msg_id}, None if buffers else documents.WITHOUT_BUFFERS)
            return None if found is None else documents.row_of(found, self._download, has_buffers=buffers)

    def read(self, query: Query, limit: int | None, *, buffers: bool) -> list[TaskRow]:
        """See `Backend`."""
        rows: list[TaskRow] = []
        with self._guarded():
            where, _ = documents.translated(query)
            shown = None if buffers else documents.WITHOUT_BUFFERS
            for found in self._tasks.find(where, shown).sort("order", 1):
                if len(rows) == limit:
                    break
                row = documents.row_of(found, self._download, has_buffers=buffers)
                if query.matches(row):
                    rows.append(row)
        return rows

    def page(
        self, query: Query, span: Span, limit: int, look: int, *, newest_first: bool
    ) -> tuple[list[TaskRow], int | None]:
        """See `Backend`."""
        direction = -1 if newest_first else 1
        rows: list[TaskRow] = []
        with self._guarded():
            ordered = self._tasks.find({"order": {"$gt": span.after, "$lt": span.end}}, {"order": 1})
            ordered = ordered.sort("order", direction)
            edge = next((int(found["order"]) for found in ordered.skip(look - 1).limit(1)), None)
            part = span if edge is None else span.until(edge, newest_first=newest_first)
            where, _ = documents.translated(query)
            order = {"order": {"$gt": part.after, "$lt": part.end}}
            chosen = self._tasks.find({"$and": [order, where]}, documents.WITHOUT_BUFFERS)
            for found in chosen.sort("order", direction):
                row = documents.row_of(found, self._download, has_buffers=False)
                if query.matches(row):
                    rows.append(row)
                    if len(rows) == limit:
                        return rows, row.order
        return rows, edge

    def named(self, pattern: str, limit: int) -> list[str]:
        """See `Backend`."""
        expression = "^" + re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") + "$"
        with self._guarded():
            return [
                found["_id"] for found in self._tasks.find({"_id": {"$regex": expression}}, {"_id": 1}).limit(limit)
            ]

    def matching_ended(self, query: Query) -> list[str]:
        """See `Backend`."""
        where, is_exact = documents.translated(query)
        if not is_exact:
            return [row.msg_id for row in self.read(query, None, buffers=False) if row.outcome is not None]
        with self._guarded():
            ended = {"$and": [where, {"completed": {"$ne": None}}]}
            return [found["_id"] for found in self._tasks.find(ended, {"_id": 1})]

    def unfinished(self) -> list[TaskRow]:
        """See `Backend`."""
        with self._guarded():
            found = self._tasks.find({"is_owed": True, "completed": None}).sort("order", 1)
            return [documents.row_of(document, self._download, has_buffers=True) for document in found]

    def owed_to(self, client: str) -> list[tuple[int, str, int]]:
        """See `Backend`."""
        owed = {"is_owed": True, "completed": {"$ne": None}, "client": client}
        with self._guarded():
            found = self._tasks.find(owed, {"order": 1, "size": 1}).sort("order", 1)
            return [(document["order"], document["_id"], document["size"]) for document in found]

    def whole(self, msg_ids: Sequence[str]) -> list[TaskRow]:
        """See `Backend`."""
        with self._guarded():
            found = self._tasks.find({"_id": {"$in": list(msg_ids)}})
            return [documents.row_of(document, self._download, has_buffers=True) for document in found]

    def write_functions(self, kept: Mapping[bytes, Sequence[Any]], dropped: Collection[bytes]) -> None:
        """See `Backend`. A function's parts lie in GridFS, one after another: it may be larger than a document."""
        with self._guarded(is_asking=False):
            for digest in {*dropped, *kept}:
                self._functions.delete_one({"_id": digest})
                for found in self._files.find({"metadata.function": digest}, {"_id": 1}):
                    with contextlib.suppress(gridfs.NoFile):
                        self._bucket.delete(found["_id"])
            for digest, parts in kept.items():
                names = []
                for number, data in enumerate(parts):
                    name = f"{digest.hex()}/function/{number}"
                    self._bucket.upload_from_stream_with_id(name, name, bytes(data), metadata={"function": digest})
                    names.append(name)
                # Last: what is named here is there.
                self._functions.insert_one({"_id": digest, "parts": names})

    def functions(self) -> dict[bytes, list[bytes]]:
        """See `Backend`."""
        with self._guarded():
            return {
                bytes(found["_id"]): [self._download(name) for name in found["parts"]]
                for found in self._functions.find({})
            }

    def history(self) -> Iterable[tuple[float, str]]:
        """See `Backend`."""
        with self._guarded():
            return [
                (found["submitted"], found["_id"])
                for found in self._tasks.find({"queue": {"$nin": list(HIDDEN)}}, {"submitted": 1})
            ]

    def _download(self, name: str) -> bytes:
        with self._bucket.open_download_stream(name) as stream:
            return bytes(stream.read())

    def size(self) -> tuple[int, int]:
        """See `Backend`."""
        return self._records, self._bytes

    def close(self) -> None:
        """See `Backend`."""
        self._client.close()

    @contextlib.contextmanager
    def _guarded(self, *, is_asking: bool = True) -> Iterator[None]:
        if is_asking and self._is_away:
            raise StorageError(f"MongoDB at {self._where} does not answer")
        try:
            yield
        except (BSONError, DocumentTooLarge):
            raise  # of one row: trying again would not help
        except PyMongoError as error:
            self._is_away = isinstance(error, ConnectionFailure)
            # What follows is the state of all of pymongo's machinery, on a line of a thousand characters.
            text = re.split(r" \(configured timeouts|, Timeout:|, Topology|, full error", str(error), maxsplit=1)[0]
            raise StorageError(f"MongoDB at {self._where}: {text}") from error
        except gridfs.NoFile as error:
            raise StorageError(f"MongoDB at {self._where} has lost a buffer: {error}") from error
        self._is_away = False


def _credentials(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    file = Path(path).expanduser()
    try:
        text = files.read_private(file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{file} cannot be read: {error}") from error
    user, colon, password = text.partition(":")
    if not (user and colon and password) or "\n" in text:
        raise StorageError(f"{file} must have one line, user:password")
    return {"username": user, "password": password}
