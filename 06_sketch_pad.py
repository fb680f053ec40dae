"""Stage 6: draw, and see it coloured.

Writes one page to draw on, with the network of a trained run in it, and opens it in the browser.
The page needs no server and no network: it works from a disk, from any web server and as an
attachment, and what is drawn stays in it. The generator runs as at test time, with the
statistics of the picture itself (Isola et al. 2017, section 3.3).

    python 06_sketch_pad.py                               # writes the page, and opens it
    python 06_sketch_pad.py --run runs/l1 runs/cgan       # several runs on one drawing
    python 06_sketch_pad.py --colour drawing.jpg photos/  # no page: files and folders
    python 06_sketch_pad.py --colour photo.jpg --whole    # in its own size, not squashed

Needs a trained run, --run (runs/05_pix2pix). Writes runs/06_sketch_pad/pad.html, or --out: 8, 20
or 68 MB for 16, 32 or 64 filters. Its weights are int8; --precision float16 is exact, twice as
large and two to three times slower.

--colour treats a file as training treated its conditions: squashed to the size of training (the
result has the file's own proportions), label maps without mixing colours. Nothing else is done
to it unless asked: --clean turns the photograph of a drawing black on white, --invert turns
light on dark around. --whole colours a file pixel by pixel, without squashing: its things should
be as large, in pixels, as they were in training. Takes 5 s to start, 0.15 s a picture.
"""

import base64
import gzip
import io
import json
import math
import os
import sys
import webbrowser
from pathlib import Path

import common
from common import generate, resize, validation_pairs

import tensorflow as tf
from PIL import Image

BRUSH = 7.0  # width of a stroke in pixels of 256, where the run has no lines to measure
WORK = 512  # longest side of a picture while its paper and ink are looked for
WEB = common.HERE / "web"
RUNTIME = "litert_wasm_compat_internal"  # without relaxed SIMD, which Safari lacks
PARTS = ("litert.js", "worker.js"), (f"{RUNTIME}.js",), (f"{RUNTIME}.wasm",)  # see `make web`
EXAMPLES = 6  # validation pairs that travel in the page
ALLOWED = {"int8": (1.0, 16.0), "float16": (1.0, 1.0)}  # shades of 255 from Keras: mean, most


# === What a run was trained on ===============================================


