"""The bytes of a journal segment (JOURNAL.md): pure functions, no files.

A batch is all or nothing: the records of one command have one checksum. A bad batch at the very end of a segment is a torn
append that nobody was told of; one that is followed by an intact batch is damage, because a batch is written only
after the one before it was synced; so is a bad snapshot, because a segment gets its name only when that is on disk.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMAT", "HEADER_SIZE", "Damage", "Scan", "encode_batch", "encode_header", "scan"]

FORMAT: Final = 1
MAGIC: Final = b"CLUSTRDJ"
MARK: Final = b"\xc1BAT"
"""Begins each batch. 0xc1 is never used in MessagePack and never valid in UTF-8, so searching for it finds few strangers."""

# magic, format, reserved, segment number, sequence number of the first batch; then CRC-32 of these.
_HEADER = struct.Struct("<8sHHQQ")
_CRC = struct.Struct("<I")
# mark, length of the body, sequence number, wall time; then CRC-32 of these and the body; then the body.
_BATCH = struct.Struct("<4sIQd")
_LENGTH = struct.Struct("<I")
HEADER_SIZE: Final = _HEADER.size + _CRC.size
_BATCH_SIZE: Final = _BATCH.size + _CRC.size


class Batch(NamedTuple):
    """One intact batch: its number, wall time, records, and the offset after it."""

    sequence: int
    wall_time: float
    records: list[bytes]
    end: int


class Damage(Exception):
    """What is wrong with a segment, and at which byte; the journal makes a StorageError of it that names the file."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


class Scan(NamedTuple):
    """What a segment holds.

    Attributes:
        number: the segment's number.
        records: of all batches, in order, the snapshot's first.
        next_sequence: for the next batch.
        end: offset after the last intact batch; what lies beyond it is a torn append.
        snapshot_end: offset after the snapshot.
    """

    number: int
    records: list[bytes]
    next_sequence: int
    end: int
    snapshot_end: int


def encode_header(number: int, first_sequence: int) -> bytes:
    """Return the first bytes of segment `number`."""
    header = _HEADER.pack(MAGIC, FORMAT, 0, number, first_sequence)
    return header + _CRC.pack(zlib.crc32(header))


def encode_batch(sequence: int, wall_time: float, records: Sequence[bytes]) -> bytes:
    """Return one batch."""
    body = b"".join(part for record in records for part in (_LENGTH.pack(len(record)), record))
    head = _BATCH.pack(MARK, len(body), sequence, wall_time)
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def scan(data: bytes) -> Scan:
    """Read a whole segment.

    Raises:
        Damage: it holds something else than intact batches and at most one torn append at the end.
    """
    number, sequence = _parse_header(data)
    snapshot = _parse_batch(data, HEADER_SIZE)
    if snapshot is None or snapshot.sequence != sequence:
        raise Damage(HEADER_SIZE, "the snapshot at its beginning does not match its checksum")
    records = list(snapshot.records)
    end = snapshot.end
    while (batch := _parse_batch(data, end)) is not None:
        sequence += 1
        if batch.sequence != sequence:
            raise Damage(end, f"batch {batch.sequence} stands where batch {sequence} belongs")
        records += batch.records
        end = batch.end
    if (intact := _next_intact(data, end + 1)) is not None:
        raise Damage(
            end, f"batch {sequence + 1} does not match its checksum, but an intact one follows at byte {intact}"
        )
    return Scan(number, records, sequence + 1, end, snapshot.end)


def _parse_header(data: bytes) -> tuple[int, int]:
    if len(data) < HEADER_SIZE:
        raise Damage(len(data), f"it has {len(data)} bytes, less than the header")
    magic, version, _, number, sequence = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damage(0, "it does not begin like a journal")
    if zlib.crc32(data[: _HEADER.size]) != _CRC.unpack_from(data, _HEADER.size)[0]:
        raise Damage(0, "its header does not match its checksum")
    if version > FORMAT:
        raise Damage(8, f"it has format {version}, this release reads up to {FORMAT}")
    return number, sequence


def _parse_batch(data: bytes, offset: int) -> Batch | None:
    """Return the batch at `offset`, None when there is no intact one."""
    body = offset + _BATCH_SIZE
    if body > len(data):
        return None
    mark, length, sequence, wall_time = _BATCH.unpack_from(data, offset)
    end = body + length
    if mark != MARK or end > len(data):
        return None
    view = memoryview(data)
    checksum = zlib.crc32(view[body:end], zlib.crc32(view[offset : offset + _BATCH.size]))
    if checksum != _CRC.unpack_from(data, offset + _BATCH.size)[0]:
        return None
    records = []
    while body < end:
        start = body + _LENGTH.size
        body = start + _LENGTH.unpack_from(data, body)[0]
        records.append(data[start:body])
    return Batch(sequence, wall_time, records, end)


def _next_intact(data: bytes, offset: int) -> int | None:
    """Return where the next intact batch begins. A linear search: it happens after a crash, over what follows the bad one."""
    while (offset := data.find(MARK, offset)) >= 0:
        if _parse_batch(data, offset) is not None:
            return offset
        offset += 1
    return None
