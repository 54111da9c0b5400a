"""The tables of fault points and what a run covered of them.

Each promise "kill -9 X at moment Y and nothing is lost" is a cell of a table, and the tests are generated from the
tables. A test module declares its table when it is imported and records a cell once the test of that cell has passed;
the run ends with "fault points: N of M cells covered", so that a table which no test walks through is seen.

    CELLS = declare("kill -9", itertools.product(PROCESSES, MOMENTS))
    @pytest.mark.parametrize("cell", CELLS, ids=label)
    def test_survives(cell): ...; record_cell("kill -9", cell)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

_declared: dict[str, list[Hashable]] = {}
_covered: dict[str, set[Hashable]] = {}


def declare(table: str, cells: Iterable[Hashable]) -> list[Hashable]:
    """Make the table's cells known; a table may be declared in parts. Returns the cells, in their order."""
    new = list(cells)
    known = _declared.setdefault(table, [])
    known.extend(cell for cell in dict.fromkeys(new) if cell not in known)
    return new


def record_cell(table: str, cell: Hashable) -> None:
    """Note that the cell was tested and holds.

    Raises:
        KeyError: the table has no such cell; a misspelt one would otherwise count for nothing.
    """
    if cell not in _declared.get(table, ()):
        raise KeyError(f"table {table!r} has no cell {cell!r}")
    _covered.setdefault(table, set()).add(cell)


def summary() -> list[str]:
    """Return the lines that end a run: the total, then each table's share; nothing where no table was declared."""
    if not _declared:
        return []
    total = sum(len(cells) for cells in _declared.values())
    covered = sum(len(cells) for cells in _covered.values())
    lines = [f"fault points: {covered} of {total} cells covered"]
    if len(_declared) > 1:
        lines += [
            f"  {table}: {len(_covered.get(table, ()))} of {len(cells)}" for table, cells in sorted(_declared.items())
        ]
    return lines
