"""The networks of Pix2Pix have the shapes, sizes and wiring that the paper gives them."""

import math

import common

import keras
import pytest
import tensorflow as tf

PICTURE = (1, 256, 256, 3)


def picture(seed):
    return tf.random.stateless_uniform(PICTURE, (seed, 0), -1.0, 1.0)


def table(graph):
    """Name, shape, parameters and inputs of each layer, as plain data for a golden file."""
    rows = []
    for layer in graph.layers:
        sources = [tensor._keras_history.operation.name for tensor in tf.nest.flatten(layer.input)]
        shape = "x".join(map(str, layer.output.shape[1:]))
        rows.append(f"{layer.name} {shape} {layer.count_params()} <- {' '.join(sources)}")
    trainable = sum(math.prod(variable.shape) for variable in graph.trainable_variables)
    return {"layers": rows, "parameters": graph.count_params(), "trainable": trainable}


@pytest.mark.parametrize("name", ["unet", "encoder_decoder", "patchgan"])
def test_layers(name, stage4, data_regression):
    """Broken if a layer changes shape or size, or a skip joins another block than its own.

    The golden table was compared, row by row, with the paper's appendix 6.1: a 4x4 convolution of i to
    o channels has 16 i o weights, batchnorm 4 o, the last layer's bias one for each channel. It is
    written anew by `python -m pytest tests/test_networks.py --force-regen`.
    """
    keras.utils.clear_session()  # numbers unnamed layers from the start
    network = {"unet": common.UNet, "encoder_decoder": stage4.EncoderDecoder, "patchgan": common.PatchGAN}
    inputs = ["sketch", "picture"] if name == "patchgan" else ["sketch"]
    data_regression.check(table(stage4.layer_graph(network[name](), inputs)))


def test_totals_of_public_implementations(stage4):
    """Broken if our networks are not the ones others train.

    54,413,955 trainable parameters has the U-Net of pytorch-CycleGAN-and-pix2pix,
    2,770,433 in all the discriminator of TensorFlow's tutorial.
    """
    unet = stage4.layer_graph(common.UNet(), ["sketch"])
    assert sum(math.prod(variable.shape) for variable in unet.trainable_variables) == 54_413_955
    assert stage4.layer_graph(common.PatchGAN(), ["sketch", "picture"]).count_params() == 2_770_433


def test_receptive_field_is_70(stage4):
    """Broken if a kernel or stride of the PatchGAN changes, or the printed sum: a logit sees 70x70 pixels.

    By hand, from the logit back: 1, (1 - 1) + 4 = 4, (4 - 1) + 4 = 7, (7 - 1) * 2 + 4 = 16,
    (16 - 1) * 2 + 4 = 34, (34 - 1) * 2 + 4 = 70.
    """
    patchgan = common.PatchGAN()
    _, box = stage4.measure_receptive_field(patchgan, 15, 15)
    assert box[2:] == (70, 70)
    assert stage4.print_receptive_field(patchgan) == [1, 4, 7, 16, 34, 70]


def test_receptive_field_of_another_network(stage4):
    """Broken if the printed sum is not of the network's own kernels and strides.

    With encode_3's stride 1 and its kernel 3: 4, 7, (7 - 1) + 3 = 9, 8 * 2 + 4 = 20, 19 * 2 + 4 = 42.
    """
    patchgan = common.PatchGAN()
    convolution = patchgan.blocks[2].conv  # its kernel is not made before the first call
    convolution.kernel_size, convolution.strides = (3, 3), (1, 1)
    _, box = stage4.measure_receptive_field(patchgan, 15, 15)
    assert box[2:] == (42, 42)
    assert stage4.print_receptive_field(patchgan) == [1, 4, 7, 9, 20, 42]


def test_kernels_are_small_and_differ():
    """Broken if a layer is not N(0, 0.02), or if layers share an initialiser and so their values."""
    blocks = [common.EncodeBlock(512), common.EncodeBlock(512)]
    kernels = []
    for block in blocks:
        block(tf.zeros((1, 4, 4, 512)), training=False)
        kernels.append(block.conv.kernel.value)
        assert float(tf.reduce_mean(kernels[-1])) == pytest.approx(0.0, abs=1e-4)
        assert float(tf.math.reduce_std(kernels[-1])) == pytest.approx(0.02, rel=0.01)
    assert float(tf.reduce_max(tf.abs(kernels[0] - kernels[1]))) > 0.01


