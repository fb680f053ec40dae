"""Datasets and picture files: how they are found, described, checked and read."""

import json
import struct
import time
from collections import defaultdict

import common

import pytest
import tensorflow as tf
from conftest import pair, save, turned, values
from PIL import Image


@pytest.mark.parametrize("split, kind", [("validation", "val"), ("VAL", "val"), ("test2", "test")])
def test_splits_are_known_by_their_beginning(split, kind, tmp_path):
    """Broken if splits with similar names are not found, test replaces val, or two folders mix."""
    for name in ("Training/b.JPG", "Training/a.png", f"{split}/c.jpeg"):
        save(pair(), tmp_path / name)
    found = common.find_pairs(tmp_path)
    names = {name: [path.rpartition("/")[2] for path in found[name]] for name in found}
    assert names == {"train": ["a.png", "b.JPG"], "val": ["c.jpeg"]}
    path = save(pair(), tmp_path / "valid" / "d.png")
    if kind == "test":
        found = common.find_pairs(tmp_path)
        assert [*found] == ["train", "val", "test"] and found["val"] == [str(path)]
        save(pair(), tmp_path / "test" / "e.png")
    with pytest.raises(common.UserError, match=f"{split}.*: keep one folder"):
        common.find_pairs(tmp_path)


def test_every_file_that_is_not_used_is_counted(tmp_path):
    """Broken if a file that is not used is not reported with its reason."""
    names = dict.fromkeys(["train/a.png", "val/b.jpe", "labels.csv", "dataset.json"], "")
    other = ["train/c.bmp", "train/notes.txt"]
    other += ["train/deep/d.png", "trainB/e.png", "valley/f.png", "g.png"]
    names |= dict.fromkeys(other, "not a .jpg or .png directly in train/, val/ or test/")
    names["train/.DS_Store"] = "hidden"
    for name in names:
        save(pair(), tmp_path / name, format="PNG")
    (tmp_path / "train" / "loop").symlink_to(tmp_path)  # the search must not follow it
    notes = defaultdict(set)
    found = common.find_pairs(tmp_path, notes)
    assert {split: len(paths) for split, paths in found.items()} == {"train": 1, "val": 1}
    reasons = {str(path): text for text, paths in notes.items() for path in paths}
    wanted = {str(tmp_path / name): f"left out, {text}" for name, text in names.items() if text}
    assert reasons == wanted


def test_what_is_left_out_is_told(capsys):
    """Broken if a long list of files fills the screen, or a count or a remark is lost."""
    notes = defaultdict(set)
    for n in range(30):
        notes["left out, not called .jpg or .png"].add(f"{n:02}.bmp")
    notes["only the first page is used"].add("x.tif")
    notes[""].add("sound.png")
    common.tell(notes, "5 pairs made")
    out, err = capsys.readouterr()
    assert out == "5 pairs made, 30 files left out (named above).\n"
    assert "left out, not called .jpg or .png (30): 00.bmp, 01.bmp" in err
    assert "09.bmp and 20 more" in err
    assert "Warning: only the first page is used (1): x.tif" in err and "sound" not in err


def test_datasets_describe_themselves(tmp_path, monkeypatch):
    """Broken if dataset.json is not read, or a dataset of the paper gets the wrong direction."""
    (tmp_path / "facades").mkdir()
    known = {"direction": "BtoA", "condition": "labels"}
    assert common.describe_dataset(tmp_path / "facades") == known
    about = {"direction": "AtoB", "condition": "labels", "origin": "me", "classes": [7, 0]}
    about |= {"colours": [["#00ff7a", "tree"], ["#000000", ""]], "ranges": {"left": [-5, 4095.0]}}
    (tmp_path / "facades" / "dataset.json").write_text(json.dumps(about))
    assert common.describe_dataset(tmp_path / "facades") == about
    (tmp_path / "facades" / "dataset.json").write_text('{"origin": "me"}')
    assert common.describe_dataset(tmp_path / "facades") == known | {"origin": "me"}
    monkeypatch.chdir(tmp_path)
    assert common.dataset_folder("emoji") == common.HERE / "data" / "emoji"
    (tmp_path / "emoji").mkdir()
    assert common.describe_dataset("emoji") == {"direction": "AtoB"}, "a path comes before a name"


WRONG = [
    {"direction": "left"},
    {"condition": "map"},
    {"colours": [["red", ""]]},
    {"ranges": {"left": [9, 1]}},
    {"ranges": {"left": ["0", "9"]}},
    {"condition": "labels", "colours": [["#000000", ""]], "classes": [0, 1]},
    {"Direction": "BtoA"},
    [],
]


