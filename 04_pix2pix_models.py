"""Stage 4: a look inside the networks of Pix2Pix.

The generator is an encoder-decoder with skip connections, a U-Net; the discriminator judges each
70x70 patch on its own, a PatchGAN (Isola et al. 2017, sections 3.2.1, 3.2.2 and appendix 6.1).
Both are in common.py, section 1. This script takes them apart, measures them, and compares the
U-Net with the same network without skips.

    sketch 256x256x3                                               picture 256x256x3
      encode_1 128x128x64 -------------- skip_1 -------------> 128x128x64 decode_7
        encode_2 64x64x128 ------------- skip_2 ------------> 64x64x128 decode_6
          encode_3 32x32x256 ----------- skip_3 ----------> 32x32x256 decode_5
            encode_4 16x16x512 --------- skip_4 --------> 16x16x512 decode_4
              encode_5 8x8x512 --------- skip_5 --------> 8x8x512 decode_3
                encode_6 4x4x512 ------- skip_6 ------> 4x4x512 decode_2
                  encode_7 2x2x512 ----- skip_7 ----> 2x2x512 decode_1
                    encode_8 1x1x512, the bottleneck

Going down, each block halves height and width; going up, each doubles them. A skip appends the
encoder's channels to the decoder's map of the same size, so the next block sees both.

    python 04_pix2pix_models.py
    python 04_pix2pix_models.py --filters 32      # networks of half the width

Prints the layer tables, the receptive field and what batchnorm does to a 1x1 map. Writes
receptive_field.png, skips.png and patches.png under runs/04_pix2pix_models. It takes 2 to 3
minutes on 2 cores.
"""

import shutil
from functools import partial

import common
from common import EncodeBlock, EncoderDecoder, PatchGAN, UNet, generate, minimise

import keras
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PICTURE = (*common.IMAGE_SIZE, 3)
TRAINED_PAIRS = 4
UNSEEN_PAIRS = 2


def layer_graph(network, inputs):
    """Returns the network as a graph of layers, whose `summary()` is a table.

    A subclassed network is Python code. This function calls it once on symbolic inputs (one for
    each name); Keras then records which layers it calls, their inputs and their shapes.
    """
    symbols = [keras.Input(PICTURE, name=name) for name in inputs]
    return keras.Model(symbols, network.call(*symbols, training=False), name=network.name)


def print_receptive_field(discriminator):
    """Computes the receptive field of one logit, back through the convolutions, and prints it.

    The kernels of `size` neighbouring outputs start `stride` inputs apart, so that together they
    cover (size - 1) * stride + kernel inputs. Padding adds nothing: it is not part of the picture.
    Returns the sizes: 1 for the logit itself, then for each convolution, from the last to the
    first, how many of its inputs the logit sees in each direction.
    """
    print("Receptive field of one logit, last layer first: (size - 1) * stride + kernel")
    blocks = [*discriminator.blocks, discriminator.last_block]
    convolutions = [(block.name, block.conv) for block in blocks]
    convolutions.append((discriminator.to_logits.name, discriminator.to_logits))
    sizes = [1]
    for name, convolution in reversed(convolutions):
        stride, kernel = convolution.strides[0], convolution.kernel_size[0]
        sizes.append((sizes[-1] - 1) * stride + kernel)
        print(f"  {name:12}({sizes[-2]:2} - 1) * {stride} + {kernel} = {sizes[-1]:2}")
    return sizes


def measure_receptive_field(discriminator, row, column):
    """Measures which pixels one logit sees: those where its gradient is not zero.

    Returns the gradient's size at each pixel, (256, 256), and the box (top, left, height, width)
    outside of which it is zero.
    """
    sketch = tf.random.stateless_normal((1, *PICTURE), seed=(0, 0))
    picture = tf.random.stateless_normal((1, *PICTURE), seed=(0, 1))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        # Inference: in training, batchnorm's statistics tie every pixel to every logit.
        logit = discriminator(sketch, picture, training=False)[0, row, column, 0]
    gradient = tf.reduce_sum(tf.abs(tape.gradient(logit, picture)[0]), axis=-1)
    seen = tf.where(gradient > 0)
    top_left, bottom_right = tf.reduce_min(seen, axis=0), tf.reduce_max(seen, axis=0)
    height, width = (int(length) for length in bottom_right - top_left + 1)
    return gradient, (int(top_left[0]), int(top_left[1]), height, width)


