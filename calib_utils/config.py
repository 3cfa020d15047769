"""Configuration: the parameters of a notebook run as one frozen, validated object."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from calib_utils.errors import ConfigError
from calib_utils.home import ROOT

PROFILES = ("smoke", "cpu", "gpu")
STAGED = "CALIB_UTILS_FIGURES"  # set by the runner: figures are written there, and published if the run succeeds


def nearest(name: str, names: Iterable[str]) -> str:
    """`"did you mean 'facts'? "` for a name that is nearly one of `names`, else nothing."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def check_names(said: str, names: Iterable[str], declared: Collection[str]) -> None:
    """Raise ConfigError, which begins with `said`, for the first name that is not declared; it tells the nearest."""
    for name in names:
        if name not in declared:
            hint = nearest(name, declared).rstrip() or f"there are {sorted(declared)}"
            raise ConfigError(f"{said} {name!r}; {hint}")


class FolderConfig(BaseModel):
    """Parameters every notebook has; a notebook with more of them derives a class from this one.

    A class declares type, range and default of every parameter; the defaults are the values of profile `cpu`. Its
    `NOTEBOOK` is the name of the notebook that it is for.
    """

    NOTEBOOK: ClassVar[str] = ""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    profile: Literal["smoke", "cpu", "gpu"] = "cpu"
    figures: str = ""
    runs: str = "runs"

    @classmethod
    def notebook(cls) -> str:
        """The notebook whose parameters these are, by the class's own `NOTEBOOK`; "" for a class without one."""
        return vars(cls).get("NOTEBOOK", "")

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Every parameter with its default."""
        return {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}

    @classmethod
    def checked(cls, parameters: Mapping[str, object]):
        """An object with these parameters, the others at their defaults; ConfigError names every wrong one."""
        check_names(f"{cls.notebook() or cls.__name__} has no parameter", parameters, cls.model_fields)
        try:
            return cls(**parameters)
        except ValidationError as error:
            raise ConfigError(f"{cls.notebook() or cls.__name__}: {_reasons(error)}") from None

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, object], sources: Sequence[str] | None = None):
        """The parameters of a running notebook, out of its `globals()`, wherever it runs.

        Given explicitly are the values that papermill injected and those that differ from the default. All others
        follow `profile`, so that the name of a profile always comes with its sizes.

        Parameters
        ----------
        sources : the cells that ran so far; by default those that IPython remembers.

        Raises ConfigError for a parameter that is unknown, wrong or out of range, and for a folder whose figures a
        manifest describes.
        """
        cells = namespace.get("In", ()) if sources is None else sources
        written, injected = _given_names(cells)
        check_names(f"{cls.notebook() or cls.__name__} has no parameter", [*written, *injected], cls.model_fields)
        explicit = {
            name: namespace[name]
            for name, default in cls.defaults().items()
            if name in namespace and (name in injected or repr(namespace[name]) != repr(default))
        }
        profile = cls.checked({n: v for n, v in explicit.items() if n == "profile"}).profile
        run = cls.checked({**profile_parameters(profile, cls.notebook(), declared=cls.model_fields), **explicit})
        described = run.figures_dir / f"{cls.notebook()[:2]}_manifest.json"
        if cls.notebook() and STAGED not in os.environ and described.exists():
            raise ConfigError(
                f"figures is {run.figures!r}: {described} describes the figures there, which only "
                "`python -m calib_utils run` replaces; leave figures empty, or name another folder"
            )
        return run

    @property
    def figures_dir(self) -> Path:
        """Where the notebook writes figures and claims; a relative path starts at the project's root.

        With `figures` left empty nobody has decided: the notebook runs by hand, and no shipped file is replaced.
        """
        if staged := os.environ.get(STAGED):
            return Path(staged)
        return ROOT / (self.figures or Path("runs", "interactive", self.notebook() or "notebook", "figures"))

    @property
    def claims_dir(self) -> Path:
        """Where claims and manifests of all notebooks are read: the shipped ones, if `figures` is empty."""
        return ROOT / (self.figures or "figures")

    @property
    def stages_dir(self) -> Path:
        """Where trained stages go: `python -m calib_utils` notebooks of one lineage share them."""
        return ROOT / self.runs / "stages"

    @property
    def records_dir(self) -> Path:
        """Where records go."""
        return ROOT / self.runs / "records"


def _reasons(error: ValidationError) -> str:
    """Only the parameters that are wrong, each with its value."""
    found, hint = [], ""
    for each in error.errors():
        where = ".".join(map(str, each["loc"]))
        # A check of several parameters names them itself; its input is the whole configuration.
        said = each["msg"].removeprefix("Value error, ")
        found.append(f"{where}: {said} (got {each['input']!r})" if where else said)
        if each["type"].endswith("_type"):
            hint = "; in YAML write numbers as 1.0e-4 and quote words such as 'no'"
    return "; ".join(found) + hint


def _given_names(cells: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names that the last parameters cell assigns, and those in the cell that papermill put after it.

    The parameters cell annotates `profile`, `figures` or `runs`, which every notebook has.
    """
    written, injected = [], []
    for source in cells:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # not plain Python: a magic command
            continue
        annotated = {node.target.id for node in body if _is_named(node, ast.AnnAssign)}
        plain = [target.id for node in body if _is_named(node, ast.Assign) for target in node.targets]
        if annotated & FolderConfig.model_fields.keys():
            written, injected = [*annotated, *plain], []
        elif source.lstrip().startswith("# Parameters") and len(plain) == len(body):
            injected = plain
    return written, injected


def _is_named(node: ast.stmt, kind: type) -> bool:
    """Whether a statement is an assignment of this kind to plain names."""
    if not isinstance(node, kind):
        return False
    return all(isinstance(target, ast.Name) for target in getattr(node, "targets", None) or [node.target])


def profile_parameters(
    profile: str,
    notebook: str,
    folder: Path = ROOT / "notebooks" / "profiles",
    declared: Collection[str] | None = None,
) -> dict:
    """Parameters that a profile sets for a notebook: its section `common`, overridden by the notebook's own.

    Of `common` only what is `declared` counts, if that is given. Raises ConfigError for an unknown profile or a file
    that is not two levels of names.
    """
    path = folder / f"{profile}.yaml"
    if not path.is_file():
        raise ConfigError(f"profile {profile!r} is unknown; use one of {PROFILES}")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(sections, dict) or not all(isinstance(v, dict | None) for v in sections.values()):
        raise ConfigError(f"{path} must hold sections ('common' or a notebook's name) of parameters")
    common = {n: v for n, v in (sections.get("common") or {}).items() if declared is None or n in declared}
    return {**common, **(sections.get(notebook) or {}), "profile": profile}
