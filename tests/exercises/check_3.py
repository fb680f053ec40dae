"""Checks of exercise 3: the jitter of a stack."""

import common

import pytest
import tensorflow as tf
from grade import golden

DRAWS = 40


def seed(number):
    return tf.constant([0, number], tf.int64)


def edge_of(row):
    """Where a row of 256 pixels turns bright, and whether dark and bright have changed sides."""
    mirrored = float(row[0]) > 0.5
    return 256 - float(tf.reduce_sum(row[::-1] if mirrored else row)), mirrored


def half_and_half():
    """A stack whose six channels are the same picture: dark on the left, bright on the right."""
    edge = tf.cast(tf.range(256) >= 128, tf.float32)[tf.newaxis, :, tf.newaxis]
    return tf.tile(edge, (256, 1, 6))


def test_shape(answer):
    """any stack becomes 256x256x6, and the same seed gives the same picture"""
    for height, width in ((256, 256), (300, 500)):
        stack = tf.image.resize(half_and_half(), (height, width))
        shape = tuple(answer.jitter(stack, seed(0)).shape)
        assert shape == (256, 256, 6), f"{height}x{width}x6 becomes {shape}, not (256, 256, 6)"
    maps = answer.jitter(half_and_half(), seed(0), (512, 256), True)
    shape, colours = tuple(maps.shape), tf.unique(tf.reshape(maps[..., :3], [-1])).y
    assert shape == (512, 256, 6), f"with size=(512, 256) the result has shape {shape}"
    assert len(colours) == 2, "a label map gets new colours: pass `labels` on to `resize`"
    noise = tf.random.stateless_uniform((256, 256, 6), (0, 0))
    pairs = [[answer.jitter(noise, seed(n)) for _ in range(2)] for n in range(12)]
    assert all(bool(tf.reduce_all(first == second)) for first, second in pairs), (
        "the same seed gives two different pictures: use the functions whose names begin with "
        "`stateless_`, and pass them crop_seed and flip_seed"
    )


def test_halves_stay_together(answer):
    """condition and target move together"""
    noise = tf.tile(tf.random.stateless_uniform((256, 256, 3), (0, 0)), (1, 1, 2))
    for number in range(8):
        condition, target = common.split_stack(answer.jitter(noise, seed(number)))
        assert bool(tf.reduce_all(tf.abs(condition - target) < 1e-4)), (
            "condition and target have moved apart: crop and mirror the stack of six channels, not "
            "each half separately"
        )


def test_moves(answer):
    """the picture is enlarged, shifted, and mirrored in half of the draws"""
    stack = half_and_half()
    found = [edge_of(answer.jitter(stack, seed(n))[0, :, 0]) for n in range(DRAWS)]
    edges, mirrored = [edge for edge, _ in found], sum(flip for _, flip in found)
    assert max(edges) - min(edges) > 5, (
        f"the picture is never shifted: its edge is at column {edges[0]:.0f} in all {DRAWS} draws. "
        "Enlarge to 286 before the crop to 256"
    )
    # Column 128 lands at 128 * 286 / 256 = 143, less a crop offset of 0 to 30.
    assert min(edges) >= 112 and max(edges) <= 144, (
        f"the edge in the middle lands at columns {min(edges):.0f} to {max(edges):.0f}; a crop of "
        "256 out of 286 pixels should put it between 113 and 143"
    )
    assert mirrored, f"none of the {DRAWS} draws is mirrored from left to right"
    assert 8 <= mirrored <= 32, (
        f"{mirrored} of {DRAWS} draws are mirrored; it should be about half of them"
    )
    rows = tf.transpose(stack, (1, 0, 2))  # dark above, bright below
    heads = [edge_of(answer.jitter(rows, seed(n))[:, 0, 0])[1] for n in range(DRAWS)]
    assert not any(heads), "some draws are upside down: mirror left and right only"


def test_golden(answer, stage5):
    """the draws from the first embedded pair match the script's"""
    path = common.find_pairs(stage5.parse_flags([]).dataset)["train"][0]
    stack = common.read_stack(path, "AtoB")
    for draw, row in enumerate(golden("test_data/test_augmentation_golden_jitter_.json")):
        picture = answer.jitter(stack, seed(draw))[tf.newaxis, ..., 3:]
        quarters = tf.reduce_mean(tf.nn.avg_pool2d(picture, 128, 128, "VALID")[0], axis=-1)
        found = [float(value) for value in tf.unstack(tf.reshape(quarters, (4,)))]
        assert found == pytest.approx(list(row.values()), rel=1e-3), (
            "the picture is plausible, but differs from the script's: enlarge, then crop with "
            "crop_seed, then mirror with flip_seed"
        )
