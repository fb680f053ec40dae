"""Pairs are found, split, scaled, augmented and shuffled as the paper and the README say."""

from pathlib import Path

import common

import pytest
import tensorflow as tf
from conftest import near, pair, same, save, values
from PIL import Image

HIGH = (512, 256)


def uniform(*shape):
    return tf.random.stateless_uniform(shape, (1, 2), -1.0, 1.0)


def augmented(name, stack, draw, *size):
    return common.AUGMENTATIONS[name](stack, tf.constant([0, draw], tf.int64), *size)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_way_of_a_pair(direction, tmp_path):
    """Broken if shapes differ from stage 3's docstring, or halves are swapped or not in [-1, 1].

    (H, W, 3) twice -> (H, W, 6) -> (286, 286, 6) -> (256, 256, 6) -> (256, 256, 3) twice.
    """
    path = str(save(pair(size=(400, 300)), tmp_path / "pair.png"))
    assert [half.shape for half in common.decode_pair(path)] == [(300, 200, 3)] * 2
    stack = common.read_stack(path, direction)
    assert stack.shape == (300, 200, 6)
    assert common.resize(stack, (286, 286)).shape == (286, 286, 6)
    red, blue = [200.0, 30.0, 30.0], [20.0, 40.0, 220.0]  # of `pair`
    wanted = tf.constant(red + blue if direction == "AtoB" else blue + red) / 127.5 - 1.0
    for result in (stack, common.resize(stack), augmented("jitter", stack, 0)):
        assert near(result, tf.broadcast_to(wanted, result.shape))
    condition, target = common.split_stack(augmented("course", stack, 0))
    assert condition.shape == target.shape == (256, 256, 3)
    assert near(condition[128, 128], wanted[:3]) and near(target[128, 128], wanted[3:])


def test_odd_widths_kinds_and_damage(tmp_path, stage5):
    """Broken if an odd width, a kind of PNG or a JPEG is misread, or damage is not reported."""
    image = Image.new("RGB", (3, 1))
    for x, colour in enumerate(("red", "lime", "blue")):
        image.paste(colour, (x, 0, x + 1, 1))
    image.save(tmp_path / "odd.png")
    left, right = common.decode_pair(str(tmp_path / "odd.png"))
    assert left.shape == right.shape == (1, 1, 3), "the middle column is dropped"
    assert values(left, 0, 0) == [255, 0, 0] and values(right, 0, 0) == [0, 0, 255]
    gray = Image.linear_gradient("L").resize((32, 16))
    for mode, name in (("1", "a.png"), ("L", "b.png"), ("P", "c.png"), ("RGB", "d.jpg")):
        gray.convert("RGB").convert(mode).save(tmp_path / name, quality=90)
        halves = tf.concat(common.decode_pair(str(tmp_path / name)), axis=1)
        pixels = Image.open(tmp_path / name).convert("RGB").tobytes()
        wanted = tf.reshape(tf.io.decode_raw(pixels, tf.uint8), (16, 32, 3))
        assert near(tf.cast(halves, tf.float32), tf.cast(wanted, tf.float32), 3.0), mode
    good, *bad = (str(tmp_path / name) for name in ("a.png", "text.png", "cut.png"))
    tf.io.write_file(bad[0], "no picture")
    tf.io.write_file(bad[1], tf.strings.substr(tf.io.read_file(good), 0, 60))
    for path in bad[:2]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            common.decode_pair(path)
    with pytest.raises(common.UserError) as told, stage5.naming_damaged([good, *bad[:2]]):
        common.decode_pair(bad[0])
    assert all(path in str(told.value) for path in bad[:2]) and good not in str(told.value)


def test_label_maps_are_picked():
    """Broken if resizing a label map mixes two classes into the colour of a third, or of none."""
    labels = 0.5 * tf.cast(uniform(100, 130, 1) > 0, tf.float32)
    stack = tf.concat([tf.repeat(labels, 3, axis=-1), uniform(100, 130, 3)], axis=-1)
    picked = common.resize(stack, (33, 47), labels=True)
    shifted = [augmented("course", stack, n, HIGH, True) for n in range(6)]
    for result in (picked, augmented("jitter", stack, 0, HIGH, True), *shifted):
        condition, target = common.split_stack(result)
        assert set(map(float, tf.unique(tf.reshape(condition, [-1])).y)) == {0.0, 0.5}
        assert not same(target, tf.round(target))
    mixed = common.resize(stack, (33, 47))[..., :3]
    assert not same(2.0 * mixed, tf.round(2.0 * mixed)), "the test could not tell"


