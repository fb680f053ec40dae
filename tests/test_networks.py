"""The networks of Pix2Pix have the shapes, sizes and wiring that the paper gives them."""

import argparse
import math

import common

import keras
import pytest
import tensorflow as tf
from conftest import difference, same

PICTURE = (1, 256, 256, 3)
HIGH = (1, 512, 256, 3)  # with --size 512x256


def normal(shape, seed=0):
    return tf.random.stateless_normal(shape, (seed, 0))


NETWORKS = {
    # All parameters, and the trainable ones. Public implementations agree: the U-Net of
    # pytorch-CycleGAN-and-pix2pix has 54,413,955 trainable ones, and the discriminator of
    # TensorFlow's tutorial has 2,770,433 in all.
    "unet": (common.UNet, 54_423_811, 54_413_955),
    "encoder_decoder": (common.EncoderDecoder, 39_085_315, 39_075_459),
    "patchgan": (common.PatchGAN, 2_770_433, 2_768_641),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers(name, stage4, data_regression):
    """Broken if a layer changes its shape or size, or a skip joins the wrong block.

    The golden table (name, shape, parameters, inputs of each layer) was compared, row by row, with
    the paper's appendix 6.1: a 4x4 convolution from i to o channels has 16 i o weights, batchnorm
    has 4 o, and the last layer's bias one for each channel. `python -m pytest
    tests/test_networks.py --force-regen` rewrites the table.
    """
    keras.utils.clear_session()  # numbers unnamed layers from the start
    network, parameters, trainable = NETWORKS[name]
    inputs = ["sketch", "picture"] if name == "patchgan" else ["sketch"]
    graph, rows = stage4.layer_graph(network(), inputs), []
    assert graph.count_params() == parameters
    assert sum(math.prod(variable.shape) for variable in graph.trainable_variables) == trainable
    for layer in graph.layers:
        tensors = tf.nest.flatten(layer.input)
        sources = " ".join(tensor._keras_history.operation.name for tensor in tensors)
        shape = "x".join(map(str, layer.output.shape[1:]))
        rows.append(f"{layer.name} {shape} {layer.count_params()} <- {sources}")
    table = {"layers": rows, "parameters": parameters, "trainable": trainable}
    data_regression.check(table)


@pytest.mark.parametrize("filters", [1, 32, 96])
def test_widths_are_in_proportion(filters):
    """Broken if a block's channels are not in proportion to `filters`."""

    def widths(filters):
        unet, patchgan = common.UNet(filters), common.PatchGAN(filters)
        blocks = [*unet.encoder, *unet.decoder, *patchgan.blocks, patchgan.last_block]
        without_skips = common.EncoderDecoder(filters)
        blocks += [*without_skips.encoder, *without_skips.decoder]
        return [block.conv.filters / filters for block in blocks]

    assert widths(filters) == widths(64)


def test_networks_of_another_size():
    """Broken if the networks cannot take 512x256: bottleneck 2x1, one logit for each patch.

    512 goes 256, 128, 64, then (without padding to the same size) 64 + 2 - 3 = 63, 62.
    """
    x, unet = tf.zeros(HIGH), common.UNet(2)
    for block in unet.encoder:
        x = block(x, training=True)
    assert x.shape == (1, 2, 1, 16)
    assert unet(tf.zeros(HIGH), training=True).shape == HIGH
    logits = common.PatchGAN(2)(tf.zeros(HIGH), tf.zeros(HIGH), training=True)
    assert logits.shape == (1, 62, 30, 1)


def test_sizes():
    """Broken if --size is not read as height x width, or accepts an impossible size."""
    sizes = {"512x256": (512, 256), "512": (512, 512), "256x4096": (256, 4096)}
    assert {text: common.image_size(text) for text in sizes} == sizes
    for wrong in ("255", "0", "256x", "x256", "-256", "256x384", "4352", "256x256x256", "1e3"):
        with pytest.raises(argparse.ArgumentTypeError, match="multiples of 256"):
            common.image_size(wrong)


def test_kernels_of_all_layers():
    """Broken if kernels do not start as N(0, 0.02) or are equal, or a second layer has a bias."""
    unet, patchgan = common.UNet(16), common.PatchGAN(16)
    unet(tf.zeros(PICTURE), training=False)
    patchgan(tf.zeros(PICTURE), tf.zeros(PICTURE), training=False)
    for network, last, count in ((unet, unet.to_picture, 16), (patchgan, patchgan.to_logits, 5)):
        kernels = [v for v in network.trainable_variables if v.path.endswith("kernel")]
        assert len(kernels) == count
        for kernel in kernels:
            spread = float(tf.math.reduce_std(kernel.value))
            assert spread == pytest.approx(0.02, rel=0.12), kernel.path
            assert abs(float(tf.reduce_mean(kernel.value))) < 0.003, kernel.path
        assert len({float(kernel.value[0, 0, 0, 0]) for kernel in kernels}) == count
        (bias,) = [v for v in network.trainable_variables if v.path.endswith("bias")]
        assert bias.value is last.bias.value and same(bias.value, tf.zeros(bias.shape))


def test_pictures_and_logits_have_their_ranges():
    """Broken if a picture can leave [-1, 1], or logits are confined to a range."""
    x, unet, patchgan = 100.0 * normal(PICTURE), common.UNet(2), common.PatchGAN(2)
    unet(x, training=False), patchgan(x, x, training=False)
    for last in (unet.to_picture, patchgan.to_logits):
        last.kernel.assign(last.kernel * 1e4)
    drawn, logits = unet(x, training=True), patchgan(x, x, training=True)
    assert -1.0 <= float(tf.reduce_min(drawn)) < -0.9 < 0.9 < float(tf.reduce_max(drawn)) <= 1.0
    assert float(tf.reduce_min(logits)) < -2.0 < 2.0 < float(tf.reduce_max(logits))


def test_encoder_decoder_has_no_way_past_its_bottleneck():
    """Broken if the encoder-decoder has a skip, or the U-Net has none.

    With a bottleneck of zeros, the output of the former does not depend on the sketch.
    """

    class Zero(keras.layers.Layer):
        def call(self, x, training):
            return 0.0 * x[:, ::2, ::2]

    differences = []
    for network in (common.EncoderDecoder(2), common.UNet(2)):
        network(tf.zeros(PICTURE), training=False)  # makes the weights
        network.encoder[7] = Zero()
        # Dropout differs from call to call, but drops zeros.
        drawn = [network(normal(PICTURE, n), training=True) for n in (0, 1)]
        differences.append(difference(*drawn))
    assert differences[0] < 1e-6 and differences[1] > 1e-3


@pytest.mark.parametrize("changed, sizes", [(False, [7, 16, 34, 70]), (True, [7, 9, 20, 42])])
def test_receptive_field(changed, sizes, stage4):
    """Broken if a logit does not see 70x70 pixels, or stage 4 prints other sizes than it measures.

    By hand, from the logit back: 1, (1 - 1) + 4 = 4, (4 - 1) + 4 = 7, (7 - 1) * 2 + 4 = 16,
    (16 - 1) * 2 + 4 = 34, (34 - 1) * 2 + 4 = 70. With a 3x3 kernel and stride 1 in encode_3:
    4, 7, (7 - 1) + 3 = 9, 8 * 2 + 4 = 20, 19 * 2 + 4 = 42.
    """
    patchgan = common.PatchGAN(4)
    if changed:
        convolution = patchgan.blocks[2].conv  # the first call makes its kernel
        convolution.kernel_size, convolution.strides = (3, 3), (1, 1)
    _, box = stage4.measure_receptive_field(patchgan, 15, 15)
    assert box[2:] == (sizes[-1], sizes[-1])
    assert stage4.print_receptive_field(patchgan) == [1, 4, *sizes]


def test_generate_leaves_no_trace():
    """Broken if drawing a picture changes the network, or one seed draws two pictures.

    The moving averages and the random state must neither change nor have an effect, and each
    dropout layer gets random numbers of its own.
    """
    generator, sketch, states = common.UNet(4), normal(PICTURE), []
    generator(sketch, training=False)
    before = [tf.identity(v) for v in generator.variables]
    call = generator.stateless_call

    def note(weights, state, condition, training):
        owners = zip(state, generator.non_trainable_variables)
        states.append([tuple(map(int, value)) for value, v in owners if "seed" in v.path])
        return call(weights, state, condition, training=training)

    generator.stateless_call = note
    first, again, other = (common.generate(generator, sketch, seed) for seed in (0, 0, 1))
    assert len(states[0]) == 3 and len({*states[0], *states[2]}) == 6
    assert all(same(old, v) for old, v in zip(before, generator.variables))
    assert same(first, again) and not same(first, other), "dropout is off"
    for variable in generator.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(tf.fill(variable.shape, 100.0))
    assert same(first, common.generate(generator, sketch)), "the moving averages were used"


def test_blocks_by_hand():
    """Broken if a block does not compute what the paper says, or its kernel is not 4x4.

    An encoder block without a norm is LeakyReLU(convolution); a decoder block is
    ReLU(batchnorm(transposed convolution)).
    """
    x, block = normal((1, 8, 8, 3)), common.EncodeBlock(4, norm=None)
    y = block(x, training=True)
    convolved = tf.nn.conv2d(x, block.conv.kernel.value, 2, "SAME")
    tf.debugging.assert_near(y, tf.where(convolved > 0, convolved, 0.2 * convolved), atol=1e-5)
    assert block.conv.kernel.shape == (4, 4, 3, 4) and y.shape == (1, 4, 4, 4)
    block = common.DecodeBlock(4)
    y = block(x, training=True)
    convolved = tf.nn.conv2d_transpose(x, block.conv.kernel.value, (1, 16, 16, 4), 2, "SAME")
    mean, variance = tf.nn.moments(convolved, (0, 1, 2))
    wanted = tf.nn.relu((convolved - mean) / tf.sqrt(variance + 1e-5))
    tf.debugging.assert_near(y, wanted, atol=1e-4)
    assert block.norm.epsilon == 1e-5 == common.EncodeBlock(4).norm.epsilon


def test_batchnorm_of_one_pixel(stage4):
    """Broken if stage 4 does not show that batchnorm of a single pixel gives only zeros."""
    trained, gradient, _ = stage4.bottleneck_batchnorm(1, "batch", passes=3)
    assert trained == gradient == 0.0
    assert min(stage4.bottleneck_batchnorm(1, None, passes=3)) > 0.0


def test_training_reaches_batchnorm_and_dropout():
    """Broken if a block does not pass `training` on to its batchnorm or its dropout."""
    x = 3.0 + normal((2, 8, 8, 4))
    for block in (common.EncodeBlock(16), common.DecodeBlock(16, dropout=0.5)):
        trained = block(x, training=True)
        assert difference(block.norm.moving_mean, 0.0) > 0
        alone, beside = block(x[:1], training=False), block(x, training=False)
        assert same(beside, block(x, training=False))
        assert difference(alone, beside[:1]) < 1e-5, "inference depends on the other picture"
        assert difference(alone, trained[:1]) > 0.1
    assert not same(block(x, training=True), block(x, training=True)), "no dropout"


def test_dropout_is_in_the_first_three_decoder_blocks():
    """Broken if dropout is not in the first three decoder blocks only, or does not drop a half."""
    rates = [block.dropout.rate for block in common.EncoderDecoder(1).decoder]
    assert rates == [0.5, 0.5, 0.5, 0, 0, 0, 0]
    y = common.DecodeBlock(64, dropout=0.5)(normal((1, 16, 16, 8)), training=True)
    zeros = float(tf.reduce_mean(tf.cast(y == 0, tf.float32)))
    assert zeros == pytest.approx(0.75, abs=0.02), "half are negative, half of the rest dropped"


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_norm_reaches_every_block(norm, stage5):
    """Broken if --norm does not reach a layer of either network."""
    model = stage5.Pix2Pix(filters=1, norm=norm)
    unet, patchgan = model.generator, model.discriminator
    blocks = [*unet.encoder, *unet.decoder, *patchgan.blocks, patchgan.last_block]
    kind = {"batch": common.BatchNorm, "instance": keras.layers.GroupNormalization}[norm]
    assert [type(block.norm) for block in blocks if block.norm] == [kind] * 16
    assert common.normalization(None) is None


def test_instance_norm_is_batchnorm_of_each_picture_alone():
    """Broken if --norm instance is not batchnorm of each picture alone, in values or gradients."""
    x, results = normal((3, 5, 4, 8)) * 3.0 + 1.0, []
    for name, batches in (("batch", [x[n : n + 1] for n in range(3)]), ("instance", [x])):
        norm = common.normalization(name)
        norm.build(x.shape)
        norm.gamma.assign(normal((8,), 1)), norm.beta.assign(normal((8,), 2))
        with tf.GradientTape() as tape:
            y = tf.concat([norm(batch, training=True) for batch in batches], axis=0)
            loss = tf.reduce_sum(y * normal(y.shape, 3))
        results.append([y, *tape.gradient(loss, [norm.gamma.value, norm.beta.value])])
    for alone, together in zip(*results):
        tf.debugging.assert_near(alone, together, rtol=1e-4, atol=1e-4)


CONVOLUTIONS = [
    # The first ones take the fast form, a matrix product. The others take Keras' own path:
    # each differs from the fast form in one setting, or has too many pixels.
    ("Conv2D", True, (1, 16, 16, 32), {"filters": 64}),
    ("Conv2D", True, (1, 4, 8, 6), {"filters": 9}),
    ("Conv2D", True, (3, 2, 2, 5), {"filters": 7}),
    ("Conv2D", True, (1, 5, 3, 16), {"filters": 9}),
    ("Conv2D", True, (1, 4, 4, 8), {"use_bias": True, "activation": "tanh"}),
    ("Conv2DTranspose", True, (1, 4, 4, 32), {"filters": 6}),
    ("Conv2DTranspose", True, (1, 3, 5, 15), {"filters": 5}),
    ("Conv2DTranspose", True, (3, 1, 2, 7), {"filters": 4}),
    ("Conv2D", False, (1, 64, 64, 3), {}),
    ("Conv2D", False, (1, 4, 4, 8), {"kernel_size": 3}),
    ("Conv2D", False, (1, 4, 4, 8), {"kernel_size": 5}),
    ("Conv2D", False, (1, 4, 4, 8), {"strides": 1}),
    ("Conv2D", False, (1, 4, 4, 8), {"padding": "valid"}),
    ("Conv2D", False, (1, 4, 4, 8), {"strides": 1, "dilation_rate": 2}),
    ("Conv2DTranspose", False, (1, 64, 64, 3), {}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"kernel_size": 3}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"kernel_size": 5}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"strides": 1}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"padding": "valid"}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"use_bias": True}),
    ("Conv2DTranspose", False, (1, 3, 3, 32), {"activation": "tanh"}),
]


