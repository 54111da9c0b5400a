"""The product's sources, parsed: modules, and what each of them imports, at whatever depth the import stands."""

from __future__ import annotations

import ast
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("clusterd", "clusterctl")
ANY_IMPORTER = {"import_module", "__import__", "find_spec"}


@dataclass(frozen=True)
class Import:
    """One imported module; `is_dynamic` when it is named by a string (importlib)."""

    target: str
    line: int
    is_lazy: bool
    is_dynamic: bool = False
    is_for_types: bool = False


@dataclass(frozen=True)
class Module:
    """A parsed source file."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))

    @functools.cached_property
    def imports(self) -> list[Import]:
        return sorted(_imports(self), key=lambda found: found.line)


@functools.cache
def modules() -> dict[str, Module]:
    """Return every module of the product by its dotted name; a package goes by the name of its folder."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, text, ast.parse(text, str(path)))
    return found


def is_stdlib(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def is_own(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _imports(module: Module) -> list[Import]:
    found: list[Import] = []

    def walk(node: ast.AST, *, is_lazy: bool, is_for_types: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            is_lazy = True
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, is_lazy, is_for_types=is_for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                # `from clusterd.core import model` imports clusterd.core.model; `from zmq import Context` imports zmq.
                target = f"{base}.{alias.name}"
                is_module = is_own(base) and target in modules()
                found.append(Import(target if is_module else base, node.lineno, is_lazy, is_for_types=is_for_types))
        elif isinstance(node, ast.Call) and (target := _dynamic(node)):
            found.append(Import(target, node.lineno, is_lazy, is_dynamic=True, is_for_types=is_for_types))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                walk(child, is_lazy=is_lazy, is_for_types=True)
            for child in node.orelse:
                walk(child, is_lazy=is_lazy, is_for_types=is_for_types)
            return
        for child in ast.iter_child_nodes(node):
            walk(child, is_lazy=is_lazy, is_for_types=is_for_types)

    walk(module.tree, is_lazy=False, is_for_types=False)
    return found


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    # A package is its own first level: `from . import x` in a/__init__.py means a.x.
    if module.path.name != "__init__.py":
        parts = parts[:-1]
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _dynamic(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ANY_IMPORTER and call.args and isinstance(call.args[0], ast.Constant):
        return str(call.args[0].value)
    return None
