"""Stage 6: draw, and see it coloured.

Writes one page to draw on, with the network of a trained run in it, and opens it in the browser.
The page needs no server: it works from a disk, a web site or, if small, an e-mail attachment. What
you draw stays in it. The generator runs as at test time, with the statistics of the picture itself
(Isola et al. 2017, section 3.3).

    python 06_sketch_pad.py                               # writes the page, and opens it
    python 06_sketch_pad.py --run runs/l1 runs/cgan       # several runs on one drawing
    python 06_sketch_pad.py --colour drawing.jpg photos/  # no page: files and folders

Needs a trained run, --run. Writes runs/06_sketch_pad/pad.html: 8, 20 or 69 MB for 16, 32 or 64
filters. It rounds weights to 8 bits; --precision float16 rounds less and nearly doubles the size.

--colour squashes a file to the training size; the result gets the file's proportions back. --whole
keeps the size: things in it should be as large, in pixels, as in training. --clean makes a photo of
a drawing black on white, --invert swaps light and dark. It takes 5 s, and 0.15 s for each picture.
"""

import base64
import io
import json
import math
import os
import sys
import webbrowser
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import common
from common import generate, resize, validation_pairs

import keras
import tensorflow as tf

BRUSH = 7.0  # stroke width, in pixels, on 256x256; for runs that have no lines to measure
WEB = common.HERE / "web"
RUNTIME = "litert_wasm_compat_internal"  # without relaxed SIMD, which Safari lacks
PARTS = ("litert.js", "worker.js"), (f"{RUNTIME}.js",), (f"{RUNTIME}.wasm",)  # see `make web`
EXAMPLES = 6  # validation pairs that travel in the page
ALLOWED = {"int8": (1.0, 16.0), "float16": (1.0, 1.0)}  # mean, max difference from Keras, of 255


