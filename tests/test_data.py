"""Pairs are found, split, scaled and augmented as the paper and the README say."""

import struct
import zlib
from pathlib import Path

import common

import pytest
import tensorflow as tf

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_pair(path, left, right, size=(4, 4), alpha=None):
    """Writes a picture with one colour in each half; with `alpha`, as transparent as that."""
    halves = [tf.fill((*size, 1), 1) * tf.constant(colour, shape=(1, 1, 3)) for colour in (left, right)]
    picture = tf.concat(halves, axis=1)
    if alpha is not None:
        picture = tf.concat([picture, tf.fill((*picture.shape[:2], 1), alpha)], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    tf.io.write_file(str(path), tf.io.encode_png(tf.cast(picture, tf.uint8)))
    return str(path)


@pytest.mark.parametrize("direction, condition, target", [("AtoB", RED, BLUE), ("BtoA", BLUE, RED)])
def test_halves(tmp_path, direction, condition, target):
    """Broken if the halves are exchanged, or the values are not in [-1, 1]."""
    halves = common.decode_pair(write_pair(tmp_path / "pair.png", RED, BLUE, size=(5, 4)))
    stack = common.stack_pair(*halves, direction)
    assert stack.shape == (5, 4, 6)
    wanted = [value / 127.5 - 1.0 for value in (*condition, *target)]
    for result in (stack, common.resize(stack)):
        assert float(tf.reduce_max(tf.abs(result - wanted))) < 1e-6


def test_the_way_of_a_pair(tmp_path):
    """Broken if the table in stage 3's docstring is no longer true.

    (H, 2W, 3) -> (H, W, 3) twice -> (H, W, 6) -> (286, 286, 6) -> (256, 256, 6) -> (256, 256, 3) twice.
    """
    path = write_pair(tmp_path / "pair.png", RED, BLUE, size=(300, 200))
    assert common.decode_picture(path).shape == (300, 400, 3)
    halves = common.decode_pair(path)
    assert [half.shape for half in halves] == [(300, 200, 3)] * 2
    stack = common.stack_pair(*halves, "AtoB")
    assert stack.shape == (300, 200, 6)
    assert common.resize(stack, (286, 286)).shape == (286, 286, 6)
    for augment in common.AUGMENTATIONS.values():
        stack = augment(common.stack_pair(*halves, "AtoB"), tf.constant([0, 0], tf.int64))
        assert stack.shape == (256, 256, 6)
        assert [half.shape for half in common.split_stack(stack)] == [(256, 256, 3)] * 2


def test_embedded_sketches_are_on_the_left():
    """Broken if the embedded pairs, or how they are read, have sketch and colour exchanged."""
    pairs = common.find_pairs("openmoji")
    assert (len(pairs["train"]), len(pairs["val"])) == (213, 51)
    for path in pairs["val"][:10]:
        sketch, colour = common.split_stack(common.stack_pair(*common.decode_pair(path), "AtoB"))
        gray = [tf.reduce_max(tf.abs(c - c[..., :1])) for c in (sketch, colour)]
        assert float(gray[0]) == 0.0 < float(gray[1])


MARKS = {"200D", "FE0F", "2640", "2642", "27A1"}  # joiner, style, woman, man, facing right
PEOPLE = {"1F468", "1F469", "1F9D1"}  # man, woman, person


def family(path):
    """What the variants of one design share: of a man, woman or person with a job, the job."""
    first, *rest = [mark for mark in Path(path).stem.split("-") if mark not in MARKS]
    return tuple(rest if first in PEOPLE and rest else [first, *rest])


def test_no_family_in_both_splits():
    """Broken if nearly equal pictures are trained on and validated with: a memory test."""
    pairs = common.find_pairs("openmoji")
    assert len(pairs["train"]) >= 200 and len(pairs["val"]) >= 50
    train, val = ([family(path) for path in pairs[split]] for split in ("train", "val"))
    assert family("1F469-200D-1F3A4.png") == family("1F468-200D-1F3A4.png") == ("1F3A4",)
    assert family("1F6B6-200D-2640-FE0F-200D-27A1-FE0F.png") == family("1F6B6.png")
    assert not set(train) & set(val) and len(set(val)) == len(val)
    size = sum(Path(path).stat().st_size for split in pairs.values() for path in split)
    assert size < 5_000_000


def test_any_size_and_transparency(tmp_path):
    """Broken if odd widths, small or large pictures, or transparent ones are misread."""
    left, right = common.decode_pair(write_pair(tmp_path / "a.png", RED, BLUE, size=(300, 401)))
    assert left.shape == right.shape == (300, 401, 3)
    one_by_three = tf.constant([[RED, (0, 255, 0), BLUE]], tf.uint8)
    tf.io.write_file(str(tmp_path / "b.png"), tf.io.encode_png(one_by_three))
    left, right = common.decode_pair(str(tmp_path / "b.png"))
    assert left[0, 0].shape == (3,) and bool(tf.reduce_all(left[0] == RED))
    assert bool(tf.reduce_all(right[0] == BLUE)), "the middle column is dropped"
    left, _ = common.decode_pair(write_pair(tmp_path / "c.png", RED, BLUE, alpha=0))
    assert bool(tf.reduce_all(left == 255)), "transparent is white"


def png(width, bits, colour_type, row, *, transparent=None, palette=None):
    """A PNG of one row, byte by byte: Pillow and TensorFlow cannot write all of these kinds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0))]
    chunks += [chunk(b"PLTE", palette)] if palette else []
    chunks += [chunk(b"tRNS", transparent)] if transparent else []
    chunks += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


GRAY, RGB, PALETTE = 0, 2, 3  # colour types of PNG
KINDS = {
    # The file, and the red channel that must come out. The values 0 to 3 of 2 bits are 0, 85,
    # 170 and 255 of 8. Two bytes name the transparent gray, six the transparent RGB.
    "1 bit": (png(4, 1, GRAY, b"\x50"), [0, 255, 0, 255]),
    "2 bits": (png(4, 2, GRAY, b"\x1b"), [0, 85, 170, 255]),
    "4 bits": (png(4, 4, GRAY, b"\x05\xaf"), [0, 85, 170, 255]),
    "gray": (png(4, 8, GRAY, bytes([0, 100, 200, 255])), [0, 100, 200, 255]),
    "1 bit, black transparent": (png(4, 1, GRAY, b"\x50", transparent=b"\0\0"), [255, 255, 255, 255]),
    "2 bits, 85 transparent": (png(4, 2, GRAY, b"\x1b", transparent=b"\0\1"), [0, 255, 170, 255]),
    "4 bits, 85 transparent": (png(4, 4, GRAY, b"\x05\xaf", transparent=b"\0\5"), [0, 255, 170, 255]),
    "gray, 100 transparent": (
        png(4, 8, GRAY, bytes([0, 100, 200, 255]), transparent=b"\0\x64"),
        [0, 255, 200, 255],
    ),
    "RGB, first transparent": (
        png(2, 8, RGB, bytes([1, 2, 3, 1, 2, 4]), transparent=bytes([0, 1, 0, 2, 0, 3])),
        [255, 1],
    ),
    "16 bits, 30000 transparent": (
        png(4, 16, GRAY, struct.pack(">4H", 0, 25700, 30000, 65535), transparent=struct.pack(">H", 30000)),
        [0, 100, 255, 255],
    ),
    "palette, second colour half transparent": (
        png(4, 2, PALETTE, b"\x1b", transparent=b"\xff\x80", palette=bytes([100, 0, 0] * 4)),
        [100, 177, 100, 100],  # 100 * 128/255 + 255 * 127/255
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_few_bits_and_one_transparent_colour(kind, tmp_path):
    """Broken if a drawing of few bits comes out blank, or a transparent colour not white.

    TensorFlow overlooks the transparent colour unless asked for four channels, and asked for
    four, it takes what has less than 8 bits and no such colour for nearly transparent.
    """
    data, red = KINDS[kind]
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    assert common.find_unreadable([str(path)]) == {}
    picture = common.decode_picture(str(path))
    assert picture.shape == (1, len(red), 3)
    assert [int(value) for value in picture[0, :, 0]] == red


def test_jpeg(tmp_path):
    """Broken if JPEG pairs cannot be read."""
    picture = tf.concat([tf.fill((16, 16, 3), 250), tf.fill((16, 16, 3), 5)], axis=1)
    tf.io.write_file(str(tmp_path / "a.jpg"), tf.io.encode_jpeg(tf.cast(picture, tf.uint8)))
    left, right = common.decode_pair(str(tmp_path / "a.jpg"))
    assert int(tf.reduce_min(left)) > 240 and int(tf.reduce_max(right)) < 15


@pytest.mark.parametrize("name", ["jitter", "course"])
def test_augmentation_moves_both_halves_together(name):
    """Broken if an augmentation touches one half only, or does nothing, or ignores its seed."""
    noise = tf.random.stateless_uniform((256, 256, 3), (1, 2), -1.0, 1.0)
    twice = tf.concat([noise, noise], axis=-1)
    results = [common.AUGMENTATIONS[name](twice, tf.constant([0, n], tf.int64)) for n in (0, 1, 2, 0)]
    for result in results:
        condition, target = common.split_stack(result)
        assert result.shape == (256, 256, 6)
        assert bool(tf.reduce_all(condition == target))
        assert bool(tf.reduce_any(condition != noise))
        assert float(tf.reduce_max(tf.abs(result))) <= 1.0
    assert bool(tf.reduce_any(results[0] != results[1])), "seeds differ, draws do not"
    assert bool(tf.reduce_all(results[0] == results[3])), "one seed, two draws"


@pytest.mark.parametrize("name", list(common.AUGMENTATIONS))
def test_augmentation_golden(name, losses_regression):
    """Broken if an augmentation changes: the same seed must go on giving the same picture.

    Pinned: the mean of each quarter of the picture for three draws of one pair. Nobody derived these
    numbers: they are what TensorFlow's stateless random numbers make of the recipe, which the tests by
    hand below pin. `python -m pytest tests/test_data.py --force-regen` writes them anew; a run that
    goes on then sees other crops than it would have.
    """
    left, right = common.decode_pair(common.find_pairs("openmoji")["train"][0])
    stack = common.stack_pair(left, right, "AtoB")
    rows = []
    for draw in range(3):
        result = common.AUGMENTATIONS[name](stack, tf.constant([0, draw], tf.int64))
        quarters = tf.nn.avg_pool2d(result[tf.newaxis, ..., 3:], 128, 128, "VALID")[0]
        means = tf.unstack(tf.reshape(tf.reduce_mean(quarters, axis=-1), (4,)))
        corners = ("top left", "top right", "bottom left", "bottom right")
        rows.append({corner: round(float(mean), 5) for corner, mean in zip(corners, means)})
    losses_regression(rows)


def test_jitter_by_hand():
    """Broken if the jitter is not: 286, crop 256, mirror half the time.

    A vertical edge at column 128 lands at 128 * 286 / 256 = 143, minus a crop offset of
    0 to 30: between 113 and 143; mirrored, dark and bright change sides. Of 40 draws some
    are mirrored and some not.
    """
    edge = tf.tile(tf.cast(tf.range(256) >= 128, tf.float32)[tf.newaxis, :, tf.newaxis], (256, 1, 6))
    mirrored = 0
    for draw in range(40):
        row = common.jitter(edge, tf.constant([0, draw], tf.int64))[0, :, 0]
        if float(row[0]) > 0.5:
            mirrored += 1
            row = row[::-1]
        assert 112 <= 256 - float(tf.reduce_sum(row)) <= 144
    assert 8 <= mirrored <= 32


def test_jitter_of_a_larger_picture():
    """Broken if a larger original is resized to 256 on its way to 286, which blurs it.

    The jitter must be a crop, mirrored or not, of the original resized to 286 in one go. Of
    noise, 256 pixels keep visibly less than 286.
    """
    original = tf.random.stateless_uniform((500, 600, 6), (1, 2), -1.0, 1.0)
    enlarged = tf.image.resize(original, (286, 286), antialias=True)
    blurred = common.resize(common.resize(original), (286, 286))
    assert float(tf.reduce_mean(tf.abs(enlarged - blurred))) > 0.05
    for draw in range(4):
        result = common.jitter(original, tf.constant([0, draw], tf.int64))
        found = []
        for crop in (result, result[:, ::-1]):
            # Where in the enlarged picture is the crop's top left pixel?
            difference = tf.reduce_max(tf.abs(enlarged[:31, :31] - crop[0, 0]), axis=-1)
            found += [(crop, int(y), int(x)) for y, x in tf.where(difference < 1e-5)]
        ((crop, y, x),) = found
        assert float(tf.reduce_max(tf.abs(enlarged[y : y + 256, x : x + 256] - crop))) < 1e-5


@pytest.mark.parametrize("name", ["none", "course"])
def test_other_augmentations_of_a_larger_picture(name):
    """Broken if these do not begin with 256x256, as the jitter begins with 286x286."""
    original, seed = tf.random.stateless_uniform((500, 600, 6), (1, 2)), tf.constant([0, 0], tf.int64)
    resized = tf.image.resize(original, (256, 256), antialias=True)
    augment = common.AUGMENTATIONS[name]
    assert float(tf.reduce_max(tf.abs(augment(original, seed) - augment(resized, seed)))) < 1e-5


def test_course_by_hand():
    """Broken if a mirror, the quarter turns or either border of the course's recipe is missing.

    A corner mark can land in each corner; a shift of 30 leaves a border that is white
    (1.0) in some draws and a reflection of the black picture (-1.0) in others.
    """
    white_fraction = []
    corners = set()
    black = tf.fill((256, 256, 6), -1.0)
    ramp_x = tf.tile(tf.linspace(-1.0, 1.0, 256)[tf.newaxis, :, tf.newaxis], (256, 1, 6))
    for draw in range(60):
        seed = tf.constant([0, draw], tf.int64)
        white_fraction.append(
            float(tf.reduce_mean(tf.cast(common.course_augment(black, seed) > 0, tf.float32)))
        )
        centre = common.course_augment(ramp_x, seed)[64:192, 64:192, 0]
        right = float(tf.reduce_mean(centre[:, 64:] - centre[:, :64]))
        down = float(tf.reduce_mean(centre[64:] - centre[:64]))
        corners.add((round(right, 1), round(down, 1)))
    assert 15 <= sum(fraction > 0 for fraction in white_fraction) <= 45
    assert {(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)} == corners


def test_a_batch_is_a_function_of_seed_and_step(few_pairs):
    """Broken if a resumed run would see other pictures than an uninterrupted one."""
    paths = common.find_pairs(str(few_pairs))["train"]

    def batches(first, last, seed=0):
        return list(
            common.training_pairs(
                paths,
                batch_size=2,
                seed=seed,
                direction="AtoB",
                augment="jitter",
                first_step=first,
                last_step=last,
            )
        )

    def same(one, other):
        return all(bool(tf.reduce_all(a == b)) for a, b in zip(one, other))

    whole, rest = batches(0, 5), batches(3, 5)
    assert len(whole) == 5 and len(rest) == 2
    assert all(same(a, b) for a, b in zip(whole[3:], rest))
    assert not same(whole[0], batches(0, 1, seed=1)[0])


def test_each_pass_is_a_new_shuffle():
    """Broken if a pass over the data repeats or leaves out a picture, or the order never changes."""
    parts = [common.shuffled(tf.range(n, n + 20, dtype=tf.int64), 50, 0) for n in range(0, 100, 20)]
    order = [int(index) for part in parts for index in part]
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert order[:50] != order[50:] and order[:50] != list(range(50))


def test_val_or_test(tmp_path):
    """Broken if a dataset whose second split is called test/ is refused, or other files are taken."""
    for name in ("train/b.png", "train/a.png", "train/.hidden.png", "test/a.png"):
        write_pair(tmp_path / name, RED, BLUE)
    (tmp_path / "train" / "notes.txt").write_text("not a picture")
    pairs = common.find_pairs(str(tmp_path))
    assert [path.rsplit("/", 1)[1] for path in pairs["train"]] == ["a.png", "b.png"]
    assert [path.rsplit("/", 2)[1] for path in pairs["val"]] == ["test"]


def test_unreadable_are_named(tmp_path):
    """Broken if a damaged picture gets through, or a sound one is blamed."""
    good = write_pair(tmp_path / "good.png", RED, BLUE)
    text, cut, empty, thin = (str(tmp_path / n) for n in ("text.png", "cut.png", "empty.png", "thin.png"))
    tf.io.write_file(text, "no picture")
    tf.io.write_file(cut, tf.strings.substr(tf.io.read_file(good), 0, 60))
    tf.io.write_file(empty, "")
    tf.io.write_file(thin, tf.io.encode_png(tf.zeros((4, 1, 3), tf.uint8)))
    assert list(common.find_unreadable([good, text, cut, empty, thin])) == [text, cut, empty, thin]


def test_measures_by_hand(tmp_path, stage3):
    """Broken if stage 3's table is wrong.

    One pair: condition half black, half white columns: mean 0, spread 1, ink 1/2; target
    red: means 1, -1, -1, spread 0.
    """
    black_white = tf.concat([tf.zeros((256, 128, 3)), tf.fill((256, 128, 3), 255.0)], axis=1)
    red = tf.fill((256, 256, 3), 1.0) * tf.constant([255.0, 0.0, 0.0])
    path = str(tmp_path / "pair.png")
    tf.io.write_file(path, tf.io.encode_png(tf.cast(tf.concat([black_white, red], axis=1), tf.uint8)))
    measures = stage3.measure([path], "AtoB")
    assert dict(measures.sizes) == {"256x256": 1}
    assert [float(mean) for mean in measures.mean] == pytest.approx([0, 0, 0, 1, -1, -1], abs=1e-6)
    assert [float(spread) for spread in measures.spread] == pytest.approx([1, 1, 1, 0, 0, 0], abs=1e-3)
    assert measures.ink == [0.5]
    assert list(measures.colours) == [2, 1]
    assert float(measures.counts[0, 0]) == float(measures.counts[0, -1]) == 256 * 128
    assert float(measures.counts[3, -1]) == 256 * 256
    measures = stage3.measure([write_pair(tmp_path / "b.png", RED, BLUE, (60, 100))], "AtoB")
    assert dict(measures.sizes) == {"100x60": 1}
    first, last = measures.counts[0, -1], measures.counts[5, -1]
    assert float(first) == float(last) == 256 * 256, "a pair counts by its file's size"