def test_training_reaches_batchnorm_and_dropout():
    """Broken if a block forgets to pass `training` on: its batchnorm or dropout would not act."""
    x = 3.0 + tf.random.stateless_normal((2, 8, 8, 4), (0, 0))
    for block in (common.EncodeBlock(16), common.DecodeBlock(16, dropout=0.5)):
        block(x, training=True)
        assert float(tf.reduce_max(tf.abs(block.batchnorm.moving_mean))) > 0
        assert bool(tf.reduce_all(block(x, training=False) == block(x, training=False)))
        alone = block(x[:1], training=False)
        tf.debugging.assert_near(alone, block(x, training=False)[:1], atol=1e-5)  # whatever is beside it
        assert bool(tf.reduce_any(tf.abs(alone - block(x, training=True)[:1]) > 0.1))
    first, second = block(x, training=True), block(x, training=True)
    assert bool(tf.reduce_any(first != second)), "no dropout"


def test_bottleneck_has_no_batchnorm(stage4):
    """Broken if the 1x1 bottleneck is normalised: at batch size 1 its output is then zero."""
    x = picture(0)
    for block in common.UNet(8).encoder:
        x = block(x, training=True)
    assert x.shape == (1, 1, 1, 64)
    assert float(tf.reduce_mean(tf.abs(x))) > 1e-3
    assert stage4.bottleneck_batchnorm(1, True, passes=3)[0] == 0.0


def test_generate_leaves_no_trace():
    """Broken if looking at pictures changes the run: moving averages, random state, result."""
    generator, sketch = common.UNet(8), picture(0)
    generator(sketch, training=False)
    before = [tf.identity(v) for v in generator.variables]
    first, second, other = (common.generate(generator, sketch, seed) for seed in (0, 0, 1))
    assert all(bool(tf.reduce_all(old == v)) for old, v in zip(before, generator.variables))
    assert bool(tf.reduce_all(first == second))
    assert bool(tf.reduce_any(first != other)), "dropout is off"
    for variable in generator.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(tf.fill(variable.shape, 100.0))
    assert bool(tf.reduce_all(first == common.generate(generator, sketch, 0))), "batchnorm's averages used"


def test_discriminator_sees_the_sketch():
    """Broken if the PatchGAN ignores the condition: a GAN, no longer a conditional one."""
    patchgan = common.PatchGAN(8)
    one, other = (patchgan(picture(seed), picture(2), training=False) for seed in (0, 1))
    assert float(tf.reduce_max(tf.abs(one - other))) > 1e-3


def test_adversarial_losses_by_hand():
    """Broken if a label is swapped or sigmoid is applied twice.

    Cross-entropy of logit x is log(1 + e^-x) against 1 and log(1 + e^x) against 0:
    at 0 both are log 2 = 0.6931; at 2: 0.1269 and 2.1269.
    """
    undecided, sure = tf.zeros((1, 30, 30, 1)), tf.fill((1, 30, 30, 1), 2.0)
    assert float(common.generator_loss(undecided)) == pytest.approx(0.6931, abs=1e-4)
    assert float(common.generator_loss(sure)) == pytest.approx(0.1269, abs=1e-4)
    real, fake = common.discriminator_losses(sure, undecided)
    assert (float(real), float(fake)) == pytest.approx((0.1269, 0.6931), abs=1e-4)
    real, fake = common.discriminator_losses(undecided, sure)
    assert (float(real), float(fake)) == pytest.approx((0.6931, 2.1269), abs=1e-4)


