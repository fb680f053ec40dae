"""What two or more of the numbered scripts run, and nothing else.

The first part is the lesson:

1. Networks of Pix2Pix: U-Net and PatchGAN               (stages 4, 5, 6 and 8)
2. Losses                                                (1, 2, 4 and 5)
3. The game of two networks, and Adam                    (1, 2, 4 and 5)
4. Digits                                                (1 and 2)
5. Pairs of pictures: split, stack, augment              (3 to 8)

The second part, below the line "Machinery", keeps a training alive and its user
informed. The course can be followed without it, and without `filtering_logs` below:

6. The training loop        9. The run's folder         11. Command line
7. Checkpoints and tables   10. Files of pairs          12. Figures
8. Devices and machines
"""

import argparse
import contextlib
import csv
import ctypes
import errno
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import fcntl

    WINDOWS = False
except ImportError:
    import msvcrt

    WINDOWS = True


@contextlib.contextmanager
def filtering_logs():
    """Keeps notes of TensorFlow and libjpeg off the screen; other warnings and errors get there.

    They are written to file descriptor 2, some before TensorFlow reads its log level, so the
    descriptor itself is diverted. Also left out: cuInit's code 303 (there is no CUDA driver).
    """
    notes = re.compile(
        r"(\d{4}-\S+ \S+: )?(I(\d{4})? |W(\d{4})? .*(op_kernel|local_rendezvous|tensor_slice_reader|tf_tfl"
        r"|computation_placer))|WARNING: All log messages before absl|INFO: Created TensorFlow Lite|\s*$"
        r"|.*cuInit.*\(303\)|.*jpeg_mem|.*Unable to register cu\w+ factory"
        r"|(Bogus|Corrupt|Improper call|Input file|Invalid (JPEG|component)|Premature|Quantization) "
        r"|Unsupported (JPEG|marker) "
    )
    try:
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError:  # the disk is full, which is better reported elsewhere
        yield
        return
    with log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            sys.stderr.writelines(line for line in log if not notes.match(line))


def refuse_other_versions():
    """Ends in one line where TensorFlow or Keras is too old; warns of a TensorFlow not yet tried."""
    too_old = sys.version_info < (3, 10) and f"Python {platform.python_version()}: needs 3.10 or newer"
    for name, module, oldest in (("TensorFlow", tf, (2, 18)), ("Keras", keras, (3, 6))):
        version = tuple(int(part) for part in module.__version__.split(".")[:2])
        if version < oldest:
            needed = ".".join(map(str, oldest))
            too_old = f"{name} {module.__version__}: needs {needed} or newer: {INSTALL}"
        elif name == "TensorFlow" and version > (2, 21):
            print(f"Warning: TensorFlow {module.__version__} is newer than these scripts", file=sys.stderr)
    if too_old:
        print(f"{Path(sys.argv[0]).name}: error: {too_old}", file=sys.stderr)
        sys.exit(2)


# This has to stand first: TensorFlow writes its notes while it is imported, and Python would
# answer a Ctrl-C in these seconds with a traceback through TensorFlow's modules.
INSTALL = "python -m pip install -r requirements.txt"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # 1: no notes after the import either
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or it takes all memory of a GPU at once
# Of descriptors 0 to 2, one that is closed would be the next file's, and take TensorFlow's notes.
while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(descriptor)
sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
sigint_handler = signal.getsignal(signal.SIGINT)
if sigint_handler is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    with filtering_logs():
        import keras
        import matplotlib
        import tensorflow as tf
        from keras import layers
        from matplotlib.figure import Figure
        from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

        tf.config.list_physical_devices()  # looks for a GPU, and writes notes about it
except ModuleNotFoundError as error:
    print(f"{Path(sys.argv[0]).name}: error: {error.name} is not installed: {INSTALL}", file=sys.stderr)
    sys.exit(2)
signal.signal(signal.SIGINT, sigint_handler)
refuse_other_versions()

HERE = Path(__file__).parent
NO_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


# === 1. Networks of Pix2Pix (stages 4, 5, 6 and 8) ==========================

# Conv2D, Conv2DTranspose and those of NORMS are Keras' layers, made faster in section 6.

# Of the paper. Shapes below are for these: at --size 512x256 the maps are twice as high, the deepest
# one 2x1, and with --filters 32 they have half as many channels.
IMAGE_SIZE = (256, 256)  # height and width of the pictures; eight blocks halve them to 1x1
FILTERS = 64  # channels of the first block; the others have up to eight times as many
EPSILON = 1e-5  # batchnorm's, as in the authors' code; Keras' 1e-3 mutes the faint second layer


def paper_init():
    """The paper's initialisation. A shared one would give layers of one shape the same weights."""
    return keras.initializers.RandomNormal(0.0, 0.02)


class EncodeBlock(layers.Layer):
    """4x4 convolution, batchnorm, LeakyReLU: C64, C128, ... of the paper's appendix 6.1.

    No bias: batchnorm's shift takes its place, and the authors leave it out in all blocks.
    """

    def __init__(self, filters, strides=2, padding="same", batchnorm=True, norm="batch", **kwargs):
        super().__init__(**kwargs)
        options = {"use_bias": False, "kernel_initializer": paper_init()}
        self.conv = Conv2D(filters, 4, strides, padding, **options)
        self.batchnorm = NORMS[norm](epsilon=EPSILON) if batchnorm else None
        self.activation = layers.LeakyReLU(negative_slope=0.2)

    def call(self, x, training):
        x = self.conv(x)
        if self.batchnorm:
            x = self.batchnorm(x, training=training)
        return self.activation(x)


class DecodeBlock(layers.Layer):
    """4x4 transposed convolution to twice the size, batchnorm, dropout (CD512, ...), ReLU."""

    def __init__(self, filters, dropout=0.0, norm="batch", **kwargs):
        super().__init__(**kwargs)
        options = {"use_bias": False, "kernel_initializer": paper_init()}
        self.conv = Conv2DTranspose(filters, 4, 2, "same", **options)
        self.batchnorm = NORMS[norm](epsilon=EPSILON)
        self.dropout = layers.Dropout(dropout) if dropout else None
        self.activation = layers.ReLU()

    def call(self, x, training):
        x = self.batchnorm(self.conv(x), training=training)
        if self.dropout:
            x = self.dropout(x, training=training)
        return self.activation(x)


def encoder_blocks(filters=FILTERS, norm="batch"):
    """The half that shrinks the picture to one vector of 512 numbers.

    No batchnorm in the first block (the paper's appendix) nor in the last: over a
    batch of one its 1x1 map is a single value per channel, which batchnorm turns
    into zero, cutting the path (the paper's erratum).
    """
    return [
        EncodeBlock(filters, batchnorm=False, name="encode_1"),  # (B, 128, 128, 64)
        EncodeBlock(2 * filters, norm=norm, name="encode_2"),  # (B, 64, 64, 128)
        EncodeBlock(4 * filters, norm=norm, name="encode_3"),  # (B, 32, 32, 256)
        EncodeBlock(8 * filters, norm=norm, name="encode_4"),  # (B, 16, 16, 512)
        EncodeBlock(8 * filters, norm=norm, name="encode_5"),  # (B, 8, 8, 512)
        EncodeBlock(8 * filters, norm=norm, name="encode_6"),  # (B, 4, 4, 512)
        EncodeBlock(8 * filters, norm=norm, name="encode_7"),  # (B, 2, 2, 512)
        EncodeBlock(8 * filters, batchnorm=False, name="encode_8"),  # (B, 1, 1, 512)
    ]


def decoder_blocks(filters=FILTERS, norm="batch"):
    """The half that grows the picture again; dropout is its only source of noise."""
    return [
        DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_1"),  # (B, 2, 2, 512)
        DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_2"),  # (B, 4, 4, 512)
        DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_3"),  # (B, 8, 8, 512)
        DecodeBlock(8 * filters, norm=norm, name="decode_4"),  # (B, 16, 16, 512)
        DecodeBlock(4 * filters, norm=norm, name="decode_5"),  # (B, 32, 32, 256)
        DecodeBlock(2 * filters, norm=norm, name="decode_6"),  # (B, 64, 64, 128)
        DecodeBlock(filters, norm=norm, name="decode_7"),  # (B, 128, 128, 64)
    ]


def to_picture():
    """The last layer of a generator: (B, 128, 128, channels) -> (B, 256, 256, 3) in [-1, 1]."""
    return layers.Conv2DTranspose(
        3,
        4,
        2,
        "same",
        activation="tanh",
        kernel_initializer=paper_init(),
        dtype="float32",
        name="to_picture",
    )