def draw_receptive_field(path, gradient, box, picture):
    """Draws the gradient of one logit, and the pixels that it sees of a picture (256, 256, 3)."""
    top, left, height, width = box
    figure = Figure((8.6, 4.6), layout="constrained")
    axes = figure.subplots(1, 2)
    # The scale ends at 0.3 of the largest value; otherwise the faint rim would look black.
    axes[0].imshow(gradient / tf.reduce_max(gradient), cmap="magma", vmax=0.3)
    axes[0].set_title("gradient of the logit in the middle,\nby pixel (black: none)", fontsize=11)
    axes[1].imshow(picture * 0.5 + 0.5)
    axes[1].set_title(f"so this logit judges\n{height}x{width} of 256x256 pixels", fontsize=11)
    for axis in axes:
        corner = (left - 0.5, top - 0.5)  # a pixel's centre is at its index
        style = {"fill": False, "color": "deepskyblue", "linewidth": 2}
        axis.add_patch(Rectangle(corner, width, height, **style))
        axis.set_xticks([0, left, left + width - 1, 255])
        axis.set_yticks([0, top, top + height - 1, 255])
    common.save_figure(figure, path)


def bottleneck_batchnorm(batch_size, norm, passes=500):
    """Runs the encoder's last block, 2x2x512 -> 1x1x512, in training and in inference.

    Returns the mean |value| of its output in training, of its convolution's gradient, and of its
    output in inference. The forward passes before that only update batchnorm's moving averages.
    """
    keras.utils.set_random_seed(0)
    block = EncodeBlock(512, norm=norm)
    forward = tf.function(block)  # as one graph: hundreds of passes in a second or two
    for number in range(passes):
        x = tf.random.stateless_normal((batch_size, 2, 2, 512), seed=(0, number))
        forward(x, training=True)
    inferred = block(x, training=False)  # (batch_size, 1, 1, 512)
    with tf.GradientTape() as tape:
        trained = block(x, training=True)
        # Any loss would do; this one weights every channel at random.
        loss = tf.reduce_sum(trained * tf.random.stateless_normal(trained.shape, seed=(1, 0)))
    gradient = tape.gradient(loss, block.conv.kernel)
    return [float(tf.reduce_mean(tf.abs(tensor))) for tensor in (trained, gradient, inferred)]


def print_bottleneck():
    """Prints what batchnorm does at the 1x1 bottleneck, in batches of one picture and of four."""
    print("Batchnorm on the 1x1 bottleneck: mean |value| after 500 forward passes")
    heads = f"{'output, training':>18}{'gradient':>11}{'output, inference':>19}"
    print(f"{'batch':>7}{'norm':>7}{heads}")
    for batch_size, norm in [(1, None), (1, "batch"), (4, "batch")]:
        trained, gradient, inferred = bottleneck_batchnorm(batch_size, norm)
        print(f"{batch_size:7}{norm or 'none':>7}{trained:18.4f}{gradient:11.4f}{inferred:19.4f}")
    print(
        "In a batch of one picture, each 1x1 channel is its own mean: batchnorm makes it zero, so\n"
        "nothing passes and nothing is learned. Its moving variance sinks to zero, and inference,\n"
        "which divides by it, blows up. So the bottleneck has no batchnorm.\n"
    )


def some_pairs(paths, count):
    """Returns `count` pairs of one split: (sketch, real), each (1, 256, 256, 3) in [-1, 1]."""
    how = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "none"}
    return list(common.training_pairs(paths, **how, first_step=0, last_step=count))


def l1_loss(generator, sketch, real):
    """A generator's loss by L1 alone, without a discriminator."""
    return tf.reduce_mean(tf.abs(real - generator(sketch, training=True)))


def real_or_fake_loss(discriminator, sketch, real, fake):
    """The PatchGAN's loss: the real picture against a generator's, for the same sketch."""
    real_logits = discriminator(sketch, real, training=True)
    fake_logits = discriminator(sketch, fake, training=True)
    real_loss = common.adversarial_loss(real_logits, real=True)
    return real_loss + common.adversarial_loss(fake_logits, real=False)


def fit(network, loss_of, examples, steps, learning_rate):
    """Trains a network on `loss_of(network, *example)`, one example per step, in turn."""
    optimizer = common.adam(network, learning_rate, 0.5)

    @tf.function
    def train_step(*example):
        with tf.GradientTape() as tape:
            loss = loss_of(network, *example)
        minimise(loss, tape, network, optimizer)

    for step in range(steps):
        train_step(*examples[step % len(examples)])


def mean_l1(draw, pairs):
    """Returns the mean L1, 0 to 2, between the pictures drawn for sketches and the real ones."""
    errors = [tf.reduce_mean(tf.abs(real - draw(sketch))) for sketch, real in pairs]
    return float(tf.reduce_mean(errors))


