"""Large pictures are made smaller without moire: a checkerboard of single pixels becomes flat gray.

Reduced to a third by picking one pixel of three, the checkerboard stays a checkerboard, and by
bilinear interpolation without antialiasing as well, since that looks at the pixel in the middle.
Averaged over its neighbours, as antialiasing does, 1/81 of its contrast is left.
"""

import common

import pytest
import tensorflow as tf


def board(height, width=None):
    """A checkerboard of black and white pixels, (height, width, 3) uint8."""
    places = tf.range(height)[:, tf.newaxis] + tf.range(width or height)
    return tf.repeat(tf.cast(places % 2 * 255, tf.uint8)[..., tf.newaxis], 3, axis=-1)


def contrast(picture):
    """The range of values of a picture (height, width, channels), without its rim, in shares of white."""
    inner = tf.cast(picture[4:-4, 4:-4], tf.float32)
    size = 255.0 if picture.dtype == tf.uint8 else 2.0
    return float(tf.reduce_max(inner) - tf.reduce_min(inner)) / size


@pytest.fixture
def pair(tmp_path):
    """The file of a pair whose halves are checkerboards of 768x768."""
    path = str(tmp_path / "pair.png")
    tf.io.write_file(path, tf.io.encode_png(tf.concat([board(768), board(768)], axis=1)))
    return path


def test_the_checkerboard_would_show_moire():
    """Broken if these tests could not tell: without antialiasing the full contrast is left."""
    plain = tf.image.resize(tf.cast(board(768), tf.float32) / 127.5 - 1.0, (256, 256))
    assert contrast(plain) == 1.0


def test_both_halves_are_reduced_without_moire(pair):
    """Broken if a half is resized without antialiasing."""
    result = common.resize(common.read_stack(pair, "AtoB"))
    assert result.shape == (256, 256, 6) and contrast(result) < 0.02


def test_label_maps_are_picked_and_their_targets_are_not(pair):
    """Broken if a label map's colours are mixed, or the photograph beside it is not antialiased."""
    condition, target = common.split_stack(common.resize(common.read_stack(pair, "AtoB"), labels=True))
    assert set(map(float, tf.unique(tf.reshape(condition, [-1])).y)) == {-1.0, 1.0}
    assert contrast(target) < 0.02


@pytest.mark.parametrize("name", list(common.AUGMENTATIONS))
def test_augmentations_reduce_without_moire(name):
    """Broken if training sees moire that validation does not. The jitter reduces to 286, a third of 858."""
    side = 858 if name == "jitter" else 768
    stack = common.stack_pair(board(side), board(side), "AtoB")
    result = common.AUGMENTATIONS[name](stack, tf.constant([0, 0], tf.int64))
    assert contrast(result[60:-60, 60:-60]) < 0.02  # the course's recipe has a white border
    labels = common.AUGMENTATIONS[name](stack, tf.constant([0, 0], tf.int64), labels=True)
    condition, target = common.split_stack(labels[60:-60, 60:-60])
    assert contrast(condition) == 1.0 and contrast(target) < 0.02


def test_validation_pairs_are_reduced_without_moire(pair, stage5, stage3):
    """Broken if pairs are validated with, or measured by stage 3, in moire."""
    ((condition, target),) = stage5.validation_pairs([pair], "AtoB")
    assert contrast(condition[0]) < 0.02 and contrast(target[0]) < 0.02
    assert max(map(float, stage3.measure([pair], "AtoB").spread)) < 0.02
    ((condition, target),) = stage5.validation_pairs([pair], "AtoB", labels=True)
    assert contrast(condition[0]) == 1.0 and contrast(target[0]) < 0.02


def test_own_pictures_are_reduced_without_moire(stage7, tmp_path):
    """Broken if stage 7 makes pairs with moire of large photographs, or stage 6 colours them in it."""
    path = str(tmp_path / "photo.png")
    tf.io.write_file(path, tf.io.encode_png(board(768)))
    assert contrast(stage7.read_resized(path, (256, 256))) < 0.02
    assert contrast(common.read_picture(path, (256, 256))) < 0.05  # Pillow reduces in two steps
    tf.io.write_file(path, tf.io.encode_png(board(2304)))
    assert common.kept_size((2304, 2304)) == (576, 576)
    assert contrast(common.read_picture(path)) < 0.02


def test_drawings_are_reduced_without_moire(pair, stage6, tmp_path):
    """Broken if stage 6 shows a network moire in place of a condition, or cleans a drawing in it."""
    path = str(tmp_path / "drawing.png")
    tf.io.write_file(path, tf.io.encode_png(board(768)))
    picture = {"kind": "picture", "size": (256, 256), "line_width": None, "colours": []}
    sketch = picture | {"kind": "sketch", "line_width": 7.0}
    for conditions in (picture, sketch):
        sheet, _ = stage6.read_condition(path, conditions, as_is=True)
        assert sheet.shape == (1, 256, 256, 3) and contrast(sheet[0]) < 0.02
    assert contrast(stage6.read_half(pair, picture, "AtoB")[0][0]) < 0.02
    large = tf.cast(board(1536), tf.float32) / 127.5 - 1.0
    assert stage6.limit_size(large).shape == (512, 512, 3) and contrast(stage6.limit_size(large)) < 0.02
