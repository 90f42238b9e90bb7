import errno
import io
import math
import os
import shutil
import signal
import time
import zipfile

import numpy as np
import pytest

from wasser_tf.runtime import storage


def test_files_and_folders_are_replaced_atomically(tmp_path):
    file, folder = tmp_path / "file.txt", tmp_path / "folder"
    for content in ("old", "new"):
        storage.write_text(file, content)
        with storage.atomic_path(folder) as beside:
            beside.mkdir()
            (beside / content).write_text(content)
    for path in (file, folder):
        with pytest.raises(KeyError), storage.atomic_path(path) as beside:
            beside.write_text("half")
            raise KeyError
    assert file.read_text() == "new" and [path.name for path in folder.iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    with storage.atomic_path(tmp_path / "model.keras") as beside:
        beside.write_text("whole")
        half = beside.name
    (tmp_path / "inner" / half).mkdir(parents=True)
    (tmp_path / "inner" / half / "part").write_text("")
    (tmp_path / ".folder.0123abcd.replaced").mkdir()
    (tmp_path / ".hidden").write_text("someone else's")
    storage.remove_leftovers(tmp_path, below=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "inner", "model.keras"]
    assert (tmp_path / "inner" / half / "part").exists()
    storage.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".hidden", "inner", "model.keras"]


def test_json_is_valid_for_every_reader(tmp_path):
    storage.write_json(tmp_path / "a.json", {"value": [1.5, math.inf, (math.nan,)], 3: "ε"})
    assert storage.read_json(tmp_path / "a.json") == {"value": [1.5, "inf", ["nan"]], "3": "ε"}
    with pytest.raises(ValueError, match="cannot be read"):
        storage.read_json(tmp_path / "b.json")


def test_a_folder_is_locked_by_one_process_until_it_ends(tmp_path):
    reading, writing = os.pipe()
    # A fork, for another process would import TensorFlow first.
    process = os.fork()
    if not process:
        with storage.locked(tmp_path):
            os.write(writing, b"locked")
            time.sleep(60)
        os._exit(1)
    try:
        assert os.read(reading, 6) == b"locked"
        with pytest.raises(ValueError, match="A run that has not ended is writing into"), storage.locked(tmp_path):
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reading)
        os.close(writing)
    for _ in range(2):
        with storage.locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_full_or_read_only_disk_is_reported_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    with pytest.raises(
        OSError, match=r"file cannot be written \(No space left on device\): free disk space .* files are unchanged"
    ):
        with storage.atomic_path(tmp_path / "file") as beside:
            beside.write_text("half of the n")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    inside = Exception("{{function_node __wrapped__SaveV2}} /x/.1.0123.partial/v; No space left on device [Op:SaveV2]")
    assert str(storage.cannot_write("/x/1", inside)).startswith("/x/1 cannot be written (No space left on device): ")
    silent = Exception("{{function_node __wrapped__MergeV2Checkpoints}} /x/.1.0123.partial/variables.index;")
    assert "/1 cannot be written (the disk does not say why): free disk space" in str(
        storage.cannot_write(tmp_path / "1", silent)
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    assert "/1 cannot be written (No space left on device): free disk space" in str(
        storage.cannot_write(tmp_path / "1", silent)
    )
    # A file in the place of a folder: what root may not write to either.
    with pytest.raises(OSError, match="inner cannot be written"):
        storage.write_text(tmp_path / "file" / "inner" / "x", "new")


class _Harm:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_arrays_are_not_loaded(tmp_path):
    array = np.array([_Harm(tmp_path / "harm")], object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", index=array)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as an \.npy file"):
        storage.read_array(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as an \.npz file"):
        storage.read_arrays(tmp_path / "a.npz")
    assert not (tmp_path / "harm").exists()
    # It would have been.
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert (tmp_path / "harm").exists()


def test_archives_cannot_write_files_or_exceed_the_memory(tmp_path):
    file = io.BytesIO()
    np.save(file, np.arange(3))
    folder = tmp_path / "inner" / "most"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("../../escaped.npy", file.getvalue())
    storage.read_arrays(folder / "a.npz")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.npz"]
    # 400 TB of floats, by the header of an array of which nothing more is there.
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 100), }".ljust(117) + b"\n"
    absurd = b"\x93NUMPY\x01\x00v\x00" + header
    (tmp_path / "a.npy").write_bytes(absurd)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("index.npy", absurd)
    for read, name in ((storage.read_array, "a.npy"), (storage.read_arrays, "b.npz")):
        with pytest.raises(ValueError, match="cannot be read as an"):
            read(tmp_path / name)
