"""Exercise 2: Maxout, a learned activation function.

Replace each line `raise NotImplementedError`, which says what belongs there, with your code. Then

    make exercise N=2        (or: python tests/exercises/grade.py 2)

says what is right, what is wrong and what comes next. 02_cgan_mnist.py has a solution; the
course page is docs/course/2-cgan.md.
"""

import common  # first: it keeps TensorFlow's notes off the screen

import tensorflow as tf
from keras import layers


class Maxout(layers.Layer):
    """The largest of `pieces` linear maps, for each unit: (B, features) -> (B, units).

    In training, half of the maps' values are dropped before the largest is taken.
    """

    def __init__(self, units, pieces, **kwargs):
        super().__init__(**kwargs)
        # One Dense layer without activation computes all units * pieces linear maps.
        # A Reshape turns them into (B, units, pieces). A Dropout drops half of the values.
        raise NotImplementedError("make the three layers in Maxout.__init__")

    def call(self, x, training):
        # Call the layers in turn, the dropout with `training`. Then take the largest of the pieces.
        raise NotImplementedError("take the largest of the pieces in Maxout.call")
