"""Stage 8: take the network elsewhere.

A program that is to colour sketches, on a server or a telephone, needs the trained
generator but not this code: so its graph and weights are written as a SavedModel, which
TensorFlow runs, and as a TFLite file, for small devices. Both work as testing does: with
the statistics of the picture itself (Isola et al. 2017, section 3.3), and with dropout,
which drops the same values each time. Both have to draw the same picture as Keras before
the folder gets its place.

    python 08_export.py                                  # of runs/05_pix2pix
    python 08_export.py --run runs/mine --out exported

Writes under runs/08_export, or --out: saved_model/ and generator.tflite, 220 MB each, in
15 seconds (2 cores). They take pictures of the size that the run was trained at. These
lines run them in any program that has TensorFlow; colours go from -1 (black) to 1 (white),
and the condition here is a white sheet:

    import tensorflow as tf
    condition = tf.ones((1, 256, 256, 3))
    saved_model = tf.saved_model.load("runs/08_export/saved_model").signatures["serving_default"]
    tflite = tf.lite.Interpreter("runs/08_export/generator.tflite").get_signature_runner()
    pictures = [run(condition=condition)["picture"] for run in (saved_model, tflite)]
"""

import os
import shutil
import warnings
from pathlib import Path

import common
from common import generate

import tensorflow as tf

TOLERANCE = 0.01  # how far a picture may be from Keras' own, in [-1, 1]: about one shade of 256
SIGNATURE = "serving_default"  # the name that TensorFlow's own servers look for
FILES = {"saved_model", "generator.tflite"}


# =============================================================================
# The network as a graph
# =============================================================================


def to_module(generator, size):
    """Returns a tf.Module whose `call` is the generator's forward pass, and which has its weights.

    The signature is {"condition": (1, *size, 3)} to {"picture": (1, *size, 3)}, in [-1, 1];
    size: (height, width). The generator's dropout is fixed from then on.
    """
    condition = tf.TensorSpec((1, *size, 3), name="condition")
    fix_dropout(generator)
    module = tf.Module()
    module.weights = [variable.value for variable in generator.variables]
    module.call = tf.function(lambda condition: {"picture": generate(generator, condition)}, [condition])
    return module


def fix_dropout(generator, seed=0):
    """Replaces dropout by what `generate` would drop, since TFLite has no such random numbers."""
    variables = generator.non_trainable_variables

    def fixed(layer):
        state = layer.seed_generator.state
        (index,) = (index for index, variable in enumerate(variables) if variable is state)
        seeds = tf.constant([seed, index], state.dtype)

        def call(x, training):
            with tf.init_scope():  # once, while it is traced: a constant of the graph
                mask, _ = layer.stateless_call([], [seeds], tf.ones(x.shape), training=training)
            return x * mask  # 0 or 2

        return call

    for block in generator.decoder:
        if block.dropout:
            block.dropout = fixed(block.dropout)


# =============================================================================
# The files
# =============================================================================


def refuse_taken(folder, force):
    """Raises UserError if the folder exists; with `force`, if it holds anything but an export."""
    if not os.path.lexists(folder):
        return
    if not force:
        raise common.UserError(f"--out {folder}: is there already; give --force, or another folder")
    if not (folder.is_dir() and {path.name for path in folder.iterdir()} <= FILES):
        raise common.UserError(f"--out {folder}: holds other things; give another folder")


def write_files(module, folder):
    """Writes saved_model/ and generator.tflite.

    Returns:
        {format: function}, which run what was written: condition=... to {"picture": ...}.
    """
    saved, lite = str(folder / "saved_model"), folder / "generator.tflite"
    tf.saved_model.save(module, saved, signatures={SIGNATURE: module.call})
    lite.write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())
    return {
        "SavedModel": tf.saved_model.load(saved).signatures[SIGNATURE],
        "TFLite": tf.lite.Interpreter(str(lite)).get_signature_runner(SIGNATURE),
    }


def ring(size):
    """Returns a condition to try the files with: a black ring off the middle, (1, height, width, 3)."""
    height, width = size
    x, y = tf.meshgrid(tf.range(float(width)) - 140.0, tf.range(float(height)) - 110.0)  # (height, width)
    distance = tf.abs(tf.sqrt(x**2 + y**2) - 80.0)  # from a circle
    white = tf.clip_by_value(distance - 3.0, 0.0, 1.0)
    return tf.broadcast_to(white[tf.newaxis, :, :, tf.newaxis] * 2.0 - 1.0, (1, *size, 3))


def export(generator, size, folder):
    """Writes a generator in both formats; an earlier export in the folder is replaced at the end.

    Args:
        size: (height, width) of the pictures that they take.

    Raises:
        UserError: one of them draws another picture than Keras.
    """
    condition = ring(size)
    wanted = generate(generator, condition)
    temporary = folder.with_name(f".new.{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with common.filtering_logs(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
            runners = write_files(to_module(generator, size), temporary)
            pictures = {name: run(condition=condition)["picture"] for name, run in runners.items()}
        del runners  # they hold the files open, which Windows then would not rename
        for name, picture in pictures.items():
            difference = float(tf.reduce_max(tf.abs(picture - wanted)))
            allowed = f"allowed: {TOLERANCE}, of -1 to 1"
            print(f"{name}: differs from Keras by {difference:.1g} at most ({allowed})")
            if not difference <= TOLERANCE:  # this way round, lest NaN pass
                raise common.UserError(f"--out {folder}: {name} draws another picture; nothing is written")
        if folder.exists():
            shutil.rmtree(folder)
        common.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main():
    parser = common.Parser(__doc__)
    run, out = Path("runs", "05_pix2pix"), Path("runs", "08_export")
    add = parser.first.add_argument
    add("--run", type=common.file_path, default=run, metavar="DIR", help=f"a trained run ({run})")
    add("--out", type=common.file_path, default=out, metavar="DIR", help=f"folder to write ({out})")
    add("--force", action="store_true", help="replace an earlier export in the folder")
    args = parser.parse_args()
    folder = Path(os.path.realpath(args.out))  # of a link, what it leads to is replaced

    refuse_taken(folder, args.force)  # mistakes first: loading takes a while
    generator, flags = common.load_generator(args.run)
    export(generator, common.image_size(flags["--size"]), folder)
    print("\n".join(str(args.out / name) for name in sorted(FILES)))


if __name__ == "__main__":
    common.run_main(main)