@pytest.mark.parametrize("wrong", WRONG, ids=json.dumps)
def test_a_wrong_dataset_json_is_named(wrong, tmp_path):
    """Broken if an invalid dataset.json is used, or the error does not name it."""
    (tmp_path / "dataset.json").write_text(json.dumps(wrong))
    with pytest.raises(common.UserError, match="dataset.json: cannot be used"):
        common.describe_dataset(tmp_path)


def test_some_paths_spread_over_all():
    """Broken if samples are not spread over the whole set, or are more than asked for."""
    assert common.spread(list(range(51)), 6) == [4, 12, 21, 29, 38, 46]
    assert common.spread([0, 1, 2], 6) == [0, 1, 2]


def test_odd_pairs_are_told(stage5, tmp_path, capsys):
    """Broken if there is no warning about single pictures split in half, or about dropped pages."""
    paths = [str(save(pair(), tmp_path / "sound.png"))]
    paths += [str(save(pair(size=(8, 8)), tmp_path / "photo.png"))]
    pages = {"save_all": True, "append_images": [pair()]}
    paths += [str(save(pair(), tmp_path / "moving.png", **pages))]
    stage5.check_headers(tmp_path, paths)
    warnings = capsys.readouterr().err
    assert f"probably not pairs, but split in half anyway (1 of 3): {paths[1]}\n" in warnings
    assert f"only the first page is used (1 of 3): {paths[2]}\n" in warnings
    (tmp_path / "dataset.json").write_text('{"origin": "--pair"}')
    stage5.check_headers(tmp_path, paths[:2])
    assert not capsys.readouterr().err, "stage 7 has paired them"


def test_headers_alone_are_read(stage5, tmp_path):
    """Broken if checking a dataset reads the pixels of its pictures, not only their headers."""
    path = save(Image.effect_noise((800, 400), 50), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:1000])
    stage5.check_headers(tmp_path, [str(path)])


