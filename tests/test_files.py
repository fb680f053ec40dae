"""Datasets and picture files: found, described, checked and read, by hand."""

import json
import struct
import time

import common

import pytest
import tensorflow as tf
from PIL import Image

RED, BLUE = (200, 30, 30), (20, 40, 220)


def pair(size=(16, 8), mode="RGB"):
    """A red and a blue half."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def values(picture, *place):
    return [int(value) for value in picture[place]]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


# === Datasets ================================================================


@pytest.mark.parametrize("split, kind", [("validation", "val"), ("VAL", "val"), ("test2", "test")])
def test_splits_are_known_by_their_beginning(split, kind, tmp_path):
    """Broken if given splits of other names are not found, or val is not preferred to test."""
    for n, name in enumerate(["Training/a.png", "Training/b.JPG", f"{split}/c.jpeg"]):
        save(pair((16, 8 + n)), tmp_path / name)
    paths = {
        name: [path.rpartition("/")[2] for path in found]
        for name, found in common.find_pairs(tmp_path).items()
    }
    assert paths == {"train": ["a.png", "b.JPG"], "val": ["c.jpeg"]}
    save(pair(), tmp_path / "valid" / "d.png")
    found = common.find_pairs(tmp_path)
    assert [*found] == (["train", "val"] if kind == "val" else ["train", "val", "test"])
    assert str(tmp_path / "valid" / "d.png") in found["val"]


def test_every_file_that_is_not_used_is_counted(tmp_path):
    """Broken if a file is dropped without a word, or pictures of one side are cut in half."""
    names = {"train/a.png": "", "val/b.jpe": "", "labels.csv": "", "dataset.json": ""}
    names |= {
        "train/c.bmp": "not called .jpg or .png",
        "train/notes.txt": "not called .jpg or .png",
    }
    names |= {"train/deep/d.png": "in a folder of train/", "train/.DS_Store": "hidden"}
    names |= {"trainB/e.png": "in none of train/, val/ and test/", "valley/f.png": "in none of"}
    for name in names:
        save(pair(), tmp_path / name, format="PNG")
    left_out = common.LeftOut()
    found = common.find_pairs(tmp_path, left_out)
    assert {split: len(paths) for split, paths in found.items()} == {
        "train": 1, "val": 1
    }  # fmt: skip
    reasons = {path: reason for reason, paths in left_out.paths.items() for path in paths}
    assert len(reasons) == sum(bool(reason) for reason in names.values())
    for name, reason in names.items():
        assert reasons.get(str(tmp_path / name), "").startswith(reason), name


def test_what_is_left_out_is_told(capsys):
    """Broken if thousands of names fill the screen, or a count or a remark gets lost."""
    left_out = common.LeftOut()
    for n in range(30):
        left_out.add(f"{n:02}.bmp", "not called .jpg or .png")
    left_out.remark("x.tif", "only the first page is used")
    left_out.tell("5 pairs made")
    out, err = capsys.readouterr()
    assert out == "5 pairs made, 30 files left out (named above).\n"
    assert (
        "left out, not called .jpg or .png (30): 00.bmp, 01.bmp" in err
        and "09.bmp and 20 more" in err
    )
    assert "Warning: only the first page is used (1): x.tif" in err


def test_a_dataset_without_a_split_names_the_cure(tmp_path):
    """Broken if a folder of two sides, or of one split, is trained on or refused without a cure."""
    save(pair(), tmp_path / "trainA" / "a.png")
    with pytest.raises(common.UserError, match="no train in .*in none of train.*07_get_pairs.py"):
        common.find_pairs(tmp_path)
    save(pair(), tmp_path / "train" / "a.png")
    with pytest.raises(common.UserError, match="no val or test in"):
        common.find_pairs(tmp_path)
    with pytest.raises(common.UserError, match="--dataset nowhere: no such folder"):
        common.find_pairs("nowhere")


def test_links_to_folders_above(tmp_path):
    """Broken if a link that leads back ends the search, or has it go round for ever."""
    save(pair(), tmp_path / "train" / "a.png")
    (tmp_path / "train" / "loop").symlink_to(tmp_path)
    assert [path.name for path in common.walk(tmp_path, common.LeftOut())] == ["a.png"]


def test_datasets_describe_themselves(tmp_path, monkeypatch):
    """Broken if dataset.json is lost, or a paper's dataset copied by hand is trained backwards."""
    (tmp_path / "facades").mkdir()
    known = {"direction": "BtoA", "condition": "labels"}
    assert common.describe_dataset(tmp_path / "facades") == known
    about = {"direction": "AtoB", "condition": "labels", "origin": "me", "classes": [7, 0]}
    about |= {"colours": [["#00ff7a", "tree"], ["#000000", ""]], "ranges": {"left": [-5, 4095.0]}}
    (tmp_path / "facades" / "dataset.json").write_text(json.dumps(about))
    assert common.describe_dataset(tmp_path / "facades") == about
    monkeypatch.chdir(tmp_path)
    assert common.dataset_folder("emoji") == common.HERE / "data" / "emoji"
    (tmp_path / "emoji").mkdir()
    assert common.describe_dataset("emoji") == {"direction": "AtoB"}, "a path goes before a name"