@pytest.mark.parametrize(
    "name, shape, filters",
    [
        ("Conv2D", (1, 16, 16, 32), 64),
        ("Conv2D", (1, 4, 8, 6), 9),
        ("Conv2D", (3, 2, 2, 5), 7),
        ("Conv2DTranspose", (1, 4, 4, 32), 6),
        ("Conv2DTranspose", (1, 2, 4, 9), 5),
        ("Conv2DTranspose", (3, 1, 2, 7), 4),
    ],
)
def test_convolutions_of_few_pixels(name, shape, filters):
    """Broken if a convolution computed as a matrix product is not Keras': output and gradients."""
    x = tf.random.stateless_normal(shape, seed=(0, 1))
    results, operations = [], []
    for module in (common, keras.layers):
        layer = getattr(module, name)(filters, 4, 2, "same", use_bias=False)
        layer.build(shape)
        layer.kernel.assign(tf.random.stateless_normal(layer.kernel.shape, seed=(0, 2)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))  # another gradient at each place
        results.append([y, *tape.gradient(loss, [x, layer.kernel.value])])
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec(shape)).graph
        operations.append({operation.type for operation in graph.get_operations()})
    for ours, keras_own in zip(*results):
        tf.debugging.assert_near(ours, keras_own, rtol=1e-4, atol=1e-3)
    assert "MatMul" in operations[0] and "MatMul" not in operations[1]  # two ways were compared


def test_convolutions_of_other_strides():
    """Broken if the PatchGAN's convolution of strides 1 is computed as one of strides 2."""
    x = tf.random.stateless_normal((1, 7, 6, 3), seed=(0, 1))
    results = []
    for module in (common, keras.layers):
        layer = module.Conv2D(64, 4, 1, "valid", use_bias=False)
        layer.build(x.shape)
        layer.kernel.assign(tf.random.stateless_normal(layer.kernel.shape, seed=(0, 2)))
        results.append(layer(x))
    assert results[0].shape == (1, 4, 3, 64)
    tf.debugging.assert_near(*results, rtol=1e-4, atol=1e-3)


def test_many_pixels_are_convolved():
    """Broken if large maps, where it costs time and memory, become matrix products as well."""
    for layer in (common.Conv2D(8, 4, 2, "same"), common.Conv2DTranspose(8, 4, 2, "same")):
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec((1, 64, 64, 3))).graph
        assert "MatMul" not in {operation.type for operation in graph.get_operations()}


def test_batchnorm():
    """Broken if the fused batchnorm is not Keras': in training, its moving averages, or in inference."""
    x = tf.random.stateless_normal((1, 2, 3, 4), seed=(0, 3)) * 3.0 + 1.0
    results = []
    for kind in (common.BatchNorm, keras.layers.BatchNormalization):
        layer = kind(epsilon=1e-5)
        layer.build(x.shape)
        with tf.GradientTape() as tape:
            tape.watch(x)
            trained = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(trained))
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        averages = layer.moving_mean.value, layer.moving_variance.value
        results.append([trained, *gradients, *averages, layer(x, training=False)])
    for mine, keras_own in zip(*results):
        tf.debugging.assert_near(mine, keras_own, rtol=1e-4, atol=1e-5)


def test_instance_norm_is_batchnorm_of_each_picture_alone():
    """Broken if --norm instance mixes pictures, or is another normalisation than that of testing."""
    x = tf.random.stateless_normal((3, 5, 4, 8), seed=(0, 0)) * 3.0 + 1.0
    gamma, beta = (tf.random.stateless_normal((8,), seed=(1, n)) for n in range(2))
    norms = [norm(epsilon=common.EPSILON) for norm in common.NORMS.values()]
    results = []
    for norm in norms:
        norm.build(x.shape)
        norm.gamma.assign(gamma)
        norm.beta.assign(beta)
        batches = [x] if norm is norms[1] else [x[n : n + 1] for n in range(3)]
        with tf.GradientTape() as tape:
            y = tf.concat([norm(batch, training=True) for batch in batches], axis=0)
            loss = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, seed=(2, 0)))
        results.append([y, *tape.gradient(loss, [norm.gamma, norm.beta])])
    for alone, together in zip(*results):
        tf.debugging.assert_near(alone, together, rtol=1e-4, atol=1e-4)
    assert [v.shape for v in norms[0].weights] == [v.shape for v in norms[1].weights]


def test_norm_reaches_every_block(stage5):
    """Broken if a layer of either network mixes the pictures of a batch in spite of --norm instance."""
    for name, norm in common.NORMS.items():
        model = stage5.Pix2Pix(filters=1, norm=name)
        unet, patchgan = model.generator, model.discriminator
        blocks = [*unet.encoder, *unet.decoder, *patchgan.blocks, patchgan.last_block]
        found = [type(block.batchnorm) for block in blocks if block.batchnorm]
        assert found == [norm] * 16
