"""The catalogue of mistakes: what a user does, and the one line that answers.

A mistake ends with exit status 2, one line that names the culprit and the cure, no
traceback, and the disk as it was. What only looks like a mistake works as documented.
"""

import io
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image  # comes with Matplotlib; makes the files that TensorFlow does not write

HERE = Path(__file__).parent.parent.parent
RED, BLUE = (200, 30, 30), (20, 40, 220)


def pair(mode="RGB", width=16, height=8):
    """A red and a blue half."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(value, order="MM"):
    """An EXIF block that holds tag 0x0112, orientation, alone; in either byte order."""
    pack = {"MM": ">", "II": "<"}[order]
    entry = struct.pack(f"{pack}HHIHH", 0x0112, 3, 1, value, 0)
    return b"Exif\0\0" + order.encode() + struct.pack(f"{pack}HIH", 42, 8, 1) + entry + bytes(4)


def huge_jpeg():
    """A JPEG whose header asks for 60,000 x 60,000 pixels."""
    data = encoded(pair(), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + (60000).to_bytes(2, "big") * 2 + data[start + 4 :]


def huge_png():
    """A sound PNG header that asks for 60,000 x 60,000 pixels."""
    data = encoded(pair())
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def files(folder):
    """Everything in a folder: its contents, or where a link leads."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.fixture
def mine(tmp_path):
    """A sound dataset of two training pairs and one to validate with, `mine`."""
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pair(height=8 + ord(path.stem[0]))))  # no two are the same
    return tmp_path / "mine"


@pytest.fixture
def refused(call_main, tmp_path, monkeypatch):
    """Asserts that a command is answered as a mistake is, with all the `words` in the line."""

    def train(*args, **options):  # which would take hours
        raise common.UserError("the mistake got through")

    monkeypatch.setattr(common, "train", train)

    def check(script, *flags, words):
        before = files(tmp_path)
        done = call_main(script, *flags)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        *usage, line = done.stderr.splitlines()
        assert not usage or usage[0].startswith("usage:"), done.stderr
        assert line.startswith(f"{script}: error: ")
        for word in words:
            assert word in line
        assert files(tmp_path) == before, "something was written"

    return check


FLAGS = {
    "epochs 0": (["--epochs", "0"], "--epochs"),
    "epochs below 0": (["--epochs", "-1"], "--epochs"),
    "epochs without end": (["--epochs", "1e9"], "--epochs"),
    "epochs in words": (["--epochs", "ten"], "--epochs"),
    "batch of none": (["--batch-size", "0"], "--batch-size"),
    "batch larger than the data": (["--batch-size", "214"], "--batch-size 214"),
    "seed below 0": (["--seed", "-1"], "--seed"),
    "seed too large": (["--seed", "99999999999999999999"], "--seed"),
    "steps 0": (["--steps-per-epoch", "0"], "--steps-per-epoch"),
    "minutes below 0": (["--checkpoint-minutes", "-1"], "--checkpoint-minutes"),
    "size no multiple of 256": (["--size", "255"], "--size: '255' is not HEIGHTxWIDTH"),
    "size 0": (["--size", "0"], "--size: '0' is not HEIGHTxWIDTH"),
    "half a size": (["--size", "256x"], "--size: '256x' is not HEIGHTxWIDTH"),
    "size without end": (["--size", "100000x100000"], "a multiple of 256 from 256 to 4096"),
    "no filters": (["--filters", "0"], "--filters: '0' is not a whole number from 1"),
    "filters without end": (["--filters", "100000"], "--filters: '100000' is not a whole number"),
    "unknown loss": (["--loss", "l2"], "--loss"),
    "unknown precision": (["--precision", "float64"], "--precision"),
    "unknown flag": (["--epoch-count", "3"], "--epoch-count"),
    "lambda below 0": (["--lambda-l1", "-1"], "--lambda-l1"),
    "lambda not a number": (["--lambda-l1", "nan"], "--lambda-l1"),
    "no such dataset": (["--dataset", "nowhere"], "--dataset nowhere: no such folder"),
    "dataset without a name": (["--dataset", ""], "--dataset"),
    "out is a file": (["--out", "file"], "--out file"),
    "out holds other things": (["--out", "full"], "--out full"),
    "out in a file": (["--out", "file/run"], "file/run"),
}
if Path("/proc").is_dir():
    FLAGS["out where no one writes"] = (["--out", "/proc/run"], "/proc/run")


