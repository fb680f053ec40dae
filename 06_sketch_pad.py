"""Stage 6: draw, and see it coloured.

A sheet to draw on at the left, and at the right what a generator trained by stage 5
makes of it, each time the pen is lifted. The generator runs as at test time, with the
statistics of the picture itself (Isola et al. 2017, section 3.4).

    python 06_sketch_pad.py                               # a window
    python 06_sketch_pad.py --web                         # http://127.0.0.1:8988
    python 06_sketch_pad.py --sketch drawing.jpg photos/  # no window: files and folders
    python 06_sketch_pad.py --export exported             # SavedModel and TFLite

Needs a trained run, --run (runs/05_pix2pix). Writes under runs/06_sketch_pad, or --out:
sketch_001.png and result_001.png, ... by Save; with --sketch, a picture by each
sketch's name. The first picture is there after 5 seconds, a stroke is coloured in 0.15 s
(2 cores). A file that is exactly twice as wide as high is taken for a pair, and the half
that the run colours is used; others are taken for a drawing or the photograph of one,
and cleaned. The web page can be opened by all who use this computer.
"""

import argparse
import collections
import json
import shutil
import sys
import warnings
from pathlib import Path

from common import (
    IMAGE_SIZE,
    UNet,
    UserError,
    decode_pair,
    decode_picture,
    exif_orientation,
    find_pairs,
    generate,
    list_pictures,
    number,
    refuse_unreadable,
    replacing,
    run_main,
    split_stack,
    stack_pair,
    unreadable,
    without_chatter,
)

import matplotlib
import tensorflow as tf
from matplotlib import pyplot as plt
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.widgets import Button, TextBox

FIGURE = (9.6, 6.4)  # of the pad, in units of 100 pixels
BRUSH = 7.0  # width of a stroke in pixels of 256, as in the training sketches
UNDO = 100  # steps
WORK = 512  # longest side of a picture while it is cleaned
TOLERANCE = 0.01  # of exported networks, in [-1, 1]: one shade of 256
SKETCH = tf.TensorSpec((1, IMAGE_SIZE, IMAGE_SIZE, 3), name="sketch")
EXPORTED = {"saved_model", "generator.tflite"}


# =============================================================================
# The generator
# =============================================================================