WRONG = {
    "direction": {"direction": "left"},
    "condition": {"condition": "map"},
    "no #rrggbb": {"colours": [["red", ""]]},
    "a name that is a number": {"colours": [["#ff0000", 1]]},
    "no names": {"colours": ["#ff0000"]},
    "more classes than colours": {"colours": [["#ff0000", ""]], "classes": [1, 2]},
    "classes in words": {"colours": [["#ff0000", ""]], "classes": ["one"]},
    "a range upside down": {"ranges": {"left": [9, 1]}},
    "a range of no side": {"ranges": {"middle": [0, 1]}},
    "a list": [],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_dataset_json_is_named(wrong, tmp_path):
    """Broken if what a dataset says of itself is believed though it cannot be."""
    (tmp_path / "dataset.json").write_text(json.dumps(WRONG[wrong]))
    with pytest.raises(common.UserError, match="dataset.json: cannot be used"):
        common.describe_dataset(tmp_path)


def test_some_paths_spread_over_all():
    """Broken if samples are not of the whole set, or more than asked for."""
    assert common.spread(list(range(51)), 6) == [4, 12, 20, 28, 36, 44]
    assert common.spread([0, 1, 2], 6) == [0, 1, 2]


# === Headers =================================================================

UNFIT = {
    "transparent": (pair(mode="RGBA"), "a.png", {}),
    "transparent, by one colour": (pair(mode="L"), "a.png", {"transparency": 60}),
    "turned by EXIF": (pair(), "a.jpg", turned(6)),
    "turned by EXIF, mirrored": (pair(), "a.png", turned(2)),
    "not JPEG or PNG inside": (pair(), "a.png", {"format": "WEBP"}),
    "16 bits of gray": (Image.new("I;16", (16, 8)), "a.png", {}),
    "less than 2 pixels wide": (Image.new("L", (1, 8)), "a.png", {}),
}


@pytest.mark.parametrize("problem", UNFIT)
def test_pairs_that_training_would_misread(problem, tmp_path):
    """Broken if such a file is trained on in other colours, or the line names no cure."""
    image, name, options = UNFIT[problem]
    path = save(image, tmp_path / name, **options)
    with pytest.raises(common.UserError) as error:
        common.check_headers("--dataset mine", [str(path)])
    assert f"--dataset mine: {path} ({problem.partition(',')[0]})" in str(error.value)
    assert "07_get_pairs.py --pair" in str(error.value) and "\n" not in str(error.value)


def test_pairs_that_are_taken(tmp_path, capsys):
    """Broken if a sound pair is refused, or single pictures are cut in half without a word."""
    kinds = {"rgb.png": {}, "upright.jpg": turned(1), "unknown.jpg": turned(0)}
    paths = [str(save(pair(), tmp_path / name, **options)) for name, options in kinds.items()]
    paths += [str(save(pair(mode=mode), tmp_path / f"{mode}.png")) for mode in ("L", "1", "P")]
    paths += [str(save(pair(mode="CMYK"), tmp_path / "print.jpg"))]
    common.check_headers("--dataset mine", paths)
    assert capsys.readouterr().err == ""
    common.check_headers(
        "--dataset mine", [*paths, str(save(pair((8, 8)), tmp_path / "photo.png"))]
    )
    assert f"1 of {len(paths) + 1} are no likely pairs, cut in half" in capsys.readouterr().err


def test_headers_alone_are_read(tmp_path):
    """Broken if a start reads the pixels of all pictures: a cut file passes, 1000 take no time."""
    path = save(Image.effect_noise((800, 400), 50), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:1000])
    started = time.monotonic()
    common.check_headers("--dataset mine", [str(path)] * 1000)
    assert time.monotonic() - started < 5.0