@pytest.mark.parametrize("name, fast, shape, options", CONVOLUTIONS)
def test_convolutions_are_keras_own(name, fast, shape, options):
    """Broken if a convolution gives other values or gradients than Keras'.

    A learner who changes kernel, stride or padding must get that layer, few pixels must take the
    fast form, and a TFLite file's form must draw the same.
    """
    usual = {"filters": 8, "kernel_size": 4, "strides": 2, "padding": "same", "use_bias": False}
    x, results, operations = normal(shape, 1), [], []
    for module in (common, keras.layers):
        layer = getattr(module, name)(**usual | options)
        layer.build(shape)
        for number, weight in enumerate(layer.weights, start=2):
            weight.assign(normal(weight.shape, number))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))  # a different gradient at each place
        results.append([y, *tape.gradient(loss, [x, *(weight.value for weight in layer.weights)])])
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec(shape)).graph
        operations.append({operation.type for operation in graph.get_operations()})
    for ours, keras_own in zip(*results, strict=True):
        tf.debugging.assert_near(ours, keras_own, rtol=1e-4, atol=1e-3)
    assert ("MatMul" in operations[0]) == fast and "MatMul" not in operations[1]
    if fast and name == "Conv2DTranspose":
        phased = common.convolve_in_phases(x, layer.kernel)
        tf.debugging.assert_near(phased, results[1][0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "shape, options",
    [
        ((1, 2, 3, 4), {}),
        ((2, 2, 3, 4), {"momentum": 0.5, "epsilon": 0.1}),
        ((2, 2, 3, 4), {"trainable": False}),
    ],
)
def test_batchnorm_is_keras_own(shape, options):
    """Broken if batchnorm differs from Keras' in training, inference or its moving averages."""
    x, results = normal(shape) * 3.0 + 1.0, []
    for kind in (common.BatchNorm, keras.layers.BatchNormalization):
        layer = kind(**options)
        layer.build(x.shape)
        with tf.GradientTape() as tape:
            tape.watch(x)
            trained = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(trained))
        wanted = [x, *(variable.value for variable in layer.trainable_variables)]
        averages = layer.moving_mean.value, layer.moving_variance.value
        results.append([trained, *tape.gradient(loss, wanted), *averages, layer(x, training=False)])
    for ours, keras_own in zip(*results, strict=True):
        tf.debugging.assert_near(ours, keras_own, rtol=1e-4, atol=1e-5)


def test_batchnorm_of_one_value(monkeypatch):
    """Broken if the variance of a single value, which is NaN on a GPU, reaches the average."""
    nan = tf.constant([math.nan])
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", lambda x, **options: (x, nan, nan, nan))
    layer = common.BatchNorm()
    layer(tf.ones((1, 1, 1, 1)), training=True)
    assert float(layer.moving_variance.value[0]) == pytest.approx(0.99), "0.99 * 1 + 0.01 * 0"