@pytest.mark.parametrize("mistake", FLAGS)
def test_flags(mistake, refused, tmp_path, few_pairs):
    """Broken if a wrong flag is taken, or its refusal does not name it."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    flags, words = FLAGS[mistake]
    if mistake.startswith("out"):  # these come after the pictures have been checked
        flags = [*flags, "--dataset", few_pairs]
    refused("05_pix2pix_train.py", *flags, words=[words])


def remove(path):
    shutil.rmtree(path)


def empty(path):
    remove(path)
    path.mkdir()


def nest(path):
    (path / "deeper").mkdir()
    for file in path.glob("*.png"):
        file.rename(path / "deeper" / file.name)


FOLDERS = {
    "empty": (empty, ["no train in"]),
    "a file instead": (lambda mine: (remove(mine), mine.write_text("")), ["no such folder"]),
    "no train": (lambda mine: remove(mine / "train"), ["no train in"]),
    "no val and no test": (lambda mine: remove(mine / "val"), ["no val or test in"]),
    "empty train": (lambda mine: empty(mine / "train"), ["no .jpg, .jpeg or .png in", "train"]),
    "pictures in folders of folders": (lambda mine: nest(mine / "val"), ["no .jpg, .jpeg or .png in", "val"]),
    "fewer pairs than a batch": (lambda mine: None, ["--batch-size 3", "2 training examples"]),
}


@pytest.mark.parametrize("mistake", FOLDERS)
def test_folders(mistake, mine, refused):
    """Broken if a dataset's wrong layout is not named."""
    make, words = FOLDERS[mistake]
    make(mine)
    refused("05_pix2pix_train.py", "--dataset", "mine", "--batch-size", 3, words=words)


