"""Code shared by the numbered scripts: the lesson first, then the plumbing.

The lesson:                                         The machinery, not needed to follow the course:
1. Networks of Pix2Pix: U-Net, PatchGAN             7. Faster layers
2. Losses, and the scores of a picture              8. Checkpoints and tables
3. The game of two networks, and Adam               9. Devices
4. The training loop                               10. The run's folder, and exports
5. Digits                                          11. Files and pictures
6. Pairs of pictures: split, stack, augment        12. Command line; 13. Figures
"""

import argparse
import contextlib
import ctypes
import functools
import hashlib
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if not hasattr(os, "lockf"):  # Windows
    import msvcrt
os.environ["KERAS_BACKEND"] = "tensorflow"
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)  # `!python` in a notebook inherits a backend it may lack
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # 1: no notes, but warnings and errors
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # do not take the whole GPU at once
INSTALL = "python -m pip install -r requirements.txt"
NOTES = re.compile(
    r"\s*$|\s+\[\[\{\{node|WARNING: All log messages before|INFO: Created|I0000 |"
    r"E0000 .*(cuInit.*\(303\)|jpeg_mem)|W0000 .*(op_kernel|rendezvous|slice_reader|tf_tfl|_placer)"
)


@contextlib.contextmanager
def filtering_logs():
    """Drops lines that match NOTES from stderr; TensorFlow's log level does not stop them all."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            sys.stderr.writelines(line for line in log if not NOTES.match(line))


try:
    with filtering_logs():
        import keras
        import matplotlib
        import tensorflow as tf
        from keras import layers
        from matplotlib.figure import Figure
        from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

        tf.config.list_physical_devices()  # looks for a GPU, and writes notes about it
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed. Run: {INSTALL}")
keras.config.set_image_data_format("channels_last")  # whatever ~/.keras/keras.json says
keras.config.set_floatx("float32")
matplotlib.rcParams.update({"image.origin": "upper", "axes.grid": False, "text.usetex": False})

HERE = Path(__file__).parent
NO_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


# === 1. Networks of Pix2Pix =================================================
# Shape comments are for these values. With --size 512x256 the maps are twice as high and the
# deepest one is 2x1; with --filters 32 they have half as many channels.
IMAGE_SIZE = (256, 256)  # height and width of the pictures; eight blocks halve them to 1x1
FILTERS = 64  # channels of the first block; later blocks have up to eight times as many
EPSILON = 1e-5  # batchnorm's, as in the authors' code; Keras' 1e-3 damps encode_2's small values


def paper_init():
    """Returns a new N(0, 0.02) initialiser, the paper's; a shared one would repeat its values."""
    return keras.initializers.RandomNormal(0.0, 0.02)


def normalization(norm):
    """Returns the layer for norm "batch" (the paper's), "instance" (each picture alone) or None."""
    if norm == "instance":
        return layers.GroupNormalization(groups=-1, epsilon=EPSILON)
    return BatchNorm(epsilon=EPSILON) if norm == "batch" else None


class EncodeBlock(layers.Layer):
    """4x4 convolution, normalisation, LeakyReLU: C64, C128, ... of the paper's appendix 6.1.

    The convolution has no bias: where normalisation follows, its shift takes the bias's place.
    Conv2D, Conv2DTranspose and BatchNorm are Keras' layers with faster forms (section 7).
    """

    def __init__(self, filters, strides=2, padding="same", norm="batch", **kwargs):
        super().__init__(**kwargs)
        options = {"use_bias": False, "kernel_initializer": paper_init()}
        self.conv = Conv2D(filters, 4, strides, padding, **options)
        self.norm = normalization(norm)
        self.activation = layers.LeakyReLU(negative_slope=0.2)

    def call(self, x, training):
        x = self.conv(x)
        if self.norm:
            x = self.norm(x, training=training)
        return self.activation(x)


class DecodeBlock(layers.Layer):
    """4x4 transposed convolution to twice the size, normalisation, dropout (CD512, ...), ReLU."""

    def __init__(self, filters, dropout=0.0, norm="batch", **kwargs):
        super().__init__(**kwargs)
        options = {"use_bias": False, "kernel_initializer": paper_init()}
        self.conv = Conv2DTranspose(filters, 4, 2, "same", **options)
        self.norm = normalization(norm)
        self.dropout = layers.Dropout(dropout)
        self.activation = layers.ReLU()

    def call(self, x, training):
        x = self.norm(self.conv(x), training=training)
        return self.activation(self.dropout(x, training=training))


