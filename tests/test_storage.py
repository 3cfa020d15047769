"""Files are whole or not there; locks, digests and generators are the same in every process."""

import multiprocessing
import time

import pytest

from calib_utils import errors, storage


def test_a_published_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "a.csv"
    storage.publish(path, "1")
    storage.publish(path, b"2")
    assert path.read_text() == "2" and [found.name for found in path.parent.iterdir()] == ["a.csv"]


def test_what_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.WriteError, match=r"cannot write .*file/a\.csv: .*choose another folder"):
        storage.publish(tmp_path / "file" / "a.csv", "1")
    with pytest.raises(errors.WriteError, match=rf"^cannot write {tmp_path}: "), storage.writing(tmp_path):
        raise OSError(28, "No space left on device")


def _hold(target, began):
    with storage.lock(target):
        began.touch()
        time.sleep(1.0)


def test_a_lock_is_waited_for_and_says_so(tmp_path, capsys):
    began = tmp_path / "began"
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path / "target", began))
    process.start()
    while not began.exists():
        time.sleep(0.02)
    with storage.lock(tmp_path / "target", "waiting for the other one"):
        assert not process.is_alive() or process.join(5) is None
    assert capsys.readouterr().out == "waiting for the other one\n"
    process.join()


def test_a_generator_is_a_function_of_its_seeds_and_its_text():
    first, same, other = (storage.generator(3, of=name).random() for name in ("q/1", "q/1", "q/2"))
    assert first == same != other and storage.generator(3, 5, of="q/1").random() != first


def test_every_error_of_the_package_is_one_the_command_line_reports():
    children = [
        found for found in vars(errors).values() if isinstance(found, type) and found is not errors.CalibError
    ]
    assert len(children) == 8 and all(issubclass(child, errors.CalibError) and child.__doc__ for child in children)
    kinds = {"ConfigError": ValueError, "DataError": ValueError, "WriteError": OSError}
    assert all(issubclass(child, kinds.get(child.__name__, RuntimeError)) for child in children)
