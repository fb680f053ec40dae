"""What pictures and datasets are found to be: drawings, label maps, splits, widths of lines, by hand."""

import argparse
import json
import shutil

import common

import pytest
import tensorflow as tf
from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return str(path)


def values(picture, *place):
    return [int(value) for value in picture[place]]


def test_some_paths_spread_over_all():
    """Broken if samples are not of the whole validation set, change, or are more than asked for."""
    paths = list(range(51))
    assert common.spread(paths, 6) == [4, 12, 20, 28, 36, 44]
    assert common.spread(paths, 6) == common.spread(paths, 6)
    assert common.spread(paths, 51) == paths and common.spread(paths[:3], 6) == [0, 1, 2]
    assert len(common.spread(list(range(11)), 4)) == 4


def test_what_a_drawing_is():
    """Broken if a photograph, a coloured picture or a blackboard is taken for a sketch."""

    def page(paper, ink, share):
        picture = tf.tile(tf.constant(paper)[tf.newaxis, tf.newaxis], (20, 20, 1))
        lines = tf.cast(tf.range(20) < round(20 * share), tf.float32)[:, tf.newaxis, tf.newaxis]
        return picture * (1 - lines) + tf.constant(ink) * lines

    white, black = [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]
    assert common.is_drawing(page(white, black, 0.1)) and common.is_drawing(page(white, black, 0.35))
    assert not common.is_drawing(page(black, white, 0.1)), "white on black"
    assert not common.is_drawing(page(white, black, 0.5)), "as much ink as paper"
    assert not common.is_drawing(page(white, [1.0, -1.0, -1.0], 0.1)), "in colour"
    assert not common.is_drawing(tf.random.stateless_uniform((20, 20, 3), (0, 0), -1.0, 1.0))


def test_most_conditions_decide(tmp_path):
    """Broken if one photograph among drawings, or one drawing among photographs, decides what a set is."""
    drawing, photo = (Image.new("RGB", (8, 8), colour) for colour in ("white", "red"))
    paths = {
        name: save(Image.new("RGB", (16, 8)), tmp_path / f"{name}.png")
        for name in ("drawing_1", "drawing_2", "photo_1", "photo_2")
    }
    for name, path in paths.items():
        pair = Image.new("RGB", (16, 8))
        pair.paste(drawing if "drawing" in name else photo, (0, 0))
        pair.paste(photo if "drawing" in name else drawing, (8, 0))
        pair.save(path)
    drawing_1, drawing_2, photo_1, photo_2 = paths.values()
    assert common.look_at_conditions([drawing_1, drawing_2, photo_1], "AtoB") == "sketch"
    assert common.look_at_conditions([drawing_1, photo_1, photo_2], "AtoB") == "picture"
    assert common.look_at_conditions([drawing_1, drawing_2, photo_1], "BtoA") == "picture"


def test_a_condition_is_what_its_dataset_says_of_that_half(few_pairs, tmp_path):
    """Broken if what dataset.json says of one half is taken for the other when the direction is turned."""
    shutil.copytree(few_pairs, tmp_path / "mine")
    (tmp_path / "mine" / "dataset.json").write_text('{"direction": "AtoB", "condition": "labels"}')
    paths = common.find_pairs(tmp_path / "mine")["train"]
    assert common.condition_kind(tmp_path / "mine", paths, "AtoB") == "labels"
    assert common.condition_kind(tmp_path / "mine", paths, "BtoA") == "picture"
    (tmp_path / "mine" / "dataset.json").unlink()
    assert common.condition_kind(tmp_path / "mine", paths, "AtoB") == "sketch"


WRONG = {
    "direction": {"direction": "left"},
    "condition": {"condition": "map"},
    "no #rrggbb": {"condition": "labels", "colours": [["red", ""]]},
    "capitals": {"condition": "labels", "colours": [["#FF0000", ""]]},
    "too long": {"condition": "labels", "colours": [["#ff00000", ""]]},
    "a name that is a number": {"condition": "labels", "colours": [["#ff0000", 1]]},
    "no names": {"condition": "labels", "colours": ["#ff0000"]},
    "more classes than colours": {"colours": [["#ff0000", ""]], "classes": [1, 2]},
    "classes in words": {"colours": [["#ff0000", ""]], "classes": ["one"]},
    "a list": [],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_dataset_json_is_named(wrong, few_pairs, tmp_path):
    """Broken if what a dataset says of itself is believed though it cannot be."""
    shutil.copytree(few_pairs, tmp_path / "mine")
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(WRONG[wrong]))
    with pytest.raises(common.UserError, match="dataset.json: cannot be used"):
        common.describe_dataset(tmp_path / "mine")


