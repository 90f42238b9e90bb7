"""The structure of folders of images: splits, classes, order, and what does not belong there."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from wasser_tf.data import folder


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names_of(listing):
    return {part: [(file.name, file.label) for file in files] for part, files in listing.parts.items()}


def test_class_folders_are_a_train_split(tmp_path):
    listing = folder.list_folder(touch(tmp_path, "dog/2.PNG", "dog/10.jpeg", "cat/deep/er/1.jpg", "cat/.hidden"))
    assert listing.class_names == ("cat", "dog") and listing.alien == []
    assert names_of(listing) == {"train": [("cat/deep/er/1.jpg", 0), ("dog/10.jpeg", 1), ("dog/2.PNG", 1)]}


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Validation"])
def test_split_folders(tmp_path, validation):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", f"{validation}/b/1.png", "test/a/1.png", "Thumbs.db")
    listing = folder.list_folder(tmp_path)
    assert set(listing.parts) == {"train", "validation", "test"} and listing.alien == []
    assert names_of(listing)["validation"] == [(f"{validation}/b/1.png", 1)]


def test_a_class_may_be_called_train(tmp_path):
    listing = folder.list_folder(touch(tmp_path, "train/1.png", "plane/1.png"))
    assert listing.class_names == ("plane", "train")


def test_the_order_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{name}/{number}.png" for name in "cab" for number in range(5)))
    listing = folder.list_folder(tmp_path)
    scan = os.scandir
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": listdir(path)[::-1])
    monkeypatch.setattr(os, "scandir", lambda path=".": _Reversed(scan(path)))
    assert folder.list_folder(tmp_path) == listing


class _Reversed:
    def __init__(self, entries):
        self.entries = list(entries)[::-1]

    def __enter__(self):
        return iter(self.entries)

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return iter(self.entries)


def test_alien_files_are_named(tmp_path):
    touch(
        tmp_path, "train/a/1.png", "train/b/1.png", "train/list.csv", "train/a/x.tif", "notes/x.txt", "README", "1.png"
    )
    assert folder.list_folder(tmp_path).alien == ["1.png", "README", "notes/", "train/a/x.tif", "train/list.csv"]


def test_class_names_give_the_order(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    listing = folder.list_folder(tmp_path, ("b", "none", "a"))
    assert listing.class_names == ("b", "none", "a") and names_of(listing) == {
        "train": [("a/1.png", 2), ("b/1.png", 0)]
    }
    with pytest.raises(ValueError, match="class_names must hold the name of every class folder .* lacks b: add it"):
        folder.list_folder(tmp_path, ("a", "c"))


def test_accents_have_one_spelling(tmp_path):
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    touch(tmp_path, f"train/{composed}/1.png", "train/b/1.png", f"test/{decomposed}/1.png")
    assert folder.list_folder(tmp_path).class_names == ("b", composed)
    with pytest.raises(ValueError, match="two folders of the class 'é', in two Unicode spellings: merge them"):
        folder.list_folder(touch(tmp_path, f"train/{decomposed}/2.png"))


def test_classes_that_differ_in_case_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'Cat' and 'cat', which are one folder on some systems: merge them"):
        folder.list_folder(touch(tmp_path, "train/Cat/1.png", "train/dog/1.png", "test/cat/1.png"))


def test_links_are_followed_once(tmp_path):
    root = touch(tmp_path / "set", "a/1.png", "b/1.png")
    touch(tmp_path / "elsewhere", "2.png")
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "circle").symlink_to(root / "a")
    assert names_of(folder.list_folder(root)) == {"train": [("a/1.png", 0), ("a/more/2.png", 0), ("b/1.png", 1)]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png"], "at least two classes, got a: give a folder with train/"),
        (["1.png"], "at least two classes, got none"),
        (["a/1.txt", "b/2.txt"], "holds no PNG or JPEG images in folders of classes"),
        (["train/1.png", "test/1.png"], "holds no folders of classes"),
        (["val/a/1.png", "valid/a/1.png"], "are both the validation split"),
    ],
)
def test_other_structures_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        folder.list_folder(touch(tmp_path, *names))


def test_images_have_the_suffixes_that_pillow_reads(tmp_path):
    for suffix in folder.SUFFIXES:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / f"x{suffix}")
