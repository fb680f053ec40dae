"""Stage 6: draw, and see it coloured.

A sheet to draw on at the left, and at the right what a generator trained by stage 5
makes of it, each time the pen is lifted. The generator runs as at test time, with the
statistics of the picture itself (Isola et al. 2017, section 3.4).

    python 06_sketch_pad.py                               # a window
    python 06_sketch_pad.py --web                         # http://127.0.0.1:8988
    python 06_sketch_pad.py --colour drawing.jpg photos/  # no window: files and folders

Needs a trained run, --run (runs/05_pix2pix). Writes under runs/06_sketch_pad, or --out:
sketch_001.png and result_001.png, ... by Save; with --colour, a picture by each
file's name. The first picture is there after 5 seconds, a stroke is coloured in 0.15 s
(2 cores). A file is treated as the run's training treated its conditions: squashed to a
square (the result has the file's own proportions), label maps without mixing colours. For a
run on sketches it is taken for a drawing or the photograph of one, and cleaned. --pairs says
that the files are pairs, of which the half is used that the run colours.
The web page can be opened by all who use this computer.
"""

import argparse
import collections
import functools
import math
import os
import sys
from pathlib import Path

import common
from common import IMAGE_SIZE, decode_pair, decode_picture, generate, resize, split_stack, stack_pair

import keras
import matplotlib
import tensorflow as tf
from matplotlib import pyplot as plt
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.widgets import Button, TextBox
from PIL import Image

FIGURE = (9.6, 6.4)  # of the pad, in units of 100 pixels
BRUSH = 7.0  # width of a stroke in pixels of 256, where the run does not say
UNDO = 100  # steps
WORK = 512  # longest side of a picture while it is cleaned
SHEET = tf.TensorSpec((1, IMAGE_SIZE, IMAGE_SIZE, 3), name="sheet")


# =============================================================================
# Sketches: drawn, read from files, and coloured
# =============================================================================


def blank():
    """Returns a white sheet, (1, 256, 256, 3)."""
    return tf.ones(SHEET.shape)


@tf.function(input_signature=[SHEET, tf.TensorSpec((2,)), tf.TensorSpec((2,))])
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
    share = tf.math.divide_no_nan(x * along[0] + y * along[1], tf.reduce_sum(along**2))
    share = tf.clip_by_value(share, 0.0, 1.0)
    distance = tf.sqrt((x - share * along[0]) ** 2 + (y - share * along[1]) ** 2)
    white = tf.clip_by_value(distance - (BRUSH - 1.0) / 2.0, 0.0, 1.0)
    return tf.minimum(sheet, white[tf.newaxis, :, :, tf.newaxis] * 2.0 - 1.0)


def read_sketch(path, direction, as_is):
    """Reads a sketch for the pad from a picture file of any size: (1, 256, 256, 3) in [-1, 1].

    Of a pair (exactly twice as wide as high), it is the half that the direction starts from.
    Other pictures are taken for a drawing or the photograph of one, put on a white square
    and cleaned, unless they are to stay `as_is`.

    Raises:
        UserError: not a readable picture.
    """
    for problem in common.find_unreadable([path], upright=False).values():
        raise common.UserError(f"{path}: {problem}")
    with Image.open(path) as image:
        picture = turn_upright(decode_picture(path), common.orientation(image))
    height, width = picture.shape[:2]
    if width == 2 * height:
        stack = resize(stack_pair(picture[:, :height], picture[:, height:], direction))
        return split_stack(stack)[0][tf.newaxis]
    picture = limit_size(picture) / 255.0
    picture = pad_to_square(picture if as_is else clean_photograph(picture, BRUSH))
    return resize(picture)[tf.newaxis] * 2.0 - 1.0


