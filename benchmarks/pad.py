"""Stage 6: how soon is a stroke coloured, and what does cleaning do for photographs?

    python benchmarks/pad.py runs/05_pix2pix

The first in a browser, with a mouse, over what the network itself takes; it needs Chromium.
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
sys.path[:0] = [str(HERE), str(HERE / "tests")]

import common  # noqa: E402

import tensorflow as tf  # noqa: E402
from test_browser import BROWSER, Page, serving  # noqa: E402

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


# Notes when a dot was made, and when its picture is there. For a longer stroke the last piece
# counts, which reaches the page when the pen is lifted at the latest; most of it is coloured by then.
WATCH = """globalThis.inked = globalThis.painted = 0;
$("sheet").addEventListener("pointerdown", (event) => { inked = event.timeStamp; }, true);
const { show } = pictures[0];
pictures[0].show = async (blob) => { await show(blob); painted = performance.now(); };"""
NETWORK = "performance.getEntriesByType('resource').at(-1).serverTiming[0].duration"


def lift_to_picture(run, dots=30):
    """Returns, for each of some dots, the milliseconds to its picture, and the network's share of them."""
    times = []
    with serving(stage6.Pad([stage6.load_run(run)])) as pad, Page.opened(pad.address) as page:
        page.run(WATCH)
        for n in range(dots):
            page.draw((128, 5 + 8 * n))
            page.settle()
            times.append((page.run("painted - inked"), page.run(NETWORK)))
            page.run("performance.clearResourceTimings()")  # a page keeps the first 250 alone
    return times


def main():
    run = Path(sys.argv[1])
    paths = common.find_pairs("openmoji")["val"][::3]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "06_sketch_pad.py", "--run", run, "--out", folder]
        started = time.perf_counter()
        subprocess.run([*command, "--pairs", "--colour", paths[0]], stdout=subprocess.DEVNULL, check=True)
        print(f"command to first picture: {time.perf_counter() - started:.1f} s")

    generator, flags = common.load_generator(run)
    colour = stage6.make_colour_function(generator, common.IMAGE_SIZE)
    if BROWSER:
        times = lift_to_picture(run)
        for name, values in (
            ("pen lifted to picture", [total for total, _ in times]),
            ("the network alone", [network for _, network in times]),
            ("all but the network", [total - network for total, network in times]),
        ):
            values.sort()
            print(f"{name}: median {values[len(values) // 2]:.0f} ms, longest {values[-1]:.0f} ms")

    widen = stage6.thicken
    for thinner in (0.0, 1.5, 2.5):
        errors = {"as it is": 0.0, "cleaned": 0.0, "cleaned, widened": 0.0}
        for n, path in enumerate(paths):
            stack = common.stack_pair(*common.decode_pair(path), "AtoB")
            sketch, _ = common.split_stack(common.resize(stack))
            photo = tf.cast(photograph(sketch[tf.newaxis], thinner, n), tf.float32) / 255.0
            for name in errors:
                stage6.thicken = widen if name == "cleaned, widened" else lambda gray, line_width: gray
                cleaned = photo
                if name != "as it is":
                    cleaned = stage6.clean_photograph(stage6.limit_size(photo), stage6.BRUSH)
                cleaned = common.resize(cleaned)[tf.newaxis] * 2.0 - 1.0
                difference = tf.abs(colour(cleaned) - colour(sketch[tf.newaxis]))
                errors[name] += float(tf.reduce_mean(difference)) / len(paths)
        row = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
        print(f"lines thinned by {2 * thinner:.0f} of 7 pixels: L1 {row}")


if __name__ == "__main__":
    main()
