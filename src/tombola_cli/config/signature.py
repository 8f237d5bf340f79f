"""The constructor's fields of a class that a config names, read from its source: importing it would import torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

PACKAGES = ("tombola", "peft")  # the only ones whose classes a config may name
MAX_HOPS = 8  # of re-exports: `peft.LoraConfig` takes four


@lru_cache(maxsize=64)
def constructor_fields(target: str) -> dict[str, str] | None:
    """Field name -> annotation of the class `target` (`peft.LoraConfig`) with its bases' fields; None if not found."""
    module, _, name = target.rpartition(".")
    file = _module_file(module)
    found = _find_class(file, name, MAX_HOPS) if file else None
    return _fields(*found) if found else None


def accepts(annotation: str, value: object) -> bool:
    """Whether a plain value fits an annotation such as `Optional[list[str]]`; what cannot be judged fits."""
    return _fits(ast.parse(annotation, mode="eval").body, value)


def named_values(annotation: str) -> list[str]:
    """The values that an annotation names one by one, as `Literal["paper", "clean"]` does."""
    literals = [one for one in ast.walk(ast.parse(annotation)) if isinstance(one, ast.Subscript)]
    literals = [one for one in literals if isinstance(one.value, ast.Name) and one.value.id == "Literal"]
    return [str(one.value) for literal in literals for one in ast.walk(literal.slice) if isinstance(one, ast.Constant)]


def _fits(node: ast.expr, value: object) -> bool:
    match node:
        case ast.Constant(value=None) | ast.Name(id="None"):
            return value is None
        case ast.BinOp(op=ast.BitOr()):
            return _fits(node.left, value) or _fits(node.right, value)
        case ast.Subscript(value=ast.Name(id="Optional")):
            return value is None or _fits(node.slice, value)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=options)):
            return any(_fits(option, value) for option in options)
        case ast.Subscript(value=ast.Name(id="Literal")):
            words = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            known = [word.value for word in words if isinstance(word, ast.Constant)]
            patterned = any("[" in str(word) for word in known)  # PEFT: "pissa_niter_[number of iters]"
            return value in known or (patterned and isinstance(value, str))
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
            return _is_a(name, value)
        case ast.Constant(value=str() as text):  # a quoted annotation
            return accepts(text, value)
        case _:
            return True


def _is_a(name: str, value: object) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "dict": (dict,), "Dict": (dict,)
    }  # fmt: skip
    kinds |= dict.fromkeys(("list", "List", "tuple", "Tuple", "Sequence", "set"), (list,))
    if name not in kinds:
        return True
    return isinstance(value, kinds[name]) and (name == "bool" or not isinstance(value, bool))


def _module_file(module: str) -> Path | None:
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    spec = importlib.util.find_spec(package)  # of a top-level name: finds without importing
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent.joinpath(*rest)
    found = (file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file())
    return next(found, None)


def _find_class(file: Path, name: str, hops: int) -> tuple[ast.ClassDef, Path] | None:
    """The class statement, following `from x import name` from file to file."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, file
        if isinstance(node, ast.ImportFrom) and hops:
            original = next((one.name for one in node.names if (one.asname or one.name) == name), None)
            source = _imported_file(file, node) if original else None
            if source and original:
                return _find_class(source, original, hops - 1)
    return None


def _imported_file(file: Path, node: ast.ImportFrom) -> Path | None:
    if not node.level:
        return _module_file(node.module or "")
    folder = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    found = (path for path in (folder / "__init__.py", folder.with_suffix(".py")) if path.is_file())
    return next(found, None)


def _fields(node: ast.ClassDef, file: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for base in node.bases:
        found = _find_class(file, base.id, MAX_HOPS) if isinstance(base, ast.Name) else None
        fields |= _fields(*found) if found else {}
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            fields[part.target.id] = ast.unparse(part.annotation)
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            named = [*part.args.args[1:], *part.args.kwonlyargs]
            fields |= {one.arg: ast.unparse(one.annotation) if one.annotation else "Any" for one in named}
    return fields


@lru_cache(maxsize=64)
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
