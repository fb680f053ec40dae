"""Stage 8: take the network elsewhere.

A program that colours sketches, on a server or a phone, needs the trained generator but not
this code. So this script writes the graph and the weights as a SavedModel, which TensorFlow
runs, and as a TFLite file, for small devices and browsers. Both run as at test time: each
picture is normalised by its own statistics (Isola et al. 2017, section 3.3), and dropout drops
the same values each time. Both must draw Keras' picture, or the folder is not written.

    python 08_export.py                                  # exports runs/05_pix2pix
    python 08_export.py --run runs/mine --out exported
    python 08_export.py --precision int8                 # a TFLite file of a quarter the size

Writes saved_model/ and generator.tflite, 220 MB each, under runs/08_export, or --out, in 15
seconds (2 cores). generator.tflite takes 110 MB with --precision float16, and 55 MB with int8,
whose pictures may be a few shades of 255 off. Both take pictures of the run's training size: the
SavedModel takes any number at once, the TFLite file takes one. These lines run them in any
program that has TensorFlow. Colours go from -1 (black) to 1 (white), and the condition here
is a white sheet:

    import tensorflow as tf
    condition = tf.ones((1, 256, 256, 3))
    saved_model = tf.saved_model.load("runs/08_export/saved_model").signatures["serving_default"]
    tflite = tf.lite.Interpreter("runs/08_export/generator.tflite").get_signature_runner()
    pictures = [run(condition=condition)["picture"] for run in (saved_model, tflite)]
"""

import os
import re
from pathlib import Path

import common
from common import difference, generate, to_module, to_tflite

import keras
import tensorflow as tf
from PIL import Image, ImageDraw

ALLOWED = {"float32": (1.0, 1.0), "float16": (1.0, 1.0), "int8": (1.0, 16.0)}  # mean, most shades
FILES = {"saved_model", "generator.tflite"}


def refuse_taken(folder, force):
    """Raises UserError if the folder exists; with `force`, if it holds anything but an export."""
    if re.search(r"[\[*?\ud800-\udfff]", str(folder.resolve())):  # a pattern, or no UTF-8
        raise common.UserError(f"--out {folder}: TensorFlow needs a UTF-8 path without [, * and ?")
    if not os.path.lexists(folder):
        return
    if not force:
        raise common.UserError(f"--out {folder}: exists already; add --force, or another --out")
    if not (folder.is_dir() and {path.name for path in folder.iterdir()} <= FILES):
        raise common.UserError(f"--out {folder}: holds other things; give another folder")


def ring(size):
    """Returns a condition to test the files with: a black ring off centre, (1, *size, 3)."""
    image = Image.new("RGB", size[::-1], "white")
    ImageDraw.Draw(image).ellipse((60, 30, 220, 190), outline="black", width=7)
    return tf.constant(keras.utils.img_to_array(image))[tf.newaxis] / 127.5 - 1.0


def write_files(generator, size, precision, folder):
    """Writes saved_model/ and generator.tflite.

    Returns {format: function}: each runs its file, from condition=... to {"picture": ...}.
    """
    saved, module = str(folder / "saved_model"), to_module(generator, size)

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3), name="condition")])
    def colour_all(condition):
        drawn = tf.map_fn(lambda one: module.call(one[tf.newaxis])["picture"][0], condition)
        return {"picture": drawn}

    with common.filtering_logs():
        tf.saved_model.save(module, saved, signatures=colour_all)
    data, run_tflite = to_tflite(generator, size, precision)
    (folder / "generator.tflite").write_bytes(data)
    saved_model = tf.saved_model.load(saved).signatures["serving_default"]
    return {"SavedModel": saved_model, "TFLite": run_tflite}


def export(generator, size, precision, folder):
    """Writes a generator in both formats; an earlier export in the folder is replaced at the end.

    `size` is the (height, width) of the pictures that they take, `precision` the type of the TFLite
    file's weights. Raises UserError if a picture of one of them differs from Keras'.
    """
    condition = ring(size)
    picture = generate(generator, condition)
    with common.replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, run in write_files(generator, size, precision, temporary).items():
            mean, most = difference(run, [condition], [picture])
            print(f"{name}: {mean:.2g} shades of 255 from Keras' picture, {most:.2g} at most")
            allowed = ALLOWED[precision if name == "TFLite" else "float32"]
            if not (mean <= allowed[0] and most <= allowed[1]):  # this way round, NaN fails, too
                raise common.UserError(f"{folder}: {name} differs from Keras' picture; not written")


def main(argv=None):
    parser = common.parser_of(__doc__, "--out --best", out="runs/08_export")
    add, run = parser.add_argument, Path("runs/05_pix2pix")
    add("--run", type=Path, default=run, metavar="DIR", help=f"a trained run ({run})")
    add("--precision", choices=[*ALLOWED], default="float32", help="TFLite's weights (float32)")
    add("--force", action="store_true", help="replace an earlier export in the folder")
    args = parser.parse_args(argv)

    refuse_taken(args.out, args.force)  # before the loading, which takes a while
    generator, flags = common.load_generator(args.run, args.best)
    export(generator, flags["--size"], args.precision, args.out.resolve())  # follows a link
    print("\n".join(str(args.out / name) for name in sorted(FILES)))


if __name__ == "__main__":
    common.run_main(main)