# === Pictures ================================================================

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
def test_pictures_by_hand(kind, tmp_path):
    """Broken if a picture of some kind comes out in other colours, or transparent paper black."""
    image, options, colour = KINDS[kind]
    picture = common.read_picture(save(image, tmp_path / "picture.png", **options))
    assert picture.dtype == tf.uint8 and picture.shape == (2, 4, 3)
    assert values(picture, 1, 3) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize(
    "mode, low, high", [("I;16", 0, 4095), ("I", -1024, 3071), ("F", -0.5, 0.5)]
)
def test_a_range_by_hand(mode, low, high, tmp_path):
    """Broken if 12 bits are nearly black, negative values black, or a file has its own range."""
    image = Image.new(mode, (3, 1))
    for x, value in enumerate((low, (low + high) / 2, high)):
        image.putpixel((x, 0), value if mode == "F" else round(value))
    path = save(image, tmp_path / "a.tif")
    picture = common.read_picture(path, span=(low, high))
    assert values(picture, 0, slice(None), 0) == pytest.approx([0, 127.5, 255], abs=1)
    half = common.read_picture(path, span=(low, 2 * high - low))
    assert values(half, 0, 2, slice(None)) == pytest.approx([127.5] * 3, abs=1)


@pytest.mark.parametrize("turn, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_photographs_are_read_upright(turn, corner, ending, tmp_path):
    """Broken if a telephone's photograph lies on its side, or its size is told of it lying so."""
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 16, 16))
    path = save(image, tmp_path / f"photo.{ending}", **turned(turn))
    size = (32, 64) if turn > 4 else (64, 32)
    assert common.read_header(path)[0] == size
    picture = common.read_picture(path)
    assert picture.shape == (size[1], size[0], 3)
    red, _, blue = values(picture, *(n + 3 if n == 0 else n - 3 for n in corner))
    assert red > 200 and blue < 60