class UNet(keras.Model):
    """Generator: condition (B, 256, 256, 3) -> picture (B, 256, 256, 3), both in [-1, 1].

    An encoder-decoder whose decoder also sees, at each size, what the encoder had
    there (Isola et al. 2017, section 3.2.1 and appendix 6.1).
    """

    def __init__(self, filters=FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder_blocks(filters, norm)
        self.decoder = decoder_blocks(filters, norm)
        # Layers and not tf.concat, so that stage 4's table can name them.
        self.joins = [layers.Concatenate(name=f"skip_{n}") for n in range(7, 0, -1)]
        self.to_picture = to_picture()

    def call(self, x, training):
        skips = []
        for block in self.encoder:
            x = block(x, training=training)
            skips.append(x)
        # The deepest map is the decoder's input; the others are joined on the way up.
        for block, join, skip in zip(self.decoder, self.joins, reversed(skips[:-1])):
            x = join([block(x, training=training), skip])  # twice the block's channels
        return self.to_picture(x)


class PatchGAN(keras.Model):
    """Discriminator: is this the real picture for this condition? Asked of each 70x70 patch.

    (condition, picture), each (B, 256, 256, 3) in [-1, 1] -> (B, 30, 30, 1) logits,
    positive for real (Isola et al. 2017, section 3.2.2).
    """

    def __init__(self, filters=FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        self.join = layers.Concatenate()  # (B, 256, 256, 6)
        self.blocks = [
            EncodeBlock(filters, batchnorm=False, name="encode_1"),  # (B, 128, 128, 64)
            EncodeBlock(2 * filters, norm=norm, name="encode_2"),  # (B, 64, 64, 128)
            EncodeBlock(4 * filters, norm=norm, name="encode_3"),  # (B, 32, 32, 256)
        ]
        self.pad = layers.ZeroPadding2D()  # (B, 34, 34, 256)
        options = {"strides": 1, "padding": "valid", "norm": norm, "name": "encode_4"}
        self.last_block = EncodeBlock(8 * filters, **options)  # (B, 31, 31, 512)
        self.last_pad = layers.ZeroPadding2D()  # (B, 33, 33, 512)
        options = {"kernel_initializer": paper_init(), "dtype": "float32", "name": "to_logits"}
        self.to_logits = layers.Conv2D(1, 4, **options)  # (B, 30, 30, 1)

    def call(self, condition, picture, training):
        x = self.join([condition, picture])
        for block in self.blocks:
            x = block(x, training=training)
        x = self.last_block(self.pad(x), training=training)
        return self.to_logits(self.last_pad(x))


def generate(generator, condition, seed=0):
    """Runs a Pix2Pix generator as at test time.

    The paper (section 3.3) tests with the network as it trains: batchnorm over the
    picture itself, dropout on. So pass one picture at a time. Keras' `stateless_call`
    leaves moving averages and random state untouched, and the same seed drops the same values.

    Args:
        condition: (1, 256, 256, 3) in [-1, 1].
        seed: whole number, or a scalar int32 tensor.

    Returns:
        (1, 256, 256, 3) in [-1, 1].
    """
    state = list(generator.non_trainable_variables)
    for index, variable in enumerate(state):
        if "seed_generator" in variable.path:  # the random state of a dropout layer
            state[index] = tf.cast(tf.stack([seed, index]), variable.dtype)
    picture, _ = generator.stateless_call(generator.trainable_variables, state, condition, training=True)
    return picture


# === 2. Losses (stages 1, 2, 4 and 5) =======================================
# Each is a mean of -log(probability given to the wanted answer), from logits. A
# discriminator that cannot tell says 1/2 everywhere: each is then log 2 = 0.693. (In
# stage 2, where two of three kinds are to be called fake, 1/3.)


def adversarial_loss(logits, real):
    """Mean cross-entropy of logits of any shape against the answer real or fake."""
    answers = tf.ones_like(logits) if real else tf.zeros_like(logits)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(answers, logits))


def generator_loss(fake_logits):
    """The generator wants its pictures taken for real.

    -log D(G(z)) instead of the minimax game's log(1 - D(G(z))), whose gradient
    vanishes while the discriminator wins (Goodfellow et al. 2014, section 3).
    """
    return adversarial_loss(fake_logits, real=True)


def discriminator_losses(real_logits, fake_logits):
    """The discriminator wants real called real and fake called fake; their sum is its loss."""
    return adversarial_loss(real_logits, real=True), adversarial_loss(fake_logits, real=False)


# === 3. The game of two networks, and Adam (stages 1, 2, 4 and 5) ===========


class AdversarialModel(keras.Model):
    """A generator and a discriminator with an optimiser each: what the three trainers share.

    A subclass provides:
        self.generator, self.discriminator: networks whose weights have been made.
        self.random: a SeedGenerator, if it calls `noise`.
        train_step(batch): updates both networks, and returns the losses by name, scalars.
        test_step(pair): returns the scores of one validation pair by name, if there are any.

    `common.train` runs it; Keras' own `compile` and `fit` are not used.
    """

    def set_optimizers(self, generator_optimizer, discriminator_optimizer):
        """Takes the two optimisers and makes their variables."""
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)

    def noise(self, count, latent):
        """Returns (count, latent) numbers from N(0, 1), drawn by `self.random`.

        On several devices each draws the numbers for all, and takes its own share of them.
        """
        replica = tf.distribute.get_replica_context()
        numbers = keras.random.normal((replica.num_replicas_in_sync * count, latent), seed=self.random)
        return numbers[replica.replica_id_in_sync_group * count :][:count]

    def state(self):
        """Returns all variables. tf.train.Checkpoint(model) would leave out the random state."""
        owners = (self, self.generator_optimizer, self.discriminator_optimizer)
        return [variable.value for owner in owners for variable in owner.variables]


def minimise(loss, tape, network, optimizer):
    """Moves the network's weights one step of its optimiser down the gradient of the loss."""
    variables = network.trainable_variables
    # float16 cannot tell a gradient below 6e-8 from 0. With float16 the optimiser scales the loss
    # up before the gradient, and divides the gradient afterwards; otherwise the scale is 1.
    scale = optimizer.scale_loss(tf.ones_like(loss))
    optimizer.apply(tape.gradient(loss, variables, output_gradients=scale), variables)


def adam(learning_rate, beta_1):
    """Returns Adam, with loss scaling where the arithmetic is float16 (see `minimise`)."""
    optimizer = CompiledAdam(learning_rate, beta_1=beta_1)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = LossScale(optimizer)
    return optimizer


# === 4. Digits (stages 1 and 2) =============================================

MNIST = HERE / "data" / "mnist"
MNIST_FILES = [MNIST / "train-images-idx3-ubyte.gz", MNIST / "train-labels-idx1-ubyte.gz"]


def load_mnist(files=MNIST_FILES):
    """Reads the training digits of MNIST.

    Returns:
        Digits (60000, 28, 28, 1) and labels (60000,), both uint8, 0 to 255 and 0 to 9.
    """
    return read_idx(files[0], 60000, 28, 28)[..., tf.newaxis], read_idx(files[1], 60000)


