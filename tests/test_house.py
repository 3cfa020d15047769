"""The house: imports run one way, the cheap side needs no torch, and every folder can be seen at a glance."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import calib_utils
from calib_utils.home import ROOT

FOLDER = Path(calib_utils.__file__).parent
# From the ground up: a room imports rooms of earlier rows only. Rooms of one row know nothing of each other.
LAYERS = (
    ("errors", "text"),
    ("types", "home"),
    ("storage",),
    ("config",),
    ("crossing",),
    ("data", "models", "metrics"),
    ("prompts", "semantics", "sampling", "plots", "claims"),
    ("records",),
    ("training",),
    ("studies",),
    ("world",),
    ("running",),
    ("__main__",),
)
FLOOR = {room: number for number, row in enumerate(LAYERS) for room in row}
MOST = 20  # files and folders at a glance
TORCH_FREE = """types errors text storage home config crossing prompts claims claims.findings
    data data.facts data.facts.build data.arithmetic data.multihop data.natural_questions
    data.natural_questions.build data.public data.table
    data.world data.world.answers data.world.lookups
    semantics semantics.collapse semantics.confidence semantics.options
    metrics metrics.scores metrics.smooth metrics.kernels metrics.intervals metrics.table metrics.estimates
    metrics.tables metrics.curves metrics.coverage plots plots.diagrams plots.saving
    models models.device models.identity models.bundled models.loading models.told models.language_model
    records records.store records.keys records.shipped records.kept records.collecting
    training training.stage training.methods training.lineage training.trained training.pretraining training.losses
    studies studies.parameters studies.chains studies.selection studies.temperature_scaling studies.regimes
    studies.lifecycle world world.study world.statements world.pictures world.mechanism world.house
    studies.audit studies.audit.asking studies.audit.endpoint studies.audit.harness studies.audit.report
    studies.audit.result records.resuming data.own
    running running.audit running.cli running.runner running.batch running.manifest running.verify
    running.redraw""".split()


def name_of(path):
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def room(module):
    """The file or folder at the top of the package that a module lies in; "" for the door itself."""
    return module.partition(".")[2].partition(".")[0]


def imported(path):
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "calib_utils":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {""} == set(FLOOR)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module)])
def test_imports_run_down_and_never_back_up(module):
    mine = room(module)
    for found in imported(MODULES[module]):
        other = room(found)
        assert other, f"{module} imports the door of the package; import {found} from its own module"
        if other == mine:
            assert found != f"calib_utils.{mine}" or MODULES[module].name == "__init__.py", (
                f"{module} imports the door of its own folder; import from the file beside it"
            )
        else:
            assert FLOOR[other] < FLOOR[mine], f"{module} imports {found}, which does not lie below it"


def test_no_file_imports_itself_in_a_circle():
    below = {module: {one for one in imported(path) if one != module} for module, path in MODULES.items()}
    done = set()

    def visit(module, trail):
        assert module not in trail, f"a circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for one in below[module]:
                visit(one, [*trail, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])


def test_every_folder_can_be_seen_at_a_glance():
    for folder in (FOLDER, *(path for path in FOLDER.rglob("*") if path.is_dir())):
        entries = {path.name for path in folder.iterdir() if not path.name.startswith("__")}
        assert len(entries) <= MOST, (folder.name, sorted(entries))


# As on a machine where only the core is installed.
ABSENT = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "trl", "peft", "accelerate", "gguf", "datasets",
                                      "tokenizers", "huggingface_hub", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_cheap_side_needs_no_torch():
    program = ABSENT + "for name in sys.argv[1:]: importlib.import_module(f'calib_utils.{name}')\n"
    command = [sys.executable, "-c", program, *TORCH_FREE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_records_are_read_without_torch(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None; from calib_utils import records, semantics\n"
        f"assert records.read({str(tmp_path)!r}) == []"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=600).returncode == 0


def test_every_name_of_the_door_is_there_and_described():
    for name in calib_utils._DOOR:
        assert getattr(calib_utils, name) is not None and f"`{name}`" in calib_utils.__doc__
    assert len(calib_utils._DOOR) <= 20
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = calib_utils.nothing
