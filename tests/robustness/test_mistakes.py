"""The catalogue of mistakes: what a user does, and the script's answer in one line.

A mistake ends with exit status 2 and one line that names the culprit and the cure, without a
traceback, and with no file changed. Training itself is left out: a mistake that gets that far
fails the test.
"""

import io
import os
import shutil
from pathlib import Path

import common

import pytest
import tensorflow as tf
from conftest import pair, save, turned
from PIL import Image


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def mine(tmp_path):
    """A sound dataset `mine` of two training pairs and one validation pair."""
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        save(pair(), tmp_path / "mine" / name)
    return tmp_path / "mine"


GAN, CGAN, TRAIN = "01_gan_mnist.py", "02_cgan_mnist.py", "05_pix2pix_train.py"
MODELS, RESULTS = "04_pix2pix_models.py", "09_results.py"
FLAGS = [
    (GAN, "--epochs 0", "--epochs: '0' is not from 1 to 1000000"),
    (GAN, "--epochs ten", "--epochs: invalid whole number value: 'ten'"),
    (GAN, "--batch-size 60001", "--batch-size 60001: there are only 60000 examples"),
    (GAN, "--seed -1", "--seed"),
    (GAN, "--steps-per-epoch 0", "--steps-per-epoch"),
    (GAN, "--precision float64", "--precision"),
    (GAN, "--epoch-count 3", "unrecognized arguments: --epoch-count"),
    (GAN, "--devices 0", "--devices: '0' is not from 1"),
    (GAN, "--devices 640 --batch-size 640", "--devices 640: at most "),
    (GAN, "--out file", "--out file: exists but is not the folder of a run"),
    (GAN, "--out full", "--out full: exists but is not the folder of a run"),
    (GAN, "--out file/run", "file/run"),
    (GAN, "--out run[1]", "--out run[1]: TensorFlow needs a path in UTF-8 without [, * and ?"),
    (CGAN, "--digit 10", "--digit: '10' is not from 0 to 9"),
    (CGAN, "--digit 7 --out full", "full: no trained run here. Train: python 02_"),
    (CGAN, "--learning-rate nan", "--learning-rate: 'nan' is not from 0 to 1"),
    (MODELS, "--out file", "file"),
    (TRAIN, "--size 255", "--size: '255' is not HEIGHTxWIDTH"),
    (TRAIN, "--loss l2", "--loss"),
    (TRAIN, "--lambda-l1 nan", "--lambda-l1: 'nan' is not from 0 to 1000000"),
    (TRAIN, "--loss cgan --lambda-l1 5", "--lambda-l1: has no effect with --loss cgan"),
    (TRAIN, "--dataset nowhere", "--dataset nowhere: no such folder"),
    (TRAIN, "--batch-size 3", "--batch-size 3: there are only 2 examples"),
    (TRAIN, "--start-from full", "full: no trained run here. Train: python 05_"),
    (TRAIN, "--start-from runs/05_pix2pix", "give the new run another --out"),
    (RESULTS, "", f"{Path('runs/05_pix2pix')}: no trained run here"),
    (RESULTS, "full", "full: no trained run here"),
    (RESULTS, "trained --dataset nowhere", "--dataset nowhere: no such folder"),
    (RESULTS, "trained --split test", "--split test: mine has no such split"),
    (RESULTS, "trained --best", "best.weights.h5: missing, damaged or of another network"),
    (RESULTS, "gan", "gan: holds a run of gan, not of pix2pix; give another folder"),
]
FLAGS += [(GAN, "--batch-size 0", "--batch-size"), (GAN, f"--seed {10**20 - 1}", "--seed")]
FLAGS += [(CGAN, "--beta-1 1", "--beta-1"), (MODELS, "--steps 0", "--steps")]
FLAGS += [(TRAIN, "--filters 0", "--filters: '0' is not from 1 to 256")]
FLAGS += [(GAN, "--out /proc/run", "/proc/run")] if Path("/proc").is_dir() else []


