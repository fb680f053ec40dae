"""Checks of exercise 4: EncodeBlock, U-Net and PatchGAN."""

import common

import keras
import tensorflow as tf

PICTURE = (256, 256, 3)
# Input channels of the decoder's blocks: those of the previous block plus those of its skip.
WITH_SKIPS = {"decode_1": 512, "decode_2": 1024, "decode_3": 1024, "decode_4": 1024}
WITH_SKIPS |= {"decode_5": 1024, "decode_6": 512, "decode_7": 256}


def test_encode_block(answer):
    """EncodeBlock halves the picture, normalises where it should, and ends in LeakyReLU"""
    block, x = answer.EncodeBlock(16), tf.random.stateless_normal((2, 8, 8, 4), (0, 0))
    y = block(x, training=True)
    assert tuple(y.shape) == (2, 4, 4, 16), (
        f"EncodeBlock(16) turns (2, 8, 8, 4) into {tuple(y.shape)}; it should be (2, 4, 4, 16)"
    )
    small = tuple(answer.EncodeBlock(16, strides=1, padding="valid")(x, training=True).shape)
    assert small == (2, 5, 5, 16), "pass `strides` and `padding` to the convolution"
    assert float(tf.reduce_mean(y)) > 0.1, "apply the normalisation before LeakyReLU"
    plain = answer.EncodeBlock(16, norm=None)
    plain(x, training=True)
    for made, norm, count in ((block, "batch", 16 * 4 * 16 + 4 * 16), (plain, None, 16 * 4 * 16)):
        found = made.count_params()
        hint = {count + 16: ". The convolution should have no bias: use_bias=False"}
        if norm is None:
            hint[count + 64] = ". With norm=None there should be no normalisation"
        assert found == count, (
            f"EncodeBlock(16, norm={norm!r}) on 4 channels has {found} weights; it should have "
            f"{count}{hint.get(found, '')}"
        )
    plain.conv.kernel.assign(-tf.ones(plain.conv.kernel.shape))
    below = float(plain(tf.ones((1, 4, 4, 4)), training=False)[0, 0, 0, 0])  # 36 ones, times -1
    assert abs(below / -36 - 0.2) < 0.01, (
        f"-36 becomes {below:.1f}; LeakyReLU(negative_slope=0.2) should turn it into -7.2"
    )
    spread = float(tf.math.reduce_std(block.conv.kernel))
    assert abs(spread - 0.02) < 0.002, (
        f"the kernel's standard deviation is {spread:.3f}; use kernel_initializer=paper_init()"
    )
    moving = block.norm.moving_mean
    before = tf.identity(moving)
    block(x + 3.0, training=False)
    assert bool(tf.reduce_all(moving == before)), "pass `training` to the normalisation"
    block(x + 3.0, training=True)
    assert bool(tf.reduce_any(moving != before)), "pass `training` to the normalisation"


def test_unet(answer):
    """the U-Net joins each skip, and has 54,423,811 weights"""
    unet = answer.UNet()
    try:
        picture = unet.call(keras.Input(PICTURE), training=False)
    except ValueError as error:
        if "Concatenate" in str(error):
            raise AssertionError(
                "a skip joins two maps of different sizes: decode_1 and encode_7 are both 2x2, so "
                "the skips come in reverse order, without encode_8, which is the bottleneck"
            ) from error
        raise
    for block in unet.decoder:
        found, wanted = block.conv.kernel.shape[-1], WITH_SKIPS[block.name]
        assert found == wanted, (
            f"{block.name} has {found} input channels; with its skip it should have {wanted}"
        )
    found = unet.to_picture.kernel.shape[-1]
    assert found == 128, f"to_picture has {found} input channels; with skip_1 it should have 128"
    assert tuple(picture.shape[1:]) == PICTURE, f"the picture is {picture.shape[1:]}, not {PICTURE}"
    unet.built = True
    count = unet.count_params()
    assert count == 54_423_811, f"the U-Net has {count:,} weights; it should have 54,423,811"


def test_unet_hands_training_on(answer):
    """the U-Net drops values in training only"""
    unet, x = answer.UNet(4), tf.random.stateless_normal((1, *PICTURE), (0, 0))
    unet(x, training=False)
    for training, equal in ((False, True), (True, False)):
        first, second = (unet(x, training=training) for _ in range(2))
        assert bool(tf.reduce_all(first == second)) == equal, (
            f"with training={training} dropout is {'on' if equal else 'off'}: pass `training` "
            "to every block"
        )


def test_patchgan(answer, monkeypatch):
    """the PatchGAN sees both pictures, gives 30x30 logits, and has 2,770,433 weights"""
    monkeypatch.setattr(answer, "EncodeBlock", common.EncodeBlock)
    patchgan = answer.PatchGAN()
    pictures = [tf.random.stateless_normal((1, *PICTURE), (n, 0)) for n in range(2)]
    shape = tuple(patchgan(*pictures, training=False).shape)
    kernels = [v for v in patchgan.trainable_variables if len(v.shape) == 4]
    seen = kernels[0].shape[2]
    assert seen == 6, (
        f"the first convolution sees {seen} channels; condition and picture together have 6"
    )
    hint = dict.fromkeys([(14,), (15,)], "encode_4 should have strides=1")
    before = "Put a ZeroPadding2D before each of the last two convolutions"
    hint |= dict.fromkeys([(26,), (28,)], before)
    hint[31,] = "One of the two convolutions with strides=1 has the wrong padding"
    hint[32,] = "Both convolutions with strides=1 need padding='valid' after a ZeroPadding2D"
    assert shape == (1, 30, 30, 1), (
        f"the PatchGAN gives {shape}; it should be (1, 30, 30, 1). {hint.get(shape[1:2], '')}"
    )
    count = patchgan.count_params()
    hints = {2_770_432: ". The last convolution needs a bias", 2_770_689: ". encode_1: norm=None"}
    assert count == 2_770_433, (
        f"the PatchGAN has {count:,} weights; it should have 2,770,433{hints.get(count, '')}"
    )
    spread = float(tf.math.reduce_std(kernels[-1]))
    assert abs(spread - 0.02) < 0.002, "the last convolution needs kernel_initializer=paper_init()"
    logits = patchgan(*pictures, training=False)
    averages = [(v, tf.identity(v)) for v in patchgan.non_trainable_variables]
    patchgan(*pictures, training=True)
    assert all(bool(tf.reduce_any(v != old)) for v, old in averages), "pass `training` everywhere"
    assert float(tf.reduce_min(logits)) < 0.0 < float(tf.reduce_max(logits)), (
        "all logits have the same sign: the last convolution should have no activation"
    )