def test_a_right_dataset_json_is_taken(few_pairs, tmp_path):
    """Broken if what a dataset says of itself is refused, or gets lost."""
    shutil.copytree(few_pairs, tmp_path / "mine")
    about = {"direction": "BtoA", "condition": "labels", "origin": "me"}
    about |= {"colours": [["#00ff7a", "tree"], ["#000000", ""]], "classes": [7, 0]}
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(about))
    assert common.describe_dataset(tmp_path / "mine") == about
    (tmp_path / "mine" / "dataset.json").write_text('{"condition": "picture"}')
    assert common.describe_dataset(tmp_path / "mine") == {"direction": "AtoB", "condition": "picture"}
    assert common.describe_dataset("openmoji")["direction"] == "AtoB", "a name under data/"


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    """Broken if a folder of one's own that is called openmoji is not taken where it lies."""
    monkeypatch.chdir(tmp_path)
    assert common.dataset_folder("openmoji") == common.HERE / "data" / "openmoji"
    (tmp_path / "openmoji").mkdir()
    assert common.dataset_folder("openmoji").resolve() == tmp_path / "openmoji"
    with pytest.raises(common.UserError, match="--dataset nowhere: no such folder"):
        common.dataset_folder("nowhere")


@pytest.mark.parametrize("splits, wanted", [("val test", "val"), ("test", "test"), ("val", "val")])
def test_val_goes_before_test(splits, wanted, tmp_path):
    """Broken if test/ is validated with though there is a val/."""
    for split in ["train", *splits.split()]:
        save(Image.new("RGB", (8, 4)), tmp_path / split / "a.png")
    assert common.find_pairs(tmp_path)["val"] == [str(tmp_path / wanted / "a.png")]
    (tmp_path / "val").mkdir(exist_ok=True)
    (tmp_path / "val" / "a.png").unlink(missing_ok=True)
    if "test" in splits:
        assert common.find_pairs(tmp_path)["val"] == [str(tmp_path / "test" / "a.png")], (
            "hidden by an empty val"
        )
    else:
        with pytest.raises(common.UserError, match="no .jpg, .jpeg or .png"):
            common.find_pairs(tmp_path)


def test_endings_of_pictures(tmp_path):
    """Broken if pictures are left out for their ending, or hidden and other files are taken."""
    names = ["b.PNG", "a.jpeg", "c.JPG", "d.png"]
    for name in [*names, ".hidden.png", "notes.txt", "e.gif", "png"]:
        (tmp_path / name).write_bytes(b"")
    assert common.list_pictures(tmp_path) == [str(tmp_path / name) for name in sorted(names)]


@pytest.mark.parametrize("width", [2, 5, 12])
@pytest.mark.parametrize("upright", [True, False])
def test_width_of_a_line(width, upright):
    """Broken if a line's width is not in its own pixels, or depends on how it runs or how dark it is."""
    line = tf.cast((tf.range(128) >= 74) & (tf.range(128) < 74 + width), tf.float32)
    line = line[tf.newaxis] if upright else line[:, tf.newaxis]
    for ink in (1.0, 0.5):
        page = tf.broadcast_to(1.0 - ink * line, (128, 128))[..., tf.newaxis]
        assert common.line_width([page]) == pytest.approx(width, rel=0.12)
    assert common.line_width([tf.ones((64, 64, 1))]) == 0.0


def test_most_lines_decide_the_width():
    """Broken if one filled shape makes a set of thin drawings a set of thick ones."""
    thin = tf.where((tf.range(256) + 20) % 64 < 3, 0.0, 1.0)[tf.newaxis] * tf.ones((256, 1))
    filled = tf.where(tf.range(256) < 128, 0.0, 1.0)[tf.newaxis] * tf.ones((256, 1))
    pages = [thin[..., tf.newaxis], thin[..., tf.newaxis], filled[..., tf.newaxis]]
    assert common.line_width(pages) == pytest.approx(3.0, rel=0.15)