def describe(run):
    """Returns what a run was trained on.

    Returns a dict of its conditions' "kind", "size", "line_width" (in pixels at that size),
    "colours" (of label maps), "run" and more; and at most EXAMPLES validation pairs.
    """
    options = common.read_options(run)
    flags, conditions = options["flags"], options["data"]["condition"]
    size, kind = tuple(flags["--size"]), conditions["kind"]
    brush = BRUSH * math.sqrt(size[0] * size[1]) / 256
    conditions = {"line_width": brush, "colours": [], "exact": "colours" in conditions} | conditions
    conditions |= {"size": size, "run": {"name": run.name, "loss": flags["--loss"]}}
    try:
        paths = common.spread(common.find_pairs(flags["--dataset"])["val"], EXAMPLES)
        common.refuse_unusable(paths)
    except common.UserError as error:
        common.warn(f"no examples, and lines of {brush:.0f} pixels: {error}")
        return conditions, []
    pairs = list(validation_pairs(paths, flags["--direction"], size=size, labels=kind == "labels"))
    if kind == "sketch":
        widths = sorted(line_width(0.5 - 0.5 * condition[0]) for condition, _ in pairs)
        conditions["line_width"] = widths[len(widths) // 2] or brush
    elif kind == "labels" and not conditions["colours"]:
        conditions["colours"] = main_colours([condition for condition, _ in pairs])
    return conditions, pairs


def line_width(ink):
    """Returns the width, in pixels, of the lines in ink, (height, width, channels), 1 for black.

    A line's ink sums to width x length, and the slope of its two edges sums to 2 x length.
    """
    ink = tf.reduce_mean(ink, axis=-1, keepdims=True)
    ink -= tf.sort(tf.reshape(ink, [-1]))[tf.size(ink) // 4]  # a scan's paper is not quite white
    ink = tf.image.resize(tf.nn.relu(ink), [2 * side for side in ink.shape[:2]])[tf.newaxis]
    slope = tf.norm(tf.image.sobel_edges(ink) / 8.0, axis=-1)
    slope = float(tf.reduce_sum(tf.where(slope > 0.02, slope, 0.0)))  # ignores the paper's grain
    return float(tf.reduce_sum(ink)) / slope if slope > 1.0 else 0.0  # 2 ink / slope, halved


def main_colours(conditions):
    """Returns [["#rrggbb", ""], ...], the commonest first, of label maps (1, height, width, 3).

    JPEG adds shades around each colour: rare ones, and ones near a commoner colour, are left out.
    """
    counts, colours = Counter(), []
    for condition in conditions:
        counts.update({c: n for n, c in common.to_image(condition).getcolors(2**24)})
    for colour, count in counts.most_common(1000):
        far = all(max(abs(a - b) for a, b in zip(colour, other)) >= 48 for other in colours)
        if far and count > 1e-3 * counts.total():
            colours.append(colour)
    return [[f"#{bytes(colour).hex()}", ""] for colour in colours]


def read_condition(path, conditions, args, notes):
    """Reads a picture file as training read the run's conditions; `conditions`: see `describe`.

    Returns (1, height, width, 3) in [-1, 1], of the run's size or, with `args.whole`, the file's;
    and the file's (width, height). Raises UnreadableError if it cannot be used.
    """
    size, remark, _ = common.read_header(path)
    kept = size if args.whole else common.kept_size(size, conditions["size"])
    to, span = size[::-1] if args.whole else conditions["size"], conditions.get("range")
    if conditions["kind"] == "labels":
        if args.clean or args.invert:
            raise common.UnreadableError(path, "a label map: --clean and --invert are for drawings")
        picture = tf.image.resize(read_labels(path, conditions, kept, notes), to, "nearest")
        return tf.cast(picture, tf.float32)[tf.newaxis] / 127.5 - 1.0, size
    with common.opening(path) as image:
        deep = image.mode[0] in "IF"
        values = tf.constant(keras.utils.img_to_array(image.convert("F")) if deep else 0.0)
        if not bool(tf.reduce_all(tf.math.is_finite(values))):
            raise common.UnreadableError(path, "holds NaN or infinity: replace them")
    if deep and not span:
        remark = "more than 8 bits, but the run has no range: 0 to 65535 is used, or the file's"
    elif span and not deep:
        remark = "8 bits, but the run's pictures had more: read as 0 to 255"
    elif deep and bool(tf.reduce_any((values < span[0]) | (values > span[1]))):
        remark = f"beyond the run's range, {span[0]:g} to {span[1]:g}: becomes black or white"
    notes[remark].add(path)
    picture = tf.cast(common.read_picture(path, kept, span), tf.float32) / 255.0
    picture = 1.0 - picture if args.invert else picture
    tones = tf.sort(tf.reshape(tf.reduce_min(picture, -1), [-1]))
    middle, light = (float(tones[len(tones) * n // 10]) for n in (5, 9))
    if args.clean:
        picture = clean_photograph(picture, to, conditions["line_width"])
    elif conditions["kind"] == "sketch" and (middle < 0.5 or light < 0.9):
        notes["not dark lines on white: --clean (photo) or --invert (light lines)?"].add(path)
    if float(tf.reduce_max(picture)) < 16 / 255 or float(tf.reduce_min(picture)) == 1.0:
        notes["blank: are these class numbers, or white on a transparent sheet?"].add(path)
    return resize(picture, to)[tf.newaxis] * 2.0 - 1.0, size


def read_labels(path, conditions, size, notes):
    """Reads a label map in the run's colours, (height, width, 3) uint8."""
    classes = conditions.get("classes", [])
    known = [int(colour[1:], 16) for colour, _ in conditions["colours"]] or [0xFFFFFF]
    codes, is_colours = common.read_label_map(path, size)
    if not is_colours and (classes or conditions.get("exact")):
        found = {int(code) for code in tf.unique(tf.reshape(codes, [-1])).y}
        unknown = found - {*(classes or [code % 256 for code in known if code % 0x010101 == 0])}
        if unknown and (classes or max(found) < 64):  # a gray picture's shades reach further
            numbers = common.listed([f"{number}" for number in sorted(unknown)])
            raise common.UnreadableError(path, f"has classes that the run does not know: {numbers}")
    if not is_colours and classes:  # a class number is nearest to itself
        return common.paint(common.nearest(codes, classes, known)[0])
    codes = codes if is_colours else codes * 0x010101
    near, apart = common.nearest(codes, known)
    if float(tf.reduce_mean(tf.cast(apart > 48**2, tf.float32))) > 0.01:
        notes["over 1% of its pixels match no colour of the run's label maps"].add(path)
    # Colours become the nearest known ones only if dataset.json lists the exact ones.
    return common.paint(near if conditions.get("exact") else codes)


def plan_results(sources, out, force, notes):
    """Returns {result: file} for files and folders; a result keeps its file's name and sub-folder.

    Other files in a folder go to `notes`. Raises UserError if a named file is not a picture, if
    two results are the same file, or if a result exists: `force` allows replacing earlier results.
    """
    plan = {}
    for source in sources:
        for path in common.walk(source, notes) if source.is_dir() else [source]:
            try:
                common.read_header(path)
            except common.UnreadableError as error:
                if path == source:
                    raise common.UserError(f"--colour {error}") from error
                notes[f"left out, {error.problem}"].add(path)
                continue
            place = Path(path.name) if path == source else path.relative_to(source)
            result = (out / place).with_suffix(".png")
            if plan.setdefault(result, path) != path:
                raise common.UserError(f"--colour {path}: {plan[result]} has the same result")
            if result.exists() and (not force or result.samefile(path)):
                raise common.UserError(f"{result}: exists already; give another --out, or --force")
    return plan


def colour_files(args):
    """Colours the files and folders of --colour and writes the results to --out."""
    notes, done = defaultdict(set), 0
    plan = plan_results(args.colour, args.out, args.force, notes)
    generator, flags = common.load_generator(args.run[0], args.best)
    conditions, _ = describe(args.run[0])
    pairs = {Path(place, flags["--dataset"]).resolve() for place in (".", common.HERE / "data")}
    forward = tf.function(lambda sheet: generate(generator, sheet), reduce_retracing=True)
    for result, path in plan.items():
        try:
            sheet, size = read_condition(path, conditions, args, notes)
        except common.UnreadableError as error:
            notes[f"left out, {error.problem}"].add(path)
            continue
        if pairs & {*path.resolve().parents}:
            notes["a pair of the run's data, coloured as one: cut out one half"].add(path)
        image = common.to_image(colour(forward, sheet))
        scales = image.width / size[0], image.height / size[1]
        scale = min(max(scales), 16 * min(scales))  # enlarges one side, to the file's proportions
        image = image.resize([max(1, round(scale * side)) for side in size])
        result.parent.mkdir(parents=True, exist_ok=True)
        with common.replacing(result) as temporary:
            image.save(temporary, "PNG")
        done += 1
        print(common.printable(f"{result}  {size[0]}x{size[1]}"), flush=True)
    common.tell(notes, f"{done} pictures coloured")
    if not done:
        raise common.UserError("--colour: no picture that can be used")


def colour(forward, sheet):
    """Colours (1, height, width, 3), padded by reflection to multiples of 256 pixels."""
    _, height, width, _ = sheet.shape
    top, left = (-height % 256) // 2, (-width % 256) // 2
    for axis, side, start in ((1, height, top), (2, width, left)):
        # tf.pad reflects less than one side. Side 4 becomes 1 2 3 2 1 | 0 1 2 3 | 2 1 0 1 2
        places = (tf.range(side + -side % 256) - start) % max(1, 2 * side - 2)
        sheet = tf.gather(sheet, tf.minimum(places, 2 * side - 2 - places), axis=axis)
    return forward(sheet)[:, top : top + height, left : left + width]


def clean_photograph(picture, size, pen):
    """Turns gray or unevenly lit paper white and ink black, and widens thin lines.

    Takes and returns (height, width, 3) in [0, 1]: at most twice as long as `size`, and all white
    if there is no ink. `size` is the (height, width) to which the result is resized next, and `pen`
    the width of the run's lines in pixels at that size.
    """
    scale = min(1.0, 2 * max(size) / max(picture.shape))
    sides = [max(1, round(scale * side)) for side in picture.shape[:2]]
    gray = tf.image.rgb_to_grayscale(tf.image.resize(picture, sides, antialias=True))[tf.newaxis]
    # The light on the paper: a maximum filter removes all lines, then a minimum filter restores
    # the gradients of the light, which the maximum has shifted.
    light = tf.nn.max_pool2d(tf.image.resize(gray, (64, 64), antialias=True), 15, 1, "SAME")
    light = tf.image.resize(-tf.nn.max_pool2d(-light, 15, 1, "SAME"), sides)
    gray = tf.minimum(gray / tf.maximum(light, 0.05), 1.0)
    means = [tf.nn.avg_pool2d(gray, size, 1, "SAME") for size in (3, 5, 25)]
    if float(tf.reduce_min(means[1] - means[2])) > -0.08:  # nothing but the paper's grain
        return tf.ones((*sides, 3))
    black = tf.reduce_mean(gray[gray < (1.0 + tf.reduce_min(means[0])) / 2.0])
    ink = 0.675 - (gray - black) / (1.0 - black)
    ink = tf.clip_by_value(ink / 0.35, 0.0, 1.0)  # steep: no grain is left to widen
    wanted = pen * math.sqrt(sides[0] * sides[1] / (size[0] * size[1]))
    radius = max(0, round((wanted - line_width(ink[0])) / 2.0))
    axis = tf.range(-radius, radius + 1)
    disk = tf.where(axis[:, tf.newaxis] ** 2 + axis**2 <= radius**2, 0.0, -1.0)[..., tf.newaxis]
    ink = tf.nn.dilation2d(ink, disk, [1] * 4, "SAME", "NHWC", [1] * 4)
    return tf.image.grayscale_to_rgb(1.0 - ink[0])


def to_url(picture, kind):
    """Returns (1, height, width, 3) in [-1, 1] as a data: URL of a "png" or "jpeg" file."""
    file = io.BytesIO()
    common.to_image(picture).save(file, kind, quality=90)  # quality: JPEG only
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def to_script(data, strategy=zlib.Z_DEFAULT_STRATEGY):  # Z_HUFFMAN_ONLY: seeks no repeats
    """Returns data, gzipped and in base64, in a script element that browsers do not run."""
    packer = zlib.compressobj(9, wbits=31, strategy=strategy)  # 31: gzip format
    text = base64.b64encode(packer.compress(data) + packer.flush()).decode()
    return f'<script type="text/plain">{text}</script>'


def round_kernels(network):
    """Rounds kernels to 8 bits: integers from -127 to 127, times a power of two for each kernel.

    A float16 file holds these exactly, and gzip packs each into less than a byte. TFLite's own int8
    also rounds each layer's input: then the pictures of two processors differ by 8 shades or more.
    """
    for kernel in network.trainable_variables:
        if kernel.shape.rank == 4:
            largest = float(tf.reduce_max(tf.abs(kernel)))
            step = 2.0 ** math.ceil(math.log2(max(1e-6, largest) / 127))
            kernel.assign(tf.round(kernel / step) * step)


def to_network(run, examples, args):
    """Returns a run's generator as TFLite; uses float16 if int8 differs too much from Keras."""
    for kind in dict.fromkeys((args.precision, "float16")):
        generator, flags = common.load_generator(run, args.best)
        conditions = [drawn for drawn, _ in examples] or [tf.ones((1, *flags["--size"], 3))]
        pictures = [generate(generator, condition) for condition in conditions]
        if kind == "int8":
            round_kernels(generator)
        data, run_tflite = common.to_tflite(generator, flags["--size"], "float16")
        mean, most = common.difference(run_tflite, conditions, pictures)
        print(f"{run}: {kind} weights, {mean:.2f} shades of 255 from Keras, {most:.1f} at most")
        if mean <= ALLOWED[kind][0] and most <= ALLOWED[kind][1]:
            return data[0::2] + data[1::2]  # even bytes, then odd ones: they pack better
    raise common.UserError(f"--run {run}: its TFLite file does not draw Keras' picture")


def write_page(args):
    """Writes web/pad.html with the networks, their runtime and examples put in, and opens it."""
    described = [describe(run) for run in args.run]
    about, examples = described[0]
    for run, (other, _) in zip(args.run, described):
        if bad := [name for name in ("kind", "size", "colours") if other[name] != about[name]]:
            raise common.UserError(f"--run {run}: its {bad[0]} differs from {args.run[0]}'s")
    scripts = [to_script(b"\n".join((WEB / n).read_bytes() for n in names)) for names in PARTS]
    scripts += [to_script(to_network(run, examples, args), zlib.Z_HUFFMAN_ONLY) for run in args.run]
    about["runs"] = [conditions["run"] for conditions, _ in described]
    about["examples"] = [(to_url(drawn, "png"), to_url(real, "jpeg")) for drawn, real in examples]
    about["megabytes"] = round(sum(map(len, scripts)) / 1e6)
    page = (WEB / "pad.html").read_text(encoding="utf-8").replace("PARTS", "\n".join(scripts), 1)
    page = page.replace("ABOUT", json.dumps(about).replace("<", "\\u003c"), 1)
    path = args.out if args.out.suffix == ".html" else args.out / "pad.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    with common.replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in any browser, or send it")
    screen = sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
    if screen and not args.no_browser:
        webbrowser.open(path.resolve().as_uri())


def main(argv=None):
    parser, out = common.parser_of(__doc__, "--best"), Path("runs/06_sketch_pad")
    add, run = parser.add_argument, Path("runs/05_pix2pix")
    add("--run", type=Path, nargs="+", default=[run], metavar="DIR", help=f"trained runs ({run})")
    add("--out", type=Path, default=out, metavar="DIR|HTML", help=f"folder or page ({out})")
    add("--precision", choices=[*ALLOWED], default="int8", help="weights of the page (int8)")
    add("--no-browser", action="store_true", help="write the page without opening it")
    add("--colour", type=Path, nargs="+", metavar="FILE", help="files and folders to colour")
    only = {
        "--whole": "keep a picture's own size instead of squashing it to the training size",
        "--clean": "photographs of drawings: paper to white, ink to black",
        "--invert": "turn light on dark into dark on light",
        "--force": "overwrite earlier results",
    }
    for flag, help_text in only.items():
        add(flag, action="store_true", help=f"with --colour: {help_text}")
    args = parser.parse_args(argv)
    if wrong := [flag for flag in only if vars(args)[flag[2:]] and not args.colour]:
        parser.error(f"{wrong[0]}: works only with --colour")
    if args.colour and (len(args.run) > 1 or args.out.suffix in {".png", ".jpg", ".html"}):
        parser.error("--colour takes one --run, and a folder as --out")
    (colour_files if args.colour else write_page)(args)


if __name__ == "__main__":
    common.run_main(main)
