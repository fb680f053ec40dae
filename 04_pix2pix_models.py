"""Stage 4: the networks of Pix2Pix, looked inside.

The generator is an encoder-decoder with skip connections, a U-Net; the discriminator
judges each 70x70 patch on its own, a PatchGAN (Isola et al. 2017, sections 3.2.1, 3.2.2
and appendix 6.1). Here both are taken apart and measured, and the U-Net is set beside
the same network without skips.

    python 04_pix2pix_models.py

Prints the layer tables and what batchnorm does to a 1x1 map, and writes, under
runs/04_pix2pix_models: receptive_field.png, skips.png, patches.png. Takes 2 to 3
minutes on 2 cores.
"""

import argparse
import math
from pathlib import Path

from common import (
    IMAGE_SIZE,
    EncodeBlock,
    PatchGAN,
    UNet,
    adam,
    decoder_blocks,
    discriminator_losses,
    encoder_blocks,
    find_pairs,
    generate,
    number,
    run_main,
    save_figure,
    save_grid,
    to_picture,
    training_pairs,
)

import keras
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PAIRS = 4
PICTURE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class EncoderDecoder(keras.Model):
    """The U-Net without its skips: all that is drawn has passed through 512 numbers.

    (B, 256, 256, 3) -> (B, 256, 256, 3), both in [-1, 1].
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = encoder_blocks() + decoder_blocks()
        self.to_picture = to_picture()

    def call(self, x, training):
        for block in self.blocks:
            x = block(x, training=training)
        return self.to_picture(x)


def layer_graph(network, inputs):
    """Returns the network as a graph of layers.

    A subclassed network is Python code; run once on symbolic inputs (one for each
    name), it leaves a record of which layers it calls, on what, and the shapes.
    """
    symbols = [keras.Input(PICTURE, name=name) for name in inputs]
    return keras.Model(symbols, network.call(*symbols, training=False), name=network.name)


def print_layers(graph):
    """Prints a row for each layer and the totals."""
    print(f"{graph.name:20}{'output shape':>17}{'parameters':>13}  takes")
    for layer in graph.layers:
        takes = ", ".join(t._keras_history.operation.name for t in tf.nest.flatten(layer.input))
        shape = str(tuple(layer.output.shape[1:]))
        print(f"  {layer.name:18}{shape:>17}{layer.count_params():13,}  {takes}")
    trainable = sum(math.prod(v.shape) for v in graph.trainable_variables)
    print(f"  {'total':18}{'':17}{graph.count_params():13,}  {trainable:,} of them trainable\n")


def receptive_field(discriminator, row, column):
    """Measures which pixels one logit can see: those where its gradient is not zero.

    Returns:
        The gradient's size, (256, 256), and the box (top, left, height, width) outside
        of which it is zero.
    """
    sketch = tf.random.stateless_normal((1, *PICTURE), seed=(0, 0))
    picture = tf.random.stateless_normal((1, *PICTURE), seed=(0, 1))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        # In inference: in training, batchnorm's statistics tie every pixel to every logit.
        logit = discriminator(sketch, picture, training=False)[0, row, column, 0]
    size = tf.reduce_sum(tf.abs(tape.gradient(logit, picture)[0]), axis=-1)
    seen = tf.where(size > 0)
    top_left, bottom_right = tf.reduce_min(seen, axis=0), tf.reduce_max(seen, axis=0)
    height, width = (int(n) for n in bottom_right - top_left + 1)
    return size, (int(top_left[0]), int(top_left[1]), height, width)


def bottleneck_batchnorm(batch_size, batchnorm, steps=500):
    """Runs the encoder's last block, 2x2x512 -> 1x1x512, in training and in inference.

    Returns:
        Mean size of its output in training; mean size of the gradient that its
        convolution gets; mean size of its output in inference after `steps` steps.
    """
    keras.utils.set_random_seed(0)
    block = EncodeBlock(512, batchnorm=batchnorm)
    for step in range(steps):
        x = tf.random.stateless_normal((batch_size, 2, 2, 512), seed=(0, step))
        with tf.GradientTape() as tape:
            trained = block(x, training=True)
            loss = tf.reduce_sum(trained * tf.random.stateless_normal(trained.shape, seed=(1, step)))
    gradient = tape.gradient(loss, block.conv.kernel)
    return [float(tf.reduce_mean(tf.abs(t))) for t in (trained, gradient, block(x, training=False))]


def fit_l1(generator, pairs, steps):
    """Fits a generator to a handful of pairs with L1 alone; returns its L1 on them."""
    generator.compile(adam(1e-3, 0.5), loss="mean_absolute_error", jit_compile=False)
    generator.fit(pairs.repeat(), epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    errors = [tf.reduce_mean(tf.abs(real - generate(generator, sketch))) for sketch, real in pairs]
    return float(tf.reduce_mean(errors))


def fit_discriminator(discriminator, generator, pairs, steps):
    """Trains the PatchGAN a little: the real picture against the generator's, same sketch."""
    optimizer = adam(2e-4, 0.5)

    @tf.function
    def step(sketch, real, fake):
        with tf.GradientTape() as tape:
            real_logits = discriminator(sketch, real, training=True)
            fake_logits = discriminator(sketch, fake, training=True)
            loss = sum(discriminator_losses(real_logits, fake_logits))
        variables = discriminator.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    optimizer.build(discriminator.trainable_variables)
    triples = [(sketch, real, generate(generator, sketch)) for sketch, real in pairs]
    for n in range(steps):
        step(*triples[n % len(triples)])


