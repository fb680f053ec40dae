"""Exercise 4: a block of the encoder, the U-Net's forward pass, the PatchGAN.

Replace each line `raise NotImplementedError`, which says what belongs there, with your code. Then

    make exercise N=4        (or: python tests/exercises/grade.py 4)

says what is right, what is wrong and what comes next. Each of the three parts is tested by
itself, so you can write them in any order. common.py, section 1, has a solution; the course page
is docs/course/4-networks.md.
"""

from common import (
    FILTERS,
    Conv2D,
    EncoderDecoder,
    normalization,
    paper_init,
)

import keras
from keras import layers


class EncodeBlock(layers.Layer):
    """4x4 convolution, normalisation, LeakyReLU: (B, H, W, C) -> (B, H/2, W/2, filters)."""

    def __init__(self, filters, strides=2, padding="same", norm="batch", **kwargs):
        super().__init__(**kwargs)
        # self.conv: Conv2D(filters, 4, strides, padding) without bias, its kernel_initializer
        # paper_init(). self.norm: normalization(norm), which is None where norm is None.
        # self.activation: LeakyReLU whose slope is 0.2 below zero.
        raise NotImplementedError("make conv, norm and activation in EncodeBlock.__init__")

    def call(self, x, training):
        # Call the three in turn, the norm with `training` and only if it is not None.
        raise NotImplementedError("send x through the layers in EncodeBlock.call")


class UNet(EncoderDecoder):
    """Generator: condition (B, 256, 256, 3) -> picture (B, 256, 256, 3), both in [-1, 1].

    EncoderDecoder makes self.encoder (eight blocks, 128x128 ... 1x1), self.decoder (seven blocks,
    2x2 ... 128x128), and self.to_picture.
    """

    def call(self, x, training):
        # Down: call each encoder block, and keep what it returns.
        # Up: call each decoder block, then join its map and the encoder's map of the same size
        # (decode_1 returns 2x2, as encode_7 does) with layers.concatenate([..., ...]).
        # Last: self.to_picture.
        raise NotImplementedError("go down the encoder and up the decoder in UNet.call")


class PatchGAN(keras.Model):
    """Discriminator: (condition, picture), each (B, 256, 256, 3) -> logits (B, 30, 30, 1)."""

    def __init__(self, filters=FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        # Three EncodeBlocks of filters, 2 and 4 times filters, the first with norm=None:
        # (B, 32, 32, 256). ZeroPadding2D, then an EncodeBlock of 8 times filters with strides=1,
        # padding="valid": (B, 31, 31, 512). ZeroPadding2D, then Conv2D(1, 4), with bias and
        # paper_init(): (B, 30, 30, 1).
        raise NotImplementedError("make the layers in PatchGAN.__init__")

    def call(self, condition, picture, training):
        # First: layers.concatenate([condition, picture]), (B, 256, 256, 6).
        raise NotImplementedError("join both pictures and judge them in PatchGAN.call")
