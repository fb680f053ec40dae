"""Stage 6: how soon is a stroke coloured, and what does cleaning do for photographs?

    python benchmarks/pad.py runs/05_pix2pix

Photographs are made of every third validation sketch: lines thinned, light uneven,
paper yellow, noise. The picture made of each is compared with the one made of the sketch.
"""

import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402

import tensorflow as tf  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

stage6 = importlib.import_module("06_sketch_pad")
SIZE = 1000  # of a photograph


def photograph(sketch, thinner, seed):
    """Returns a photograph (1000, 1000, 3) uint8 of a sketch (1, 256, 256, 3) in [-1, 1]."""
    ink = tf.image.resize(0.5 - 0.5 * sketch[..., :1], (SIZE, SIZE), method="bicubic")
    window = 1 + 2 * round(thinner * SIZE / 256)  # thinner: pixels of 256, from either side
    ink = -stage6.pool(-tf.clip_by_value(ink, 0, 1), window, "MAX")[0]
    axis = tf.linspace(0.0, 1.0, SIZE)
    light = 0.45 + 0.2 * (axis * (1.0 + axis[:, tf.newaxis]))[..., tf.newaxis]
    noise = 0.03 * tf.random.stateless_normal((SIZE, SIZE, 1), (seed, 0))
    picture = (light * (1.0 - 0.8 * ink) + noise) * tf.constant([1.0, 0.97, 0.88])
    return tf.cast(tf.clip_by_value(picture, 0, 1) * 255.0, tf.uint8)


def main():
    run = Path(sys.argv[1])
    paths = common.find_pairs("openmoji")["val"][::3]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "06_sketch_pad.py", "--run", run, "--out", folder, "--sketch"]
        started = time.perf_counter()
        subprocess.run([*command, paths[0]], stdout=subprocess.DEVNULL, check=True)
        print(f"command to first picture: {time.perf_counter() - started:.1f} s")

    generator, flags = common.load_generator(run)
    colour = stage6.make_colour_function(generator)
    figure = Figure(stage6.FIGURE, dpi=100)
    FigureCanvasAgg(figure)
    pad = stage6.SketchPad(figure, colour, flags, Path())
    seconds = []
    for n in range(20):
        pad.stroke, pad.pen = pad.sheets[-1], tf.constant([20.0, 10.0 * n])
        pad.draw_to(tf.constant([200.0, 10.0 * n]))
        started = time.perf_counter()
        pad.lift_pen()
        figure.canvas.draw()
        seconds.append(time.perf_counter() - started)
    print(f"pen lifted to picture drawn: median {sorted(seconds)[10]:.2f} s, longest {max(seconds):.2f} s")

    widen = stage6.thicken
    for thinner in (0.0, 1.5, 2.5):
        errors = {"as it is": 0.0, "cleaned": 0.0, "cleaned, widened": 0.0}
        for n, path in enumerate(paths):
            stack = common.stack_pair(*common.decode_pair(path), "AtoB")
            sketch, _ = common.split_stack(common.resize(stack))
            photo = tf.cast(photograph(sketch[tf.newaxis], thinner, n), tf.float32) / 255.0
            for name in errors:
                stage6.thicken = widen if name == "cleaned, widened" else lambda gray: gray
                cleaned = photo if name == "as it is" else stage6.clean_photograph(stage6.limit_size(photo))
                cleaned = common.resize(cleaned)[tf.newaxis] * 2.0 - 1.0
                difference = tf.abs(colour(cleaned) - colour(sketch[tf.newaxis]))
                errors[name] += float(tf.reduce_mean(difference)) / len(paths)
        row = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
        print(f"lines thinned by {2 * thinner:.0f} of 7 pixels: L1 {row}")


if __name__ == "__main__":
    main()
