"""A dataset of many pictures: what has been checked is not checked again, unless it has changed."""

import gc
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time

import common

import pytest
import tensorflow as tf


@pytest.fixture
def pairs(few_pairs, tmp_path):
    """A copy of the few pairs: their folder, and the paths of all six."""
    shutil.copytree(few_pairs, tmp_path / "pairs")
    found = common.find_pairs(str(tmp_path / "pairs"))
    return tmp_path / "pairs", found["train"] + found["val"]


@pytest.fixture
def decoded(monkeypatch):
    """A list of the files that have been decoded, in any order."""
    files, check = [], common.check_picture
    monkeypatch.setattr(common, "check_picture", lambda path: files.append(path) or check(path))
    return files


def test_checks_are_kept(pairs, tmp_path, decoded):
    """Broken if a second start decodes anything, or its hashes are others than those of the files.

    The hashes make up "contents of the data" in options.json, in the order of the paths: other
    ones, or another order, and no earlier run could go on.
    """
    _, paths = pairs
    problems, checks = common.check_pictures(paths, tmp_path)
    assert problems == {} and sorted(decoded) == sorted(paths)
    common.keep_checks(tmp_path, checks)
    again = common.check_pictures(paths, tmp_path)
    assert again == (problems, checks) and len(decoded) == len(paths)
    hashes = common.file_hashes(paths)
    assert list(hashes.items()) == [(path, check[-1]) for path, check in again[1].items()]


def test_only_what_changed_is_checked(pairs, tmp_path, decoded):
    """Broken if a changed or new picture is taken for the old one, or a removed one is still there.

    The first file gets other contents of the same size, the second is only touched, the third
    becomes longer but keeps its time, the fourth goes, and a new one comes.
    """
    _, paths = pairs
    first, second, third, fourth, *others = paths
    with open(first, "ab") as file:
        file.write(b"1")
    _, checks = common.check_pictures(paths, tmp_path)
    common.keep_checks(tmp_path, checks)
    decoded.clear()
    status = [os.stat(path) for path in paths]
    with open(first, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"2")
    os.utime(first, ns=(0, status[0].st_mtime_ns + 1))
    os.utime(second, ns=(0, status[1].st_mtime_ns + 1))
    with open(third, "ab") as file:
        file.write(b"\0")
    os.utime(third, ns=(0, status[2].st_mtime_ns))
    os.remove(fourth)
    new = shutil.copy(second, f"{fourth}.new.png")

    now = [first, second, third, new, *others]
    problems, rechecked = common.check_pictures(now, tmp_path)
    assert sorted(decoded) == sorted([first, second, third, new])
    assert problems == {} and list(rechecked) == now
    assert {path: check[-1] for path, check in rechecked.items()} == common.file_hashes(now)


def test_unreadable_at_the_second_start(pairs, tmp_path):
    """Broken if a picture that has been damaged since the first start is not refused."""
    _, paths = pairs
    common.keep_checks(tmp_path, common.check_pictures(paths, tmp_path)[1])
    with open(paths[1], "r+b") as file:
        file.truncate(300)
    for _ in range(2):
        problems, checks = common.check_pictures(paths, tmp_path)
        assert problems == {paths[1]: "damaged"} and len(checks) == 5
        common.keep_checks(tmp_path, checks)


FOREIGN = {
    "cut": lambda text: text[:-100],
    "one digit of a hash": lambda text: text[:-3] + ("0" if text[-3] != "0" else "1") + text[-2:],
    "empty": lambda text: "",
    "another file": lambda text: json.dumps({"name": [1, 2, 3]}),
    "another seal": lambda text: "0" * 64 + text[64:],
    "not text": lambda text: b"\xff\xfe\x00".decode("latin-1") * 100,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_damaged_checks(kind, pairs, tmp_path, decoded):
    """Broken if kept checks that are damaged, or not ours, are believed, or end a start."""
    _, paths = pairs
    _, checks = common.check_pictures(paths, tmp_path)
    common.keep_checks(tmp_path, checks)
    file = tmp_path / common.CHECKED
    file.write_bytes(FOREIGN[kind](file.read_text()).encode("latin-1"))
    decoded.clear()
    assert common.check_pictures(paths, tmp_path) == ({}, checks)
    assert len(decoded) == len(paths)


def test_checks_of_another_tensorflow(pairs, tmp_path, monkeypatch, decoded):
    """Broken if a picture that another TensorFlow could read is not tried with this one."""
    _, paths = pairs
    common.keep_checks(tmp_path, common.check_pictures(paths, tmp_path)[1])
    decoded.clear()
    monkeypatch.setattr(tf, "__version__", "2.0.0")
    common.check_pictures(paths, tmp_path)
    assert len(decoded) == len(paths)


def test_stage5_keeps_checks(pairs, call_main, tmp_path, monkeypatch, decoded):
    """Broken if stage 5 checks all anew at its second start, takes a picture damaged since, or if it
    leaves anything where it has refused to start.

    It is stopped where the networks would be made; --fresh keeps what has been checked, too.
    """
    stage5 = importlib.import_module("05_pix2pix_train")
    monkeypatch.setattr(stage5, "Pix2Pix", lambda *args: sys.exit(7))
    folder, paths = pairs
    flags = ["--dataset", folder, "--out", tmp_path / "run"]
    assert call_main("05_pix2pix_train.py", *flags).returncode == 7
    assert len(decoded) == len(paths)
    for more in ([], ["--fresh"], []):
        assert call_main("05_pix2pix_train.py", *flags, *more).returncode == 7
        assert len(decoded) == len(paths)
    with open(paths[0], "r+b") as file:
        file.truncate(300)
    ended = call_main("05_pix2pix_train.py", *flags)
    assert ended.returncode == 2 and f"{paths[0]} (damaged)" in ended.stderr
    assert len(decoded) == len(paths) + 1
    ended = call_main("05_pix2pix_train.py", *flags[:-1], tmp_path / "elsewhere")
    assert ended.returncode == 2 and not (tmp_path / "elsewhere").exists()


def test_damaged_only_in_its_pixels(tmp_path, capfd):
    """Broken if a picture is not decoded to its end, or TensorFlow's words about it get through."""
    path = str(tmp_path / "picture.jpg")
    noise = tf.random.stateless_uniform((64, 128, 3), (0, 0), 0, 256, tf.int32)
    data = tf.io.encode_png(tf.cast(noise, tf.uint8))
    tf.io.write_file(path, data)
    assert common.find_unreadable([path]) == {}
    tf.io.write_file(path, tf.strings.substr(data, 0, tf.strings.length(data) - 2000))
    assert common.find_unreadable([path]) == {path: "damaged"}
    assert capfd.readouterr().err == ""


def test_stopped_while_checking(pairs):
    """Broken if Ctrl-C waits for pictures that are still to be checked: 100,000 of them here."""
    _, paths = pairs
    common.find_unreadable(paths)  # traces
    gc.collect()  # Python drops a Ctrl-C that falls into the __del__ of what other tests have left
    pressed = []

    def press():
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        common.find_unreadable(paths[:1] * 100_000)
    assert time.monotonic() - pressed[0] < 1.0
