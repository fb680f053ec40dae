"""Exercise 3: the paper's augmentation, for both halves of a pair at once.

Replace the line `raise NotImplementedError`, which says what belongs there, with your code. Then

    make exercise N=3        (or: python tests/exercises/grade.py 3)

says what is right, what is wrong and what comes next. `jitter` in common.py is a solution;
the course page is docs/course/3-pairs.md.
"""

from common import IMAGE_SIZE, resize

import tensorflow as tf


def jitter(stack, seed, size=IMAGE_SIZE, labels=False):
    """Enlarges the stack, crops it at random, and mirrors it half of the time.

    Args:
        stack: (height, width, 6) float32: a condition and its target, of any height and width.
        seed: (2,) int64; the same seed gives the same picture.
        size: (height, width) of the result.
        labels: whether the condition is a label map; pass it on to `resize`.

    Returns:
        (*size, 6) float32; (256, 256, 6) by default.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    # 1. `resize(stack, [height, width], labels)` to 286 for 256, and in proportion for other sizes
    # 2. `tf.image.stateless_random_crop` to `size`, by crop_seed
    # 3. `tf.image.stateless_random_flip_left_right`, by flip_seed
    raise NotImplementedError("enlarge, crop and mirror the whole stack in jitter")