def turn_upright(picture, orientation):
    """Turns (height, width, 3) upright by its EXIF orientation, 1 to 8."""
    if 5 <= orientation <= 8:
        picture = tf.transpose(picture, (1, 0, 2))
    if orientation in {2, 3, 6, 7}:
        picture = picture[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        picture = picture[::-1]
    return picture


def limit_size(picture):
    """Makes (height, width, 3) at most WORK high and wide."""
    scale = min(1.0, WORK / max(picture.shape))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    return tf.image.resize(picture, size, antialias=True)


def pad_to_square(picture):
    """Puts (height, width, channels) in [0, 1] in the middle of a white square."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return 1.0 - tf.image.pad_to_bounding_box(1.0 - picture, top, left, side, side)


def pool(picture, size, kind="AVG"):
    """Returns the mean (or "MAX") of size x size pixels around each of (1, height, width, 1)."""
    return tf.nn.pool(picture, (size, size), kind, padding="SAME")


def clean_photograph(picture, line_width):
    """Turns gray or unevenly lit paper to white and ink to black; no ink, all white.

    Args:
        picture: (height, width, 3) in [0, 1], at most WORK high and wide.
        line_width: of the run's sketches, in pixels of 256.

    Returns:
        The same shape, in [0, 1].
    """
    size = picture.shape[:2]
    gray = tf.image.rgb_to_grayscale(picture)[tf.newaxis]
    # The paper, on an eighth of the size: the brightest around each pixel, which fills in all
    # lines, then the darkest of these, which takes back what a slope of light gained by it.
    small = tf.image.resize(pool(gray, 5), [n // 8 + 1 for n in size], antialias=True)
    paper = pool(-pool(-pool(small, 15, "MAX"), 15, "MAX"), 5)
    gray = tf.clip_by_value(gray / tf.maximum(tf.image.resize(paper, size), 0.05), 0.0, 1.0)

    if float(tf.reduce_min(pool(gray, 5) - pool(gray, 25))) > -0.08:  # the paper's grain alone
        return tf.ones_like(picture)
    ink = tf.reduce_mean(gray[gray < (1.0 + tf.reduce_min(pool(gray, 3))) / 2.0])
    gray = tf.clip_by_value(((gray - ink) / (1.0 - ink) - 0.15) / 0.7, 0.0, 1.0)
    return tf.image.grayscale_to_rgb(thicken(gray[0], line_width))


def thicken(gray, line_width):
    """Widens lines that are thinner than the training sketches'.

    Args:
        gray: (height, width, 1) in [0, 1], black on white.
        line_width: of the run's sketches, in pixels of 256.
    """
    # Steeper, lest what is left of the paper's grain grows with the lines.
    ink = tf.clip_by_value((0.75 - gray) / 0.5, 0.0, 1.0)
    width = common.line_width([1.0 - ink])
    wanted = line_width * math.sqrt(gray.shape[0] * gray.shape[1]) / IMAGE_SIZE
    if width > 0.6 * wanted:
        return gray
    radius = round((wanted - width) / 2.0)
    axis = tf.range(-radius, radius + 1)
    disk = tf.where(axis[:, tf.newaxis] ** 2 + axis**2 <= radius**2, 0.0, -1.0)[..., tf.newaxis]
    return 1.0 - tf.nn.dilation2d(ink[tf.newaxis], disk, [1] * 4, "SAME", "NHWC", [1] * 4)[0]


def conditions_of(run):
    """Returns what a run says of its conditions (see stage 5); an older one had sketches."""
    options, _ = common.read_run(run)
    return {"kind": "sketch", "line_width": BRUSH, "colours": []} | options["data"].get("condition", {})


def read_condition(path, conditions, as_is):
    """Reads a picture file as training read the conditions of a run.

    Args:
        conditions: as `conditions_of` returns them.
        as_is: whether sketches are not cleaned.

    Returns:
        (1, 256, 256, 3) in [-1, 1], and the file's own (width, height).

    Raises:
        UnreadableError: no picture, or a label map with classes that the run does not know.
    """
    picture = read_labels(path, conditions) if conditions["kind"] == "labels" else common.read_picture(path)
    return treat(picture, conditions, as_is), common.picture_size(path)


def read_labels(path, conditions):
    """Reads a label map in the run's colours, (height, width, 3) uint8; warns of colours it does not know."""
    classes, colours = conditions.get("classes"), [colour for colour, _ in conditions["colours"]]
    codes, is_colours = common.read_label_map(path, numbers=classes is not None)
    found = [int(code) for code in tf.unique(tf.reshape(codes, [-1])).y[:1000]]
    known = {int(colour[1:], 16) for colour in colours}
    if is_colours and not known.issuperset(found) and all(code == code % 256 * 0x010101 for code in found):
        codes, found, is_colours = codes % 256, [code % 256 for code in found], False  # three equal channels
    if is_colours:
        picture = common.paint(codes)
        far = tf.reduce_min(
            [distance(picture, colour) for colour in colours] or [tf.zeros(codes.shape)], axis=0
        )
        strange = float(tf.reduce_mean(tf.cast(far > 48.0, tf.float32)))
        if strange > 0.01:
            common.warn(
                f"{path}: {strange:.0%} of it has no colour of the label maps that the run was trained on"
            )
        return picture
    if classes is None:
        raise common.UnreadableError(path, "holds class numbers, where the run knows colours alone")
    if unknown := sorted(set(found) - set(classes)):
        names = ", ".join(str(number) for number in unknown[:10])
        raise common.UnreadableError(path, f"holds classes that the run was not trained on: {names}")
    return common.paint(codes, classes, colours)


def distance(picture, colour):
    """Returns how far each pixel of (height, width, 3) uint8 is from "#rrggbb", in its farthest channel."""
    rgb = tf.constant(list(bytes.fromhex(colour[1:])), tf.float32)
    return tf.reduce_max(tf.abs(tf.cast(picture, tf.float32) - rgb), axis=-1)


def treat(picture, conditions, as_is):
    """Does with a picture what training did with conditions; of sketches, cleans it first.

    Args:
        picture: (height, width, 3) uint8, of any height and width.

    Returns:
        (1, 256, 256, 3) in [-1, 1].
    """
    picture = tf.cast(picture, tf.float32) / 255.0
    if conditions["kind"] == "labels":
        picture = tf.image.resize(picture, (IMAGE_SIZE, IMAGE_SIZE), "nearest")
    elif conditions["kind"] == "sketch" and not as_is:
        picture = clean_photograph(limit_size(picture), conditions["line_width"] or BRUSH)
    return resize(picture)[tf.newaxis] * 2.0 - 1.0


def read_half(path, conditions, direction):
    """Reads the half of a pair that the direction starts from; returns what `read_condition` does."""
    for problem in common.find_unreadable([path]).values():
        raise common.UnreadableError(path, problem)
    stack = common.read_stack(path, direction)
    size = stack.shape[1], stack.shape[0]
    return split_stack(resize(stack, labels=conditions["kind"] == "labels"))[0][tf.newaxis], size


def to_proportions(picture, size):
    """Enlarges one side of a result, (1, 256, 256, 3), so that it has the proportions of (width, height)."""
    scale = min(IMAGE_SIZE / min(size), 16 * IMAGE_SIZE / max(size))
    width, height = (max(1, round(scale * side)) for side in size)
    if width == height:
        return picture
    return tf.clip_by_value(tf.image.resize(picture, (height, width), "bicubic"), -1.0, 1.0)


def plan_results(sources, out, force, left_out):
    """Decides where the result of each file, and of each picture in a folder, is written.

    Args:
        left_out: a LeftOut, for what is no picture in a folder.

    Returns:
        {result: file}, paths: a result has its file's name, and its place in the folder.

    Raises:
        UserError: a file is unreadable, its result exists (without `force`), or two
            would have the same.
    """
    files = {}  # of each, where its result is, in `out`
    for source in sources:
        if not source.exists():
            raise common.UserError(f"--colour {source}: no such file or folder")
        if source.is_dir():
            found = {file: file.relative_to(source) for file in common.find_pictures(source, left_out)}
            if not found:
                left_out.tell("0 pictures coloured")
                raise common.UserError(f"--colour {source}: no picture in it that can be read")
            files = found | files
        else:
            try:
                common.read_picture(source)
            except common.UnreadableError as error:
                raise common.UserError(f"--colour {error}") from error
            files[source] = Path(source.name)
    plan = {}
    for path, place in files.items():
        result = (out / place).with_suffix(".png")
        if result in plan:
            raise common.UserError(f"--colour {path}: {plan[result]} would have the same result, {result}")
        if result.exists() and (not force or result.samefile(path)):
            cure = "give another --out, or --force if it is no sketch"
            raise common.UserError(f"{result}: is there already; {cure}")
        plan[result] = str(path)
    return plan


def make_colour_function(generator):
    """Returns the forward pass, traced: (1, 256, 256, 3) in [-1, 1] to the same."""
    return tf.function(lambda sheet: generate(generator, sheet), input_signature=[SHEET])


def colour_files(plan, colour, read, left_out):
    """Colours the files of a plan, one after the other.

    Args:
        read: function of a path, `read_condition` or `read_half`.
        left_out: a LeftOut, for those that turn out damaged.
    """
    bar = keras.utils.Progbar(len(plan), unit_name="file") if sys.stdout.isatty() else None
    done = 0
    for count, (result, path) in enumerate(plan.items(), start=1):
        try:
            sheet, size = read(path)
        except common.UnreadableError as error:
            if len(plan) == 1:
                raise common.UserError(f"--colour {error}") from error
            left_out.add(path, error.problem)
            continue
        result.parent.mkdir(parents=True, exist_ok=True)
        with common.replacing(result) as temporary:
            common.write_picture(temporary, to_proportions(colour(sheet), size))
        done += 1
        if bar:
            bar.update(count)
        else:
            print(result, flush=True)
    left_out.tell(f"{done} pictures coloured")
    if not done:
        raise common.UserError("--colour: none of the files can be read")


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
        self.pen = None  # its position while it is down, (2,)
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
        for index, (name, action) in enumerate(actions.items()):
            button = Button(figure.add_axes((0.035 + 0.2367 * index, 0.135, 0.22, 0.065)), name)
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

    def show_message(self, message):
        self.message.set_text(common.printable(message))
        self.figure.canvas.draw_idle()

    def show(self, sheet, message=""):
        """Puts a sheet on the left and what the generator makes of it on the right."""
        self.sketch.set_data(to_rgb(sheet))
        self.coloured = self.colour(sheet)
        self.picture.set_data(to_rgb(self.coloured))
        self.show_message(message)

    def add_sheet(self, sheet, message=""):
        """Shows a new sheet, from which Undo goes back. One that equals the last adds nothing to undo."""
        if bool(tf.reduce_any(sheet != self.sheets[-1])):
            self.sheets.append(sheet)
        self.show(self.sheets[-1], message)

    def press(self, event):
        if event.button == 1 and event.inaxes is self.sketch.axes:
            self.stroke, self.pen = self.sheets[-1], self.position(event)
            self.draw_to(self.pen)  # a click makes a dot

    def move(self, event):
        if self.stroke is None:
            return
        if 1 in event.buttons:
            self.draw_to(self.position(event))
        else:  # the button was let go outside of the window
            self.lift_pen()

    def release(self, event):
        if self.stroke is not None and event.button == 1:
            self.draw_to(self.position(event))
            self.lift_pen()

    def position(self, event):
        """Returns where the mouse is, (2,) in pixels of the sheet; it may be off the sheet."""
        x, y = self.sketch.axes.transData.inverted().transform((event.x, event.y))
        return tf.constant([x, y], tf.float32)

    def draw_to(self, point):
        """Goes on with the stroke. The sheet alone is shown: colouring waits until the pen is lifted."""
        self.stroke = draw_line(self.stroke, self.pen, point)
        self.pen = point
        self.sketch.set_data(to_rgb(self.stroke))
        self.figure.canvas.draw_idle()

    def lift_pen(self):
        sheet, self.stroke = self.stroke, None
        self.add_sheet(sheet)

    def key(self, event):
        if event.key in self.keys and not self.path.capturekeystrokes and self.stroke is None:
            self.keys[event.key]()

    def undo(self):
        if len(self.sheets) > 1:
            self.sheets.pop()
        self.show(self.sheets[-1])

    def clear(self):
        self.add_sheet(blank())

    def load(self, path):
        """Takes a file's picture for the sheet; called by the text box, also when it is left."""
        if not path.strip():
            return
        try:
            path = os.path.expanduser(common.file_path(path.strip()))  # leaves a user it does not know
            sheet = read_sketch(path, self.flags["--direction"], self.as_is)
        except (common.UserError, OSError, argparse.ArgumentTypeError) as error:
            self.show_message(str(error))
            return
        self.path.set_val("")
        self.path.stop_typing()
        self.add_sheet(sheet, f"{path}: loaded")

    def next_example(self):
        """Takes the condition of the dataset's next validation pair."""
        try:
            paths = common.find_pairs(self.flags["--dataset"])["val"]
            path = paths[self.examples % len(paths)]
            common.refuse_unreadable(f"--dataset {self.flags['--dataset']}", common.find_unreadable([path]))
            stack = resize(stack_pair(*decode_pair(path), self.flags["--direction"]))
        except (common.UserError, OSError) as error:
            self.show_message(f"No example: {error}")
            return
        self.examples += 1
        self.add_sheet(split_stack(stack)[0][tf.newaxis], f"{path}, {self.examples} of {len(paths)}")

    def save(self):
        """Writes sketch_001.png and result_001.png, or with the first number that is free."""
        count = 1
        while any((self.out / f"{name}_{count:03d}.png").exists() for name in ("sketch", "result")):
            count += 1
        sketch, result = (self.out / f"{name}_{count:03d}.png" for name in ("sketch", "result"))
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with common.replacing(sketch) as new_sketch, common.replacing(result) as new_result:
                common.write_picture(new_sketch, self.sheets[-1])
                common.write_picture(new_result, self.coloured)
        except (OSError, tf.errors.OpError) as error:
            self.show_message(f"Not saved: {error}")
            return
        print(f"{sketch}\n{result}", flush=True)
        self.show_message(f"Saved: {sketch}, {result}")


def to_rgb(picture):
    """Returns (1, 256, 256, 3) in [-1, 1] as Matplotlib takes it, (256, 256, 3) in [0, 1]."""
    return tf.clip_by_value(picture[0] * 0.5 + 0.5, 0.0, 1.0)


def use_web(port):
    """Has Matplotlib serve its figure as a web page, at 127.0.0.1 alone.

    Returns:
        The function that waits until the page's server is stopped.

    Raises:
        UserError: tornado is missing, or the port is taken.
    """
    address = {"webagg.address": "127.0.0.1", "webagg.port": port, "webagg.port_retries": 1}
    matplotlib.rcParams.update(address)
    try:
        plt.switch_backend("webagg")
    except (ImportError, RuntimeError) as error:
        cure = f"{sys.executable} -m pip install -r requirements-web.txt"
        raise common.UserError(f"--web: needs the package tornado: {cure}") from error
    from matplotlib.backends.backend_webagg import WebAggApplication, core  # noqa: PLC0415

    core.NavigationToolbar2WebAgg.toolitems = []  # nothing to pan or zoom
    try:
        WebAggApplication.initialize()
    except (OSError, SystemExit) as error:
        raise common.UserError(f"--port {port}: taken, or not allowed; give another --port") from error
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
        # that pieces of lines would be missing. A figure that is not opaque is sent whole each time.
        figure.patch.set_alpha(0.99)
    pad = SketchPad(figure, colour, flags, args.out, args.as_is)
    if args.load:
        pad.add_sheet(sheet)
    wait()


def main():
    parser = common.new_parser(__doc__)
    add, file_path = parser.add_argument, common.file_path
    run, out = Path("runs", "05_pix2pix"), Path("runs", "06_sketch_pad")
    add("--run", type=file_path, default=run, metavar="DIR", help=f"a trained run ({run})")
    add("--out", type=file_path, default=out, metavar="DIR", help=f"folder of what is written ({out})")
    add("--web", action="store_true", help="in a web browser, also where there is a display")
    add("--port", type=common.number(1, 65535, int), default=8988, help="of the web page (8988)")
    add("--load", type=file_path, metavar="FILE", help="a picture to begin with")
    add("--as-is", action="store_true", help="do not clean pictures")
    help_text = "colour files and folders, without the pad"
    add("--colour", "--sketch", dest="sketch", type=file_path, nargs="+", metavar="FILE", help=help_text)
    add("--pairs", action="store_true", help="with --colour: the files are pairs; colour their conditions")
    add("--force", action="store_true", help="let --colour overwrite earlier results")
    add("--export", type=file_path, help=argparse.SUPPRESS)  # what it did has become stage 8
    args = parser.parse_args()
    if args.export:
        command = f"python 08_export.py --run {args.run} --out {args.export}"
        raise common.UserError(f"--export: this is now the work of stage 8: {command}")
    if args.sketch and (args.load or args.web):
        parser.error("--load and --web belong to the pad: they cannot be given with --colour")
    if args.pairs and not args.sketch:
        parser.error("--pairs: goes with --colour only")

    if args.sketch:
        common.return_memory()
        left_out = common.LeftOut()
        conditions = conditions_of(args.run)  # mistakes first: loading takes a while
        plan = plan_results(args.sketch, args.out, args.force, left_out)
    generator, flags = common.load_generator(args.run)
    colour = make_colour_function(generator)
    if args.sketch:
        kind = {"as_is": args.as_is} if not args.pairs else {"direction": flags["--direction"]}
        read = functools.partial(read_half if args.pairs else read_condition, conditions=conditions, **kind)
        colour_files(plan, colour, read, left_out)
    else:
        open_pad(colour, flags, args)


if __name__ == "__main__":
    common.run_main(main)