def read_idx(path, *shape):
    """Reads a gzipped IDX file: bytes, after a header of 4 bytes and 4 more for each dimension.

    Returns:
        uint8 tensor of the shape given.

    Raises:
        UserError: missing, damaged, or of another number of values.
    """
    try:
        data = gzip.decompress(Path(path).read_bytes())
        return tf.reshape(tf.io.decode_raw(data[4 + 4 * len(shape) :], tf.uint8), shape)
    except (OSError, EOFError, zlib.error, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{path}: missing or damaged; take it from the repository again") from error


def training_digits(digits, labels, *, batch_size, seed, first_step, last_step):
    """Returns the training batches of steps `first_step` to `last_step` - 1.

    The batch of step k is a pure function of (seed, k).

    Returns:
        A dataset of digits (batch_size, 28, 28, 1) in [-1, 1] and one-hot labels
        (batch_size, 10), both float32.
    """

    def batch(positions):
        chosen = shuffled(positions, len(digits), seed)
        scaled = tf.cast(tf.gather(digits, chosen), tf.float32) / 127.5 - 1.0
        return scaled, tf.one_hot(tf.gather(labels, chosen), 10)

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    return positions.batch(batch_size, drop_remainder=True).map(batch).prefetch(tf.data.AUTOTUNE)


def shuffled(positions, count, seed):
    """The examples at positions of an endless sequence of shuffled passes over the data.

    A pure function, where a shuffle buffer would have a past: training can begin at
    any step and sees what it would have seen.

    Args:
        positions: (B,) int64, ascending, at most `count` of them.
        count: number of examples.

    Returns:
        (B,) int64, from 0 to count - 1. The first `count` positions give every example once,
        the next `count` in another order.
    """

    def shuffle_pass(number):
        seeds = tf.stack([tf.cast(seed, tf.int64), number])
        return tf.random.experimental.index_shuffle(positions % count, seeds, max_index=count - 1)

    passes = positions // count  # a batch reaches into the next pass at most
    return tf.where(passes == passes[0], shuffle_pass(passes[0]), shuffle_pass(passes[-1]))


# === 5. Pairs of pictures (stages 3 to 8) ===================================


def decode_picture(path):
    """Reads a picture file (path: scalar string tensor); see `decode_data`."""
    return decode_data(tf.io.read_file(path))


def decode_data(data):
    """Decodes a picture; what is transparent becomes white.

    Args:
        data: scalar string tensor; the bytes of a JPEG or PNG file of any size.

    Returns:
        (height, width, 3) uint8, 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: not a readable picture.
    """
    if tf.io.is_jpeg(data):
        return tf.io.decode_jpeg(data, channels=3)
    # A PNG can name one colour as transparent, in a tRNS chunk ahead of the pixels; TensorFlow
    # heeds it when asked for 4 channels. Always asking for 4 would be simpler, but TensorFlow 2.21
    # then makes line drawings of 1, 2 or 4 bits without a tRNS chunk nearly transparent.
    header = tf.strings.split(data, "IDAT", maxsplit=1)[0]
    if tf.size(tf.strings.split(header, "tRNS", maxsplit=1)) > 1:
        picture = tf.io.decode_png(data, channels=4)
    else:
        picture = tf.io.decode_png(data)
    if tf.shape(picture)[2] % 2 == 0:  # gray and alpha, or RGB and alpha
        alpha = tf.cast(picture[..., -1:], tf.float32) / 255.0
        on_white = tf.cast(picture, tf.float32) * alpha + 255.0 * (1.0 - alpha)
        picture = tf.cast(tf.round(on_white), tf.uint8)[..., :-1]
    return picture + tf.zeros(3, tf.uint8)  # (height, width, 1) becomes (height, width, 3)


def decode_pair(path):
    """Reads a side-by-side picture and splits it at the middle.

    Returns:
        The left and the right half, (height, width // 2, 3) uint8, 0 to 255. Of an odd
        width the middle column is dropped.
    """
    picture = decode_picture(path)
    half = tf.shape(picture)[1] // 2
    return picture[:, :half], picture[:, -half:]


def stack_pair(left, right, direction):
    """Puts both halves into one stack, so that whatever is done to it is done to both.

    Args:
        left, right: (height, width, 3) uint8.
        direction: "AtoB": the condition is the left half; "BtoA": the right one.

    Returns:
        (height, width, 6) float32 in [-1, 1]: the condition's channels, then the target's.
    """
    halves = [left, right] if direction == "AtoB" else [right, left]
    return tf.cast(tf.concat(halves, axis=-1), tf.float32) / 127.5 - 1.0


def read_stack(path, direction):
    """Reads a side-by-side picture as one stack: `decode_pair` and `stack_pair`."""
    left, right = decode_pair(path)
    return stack_pair(left, right, direction)


def split_stack(stack):
    """Splits (..., 6) into the condition's and the target's (..., 3)."""
    return stack[..., :3], stack[..., 3:]


def resize(stack, size=IMAGE_SIZE, labels=False):
    """Resizes (height, width, channels) to (*size, channels), without moire when it shrinks.

    Args:
        size: (height, width).
        labels: whether the condition (the first 3 channels) is a label map. Its pixels are then
            picked and not mixed: a mixture of two classes' colours is the colour of a third, or of none.
    """
    if not labels:
        return tf.image.resize(stack, size, antialias=True)
    condition, target = split_stack(stack)
    condition = tf.image.resize(condition, size, "nearest")
    return tf.concat([condition, tf.image.resize(target, size, antialias=True)], axis=-1)


def random_crop(stack, seed, size):
    """Cuts a random (*size, channels) out of a larger stack."""
    return tf.image.stateless_random_crop(stack, (*size, stack.shape[-1]), seed)


def jitter(stack, seed, size=IMAGE_SIZE, labels=False):
    """The paper's augmentation (appendix 6.2): enlarge, crop at random, mirror half the time.

    Args:
        stack: (height, width, channels) float32, of any height and width.
        seed: (2,) int64; the same seed gives the same picture.
        size: (height, width) of the result.
        labels: as for `resize`.

    Returns:
        (256, 256, channels) float32, or of another size.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    enlarged = [side * 286 // 256 for side in size]  # 286 for 256
    stack = random_crop(resize(stack, enlarged, labels), crop_seed, size)
    return tf.image.stateless_random_flip_left_right(stack, flip_seed)


def course_augment(stack, seed, size=IMAGE_SIZE, labels=False):
    """The course's augmentation: shift with padding, mirror both ways, quarter turns.

    The border of 30 pixels (for 256) is a reflection or white, half the time each. Only a
    square is turned. Arguments and result as for `jitter`.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))

    def chance(seed):
        return tf.random.stateless_uniform((), seed) < 0.5

    stack = resize(stack, size, labels)
    border = [[side * 30 // 256] * 2 for side in size] + [[0, 0]]
    white = tf.pad(stack, border, constant_values=1.0)
    stack = tf.where(chance(seeds[0]), tf.pad(stack, border, "REFLECT"), white)
    stack = random_crop(stack, seeds[1], size)
    stack = tf.image.stateless_random_flip_left_right(stack, seeds[2])
    stack = tf.image.stateless_random_flip_up_down(stack, seeds[3])
    if size[0] != size[1]:
        return stack
    turns = tf.random.stateless_uniform((), seeds[4], minval=1, maxval=4, dtype=tf.int32)
    return tf.image.rot90(stack, tf.where(chance(seeds[5]), turns, 0))


def no_augment(stack, seed, size=IMAGE_SIZE, labels=False):
    """The pair as it is, resized. Arguments and result as for `jitter`."""
    return resize(stack, size, labels)


AUGMENTATIONS = {"none": no_augment, "jitter": jitter, "course": course_augment}


def training_pairs(
    paths, *, batch_size, seed, direction, augment, first_step, last_step, size=IMAGE_SIZE, labels=False
):
    """Returns the training batches of steps `first_step` to `last_step` - 1.

    The batch of step k is a pure function of (seed, k).

    Args:
        size: (height, width) of the pictures.
        labels: whether the conditions are label maps.

    Returns:
        A dataset of (condition, target), each (batch_size, 256, 256, 3) in [-1, 1].
    """
    files = tf.constant(paths)

    def example(position):
        chosen = shuffled(position[tf.newaxis], len(paths), seed)[0]
        stack = read_stack(files[chosen], direction)
        return split_stack(AUGMENTATIONS[augment](stack, tf.stack([seed, position]), size, labels))

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    pairs = positions.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return pairs.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


# *****************************************************************************
# Machinery: from here on, nothing has to be known to follow the course
# *****************************************************************************

# === 6. The training loop ===================================================


def train(model, run, batches, args, *, steps_per_epoch, draw, steps_at_once=1, validation=(), baseline=dict):
    """Trains up to `args.epochs` epochs, from the run's last checkpoint if there is one.

    Writes losses.csv (the losses of the last step before each row), metrics.csv (with
    validation pairs), losses.png, samples/, saved/ (the checkpoints) and generator.weights.h5. Ctrl-C,
    SIGTERM and SIGHUP end it after the steps under way, with a checkpoint and exit status 130,
    143 or 129; of several processes, send them to the chief alone, and the others end with it.

    Args:
        model: an AdversarialModel with its optimisers.
        run: the run's folder.
        batches: called with first_step and last_step, returns the dataset of those steps.
        args: the parsed flags.
        draw: path -> None, draws the sample picture of the current state.
        steps_at_once: more than 1 where a step takes about as long as returning to Python.
        validation: pairs for the model's `test_step`, after each epoch.
        baseline: returns what doing nothing scores on them, as columns for metrics.csv.

    Returns:
        The rows of metrics.csv, dicts of numbers.

    Raises:
        UserError: a loss is no longer a number, or no checkpoint can be read.
    """
    checkpoints = Checkpoints(run, model.state())
    losses_table, metrics_table = checkpoints.tables
    step, last_step = checkpoints.restore(), args.epochs * steps_per_epoch
    announce(run, step, last_step, steps_per_epoch)
    take_steps = make_train_function(model, batches(first_step=step, last_step=last_step))
    validate = tf.function(model.test_step)
    row_every = max(10, steps_at_once)

    with deferring_signals() as signals:
        for epoch in range(step // steps_per_epoch, args.epochs):
            bar = epoch_bar(epoch, args.epochs, steps_per_epoch)
            first, end = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
            while step < end:
                count = min(steps_at_once, end - step)
                losses = take_steps(count)
                step += count
                refuse_not_finite(losses, step - count + 1, step, checkpoints)
                if (step - first) % row_every == 0 or step == end:
                    losses_table.append({"epoch": epoch + 1, "step": step} | losses)
                bar.update(step - first, losses.items(), finalize=False)
                if step < end and (signals or checkpoints.minutes_old() > args.checkpoint_minutes):
                    checkpoints.save(step)
                    leave_if_asked(signals, step)

            if is_chief():
                scores = mean_scores([validate(pair) for pair in validation])
                if scores:
                    metrics_table.append({"epoch": epoch + 1} | scores | baseline())
                bar.update(steps_per_epoch, scores.items(), finalize=True)
                draw(run / "samples" / f"epoch_{epoch + 1:04d}.png")
                draw_curves(run / "losses.png", losses_table.rows(), metrics_table.rows())
                save_weights(model.generator, run / "generator.weights.h5")
            checkpoints.save(step)  # last: what has a checkpoint is complete
            leave_if_asked(signals, step)

    if is_chief():  # once more, for a run that had all its epochs
        draw_curves(run / "losses.png", losses_table.rows(), metrics_table.rows())
        save_weights(model.generator, run / "generator.weights.h5")
    broadcast_from_chief([tf.constant(0)])  # the others wait until all is saved
    if not is_chief():
        print("This process has done its part. The chief has the run.")
        sys.exit()
    return metrics_table.rows()


def make_train_function(model, batches):
    """Returns a function that runs so many train steps, and returns the last one's losses."""
    strategy = tf.distribute.get_strategy()
    options = tf.data.Options()  # each process reads all batches and takes its share of each
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = iter(strategy.experimental_distribute_dataset(batches.with_options(options)))

    def take_step():
        losses = strategy.run(model.train_step, [next(data)])
        return {name: strategy.reduce("MEAN", losses[name], axis=None) for name in sorted(losses)}

    @tf.function  # apart, since tracing the step a second time would take seconds in stage 5
    def one_step():
        return take_step()

    @tf.function
    def several_steps(count):
        losses = take_step()
        for _ in tf.range(count - 1):
            losses = take_step()
        return losses

    def take_steps(count):
        losses = one_step() if count == 1 else several_steps(tf.constant(count))
        return {name: float(loss) for name, loss in losses.items()}

    return take_steps


class CompiledAdam(keras.optimizers.Adam):
    """Keras' Adam with its update compiled: one pass over the weights instead of a dozen.

    On a GPU it is Keras' own update (see `tune_for_device`), and on several devices, since they
    meet in it. Keras sums their gradients there, and what is wanted is the gradient of the mean
    over the whole batch.
    """

    def apply(self, grads, trainable_variables=None):
        if tf.distribute.has_strategy():
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            return super().apply([grad / replicas for grad in grads], trainable_variables)
        if on_gpu():
            return super().apply(grads, trainable_variables)
        update = tf.function(lambda grads: super(CompiledAdam, self).apply(grads), jit_compile=True)
        return update(grads)  # without the variables: tf.function would copy them, `build` has them


class BatchNorm(layers.BatchNormalization):
    """Keras' batchnorm, in training by TensorFlow's fused kernel instead of a dozen operations."""

    def call(self, x, training):
        if not training:
            return super().call(x, training=False)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
        )
        count = tf.size(x) // x.shape[-1]
        variance *= tf.cast(count - 1, tf.float32) / tf.cast(count, tf.float32)  # as Keras has it
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return y


class InstanceNorm(BatchNorm):
    """Each picture of a batch by its own mean and variance, as batchnorm has it for a batch of one.

    The weights are batchnorm's, so that a network that was trained with the one can be used as the
    other, one picture at a time. The moving averages stay as they are: use it as in training.
    """

    def call(self, x, training):
        if not training:
            return super().call(x, training=False)
        mean, variance = tf.nn.moments(tf.cast(x, tf.float32), axes=(1, 2), keepdims=True)
        scale = self.gamma / tf.sqrt(variance + self.epsilon)
        return tf.cast(tf.cast(x, tf.float32) * scale + (self.beta - mean * scale), x.dtype)


NORMS = {"batch": BatchNorm, "instance": InstanceNorm}


class Conv2D(layers.Conv2D):
    """Keras' 4x4 convolution without a bias: a matrix product where strides of 2 leave few pixels.

    For a map of fewer pixels than channels, a convolution's kernel is brought into another order
    at each use, which takes longer than the arithmetic: a fifth of a Pix2Pix step in all.
    """

    def convolution_op(self, x, kernel):
        batch, height, width, _ = x.shape
        if self.strides != (2, 2) or not few_pixels(x, 4 * self.filters):
            return super().convolution_op(x, kernel)
        y = to_patches(x) @ tf.reshape(kernel, (-1, self.filters))
        return tf.reshape(y, (batch, height // 2, width // 2, self.filters))


class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' 4x4 transposed convolution of strides 2 without a bias: see `Conv2D`."""

    def call(self, x):
        batch, height, width, channels = x.shape
        if not few_pixels(x, channels):
            return super().call(x)
        kernel = tf.reshape(self.kernel, (-1, channels))  # (16 filters, channels)
        patches = tf.matmul(tf.reshape(x, (-1, channels)), kernel, transpose_b=True)
        return from_patches(patches, (batch, 2 * height, 2 * width, self.filters))


def few_pixels(x, limit):
    """Returns whether a batch of maps has at most so many pixels, on a processor (see `Conv2D`)."""
    return None not in x.shape and math.prod(x.shape[:-1]) <= limit and not on_gpu()


def to_patches(x):
    """The 4x4 patches of a map, 2 pixels apart, zeros around it: (B, H, W, C) -> (B H/2 W/2, 16 C)."""
    batch, height, width, channels = x.shape
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = join_neighbours(tf.reshape(x, (batch, height // 2 + 1, -1)))  # (B, H/2, 4 rows)
    x = join_neighbours(tf.reshape(x, (-1, width // 2 + 1, 2 * channels)))  # (B H/2 4, W/2, 4 C)
    x = tf.reshape(x, (batch, height // 2, 4, width // 2, 4 * channels))
    return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4)), (-1, 16 * channels))


def from_patches(patches, shape):
    """The map of this shape (B, H, W, C) that patches lie on, summed where they overlap."""
    batch, height, width, channels = shape
    x = tf.reshape(patches, (batch, height // 2, width // 2, 4, 4 * channels))
    x = tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4)), (-1, width // 2, 4 * channels))
    x = part_neighbours(x)  # (B H/2 4, W/2 + 1, 2 C)
    x = part_neighbours(tf.reshape(x, (batch, height // 2, -1)))  # (B, H/2 + 1, 2 rows)
    return tf.reshape(x, (batch, height + 2, width + 2, channels))[:, 1:-1, 1:-1]


def join_neighbours(x):
    """Puts each place and the next into one: (N, L + 1, C) -> (N, L, 2 C)."""
    return tf.concat([x[:, :-1], x[:, 1:]], axis=-1)


def part_neighbours(x):
    """The transpose of `join_neighbours`: (N, L, 2 C) -> (N, L + 1, C)."""
    left, right = tf.split(x, 2, axis=-1)
    return tf.pad(left, [[0, 0], [0, 1], [0, 0]]) + tf.pad(right, [[0, 0], [1, 0], [0, 0]])


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling on several devices: Keras 3.15 asks the first alone if its gradients are finite."""

    def check_finite(self, grads):
        finite = tf.cast(super().check_finite(grads), tf.float32)
        return tf.distribute.get_replica_context().all_reduce("MEAN", finite) == 1.0


def announce(run, step, last_step, steps_per_epoch):
    """Says where an earlier run goes on, or that it has all its epochs."""
    if not is_chief() or not step:
        return
    if step >= last_step:
        done = step // steps_per_epoch
        print(f"{run} has its {done} epochs; --epochs {done + 1} or more trains on.")
    else:
        print(f"{run} goes on after step {step} ({step / steps_per_epoch:.2f} epochs).")


def epoch_bar(epoch, epochs, steps):
    """Returns an epoch's progress bar: moving on a terminal, else a line at the end of the epoch."""
    if is_chief():
        print(f"Epoch {epoch + 1}/{epochs}", flush=True)
    verbose = (1 if sys.stdout.isatty() else 2) if is_chief() else 0
    return keras.utils.Progbar(steps, verbose=verbose)


def mean_scores(rows, prefix="val_"):
    """Returns the mean of each score over a list of dicts, under its name with the prefix."""
    names = rows[0] if rows else ()
    return {prefix + name: sum(float(row[name]) for row in rows) / len(rows) for name in names}


def save_weights(network, path):
    """Writes a network's weights; an earlier file is replaced when the new one is complete."""
    if shutil.disk_usage(path.parent).free < 5 * network.count_params():
        raise OSError(errno.ENOSPC, "No space left on device")  # where HDF5 would crash
    with replacing(path) as temporary:
        network.save_weights(temporary)


def refuse_not_finite(losses, first_step, last_step, checkpoints):
    """Raises UserError if a loss (or weight) is NaN or infinite, naming the steps."""
    bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
    if bad:
        steps = f"steps {first_step} to {last_step}" if first_step < last_step else f"step {last_step}"
        last_good = checkpoints.names()[-1] if checkpoints.names() else "the chief's"
        raise UserError(
            f"{steps}: NaN or infinite: {', '.join(bad)}; the last good checkpoint is {last_good}. "
            "The same command would meet it again: --fresh with other flags, --precision float32 first"
        )


@contextlib.contextmanager
def deferring_signals(words=b"\nStopping after this step, or the validation under way ...\n"):
    """Collects Ctrl-C, SIGTERM and SIGHUP in a list instead of stopping; a second Ctrl-C stops.

    Args:
        words: what the first one is answered with.
    """
    signals = []

    def note(number, frame):
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, words)

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP: the terminal was closed; Windows has none
    if threading.current_thread() is not threading.main_thread():
        names = ()  # a thread of the pad's server: signals go to the main one
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    not_ignored = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]  # nohup ignores it
    handlers = {number: signal.signal(number, note) for number in not_ignored}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def leave_if_asked(signals, step):
    """Ends the process if a signal has come; all is saved."""
    if signals:
        if is_chief():
            message = f"Stopped and saved at step {step}. Go on by the same command, without --fresh."
            print(message, file=sys.stderr)
        sys.exit(128 + signals[0])


# === 7. Checkpoints and tables ==============================================


class Table(tf.train.experimental.PythonState):
    """A CSV file of numbers whose text is kept in memory, and is part of each checkpoint.

    So going on from a checkpoint puts the file back to what it was then, whatever has been
    added to it or become of it since.
    """

    def __init__(self, path):
        self.path, self.text = path, ""

    def append(self, row):
        """Adds a row, a dict of numbers; before the first one, its names. Only the chief writes."""
        if not is_chief():
            return
        lines = io.StringIO()
        writer = csv.DictWriter(lines, row, lineterminator="\n")
        if not self.text:
            writer.writeheader()
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(lines.getvalue())
        self.text += lines.getvalue()

    def rows(self):
        """Returns the rows as dicts of numbers."""
        rows = csv.DictReader(io.StringIO(self.text))
        return [{name: float(value) for name, value in row.items()} for row in rows]

    def write(self):
        """Writes the file anew."""
        if self.text:
            with replacing(self.path) as temporary:
                temporary.write_text(self.text, encoding="utf-8", newline="\n")
        else:
            self.path.unlink(missing_ok=True)

    def serialize(self):
        return self.text

    def deserialize(self, text):  # nothing is written before the whole checkpoint has been read
        self.text = text.decode()


class Checkpoints:
    """The last two states of a run, each in a folder `saved/step_00000200`.

    Written by tf.train.Checkpoint, which keeps a checksum of every variable and table. An earlier
    run, which has them in `checkpoints`, keeps them there; Colab's list of files hides that name.
    """

    def __init__(self, run, variables):
        earlier = run / "checkpoints"
        self.run, self.folder = run, earlier if earlier.is_dir() else run / "saved"
        self.saved_at = time.monotonic()
        self.step = tf.Variable(0, dtype=tf.int64)
        self.variables = variables
        self.tables = Table(run / "losses.csv"), Table(run / "metrics.csv")
        losses, metrics = self.tables
        self.checkpoint = tf.train.Checkpoint(
            step=self.step, variables=variables, losses=losses, metrics=metrics
        )

    def minutes_old(self):
        """Returns the minutes since the last checkpoint was written, or the run was started."""
        return (time.monotonic() - self.saved_at) / 60

    def save(self, step):
        """Writes a temporary folder that is renamed when it is complete; the third last is removed."""
        if not is_chief():
            return
        floats = [v for v in self.variables if v.dtype.is_floating]
        finite = all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in floats)
        refuse_not_finite({"a weight": 0.0 if finite else math.nan}, step, step, self)
        temporary, folder = self.folder / "unfinished", self.folder / f"step_{step:08d}"
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed process has left
        self.step.assign(step)
        try:
            with filtering_logs():
                self.checkpoint.write(str(temporary / "state"))
            for path in [*temporary.iterdir(), temporary]:
                flush_to_disk(path)  # a power cut must not leave the name without the contents
            rename(temporary, folder)
            flush_to_disk(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for name in self.names()[:-2]:  # one that is open, on Windows, is removed the next time
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.saved_at = time.monotonic()

    def restore(self):
        """Goes on from the newest checkpoint that is whole, in all processes; or makes the first.

        Returns:
            The number of steps that it has behind it.

        Raises:
            UserError: there is a run, but no whole checkpoint of it.
        """
        if is_chief():
            self.read_newest()
            for table in self.tables:
                table.write()
        state = [self.step, *self.variables]
        for variable, value in zip(state, broadcast_from_chief(state)):
            if value is not variable:  # in a single process there is nothing to copy
                variable.assign(value)
        return int(self.step.read_value())

    def read_newest(self):
        names = self.names()
        for name in reversed(names):
            try:
                # From within its folder: TensorFlow would take [...] in the path for a pattern.
                with filtering_logs(), working_in(self.folder / name):
                    self.checkpoint.read("state").assert_consumed()
            except (OSError, *NO_MEMORY, tf.errors.PermissionDeniedError):
                raise  # the checkpoint is not to blame
            except Exception as error:  # TensorFlow's reader knows many kinds of damage
                warn(f"{self.folder / name} is damaged ({type(error).__name__}); trying the one before")
                continue
            for damaged in names[names.index(name) + 1 :]:
                shutil.rmtree(self.folder / f"damaged_{damaged}", ignore_errors=True)
                rename(self.folder / damaged, self.folder / f"damaged_{damaged}")
            return
        if names or (self.run / "losses.csv").exists():
            raise UserError(f"{self.folder}: no whole checkpoint to go on from; --fresh starts over")
        self.save(0)  # from here on, a run without a checkpoint is a damaged one

    def names(self):
        """Returns the folders' names, the oldest first."""
        names = [path.name for path in self.folder.glob("step_*") if path.name[5:].isdigit()]
        return sorted(names, key=lambda name: int(name[5:]))


@contextlib.contextmanager
def working_in(folder):
    """Makes a folder the current one for a while; not while other threads use relative paths."""
    earlier = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(earlier)


def flush_to_disk(path):
    """Waits until a file, or the names in a folder, have reached the disk."""
    if path.is_dir() and WINDOWS:  # which opens no folder
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows asks for the right to write
    try:
        os.fsync(file)
    finally:
        os.close(file)


def rename(path, new_path, seconds=5.0):
    """Renames a file, onto an earlier one if there is one, or a folder.

    Windows refuses it while another program has the file open, as virus scanners do for a
    moment after it was written: so it is tried for some seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            path.replace(new_path)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path to write to; renamed to `path` when the block ends without an error."""
    temporary = path.with_name(f".new.{path.name}")
    try:
        yield temporary
        flush_to_disk(temporary)
        rename(temporary, path)
    except OSError as error:
        error.filename = error.filename and str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


# === 8. Devices and machines ================================================

# What TensorFlow raises when another process has gone.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
LOST += (tf.errors.DeadlineExceededError, tf.errors.InternalError)


def set_devices(args):
    """Has tf.distribute share the training out, over --devices and the machines of TF_CONFIG.

    Prints what it runs on.

    Each replica, one a device, takes its share of every batch; their gradients are averaged.
    Batchnorm takes the replica's own pictures, and its moving averages are the first's.
    Without a GPU, --devices N makes N devices of the processor, to try this out. Must come
    before TensorFlow has computed anything.

    Raises:
        UserError: so many devices are not there, or the batch cannot be shared out evenly.
    """
    gpus, count = tf.config.list_physical_devices("GPU"), args.devices
    cluster = os.environ.get("TF_CONFIG")
    if count == "all":
        count = len(gpus) or 1
    available = len(gpus) or (1 if cluster else max(2, os.cpu_count()))
    if count > available:
        kind = "GPUs" if gpus else "parts of the processor, as there is no GPU"
        raise UserError(f"--devices {count}: there are at most {available} {kind}")
    refuse_uneven(args.batch_size, count)
    tf.config.set_visible_devices(gpus[:count], "GPU")
    strategy = None
    if cluster:
        strategy = join_cluster(cluster)
        refuse_uneven(args.batch_size, strategy.num_replicas_in_sync)
    elif count > 1:
        if not gpus:
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        strategy = tf.distribute.MirroredStrategy(tf.config.list_logical_devices("GPU" if gpus else "CPU"))
    tf.distribute.experimental_set_strategy(strategy)
    print(f"on {device_name()}", flush=True)


def refuse_uneven(batch_size, devices):
    """Raises UserError if the devices cannot all have an equal share of a batch."""
    if batch_size % devices:
        raise UserError(f"--batch-size {batch_size}: not a multiple of the {devices} devices")


def join_cluster(config):
    """Returns the strategy of the processes that TF_CONFIG names; waits until all are there."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if not json.loads(config)["cluster"]:  # TensorFlow would train alone
            raise ValueError("names no cluster")
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        problem = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"TF_CONFIG: not a cluster as TensorFlow describes it ({problem})") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # TensorFlow has replaced it


def in_cluster():
    """Returns whether this is one of the processes of TF_CONFIG."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def is_chief():
    """Returns whether this process has the run: always, but for the later processes of TF_CONFIG."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def broadcast_from_chief(tensors):
    """Returns the chief's values of a list of tensors, in every process of TF_CONFIG."""
    if not in_cluster():
        return tensors
    strategy = tf.distribute.get_strategy()

    @tf.function
    def collect():
        replica = tf.distribute.get_replica_context()
        first = replica.replica_id_in_sync_group == 0
        return [replica.all_reduce("SUM", t if first else tf.zeros_like(t)) for t in tensors]

    return [strategy.experimental_local_results(t)[0] for t in strategy.run(collect)]


def on_gpu():
    """Returns whether TensorFlow computes on a GPU, rather than on the processor."""
    return bool(tf.config.get_visible_devices("GPU"))


def tune_for_device(precision):
    """Decides, here alone, what differs between a processor and a GPU.

    - Determinism: on the processor the same seed gives the same bytes, at no cost. On a GPU it is
      off: it takes slower algorithms, and an operation without one ends the training
      (tf.config.experimental.enable_op_determinism). Data, noise and dropout are the same still.
    - Adam's update is compiled on the processor alone (`CompiledAdam`): XLA on a GPU needs
      libdevice of CUDA's compiler, which not every installation has where XLA looks for it.
    - Convolutions of few pixels are matrix products on the processor alone (`Conv2D`).
    - Memory: glibc keeps what a step frees, which concerns the main memory alone. A GPU's is taken
      as needed, and not whole (TF_FORCE_GPU_ALLOW_GROWTH, above).
    - Half precision: GPUs have units for it; whether a processor has, is tried. Losses are
      scaled for float16 on both (`adam`).
    - Batches are made by the processor, ahead of time (`prefetch`), for both: to copy 1.5 MB a
      step to a GPU takes it less than a thousandth of a second.
    """
    if on_gpu():
        return
    warn_of_idle_gpu()
    warn_of_slow_precision(precision)
    tf.config.experimental.enable_op_determinism()
    keep_memory()
    with filtering_logs():  # TensorFlow 2.18 and 2.19 write notes when they compile the first time
        tf.function(lambda: tf.abs(1.0), jit_compile=True)()  # a new one, or it would warn of retracing


def device_name():
    """Returns what the training computes on, e.g. "2 cores of AMD EPYC" or "NVIDIA H100 (GPU)"."""
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "a graphics card")
        return f"{f'{len(gpus)} x ' if len(gpus) > 1 else ''}{name} (GPU)"
    count = cores()
    return f"{count} core{'s' if count > 1 else ''} of {processor_name()}"


def cores():
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor_name():
    """Returns the processor's name, or its kind where the system does not tell."""
    with contextlib.suppress(OSError, StopIteration):  # Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    with contextlib.suppress(OSError):  # macOS
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", check=False).stdout.strip()
        if found:
            return found
    return platform.processor() or platform.machine()


def warn_of_idle_gpu():
    """Warns when the driver knows an NVIDIA GPU that TensorFlow does not use, and says what to do."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:  # someone has chosen
        return
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):  # there is no driver, or it hangs
        return
    found = done.stdout.decode(errors="replace")
    if found.startswith("GPU "):
        cure = "python -m pip install -r requirements-gpu.txt"
        if WINDOWS:
            cure = "TensorFlow has no GPU on Windows itself, but in WSL2: see the README"
        name = found.splitlines()[0].partition(" (UUID")[0]
        warn(f"{name} is here, but TensorFlow does not see it: {cure}")


def warn_of_slow_precision(precision):
    """Warns when this processor computes slower in the half precision asked for than in float32."""
    if precision == "float32":
        return
    half = seconds_of_convolution(precision.removeprefix("mixed_"))
    ratio = half / seconds_of_convolution("float32")
    if ratio > 1.0:
        warn(
            f"--precision {precision}: this processor takes {ratio:.1f} times as long for a convolution "
            "as in float32, which is more exact, too"
        )


def seconds_of_convolution(dtype):
    """Returns how long one of the U-Net's convolutions takes, the quickest of some tries."""
    picture, kernel = tf.ones((1, 64, 64, 128), dtype), tf.ones((4, 4, 128, 256), dtype)
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        float(tf.reduce_max(tf.nn.conv2d(picture, kernel, 2, "SAME")))
        taken.append(time.perf_counter() - started)
    return min(taken)


def keep_memory():
    """Has the C library keep freed memory for the next step, where it is glibc.

    Left to itself it returns every large block to the system and fetches it again, page by
    page: 50,000 to 80,000 page faults in a Pix2Pix step, which take a tenth of its time.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_TRIM_THRESHOLD, ... of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)


def free_memory():
    """Returns the bytes of memory that a process can have, or infinity where that cannot be told.

    With a GPU it cannot: pictures live in the GPU's memory, and TensorFlow says when that is full.
    """
    if tf.config.list_physical_devices("GPU"):
        return math.inf
    free = math.inf
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not Linux; or another system's names
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, TypeError):
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        free = 1024 * int(re.search(r"^MemAvailable:\s+([0-9]+) kB", text, re.MULTILINE)[1])
    with contextlib.suppress(OSError, ValueError):  # a container's limit, or "max"
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return free


def return_memory():
    """Has the C library return large blocks to the system at once, where it is glibc.

    Left to itself it keeps those of 50-megapixel pictures, for each thread that has read one.
    """
    mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(mmap_threshold, 2**20)


# === 9. The run's folder ====================================================

FORMAT = 2  # of a run's folder; 1 had its tables outside of the checkpoints
FREE_FLAGS = {"--out", "--fresh", "--checkpoint-minutes", "--devices"}  # may change on the way
LOCK = ".lock"
# Of runs older than these flags.
USUAL = {"--size": "{}x{}".format(*IMAGE_SIZE), "--filters": FILTERS, "--norm": "batch"}


def start_run(args, data, hashes, checks=None):
    """Opens the run's folder `args.out`, new or to go on with; sets seed and precision.

    Args:
        args: the parsed flags.
        data: dict of names and counts, kept with the flags.
        hashes: of the data's files, by `file_hashes`. A run goes on with the same alone.
        checks: of the data's files, by `check_pictures`, kept for its next start.

    Returns:
        The folder. Only the chief writes there.

    Raises:
        UserError: the folder holds something else, or a run with other flags or data,
            or another process is training in it.
    """
    contents = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    data = {"script": Path(sys.argv[0]).name} | data | {"contents of the data": contents}
    flags = {f"--{name.replace('_', '-')}": recorded(value) for name, value in vars(args).items()}
    refuse_disagreement(flags | data)
    tune_for_device(args.precision)
    if is_chief():
        open_run(args.out, args.fresh, flags, data)
        if checks:
            keep_checks(args.out, checks)
    keras.config.set_dtype_policy(args.precision)
    keras.utils.set_random_seed(args.seed)
    return args.out


def recorded(value):
    """Returns the value of a flag as options.json has it."""
    if isinstance(value, tuple):
        return size_text(value)
    return str(value) if isinstance(value, Path) else value


def refuse_disagreement(now):
    """Raises UserError when the processes of TF_CONFIG were started with other flags or data."""
    same = json.dumps({k: v for k, v in now.items() if k not in FREE_FLAGS | {"--dataset"}})
    mine = tf.constant(int(hashlib.sha256(same.encode()).hexdigest()[:8], 16), tf.int64)
    if int(broadcast_from_chief([mine])[0]) != int(mine):
        raise UserError("TF_CONFIG: the chief has other flags or data; start all by the same command")


def open_run(run, fresh, flags, data):
    """Makes the run's folder this process's own, with options.json in it."""
    options_file = run / "options.json"
    occupied = run.is_file() or run.is_dir() and any(path.name[0] != "." for path in run.iterdir())
    if occupied and not options_file.exists():
        raise UserError(f"--out {run}: exists and is not the folder of a run; give another one")
    run.mkdir(parents=True, exist_ok=True)
    lock(run)
    if fresh and options_file.exists():
        print(f"Starting over. The earlier run is now {archive(run)}")
    if options_file.exists():
        refuse_changes(options_file, flags | data)
    versions = {module.__name__: module.__version__ for module in (tf, keras, matplotlib)}
    versions["python"] = platform.python_version()
    options = {"format": FORMAT, "flags": flags, "data": data, "versions": versions}
    with replacing(options_file) as path:
        path.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    (run / "samples").mkdir(exist_ok=True)


def archive(run):
    """Moves what is in a run's folder to a new folder beside it, whose path it returns.

    The run's folder itself stays: it may be a link to another disk, or the current folder.
    """
    home = run.resolve()
    folders = (home.with_name(f"{home.name}.{n}") for n in range(1, 10**6))
    folder = next(folder for folder in folders if not folder.exists())
    folder.mkdir()
    # options.json goes last: until then, the same command would finish an interrupted move.
    for path in sorted(home.iterdir(), key=lambda path: path.name == "options.json"):
        if path.name != LOCK:
            rename(path, folder / path.name)
    return folder


def refuse_changes(options_file, now):
    """Raises UserError naming each flag, or fact about the data, that the run did not begin with."""
    try:
        earlier = json.loads(options_file.read_text(encoding="utf-8"))
        was, version = earlier["flags"] | earlier["data"], earlier.get("format")
        was = {name: value for name, value in USUAL.items() if name in now} | was
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{options_file}: damaged; give another --out, or --fresh") from error
    if version != FORMAT:
        raise UserError(
            f"{options_file.parent} holds a run of another version of these scripts, which they cannot "
            "go on with: give another --out, or start over with --fresh"
        )
    free = FREE_FLAGS | {"--epochs"}
    if was.get("contents of the data") == now["contents of the data"]:
        free.add("--dataset")  # the same data in another place
    if "condition" not in was or was.get("--size") != now.get("--size"):
        free.add("condition")  # a run of before it was described; or it follows from the size
    changed = [name for name in was | now if name not in free and was.get(name) != now.get(name)]
    if changed:
        changes = [f"{name} {was.get(name)} -> {now.get(name)}" for name in changed]
        raise UserError(
            f"{options_file.parent} holds a run with other settings ({', '.join(changes)}): "
            "use those, or give another --out, or start over with --fresh"
        )


def lock(folder):
    """Keeps other processes out of a folder until this one ends, however it ends.

    Returns:
        A file descriptor; closing it lets them in.
    """
    file = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT, 0o644)  # open as long as the process lives
    try:
        if WINDOWS:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except (BlockingIOError, PermissionError) as error:  # the second one by Windows
        os.close(file)
        raise UserError(f"{folder}: another process is at work in it; wait, or give another --out") from error


def read_run(run):
    """Reads what a run of stage 5 has written about itself.

    Returns:
        options.json as a dict, and the rows of metrics.csv, dicts of numbers.

    Raises:
        UserError: there is no run, or one of another stage, or it is damaged.
    """
    options_file, metrics = run / "options.json", Table(run / "metrics.csv")
    if not options_file.exists():
        command = f"python 05_pix2pix_train.py --epochs 10 --out {run}"
        raise UserError(f"{run}: no trained run there; this makes one: {command}")
    try:
        options = json.loads(options_file.read_text(encoding="utf-8"))
        script = options["data"]["script"]
        flags = USUAL | options["flags"]
        if not {"--dataset", "--direction", "--epochs"} <= flags.keys():
            raise ValueError("flags are missing")
        options["flags"] = flags
        image_size(flags["--size"]), number(1, MOST_FILTERS, int)(flags["--filters"])  # refuse others
        if metrics.path.exists():
            metrics.text = metrics.path.read_text(encoding="utf-8")
        rows = metrics.rows()
        if rows and not {"epoch", "val_l1", "val_psnr", "val_ssim"} <= rows[0].keys():
            raise ValueError("columns are missing")
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error, argparse.ArgumentTypeError) as error:
        raise UserError(
            f"{run}: options.json or metrics.csv is damaged; the run's command, or --fresh"
        ) from error
    if script != "05_pix2pix_train.py":
        raise UserError(f"{run}: a run of {script}; give one of 05_pix2pix_train.py")
    return options, rows


def load_generator(run):
    """Loads the generator that a run of stage 5 has trained; warns if it is not finished.

    Returns:
        The U-Net, and the run's flags as a dict.

    Raises:
        UserError: as for `read_run`, or the first epoch is not over.
    """
    options, metrics = read_run(run)
    flags, weights = options["flags"], run / "generator.weights.h5"
    if not weights.exists():
        raise UserError(f"{run}: its first epoch has not ended; its command goes on with it")
    generator = UNet(flags["--filters"], name="generator")
    generator(tf.zeros((1, *IMAGE_SIZE, 3)), training=False)  # the first call makes the weights
    try:
        with filtering_logs():
            generator.load_weights(weights)
    except NO_MEMORY:
        raise  # the file is not to blame
    except Exception as error:  # HDF5 and Keras know many kinds of damage
        cure = "the command of its training writes it again"
        raise UserError(f"{weights}: damaged, or of another architecture; {cure}") from error
    done = int(metrics[-1]["epoch"]) if metrics else 0
    if done < flags["--epochs"]:
        warn(f"{run} is not finished: {done} of {flags['--epochs']} epochs")
    return generator, flags


# === 10. Files of pairs: found and checked ==================================

CONDITIONS = ("sketch", "labels", "picture")  # what the half that a network starts from can be
MAX_PIXELS = 2**25  # of a file: 33 million, lest a few damaged bytes ask for all memory
Image.MAX_IMAGE_PIXELS = None  # Pillow would warn of its own limit, which is higher
warnings.filterwarnings("ignore", module="PIL")  # of odd EXIF blocks; a picture that fails is named


def dataset_folder(dataset):
    """Returns the folder that --dataset means: a path, or the name of one under data/."""
    for folder in (Path(dataset), HERE / "data" / dataset):
        if folder.is_dir():
            return folder
    raise UserError(f"--dataset {dataset}: no such folder; give a path, or openmoji for the embedded pairs")


def describe_dataset(dataset):
    """Reads what a dataset says of itself: dataset.json, or the direction.txt of older ones.

    Returns:
        A dict of "direction": "AtoB", if it does not say, or "BtoA"; and where it says so,
        "condition": one of CONDITIONS; "origin": where it is from; for label maps "colours":
        [["#rrggbb", the class's name or ""], ...], and "classes", the numbers that the classes
        have in label maps, if they are not stored as colours.

    Raises:
        UserError: no such dataset, or the file is not as it should be.
    """
    folder = dataset_folder(dataset)
    file, old_file = folder / "dataset.json", folder / "direction.txt"
    if not file.exists():
        direction = "AtoB"
        if old_file.exists():
            direction = old_file.read_text(encoding="utf-8", errors="replace").strip()
        if direction not in {"AtoB", "BtoA"}:
            raise UserError(f"{old_file}: says neither AtoB nor BtoA; fix it, or give --direction")
        return {"direction": direction}
    try:
        about = {"direction": "AtoB"} | json.loads(file.read_text(encoding="utf-8"))
        colours = about.get("colours", [])
        classes = about.get("classes", range(len(colours)))
        if about["direction"] not in {"AtoB", "BtoA"}:
            raise ValueError("direction: AtoB or BtoA")
        if about.get("condition", "sketch") not in CONDITIONS:
            raise ValueError(f"condition: {', '.join(CONDITIONS)}")
        if not all(re.fullmatch("#[0-9a-f]{6}", colour) and name == str(name) for colour, name in colours):
            raise ValueError("colours: pairs of #rrggbb and a name")
        if len(colours) != len(classes) or not all(isinstance(number, int) for number in classes):
            raise ValueError("classes: a number for each colour")
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: cannot be used ({error}); fix it, or remove it") from error
    return about


def usual_direction(dataset):
    """Returns the direction of a dataset's usual task."""
    return describe_dataset(dataset)["direction"]


def condition_kind(dataset, paths, direction):
    """Returns what a dataset's conditions are, one of CONDITIONS: as it says, or as some of them look.

    Args:
        paths: files of side-by-side pictures, all readable.
    """
    about = describe_dataset(dataset)
    if "condition" in about and about["direction"] == direction:
        return about["condition"]
    return look_at_conditions(paths, direction)


def look_at_conditions(paths, direction):
    """Returns "sketch" if most of some conditions are dark on white without colour, else "picture"."""
    drawn = [is_drawing(split_stack(read_stack(path, direction))[0]) for path in spread(paths, 20)]
    return "sketch" if sum(drawn) > len(drawn) / 2 else "picture"


def is_drawing(picture):
    """Returns whether (height, width, 3) in [-1, 1] is dark on white, without colour."""
    gray = tf.reduce_mean(picture, axis=-1)
    colour = tf.reduce_max(picture, axis=-1) - tf.reduce_min(picture, axis=-1)
    paper = tf.reduce_mean(tf.cast(gray > 0.6, tf.float32))
    return float(tf.reduce_mean(colour)) < 0.1 and float(paper) > 0.6


def spread(paths, count):
    """Returns `count` of the paths, spread evenly: the same ones each time."""
    every = max(1, len(paths) // count)
    return paths[every // 2 :: every][:count]


def line_width(pictures):
    """Measures how wide the lines of drawings are, in pixels; 0.0 if there are none.

    A line's ink is width x length, and its two edges together, the slope of the ink summed over
    all pixels, are 2 x length; so width = 2 ink / slope, whichever way the line runs, and
    however soft or pale it is. This is taken tile by tile, and a tile counts as much as it has
    edges: of the median width, filled shapes are then a small part.

    Args:
        pictures: of (height, width, 1) in [0, 1], dark on white, an iterable.
    """
    widths, weights = [], []
    for picture in pictures:
        size = [2 * side for side in picture.shape[:2]]  # a line of one pixel has no slope to measure
        ink = tf.image.resize(1.0 - picture, size)[tf.newaxis]
        slope = tf.norm(tf.image.sobel_edges(ink) / 8.0, axis=-1)
        slope = tf.where(slope > 0.02, slope, 0.0)  # the paper's grain has no edges
        ink, slope = (tf.reshape(tf.nn.avg_pool2d(part, 64, 64, "SAME"), [-1]) for part in (ink, slope))
        lined = slope > 1e-3
        widths.append(tf.boolean_mask(ink / tf.maximum(slope, 1e-3), lined))  # 2 ink / slope, halved
        weights.append(tf.boolean_mask(slope, lined))
    widths, weights = tf.concat(widths, 0), tf.concat(weights, 0)
    if not len(widths):
        return 0.0
    order = tf.argsort(widths)
    reached = tf.cumsum(tf.gather(weights, order)) >= tf.reduce_sum(weights) / 2.0
    return float(tf.gather(widths, order[tf.argmax(reached)]))


def list_pictures(folder):
    """Returns the paths of the .jpg, .jpeg and .png files in a folder, sorted; hidden ones left out."""
    return sorted(
        str(path)
        for path in Path(folder).iterdir()
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"} and not path.name.startswith(".")
    )


def find_pairs(dataset):
    """Lists the side-by-side pictures of a dataset.

    Args:
        dataset: the path of a folder anywhere, or the name of one under data/, with
            train/ and val/ (or test/) in it.

    Returns:
        {"train": paths, "val": paths}, sorted by name.

    Raises:
        UserError: no such folder, or a split is missing or empty.
    """
    folder = dataset_folder(dataset)
    pairs = {}
    for split, names in {"train": ["train"], "val": ["val", "test"]}.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if not found:
            needed = "a folder with train/ and val/ (or test/), full of pairs"
            raise UserError(f"--dataset {dataset}: no {' or '.join(names)} in {folder}; give {needed}")
        for candidate in reversed(found):  # an empty val/ does not hide test/
            pairs[split] = list_pictures(candidate) or pairs.get(split)
        if not pairs[split]:
            raise UserError(f"--dataset {dataset}: no .jpg, .jpeg or .png in {found[0]}")
    return pairs


CHECKED = ".checked.json"  # in a run's folder


def check_pictures(paths, run=None):
    """Decodes and hashes every picture, each file read once, so that none ends a long training.

    Args:
        run: a run's folder, where `keep_checks` has kept what an earlier start found. Of those files
            whose size and time of change are as they were, the contents are taken to be so, too.

    Returns:
        problems: dict of path -> what is wrong with it, of those that cannot be used.
        checks: dict of path -> [size, time of change in ns, hash], of the others.
    """
    kept = read_checks(run / CHECKED) if run else {}
    new = [path for path in paths if not (path in kept and kept[path][:2] == size_and_time(os.stat(path)))]
    with filtering_logs():
        found = dict(zip(new, in_threads(check_picture, new)))
    problems = {path: problem for path, (problem, _) in found.items() if problem}
    good = [path for path in paths if path not in problems]
    return problems, {path: found[path][1] if path in found else kept[path] for path in good}


def check_picture(path):
    """Returns what makes a picture file unusable as a pair, or None; and its size, time and hash."""
    try:
        path.encode()
        if Path(path).exists() and not Path(path).is_file():
            return "not a file", None  # opening a pipe would wait for its other end
        with open(path, "rb") as file:
            check = size_and_time(os.fstat(file.fileno()))
            with Image.open(file, formats=["PNG", "JPEG"]) as image:
                if math.prod(image.size) > MAX_PIXELS:
                    return f"more than {MAX_PIXELS:,} pixels", None
                if orientation(image) != 1:
                    return "turned by an EXIF tag: save it upright", None
            file.seek(0)
            data = file.read()
        # The part of `decode_data` that can fail. All of it, op by op, takes ten times as long.
        is_jpeg = tf.io.is_jpeg(data)
        picture = tf.io.decode_jpeg(data, channels=3) if is_jpeg else tf.io.decode_png(data)
        if picture.shape[1] < 2:
            return "less than 2 pixels wide", None
    except UnidentifiedImageError:
        return "not PNG or JPEG", None
    except UnicodeError:
        return "TensorFlow cannot take this name, which is not UTF-8: rename it", None
    except NO_MEMORY:
        raise  # the picture is not to blame
    except Exception as error:  # Pillow and TensorFlow know many kinds of damage
        return getattr(error, "strerror", None) or "damaged", None
    return None, [*check, hashlib.sha256(data).hexdigest()]


def size_and_time(status):
    """Returns the size of a file and when it was changed, from its os.stat."""
    return [status.st_size, status.st_mtime_ns]


def keep_checks(run, checks):
    """Keeps what `check_pictures` has found in the run's folder, under a seal."""
    text = json.dumps(checks)
    with replacing(run / CHECKED) as path:
        path.write_text(f"{seal(text)}\n{text}", encoding="utf-8")


def read_checks(path):
    """Returns the checks that are kept in a file; none if it is not there, damaged or not by this version."""
    try:
        sealed_by, _, text = path.read_text(encoding="utf-8").partition("\n")
        return json.loads(text) if sealed_by == seal(text) else {}
    except (OSError, ValueError):
        return {}


def seal(text):
    """Returns a checksum: of the TensorFlow too, since another one may read other pictures."""
    return hashlib.sha256(f"{tf.__version__} {text}".encode()).hexdigest()


def find_unreadable(paths):
    """Returns path -> what is wrong with it, of those pictures that cannot be used as pairs."""
    return check_pictures(paths)[0]


def orientation(image):
    """Returns how EXIF turns a Pillow picture, 2 to 8, or 1 for upright."""
    turn = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "JPEG" else 1
    return turn if turn in range(2, 9) else 1


def refuse_unreadable(flag, problems):
    """Raises UserError naming all files in `problems`, if any, and the flag that led to them."""
    if problems:
        named = "; ".join(f"{path} ({problem})" for path, problem in problems.items())
        raise UserError(f"{flag}: fix or remove {named}")


# What people bring, whatever its format: read by Pillow (stages 6 and 7)

Image.init()
FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"]
FORMATS = [name for name in FORMATS if name in Image.OPEN]  # before Pillow 11.3 there was no AVIF
MOST_PIXELS = 2**28  # of a file that is made smaller while it is read: a phone has 200 million
ENOUGH = 2 * 286 / 256  # times the size in training, either way: what it cannot see need not be kept
ONE_AT_A_TIME = threading.Lock()  # for pictures that take much memory until they are smaller


@contextlib.contextmanager
def opening(path):
    """Opens a file as a Pillow image; whatever fails in the block is told as UnreadableError.

    Args:
        path: of the file, or its bytes as an io.BytesIO.
    """
    try:
        if not isinstance(path, io.BytesIO) and Path(path).exists() and not Path(path).is_file():
            raise UnreadableError(path, "not a file")  # opening a pipe would wait for its other end
        with Image.open(path, formats=FORMATS) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise UnreadableError(path, f"more than {MOST_PIXELS:,} pixels")
            yield image
    except UnidentifiedImageError as error:
        raise UnreadableError(path, name_other_format(path)) from error
    except (UserError, *NO_MEMORY):
        raise
    except Exception as error:  # Pillow knows many kinds of damage
        problem = getattr(error, "strerror", None) or f"damaged ({error})"
        raise UnreadableError(path, problem) from error


def name_other_format(path):
    """Returns what to do about a file in which Pillow finds no picture."""
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        return "empty: copy it again"
    if head[4:8] == b"ftyp" and head[8:11] in {b"hei", b"hev", b"mif", b"msf"}:
        return "HEIC: save it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)"
    return "not a picture, or of an unknown format: save it as PNG or JPEG"


def picture_size(path):
    """Returns (width, height) of a picture file when it is turned upright."""
    with opening(path) as image:
        width, height = image.size
        turned = image.format != "TIFF" and image_turn(image) in range(5, 9)  # Pillow turns TIFF itself
        return (height, width) if turned else (width, height)


def image_turn(image):
    """Returns a Pillow image's EXIF orientation, 1 to 8; a damaged EXIF block turns nothing."""
    with contextlib.suppress(Exception):
        # Not image.getexif(), which decodes a whole PNG to look for a block behind the picture.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return 1


class LeftOut:
    """The files that cannot be used, and why; told when all are known."""

    def __init__(self):
        self.paths = {}  # of each reason

    def add(self, path, reason):
        self.paths.setdefault(reason, []).append(str(path))

    def tell(self, done):
        """Names the files, a line for each reason, and counts them beside what was done."""
        for reason, paths in self.paths.items():
            warn(f"left out, {reason}: {', '.join(sorted(paths))}")
        count = sum(len(paths) for paths in self.paths.values())
        print(f"{done}, {count} files left out{' (named above)' if count else ''}.")


def find_pictures(folder, left_out):
    """Returns the paths of all files in a folder and its sub-folders that begin like a picture.

    All others, hidden ones too, are added to `left_out`.
    """
    files, seen = [], set()
    for path, folders, names in os.walk(folder, followlinks=True):
        for name in [name for name in [*folders, *names] if name[0] == "."]:
            left_out.add(Path(path, name), "hidden")
        folders[:] = sorted(name for name in folders if name[0] != ".")
        if os.path.realpath(path) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(os.path.realpath(path))
        files += [Path(path, name) for name in sorted(names) if name[0] != "."]

    def check(path):
        try:
            str(path).encode()
            picture_size(path)
        except UnreadableError as error:
            return error.problem
        except UnicodeError:
            return "TensorFlow cannot take a name that is not UTF-8: rename it"
        return None

    problems = in_threads(check, files)
    for file, problem in zip(files, problems):
        if problem:
            left_out.add(file, problem)
    return [file for file, problem in zip(files, problems) if not problem]


def kept_size(size, training_size=IMAGE_SIZE):
    """Returns (width, height) divided by the whole number that leaves at least ENOUGH of either.

    Args:
        training_size: (height, width).
    """
    height, width = training_size
    factor = max(1, math.floor(min(size[0] / width, size[1] / height) / ENOUGH))
    return size[0] // factor, size[1] // factor


@contextlib.contextmanager
def opening_upright(path, size):
    """Opens a picture and turns it upright by EXIF; a JPEG no larger than `size` needs."""
    with opening(path) as image:
        pixels = math.prod(image.size)
        image.draft(None, (max(size), max(size)))  # has libjpeg decode an eighth of the size, or more
        if not image.info.get("progressive"):
            pixels = math.prod(image.size)
        with ONE_AT_A_TIME if pixels > 2**22 else contextlib.nullcontext():
            turn = image_turn(image) if image.format != "TIFF" else 1
            image.load()
            if turn != 1:
                ImageOps.exif_transpose(image, in_place=True)
            yield image


def read_picture(path, size=None):
    """Reads a picture file of any format of FORMATS, upright; what is transparent becomes white.

    Args:
        size: (width, height) to bring it to; without it, that of `kept_size`.

    Returns:
        (height, width, 3) uint8, 0 to 255.

    Raises:
        UnreadableError: it is none, or damaged.
    """
    size = size or kept_size(picture_size(path))
    with opening_upright(path, size) as image:
        picture = to_rgb(image)
        if picture.size != tuple(size):
            picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return to_tensor(picture)


def to_rgb(image):
    """Returns a Pillow image of any mode as RGB: 16 bits scaled, transparency on white."""
    if image.mode[0] in "IF":  # whole numbers of more than 8 bits, or fractions
        white = 1.0 if image.mode == "F" else 65535.0
        image = image.convert("F")
        white = max(white, image.getextrema()[1])
        return image.point(lambda value: value * (255.0 / white) + 0.5).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_tensor(image):
    """Returns a Pillow image as (height, width, channels): uint8, or int32 of mode "I"."""
    kind = tf.int32 if image.mode == "I" else tf.uint8
    return tf.reshape(tf.io.decode_raw(image.tobytes(), kind), (image.height, image.width, -1))


@contextlib.contextmanager
def opening_labels(path, numbers=False, size=()):
    """Opens a label map, upright, as a Pillow image of mode "L", "P" or "I": class numbers; or RGB: colours.

    Args:
        numbers: whether a palette file's numbers count, and not its colours.
    """
    with opening_upright(path, size or picture_size(path)) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
        if palette and (numbers or palette[::3] == palette[1::3] == palette[2::3]):
            yield image
        elif image.mode in {"1", "L", "LA"}:
            yield image.convert("L")
        elif image.mode[0] in "IF":
            yield image.convert("I")
        else:
            yield to_rgb(image)


def read_label_map(path, size=None, numbers=False):
    """Reads a label map: class numbers (gray), or colours (a palette of its own, or RGB).

    Args:
        size: as for `read_picture`; pixels are picked, never mixed.
        numbers: as for `opening_labels`.

    Returns:
        (height, width) int32 class numbers, or colours as 0xrrggbb; and whether it is colours.
    """
    size = size or kept_size(picture_size(path))
    with opening_labels(path, numbers, size) as labels:
        codes = tf.cast(to_tensor(labels.resize(size, Image.Resampling.NEAREST)), tf.int32)
    is_colours = codes.shape[-1] == 3
    weights = tf.constant([65536, 256, 1] if is_colours else [1])
    return tf.reduce_sum(codes * weights, axis=-1), is_colours


def paint(codes, classes=None, colours=None):
    """Gives each class its colour.

    Args:
        codes: (height, width) int32, as `read_label_map` reads them.
        classes: the class numbers, all that are in codes; without them, codes are colours.
        colours: "#rrggbb" of each class.

    Returns:
        (height, width, 3) uint8.
    """
    if classes is not None:
        order = sorted(range(len(classes)), key=lambda n: classes[n])
        ascending = tf.constant([classes[n] for n in order])
        painted = tf.constant([int(colours[n][1:], 16) for n in order])
        places = tf.searchsorted(ascending, tf.reshape(codes, [-1]))
        codes = tf.reshape(tf.gather(painted, places), codes.shape)
    return tf.cast(tf.stack([codes // 65536, codes // 256 % 256, codes % 256], axis=-1), tf.uint8)


def warn_of_shared(pairs, hashes):
    """Warns when a validation picture is trained on as well, since the scores would flatter.

    Args:
        hashes: of all these pictures, {path: hash}.
    """
    train = {hashes[path]: path for path in pairs["train"]}
    shared = [path for path in pairs["val"] if hashes[path] in train]
    if shared:
        first = f"{shared[0]} is {train[hashes[shared[0]]]}"
        warn(f"{len(shared)} validation pictures are also trained on, e.g. {first}")


def file_hashes(files):
    """Returns {file: hash of its contents}."""
    hashes = in_threads(lambda file: hashlib.sha256(Path(file).read_bytes()).hexdigest(), files)
    return dict(zip(files, hashes))


def in_threads(function, items):
    """Returns [function(item), ...] in order, with a bar if it takes over a second.

    Ctrl-C is heeded between two items: in the pool's own code it could leave a lock closed for ever.
    """
    started, bar = time.monotonic(), keras.utils.Progbar(len(items), interval=0.5, unit_name="file")
    results, pool = [], ThreadPoolExecutor()
    with deferring_signals(b"") as signals:
        try:
            for result in pool.map(function, itertools.takewhile(lambda _: not signals, items)):
                if signals:
                    break
                results.append(result)
                if sys.stdout.isatty() and time.monotonic() - started > 1.0:
                    bar.update(len(results))
        finally:
            pool.shutdown(cancel_futures=True)  # only what is under way is finished
    if signals:
        signal.raise_signal(signals[0])
        raise KeyboardInterrupt  # where the signal is put off once more
    return results


# === 11. Command line =======================================================

SIDE_STEP = 256  # the sides of pictures are multiples of it: the U-Net halves them eight times
MOST_SIDE = 4096  # of pictures in training; there is no memory for more
MOST_FILTERS = 256  # 870 million weights


class UserError(Exception):
    """A mistake by the user; the message names the file or flag and the cure."""


class UnreadableError(UserError):
    """A file that is no picture, or damaged; `problem` says so without the path."""

    def __init__(self, path, problem):
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def run_main(main):
    """Runs `main()`. What the user can fix ends in one line and exit status 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up on the way
    if sys.stdout is sys.__stdout__:
        sys.stdout, sys.stderr = open_output(1, sys.stdout), open_output(2, sys.stderr)
    try:
        return main()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on, or begins again.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        message = explain(error)
        if not message:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {printable(message)}", file=sys.stderr)
        sys.exit(2)


def explain(error):
    """Returns what the user can do about an error, or None if it is a fault of the code."""
    text = str(error)
    full = "No space left", "Disk quota", "File too large", "not enough space"  # the last one by Windows
    if getattr(error, "errno", None) == errno.ENOSPC or any(words in text for words in full):
        return "the disk is full: make room, and run the same command again, without --fresh"
    if isinstance(error, NO_MEMORY):
        return "out of memory: close other programs, or give a smaller --batch-size, --size or picture"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else text
    if isinstance(error, UserError):
        return text
    first_line = re.sub(r"\{\{.*?\}\} ?", "", error.message).strip().partition("\n")[0]
    if isinstance(error, LOST) and in_cluster():
        return (
            "TF_CONFIG: another process has ended, or cannot be reached: see its last lines. Start all "
            f"by the same command, and the run goes on ({first_line})"
        )
    file_errors = tf.errors.NotFoundError, tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError
    return first_line if isinstance(error, file_errors) else None


class Output(io.FileIO):
    """Standard output whose reader may leave, as in `| head -1`: the training goes on."""

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EINVAL}:  # EINVAL is that of Windows
                raise
            return len(data)


def open_output(descriptor, stream):
    """Returns a standard stream of Python as one that no reader and no character can break."""
    if WINDOWS and stream and stream.isatty():  # Python's own knows the console
        stream.reconfigure(errors="backslashreplace")
        return stream
    options = {"encoding": stream and stream.encoding, "errors": "backslashreplace", "line_buffering": True}
    return io.TextIOWrapper(io.BufferedWriter(Output(descriptor, "w", closefd=False)), **options)


def warn(message):
    """Prints a warning in one line."""
    print(f"Warning: {printable(message)}", file=sys.stderr)


def printable(text):
    """Escapes what would act on a terminal: file names may hold line breaks, or worse."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def number(low, high, kind=float):
    """Returns an argparse type: a number, of int or float kind, from `low` to `high`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name} from {low:.10g} to {high:.10g}")
        return value

    return parse


def file_path(text):
    """Argparse type of files and folders."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} holds characters that cannot be used in a path here")
    return Path(text)


def image_size(text):
    """Argparse type of --size: HEIGHTxWIDTH, or one number for both; returns (height, width)."""
    sides = text.split("x") if "x" in text else [text, text]
    if len(sides) == 2 and all(re.fullmatch("[0-9]{1,5}", side) for side in sides):
        height, width = map(int, sides)
        if all(0 < side <= MOST_SIDE and side % SIDE_STEP == 0 for side in (height, width)):
            return height, width
    raise argparse.ArgumentTypeError(
        f"{text!r} is not HEIGHTxWIDTH, as 512x256, or one number for a square: "
        f"each a multiple of {SIDE_STEP} from {SIDE_STEP} to {MOST_SIDE}"
    )


def size_text(size):
    """Returns (height, width) as --size takes it."""
    return "{}x{}".format(*size)


def device_count(text):
    """Argparse type of --devices."""
    return text if text == "all" else number(1, 1024, int)(text)


class Parser(argparse.ArgumentParser):
    """A parser whose help is a script's docstring, then the flags that matter most, then the others."""

    def __init__(self, docstring):
        super().__init__(
            description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
        )
        self.first = self.add_argument_group("the flags that matter most")
        self.others = self.add_argument_group("the others")
        self.others.add_argument("-h", "--help", action="help", help="show this and exit")


def trainer_arguments(docstring, *, epochs, batch_size, out):
    """Returns a parser with the flags that all trainers share."""
    parser, folder = Parser(docstring), Path("runs") / out
    add = parser.first.add_argument
    add("--epochs", type=number(1, 10**6, int), default=epochs, help=f"epochs wanted in all ({epochs})")
    add("--out", type=file_path, default=folder, metavar="DIR", help=f"folder of the run ({folder})")
    add = parser.others.add_argument
    add(
        "--batch-size",
        type=number(1, 10**5, int),
        default=batch_size,
        help=f"examples in a batch ({batch_size})",
    )
    add("--steps-per-epoch", type=number(1, 10**9, int), metavar="N", help="cap, for a quick look")
    add("--seed", type=number(0, 2**31 - 1, int), default=0, help="random seed (0)")
    precisions = ["float32", "mixed_bfloat16", "mixed_float16"]
    add("--precision", choices=precisions, default="float32", help="floating-point precision (float32)")
    help_text = "devices to train on: GPUs, or parts of the processor (1)"
    add("--devices", type=device_count, default=1, metavar="all|N", help=help_text)
    help_text = "how often to save within an epoch; after each one, too (10)"
    add("--checkpoint-minutes", type=number(0, 1e4), default=10.0, metavar="N", help=help_text)
    add("--fresh", action="store_true", help="start over; an earlier run in DIR is moved aside")
    return parser


def pair_arguments(parser):
    """Adds the flags that name the paired data and say which half is the condition."""
    help_text = "folder with train/ and val/ (openmoji)"
    parser.first.add_argument("--dataset", default="openmoji", metavar="NAME|DIR", help=help_text)
    add = parser.others.add_argument
    add("--direction", choices=["AtoB", "BtoA"], help="AtoB: left half to right half (the dataset's own)")
    add_size(parser, f"what the halves are resized to, in multiples of 256 ({size_text(IMAGE_SIZE)})")


def add_size(parser, help_text):
    """Adds --size, (height, width)."""
    parser.others.add_argument(
        "--size", type=image_size, default=IMAGE_SIZE, metavar="HEIGHTxWIDTH|N", help=help_text
    )


def add_filters(parser):
    """Adds --filters."""
    help_text = f"channels of the first layer, all others in proportion: 16, 32, 96, ... ({FILTERS})"
    filters = number(1, MOST_FILTERS, int)
    parser.others.add_argument("--filters", type=filters, default=FILTERS, metavar="N", help=help_text)


def epoch_steps(args, examples):
    """Returns how many batches make an epoch under the flags, for so many examples."""
    if args.batch_size > examples:
        raise UserError(f"--batch-size {args.batch_size}: there are only {examples} training examples")
    return min(examples // args.batch_size, args.steps_per_epoch or examples)


# === 12. Figures ============================================================


def save_figure(figure, path):
    """Writes a Matplotlib figure as PNG, 100 pixels an inch."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name in a script that the font lacks
        figure.savefig(temporary, format="png", dpi=100)


def save_grid(path, rows, *, titles=(), row_titles=(), scale=1.0):
    """Draws pictures in a grid.

    Args:
        rows: list of lists of (height, width, 3 or 1) tensors in [-1, 1], all of one size.
        titles: one for each column.
        row_titles: one for each row.
        scale: size of a picture's pixel on the page; less if they are higher or wider than 512.
    """
    scale *= min(1.0, 512 / max(rows[0][0].shape))
    gap = 2
    border = [[gap, gap], [gap, gap], [0, 0]]
    tiles = [[tf.pad(picture, border, constant_values=0.6) for picture in row] for row in rows]
    page = tf.concat([tf.concat(row, axis=1) for row in tiles], axis=0)
    height, width = page.shape[:2]
    longest = max((len(line) for title in row_titles for line in str(title).split("\n")), default=0)
    titles_width = 0.3 + 0.09 * longest  # inches
    size = (scale * width / 100 + titles_width, scale * height / 100 + 0.4)
    figure = Figure(size, layout="constrained")
    axis = figure.subplots()
    axis.imshow(tf.clip_by_value(page * 0.5 + 0.5, 0.0, 1.0), cmap="gray", vmin=0, vmax=1)
    tile_height, tile_width = tiles[0][0].shape[:2]
    axis.set_xticks([(n + 0.5) * tile_width for n in range(len(titles))], titles)
    axis.set_yticks([(n + 0.5) * tile_height for n in range(len(row_titles))], row_titles)
    axis.tick_params(top=False, labeltop=True, bottom=False, labelbottom=False, left=False, labelsize=11)
    axis.spines[:].set_visible(False)
    save_figure(figure, path)


def to_uint8(picture):
    """Returns (1, height, width, 3) in [-1, 1] as (height, width, 3) uint8, 0 to 255."""
    return tf.cast(tf.round((picture[0] + 1.0) * 127.5), tf.uint8)


def write_picture(path, picture):
    """Writes (1, height, width, 3) in [-1, 1] as PNG."""
    tf.io.write_file(str(path), tf.io.encode_png(to_uint8(picture)))


def draw_curves(path, losses, metrics):
    """Draws the rows of losses.csv and metrics.csv, L1 and each score in a panel of its own."""
    panels = []  # title, rows, column of the x axis, columns of the curves, and a level to compare with
    first_losses, first_metrics = ((rows or [{}])[0] for rows in (losses, metrics))
    if "g_l1" in first_losses:
        panels.append(("L1, training", losses, "step", ["g_l1"], None))
    adversarial = [name for name in first_losses if name not in {"epoch", "step", "g_l1"}]
    if adversarial:
        # With a second kind of fake, as in stage 2, the number of one that cannot tell is another.
        level = None if "d_wrong" in adversarial else ("log 2: cannot tell", math.log(2))
        panels.append(("adversarial losses, training", losses, "step", adversarial, level))
    for name in [name for name in first_metrics if name.startswith("val_")]:
        score = name.removeprefix("val_")
        level = "the condition itself", first_metrics[f"condition_{score}"]
        panels.append((f"{score.upper()}, validation", metrics, "epoch", [name], level))
    if not panels:
        return
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure((4.2 * columns, 3.4 * rows), layout="constrained")
    for number, (title, rows_drawn, x, names, level) in enumerate(panels, start=1):
        axis = figure.add_subplot(rows, columns, number)
        for name in names:
            marker = "." if len(rows_drawn) < 40 else None
            points = [row[x] for row in rows_drawn], [row[name] for row in rows_drawn]
            axis.plot(*points, label=name, linewidth=1, marker=marker)
        if level:
            axis.axhline(level[1], color="gray", linestyle=":", label=level[0])
        axis.legend(fontsize=9)
        axis.set(title=title, xlabel=x)
        axis.grid(alpha=0.3)
    save_figure(figure, path)
