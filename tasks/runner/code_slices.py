"""Which definitions of this project bear on a stage's result: those that its code leads to.

From the functions that run a stage, names are followed to their definitions: through imports (also
those inside functions and of types, since a type says whose methods are called), re-exports of
packages, attributes of modules, and strings that name a module to be started as a process. Of a
module also counts what runs when it is imported; of a class its fields, and the methods whose names
occur anywhere in the code that counts. What is too dynamic to follow, a module handed on as an
object or a class that a framework calls back, counts as a whole.

Comments, docstrings and layout do not count. Nor do the fields of configurations: their values are
in the fingerprint.
"""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tasks.paths import ROOT

_PACKAGES = ("tasks", "gill", "data")
_CONFIGURATIONS = "tasks.config"
# What only records what a stage says, and what only says which stages there are.
_NO_BEARING = ("tasks.tracking", "tasks.runner.registry", "tasks.runner.stage")
# Bases that call no method of a subclass by a name of their own, but for dunders and ``forward``.
_PLAIN_BASES = ("Protocol", "Module", "Generic", "NamedTuple", "TypedDict", "Exception", "Error")
_WHOLE = "*"
_IMPORTED = ""  # what runs when a module is imported


def slices(stage: str, root: Path = ROOT) -> dict[str, str]:
    """A hash of what bears on a stage for each module that has some of it."""
    return _Slicer(root).hashes((f"tasks.stages.{stage}", "run"), ("tasks.runner.places", "work"))


def version(stage: str, root: Path = ROOT) -> int:
    """The version that a stage's file declares, read without importing it."""
    tree = ast.parse((root / "tasks" / "stages" / f"{stage}.py").read_text())
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="STAGE")], value=ast.Call(keywords=keywords)):
                given = {k.arg: k.value for k in keywords}.get("version")
                if isinstance(given, ast.Constant) and isinstance(given.value, int):
                    return given.value
    raise ValueError(f"tasks/stages/{stage}.py has no STAGE = StageDeclaration(version=..., ...)")


Definition = tuple[str, str]  # of a module: its name, or one of the two above


@dataclass
class _Module:
    """A module's statements by the names that they define.

    Attributes:
        definitions: statements by name. always: those that define nothing.
        imports: local name -> the definition that it stands for; ``(module, "")`` for a module.
    """

    name: str
    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, Definition] = field(default_factory=dict)