def test_classes_are_painted_by_hand():
    """Broken if a class gets another one's colour, as when their numbers are not in order."""
    codes = tf.constant([[7, 0], [255, 7]])
    painted = common.paint(codes, [255, 0, 7], ["#010203", "#ff0000", "#00ff80"])
    assert painted.dtype == tf.uint8 and painted.shape == (2, 2, 3)
    assert [values(painted, y, x) for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        *([0, 255, 128], [255, 0, 0]),
        *([1, 2, 3], [0, 255, 128]),
    ]
    assert values(common.paint(tf.constant([[0x0A141E]])), 0, 0) == [10, 20, 30]


def test_label_maps_are_numbers_or_colours(tmp_path):
    """Broken if class numbers are read as colours, or a palette file's colours as numbers unasked."""
    gray = Image.new("L", (4, 2), 7)
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    ramp = Image.new("P", (4, 2), 1)
    ramp.putpalette([0, 0, 0, 9, 9, 9])
    kinds = {
        "gray": (gray, False, 7, False),
        "16 bits": (gray.convert("I;16"), False, 7, False),
        "1 bit": (Image.new("1", (4, 2), 1), False, 255, False),
        "palette": (palette, False, 0xC86432, True),
        "palette, numbers wanted": (palette, True, 1, False),
        "a palette of grays": (ramp, False, 1, False),
        "RGB": (Image.new("RGB", (4, 2), (1, 2, 3)), False, 0x010203, True),
    }
    for name, (image, numbers, code, is_colours) in kinds.items():
        path = save(image, tmp_path / "map.png")
        codes, found = common.read_label_map(path, numbers=numbers)
        assert (codes.shape, found) == ((2, 4), is_colours), name
        assert {int(n) for n in tf.reshape(codes, [-1])} == {code}, name


def test_label_maps_are_made_smaller_by_picking(tmp_path):
    """Broken if two classes' numbers are averaged to a third one's."""
    stripes = Image.new("L", (60, 60))
    for x in range(0, 60, 2):
        stripes.paste(200, (x, 0, x + 1, 60))
    codes, _ = common.read_label_map(save(stripes, tmp_path / "map.png"), (25, 25))
    assert codes.shape == (25, 25) and {int(n) for n in tf.reshape(codes, [-1])} <= {0, 200}