KINDS = {
    "gray": (Image.new("L", (4, 2), 60), {}, [60, 60, 60]),
    "16 bits": (Image.new("I;16", (4, 2), 257 * 60), {}, [60, 60, 60]),
    "transparent": (Image.new("RGBA", (4, 2), (0, 0, 0, 0)), {}, [255, 255, 255]),
    "half transparent": (Image.new("RGBA", (4, 2), (0, 100, 0, 128)), {}, [127, 177, 127]),
    "one transparent gray": (Image.new("L", (4, 2), 60), {"transparency": 60}, [255, 255, 255]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_by_hand(kind, tmp_path):
    """Broken if a picture is read in wrong colours, or transparent paper is not white."""
    image, options, colour = KINDS[kind]
    picture = common.read_picture(save(image, tmp_path / "picture.png", **options))
    assert picture.dtype == tf.uint8 and picture.shape == (2, 4, 3)
    assert values(picture, 1, 3) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize("turn, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_photographs_are_read_upright(turn, corner, ending, tmp_path):
    """Broken if a photograph's orientation (EXIF) is ignored in its pixels or in its size."""
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
    """Broken if dropped pages give no remark, or the second view in a phone's photo gives one."""
    more = {"save_all": True, "append_images": [Image.new("L", (4, 4), 9)]}
    path = save(Image.new("L", (4, 4)), tmp_path / "stack.tif", **more)
    assert common.read_header(path)[1] == "only the first page is used"
    assert values(common.read_picture(path), 0, 0) == [0, 0, 0]
    path = save(Image.new("L", (4, 4)), tmp_path / "phone.jpg", format="MPO", **more)
    assert common.read_header(path)[1:] == ("", "")


def test_a_tiff_whose_0_is_white(tmp_path):
    """Broken if a 16-bit TIFF whose 0 is white, which Pillow does not invert, is not refused."""
    path = save(Image.new("I;16", (4, 4), 9), tmp_path / "a.tif")
    old, new = (struct.pack("<HHIH", 262, 3, 1, kind) for kind in (1, 0))
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(common.UnreadableError, match="0 is white"):
        common.read_picture(path)


@pytest.mark.parametrize("tag, kind", [(338, 2), (338, 0), (65000, 2)])  # (338, 2) means alpha
def test_a_fourth_band(tag, kind, tmp_path):
    """Broken if a fourth band such as infrared is used as alpha, or dropped without a remark."""
    path = save(Image.new("RGBA", (4, 4), (10, 20, 30, 40)), tmp_path / "bands.tif")
    alpha, other = (struct.pack("<HHIH", *entry) for entry in ((338, 3, 1, 2), (tag, 3, 1, kind)))
    path.write_bytes(path.read_bytes().replace(alpha, other))
    is_alpha = (tag, kind) == (338, 2)
    remark = "" if is_alpha else "the fourth band, not marked as alpha, is dropped"
    assert common.read_header(path)[1] == remark
    colour = [217, 218, 220] if is_alpha else [10, 20, 30]
    assert values(common.read_picture(path), 0, 0) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize("problem", ["damaged", "a camera's raw file"])
def test_files_that_are_no_pictures(problem, tmp_path):
    """Broken if a file with damaged pixels, or the thumbnail in a camera's raw file, is used."""
    path = save(pair(), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])
    if problem != "damaged":
        save(pair(), path, tiffinfo={254: 1}, format="TIFF")  # 1: a thumbnail
    with pytest.raises(common.UnreadableError, match=problem):
        common.read_picture(path)


def test_kept_sizes():
    """Broken if a picture is reduced to less than twice the 286 pixels that training needs."""
    assert common.kept_size((3000, 2400)) == (750, 600)
    assert common.kept_size((3000, 2400), (512, 512)) == (1500, 1200)
    assert common.kept_size((100, 50)) == (100, 50)


COLOURED, GRAY = (Image.new("RGB", (4, 2), rgb).quantize() for rgb in [(200, 100, 50), (9, 9, 9)])
MAPS = {  # image, the code it should get, whether that is a colour
    "gray": (Image.new("L", (4, 2), 7), 7, False),
    "1 bit": (Image.new("1", (4, 2), 1), 255, False),
    "16 bits": (Image.new("I;16", (4, 2), 26001), 26001, False),
    "a bit less than 3": (Image.new("F", (4, 2), 2.9999), 3, False),
    "three equal channels": (Image.new("RGB", (4, 2), (3, 3, 3)), 3, False),
    "a palette": (COLOURED, 0xC86432, True),
    "a palette of grays": (GRAY, 9, False),
    "RGB": (Image.new("RGB", (4, 2), (1, 2, 3)), 0x010203, True),
}


@pytest.mark.parametrize("kind", MAPS)
def test_label_maps_are_numbers_or_colours(kind, tmp_path):
    """Broken if class numbers are read as colours, or a palette's indices as class numbers."""
    image, code, is_colours = MAPS[kind]
    path = save(image, tmp_path / f"map.{'tif' if image.mode == 'F' else 'png'}")
    for size, shape in ((None, (2, 4)), ((8, 2), (2, 8))):
        codes, found = common.read_label_map(path, size)
        assert (codes.shape, found) == (shape, is_colours)
        assert {int(n) for n in tf.reshape(codes, [-1])} == {code}


def test_label_maps_with_fractions_are_refused(tmp_path):
    """Broken if a label map with NaN or fractions (classes scaled to [0, 1], say) is accepted."""
    for number in (0.25, float("nan")):
        path = save(Image.new("F", (4, 2), number), tmp_path / "map.tif")
        with pytest.raises(common.UnreadableError, match="numbers with fractions"):
            common.read_label_map(path)


def test_the_nearest_colour():
    """Broken if rounding gives a palette's colour a distance above 0, or another one's place."""
    colours = [0, 0xDC143C, 0x8E, 0x4682B4, 0x6B8E23]
    codes = tf.constant([*range(1, 1 << 24, 997), *colours])
    near, apart = common.nearest(codes, colours)
    assert [int(n) for n in near[-5:]] == colours and not any(apart[-5:]) and apart[0] == 1
    numbers, _ = common.nearest(codes, colours, [*range(5)])
    assert [int(n) for n in numbers[-5:]] == [*range(5)]


def test_threads():
    """Broken if the results of threads are out of order, or an error waits for all of them."""
    done = []

    def work(n):
        time.sleep(0.01)
        done.append(n)
        if n == 2:
            raise common.UnreadableError("a.png", "damaged")
        return 10 // n

    assert [*map(str, common.in_threads(work, [1, 2, 5]))] == ["10", "a.png: damaged", "2"]
    with pytest.raises(ZeroDivisionError):
        next(common.in_threads(work, [0] * 1000))
    assert len(done) < 200