def draw_receptive_field(path, size, box):
    top, left, height, width = box
    figure = Figure((4.6, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(size / tf.reduce_max(size), cmap="magma", vmax=0.3)
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color="white"))
    axis.set(xticks=[0, 64, 128, 192, 255], yticks=[0, 64, 128, 192, 255])
    axis.set_title(
        f"what the logit in the middle of 30x30 sees:\n{height}x{width} of 256x256 pixels", fontsize=11
    )
    save_figure(figure, path)


def draw_patches(path, discriminator, generator, pair):
    """Draws the 30x30 map of logits for a sketch with its real and its generated picture."""
    sketch, real = pair
    figure = Figure((9.4, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for row, name, picture in zip(axes, ("real", "generated"), (real, generate(generator, sketch))):
        logits = discriminator(sketch, picture, training=True)[0, :, :, 0]
        row[0].imshow(sketch[0] * 0.5 + 0.5)
        row[1].imshow(picture[0] * 0.5 + 0.5)
        image = row[2].imshow(logits, cmap="RdBu", vmin=-3, vmax=3)
        row[0].set_title("sketch")
        row[1].set_title(f"{name} picture")
        row[2].set_title(f"30x30 logits, mean {float(tf.reduce_mean(logits)):+.2f}")
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes[:, 2], label="fake < 0 < real", shrink=0.8)
    save_figure(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = Path("runs/04_pix2pix_models")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"({out})")
    parser.add_argument(
        "--steps", type=number(1, 10**6, int), default=100, help="training steps of each generator (100)"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    encoder_decoder = EncoderDecoder(name="encoder_decoder")
    unet = UNet(name="u_net")
    patchgan = PatchGAN(name="patchgan")
    print_layers(layer_graph(encoder_decoder, ["sketch"]))
    print_layers(layer_graph(unet, ["sketch"]))
    print_layers(layer_graph(patchgan, ["sketch", "picture"]))

    size, box = receptive_field(patchgan, 15, 15)
    draw_receptive_field(args.out / "receptive_field.png", size, box)
    print(f"Receptive field of one of the 30x30 logits, by gradient: {box[2]}x{box[3]} pixels\n")

    print("Batchnorm on the 1x1 bottleneck: mean |value|, 500 steps")
    print(f"{'batch':>7}{'batchnorm':>11}{'output, training':>18}{'gradient':>11}{'output, inference':>19}")
    for batch_size, batchnorm in [(1, False), (1, True), (4, True)]:
        trained, gradient, inferred = bottleneck_batchnorm(batch_size, batchnorm)
        name = "yes" if batchnorm else "no"
        print(f"{batch_size:7}{name:>11}{trained:18.4f}{gradient:11.4f}{inferred:19.4f}")
    print(
        "Of one picture, each 1x1 channel is its own mean: batchnorm makes it zero, nothing\n"
        "passes and nothing is learned. Its moving variance sinks to zero, and inference,\n"
        "which divides by it, blows up. So the bottleneck has none.\n"
    )

    pairs = training_pairs(
        find_pairs("openmoji")["train"],
        batch_size=1,
        seed=0,
        direction="AtoB",
        augment="none",
        first_step=0,
        last_step=PAIRS,
    ).cache()
    print(f"L1 alone, {args.steps} steps on {PAIRS} pairs:")
    for network in (encoder_decoder, unet):
        print(f"  {network.name:16} L1 {fit_l1(network, pairs, args.steps):.4f}")
    rows = [
        [sketch[0], generate(encoder_decoder, sketch)[0], generate(unet, sketch)[0], real[0]]
        for sketch, real in pairs
    ]
    save_grid(args.out / "skips.png", rows, titles=["sketch", "Encoder-Decoder", "U-Net", "real"])

    fit_discriminator(patchgan, encoder_decoder, pairs, args.steps // 3 + 1)
    draw_patches(args.out / "patches.png", patchgan, encoder_decoder, next(iter(pairs)))
    print(
        f"\n{args.out / 'receptive_field.png'}  what one logit sees\n"
        f"{args.out / 'skips.png'}            both generators after the same training\n"
        f"{args.out / 'patches.png'}          which patches look real to the PatchGAN"
    )


if __name__ == "__main__":
    run_main(main)