KINDS = {
    "RGB": (Image.new("RGB", (4, 2), (10, 200, 30)), {}, [10, 200, 30]),
    "gray": (Image.new("L", (4, 2), 60), {}, [60, 60, 60]),
    "1 bit": (Image.new("1", (4, 2), 1), {}, [255, 255, 255]),
    "16 bits": (Image.new("I;16", (4, 2), 257 * 60), {}, [60, 60, 60]),
    "transparent": (Image.new("RGBA", (4, 2), (0, 0, 0, 0)), {}, [255, 255, 255]),
    "half transparent": (Image.new("RGBA", (4, 2), (0, 100, 0, 128)), {}, [127, 177, 127]),
    "palette": (Image.new("RGB", (4, 2), (10, 200, 30)).quantize(), {}, [10, 200, 30]),
    "one transparent gray": (Image.new("L", (4, 2), 60), {"transparency": 60}, [255, 255, 255]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_own_pictures_by_hand(kind, tmp_path):
    """Broken if a picture of some kind comes out in other colours, or transparent paper black."""
    image, options, colour = KINDS[kind]
    picture = common.read_picture(save(image, tmp_path / "picture.png", **options))
    assert picture.dtype == tf.uint8 and picture.shape == (2, 4, 3)
    assert values(picture, 1, 3) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize(
    "turn, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0)), (2, (0, -1))]
)
def test_photographs_are_read_upright(turn, corner, tmp_path):
    """Broken if a telephone's photograph lies on its side, or its size is told of it lying so.

    A red corner at the top left of what is stored; by EXIF 6, turned clockwise, it is at the top right.
    """
    image, exif = Image.new("RGB", (64, 32), "blue"), Image.Exif()
    image.paste("red", (0, 0, 16, 16))
    exif[0x0112] = turn
    path = save(image, tmp_path / "photo.jpg", exif=exif, quality=95)
    size = (32, 64) if turn > 4 else (64, 32)
    assert common.picture_size(path) == size
    picture = common.read_picture(path)
    assert picture.shape == (size[1], size[0], 3)
    red, _, blue = values(picture, *(n + 3 if n == 0 else n - 3 for n in corner))
    assert red > 200 and blue < 60


def test_values_of_pictures_by_hand(tmp_path):
    """Broken if black, white or the middle of [-1, 1] is written as another value, or read back as one."""
    picture = tf.constant([[[[-1.0, 0.0, 1.0], [-0.5, 0.5, 0.999]]]])
    assert values(common.to_uint8(picture), 0, 0) == [0, 128, 255]
    assert values(common.to_uint8(picture), 0, 1) == [64, 191, 255]
    common.write_picture(tmp_path / "a.png", picture)
    assert values(common.decode_picture(str(tmp_path / "a.png")), 0, 1) == [64, 191, 255]
    stack = common.stack_pair(
        tf.constant([[[0, 51, 255]]], tf.uint8), tf.constant([[[255, 0, 0]]], tf.uint8), "AtoB"
    )
    assert [float(value) for value in stack[0, 0]] == pytest.approx([-1, -0.6, 1, 1, -1, -1])


def test_steps_of_an_epoch():
    """Broken if an epoch has other steps than whole batches, or the cap of --steps-per-epoch is not one."""

    def steps(batch_size, cap, examples):
        return common.epoch_steps(argparse.Namespace(batch_size=batch_size, steps_per_epoch=cap), examples)

    assert steps(3, None, 10) == 3 and steps(1, None, 213) == 213 and steps(10, None, 10) == 1
    assert steps(3, 2, 10) == 2 and steps(3, 100, 10) == 3
    with pytest.raises(common.UserError, match="--batch-size 11: there are only 10"):
        steps(11, None, 10)


def test_numbers_of_flags():
    """Broken if a flag's bound is not part of its range, or a number that is none is taken."""
    whole, rate = common.number(1, 10, int), common.number(0, 1)
    assert (whole("1"), whole("10"), rate("0"), rate("1"), rate("1e-4")) == (1, 10, 0.0, 1.0, 1e-4)
    for parse, wrong in [*((whole, text) for text in ("0", "11", "1.5", "x")), (rate, "nan"), (rate, "-0.1")]:
        with pytest.raises(argparse.ArgumentTypeError, match="from"):
            parse(wrong)
    assert common.device_count("all") == "all" and common.device_count("2") == 2


@pytest.mark.parametrize(
    "free, wanted", [("max", 4096 * 1024), ("1000000", 1000000), ("9999999999", 4096 * 1024)]
)
def test_free_memory_is_what_both_allow(free, wanted, monkeypatch):
    """Broken if a container's limit, or the memory that others take, is not heeded."""
    texts = {"/proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable:    4096 kB\n"}
    texts["/sys/fs/cgroup/memory.max"] = free
    monkeypatch.setattr(common.Path, "read_text", lambda path, encoding: texts[path.as_posix()])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert common.free_memory() == wanted
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    assert common.free_memory() == float("inf")


def test_results_keep_their_order():
    """Broken if what threads find out is told of another file."""
    assert common.in_threads(lambda n: n * n, list(range(100))) == [n * n for n in range(100)]


def test_what_is_no_note_gets_to_the_screen(capfd):
    """Broken if an error of TensorFlow is kept off the screen with its notes, or its notes are not."""
    with common.filtering_logs():
        for line in (
            "2026-01-01 00:00:00.000000: I tensorflow/core/x.cc:1] a note",
            "I0000 00:00:00.000000 1 x.cc:1] a note",
            "2026-01-01 00:00:00.000000: E tensorflow/core/x.cc:1] an error",
            "a word of the user's own",
            "Corrupt JPEG data: 3 extraneous bytes",
        ):
            common.os.write(2, f"{line}\n".encode())
    told = capfd.readouterr().err.splitlines()
    assert [line.split("] ")[-1] for line in told] == ["an error", "a word of the user's own"]


def test_words_about_errors():
    """Broken if what the user can mend is told in other words, or a fault of the code as a mistake."""
    full = OSError(28, "No space left on device", "x")
    assert "the disk is full" in common.explain(full)
    assert common.explain(PermissionError(13, "Permission denied", "x")) == "x: Permission denied"
    assert common.explain(common.UserError("--flag: mend it")) == "--flag: mend it"
    assert "out of memory" in common.explain(MemoryError())
    assert "out of memory" in common.explain(tf.errors.ResourceExhaustedError(None, None, "OOM"))
    assert (
        common.explain(tf.errors.NotFoundError(None, None, "gone.png; No such file"))
        == "gone.png; No such file"
    )
    assert common.explain(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None
    assert common.printable("a\nb\x1b[2J그림") == "a\\nb\\x1b[2J그림"
