"""The package from a wheel, an editable install and a plain clone: what it declares, where it reads and writes."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_house import TORCH_FREE

from calib_utils import home
from calib_utils.home import ROOT
from calib_utils.running import batch, manifest, runner

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: list(map(Requirement, lines)) for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = {canonicalize_name(one.name): one for one in [*CORE, *(one for extra in EXTRAS.values() for one in extra)]}
OF_CORE = {canonicalize_name(one.name) for one in CORE}
DISTRIBUTION = {"yaml": "pyyaml", "PIL": "pillow"}  # where the name that is imported is another
PINNED = [
    "requirements.txt",
    "requirements-read.txt",
    "requirements-vllm.txt",
    "requirements-no-deps.txt",
    "binder/requirements.txt",
]
PINNED += ["requirements-site.txt"]


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("#")[0]) for line in lines if re.match(r"\w", line)]


def third_party(nodes):
    """Names of distributions that import statements among `nodes` ask for."""
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    found = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"calib_utils"}
    return {canonicalize_name(DISTRIBUTION.get(name, name)) for name in found}


@pytest.mark.parametrize("name", PINNED)
def test_every_pin_is_exact_and_satisfies_the_declared_bound(name):
    for pin in pins(name):
        (bound,) = pin.specifier
        assert bound.operator == "==", pin
        declared = DECLARED.get(canonicalize_name(pin.name))
        assert declared is None or declared.specifier.contains(bound.version), (pin, declared)


def test_every_declared_dependency_is_a_lower_bound_and_pinned():
    pinned = {canonicalize_name(pin.name) for name in PINNED for pin in pins(name)}
    assert DECLARED.keys() <= pinned
    assert {one.operator for requirement in DECLARED.values() for one in requirement.specifier} == {">="}
    # so that `-e .`, the last line of requirements.txt, neither adds nor changes anything
    assert {canonicalize_name(pin.name) for pin in pins("requirements.txt")} >= OF_CORE


def test_reading_has_all_of_the_core_in_the_versions_that_measured_and_no_torch():
    reading, measuring = (
        {canonicalize_name(pin.name): pin for pin in pins(f"requirements{n}.txt")} for n in ("-read", "")
    )
    assert OF_CORE <= reading.keys() <= measuring.keys() - {"torch", "transformers", "trl", "peft"}
    assert all(str(measuring[name]) == str(pin) for name, pin in reading.items())


def test_every_import_of_the_package_and_the_notebooks_is_declared():
    sources = [path.read_text(encoding="utf-8") for path in home.PACKAGE.rglob("*.py")]
    for notebook in runner.find_notebooks():
        sources += [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    used = set().union(*(third_party(list(ast.walk(ast.parse(source)))) for source in sources))
    assert used - DECLARED.keys() == set() and {"torch", "pyyaml", "papermill", "ipython"} <= used


@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_torch_free_module_needs_no_more_than_the_core(module):
    path = home.PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert third_party(ast.parse(source.read_text(encoding="utf-8")).body) <= OF_CORE


WITHOUT_MODELS = """
import importlib, sys
extra = "torch transformers trl peft accelerate gguf datasets tokenizers huggingface_hub safetensors".split()
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in extra:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_core_imports_without_models_and_says_what_a_model_needs():
    program = WITHOUT_MODELS + "for name in sys.argv[1:]: importlib.import_module('calib_utils.' + name)\n"
    program += "from calib_utils.running import cli; sys.exit(cli.main(['models']))"
    done = subprocess.run([sys.executable, "-c", program, *TORCH_FREE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: torch is not installed; models and training need the extra `models`: "
        "pip install '.[models]' in a clone of the project\n"
    )


def test_the_cpu_build_of_torch_is_named_in_the_version_that_is_pinned():
    (version,) = [one.version for pin in pins("requirements.txt") if pin.name == "torch" for one in pin.specifier]
    index = "https://download.pytorch.org/whl/cpu"
    for name in ("README.md", "requirements.txt", ".github/workflows/test.yml"):
        assert f"pip install torch=={version} --index-url {index}" in (ROOT / name).read_text(encoding="utf-8"), name


def test_binder_has_the_core_and_the_widgets_in_the_versions_of_the_requirements_and_no_torch():
    own = {pin.name: pin.specifier for pin in pins("binder/requirements.txt")}
    every = {pin.name: pin.specifier for pin in pins("requirements.txt")}
    assert own.items() <= every.items()
    assert {canonicalize_name(name) for name in own} == OF_CORE | {"jupyterlab", "ipywidgets", "nbformat"}
    lines = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "-e ."  # from the root of the repository, where Binder installs


def pip(*words):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of a clone that installing and running take; figures and git left out."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(home.PACKAGE, folder / "calib_utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(clone, folder / "source")  # building leaves folders there
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (found,) = folder.glob("*.whl")
    return found


class Scratch:
    """A virtual environment with the packages of this one, but without its `calib_utils`."""

    def __init__(self, folder, *install):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        self.python = folder / "bin" / "python"
        self.packages = next((folder / "lib").glob("python*")) / "site-packages"
        own = Path(sysconfig.get_path("purelib"))
        for path in (*own.glob("setuptools*"), *own.glob("_distutils_hack")):  # for a build without downloads
            (self.packages / path.name).symlink_to(path)
        pip("--python", self.python, "install", "--no-deps", "--no-build-isolation", *install)
        others = {str(own), sysconfig.get_path("platlib")}  # last: with them pip would see their `calib_utils`
        (self.packages / "others.pth").write_text("\n".join(sorted(others)))

    def run(self, *words, cwd, **variables):
        known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CALIB_UTILS_HOME")}
        about = {"env": known | variables, "cwd": cwd, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run([str(self.python), *map(str, words)], **about)

    def tell(self, cwd, **variables):
        """What the package says about itself there."""
        program = (
            "import json; from calib_utils import data, home, plots; from calib_utils.running import manifest\n"
            "one = sorted((home.ROOT / 'notebooks').glob(home.NOTEBOOK_NAMES))[:1]\n"
            "print(json.dumps({'package': str(home.PACKAGE), 'root': str(home.ROOT),\n"
            "  'facts': len(data.load_questions('facts', 'test')), 'style': len(plots.diagrams.plt.rcParams),\n"
            "  'code': home.of_code(), 'versions': manifest.of_environment(),\n"
            "  'data': manifest.of_data({}), 'digest': [manifest.digest(path) for path in one]}))"
        )
        done = self.run("-c", program, cwd=cwd, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def files(self):
        return {path for path in self.packages.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return Scratch(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder that holds a copy of `notebooks/` and nothing else."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return folder


def test_a_wheel_holds_every_file_of_the_package_and_its_dependencies(clone, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = [archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA")]
    package = {str(path.relative_to(clone)) for path in (clone / "calib_utils").rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == package
    required = {canonicalize_name(Requirement(line).name) for line in re.findall(r"Requires-Dist: (.*)", about)}
    assert required == DECLARED.keys()


def test_a_wheel_finds_the_notebooks_beside_which_it_runs(installed, course):
    before = installed.files()
    for folder in (course, course / "notebooks"):
        done = installed.run("-m", "calib_utils", "run", "--dry-run", cwd=folder)
        assert done.stderr == "" and done.returncode == 0
        stems = [path.stem for path in runner.find_notebooks()]
        assert done.stdout == "".join(f"{stem}: anew, time not known\n" for stem in stems)
    assert sorted(path.name for path in course.iterdir()) == ["notebooks"] and installed.files() == before


def test_without_notebooks_the_error_names_the_three_places(installed, course, tmp_path):
    remedy = (
        "Run from a folder that holds notebooks/, or set CALIB_UTILS_HOME to it; a clone of the project has them, a "
        "wheel does not"
    )
    for given in ("", str(tmp_path / "none")):
        done = installed.run("-m", "calib_utils", "run", "--dry-run", cwd=tmp_path, CALIB_UTILS_HOME=given)
        assert done.returncode == 2 and done.stderr == (
            f"error: there are no notebooks (NN_name.ipynb) in {Path(given or tmp_path) / 'notebooks'}. They are "
            f"looked for in $CALIB_UTILS_HOME ({given or 'not set'}), else in the clone that the package lies in "
            f"(installed without one), else in the current folder and its parents. {remedy}\n"
        )
    assert list(tmp_path.iterdir()) == []
    command = ("-m", "calib_utils", "run", "--dry-run", "--only", "08")
    done = installed.run(*command, cwd=tmp_path, CALIB_UTILS_HOME=str(course))
    assert done.stdout == "08_claims: anew, time not known\n"


def test_a_wheel_has_its_data_its_versions_and_the_digest_of_a_clone_without_pins(installed, course, monkeypatch):
    told = installed.tell(course)
    assert told["package"] == str(installed.packages / "calib_utils") and told["root"] == str(course)
    assert told["facts"] > 1000 and told["data"] == manifest.of_data({})
    assert told["code"] == {"commit": None, "dirty": None}
    here = manifest.of_environment()
    versions = {canonicalize_name(name): version for name, version in told["versions"].items()}
    assert versions.pop("calib-utils") == PROJECT["version"] and versions.pop("vllm", None) is None
    assert versions.keys() == DECLARED.keys() - {"vllm"} | {"python"}
    assert versions.items() <= {canonicalize_name(name): version for name, version in here.items()}.items()
    first = runner.find_notebooks()[0]
    pinned = manifest.digest(first)
    monkeypatch.setattr(home, "checkout", lambda: None)
    assert told["digest"] == [manifest.digest(first)] != [pinned]


def test_a_run_from_a_wheel_writes_into_the_home_and_nowhere_else(installed, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    shutil.copytree(ROOT / "notebooks" / "profiles", tmp_path / "project" / "notebooks" / "profiles")
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [
        nbformat.v4.new_code_cell("profile: str = 'cpu'  # help", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from calib_utils import home; print(home.ROOT, home.PACKAGE)"),
        nbformat.v4.new_code_cell("from calib_utils.running import runner; runner.complete('99_tiny')"),
    ]
    notebook = tmp_path / "project" / "notebooks" / "99_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), notebook)
    before = installed.files()
    command = ("-m", "calib_utils", "run", "--profile", "smoke")
    done = installed.run(*command, cwd=tmp_path / "elsewhere", CALIB_UTILS_HOME="../project")
    assert done.returncode == 0, done.stderr
    assert installed.files() == before and list((tmp_path / "elsewhere").iterdir()) == []
    executed = tmp_path / "project" / "runs" / "notebooks" / "smoke" / "99_tiny.ipynb"
    home_and_package = f"{tmp_path / 'project'} {installed.packages / 'calib_utils'}\n"
    assert nbformat.read(executed, 4).cells[2].outputs[0].text == home_and_package
    made = manifest.read(tmp_path / "project" / "runs" / "smoke" / "figures" / "99_manifest.json")
    assert made["state"] == runner.COMPLETE and made["versions"]["calib-utils"] == PROJECT["version"]


def test_an_editable_install_uses_its_clone_from_anywhere(clone, course, tmp_path):
    scratch = Scratch(tmp_path / "editable", "--editable", clone)
    told = scratch.tell(tmp_path)
    assert told["root"] == str(clone) and told["package"] == str(clone / "calib_utils")
    assert told["versions"] == manifest.of_environment()
    assert scratch.tell(course, CALIB_UTILS_HOME=str(course))["root"] == str(course)


def test_a_plain_clone_needs_no_install(clone, course, installed):
    for cwd, path in ((clone, {}), (course, {"PYTHONPATH": str(clone)})):  # before the installed wheel, both ways
        told = installed.tell(cwd, **path)
        assert told["root"] == str(clone) and told["package"] == str(clone / "calib_utils")
    assert told["digest"] == [manifest.digest(runner.find_notebooks()[0])]


def test_processes_started_elsewhere_use_this_home_and_this_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    told = batch.environment(1)
    assert told["CALIB_UTILS_HOME"] == str(ROOT) and told["PYTHONPATH"] == f"{home.PACKAGE.parent}{os.pathsep}/mine"
    monkeypatch.setattr(home, "checkout", lambda: None)  # an installed wheel needs no path
    assert batch.environment(1)["PYTHONPATH"] == "/mine"