@pytest.fixture
def runs(mine, make_run, tmp_path):
    """Makes the folders that FLAGS names, beside `mine`."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")

    def make():
        network, flags = common.UNet(1), {"--dataset": "mine"}
        make_run(tmp_path / "trained", network, flags=flags)
        options = make_run(tmp_path / "gan", network, flags=flags) / "options.json"
        options.write_text(options.read_text().replace('"pix2pix"', '"gan"'))

    return make


@pytest.mark.parametrize("script, flags, words", FLAGS)
def test_flags(script, flags, words, refused, runs):
    """Broken if a wrong flag is accepted, or the error does not name it."""
    if "trained" in flags or flags == "gan":
        runs()
    if script == TRAIN and "--dataset" not in flags:
        flags += " --dataset mine"
    refused(script, *flags.split(), words=words, notes=("usage: ", "  ", "Warning: trained: made"))


@pytest.mark.slow
def test_two_devices_share_evenly(run_script):
    """Broken if a batch that two devices cannot share, or float16 on two devices, is accepted."""
    for flags, words in (
        (["--batch-size", "3"], "--batch-size 3: not a multiple of the 2 devices"),
        (["--precision", "mixed_float16"], "--precision mixed_float16: one device only"),
    ):
        done = run_script(GAN, "--devices", 2, *flags)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr


FOLDERS = {
    "empty": (lambda mine: [shutil.rmtree(path) for path in mine.iterdir()], "train/ and val"),
    "no val and no test": (lambda mine: shutil.rmtree(mine / "val"), "val"),
    "two sides": (lambda mine: (mine / "train").rename(mine / "trainA"), "train"),
    "too deep": (lambda mine: (mine / "val").rename(mine / "train" / "val"), "val"),
}


@pytest.mark.parametrize("mistake", FOLDERS)
def test_folders(mistake, mine, refused):
    """Broken if the error about a dataset's layout does not say what is missing and what helps."""
    make, words = FOLDERS[mistake]
    make(mine)
    words = f"--dataset mine: no .jpg or .png directly in {words}/"
    *_, line = refused(TRAIN, "--dataset", "mine", words=words, notes=("Warning: left out",))
    assert "python 07_get_pairs.py --pair" in line


PICTURES = {
    "no bytes": (lambda: b"", "not a picture that Pillow knows"),
    "text": (lambda: b"no picture", "not a picture that Pillow knows"),
    "a WebP": (lambda: encoded(pair(), "WEBP"), "not JPEG or PNG inside"),
    "a camera's": (lambda: encoded(pair(), "TIFF", tiffinfo={254: 1}), "a camera's raw file"),
    "16 bits": (lambda: encoded(Image.new("I;16", (16, 8))), "16 bits of gray"),
    "1 pixel wide": (lambda: encoded(pair(size=(1, 8))), "too narrow"),
    "turned by EXIF": (lambda: encoded(pair(), "JPEG", **turned(6)), "turned by EXIF"),
    "mirrored by EXIF": (lambda: encoded(pair(), "JPEG", **turned(2)), "turned by EXIF"),
    "transparent": (lambda: encoded(pair("RGBA")), "transparent"),
    "a JPEG's header alone": (lambda: encoded(pair(), "JPEG")[:-100], "damaged (Truncated"),
    "cut in half": (lambda: encoded(pair())[:60], "damaged"),
    "a JPEG cut short": (lambda: encoded(pair(), "JPEG")[:-20], "damaged"),  # header and size sound
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, mine, refused):
    """Broken if a file that is no picture, or that training would misread, is accepted."""
    make, problem = PICTURES[name]
    (mine / "train" / "bad.png").write_bytes(make())
    (line,) = refused(TRAIN, "--dataset", "mine", words="07_get_pairs.py --pair")
    assert f"{Path('mine', 'train', 'bad.png')} ({problem}" in line


