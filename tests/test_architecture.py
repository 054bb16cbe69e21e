"""The order of knowledge: a module of zsar imports only modules that stand before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "zsar"
ORDER = (
    {"errors", "html", "paths", "tokenizer", "outputs", "transformers_clip", "checkpoints", "training", "profiles",
     "distributed"},
    {"datasets", "results", "kernels"},
    {"attention"},
    {"towers"},
    {"clip"},
    {"fast"},
    {"prompts"},
    {"methods"},
    {"attacks"},
    {"losses", "recipes"},
    {"evaluate", "study"},
    {"cells", "inputs"},
    {"trainer"},
    {"adapt"},
    {"figures", "widgets"},
    {"report"},
    {"photo", "pretrain", "grid", "bench", "data", "results_cli"},
    {"reproduce"},
    {"__main__"},
    {"course"},
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
SOURCES = sorted(ROOT.rglob("*.py"))
LONGEST = 45  # lines of a function; about 30 is the aim


def module_of(path: Path) -> str:
    """The top-level module or sub-package of zsar that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> set[str]:
    """The modules of zsar that a syntax tree imports anywhere."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "zsar":
            names |= {f"zsar.{alias.name}" for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("zsar.")}


@pytest.fixture(params=SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def source(request) -> tuple[Path, ast.Module]:
    return request.param, ast.parse(request.param.read_text(encoding="utf-8"))


def test_imports_point_backwards(source):
    path, tree = source
    module = module_of(path)
    if module == "__init__":
        return
    assert module in RANK, f"{module} has no place in the order of knowledge yet"
    for other in imports_of(tree) - {module}:
        backwards = RANK[other] < RANK[module] or (RANK[other] == RANK[module] == 0)
        assert backwards or {module, other} == {"figures", "widgets"}, f"{module} imports {other}"


def test_imports_have_no_cycle():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(module_of(path), set()).update(imports_of(ast.parse(path.read_text(encoding="utf-8"))))

    def reachable(start: str) -> set[str]:
        found, todo = set(), list(graph.get(start, ()))
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += graph.get(name, ())
        return found

    for name in graph:
        assert name not in reachable(name) or name in graph[name], f"{name} imports itself through others"


def test_imports_are_absolute(source):
    _, tree = source
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def test_public_functions_have_docstrings(source):
    path, tree = source
    bare = [node.name for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            and not ast.get_docstring(node)]
    assert not bare, f"{path.name}: {bare}"
    assert ast.get_docstring(tree), f"{path.name} has no docstring"


def test_functions_are_short(source):
    path, tree = source
    long = {node.name: node.end_lineno - node.lineno + 1 for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > LONGEST}
    assert not long, f"{path.name}: {long}"


def test_library_does_not_print(source):
    path, tree = source
    if module_of(path) in ("__main__", "pretrain"):
        return
    calls = [node.lineno for node in ast.walk(tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not calls, f"{path.name}: print in lines {calls}"