class EncoderDecoder(keras.Model):
    """Generator: condition (B, 256, 256, 3) -> picture (B, 256, 256, 3), both in [-1, 1].

    Everything that it draws passes through the 512 numbers of its bottleneck.
    """

    def __init__(self, filters=FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        # encode_1 has no normalisation (the paper's appendix), and encode_8 has none either: in a
        # batch of one, its 1x1 map has a single value per channel. Batchnorm would turn that value
        # into zero, and nothing would get through (the paper's erratum).
        self.encoder = [
            EncodeBlock(filters, norm=None, name="encode_1"),  # (B, 128, 128, 64)
            EncodeBlock(2 * filters, norm=norm, name="encode_2"),  # (B, 64, 64, 128)
            EncodeBlock(4 * filters, norm=norm, name="encode_3"),  # (B, 32, 32, 256)
            EncodeBlock(8 * filters, norm=norm, name="encode_4"),  # (B, 16, 16, 512)
            EncodeBlock(8 * filters, norm=norm, name="encode_5"),  # (B, 8, 8, 512)
            EncodeBlock(8 * filters, norm=norm, name="encode_6"),  # (B, 4, 4, 512)
            EncodeBlock(8 * filters, norm=norm, name="encode_7"),  # (B, 2, 2, 512)
            EncodeBlock(8 * filters, norm=None, name="encode_8"),  # (B, 1, 1, 512)
        ]
        self.decoder = [  # dropout is the generator's only noise
            DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_1"),  # (B, 2, 2, 512)
            DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_2"),  # (B, 4, 4, 512)
            DecodeBlock(8 * filters, dropout=0.5, norm=norm, name="decode_3"),  # (B, 8, 8, 512)
            DecodeBlock(8 * filters, norm=norm, name="decode_4"),  # (B, 16, 16, 512)
            DecodeBlock(4 * filters, norm=norm, name="decode_5"),  # (B, 32, 32, 256)
            DecodeBlock(2 * filters, norm=norm, name="decode_6"),  # (B, 64, 64, 128)
            DecodeBlock(filters, norm=norm, name="decode_7"),  # (B, 128, 128, 64)
        ]
        options = {"kernel_initializer": paper_init(), "dtype": "float32", "name": "to_picture"}
        self.to_picture = layers.Conv2DTranspose(3, 4, 2, "same", activation="tanh", **options)

    def call(self, x, training):
        for block in self.encoder + self.decoder:
            x = block(x, training=training)
        return self.to_picture(x)


class UNet(EncoderDecoder):
    """The Encoder-Decoder with skips: each appends an encoder map to the decoder map of its size.

    Isola et al. 2017, section 3.2.1 and appendix 6.1.
    """

    def call(self, x, training):
        skips = []
        for block in self.encoder:
            x = block(x, training=training)
            skips.append(x)
        # The deepest map enters the decoder. The others are appended to the decoder's maps.
        for block, skip, n in zip(self.decoder, reversed(skips[:-1]), range(7, 0, -1)):
            x = layers.concatenate([block(x, training=training), skip], name=f"skip_{n}")
        return self.to_picture(x)


GENERATORS = {"unet": UNet, "encoder-decoder": EncoderDecoder}


class PatchGAN(keras.Model):
    """Discriminator: is this the real picture for this condition? It judges each 70x70 patch.

    (condition, picture), each (B, 256, 256, 3) in [-1, 1] -> (B, 30, 30, 1) logits, positive
    for real (Isola et al. 2017, section 3.2.2).
    """

    def __init__(self, filters=FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        self.blocks = [
            EncodeBlock(filters, norm=None, name="encode_1"),  # (B, 128, 128, 64)
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
        x = layers.concatenate([condition, picture])  # (B, 256, 256, 6)
        for block in self.blocks:
            x = block(x, training=training)
        x = self.last_block(self.pad(x), training=training)
        return self.to_logits(self.last_pad(x))


def generate(generator, condition, seed=0):
    """Runs a Pix2Pix generator as at test time: (1, 256, 256, 3) -> the same, in [-1, 1].

    At test time the paper (section 3.3) runs the network as in training: batchnorm over the
    picture itself, dropout on. So pass one picture at a time. Keras' `stateless_call` leaves moving
    averages and random state untouched; the same seed (int, or int32 scalar) drops the same values.
    """
    weights, state = generator.trainable_variables, [*generator.non_trainable_variables]
    for index, variable in enumerate(state):
        if "seed_generator" in variable.path:  # the random state of a dropout layer
            state[index] = tf.cast(tf.stack([seed, index]), variable.dtype)
    return generator.stateless_call(weights, state, condition, training=True)[0]


# === 2. Losses, and the scores of a picture =================================
def adversarial_loss(logits, real):
    """Returns the mean cross-entropy of logits of any shape against the answer real or fake.

    It is the mean of -log(the probability given to that answer). A discriminator wants the true
    answers. If half of what it sees is real and it cannot tell which half, it says 1/2 everywhere,
    and each loss is log 2 = 0.693. A generator wants real for its fakes, so its loss is
    -log D(G(z)): the gradient of the minimax game's log(1 - D(G(z))) vanishes while the
    discriminator wins (Goodfellow et al. 2014, section 3).
    """
    answers = tf.ones_like(logits) if real else tf.zeros_like(logits)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(answers, logits))


@tf.function
def scores(picture, real):
    """Scores a picture against the real one, both (1, height, width, 3) in [-1, 1].

    Returns l1, the mean distance, from 0 to 2; psnr, in dB, capped at 100 for equal pictures; and
    ssim, at most 1 (Wang et al. 2004), computed on [0, 1]: its formula assumes values from 0 up.
    """
    unit_picture, unit_real = picture * 0.5 + 0.5, real * 0.5 + 0.5
    return {
        "l1": tf.reduce_mean(tf.abs(real - picture)),
        "psnr": tf.minimum(tf.image.psnr(unit_real, unit_picture, max_val=1.0)[0], 100.0),
        "ssim": tf.image.ssim(unit_real, unit_picture, max_val=1.0)[0],
    }


# === 3. The game of two networks, and Adam ==================================
class AdversarialModel(keras.Model):
    """A generator and a discriminator, each with an optimiser; `train` replaces Keras' `fit`.

    A subclass provides:
        self.generator, self.discriminator: networks whose weights exist.
        self.random: a SeedGenerator, if it calls `noise`.
        train_step(batch): updates both networks and returns the losses by name, scalars.
    Set generator_optimizer and discriminator_optimizer, both built (see `adam`), before training.
    """

    def noise(self, count, latent):
        """Returns (count, latent) numbers from N(0, 1), drawn by `self.random`.

        On several devices, each device draws the numbers for all and takes its own share.
        """
        replica = tf.distribute.get_replica_context()
        shape = (replica.num_replicas_in_sync, count, latent)
        return keras.random.normal(shape, seed=self.random)[replica.replica_id_in_sync_group]

    def state(self):
        """Returns all tf.Variables (.value). Checkpoint(model) would leave out the random state."""
        owners = (self, self.generator_optimizer, self.discriminator_optimizer)
        return [variable.value for owner in owners for variable in owner.variables]


def minimise(loss, tape, network, optimizer):
    """Moves only this network's weights, down the gradient of the loss, by one optimiser step."""
    variables = network.trainable_variables
    # In float16, a gradient below 6e-8 is 0. There the gradient starts from a large number instead
    # of 1, as if the loss were scaled up, and the optimiser divides it out; otherwise from 1.
    scale = optimizer.scale_loss(tf.ones_like(loss))
    optimizer.apply(tape.gradient(loss, variables, output_gradients=scale), variables)


def adam(network, learning_rate, beta_1):
    """Returns Adam for a network, with loss scaling in float16 (see `minimise`)."""
    optimizer = CompiledAdam(learning_rate, beta_1=beta_1)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return optimizer


# === 4. The training loop ===================================================
CHECKPOINT_MINUTES = 10.0  # between checkpoints in a long epoch; every epoch ends with one, too


def train(model, run, batches, args, *, steps_per_epoch, draw, score=dict, row_every=10):
    """Trains until `args.epochs` epochs are done, from the run's last checkpoint if there is one.

    Writes losses.csv (each row holds the losses of that one step), losses.png, samples/, saved/
    (the checkpoints), the weights and, if there are scores, metrics.csv. Ctrl-C and SIGTERM end it
    after the current step, with a checkpoint and exit status 130 or 143.

    Args:
        model: an AdversarialModel with its optimisers. run: the run's folder.
        batches: called with first_step (from 0) and last_step (exclusive), returns their dataset.
        draw: path -> None, draws the sample picture of the current state.
        score: returns an epoch's val_ and condition_ l1, psnr and ssim, or {}: no metrics.csv.
        row_every: steps between two rows of losses.csv, counted from the epoch's start.

    Returns metrics.csv's rows as dicts. Raises UserError if a loss is NaN or no checkpoint can be
    read. If a batch cannot be made, saves a checkpoint and raises TensorFlow's error.
    """
    losses_table, metrics_table = tables = run / "losses.csv", run / "metrics.csv"
    checkpoints = Checkpoints(run / "saved", model.state(), tables)
    step, last_step = checkpoints.restore(), args.epochs * steps_per_epoch
    if 0 < step < last_step:
        print(f"{run} continues after step {step} ({step / steps_per_epoch:.2f} epochs).")
    elif step:
        epochs = step // steps_per_epoch
        cure = f"Pass --epochs {epochs + 1} or more to continue."
        if step % steps_per_epoch:  # these weights have no scores
            raise UserError(f"--epochs {args.epochs}: {run} is in epoch {epochs + 1}. {cure}")
        print(f"{run} is complete ({epochs} epochs). {cure}")  # the loop below has none left
        if is_chief():  # writes its results once more
            write_results(run, model, *tables)
    take_step = make_train_function(model, batches(first_step=step, last_step=last_step))

    with deferring_signals() as signals:
        for epoch in range(step // steps_per_epoch + 1, args.epochs + 1):
            start, end = (epoch - 1) * steps_per_epoch, epoch * steps_per_epoch
            print(f"Epoch {epoch}/{args.epochs}", flush=True)
            bar = keras.utils.Progbar(steps_per_epoch, verbose=1 if sys.stdout.isatty() else 2)
            bar.update(step - start, finalize=False)  # the steps before an interruption
            while step < end:
                try:
                    losses = take_step()
                except (tf.errors.InvalidArgumentError, *FILE_ERRORS):  # a damaged or lost picture
                    checkpoints.save(step)
                    raise
                step += 1
                refuse_not_finite(losses, step)
                if (step - start) % row_every == 0 or step == end:
                    append_row(losses_table, {"epoch": epoch, "step": step} | losses)
                bar.update(step - start, losses.items(), finalize=False)
                minutes = (time.monotonic() - checkpoints.saved_at) / 60
                if step < end and (signals or minutes > CHECKPOINT_MINUTES):
                    checkpoints.save(step)
                    leave_if_asked(signals, step)

            if is_chief():
                scored = score()
                refuse_not_finite(scored, step)  # the last step's weights may be NaN
                if scored:
                    append_row(metrics_table, {"epoch": epoch} | scored)
                bar.update(steps_per_epoch, scored.items(), finalize=True)
                draw(run / "samples" / f"epoch_{epoch:04d}.png")
                write_results(run, model, *tables)
            checkpoints.save(step)  # last, so that a saved epoch is a complete epoch
            leave_if_asked(signals, step)

    leave_unless_chief()
    return read_rows(metrics_table)


def write_results(run, model, losses_table, metrics_table):
    """Draws the curves and writes the weights; best.weights.h5 keeps those of the best epoch."""
    metrics = read_rows(metrics_table)
    draw_curves(run / "losses.png", read_rows(losses_table), metrics)
    save_weights(model.generator, run / "generator.weights.h5")
    save_weights(model.discriminator, run / "discriminator.weights.h5")
    if metrics and metrics[-1]["val_l1"] <= min(row["val_l1"] for row in metrics):
        save_weights(model.generator, run / "best.weights.h5")


def make_train_function(model, batches):
    """Returns a function that takes the next train step and returns its losses by name."""
    strategy = tf.distribute.get_strategy()
    options = tf.data.Options()  # DATA: each process reads all batches, takes its share of each
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = iter(strategy.experimental_distribute_dataset(batches.with_options(options)))

    @tf.function
    def one_step(batch):
        losses = strategy.run(model.train_step, [batch])
        return {name: strategy.reduce("MEAN", losses[name], axis=None) for name in sorted(losses)}

    # On a damaged picture, next(data) fails before the step draws any noise.
    return lambda: {name: float(loss) for name, loss in one_step(next(data)).items()}


def mean_scores(rows, prefix):
    """Returns the mean of each score over a list of dicts, under its name with the prefix."""
    return {prefix + name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}


# === 5. Digits ==============================================================
MNIST = HERE / "data" / "mnist"
MNIST_FILES = [MNIST / "train-images-idx3-ubyte.gz", MNIST / "train-labels-idx1-ubyte.gz"]


def load_mnist(files=MNIST_FILES):
    """Returns MNIST's training digits (60000, 28, 28, 1) and labels (60000,), both uint8."""
    return read_idx(files[0], 60000, 28, 28)[..., tf.newaxis], read_idx(files[1], 60000)


def read_idx(path, *shape):
    """Reads a gzipped IDX file of bytes as a uint8 tensor of this shape.

    Its header is 0, 0, 8 (for bytes), the rank, then each length in four bytes. Raises UserError
    if the file is missing, damaged, or of another shape.
    """
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    try:
        with filtering_logs():
            packed = tf.io.read_file(str(path))
            data = tf.io.decode_raw(tf.io.decode_compressed(packed, "GZIP"), tf.uint8)
        if list(data[: len(header)]) != list(header):
            raise ValueError("another header")
        return tf.reshape(data[len(header) :], shape)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: missing or damaged; restore it from the repository") from error


def training_digits(digits, labels, *, batch_size, seed, first_step, last_step):
    """Returns the batches of steps `first_step` to `last_step` - 1; seed and step determine each.

    Each batch is digits (batch_size, 28, 28, 1) in [-1, 1] and one-hot labels (batch_size, 10).
    """

    def batch(chosen):
        scaled = tf.cast(tf.gather(digits, chosen), tf.float32) / 127.5 - 1.0
        return scaled, tf.one_hot(tf.gather(labels, chosen), 10)

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    order = positions.map(lambda position: shuffled(position, len(digits), seed))
    return order.batch(batch_size, drop_remainder=True).map(batch).prefetch(tf.data.AUTOTUNE)


def shuffled(position, count, seed):
    """Returns the index of the example (0 to count - 1) at a position (int64) of a training run.

    Each pass over `count` positions gives every example once, in an order of its own. Unlike a
    shuffle buffer, it keeps no state, so a run can resume at any step and see the same examples.
    """
    seeds = tf.stack([seed, position // count])
    return tf.random.experimental.index_shuffle(position % count, seeds, max_index=count - 1)


# === 6. Pairs of pictures ===================================================
def decode_pair(path):
    """Reads a side-by-side JPEG or PNG file (path: scalar string tensor) and splits it.

    Returns the left and the right half, (height, width // 2, 3) uint8; an odd width loses its
    middle column. Raises tf.errors.InvalidArgumentError if it is not a readable picture.
    """
    data = tf.io.read_file(path)
    picture = tf.io.decode_image(data, channels=3, expand_animations=False)
    half = tf.shape(picture)[1] // 2
    return picture[:, :half], picture[:, -half:]


def read_stack(path, direction):
    """Reads a side-by-side picture as one stack: whatever is done to it is done to both halves.

    In direction "AtoB" the condition is the left half, in "BtoA" the right one. Returns
    (height, width, 6) float32 in [-1, 1]: the condition's channels, then the target's.
    """
    left, right = decode_pair(path)
    halves = [left, right] if direction == "AtoB" else [right, left]
    return tf.cast(tf.concat(halves, axis=-1), tf.float32) / 127.5 - 1.0


def split_stack(stack):
    """Splits (..., 6) into the condition's and the target's (..., 3)."""
    return stack[..., :3], stack[..., 3:]


def resize(stack, size=IMAGE_SIZE, labels=False):
    """Resizes (height, width, channels) to (*size, channels), antialiased when shrinking.

    With `labels`, the condition (the first 3 channels) is a label map, resized by nearest
    neighbour: a blend of two classes' colours may be a third class's colour, or no class's.
    """
    if not labels:
        return tf.image.resize(stack, size, antialias=True)
    condition, target = split_stack(stack)
    condition = tf.image.resize(condition, size, "nearest")
    return tf.concat([condition, tf.image.resize(target, size, antialias=True)], axis=-1)


def jitter(stack, seed, size=IMAGE_SIZE, labels=False):
    """The paper's augmentation (appendix 6.2): enlarge, crop at random, mirror half the time.

    Takes a stack (height, width, channels) float32 of any height and width, and returns one of
    (*size, channels). The same seed, (2,) int64, gives the same picture; `labels` as for `resize`.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    enlarged = [side * 286 // 256 for side in size]  # 286 for 256
    stack = resize(stack, enlarged, labels)
    stack = tf.image.stateless_random_crop(stack, (*size, stack.shape[-1]), crop_seed)
    return tf.image.stateless_random_flip_left_right(stack, flip_seed)


def course_augment(stack, seed, size=IMAGE_SIZE, labels=False):
    """The course's augmentation: shift with padding, mirror both ways, quarter turns.

    The border of 30 pixels (for 256) is a reflection or white, with equal odds; that of a label
    map is a reflection. Only square pictures are turned. Arguments and result as for `jitter`.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    stack = resize(stack, size, labels)
    border = [[side * 30 // 256] * 2 for side in size] + [[0, 0]]
    white = tf.pad(stack, border, constant_values=1.0)
    reflected = labels | (tf.random.stateless_uniform((), seeds[0]) < 0.5)  # white is no class
    stack = tf.where(reflected, tf.pad(stack, border, "REFLECT"), white)
    stack = tf.image.stateless_random_crop(stack, (*size, stack.shape[-1]), seeds[1])
    stack = tf.image.stateless_random_flip_left_right(stack, seeds[2])
    stack = tf.image.stateless_random_flip_up_down(stack, seeds[3])
    if size[0] != size[1]:
        return stack
    turns = tf.random.stateless_uniform((), seeds[4], minval=1, maxval=4, dtype=tf.int32)
    turned = tf.random.stateless_uniform((), seeds[5]) < 0.5
    return tf.image.rot90(stack, tf.where(turned, turns, 0))


AUGMENTATIONS = {
    "none": lambda stack, seed, size=IMAGE_SIZE, labels=False: resize(stack, size, labels),
    "jitter": jitter,
    "course": course_augment,
}


def training_pairs(paths, *, batch_size, seed, direction, augment, first_step, last_step, **form):
    """Returns the batches of steps `first_step` to `last_step` - 1; seed and step determine each.

    Each batch is (condition, target), (batch_size, *size, 3) in [-1, 1]; `form` as for `resize`.
    """
    files = tf.constant(paths)

    def example(position):
        chosen = shuffled(position, len(paths), seed)
        stack = read_stack(files[chosen], direction)
        seeds = tf.stack([seed, position])
        return split_stack(AUGMENTATIONS[augment](stack, seeds, **form))

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    pairs = positions.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return pairs.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def validation_pairs(paths, direction, **form):
    """Returns a dataset of (condition, target), each (1, *size, 3); `form` as for `resize`."""
    files = tf.data.Dataset.from_tensor_slices(paths)
    stacks = files.map(lambda path: resize(read_stack(path, direction), **form))
    return stacks.map(split_stack).batch(1).prefetch(tf.data.AUTOTUNE)


# *** Machinery: you can follow the course without reading beyond this line ******************

# === 7. Faster layers =======================================================
# These layers save a fifth of the time of a Pix2Pix step on a CPU. On a GPU (but for batchnorm),
# and for convolutions other than 4x4, stride 2, "same", or of large maps, Keras' own code runs.


class CompiledAdam(keras.optimizers.Adam):
    """Keras' Adam, its update compiled by XLA: one pass over the weights instead of a dozen."""

    def apply(self, grads, trainable_variables=None):
        if tf.distribute.has_strategy() or tf.config.get_visible_devices("GPU"):  # XLA needs CUDA
            n = tf.distribute.get_strategy().num_replicas_in_sync  # Keras adds up; we want the mean
            return super().apply([g / n if n > 1 else g for g in grads], trainable_variables)
        update = tf.function(lambda g: super(CompiledAdam, self).apply(g), jit_compile=True)
        return update(grads)  # traced once, in the step; given variables, it would copy them


class BatchNorm(layers.BatchNormalization):
    """Keras' batchnorm; its training pass is one fused kernel instead of a dozen operations."""

    def call(self, x, training=None):
        if not (training and self.trainable and len(x.shape) == 4 and self.scale and self.center):
            return super().call(x, training=training)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
        )
        count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)  # Keras' variance is biased
        variance = tf.where(count > 1, variance, 0.0) * ((count - 1) / count)  # cuDNN has NaN for 1
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return y


class Conv2D(layers.Conv2D):
    """Keras' convolution, as a matrix product on small maps (4x4 kernel, stride 2).

    TensorFlow reorders a kernel at each use. For a map with fewer pixels than channels, this takes
    longer than the arithmetic. In all, it takes a tenth of a Pix2Pix step.
    """

    def convolution_op(self, x, kernel):
        if self.groups > 1 or not few_pixels(self, x, 4 * self.filters):
            return super().convolution_op(x, kernel)
        patches = tf.image.extract_patches(x, [1, 4, 4, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME")
        return tf.tensordot(patches, tf.reshape(kernel, (-1, self.filters)), axes=1)


class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' transposed convolution, with the fast form of `Conv2D`."""

    def call(self, x):
        batch, height, width, channels = x.shape
        plain = self.activation is keras.activations.linear and not self.use_bias
        if not (few_pixels(self, x, channels) and plain):
            return super().call(x)
        kernel = tf.reshape(self.kernel, (-1, channels))  # (16 filters, channels)
        x = tf.matmul(tf.reshape(x, (-1, channels)), kernel, transpose_b=True)
        # Each pixel gave a 4x4 patch of the result. They are 2 pixels apart: add what overlaps.
        x = tf.transpose(tf.reshape(x, (batch, height, width, 4, -1)), (0, 1, 3, 2, 4))
        for shape in (-1, width, 4 * self.filters), (batch, height, -1):  # columns, then rows
            left, right = tf.split(tf.reshape(x, shape), 2, axis=-1)
            x = tf.pad(left, [[0, 0], [0, 1], [0, 0]]) + tf.pad(right, [[0, 0], [1, 0], [0, 0]])
        return tf.reshape(x, (batch, 2 * height + 2, 2 * width + 2, self.filters))[:, 1:-1, 1:-1]


def few_pixels(layer, x, limit):
    """Returns whether the fast form applies: a CPU, the paper's settings, few enough pixels."""
    usual = (layer.kernel_size, layer.strides, layer.padding) == ((4, 4), (2, 2), "same")
    small = usual and None not in x.shape and math.prod(x.shape[:-1]) <= limit
    return small and not tf.config.get_visible_devices("GPU")


def convolve_in_phases(x, kernel):
    """Returns a 4x4 transposed convolution of x, with stride 2, computed as four 2x2 ones."""
    phases = []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # even and odd rows, columns
        part = tf.transpose(kernel[3 - row :: -2, 3 - column :: -2], (0, 1, 3, 2))
        padding = [[0, 0], [1 - row, row], [1 - column, column], [0, 0]]
        phases.append(tf.nn.conv2d(x, part, 1, padding))
    return tf.nn.depth_to_space(tf.concat(phases, axis=-1), 2)


# === 8. Checkpoints and tables ==============================================
def append_row(table, row):
    """Appends a dict of numbers to a CSV file; a new file starts with their names."""
    values = [f"{v:.6f}" if isinstance(v, float) else str(v) for v in row.values()]
    if is_chief():
        with table.open("a", encoding="utf-8", newline="\n") as file:
            lines = [values] if file.tell() else [row, values]
            file.writelines(",".join(line) + "\n" for line in lines)


def read_rows(table):
    """Returns the rows of a CSV file as dicts of numbers; none if there is no file."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    names, *rows = [line.split(",") for line in lines] or [[]]
    return [dict(zip(names, map(float, row), strict=True)) for row in rows]


class Checkpoints:
    """The last two states of a run, `saved/step_00000200` ..., each with copies of the tables."""

    def __init__(self, folder, variables, tables):
        self.folder, self.tables = folder, tables
        self.checkpoint = tf.train.Checkpoint(variables=variables)
        self.saved_at = time.monotonic()

    def save(self, step):
        """Writes a temporary folder and renames it once complete; removes all but the last two."""
        if not is_chief():
            return
        folder, unfinished = self.folder / f"step_{step:08d}", self.folder / "unfinished"
        with filtering_logs(), replacing(folder, unfinished) as temporary:
            self.checkpoint.write(str(temporary / "state"))  # with checksums
            for table in self.tables:  # empty before the first row
                (temporary / table.name).write_bytes(table.read_bytes() if table.exists() else b"")
        for old in sorted(self.folder.glob("step_" + 8 * "[0-9]"))[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        self.saved_at = time.monotonic()

    def restore(self):
        """Reads the newest intact checkpoint, or writes a new run's first one; returns its step.

        Raises UserError if the run has been started but has no intact checkpoint.
        """
        folders = sorted(self.folder.glob("step_" + 8 * "[0-9]"), reverse=True)
        for folder in folders:
            try:
                with filtering_logs():  # expect_partial: the assertion without its warnings
                    self.checkpoint.read(f"{folder}/state").expect_partial().assert_consumed()
            except (OSError, *NO_MEMORY, tf.errors.PermissionDeniedError):
                raise  # the checkpoint itself may be sound
            except Exception:  # TensorFlow reports damage in many ways
                warn(f"{folder} is damaged or of other networks; trying the one before")
                continue
            for table in self.tables if is_chief() else ():
                shutil.copyfile(folder / table.name, table)
                if not table.stat().st_size:  # before the first row
                    table.unlink()
            return int(folder.name[5:])
        if folders or self.tables[0].exists():
            raise UserError(f"{self.folder}: no intact checkpoint. Add --fresh to start over")
        self.save(0)  # from here on, a run without a checkpoint is damaged
        return 0


def save_weights(network, path):
    """Writes a network's weights; an earlier file is replaced once the new one is complete."""
    if shutil.disk_usage(path.parent).free < 5 * network.count_params():
        raise OSError("No space left on device")  # HDF5 would crash
    with replacing(path) as temporary:
        network.save_weights(temporary)


def load_weights(network, path):
    """Reads weights from a file; raises UserError if it is missing, damaged or does not fit."""
    try:
        network.load_weights(path)
    except NO_MEMORY:
        raise  # the file itself may be sound
    except Exception as error:  # HDF5 and Keras report damage in many ways
        cure = "Rerun the training command, which writes it after each epoch"
        raise UserError(f"{path}: missing, damaged or of another network. {cure}") from error


def refuse_not_finite(losses, step):
    """Raises UserError if a loss, or score, is NaN or infinite."""
    if bad := ", ".join(name for name, loss in losses.items() if not math.isfinite(loss)):
        cure = "Rerunning will fail the same way: add --fresh, and try --precision float32 first"
        raise UserError(f"NaN or infinite at step {step}: {bad}. {cure}")


@contextlib.contextmanager
def replacing(path, temporary=None):
    """Yields a path for a new file or folder; it becomes `path` if the block ends without error.

    Its contents are flushed to disk first: a power cut must not leave `path` without them.
    """
    temporary = temporary or path.with_name(f".new.{path.name[-60:]}")
    earlier = path.with_name(f".old.{path.name[-60:]}")
    shutil.rmtree(temporary, ignore_errors=True)  # a killed process may have left it
    try:
        yield temporary
        for part in filter(Path.is_file, [temporary, *temporary.rglob("*")]):
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        if temporary.is_dir() and path.is_dir():  # `replace` cannot replace a folder
            shutil.rmtree(earlier, ignore_errors=True)  # a killed process may have left it
            path.replace(earlier)
        temporary.replace(path)
    finally:
        if earlier.exists() and not path.exists():
            earlier.replace(path)
        for folder in (temporary, earlier):
            shutil.rmtree(folder, ignore_errors=True)
        temporary.unlink(missing_ok=True)


# === 9. Devices =============================================================
def set_devices(args):
    """Sets up --devices, or TF_CONFIG's machines, prints what they are; sets seed and precision.

    Each device runs one replica, which takes its share of every batch; gradients are averaged.
    Batchnorm uses the replica's own pictures; the first replica's moving averages are kept.
    Without a GPU, --devices N divides the processor, to try this out. Raises UserError if the
    devices do not exist, or cannot share a batch evenly.
    """
    gpus, cluster = tf.config.list_physical_devices("GPU"), os.environ.get("TF_CONFIG")
    available = len(gpus) or (1 if cluster else max(2, os.cpu_count()))
    if args.devices > available:
        raise UserError(f"--devices {args.devices}: at most {available} on this machine")
    tf.config.set_visible_devices(gpus[: args.devices], "GPU")
    strategy, handler = None, signal.getsignal(signal.SIGTERM)
    if cluster:
        try:
            json.loads(cluster)["cluster"]["worker"]  # without it TensorFlow would train alone
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise UserError(f"TF_CONFIG: unset it, or fix the cluster: {error!r}") from error
        signal.signal(signal.SIGTERM, handler)  # TensorFlow has replaced it
    elif args.devices > 1:
        if not gpus:
            parts = [tf.config.LogicalDeviceConfiguration()] * args.devices
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, parts)
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        strategy = tf.distribute.MirroredStrategy(devices)
    tf.distribute.experimental_set_strategy(strategy)  # as strategy.scope(), for the whole process
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if args.batch_size % replicas:
        raise UserError(f"--batch-size {args.batch_size}: not a multiple of the {replicas} devices")
    if replicas > 1 and args.precision == "mixed_float16":
        raise UserError("--precision mixed_float16: one device only; use mixed_bfloat16")
    if not is_chief():  # only the chief prints
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    tune_processor()
    keras.config.set_dtype_policy(args.precision)
    keras.utils.set_random_seed(args.seed)
    print(f"on {args.devices} GPU" if gpus else f"on {os.cpu_count()} CPU cores", flush=True)


def is_chief():
    """Returns whether this process writes the results: with TF_CONFIG, the first one does."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def leave_unless_chief():
    """Waits for all processes of TF_CONFIG (by a sum), then exits in all but the chief."""
    strategy = tf.distribute.get_strategy()
    strategy.reduce("SUM", tf.function(strategy.run)(tf.ones, [()]), axis=None)
    if not is_chief():
        print("Worker finished; results are on the chief.", file=sys.stderr)
        sys.exit()


def tune_processor():
    """Makes CPU runs reproducible to the bit, and has glibc keep freed memory for the next step.

    glibc would return each large block to the system and fetch it again page by page, which takes
    a tenth of a Pix2Pix step. On a GPU, determinism would need slower algorithms.
    """
    if tf.config.get_visible_devices("GPU"):
        return
    if shutil.which("nvidia-smi") and "CUDA_VISIBLE_DEVICES" not in os.environ:
        warn(f"TensorFlow does not see the GPU. Try: {INSTALL.replace('.txt', '-gpu.txt')}")
    tf.config.experimental.enable_op_determinism()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            ctypes.CDLL(None).mallopt(option, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


# === 10. The run's folder, and exports ======================================
TRAINERS = {"gan": "01_gan_mnist.py", "cgan": "02_cgan_mnist.py", "pix2pix": "05_pix2pix_train.py"}
FREE = {"--out", "--fresh", "--devices", "--epochs", "bytes", "code"}  # these may change in a run


def start_run(args, stage, data, files):
    """Creates the run's folder `args.out`, or reopens it, locks it, and writes options.json.

    options.json keeps the flags, the stage ("gan", "cgan" or "pix2pix") and `data`, a dict of names
    and counts. A run continues only with `files` of the same names. Raises UserError if the folder
    holds anything but a run, or a run with other flags or data, or is in use.
    """
    run, options_file = args.out, args.out / "options.json"
    if not is_chief():
        return run
    code = [file.read_bytes() for file in (Path(__file__), Path(sys.argv[0])) if file.is_file()]
    data |= fingerprint(files) | {"code": hashlib.sha256(b"".join(code)).hexdigest()[:16]}
    flags = {f"--{name.replace('_', '-')}": value for name, value in vars(args).items()}
    options = {"stage": stage, "flags": flags, "data": data, "python": sys.version}
    options["versions"] = {m.__name__: m.__version__ for m in (tf, keras, matplotlib)}
    text = json.dumps(options, indent=2, default=str) + "\n"
    if re.search(r"[\[*?\ud800-\udfff]", str(run)):  # a pattern, or no UTF-8
        raise UserError(f"--out {run}: TensorFlow needs a path in UTF-8 without [, * and ?")
    if not options_file.exists() and (run.is_file() or any(run.glob("[!.]*"))):
        raise UserError(f"--out {run}: exists but is not the folder of a run; give another")
    if args.fresh and options_file.exists():
        os.close(lock(run))  # fails if in use; Windows cannot rename a folder with an open file
        earlier = (Path(f"{run}.{number}") for number in range(1, 10**6))
        earlier = run.rename(next(path for path in earlier if not path.exists()))
        print(f"Starting over. The earlier run is now {earlier}")
    run.mkdir(parents=True, exist_ok=True)
    lock(run)
    if options_file.exists():
        refuse_changes(run, read_options(run, stage), json.loads(text))
    with replacing(options_file) as path:
        path.write_text(text, encoding="utf-8")
    (run / "samples").mkdir(exist_ok=True)
    return run


def fingerprint(files):
    """Returns what identifies these files: a hash of their names, and their total size."""
    names = "\n".join("/".join(Path(file).parts[-2:]) for file in files)
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return {"files": digest[:16], "bytes": sum(os.stat(file).st_size for file in files)}


def refuse_changes(run, earlier, options):
    """Raises UserError naming each flag, or fact about the data, that has changed in a run."""
    was, now = (one["flags"] | one["data"] for one in (earlier, options))
    diff = {n: f"{n} {was.get(n)} -> {now.get(n)}" for n in was | now if was.get(n) != now.get(n)}
    free = FREE if diff.keys() & {"files", "bytes"} else FREE | {"--dataset"}  # it has only moved
    if changes := ", ".join(text for name, text in diff.items() if name not in free):
        cure = "Use the earlier ones, give another --out, or add --fresh to start over"
        if "files" in diff:
            cure += f"; --start-from {run} with another --out keeps weights that may have seen val/"
        raise UserError(f"{run} holds a run with other settings ({changes}). {cure}")
    if "code" in diff:
        warn("the code has changed. If networks, losses or learning rates have, add --fresh")
    if "bytes" in diff:
        warn(f"the data changed from {was.get('bytes')} to {now['bytes']} bytes; the run goes on")


def lock(folder):
    """Keeps other processes out of a folder until this one ends, however it ends."""
    file = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o644)  # open until the process ends
    try:
        if hasattr(os, "lockf"):
            os.lockf(file, os.F_TLOCK, 0)
        else:  # Windows
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError) as error:  # PermissionError: Windows
        cure = "wait for it, or give another --out"
        raise UserError(f"{folder}: another process is working in it; {cure}") from error
    except OSError as error:
        warn(f"{folder}: no locks on this file system ({error.strerror}); start one process only")
    return file


def read_options(run, stage="pix2pix"):
    """Returns a run's options.json; raises UserError if missing, damaged or of another stage."""
    file = run / "options.json"
    if not file.exists():
        raise UserError(f"{run}: no trained run here. Train: python {TRAINERS[stage]} --out {run}")
    try:
        options = json.loads(file.read_text(encoding="utf-8-sig"))
        found, flags, data = options["stage"], options["flags"], options["data"]
        needed = flags["--epochs"] + 0, data["files"], data["bytes"]  # raises unless all are there
        if found == "pix2pix":
            needed += GENERATORS[flags["--generator"]], flags["--filters"] + 0, data["condition"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged. Add --fresh to the training command") from error
    if found != stage:
        raise UserError(f"{run}: holds a run of {found}, not of {stage}; give another folder")
    return options


def load_generator(run, best=False):
    """Returns a run's generator (`best`: of the epoch with the lowest L1) and the run's flags."""
    flags = read_options(run)["flags"]
    keras.config.set_dtype_policy("float32")  # a notebook may have trained in another one
    generator = GENERATORS[flags["--generator"]](flags["--filters"], flags["--norm"])
    generator(tf.zeros((1, *IMAGE_SIZE, 3)), training=False)  # the first call creates the weights
    load_weights(generator, run / f"{'best' if best else 'generator'}.weights.h5")
    done = len((run / "metrics.csv").read_bytes().splitlines()) - 1
    if done < flags["--epochs"]:
        warn(f"{run} is not finished: {done} of {flags['--epochs']} epochs")
    return generator, flags


def to_module(generator, size, phased=False):
    """Returns a generator's test-time pass as a tf.Module; adapts the generator's layers to it.

    `call` maps a condition, (1, *size, 3) in [-1, 1], to {"picture": tensor of the same shape}.
    """
    for block in generator.encoder:  # Keras' own form: TFLite lacks `extract_patches`
        block.conv.convolution_op = functools.partial(layers.Conv2D.convolution_op, block.conv)
    for block in generator.decoder:
        if phased and block.conv.kernel_size == (4, 4):
            block.conv.call = functools.partial(convolve_in_phases, kernel=block.conv.kernel)
        if getattr(block.dropout, "rate", 0.0):  # TFLite has no such random numbers
            draw = block.dropout
            mask = functools.cache(lambda shape, draw=draw: draw(tf.ones(shape), training=True))
            block.dropout = lambda x, training, mask=mask: x * mask(tuple(x.shape))
    generate(generator, tf.ones((1, *size, 3)))  # draws the masks, which are kept
    module, signature = tf.Module(), [tf.TensorSpec((1, *size, 3), name="condition")]
    module.weights = [variable.value for variable in generator.variables]
    call = tf.function(lambda condition: {"picture": generate(generator, condition)}, signature)
    module.call = call.get_concrete_function()
    return module


def to_tflite(generator, size, precision):
    """Returns a generator as a TFLite file's bytes, and a function that runs them.

    `precision`, of the weights, is float32, float16 or int8. The function takes `condition`,
    (1, *size, 3) in [-1, 1], and returns {"picture": ...}.
    """
    module = to_module(generator, size, phased=True)  # TFLite's own takes 1.2 to 1.8 times as long
    with filtering_logs(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call], module)
        converter.optimizations = [] if precision == "float32" else [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16] if precision == "float16" else []
        data = converter.convert()
        interpreter = tf.lite.Interpreter(model_content=data)
        interpreter.allocate_tensors()  # prints its notes while they are filtered
    return data, interpreter.get_signature_runner()


def difference(draw, conditions, pictures):
    """Returns the mean and the largest difference between an export and Keras, in shades of 255."""
    apart = [tf.abs(draw(condition=c)["picture"] - p) * 127.5 for c, p in zip(conditions, pictures)]
    return float(tf.reduce_mean(apart)), float(tf.reduce_max(apart))


# === 11. Files and pictures =================================================
PAPER = {"facades": "labels", "cityscapes": "labels", "maps": "picture", "night2day": "picture"}
PAPER = {name: {"direction": "BtoA", "condition": kind} for name, kind in PAPER.items()}
PAPER |= {f"edges2{name}": {"condition": "sketch"} for name in ("shoes", "handbags")}
FACTS = {"direction", "condition", "origin", "colours", "classes", "ranges"}  # keys of dataset.json
SPLIT = re.compile(r"e?(train|val|test)(?:ing|id|idation|set)?([ _-]?[ab])?(?![a-z])", re.I)
ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png"}  # of ready-made pairs
RAW = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
CURE = "python 07_get_pairs.py --pair FOLDER (or two) --out DIR makes usable pairs"
warnings.filterwarnings("ignore", module="PIL[.]")  # about metadata that is not used here
warnings.filterwarnings("ignore", "Glyph .* missing")  # the font may lack letters of a file name
PngImagePlugin.MAX_TEXT_CHUNK = 2**25  # bytes; some programs store long texts in PNG files
UNUSABLE = {UnidentifiedImageError: "not a picture that Pillow knows: save it as JPEG or PNG"}
UNUSABLE |= {UnicodeEncodeError: "its name is not UTF-8: rename it"}
UNUSABLE |= {tf.errors.InvalidArgumentError: "damaged"}
UNUSABLE |= {Image.DecompressionBombError: "over 178 megapixels: make it smaller"}


def dataset_folder(dataset):
    """Finds the folder of --dataset, which is a path or the name of one under data/."""
    for folder in (Path(dataset), HERE / "data" / dataset):
        if folder.is_dir():
            return folder
    raise UserError(f"--dataset {dataset}: no such folder; give a path, or emoji (included)")


def describe_dataset(dataset, direction=None):
    """Reads dataset.json; fills in what it leaves out if the folder is named like the paper's.

    Returns a dict of "direction" and, where known, "condition" ("sketch", "labels" or "picture"),
    "origin", "colours" (of label maps: [["#rrggbb", name], ...]), "classes" (their numbers) and
    "ranges" ({"left" or "right": [value that became 0, value that became 255]}). If `direction` is
    the other one, or "exchanged", it has only "direction", "exchanged" (True) and "ranges".
    """
    file = dataset_folder(dataset) / "dataset.json"
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        own = json.loads(file.read_text("utf-8-sig")) if file.exists() else {}
        about = {"direction": "AtoB"} | PAPER.get(file.parent.resolve().name, {}) | own
        other = {"AtoB": "BtoA", "BtoA": "AtoB"}[about["direction"]]
        sound = [about.get("condition", "sketch") in {"sketch", "labels", "picture"}]
        sound += [re.fullmatch("#[0-9a-f]{6}", colour) for colour, _ in about.get("colours", [])]
        sound += [low - high < 0 for low, high in about.get("ranges", {}).values()]
        sound += [len(about.get("classes", [])) in {0, len(about.get("colours", []))}]
        if all(sound) and about.keys() <= FACTS:
            if direction in {"exchanged", other}:
                return {"direction": other, "exchanged": True, "ranges": about.get("ranges", {})}
            return about
    raise UserError(f"{file}: cannot be used: fix or remove it (keys: {', '.join(sorted(FACTS))})")


def spread(paths, count):
    """Returns at most `count` of the paths, evenly spaced: the same ones each time."""
    count = min(count, len(paths))
    return [paths[(2 * n + 1) * len(paths) // (2 * count)] for n in range(count)]


def listed(items):
    """Returns the first ten items, and how many more there are."""
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if items[10:] else "")


def tell(notes, done):
    """Prints a line for each note of {note: files}, then `done` and how many are left out."""
    for note, paths in notes.items():
        if note:  # "" says nothing
            warn(f"{note} ({len(paths)}): {listed(sorted(map(str, paths)))}")
    count = sum(len(paths) for note, paths in notes.items() if note.startswith("left out"))
    print(f"{done}, {count} files left out{' (named above)' if count else ''}.")


def walk(folder, notes, parents=()):
    """Yields the files in a folder and its sub-folders, sorted; hidden ones are left out."""
    parents = (*parents, folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            if not path.name.startswith(".new."):  # a result being written
                notes["left out, hidden"].add(path)
        elif not path.is_dir():
            yield path
        elif path.resolve() not in parents:  # else it is a link to a folder above
            yield from walk(path, notes, parents)


def find_pairs(dataset, notes=None):
    """Lists a dataset's side-by-side pictures: JPEG and PNG files directly in its splits.

    A split is a folder whose name begins with train, val or test (training, Valid, test2 ...).
    Returns {"train": paths, "val": paths}, sorted, and "test" where there are both val and test;
    without a val, "val" has the pairs of test. `notes`, as for `tell`, gets the unused files.
    """
    folder, folders = dataset_folder(dataset), defaultdict(list)
    notes = defaultdict(set) if notes is None else notes
    for path in walk(folder, notes):
        top, *deeper = path.relative_to(folder).parts
        split, is_picture = SPLIT.match(top), path.suffix.lower() in ENDINGS
        if is_picture and len(deeper) == 1 and split and not split[2]:  # trainA has one side only
            folders[top].append(str(path))
        elif is_picture or deeper:  # dataset.json and the like lie beside the splits
            notes["left out, not a .jpg or .png directly in train/, val/ or test/"].add(path)
    pairs = {SPLIT.match(top)[1].lower(): sorted(paths) for top, paths in folders.items()}
    if len(pairs) < len(folders):
        raise UserError(f"--dataset {dataset}: {listed([*folders])}: keep one folder per split")
    if "val" not in pairs and "test" in pairs:
        pairs["val"] = pairs.pop("test")
    if lacking := " and ".join(f"{s}/" for s in ("train", "val") if s not in pairs):
        raise UserError(f"--dataset {dataset}: no .jpg or .png directly in {lacking}; {CURE}")
    return {split: pairs[split] for split in ("train", "val", "test") if split in pairs}


def refuse_unusable(paths):
    """Decodes ready-made pairs; raises UserError with the names of those that cannot be used."""

    def problem(path):
        with opening(path):
            return read_header(path)[2] or (decode_pair(path) and "")  # TensorFlow decodes it, too

    with filtering_logs():
        found = [*in_threads(problem, paths)]
    if bad := [f"{p} ({getattr(why, 'problem', why)})" for p, why in zip(paths, found) if why]:
        raise UserError(f"cannot be used: {listed(bad)}; {CURE}")


@contextlib.contextmanager
def opening(path):
    """Opens a picture file with Pillow; an error in the block becomes an UnreadableError."""
    try:
        str(path).encode()  # TensorFlow accepts only UTF-8 names
        with Image.open(path) as image:
            tags = image.tag_v2 if image.format == "TIFF" else {}
            if str(path).lower().endswith(RAW) or tags.get(254, 0) & 1:  # 1: a thumbnail
                raise UnreadableError(path, "a camera's raw file: save it as JPEG or PNG")
            if tags.get(262) == 0 and image.mode[0] in "IF":  # Pillow does not invert these
                raise UnreadableError(path, "a TIFF whose 0 is white: save it with 0 as black")
            is_alpha = {1, 2} & {*(tags.get(338) or ())}  # else the band is, e.g., infrared
            image.info["drop"] = tags.get(262) == 2 and tags.get(277, 3) > 3 and not is_alpha
            yield image
    except (UserError, *NO_MEMORY):
        raise
    except Exception as error:  # Pillow reports damage in many ways
        problem = getattr(error, "strerror", "") or f"damaged ({error})"
        raise UnreadableError(path, UNUSABLE.get(type(error), problem)) from error


def read_header(path):
    """Returns a picture's upright (width, height), a remark, and why it cannot be a ready pair."""
    with opening(path) as image:
        turn = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # decodes no pixels
        swap = turn in range(5, 9) and image.format != "TIFF"  # Pillow turns a TIFF itself
        pages = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
        deep, gray_16 = ";16" in str(image.tile), image.mode[0] == "I"
        remarks = [(pages, "only the first page is used")]
        remarks += [(deep and not gray_16, "only the upper 8 of 16 bits are used: rescale if dark")]
        remarks += [(image.info["drop"], "the fourth band, not marked as alpha, is dropped")]
        problems = [(image.format not in {"JPEG", "MPO", "PNG"}, "not JPEG or PNG inside")]
        problems += [(turn in range(2, 9), "turned by EXIF"), (gray_16, "16 bits of gray")]
        problems += [(image.has_transparency_data, "transparent"), (image.width < 2, "too narrow")]
        size = image.size[::-1] if swap else image.size
    return size, *(next((text for true, text in d if true), "") for d in (remarks, problems))


def kept_size(size, training_size=IMAGE_SIZE):
    """Divides (width, height) by the largest integer that leaves at least twice jitter's size."""
    factor = min(size[0] / training_size[1], size[1] / training_size[0]) / (2 * 286 / 256)
    return size[0] // max(1, int(factor)), size[1] // max(1, int(factor))


def read_picture(path, size=None, span=None):
    """Reads a picture of any format, upright, on white: (height, width, 3) uint8.

    `size` is the (width, height) to resize to. `span`, (low, high), becomes 0 and 255 if pixels
    have more than 8 bits; the default is (0, 65535) in 16-bit modes, else the picture's range.
    """
    with opening(path) as image:
        image.draft(None, size and (max(size), max(size)))  # libjpeg decodes at a reduced size
        picture = to_rgb(ImageOps.exif_transpose(image), span)
        picture = picture.resize(size or picture.size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return tf.constant(keras.utils.img_to_array(picture, dtype="uint8"))


def to_rgb(image, span=None):
    """Returns a Pillow image of any mode as RGB; span: as for `read_picture`."""
    if image.mode[0] in "IF":
        low, high = span or ((0, 65535) if ";16" in image.mode else image.getextrema())
        scale = 255.0 / ((high - low) or 1.0)
        image = image.convert("F").point(lambda value: value * scale + (0.5 - low * scale))
    elif image.has_transparency_data and not image.info["drop"]:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_label_map(path, size=None):
    """Returns a label map, and whether it holds colours (0xrrggbb) or, if gray, class numbers.

    The map is (height, width) int32, resized to `size`, (width, height), by nearest neighbour.
    """
    with opening(path) as image:
        upright = ImageOps.exif_transpose(image)
        labels = upright if upright.mode == "L" or upright.mode[0] in "IF" else to_rgb(upright)
        labels = labels.resize(size or labels.size, Image.Resampling.NEAREST)
        pixels = tf.constant(keras.utils.img_to_array(labels, dtype="float32"))
    codes = tf.cast(tf.round(pixels), tf.int32)
    if not float(tf.reduce_max(tf.abs(pixels - tf.cast(codes, tf.float32)))) <= 0.01:
        raise UnreadableError(path, "class numbers with fractions: save whole numbers")
    if bool(tf.reduce_all(codes == codes[..., :1])):  # numbers in three equal channels, too
        return codes[..., 0], False
    return tf.reduce_sum(codes * tf.constant([65536, 256, 1]), axis=-1), True


def paint(codes):
    """Returns (height, width, 3) uint8 of int32 0xrrggbb."""
    return tf.cast(tf.stack([codes // 65536, codes // 256 % 256, codes % 256], axis=-1), tf.uint8)


def nearest(codes, colours, values=None):
    """Returns the colour nearest to each 0xrrggbb code, or its value, and its squared distance."""
    found, places = tf.unique(tf.reshape(codes, [-1]))
    ours, theirs = (tf.cast(paint(part), tf.int32) for part in (found, tf.constant(colours)))
    apart = [tf.reduce_sum((ours - colour) ** 2, axis=-1) for colour in theirs]
    near = tf.gather(values or colours, tf.argmin(apart)), tf.reduce_min(apart, axis=0)
    return [tf.reshape(tf.gather(found, places), tf.shape(codes)) for found in near]


def in_threads(function, items):
    """Yields function(item), or its UnreadableError, in order; shows a bar on a terminal."""
    bar = keras.utils.Progbar(len(items), unit_name="file", verbose=int(sys.stdout.isatty()))
    pool = ThreadPoolExecutor()
    try:
        for future in [pool.submit(function, item) for item in items]:
            error = future.exception()
            bar.add(1)
            yield error if isinstance(error, UnreadableError) else future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # at Ctrl-C, too


# === 12. Command line =======================================================
FILE_ERRORS = (tf.errors.NotFoundError, tf.errors.PermissionDeniedError)
TRAINER = "--out --epochs --fresh --batch-size --steps-per-epoch --seed --precision --devices"


class UserError(Exception):
    """A mistake by the user; the message names the file or flag and the cure."""


class UnreadableError(UserError):
    """A file that is not a picture, or is damaged; `problem` says which, without the path."""

    def __init__(self, path, problem):
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def run_main(main):
    """Runs `main()`. Mistakes that the user can fix end in one line and exit status 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up on the way
    with contextlib.suppress(AttributeError):  # a notebook's stream, or Windows, lacks one of them
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: for letters it cannot show
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends the script quietly
    try:
        return main()
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        if not (message := explain(error)):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {printable(message)}", file=sys.stderr)
        sys.exit(2)


def explain(error):
    """Returns what the user can do about an error, or None for a bug in the code."""
    text = str(error)
    if re.search("No space left|Disk quota|File too large|not enough space", text):  # last: Windows
        return "the disk is full. Make room and run the same command again, without --fresh"
    if isinstance(error, NO_MEMORY):
        return "out of memory. Use a smaller --batch-size, --size or --filters, or free memory"
    if isinstance(error, (OSError, UserError)):
        name = getattr(error, "filename", None)
        return f"{name}: {error.strerror}" if name else text
    first_line = re.sub(r"\{\{.*?\}\} ?", "", error.message).strip().partition("\n")[0]
    if "TF_CONFIG" in os.environ and not isinstance(error, FILE_ERRORS):
        cure = "Start all processes with the same command to continue"
        return f"TF_CONFIG: another process has ended, or cannot be reached. {cure} ({first_line})"
    return first_line if isinstance(error, FILE_ERRORS) else None


def warn(message):
    """Prints a warning in one line."""
    print(f"Warning: {printable(message)}", file=sys.stderr)


def printable(text):
    """Escapes control characters: file names may contain line breaks or terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def deferring_signals():
    """Collects Ctrl-C and SIGTERM in a list instead of stopping; a second one stops."""
    signals = []

    def note(number, frame):
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        signal.signal(getattr(signal, "SIGPIPE", signal.SIGTERM), signal.SIG_IGN)
        if Path("/dev/fd/1").is_fifo():  # Ctrl-C ends `| tee log`, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping after this step ...\n")

    with contextlib.ExitStack() as stack:  # puts the earlier handlers back
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's `&` may ignore Ctrl-C
                stack.callback(signal.signal, number, signal.signal(number, note))
        yield signals


def leave_if_asked(signals, step):
    """Exits if a signal has arrived; the caller has just saved. Workers end with their chief."""
    if signals and is_chief():
        print(f"Stopped at step {step}, saved. Run the same command to continue.", file=sys.stderr)
        leave = os._exit if "TF_CONFIG" in os.environ else sys.exit  # exit would wait for workers
        leave(128 + signals[0])


def number(low, high, kind=float):
    """Returns an argparse type: a number, of int or float kind, from `low` to `high`."""

    def parse(text):
        if low <= (value := kind(text)) <= high:  # argparse reports a ValueError
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not from {low:.10g} to {high:.10g}")

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def image_size(text):
    """Argparse type of --size: (height, width), multiples of 256, since eight blocks halve both."""
    sides = [int(side) if side.isdecimal() else 0 for side in text.split("x")]
    if len(sides) > 2 or any(side not in range(256, 4097, 256) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH: multiples of 256 to 4096")
    return sides[0], sides[-1]


def parser_of(docstring, flags="", **defaults):
    """Returns a parser with a script's docstring as help and the flags that `flags` names."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=docstring, formatter_class=style)
    whole, seeds = number(1, 10**6, int), number(0, 2**31 - 1, int)

    def add(flag, **options):
        if flag in flags.split():
            parser.add_argument(flag, **options)

    add("--out", type=Path, metavar="DIR", help="folder to write (%(default)s)")
    add("--epochs", type=whole, default=10, help="total number of epochs (10)")
    add("--fresh", action="store_true", help="start over; an earlier run in DIR is renamed")
    add("--batch-size", type=whole, help="examples in a batch (%(default)s)")
    add("--steps-per-epoch", type=whole, metavar="N", help="at most N steps, for a quick look")
    add("--seed", type=seeds, default=0, help="random seed (0)")
    precisions = ["float32", "mixed_bfloat16", "mixed_float16"]
    help_text = "arithmetic (float32); mixed is faster on a GPU, or with AVX512-BF16 or AMX"
    add("--precision", choices=precisions, default="float32", help=help_text)
    add("--devices", type=whole, default=1, metavar="N", help="GPUs, or parts of a processor (1)")
    add("--dataset", default="emoji", metavar="NAME|DIR", help="pairs in train/ and val/ (emoji)")
    add("--direction", choices=["AtoB", "BtoA"], help="AtoB: left to right (the dataset's own)")
    help_text = "training size, in multiples of 256 (256x256)"
    add("--size", type=image_size, default=IMAGE_SIZE, metavar="HEIGHTxWIDTH|N", help=help_text)
    help_text = f"channels of the first layer; the others scale: 16, 32, 96, ... ({FILTERS})"
    add("--filters", type=number(1, 256, int), default=FILTERS, metavar="N", help=help_text)
    add("--best", action="store_true", help="use the epoch with the lowest L1, not the last")
    parser.set_defaults(**defaults)
    return parser


def epoch_steps(args, examples):
    """Returns how many batches an epoch has, given the flags and the number of examples."""
    if args.batch_size > examples:
        raise UserError(f"--batch-size {args.batch_size}: there are only {examples} examples")
    return min(examples // args.batch_size, args.steps_per_epoch or examples)


# === 13. Figures ============================================================
def save_figure(figure, path):
    """Writes a Matplotlib figure as PNG, 100 pixels per inch, sized so that its text fits."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")


def save_grid(path, rows, *, titles=(), row_titles=(), scale=1.0):
    """Draws rows of (height, width, 3 or 1) tensors in [-1, 1], all of one size, as a grid.

    `titles` stand above the columns, `row_titles` beside the rows. `scale` is the size of a
    picture's pixel on the page; it shrinks if a side is longer than 512.
    """
    scale *= min(1.0, 512 / max(rows[0][0].shape))
    border = [[2, 2], [2, 2], [0, 0]]
    tiles = [[tf.pad(picture, border, constant_values=0.6) for picture in row] for row in rows]
    page = tf.concat([tf.concat(row, axis=1) for row in tiles], axis=0)
    figure = Figure((scale * page.shape[1] / 100, scale * page.shape[0] / 100))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(tf.clip_by_value(page * 0.5 + 0.5, 0.0, 1.0), cmap="gray", vmin=0, vmax=1)
    height, width = tiles[0][0].shape[:2]  # of a tile
    axis.set_xticks([(n + 0.5) * width for n in range(len(titles))], titles, parse_math=False)
    axis.set_yticks([(n + 0.5) * height for n in range(len(row_titles))], row_titles)
    axis.tick_params(labeltop=True, labelbottom=False, length=0, labelsize=11)
    axis.spines[:].set_visible(False)
    save_figure(figure, path)


def to_image(picture):
    """Returns (1, height, width, 3) in [-1, 1] as a Pillow image, 0 to 255."""
    return keras.utils.array_to_img(tf.round((picture[0] + 1.0) * 127.5), scale=False)


def draw_curves(path, losses, metrics):
    """Draws the rows of losses.csv and metrics.csv, L1 and each score in a panel of its own."""
    names, panels = losses[0].keys() - {"epoch", "step"}, []
    # A second kind of fake, as in stage 2, changes what "cannot tell" means.
    level = None if "d_wrong" in names else ("log 2: cannot tell", math.log(2))
    if "g_l1" in names:
        panels.append(("L1, training", losses, "step", ["g_l1"], None))
    if adversarial := sorted(names - {"g_l1"}):
        panels.append(("adversarial losses, training", losses, "step", adversarial, level))
    for score in ("l1", "psnr", "ssim") if metrics else ():
        level = "the condition itself", metrics[0][f"condition_{score}"]
        panels.append((f"{score.upper()}, validation", metrics, "epoch", [f"val_{score}"], level))
    figure = Figure((12.6, 6.8), layout="constrained")  # `save_figure` crops the empty panels
    for place, (title, table, x, curves, level) in enumerate(panels, start=1):
        axis = figure.add_subplot(2, 3, place)
        for name in curves:
            points = [row[x] for row in table], [row[name] for row in table]
            axis.plot(*points, label=name, linewidth=1, marker="." if len(table) < 40 else None)
        if level:
            axis.axhline(level[1], color="gray", linestyle=":", label=level[0])
        axis.legend(fontsize=9, ncols=2)
        axis.set(title=title, xlabel=x, ymargin=0.2)  # room for the legend
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
    save_figure(figure, path)