def condition_of(run, pairs=None):
    """Returns what a run's conditions are: "kind", "size", "line_width", "colours" and more.

    options.json says the kind and the size. Line width (in pixels of the size) and the colours
    of label maps are measured on `pairs`, a list of (condition, real), where it does not say.
    """
    options, _ = common.read_run(run)
    size = tuple(options["flags"]["--size"])
    found = {"size": size, "line_width": BRUSH / of_256(size), "colours": []}
    found |= options["data"]["condition"]
    conditions = [condition[0] for condition, _ in pairs or ()]
    if conditions and found["kind"] == "sketch":
        widths = sorted(line_width(condition) for condition in conditions)
        found["line_width"] = widths[len(widths) // 2] or found["line_width"]
    elif conditions and found["kind"] == "labels" and not found["colours"]:
        found["colours"] = main_colours(conditions)
    return found


def read_examples(run, count=EXAMPLES):
    """Returns some validation pairs of a run, (condition, real); none if its dataset is gone."""
    options, _ = common.read_run(run)
    flags, kind = options["flags"], options["data"]["condition"]["kind"]
    try:
        paths = common.spread(common.find_pairs(flags["--dataset"])["val"], count)
    except common.UserError as error:
        common.warn(f"no examples, and a line width of {BRUSH:.0f} pixels of 256: {error}")
        return []
    form = {"size": tuple(flags["--size"]), "labels": kind == "labels"}
    return list(validation_pairs(paths, flags["--direction"], **form))


def line_width(drawing):
    """Returns how wide the lines of a drawing, (height, width, 3) in [-1, 1], are in pixels.

    A line's ink is width x length, and the slope of its two edges, summed, is 2 x length.
    """
    ink = 0.5 - 0.5 * tf.reduce_mean(drawing, axis=-1, keepdims=True)
    ink = tf.image.resize(ink, [2 * side for side in ink.shape[:2]])[tf.newaxis]  # lines of 1 pixel
    slope = tf.norm(tf.image.sobel_edges(ink) / 8.0, axis=-1)
    slope = float(tf.reduce_sum(tf.where(slope > 0.02, slope, 0.0)))  # the paper's grain has none
    return float(tf.reduce_sum(ink)) / slope if slope > 1.0 else 0.0  # 2 ink / slope, halved


def main_colours(conditions):
    """Returns [["#rrggbb", ""], ...], the commonest first, of label maps (height, width, 3).

    JPEG surrounds each with shades; those near a commoner one, and rare ones, are left out.
    """
    weights = tf.constant([65536.0, 256.0, 1.0])  # exact in float32: below 2^24
    codes = [tf.reduce_sum(tf.round((c + 1.0) * 127.5) * weights, axis=-1) for c in conditions]
    found, _, counts = tf.unique_with_counts(tf.reshape(tf.stack(codes), [-1]))
    enough = 1e-3 * float(tf.reduce_sum(counts))
    colours = []
    for place in tf.argsort(counts, direction="DESCENDING")[:1000]:
        colour = bytes.fromhex(f"{int(found[place]):06x}")
        far = all(max(abs(a - b) for a, b in zip(colour, other)) >= 48 for other in colours)
        if far and int(counts[place]) > enough:
            colours.append(colour)
    return [[f"#{colour.hex()}", ""] for colour in colours]


# === Files: read and coloured ================================================


def read_condition(path, conditions, args, left_out):
    """Reads a picture file as training read the conditions of a run.

    Args:
        conditions: as `condition_of` returns them.
        args: the flags: whether to `clean` or `invert` it, or to keep the `whole` of its size.
        left_out: a LeftOut, which gets remarks.

    Returns:
        (1, height, width, 3) in [-1, 1] of the run's size, or its own; its own (width, height).
    """
    size, remark, _ = common.read_header(path)
    kept = size if args.whole else common.kept_size(size, conditions["size"])
    to, span = size[::-1] if args.whole else conditions["size"], conditions.get("range")
    if conditions["kind"] == "labels":
        picture = tf.image.resize(read_labels(path, conditions, kept, left_out), to, "nearest")
        return tf.cast(picture, tf.float32)[tf.newaxis] / 127.5 - 1.0, size
    with common.opening(path) as image:
        if image.mode[0] in "IF" and not span:
            remark = "more than 8 bits, of which the run knows no range: taken by itself"
    if remark:
        left_out.remark(path, remark)
    picture = tf.cast(common.read_picture(path, kept, span), tf.float32) / 255.0
    picture = 1.0 - picture if args.invert else picture
    if args.clean:
        picture = limit_size(picture, 2 * max(to))
        picture = clean_photograph(picture, conditions["line_width"] * of_256(conditions["size"]))
    elif conditions["kind"] == "sketch" and float(tf.reduce_mean(picture)) < 0.5:
        problem = "dark paper, where the run knows dark lines on white: give --invert"
        left_out.remark(path, problem)
    return resize(picture, to)[tf.newaxis] * 2.0 - 1.0, size


def read_labels(path, conditions, size, left_out):
    """Reads a label map in the run's colours, (height, width, 3) uint8."""
    classes, colours = conditions.get("classes"), [colour for colour, _ in conditions["colours"]]
    codes, is_colours = common.read_label_map(path, size, numbers=classes is not None)
    found = {int(code) for code in tf.unique(tf.reshape(codes, [-1])).y}
    if not is_colours and classes is not None:
        if unknown := sorted(found - {*classes}):
            numbers = common.listed([str(number) for number in unknown])
            problem = f"holds classes that the run was not trained on: {numbers}"
            raise common.UnreadableError(path, problem)
        return common.paint(codes, classes, colours)
    picture = common.paint(codes if is_colours else codes * 0x010101)
    known = [tf.constant([*bytes.fromhex(colour[1:])], tf.float32) for colour in colours]
    far = tf.fill(picture.shape[:2], 255.0)  # from the nearest colour, in the farthest channel
    for colour in known:
        distance = tf.reduce_max(tf.abs(tf.cast(picture, tf.float32) - colour), axis=-1)
        far = tf.minimum(far, distance)
    if float(tf.reduce_mean(tf.cast(far > 48.0, tf.float32))) > 0.01:
        left_out.remark(path, "over 1% of it has no colour of the run's label maps")
    return picture


def plan_results(sources, out, force, left_out):
    """Returns {result: file}: a result has its file's name, and its place in the folder.

    Args:
        sources: files and folders.
        left_out: a LeftOut, for what is no picture in a folder.
    """
    plan = {}
    for source in sources:
        if not source.exists():
            raise common.UserError(f"--colour {source}: no such file or folder")
        for path in common.walk(source, left_out) if source.is_dir() else [source]:
            try:
                common.read_header(path)
            except common.UnreadableError as error:
                if path == source:
                    raise common.UserError(f"--colour {error}") from error
                left_out.add(path, error.problem)
                continue
            place = Path(path.name) if path == source else path.relative_to(source)
            result = (out / place).with_suffix(".png")
            if plan.setdefault(result, path) != path:
                problem = f"{plan[result]} would have the same result, {result}"
                raise common.UserError(f"--colour {path}: {problem}")
            if result.exists() and (not force or result.samefile(path)):
                raise common.UserError(
                    f"{result}: is there already; give another --out, or --force"
                )
    if not plan:
        left_out.tell("0 pictures coloured")
        raise common.UserError("--colour: no picture that can be read")
    return plan


def to_proportions(picture, size):
    """Enlarges one side of a result, (1, 256, 256, 3), to the proportions of (width, height)."""
    scales = picture.shape[2] / size[0], picture.shape[1] / size[1]
    scale = min(max(scales), 16 * min(scales))
    width, height = (max(1, round(scale * side)) for side in size)
    if picture.shape[1:3] == (height, width):
        return picture
    return tf.clip_by_value(tf.image.resize(picture, (height, width), "bicubic"), -1.0, 1.0)


def colour_files(args):
    """Does what --colour asks for."""
    run, left_out, done = args.run[0], common.LeftOut(), 0
    plan = plan_results(args.colour, args.out, args.force, left_out)
    generator, _ = common.load_generator(run, args.best)
    conditions = condition_of(run, read_examples(run) if args.clean else None)
    forward = tf.function(lambda sheet: generate(generator, sheet), reduce_retracing=True)
    for result, path in plan.items():
        try:
            sheet, size = read_condition(path, conditions, args, left_out)
        except common.UnreadableError as error:
            left_out.add(path, error.problem)
            continue
        result.parent.mkdir(parents=True, exist_ok=True)
        with common.replacing(result) as temporary:
            common.write_picture(temporary, to_proportions(colour(forward, sheet), size))
        done += 1
        print(f"{result}  {size[0]}x{size[1]}", flush=True)
    left_out.tell(f"{done} pictures coloured")
    if not done:
        raise common.UserError("--colour: none of the files can be read")


def colour(forward, sheet):
    """Colours (1, height, width, 3), continued by its reflection to multiples of 256 pixels."""
    _, height, width, _ = sheet.shape
    picture = forward(mirror_sides(mirror_sides(sheet, axis=1), axis=2))
    top, left = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
    return picture[:, top : top + height, left : left + width]


def mirror_sides(picture, axis):
    """Continues a picture on both sides by its reflection, to the next multiple of 256 pixels.

    Not tf.pad, which cannot continue a small picture by more than its own size.
    """
    side = picture.shape[axis]
    more = -side % 256
    # Of 4 pixels, at the places -5 to 8: 1 2 3 2 1 | 0 1 2 3 | 2 1 0 1 2
    places = tf.range(-(more // 2), side + more - more // 2) % max(1, 2 * side - 2)
    return tf.gather(picture, tf.minimum(places, 2 * side - 2 - places), axis=axis)


# === Photographs of drawings: cleaned with --clean ===========================


def limit_size(picture, longest=WORK):
    """Makes (height, width, 3) at most so high and wide."""
    scale = min(1.0, longest / max(picture.shape))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    return tf.image.resize(picture, size, antialias=True)


def pool(picture, size, kind="AVG"):
    """Returns the mean (or "MAX") of size x size pixels around each of (1, height, width, 1)."""
    return tf.nn.pool(picture, (size, size), kind, padding="SAME")


def of_256(size):
    """Returns how wide a pixel of (height, width) becomes when that is squashed to 256x256."""
    return 256 / math.sqrt(size[0] * size[1])


def clean_photograph(picture, line_width):
    """Turns gray or unevenly lit paper to white and ink to black; no ink, all white.

    Args:
        picture: (height, width, 3) in [0, 1].
        line_width: of the run's sketches, in pixels of 256.

    Returns:
        The same shape, in [0, 1].
    """
    small = tf.image.rgb_to_grayscale(limit_size(picture))[tf.newaxis]
    # The paper, on an eighth of the size: the brightest around each pixel, which fills in all
    # lines, then the darkest of these, which takes back what a slope of light gained by it.
    paper = tf.image.resize(pool(small, 5), [n // 8 + 1 for n in small.shape[1:3]], antialias=True)
    paper = pool(-pool(-pool(paper, 15, "MAX"), 15, "MAX"), 5)

    def on_white(gray):
        light = tf.image.resize(paper, gray.shape[1:3])
        return tf.clip_by_value(gray / tf.maximum(light, 0.05), 0.0, 1.0)

    small = on_white(small)
    if float(tf.reduce_min(pool(small, 5) - pool(small, 25))) > -0.08:  # the paper's grain alone
        return tf.ones_like(picture)
    ink = tf.reduce_mean(small[small < (1.0 + tf.reduce_min(pool(small, 3))) / 2.0])
    gray = on_white(tf.image.rgb_to_grayscale(picture)[tf.newaxis])
    gray = tf.clip_by_value(((gray - ink) / (1.0 - ink) - 0.15) / 0.7, 0.0, 1.0)
    return tf.image.grayscale_to_rgb(thicken(gray[0], line_width))


def thicken(gray, line_width):
    """Widens lines, (height, width, 1) in [0, 1], that are thinner than the training sketches'."""
    ink = tf.clip_by_value(
        (0.75 - gray) / 0.5, 0.0, 1.0
    )  # steeper: the paper's grain is not to grow
    slope = tf.reduce_sum(tf.norm(tf.image.sobel_edges(ink[tf.newaxis]) / 8.0, axis=-1))
    width = float(2.0 * tf.reduce_sum(ink) / tf.maximum(slope, 1.0))  # a line's slope: 2 x length
    wanted = line_width / of_256(gray.shape[:2])
    if width > 0.6 * wanted:
        return gray
    radius = round((wanted - width) / 2.0)
    axis = tf.range(-radius, radius + 1)
    disk = tf.where(axis[:, tf.newaxis] ** 2 + axis**2 <= radius**2, 0.0, -1.0)[..., tf.newaxis]
    return 1.0 - tf.nn.dilation2d(ink[tf.newaxis], disk, [1] * 4, "SAME", "NHWC", [1] * 4)[0]


# === The page ================================================================


def to_url(picture, kind, **options):
    """Returns (1, height, width, 3) in [-1, 1] as a data: URL of a "png" or "jpeg" file."""
    file, (height, width) = io.BytesIO(), picture.shape[1:3]
    image = Image.frombytes("RGB", (width, height), memoryview(common.to_uint8(picture)))
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def to_network(run, examples, args):
    """Returns a run's generator as a TFLite file that draws Keras' pictures.

    Where weights of int8 are not good enough, float16 is taken.
    """
    generator, flags = common.load_generator(run, args.best)
    conditions = [condition for condition, _ in examples]
    conditions = conditions or [tf.ones((1, *flags["--size"], 3))]
    pictures = [generate(generator, condition) for condition in conditions]
    module = common.to_module(generator, flags["--size"])
    for kind in dict.fromkeys((args.precision, "float16")):
        data = common.to_tflite(module, kind)
        mean, most = common.difference(common.run_tflite(data), conditions, pictures)
        print(f"{run}: {kind} weights, {mean:.2f} shades of 255 from Keras, {most:.1f} at most")
        if mean <= ALLOWED[kind][0] and most <= ALLOWED[kind][1]:
            return data
    raise common.UserError(f"--run {run}: its TFLite file draws another picture")


def pack(data):
    """Returns bytes as a part of the page: gzip, in base64, in a script that no browser runs."""
    text = base64.b64encode(gzip.compress(data, mtime=0)).decode()
    return f'<script type="text/plain">{text}</script>'


def write_page(runs, path, args):
    """Writes the page: web/pad.html with the runs' networks, what runs them, and examples."""
    first, *others = [condition_of(run) for run in runs]
    for run, other in zip(runs[1:], others):
        for name in ("kind", "size", "colours"):
            if other[name] != first[name]:
                raise common.UserError(f"--run {run}: its {name} differs from that of {runs[0]}")
    examples = read_examples(runs[0])
    networks = [to_network(run, examples, args) for run in runs]
    losses = [common.read_run(run)[0]["flags"]["--loss"] for run in runs]
    parts = [b"\n".join((WEB / name).read_bytes() for name in names) for names in PARTS] + networks
    packed = "\n".join(map(pack, parts))
    about = condition_of(runs[0], examples) | {
        "runs": [{"name": run.name, "loss": loss} for run, loss in zip(runs, losses)],
        "examples": [
            {"condition": to_url(drawn, "png"), "real": to_url(real, "jpeg", quality=90)}
            for drawn, real in examples
        ],
        "megabytes": round(len(packed) / 1e6),
    }
    page = (WEB / "pad.html").read_text(encoding="utf-8").replace("PARTS", packed, 1)
    page = page.replace("ABOUT", json.dumps(about).replace("<", "\\u003c"), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with common.replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in any browser, or send it")


def open_page(path):
    """Opens the page in a browser, where there is a screen."""
    if sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(path.resolve().as_uri())


def main(argv=None):
    parser, out = common.parser_of(__doc__), Path("runs", "06_sketch_pad")
    add, run = parser.add_argument, Path("runs", "05_pix2pix")
    help_text = f"trained runs ({run})"
    add("--run", type=Path, nargs="+", default=[run], metavar="DIR", help=help_text)
    help_text = f"folder of the page or the results, or the page's name ({out})"
    add("--out", type=common.out_folder, default=out, metavar="DIR", help=help_text)
    help_text = "of the page's weights (int8)"
    add("--precision", choices=list(ALLOWED), default="int8", help=help_text)
    add("--best", action="store_true", help="take the epoch of the lowest L1, not the last")
    add("--no-browser", action="store_true", help="write the page, and open nothing")
    help_text = "colour files and folders, without the page"
    add("--colour", type=Path, nargs="+", metavar="FILE", help=help_text)
    for flag, help_text in {
        "--whole": "pictures in their own size, not squashed to that of training",
        "--clean": "photographs of drawings: paper to white, ink to black",
        "--invert": "light on dark becomes dark on light",
        "--force": "overwrite earlier results",
    }.items():
        add(flag, action="store_true", help=f"with --colour: {help_text}")
    args = parser.parse_args(argv)
    for name in ("whole", "clean", "invert", "force"):
        if vars(args)[name] and not args.colour:
            parser.error(f"--{name}: goes with --colour only")
    if args.colour and len(args.run) > 1:
        parser.error("--colour takes one --run")
    if args.colour:
        colour_files(args)
        return
    path = args.out if args.out.suffix == ".html" else args.out / "pad.html"
    write_page(args.run, path, args)
    if not args.no_browser:
        open_page(path)


if __name__ == "__main__":
    common.run_main(main)