def load_generator(run):
    """Loads the generator of a run of stage 5.

    Returns:
        The U-Net, and its --dataset and --direction, as a dict.

    Raises:
        UserError: no run there, of another stage, not ended, or damaged.
    """
    options_file, weights = run / "options.json", run / "generator.weights.h5"
    train = f"python 05_pix2pix_train.py --epochs 10 --out {run}"
    if not options_file.exists():
        raise UserError(f"--run {run}: no trained run there; this makes one: {train}")
    try:
        options = json.loads(options_file.read_text())
        script, flags = options["data"]["script"], options["flags"]
        if script != "05_pix2pix_train.py":
            raise UserError(f"--run {run}: a run of {script}; give one of 05_pix2pix_train.py")
        flags = {name: str(flags[name]) for name in ("--dataset", "--direction")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{options_file}: damaged; give another --run, or train one: {train}") from error
    if not weights.exists():
        raise UserError(f"--run {run}: its training has not ended; end it by the same command as it began")
    generator = UNet(name="generator")
    generator(blank(), training=False)  # the first call makes the weights
    try:
        with without_chatter():
            generator.load_weights(weights)
    except Exception as error:  # HDF5 and Keras know many kinds of damage
        raise UserError(f"{weights}: damaged; the command of its training writes it again") from error
    return generator, flags


def colourer(generator):
    """Returns the forward pass as one traced function: (1, 256, 256, 3) to the same, in [-1, 1]."""
    return tf.function(lambda sketch: generate(generator, sketch), input_signature=[SKETCH])


# =============================================================================
# Sketches: drawn, and read from files
# =============================================================================


def blank():
    """A white sheet, (1, 256, 256, 3)."""
    return tf.ones(SKETCH.shape)


@tf.function(input_signature=[SKETCH, tf.TensorSpec((2,)), tf.TensorSpec((2,))])
def draw_line(sheet, start, end):
    """Draws a black line with round ends, BRUSH wide, its edge smooth over one pixel.

    Args:
        sheet: (1, 256, 256, 3) in [-1, 1].
        start, end: (2,) x and y; whole numbers are the middles of pixels.
    """
    axis = tf.range(IMAGE_SIZE, dtype=tf.float32)
    x, y = tf.meshgrid(axis - start[0], axis - start[1])  # (256, 256) each
    along = end - start
    # How far along the line the nearest point lies, from 0 (start) to 1 (end).
    place = tf.math.divide_no_nan(x * along[0] + y * along[1], tf.reduce_sum(along**2))
    place = tf.clip_by_value(place, 0.0, 1.0)
    distance = tf.sqrt((x - place * along[0]) ** 2 + (y - place * along[1]) ** 2)
    white = tf.clip_by_value(distance - (BRUSH - 1.0) / 2.0, 0.0, 1.0)
    return tf.minimum(sheet, white[tf.newaxis, :, :, tf.newaxis] * 2.0 - 1.0)


def read_sketch(path, direction, as_is):
    """Reads a sketch from a picture file of any size: (1, 256, 256, 3) in [-1, 1].

    Of a pair (exactly twice as wide as high), the half that the direction starts from.
    Else a drawing or a photograph of one, cleaned unless `as_is`, on a white square.

    Raises:
        UserError: not a readable picture.
    """
    for problem in unreadable([path], upright=False).values():
        raise UserError(f"{path}: {problem}")
    picture = turn_upright(decode_picture(path), exif_orientation(Path(path).read_bytes()))
    height, width = picture.shape[:2]
    if width == 2 * height:
        condition, _ = split_stack(stack_pair(picture[:, :height], picture[:, height:], direction))
        return condition[tf.newaxis]
    picture = reduced(picture) / 255.0
    picture = on_square(picture) if as_is else clean_photograph(picture)
    return tf.image.resize(picture, SKETCH.shape[1:3], antialias=True)[tf.newaxis] * 2.0 - 1.0


def turn_upright(picture, orientation):
    """Turns (height, width, 3) upright by its EXIF orientation, 1 to 8."""
    if 5 <= orientation <= 8:
        picture = tf.transpose(picture, (1, 0, 2))
    if orientation in {2, 3, 6, 7}:
        picture = picture[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        picture = picture[::-1]
    return picture


def reduced(picture):
    """Makes (height, width, 3) at most WORK high and wide."""
    scale = min(1.0, WORK / max(picture.shape))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    return tf.image.resize(picture, size, antialias=True)


def on_square(picture):
    """Puts (height, width, channels) in [0, 1] in the middle of a white square."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return 1.0 - tf.image.pad_to_bounding_box(1.0 - picture, top, left, side, side)


def pool(picture, size, kind="AVG"):
    """The mean (or "MAX") of size x size pixels around each of (1, height, width, 1)."""
    return tf.nn.pool(picture, (size, size), kind, padding="SAME")


def clean_photograph(picture):
    """Turns gray or unevenly lit paper to white and ink to black; no ink, all white.

    Args:
        picture: (height, width, 3) in [0, 1], at most WORK high and wide.

    Returns:
        (side, side, 3) in [0, 1].
    """
    size = picture.shape[:2]
    gray = tf.image.rgb_to_grayscale(picture)[tf.newaxis]
    # The paper, on an eighth of the size: the brightest around each place, which fills in all
    # lines, then the darkest of these, which takes back what a slope of light gained by it.
    small = tf.image.resize(pool(gray, 5), [n // 8 + 1 for n in size], antialias=True)
    paper = pool(-pool(-pool(small, 15, "MAX"), 15, "MAX"), 5)
    gray = tf.clip_by_value(gray / tf.maximum(tf.image.resize(paper, size), 0.05), 0.0, 1.0)

    if float(tf.reduce_min(pool(gray, 5) - pool(gray, 25))) > -0.08:  # the paper's grain alone
        return tf.ones((IMAGE_SIZE, IMAGE_SIZE, 3))
    ink = tf.reduce_mean(gray[gray < (1.0 + tf.reduce_min(pool(gray, 3))) / 2.0])
    gray = tf.clip_by_value(((gray - ink) / (1.0 - ink) - 0.15) / 0.7, 0.0, 1.0)
    return tf.image.grayscale_to_rgb(thicken(on_square(gray[0])))


def thicken(gray):
    """Widens lines that are thinner than the training sketches' to BRUSH.

    A line that is w wide has w + 2 after one pixel was added on either side; so the
    two areas tell w.

    Args:
        gray: (side, side, 1) in [0, 1], black on white.
    """
    # Steeper, lest what is left of the paper's grain grows with the lines.
    ink = tf.clip_by_value((0.75 - gray[tf.newaxis]) / 0.5, 0.0, 1.0)
    area = tf.reduce_sum(ink)
    width = float(2.0 * area / (tf.reduce_sum(pool(ink, 3, "MAX")) - area + 1.0))
    wanted = BRUSH * gray.shape[0] / IMAGE_SIZE
    if width > 0.6 * wanted:
        return gray
    radius = round((wanted - width) / 2.0)
    axis = tf.range(-radius, radius + 1)
    disk = tf.where(axis[:, tf.newaxis] ** 2 + axis**2 <= radius**2, 0.0, -1.0)[..., tf.newaxis]
    return 1.0 - tf.nn.dilation2d(ink, disk, [1] * 4, "SAME", "NHWC", [1] * 4)[0]


def write_picture(path, picture):
    """Writes (1, 256, 256, 3) in [-1, 1] as PNG."""
    tf.io.write_file(str(path), tf.io.encode_png(tf.cast(tf.round((picture[0] + 1.0) * 127.5), tf.uint8)))


def planned(sources, out, force):
    """Returns {result: sketch}, paths, of files and the pictures in folders: names are kept.

    Raises:
        UserError: a file is unreadable, its result exists (without `force`), or two
            would have the same.
    """
    paths = []
    for source in sources:
        if not source.exists():
            raise UserError(f"--sketch {source}: no such file or folder")
        paths += list_pictures(source) if source.is_dir() else [str(source)]
        if not paths:
            raise UserError(f"--sketch {source}: no .jpg, .jpeg or .png in it")
    paths = list(dict.fromkeys(paths))
    refuse_unreadable("--sketch", unreadable(paths, upright=False))
    plan = {}
    for path in paths:
        result = out / f"{Path(path).stem}.png"
        if result in plan:
            raise UserError(f"--sketch {path}: {plan[result]} would have the same result, {result}")
        if result.exists() and (not force or result.samefile(path)):
            raise UserError(f"{result}: is there already; give another --out, or --force if it is no sketch")
        plan[result] = path
    return plan


def colour_files(plan, colour, direction, as_is):
    """Colours the files of a plan, one after the other."""
    for result, path in plan.items():
        picture = colour(read_sketch(path, direction, as_is))
        result.parent.mkdir(parents=True, exist_ok=True)
        with replacing(result) as temporary:
            write_picture(temporary, picture)
        print(result, flush=True)


# =============================================================================
# Export
# =============================================================================


def fix_dropout(generator, seed=0):
    """Replaces dropout by what `generate` would drop: TFLite has no such random numbers."""
    variables = list(generator.non_trainable_variables)

    def fixed(layer):
        state = layer.seed_generator.state
        seeds = tf.constant([seed, next(n for n, v in enumerate(variables) if v is state)], state.dtype)

        def call(x, training):
            with tf.init_scope():  # once, while it is traced: a constant of the graph
                mask, _ = layer.stateless_call([], [seeds], tf.ones(x.shape), training=training)
            return x * mask  # 0 or 2

        return call

    for block in generator.decoder:
        block.dropout = block.dropout and fixed(block.dropout)


def refuse_taken(folder, force):
    """Raises UserError if the folder exists; with `force`, if it holds anything but an export."""
    if folder.exists() and not force:
        raise UserError(f"--export {folder}: is there already; give --force, or another folder")
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= EXPORTED):
        raise UserError(f"--export {folder}: holds other things; give another folder")


def export(generator, folder):
    """Writes saved_model/ and generator.tflite, (1, 256, 256, 3) to the same, in [-1, 1].

    Both run as testing does. Signature "serving_default": "sketch" to "picture".

    Raises:
        UserError: one of them draws another picture than Keras.
    """
    drawing = blank()
    for corner in ([60.0, 70.0], [200.0, 90.0], [130.0, 210.0]):
        drawing = draw_line(drawing, [128.0, 128.0], corner)
    wanted = generate(generator, drawing)
    fix_dropout(generator)
    module = tf.Module()
    module.kept = [variable.value for variable in generator.variables]
    module.call = tf.function(lambda sketch: {"picture": generate(generator, sketch)}, [SKETCH])

    aside = folder.with_name(f".new.{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with without_chatter(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
            saved, lite = str(aside / "saved_model"), aside / "generator.tflite"
            tf.saved_model.save(module, saved, signatures={"serving_default": module.call})
            lite.write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())
            runners = {
                "SavedModel": tf.saved_model.load(saved).signatures["serving_default"],
                "TFLite": tf.lite.Interpreter(str(lite)).get_signature_runner("serving_default"),
            }
            pictures = {name: runner(sketch=drawing)["picture"] for name, runner in runners.items()}
        for name, picture in pictures.items():
            off = float(tf.reduce_max(tf.abs(picture - wanted)))
            print(f"{name}: differs from Keras by {off:.1g} at most (allowed: {TOLERANCE}, of -1 to 1)")
            if not off <= TOLERANCE:
                raise UserError(f"--export {folder}: {name} draws another picture; nothing is written")
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print("\n".join(str(folder / name) for name in sorted(EXPORTED)))


# =============================================================================
# The pad
# =============================================================================


class SketchPad:
    """A sheet to draw on, the coloured picture beside it, buttons and keys.

    Args:
        figure: an empty figure of any Matplotlib backend.
        colour: (1, 256, 256, 3) in [-1, 1] to the same: the generator.
        flags: of the run, for the direction and the dataset of the examples.
        out: folder to save in.
        as_is: whether loaded pictures stay as they are.
    """

    def __init__(self, figure, colour, flags, out, as_is=False):
        self.figure, self.colour, self.flags, self.out, self.as_is = figure, colour, flags, out, as_is
        self.sheets = collections.deque([blank()], maxlen=UNDO + 1)  # the last one is shown
        self.stroke = None  # while the pen is down: the sheet with the stroke so far
        self.place = None  # where the pen is, (2,)
        self.examples = 0  # shown so far

        left, right = (figure.add_axes((x, 0.24, 0.45, 0.68)) for x in (0.035, 0.515))
        for axis, title in ((left, "draw here"), (right, "coloured")):
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=11)
        self.sketch, self.picture = (axis.imshow(to_rgb(blank())) for axis in (left, right))
        actions = {"Undo (z)": self.undo, "Clear (c)": self.clear}
        actions |= {"Next example (n)": self.next_example, "Save (s)": self.save}
        self.keys = {name[-2]: action for name, action in actions.items()}
        self.buttons = []  # a button that is not kept does nothing
        for place, (name, action) in enumerate(actions.items()):
            button = Button(figure.add_axes((0.035 + 0.2367 * place, 0.135, 0.22, 0.065)), name)
            button.on_clicked(lambda event, action=action: action())
            self.buttons.append(button)
        self.path = TextBox(figure.add_axes((0.135, 0.075, 0.83, 0.045)), "Load file ")
        self.path.on_submit(self.load)
        self.message = figure.text(0.035, 0.035, "", fontsize=9, va="center", wrap=True, parse_math=False)

        events = {"button_press": self.press, "motion_notify": self.move, "button_release": self.release}
        events |= {"key_press": self.key}
        for name, action in events.items():
            figure.canvas.mpl_connect(f"{name}_event", action)
        self.show(blank())

    def say(self, words):
        self.message.set_text(words)
        self.figure.canvas.draw_idle()

    def show(self, sheet, words=""):
        """Puts a sheet on the left and what the generator makes of it on the right."""
        self.sketch.set_data(to_rgb(sheet))
        self.coloured = self.colour(sheet)
        self.picture.set_data(to_rgb(self.coloured))
        self.say(words)

    def put(self, sheet, words=""):
        """Shows a new sheet; Undo goes back from it. One like the last leaves no trace."""
        if bool(tf.reduce_any(sheet != self.sheets[-1])):
            self.sheets.append(sheet)
        self.show(self.sheets[-1], words)

    def press(self, event):
        if event.button == 1 and event.inaxes is self.sketch.axes:
            self.stroke, self.place = self.sheets[-1], self.position(event)
            self.draw_to(self.place)  # a click makes a dot

    def move(self, event):
        if self.stroke is None:
            return
        if 1 in event.buttons:
            self.draw_to(self.position(event))
        else:  # the button was let go outside of the window
            self.lift()

    def release(self, event):
        if self.stroke is not None and event.button == 1:
            self.draw_to(self.position(event))
            self.lift()

    def position(self, event):
        """Where the mouse is on the sheet, (2,) in pixels of 256; off the sheet, too."""
        x, y = self.sketch.axes.transData.inverted().transform((event.x, event.y))
        return tf.constant([x, y], tf.float32)

    def draw_to(self, place):
        """Draws on, and shows the sheet alone: one line, however long the stroke."""
        self.stroke = draw_line(self.stroke, self.place, place)
        self.place = place
        self.sketch.set_data(to_rgb(self.stroke))
        self.figure.canvas.draw_idle()

    def lift(self):
        sheet, self.stroke = self.stroke, None
        self.put(sheet)

    def key(self, event):
        if event.key in self.keys and not self.path.capturekeystrokes and self.stroke is None:
            self.keys[event.key]()

    def undo(self):
        if len(self.sheets) > 1:
            self.sheets.pop()
        self.show(self.sheets[-1])

    def clear(self):
        self.put(blank())

    def load(self, path):
        """Takes a file's picture for the sheet; called by the text box, also when it is left."""
        if not path.strip():
            return
        try:
            path = str(Path(path.strip()).expanduser())
            sheet = read_sketch(path, self.flags["--direction"], self.as_is)
        except (UserError, OSError) as error:
            self.say(str(error))
            return
        self.path.set_val("")
        self.path.stop_typing()
        self.put(sheet, f"{path}: loaded")

    def next_example(self):
        """Takes the condition of the dataset's next validation pair."""
        try:
            paths = find_pairs(self.flags["--dataset"])["val"]
            path = paths[self.examples % len(paths)]
            refuse_unreadable(f"--dataset {self.flags['--dataset']}", unreadable([path]))
            stack = stack_pair(*decode_pair(path), self.flags["--direction"])
        except (UserError, OSError) as error:
            self.say(f"No example: {error}")
            return
        self.examples += 1
        self.put(split_stack(stack)[0][tf.newaxis], f"{path}, {self.examples} of {len(paths)}")

    def save(self):
        """Writes sketch_001.png and result_001.png, or with the first number that is free."""
        count = 1
        while any((self.out / f"{name}_{count:03d}.png").exists() for name in ("sketch", "result")):
            count += 1
        sketch, result = (self.out / f"{name}_{count:03d}.png" for name in ("sketch", "result"))
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with replacing(sketch) as new_sketch, replacing(result) as new_result:
                write_picture(new_sketch, self.sheets[-1])
                write_picture(new_result, self.coloured)
        except (OSError, tf.errors.OpError) as error:
            self.say(f"Not saved: {error}")
            return
        print(f"{sketch}\n{result}", flush=True)
        self.say(f"Saved: {sketch}, {result}")


def to_rgb(picture):
    """(1, 256, 256, 3) in [-1, 1] as Matplotlib takes it."""
    return tf.clip_by_value(picture[0] * 0.5 + 0.5, 0.0, 1.0)


def use_web(port):
    """Has Matplotlib serve its figure at 127.0.0.1 alone; returns the function that waits for the end.

    Raises:
        UserError: tornado is missing, or the port is taken.
    """
    address = {"webagg.address": "127.0.0.1", "webagg.port": port, "webagg.port_retries": 1}
    matplotlib.rcParams.update(address)
    try:
        plt.switch_backend("webagg")
    except (ImportError, RuntimeError) as error:
        cure = f"{sys.executable} -m pip install -r requirements-web.txt"
        raise UserError(f"--web: needs the package tornado: {cure}") from error
    from matplotlib.backends.backend_webagg import WebAggApplication, core  # noqa: PLC0415

    core.NavigationToolbar2WebAgg.toolitems = []  # nothing to pan or zoom
    try:
        WebAggApplication.initialize()
    except (OSError, SystemExit) as error:
        raise UserError(f"--port {port}: taken, or not allowed; give another --port") from error
    print(f"http://127.0.0.1:{port}", flush=True)
    return WebAggApplication.start


def open_pad(colour, flags, args):
    """Opens the pad in a window, or in the browser where there is none; returns when it is closed."""
    if args.load:
        sheet = read_sketch(str(args.load), flags["--direction"], args.as_is)
    matplotlib.rcParams["toolbar"] = "None"
    windows = set(backend_registry.list_builtin(BackendFilter.INTERACTIVE)) - {"webagg", "nbagg"}
    wait = plt.show
    if args.web or plt.get_backend().lower() not in windows:
        if not args.web:
            print("No display, or no toolkit for windows (tkinter): open this in a web browser.")
        wait = use_web(args.port)
    figure = plt.figure("Sketch pad", figsize=FIGURE, dpi=100)
    # Matplotlib's own keys would save, zoom and quit.
    figure.canvas.mpl_disconnect(figure.canvas.manager.key_press_handler_id)
    if wait is not plt.show:
        # WebAgg sends what changed alone, and browsers skip a frame when the next one is there, so
        # that pieces of lines went missing. A figure that is not opaque is sent whole each time.
        figure.patch.set_alpha(0.99)
    pad = SketchPad(figure, colour, flags, args.out, args.as_is)
    if args.load:
        pad.put(sheet)
    wait()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    runs = Path("runs")
    add("--run", type=Path, default=runs / "05_pix2pix", metavar="DIR", help="trained (runs/05_pix2pix)")
    out = runs / "06_sketch_pad"
    add("--out", type=Path, default=out, metavar="DIR", help=f"folder of what is written ({out})")
    add("--web", action="store_true", help="in a web browser, also where there is a display")
    add("--port", type=number(1, 65535, int), default=8988, help="of the web page (8988)")
    add("--load", type=Path, metavar="FILE", help="a picture to begin with")
    add("--as-is", action="store_true", help="do not clean pictures")
    add("--force", action="store_true", help="let --sketch and --export overwrite earlier results")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--sketch", type=Path, nargs="+", metavar="FILE", help="colour files; no pad")
    instead.add_argument("--export", type=Path, metavar="DIR", help="write SavedModel and TFLite; no pad")
    args = parser.parse_args()
    if (args.sketch or args.export) and (args.load or args.web):
        parser.error("--load and --web are of the pad: not with --sketch or --export")

    if args.sketch:
        plan = planned(args.sketch, args.out, args.force)  # mistakes first: the network takes a while
    elif args.export:
        args.export = args.export.resolve()
        refuse_taken(args.export, args.force)
    generator, flags = load_generator(args.run)
    if args.sketch:
        colour_files(plan, colourer(generator), flags["--direction"], args.as_is)
    elif args.export:
        export(generator, args.export)
    else:
        open_pad(colourer(generator), flags, args)


if __name__ == "__main__":
    run_main(main)