MARKS = {"200d", "fe0f", "2640", "2642", "27a1"}  # joiner, style, woman, man, facing right
PEOPLE = {"1f468", "1f469", "1f9d1"}  # man, woman, person


def family(path):
    """What the variants of one design share: for a man, woman or person with a job, the job."""
    first, *rest = [mark for mark in Path(path).stem.split("-") if mark not in MARKS]
    return tuple(rest if first in PEOPLE and rest else [first, *rest])


def test_embedded_pairs():
    """Broken if sketch and colour are swapped, or a design is in both splits."""
    pairs = common.find_pairs("emoji")
    assert (len(pairs["train"]), len(pairs["val"])) == (215, 48)
    for path in pairs["val"][:10]:
        sketch, colour = common.split_stack(common.read_stack(path, "AtoB"))
        gray = [float(tf.reduce_max(tf.abs(half - half[..., :1]))) for half in (sketch, colour)]
        assert gray[0] < 0.05 and gray[1] > 0.3  # a JPEG
    train, val = ([family(path) for path in pairs[split]] for split in ("train", "val"))
    assert family("1f469-200d-1f3a4.jpg") == family("1f468-200d-1f3a4.jpg") == ("1f3a4",)
    assert family("1f6b6-200d-2640-fe0f-200d-27a1-fe0f.jpg") == family("1f6b6.jpg")
    assert not set(train) & set(val) and len(set(val)) == len(val)
    assert sum(Path(path).stat().st_size for path in pairs["train"] + pairs["val"]) < 8_000_000


@pytest.mark.parametrize("name", ["jitter", "course"])
def test_augmentation_moves_both_halves_together(name):
    """Broken if an augmentation touches one half only, or does nothing, or ignores its seed."""
    noise = uniform(256, 256, 3)
    results = [augmented(name, tf.concat([noise, noise], axis=-1), n) for n in (0, 1, 2, 0)]
    for result in results:
        condition, target = common.split_stack(result)
        assert result.shape == (256, 256, 6) and same(condition, target)
        assert not same(condition, noise) and float(tf.reduce_max(tf.abs(result))) <= 1.0
    assert not same(results[0], results[1]), "two seeds give one draw"
    assert same(results[0], results[3]), "one seed gives two draws"


@pytest.mark.parametrize("name", list(common.AUGMENTATIONS))
def test_augmentation_golden(name, losses_regression):
    """Broken if an augmentation changes: the same seed must keep giving the same picture.

    The golden file has the mean of each quarter of the picture, for three draws of one pair. The
    numbers are not derived by hand: TensorFlow's stateless random numbers lead to them, and the
    tests below check the recipe by hand. `python -m pytest tests/test_data.py --force-regen`
    rewrites them; a run that continues after such a change sees other crops.
    """
    stack = common.read_stack(common.find_pairs("emoji")["train"][0], "AtoB")
    corners, rows = ("top left", "top right", "bottom left", "bottom right"), []
    for draw in range(3):
        target = augmented(name, stack, draw)[tf.newaxis, ..., 3:]
        means = tf.reduce_mean(tf.nn.avg_pool2d(target, 128, 128, "VALID"), axis=-1)
        means = tf.unstack(tf.reshape(means, (4,)))
        rows.append({corner: round(float(mean), 5) for corner, mean in zip(corners, means)})
    losses_regression(rows)


def test_jitter_by_hand():
    """Broken if the jitter does not resize to 286 at once, crop to 256 and mirror half the time.

    The result must be a crop, mirrored or not, of the original resized to 286. Resizing to 256
    first would blur it, which noise shows clearly.
    """
    original, places, mirrored = uniform(500, 600, 6), set(), 0
    enlarged = tf.image.resize(original, (286, 286), antialias=True)
    assert not near(enlarged, common.resize(common.resize(original), (286, 286)), 0.05)
    for draw in range(40):
        result, found = augmented("jitter", original, draw), []
        for flip, crop in enumerate((result, result[:, ::-1])):
            # Where in the enlarged picture is the crop's top left pixel?
            distance = tf.reduce_max(tf.abs(enlarged[:31, :31] - crop[0, 0]), axis=-1)
            found += [(flip, crop, int(y), int(x)) for y, x in tf.where(distance < 1e-5)]
        ((flip, crop, y, x),) = found
        assert near(enlarged[y : y + 256, x : x + 256], crop)
        places.add((y, x))
        mirrored += flip
    assert len(places) > 30 and 8 <= mirrored <= 32