PICTURES = {
    "cut in half": (lambda: encoded(pair())[:60], "damaged"),
    "one byte short": (lambda: encoded(pair())[:-1], "damaged"),
    "a JPEG cut short": (lambda: encoded(pair(), "JPEG")[:-20], "damaged"),
    "a progressive JPEG cut short": (lambda: encoded(pair(), "JPEG", progressive=True)[:-20], "damaged"),
    "a JPEG with a strange marker": (
        lambda: encoded(pair(), "JPEG")[:-20] + b"\xff\xf0" + encoded(pair(), "JPEG")[-18:],
        "damaged",
    ),
    "no bytes": (lambda: b"", "not PNG or JPEG"),
    "text": (lambda: b"no picture", "not PNG or JPEG"),
    "a GIF that moves": (
        lambda: encoded(pair(), "GIF", save_all=True, append_images=[pair("L")]),
        "not PNG or JPEG",
    ),
    "a BMP": (lambda: encoded(pair(), "BMP"), "not PNG or JPEG"),
    "a WebP": (lambda: encoded(pair(), "WEBP"), "not PNG or JPEG"),
    "1 pixel wide": (lambda: encoded(pair(width=1)), "less than 2 pixels wide"),
    "turned by EXIF": (lambda: encoded(pair(), "JPEG", exif=turned(6)), "turned by an EXIF tag"),
    "turned, after a comment": (
        lambda: encoded(pair(), "JPEG", comment=b"x" * 300, exif=turned(6)),
        "turned by an EXIF tag",
    ),
    "mirrored by EXIF": (lambda: encoded(pair(), "JPEG", exif=turned(2, "II")), "turned by an EXIF tag"),
    "a JPEG asking for gigabytes": (huge_jpeg, "more than 33,554,432 pixels"),
    "a PNG asking for gigabytes": (huge_png, "more than 33,554,432 pixels"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, mine, refused):
    """Broken if a picture that is none starts a training."""
    make, problem = PICTURES[name]
    bad = mine / "train" / "bad.png"
    bad.write_bytes(make())
    refused("05_pix2pix_train.py", "--dataset", "mine", words=["--dataset mine", f"{bad.name} ({problem}"])


@pytest.mark.linux
def test_all_bad_pictures_are_named_at_once(mine, refused, call_main):
    """Broken if the user has to find damaged files one run at a time; strange names included."""
    names = ["two\nlines.png", "*[1].png", "-rf.png", "그림.png", 'it\'s "so".png', "$x^2$.png"]
    for name in names:
        (mine / "train" / name).write_bytes(b"no picture")
    (mine / "val" / "gone.png").symlink_to("nowhere")
    (mine / "val" / "folder.png").mkdir()
    (mine / "val" / os.fsdecode(b"\xb1\xd7.png")).write_bytes(encoded(pair()))
    words = [name.replace("\n", "\\n") for name in names]
    words += ["gone.png (No such file", "folder.png (not a file)", "not UTF-8"]
    refused("05_pix2pix_train.py", "--dataset", "mine", words=words)
    done = call_main("03_pix2pix_data.py", "--dataset", "mine")
    assert done.returncode == 2 and all(word in done.stderr.splitlines()[-1] for word in words)
    rows = [line.split() for line in done.stdout.splitlines()]
    train, val = (next(row[:3] for row in rows if row[:1] == [split]) for split in ("train", "val"))
    assert (train, val) == (["train", "2", "6"], ["val", "1", "3"]), "what is sound is not measured"


@pytest.mark.slow
def test_what_never_ends_is_no_picture(mine):
    """Broken if a named pipe, or a device, in a dataset has its check wait for ever."""
    os.mkfifo(mine / "train" / "pipe.png")
    controller, terminal = os.openpty()
    (mine / "val" / "terminal.png").symlink_to(os.ttyname(terminal))
    command = [sys.executable, HERE / "05_pix2pix_train.py", "--dataset", mine]
    done = subprocess.run(command, cwd=mine.parent, capture_output=True, text=True, timeout=60, check=False)
    os.close(controller)
    os.close(terminal)
    assert done.returncode == 2, done.stderr
    for name in ("pipe.png", "terminal.png"):
        assert f"{name} (not a file)" in done.stderr.splitlines()[-1]


def test_interrupted_check():
    """Broken if Ctrl-C, while thousands of pictures are handed out to be checked, waits for them all."""
    checked = []

    class Pictures(list):
        def __iter__(self):
            for number in range(len(self)):
                if number == 300:
                    signal.raise_signal(signal.SIGINT)
                yield number

    def check(number):
        time.sleep(0.02)
        checked.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(common.in_threads(check, Pictures(range(1000))))
    assert len(checked) < 150  # those under way are finished


def test_interrupted_in_a_lock(monkeypatch):
    """Broken if Ctrl-C, at the moment when a lock of the thread pool was taken, leaves it taken for ever."""
    enter, entered, told = threading.Condition.__enter__, [], []

    def enter_and_press(condition):
        result = enter(condition)
        if threading.get_ident() == threading.main_thread().ident:
            entered.append(condition)
            if len(entered) == 50:
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:  # `with` would not give back what it has not got
                    told.append("raised in the lock")
        return result

    monkeypatch.setattr(threading.Condition, "__enter__", enter_and_press)
    with pytest.raises(KeyboardInterrupt):
        common.in_threads(abs, list(range(1000)))
    assert not told


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")])
def test_no_memory_is_no_damage(error, mine, call_main, monkeypatch):
    """Broken if sound pictures are called damaged because memory was short while they were read."""

    def read(*args):
        raise error

    before = files(mine.parent)
    for reader, *command in (
        ("decode_pair", "05_pix2pix_train.py", "--dataset", "mine"),
        ("to_tensor", "07_get_pairs.py", "--edges", "mine/train", "--out", "new"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(common, reader, read)
            done = call_main(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and "out of memory" in done.stderr
        assert files(mine.parent) == before


TAKEN = {
    "PNG": lambda: encoded(pair()),
    "JPEG": lambda: encoded(pair(), "JPEG", quality=95),
    "progressive JPEG": lambda: encoded(pair(), "JPEG", quality=95, progressive=True),
    "JPEG, upright by EXIF": lambda: encoded(pair(), "JPEG", quality=95, exif=turned(1)),
    "JPEG, thumbnail turned": lambda: encoded(pair(), "JPEG", quality=95, exif=turned(1) + turned(6)[14:]),
    "JPEG, orientation 0": lambda: encoded(pair(), "JPEG", quality=95, exif=turned(0)),  # not known
    "JPEG, upright, other order": lambda: encoded(pair(), "JPEG", quality=95, exif=turned(1, "II")),
    "CMYK JPEG": lambda: encoded(pair("CMYK"), "JPEG", quality=95),
    "palette": lambda: encoded(pair().quantize()),
    "RGBA": lambda: encoded(pair("RGBA")),
    "gray and alpha": lambda: encoded(pair("LA")),
    "palette, transparent": lambda: encoded(pair().quantize(), transparency=9),
    "gray": lambda: encoded(pair("L")),
    "gray, 16 bits": lambda: encoded(pair("I").point(lambda value: value * 256).convert("I;16")),
    "2 pixels": lambda: encoded(pair(width=2, height=1)),
    "odd width": lambda: encoded(pair(width=17)),
    "12,000 pixels wide": lambda: encoded(pair(width=12000)),
}
NAMES = ["space in.png", "그림.PNG", "😀.jpeg", 'it\'s "so".png', "two\nlines.png", "*[1].png"]
NAMES += ["-rf.jpg", "$x$.png"]


@pytest.mark.parametrize("kind", TAKEN)
def test_taken(kind, tmp_path):
    """Broken if a sound picture of this kind is refused, or read in wrong colours."""
    path = tmp_path / "file"
    path.write_bytes(TAKEN[kind]())
    assert common.find_unreadable([str(path)]) == {}
    left, right = common.decode_pair(str(path))
    assert left.shape == right.shape
    gray = [[round(0.299 * r + 0.587 * g + 0.114 * b)] * 3 for r, g, b in (RED, BLUE)]
    for half, colour in zip((left, right), gray if "gray" in kind else (RED, BLUE)):
        # The pixel farthest from the middle: a JPEG blurs the other ones a little.
        seen = half[0, 0 if half is left else -1]
        assert float(tf.reduce_max(tf.abs(tf.cast(seen, tf.float32) - colour))) <= 10, kind


def test_one_bit_is_enough(tmp_path):
    """Broken if a line drawing in black and white comes out blank.

    TensorFlow's own four-channel decoding gives such pictures an alpha of 1 in 255.
    """
    path = tmp_path / "drawing.png"
    drawing = Image.new("1", (4, 2), 1)
    drawing.paste(0, (0, 0, 1, 2))
    path.write_bytes(encoded(drawing))
    left, right = common.decode_pair(str(path))
    assert left[0, :, 0].shape == 2 and [int(value) for value in left[0, :, 0]] == [0, 255]
    assert int(tf.reduce_min(right)) == 255


@pytest.mark.linux
def test_names_taken(call_main, mine):
    """Broken if file names with spaces, Korean, emoji, quotes or line breaks cannot be trained on."""
    for number, name in enumerate(NAMES):
        (mine / "train" / name).write_bytes(encoded(pair(height=10 + number)))
    for name in (".DS_Store", "._a.png", "Thumbs.db"):
        (mine / "train" / name).write_bytes(b"not mine")
    (mine / "train" / "folder").mkdir()
    done = call_main("03_pix2pix_data.py", "--dataset", mine)
    assert done.returncode == 0 and not done.stderr, done.stderr
    paths = common.find_pairs(mine)["train"]
    assert len(paths) == len(NAMES) + 2
    flags = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "none"}
    assert len(list(common.training_pairs(paths, **flags, first_step=0, last_step=10))) == 10


def test_shared_pictures(mine, call_main):
    """Broken if training on the validation pictures goes unnoticed."""
    shutil.copy(mine / "train" / "a.png", mine / "val" / "z.png")
    done = call_main("03_pix2pix_data.py", "--dataset", "mine")
    assert done.returncode == 0
    shared = f"{Path('mine/val/z.png')} is {Path('mine/train/a.png')}"
    assert f"1 validation pictures are also trained on, e.g. {shared}" in done.stderr


@pytest.mark.linux
@pytest.mark.parametrize("where", ["dataset", "out"])
def test_no_permission(where, call_main, tmp_path, mine):
    """Broken if a folder that may not be read, or not be written to, ends in a traceback."""
    locked = {"dataset": mine / "train", "out": tmp_path / "locked"}[where]
    locked.mkdir(exist_ok=True)
    flags = ["--dataset", "mine"] if where == "dataset" else ["--dataset", "mine", "--out", "locked/run"]
    for folder in [tmp_path, *tmp_path.parents][:4]:
        if not folder.stat().st_mode & 0o077:  # pytest's own folders, which it closes to other users
            folder.chmod(0o755)
    root = os.geteuid() == 0
    locked.chmod(0o000 if where == "dataset" else 0o555)
    try:
        if root:
            os.seteuid(65534)  # root may everything, nobody may not
        done = call_main("05_pix2pix_train.py", *flags)
    finally:
        if root:
            os.seteuid(0)
        locked.chmod(0o755)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(flags[-1]) in done.stderr and "Permission denied" in done.stderr


def test_mangled_pictures(tmp_path):
    """Broken if a mangled picture crashes the decoder, or is refused and yet trained on.

    400 times a real picture gets bytes flipped, cut out, repeated or swapped. Each result is
    refused by name or decodes to two halves of one size; what is taken can be trained on.
    """
    dice = random.Random(0)
    originals = [path.read_bytes() for path in sorted((HERE / "data" / "openmoji" / "val").iterdir())[:4]]
    originals += [encoded(Image.open(io.BytesIO(data)).convert("RGB"), "JPEG") for data in originals]
    paths = []
    for number in range(400):
        data = bytearray(dice.choice(originals))
        for _ in range(dice.choice([1, 1, 3, 20])):
            # Half of the time in the header, where every byte means something.
            place = dice.randrange(min(len(data), dice.choice([700, len(data)])))
            length = dice.randrange(1, 50)
            piece = bytes(data[place : place + length])
            kind = dice.randrange(4)
            if kind == 0:
                data[place] ^= 1 << dice.randrange(8)
            elif kind == 1:
                del data[place : place + length]
            elif kind == 2:
                data[place:place] = piece
            else:
                data[place : place + length] = dice.randbytes(len(piece))
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        paths.append(str(path))
    problems = common.find_unreadable(paths)
    taken = [path for path in paths if path not in problems]
    assert len(problems) > 200 and len(taken) > 30
    flags = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "none"}
    batches = common.training_pairs(taken, **flags, first_step=0, last_step=len(taken))
    assert sum(1 for _ in batches) == len(taken)