@pytest.mark.linux
def test_all_bad_pictures_are_named_at_once(mine, refused):
    """Broken if one run does not name all bad files, including those with strange names."""
    names = ["two\nlines.png", "*[1].png", "-rf.png", "그림.png", 'it\'s "so".png']
    for name in names:
        (mine / "train" / name).write_bytes(b"no picture")
    (mine / "val" / "gone.png").symlink_to("nowhere")
    (mine / "val" / "folder.png").mkdir()
    (mine / "val" / f"{'n' * 248}.png").write_bytes(encoded(pair()))
    (mine / "val" / os.fsdecode(b"\xb1\xd7.png")).write_bytes(encoded(pair()))
    (line,) = refused(TRAIN, "--dataset", "mine", words="--dataset mine: ")
    for name in [*names, "gone.png (No such file", "nnn.png (the name is too long"]:
        assert name.replace("\n", "\\n") in line


TAKEN = {
    "PNG": lambda: encoded(pair()),
    "JPEG": lambda: encoded(pair(), "JPEG", quality=95),
    "progressive JPEG": lambda: encoded(pair(), "JPEG", quality=95, progressive=True),
    "JPEG, upright by EXIF": lambda: encoded(pair(), "JPEG", quality=95, **turned(1)),
    "JPEG, unknown orientation": lambda: encoded(pair(), "JPEG", quality=95, **turned(0)),
    "CMYK JPEG": lambda: encoded(pair("CMYK"), "JPEG", quality=95),
    "palette": lambda: encoded(pair().quantize()),
    "gray": lambda: encoded(pair("L")),
    "black and white": lambda: encoded(pair("1", (4, 2))),
    "2 pixels": lambda: encoded(pair(size=(2, 1))),
    "odd width": lambda: encoded(pair(size=(17, 8))),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_taken(kind, stage5, tmp_path, capsys):
    """Broken if a sound picture of this kind is refused, or read in wrong colours."""
    path = tmp_path / "file"
    path.write_bytes(TAKEN[kind]())
    stage5.check_headers(tmp_path, [str(path)])
    assert not capsys.readouterr().err
    left, right = common.decode_pair(str(path))
    assert left.shape == right.shape
    wanted = pair("1" if kind == "black and white" else "L" if kind == "gray" else "RGB")
    wanted = wanted.convert("RGB")
    for half, x in ((left, 0), (right, wanted.width - 1)):
        # The pixel farthest from the middle, since a JPEG blurs the others a little.
        distance = tf.cast(half[0, 0 if half is left else -1], tf.float32) - wanted.getpixel((x, 0))
        assert float(tf.reduce_max(tf.abs(distance))) <= 10, kind


@pytest.mark.linux
@pytest.mark.parametrize("where", ["dataset", "out"])
def test_no_permission(where, call_main, tmp_path, mine):
    """Broken if a folder without permission to read or write is not named in a one-line error."""
    locked = {"dataset": mine / "train", "out": tmp_path / "locked"}[where]
    locked.mkdir(exist_ok=True)
    flags = ["--dataset", "mine", *(["--out", "locked/run"] if where == "out" else [])]
    for folder in [tmp_path, *tmp_path.parents][:4]:
        if not folder.stat().st_mode & 0o077:  # pytest's own folders, closed to other users
            folder.chmod(0o755)
    root = os.geteuid() == 0
    locked.chmod(0o000 if where == "dataset" else 0o555)
    try:
        if root:
            os.seteuid(65534)  # root has every permission, "nobody" does not
        done = call_main(TRAIN, *flags)
    finally:
        if root:
            os.seteuid(0)
        locked.chmod(0o755)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert str(flags[-1]) in done.stderr and "Permission denied" in done.stderr


NO_MEMORY = [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_no_memory_is_no_damage(error, mine, stage5, refused, monkeypatch):
    """Broken if sound pictures are called damaged because memory ran out."""

    def decode(*args):
        raise error

    monkeypatch.setattr(common, "decode_pair", decode)
    damage = tf.errors.InvalidArgumentError(None, None, "damaged")
    paths = common.find_pairs(mine)["train"]
    with pytest.raises(type(error)), stage5.naming_damaged(paths):
        raise damage
    with pytest.raises(type(error)), common.opening(paths[0]):
        raise error
    monkeypatch.setattr(stage5, "guess_kind", decode)
    refused(TRAIN, "--dataset", "mine", words="out of memory. Use a smaller --batch-size")