@dataclass
class _Slicer:
    root: Path
    counted: dict[str, dict[int, ast.stmt]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    used: set[str] = field(default_factory=set)  # names of attributes
    waiting: dict[str, list[tuple[_Module, ast.stmt]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # methods by a name that is not used so far

    def hashes(self, *first: Definition) -> dict[str, str]:
        """Hashes by module of all that some definitions lead to."""
        wanted, seen = list(first), set(first)
        while wanted:
            for definition in self._follow(*wanted.pop()):
                if definition not in seen:
                    seen.add(definition)
                    wanted.append(definition)
        return {name: self._hash(name) for name in sorted(self.counted) if self.counted[name]}

    def _follow(self, name: str, wanted: str) -> Iterator[Definition]:
        """Count a definition, and give those that it leads to."""
        module = self._module(name)
        if module is None or name.startswith(_NO_BEARING):
            return
        if wanted != _IMPORTED:
            yield name, _IMPORTED
        elif "." in name:
            yield name.rpartition(".")[0], _IMPORTED
        if wanted == _IMPORTED:
            yield from self._count(module, module.always)
        elif wanted in module.definitions:
            yield from self._count(module, module.definitions[wanted])
        elif wanted in module.imports:
            yield module.imports[wanted]
        elif self._module(f"{name}.{wanted}") is not None:
            yield f"{name}.{wanted}", _IMPORTED
        else:
            for defined in module.definitions:
                yield name, defined
            yield from module.imports.values()

    def _count(self, module: _Module, statements: list[ast.stmt]) -> Iterator[Definition]:
        for statement in statements:
            parts = [statement]
            if isinstance(statement, ast.ClassDef):
                parts, methods = self._parts(module, statement)
                for method in methods:
                    self.waiting[method.name].append((module, method))
                    if method.name in self.used:
                        yield from self._count_methods(method.name)
            for part in parts:
                self.counted[module.name][part.lineno] = part
                yield from self._led_to(module, part)

    def _count_methods(self, name: str) -> Iterator[Definition]:
        for module, method in self.waiting.pop(name, []):
            self.counted[module.name][method.lineno] = method
            yield from self._led_to(module, method)

    def _parts(
        self, module: _Module, statement: ast.ClassDef
    ) -> tuple[list[ast.stmt], list[ast.FunctionDef]]:
        """What of a class counts by itself, and its methods that count when their name is used."""
        bases = [ast.unparse(base).partition("[")[0] for base in statement.bases]
        if any(
            base not in {*module.definitions, *module.imports} - self._foreign(module)
            and not base.endswith(_PLAIN_BASES)
            for base in bases
        ):
            return [statement], []
        methods = [
            inner
            for inner in statement.body
            if isinstance(inner, ast.FunctionDef)
            and not inner.name.startswith("__")
            and inner.name != "forward"
        ]
        rest = [inner for inner in statement.body if inner not in methods]
        shell = ast.ClassDef(
            statement.name, statement.bases, statement.keywords, rest, statement.decorator_list
        )
        return [ast.copy_location(shell, statement)], methods

    @staticmethod
    def _foreign(module: _Module) -> set[str]:
        """Names that a module imports from outside this project."""
        return {
            name
            for name, (maker, _) in module.imports.items()
            if maker.partition(".")[0] not in _PACKAGES
        }

    def _led_to(self, module: _Module, statement: ast.stmt) -> Iterator[Definition]:
        names = module.imports | {
            local: target
            for node in ast.walk(statement)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for local, target in _bound(node)
        }
        resolved: set[int] = set()
        for node in ast.walk(statement):
            yield from self._use(node)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                imported = self._submodule(names.get(node.value.id))
                if imported is not None:
                    resolved.add(id(node.value))
                    yield imported, node.attr
            elif isinstance(node, ast.Name) and id(node) not in resolved:
                if node.id in module.definitions:
                    yield module.name, node.id
                elif node.id in names:
                    imported = self._submodule(names[node.id])
                    yield names[node.id] if imported is None else (imported, _WHOLE)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if "." in node.value and self._module(node.value) is not None:
                    yield node.value, _WHOLE
                self._note_files(module, node.value)

    def _use(self, node: ast.AST) -> Iterator[Definition]:
        """Count the methods of a name that occurs as an attribute, or as a text for ``getattr``."""
        name = getattr(node, "attr", None) or getattr(node, "value", None)
        if isinstance(name, str) and name.isidentifier() and name not in self.used:
            self.used.add(name)
            yield from self._count_methods(name)

    def _submodule(self, target: Definition | None) -> str | None:
        """The module that an imported name stands for, if it stands for a module."""
        if target is None:
            return None
        name, attribute = target
        full = f"{name}.{attribute}" if attribute else name
        module = self._module(name)
        if attribute and (module is None or attribute in {*module.definitions, *module.imports}):
            return None
        return full if self._module(full) is not None else None

    def _note_files(self, module: _Module, text: str) -> None:
        """Count files beside a module that it names, such as a template."""
        if not text or len(text) > 80 or "\n" in text or not text[0].isalnum() or "*" in text:
            return
        folder = module.path.parent
        for named in (folder / text, *folder.glob(f"*/{text}")):
            if named.is_file() and named.suffix != ".py":
                self.files[module.name].add(named)

    def _hash(self, name: str) -> str:
        digest = hashlib.sha256()
        config = name.startswith(_CONFIGURATIONS)
        for _, statement in sorted(self.counted[name].items()):
            digest.update(_plain(statement, without_fields=config).encode())
        for path in sorted(self.files[name]):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def _module(self, name: str) -> _Module | None:
        if name.partition(".")[0] not in _PACKAGES:
            return None
        path = self.root / name.replace(".", "/")
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return _parsed(name, candidate, candidate.read_text())
        return None


@cache
def _parsed(name: str, path: Path, text: str) -> _Module:
    module = _Module(name, path)
    for statement in ast.parse(text).body:
        _sort(module, statement)
    return module


def _sort(module: _Module, statement: ast.stmt) -> None:
    """Put a statement where it belongs; the branches of an ``if`` are looked into."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            module.imports.update(_bound(statement))
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            module.definitions.setdefault(statement.name, []).append(statement)
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            for defined in names:
                module.definitions.setdefault(defined, []).append(statement)
            if any(not isinstance(t, ast.Name | ast.Tuple) for t in targets):
                module.always.append(statement)
        case ast.Expr(value=ast.Constant()):
            return  # a docstring
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            for inner in statement.body:
                _sort(module, inner)
        case _:
            for node in ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    module.imports.update(_bound(node))
            module.always.append(statement)


def _bound(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Definition]]:
    if isinstance(node, ast.ImportFrom):
        for name in node.names:
            yield name.asname or name.name, (node.module or "", name.name)
        return
    for name in node.names:
        yield name.asname or name.name.partition(".")[0], (name.name, _IMPORTED)


def _plain(node: ast.AST, without_fields: bool = False) -> str:
    """A syntax tree as text without docstrings, the same in every version of Python."""
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        told = [
            _plain(v, without_fields) if isinstance(v, ast.AST) else repr(v)
            for v in (value if isinstance(value, list) else [value])
            if v is not None and not (name == "body" and _is_left_out(v, without_fields))
        ]
        if told:
            parts.append(f"{name}=[{','.join(told)}]")
    return f"{parts[0]}({';'.join(parts[1:])})"


def _is_left_out(statement: ast.AST, without_fields: bool) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.AnnAssign():
            return without_fields
    return False