def test_course_by_hand():
    """Broken if a mirror, the quarter turns or either border of the course's recipe is missing.

    A ramp can rise in each of four directions; a shift of 30 leaves a border that is white (1.0)
    in some draws and a reflection of the black picture (-1.0) in others. A larger original is
    resized first. Pictures that are not square are not turned.
    """
    whites, slopes, high_slopes = 0, set(), set()
    black = tf.fill((256, 256, 6), -1.0)
    ramp = tf.tile(tf.linspace(-1.0, 1.0, 256)[tf.newaxis, :, tf.newaxis], (256, 1, 6))
    for draw in range(40):
        whites += bool(tf.reduce_any(augmented("course", black, draw) > 0))
        for found, size in ((slopes, (256, 256)), (high_slopes, HIGH)):
            inner = augmented("course", ramp, draw, size)[64:-64, 64:-64, 0]
            height, width = (side // 2 for side in inner.shape)
            right = float(tf.reduce_mean(inner[:, width:] - inner[:, :width]))
            down = float(tf.reduce_mean(inner[height:] - inner[:height]))
            found.add((round(right, 1), round(down, 1)))
    assert 10 <= whites <= 30
    assert slopes == {(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)}
    assert high_slopes == {(0.5, 0.0), (-0.5, 0.0)}
    original = uniform(500, 600, 6)
    resized = tf.image.resize(original, (256, 256), antialias=True)
    for name in ("none", "course"):
        assert near(augmented(name, original, 0), augmented(name, resized, 0))


@pytest.mark.parametrize("name, least", [("none", -1), ("jitter", 30), ("course", 60)])
def test_augmentations_of_another_size(name, least):
    """Broken if --size 512x256 gives another size, or height and width are shifted alike.

    The lower right quarter of the picture is bright. The jitter puts its edges at 286 - 60 to 286
    from the top and 143 - 30 to 143 from the left; the course shifts them by up to 60 and 30
    each way. The height varies by more than a shift as small as the width's could cause.
    """
    quarter = tf.tile(tf.pad(tf.ones((100, 150, 1)), [[100, 0], [150, 0], [0, 0]]), (1, 1, 6))
    heights = []
    for draw in range(20):
        result = augmented(name, quarter, draw, HIGH)
        assert result.shape == (*HIGH, 6)
        inner = tf.cast(result[60:-60, 30:-30, 0] > 0.5, tf.int32)  # without the course's border
        height, width = (int(tf.reduce_sum(tf.reduce_max(inner, axis=n))) for n in (1, 0))
        assert 196 - 61 <= height <= 196 + 61 and 98 - 31 <= width <= 98 + 31
        heights.append(height)
    assert max(heights) - min(heights) > least and (name != "none" or len(set(heights)) == 1)


def test_batch_is_a_function_of_seed_and_step(few_pairs):
    """Broken if a resumed run sees other pairs or digits than an uninterrupted one.

    From a single pair, which leaves nothing to shuffle, each step and seed makes a new picture.
    """
    paths = common.find_pairs(str(few_pairs))["train"]
    digits = tf.reshape(tf.cast(tf.range(100), tf.uint8), (100, 1, 1, 1))
    labels = digits[:, 0, 0, 0]

    def of_pairs(seed, first, last, paths=paths):
        span = {"seed": seed, "first_step": first, "last_step": last, "batch_size": 2}
        batches = common.training_pairs(paths, direction="AtoB", augment="jitter", **span)
        return [tf.concat(batch, axis=-1) for batch in batches]

    def of_digits(seed, first, last):
        span = {"seed": seed, "first_step": first, "last_step": last, "batch_size": 30}
        return [batch for batch, _ in common.training_digits(digits, labels, **span)]

    for batches in (of_pairs, of_digits):
        whole, rest, (other,) = batches(0, 0, 8), batches(0, 3, 8), batches(1, 0, 1)
        assert len(whole) == 8 and len(rest) == 5
        assert all(same(a, b) for a, b in zip(whole[3:], rest))
        assert not same(whole[0], whole[1]) and not same(whole[0], other)
    single = [*of_pairs(0, 0, 2, paths[:1]), *of_pairs(1, 0, 2, paths[:1])]
    single = [picture for batch in single for picture in tf.unstack(batch)]
    assert not any(same(a, b) for n, a in enumerate(single) for b in single[:n])


def test_each_pass_is_a_new_shuffle():
    """Broken if a pass repeats or leaves out an example, or has the order of another pass."""

    def order(seed):
        return [int(common.shuffled(tf.constant(n, tf.int64), 50, seed)) for n in range(100)]

    first, other = order(0), order(1)
    assert sorted(first[:50]) == sorted(first[50:]) == list(range(50))
    assert first[:50] != first[50:] and first[:50] != list(range(50)) and first[:50] != other[:50]
