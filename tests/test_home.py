"""Where files are: in the clone, where a variable says, or in the folder of notebooks that one stands in."""

import pytest

from calib_utils import home


@pytest.fixture
def wheel(monkeypatch):
    """As installed without a clone, and without the variable."""
    monkeypatch.delenv("CALIB_UTILS_HOME", raising=False)
    monkeypatch.setattr(home, "checkout", lambda: None)
    return monkeypatch


def test_the_package_lies_in_this_clone(monkeypatch):
    monkeypatch.delenv("CALIB_UTILS_HOME", raising=False)
    assert home.checkout() == home.PACKAGE.parent == home.home()


def test_the_variable_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("CALIB_UTILS_HOME", str(tmp_path))
    assert home.home() == tmp_path


def test_without_a_clone_the_nearest_folder_with_notebooks_is_home(wheel, tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    wheel.chdir(inner)
    assert home.home() == inner  # no notebooks anywhere above
    (tmp_path / "notebooks").mkdir()
    assert home.home() == inner  # a folder of that name without one
    (tmp_path / "notebooks" / "01_mine.ipynb").touch()
    assert home.home() == tmp_path


def test_git_says_nothing_about_an_installed_package(wheel):
    home.of_code.cache_clear()
    assert home.git("rev-parse", "HEAD") is None and home.of_code() == {"commit": None, "dirty": None}
    home.of_code.cache_clear()


def test_an_empty_home_says_where_notebooks_were_looked_for(wheel):
    said = home.nothing_found()
    assert str(home.ROOT / "notebooks") in said and "(not set)" in said and "installed without one" in said


def test_a_process_elsewhere_finds_home_and_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "other")
    found = home.environment()
    assert found["CALIB_UTILS_HOME"] == str(home.ROOT) and found["PYTHONPATH"].endswith("other")
    assert found["PYTHONPATH"].startswith(str(home.PACKAGE.parent))