def draw_skips(path, encoder_decoder, unet, trained, unseen):
    """Draws both generators' pictures, first for pairs they were trained on, then for others."""
    rows = [
        [sketch[0], generate(encoder_decoder, sketch)[0], generate(unet, sketch)[0], real[0]]
        for sketch, real in trained + unseen
    ]
    titles = ["sketch", "Encoder-Decoder", "U-Net", "real"]
    row_titles = ["trained on\nthis pair"] * len(trained)
    row_titles += ["validation:\nnot seen\nin training"] * len(unseen)
    common.save_grid(path, rows, titles=titles, row_titles=row_titles, scale=0.75)


def draw_patches(path, discriminator, generator, sketch, real):
    """Draws the 30x30 map of logits for a sketch with its real and its generated picture."""
    figure = Figure((9.6, 6.4), layout="constrained")
    figure.suptitle("The PatchGAN, trained a little: one logit for each 70x70 patch")
    axes = figure.subplots(2, 3)
    pictures = {"real picture": real, "Encoder-Decoder's picture": generate(generator, sketch)}
    for row, (name, picture) in zip(axes, pictures.items()):
        # As in training: after so few steps the moving averages are near their initial values.
        logits = discriminator(sketch, picture, training=True)[0, :, :, 0]  # (30, 30)
        row[0].imshow(sketch[0] * 0.5 + 0.5)
        row[1].imshow(picture[0] * 0.5 + 0.5)
        image = row[2].imshow(logits, cmap="RdBu", vmin=-3, vmax=3)
        mean = f"30x30 logits, mean {tf.reduce_mean(logits):+.2f}"
        titles = ["sketch, the condition", name, mean]
        for axis, title in zip(row, titles):
            axis.set_title(title, fontsize=11)
            axis.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes[:, 2], label="fake < 0 < real", shrink=0.8, extend="both")
    common.save_figure(figure, path)


def main(argv=None):
    parser = common.parser_of(__doc__, "--out --filters", out="runs/04_pix2pix_models")
    help_text, steps = "training steps of each generator (100)", common.number(1, 10**6, int)
    parser.add_argument("--steps", type=steps, default=100, metavar="N", help=help_text)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    paths = common.find_pairs("emoji")
    trained = some_pairs(paths["train"], TRAINED_PAIRS)
    unseen = some_pairs(paths["val"], UNSEEN_PAIRS)

    keras.utils.set_random_seed(0)
    encoder_decoder = EncoderDecoder(args.filters, name="encoder_decoder")
    unet = UNet(args.filters, name="u_net")
    patchgan = PatchGAN(args.filters, name="patchgan")
    width = min(98, shutil.get_terminal_size().columns)
    for network in (encoder_decoder, unet):
        layer_graph(network, ["sketch"]).summary(line_length=width)
    layer_graph(patchgan, ["sketch", "picture"]).summary(line_length=width)

    print_receptive_field(patchgan)
    gradient, box = measure_receptive_field(patchgan, row=15, column=15)
    print(f"  measured, by the logit's gradient: {box[2]}x{box[3]} pixels\n")
    draw_receptive_field(args.out / "receptive_field.png", gradient, box, trained[0][1][0])

    print_bottleneck()

    print(f"Mean L1 after {args.steps} steps on {len(trained)} pairs, by L1 alone:")
    print(f"{'':18}{'trained on':>12}{'not seen':>12}")
    draw = {"sketch itself": tf.identity}  # what a generator has to beat
    for name, generator in {"Encoder-Decoder": encoder_decoder, "U-Net": unet}.items():
        fit(generator, l1_loss, trained, args.steps, 1e-3)
        draw[name] = partial(generate, generator)
    for name, function in draw.items():
        print(f"  {name:16}{mean_l1(function, trained):12.4f}{mean_l1(function, unseen):12.4f}")
    print(
        f"In the Encoder-Decoder everything passes through {8 * args.filters} numbers, too few\n"
        "for the lines of a sketch it has not seen. The U-Net's skips carry the lines past them.\n"
    )
    draw_skips(args.out / "skips.png", encoder_decoder, unet, trained, unseen)

    # Fewer steps: a discriminator that trains too long becomes equally sure of every patch.
    triples = [(sketch, real, generate(encoder_decoder, sketch)) for sketch, real in trained]
    fit(patchgan, real_or_fake_loss, triples, args.steps // 3 + 1, 2e-4)
    draw_patches(args.out / "patches.png", patchgan, encoder_decoder, *trained[0])
    print(
        f"{args.out / 'receptive_field.png'}  what one logit sees\n"
        f"{args.out / 'skips.png'}            both generators after the same training\n"
        f"{args.out / 'patches.png'}          which patches look real to the PatchGAN\n"
        "Look at skips.png: which of the two keeps the lines of a sketch that it has not seen?\n"
        "Next: python 05_pix2pix_train.py --epochs 10, which trains the U-Net against the PatchGAN"
    )


if __name__ == "__main__":
    common.run_main(main)