def test_remarks(tmp_path):
    """Broken if further pages, the lower bits or a fourth band are dropped without a word."""
    pages = [Image.new("L", (4, 4), n) for n in range(3)]
    path = save(pages[0], tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    assert common.read_header(path)[1] == "only the first page is used"
    assert values(common.read_picture(path), 0, 0) == [0, 0, 0]
    path = save(
        pages[0], tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=pages[1:]
    )
    assert common.read_header(path)[1:] == ("", ""), "phones keep another view behind the picture"
    bands = Image.new("RGBA", (4, 4), (10, 20, 30, 40))
    dropped = "the fourth band, not marked as alpha, is dropped"
    alpha = struct.pack("<HHIH", 338, 3, 1, 2)  # ExtraSamples: 2 is alpha, 0 unspecified
    unspecified, none = struct.pack("<HHIH", 338, 3, 1, 0), struct.pack("<HHIH", 65000, 3, 1, 2)
    for tag, remark, colour in (
        (alpha, "", [217, 218, 220]),
        (unspecified, dropped, [10, 20, 30]),
        (none, dropped, [10, 20, 30]),
    ):
        path = save(bands, tmp_path / "bands.tif")
        path.write_bytes(path.read_bytes().replace(alpha, tag))
        assert common.read_header(path)[1] == remark
        assert values(common.read_picture(path), 0, 0) == pytest.approx(colour, abs=1)


BROKEN = {
    "No such file": lambda path: None,
    "not a picture that Pillow knows: save it": lambda path: path.write_bytes(
        b"\0\0\0\x18ftypheic"
    ),
    "damaged": lambda path: path.write_bytes(save(pair(), path).read_bytes()[:60]),
    "not a file": lambda path: path.mkdir(),
    "a camera's raw file": lambda path: save(
        pair(), path.with_suffix(".tif"), tiffinfo={254: 1}
    ).rename(path),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_files_that_are_no_pictures(problem, tmp_path):
    """Broken if such a file is used, or ends in a traceback."""
    BROKEN[problem](tmp_path / "a.png")
    with pytest.raises(common.UnreadableError, match=problem):
        common.read_picture(tmp_path / "a.png")


def test_no_memory_is_no_damage(tmp_path, monkeypatch):
    """Broken if a sound picture is called damaged because memory was short while it was read."""

    def read(image):
        raise MemoryError

    monkeypatch.setattr(common, "to_tensor", read)
    with pytest.raises(MemoryError):
        common.read_picture(save(pair(), tmp_path / "a.png"))


def test_large_pictures_are_reduced_without_moire(tmp_path):
    """Broken if stripes of single pixels stay stripes: they are gray from afar."""
    stripes = Image.new("L", (768, 768))
    for x in range(0, 768, 2):
        stripes.paste(255, (x, 0, x + 1, 768))
    inner = common.read_picture(save(stripes, tmp_path / "a.png"), (256, 256))[8:-8, 8:-8]
    assert int(tf.reduce_max(inner)) - int(tf.reduce_min(inner)) < 0.15 * 255


def test_kept_sizes():
    """Broken if what training would see is thrown away: twice the 286 pixels that 256 takes."""
    assert common.kept_size((3000, 2400)) == (750, 600)
    assert common.kept_size((3000, 2400), (512, 512)) == (1500, 1200)
    assert common.kept_size((3000, 1200), (256, 512)) == (1500, 600)
    assert common.kept_size((572 * 3, 572 * 3 - 1)) == (858, 857)
    assert common.kept_size((100, 50)) == (100, 50)


# === Label maps ==============================================================


def palette_image(*colours):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([channel for colour in colours for channel in colour])
    return image


MAPS = {
    "gray": (Image.new("L", (4, 2), 7), False, 7, False),
    "16 bits": (Image.new("I;16", (4, 2), 26001), False, 26001, False),
    "1 bit": (Image.new("1", (4, 2), 1), False, 255, False),
    "three equal channels": (Image.new("RGB", (4, 2), (3, 3, 3)), False, 3, False),
    "palette": (palette_image((0, 0, 0), (200, 100, 50)), False, 0xC86432, True),
    "palette, numbers wanted": (palette_image((0, 0, 0), (200, 100, 50)), True, 1, False),
    "a palette of grays": (palette_image((0, 0, 0), (9, 9, 9)), False, 1, False),
    "RGB": (Image.new("RGB", (4, 2), (1, 2, 3)), False, 0x010203, True),
}


@pytest.mark.parametrize("kind", MAPS)
def test_label_maps_are_numbers_or_colours(kind, tmp_path):
    """Broken if class numbers are read as colours, or a palette's colours as numbers unasked."""
    image, numbers, code, is_colours = MAPS[kind]
    codes, found = common.read_label_map(save(image, tmp_path / "map.png"), numbers=numbers)
    assert (codes.shape, found) == ((2, 4), is_colours)
    assert {int(n) for n in tf.reshape(codes, [-1])} == {code}


def test_label_maps_are_resized_by_picking(tmp_path):
    """Broken if two classes' numbers are averaged to a third one's."""
    stripes = Image.new("L", (60, 60))
    for x in range(0, 60, 2):
        stripes.paste(200, (x, 0, x + 1, 60))
    for size in ((25, 25), (90, 70)):
        codes, _ = common.read_label_map(save(stripes, tmp_path / "map.png"), size)
        assert codes.shape == size[::-1] and {int(n) for n in tf.reshape(codes, [-1])} <= {0, 200}


def test_classes_are_painted_by_hand():
    """Broken if a class gets another one's colour, as when their numbers are not in order."""
    codes = tf.constant([[7, 0], [255, 7]])
    painted = common.paint(codes, [255, 0, 7], ["#010203", "#ff0000", "#00ff80"])
    assert painted.dtype == tf.uint8 and painted.shape == (2, 2, 3)
    assert values(painted, 0, 0) == values(painted, 1, 1) == [0, 255, 128]
    assert values(painted, 0, 1) == [255, 0, 0] and values(painted, 1, 0) == [1, 2, 3]
    assert values(common.paint(tf.constant([[0x0A141E]])), 0, 0) == [10, 20, 30]


def test_threads():
    """Broken if what threads find out is told of another file, or an error waits for them all."""
    assert common.in_threads(lambda n: n * n, list(range(100))) == [n * n for n in range(100)]
    done = []

    def work(n):
        if n == 0:
            raise KeyboardInterrupt
        time.sleep(0.01)
        done.append(n)

    with pytest.raises(KeyboardInterrupt):
        common.in_threads(work, list(range(1000)))
    assert len(done) < 200
