"""Whatever the docstrings of the package name in backticks exists."""

import ast
import builtins
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

import calib_utils

FOLDER = Path(calib_utils.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
MODULES = {  # of the same name the one higher up; a package by its folder
    path.parent.name if path.stem == "__init__" else path.stem: path
    for path in sorted(SOURCES, key=lambda path: -len(path.parts))
}
VLLM = {"tensor_parallel_size", "gpu_memory_utilization", "max_model_len"}  # its options: it is seldom installed
FILES = (".csv", ".json", ".jsonl", ".md")
REFERENCE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)(?=[`(])")  # `name`, `module.name`, `name(arguments)`


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def references(path):
    """(where, name) for every name in backticks in the docstrings of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for name in REFERENCE.findall(ast.get_docstring(node) or ""):
                if not name.endswith(FILES):
                    yield getattr(node, "name", path.name), name


@cache
def words(path):
    """All that the code of a file names: functions, parameters, variables, attributes, imports, keys of one word."""
    return {value for node in ast.walk(tree(path)) for value in vars(node).values() if isinstance(value, str)}


@cache
def classes():
    return {node.name for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)}


def module_of(path):
    return ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts).removesuffix(".__init__")


def leads(module, parts):
    """Whether `module.part.part` is there; a field of a dataclass need not be an attribute of the class."""
    found = importlib.import_module(module)
    for part in parts:
        if not hasattr(found, part):
            return part in getattr(found, "__annotations__", ())
        found = getattr(found, part)
    return True


def exists(name, path):
    """Whether a name in a docstring of the file at `path` leads anywhere.

    A plain name must occur in the file's code, or be a class of the package. A dotted one begins with a module of the
    package, something in the file's own module, another package, or a parameter, whose attributes must occur in some
    file.
    """
    first, *rest = name.split(".")
    if not rest:
        return first in words(path) | classes() | VLLM or hasattr(builtins, first)
    if first in MODULES and leads(module_of(MODULES[first]), rest):
        return True
    if any(isinstance(node, ast.arg) and node.arg == first for node in ast.walk(tree(path))):
        return all(any(part in words(source) for source in SOURCES) for part in rest)
    if importlib.util.find_spec(first) is not None:
        return leads(first, rest)
    return name == "vllm.LLM" or leads(module_of(path), [first, *rest])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_names_in_docstrings_exist(path):
    assert [f"{where}: {name}" for where, name in references(path) if not exists(name, path)] == []


def test_a_name_that_leads_nowhere_is_noticed():
    path = MODULES["metrics"]
    assert not exists("interval", path) and exists("resample_counts", path)
    assert not exists("plots.reliability", path) and exists("plots.reliability_diagram", path)
    assert not exists("relplot.nothing", path) and exists("relplot.smECE", path)
    stages = MODULES["stages"]
    assert not exists("Stage.nothing", stages) and exists("Stage.steps", stages) and exists("Stage.options", stages)
    assert {("metrics.py", "METRICS"), ("smece", "relplot.smECE")} <= set(references(path))
