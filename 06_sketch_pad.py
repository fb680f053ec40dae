"""Stage 6: draw, and see it coloured.

A page to draw on, and beside the sheet what a generator trained by stage 5 makes of it,
while one draws. The generator runs as at test time, with the statistics of the picture
itself (Isola et al. 2017, section 3.3).

    python 06_sketch_pad.py                               # opens the page in the browser
    python 06_sketch_pad.py --run runs/l1 runs/cgan       # several runs on one drawing
    python 06_sketch_pad.py --colour drawing.jpg photos/  # no page: files and folders
    python 06_sketch_pad.py --colour photo.jpg --whole    # in its own size, not squashed

Needs a trained run, --run (runs/05_pix2pix). The page, 06_sketch_pad.html, is for this
computer alone, and what is drawn or opened there stays in memory. --colour writes under
runs/06_sketch_pad, or --out, a picture by each file's name. A file is treated as the run's
training treated its conditions: squashed to the size of training (the result has the file's
own proportions), label maps without mixing colours. For a run on sketches it is taken for a
drawing or the photograph of one, and cleaned. --pairs says that the files are pairs, of
which the half is used that the run colours. 5 s to start, 0.15 s a picture.

--whole colours a file pixel by pixel as it is, without squashing: a photograph of 1500x1000
comes back as one of 1500x1000. So its things should be as large, in pixels, as they were in
training. It takes as much more time and memory as the picture has more pixels.
"""

import argparse
import contextlib
import functools
import io
import json
import math
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import common
from common import generate, resize, split_stack

import keras
import tensorflow as tf
from PIL import Image

BRUSH = 7.0  # width of a stroke in pixels of 256, where the run does not say
WORK = 512  # longest side of a picture while its paper and ink are looked for
# What --whole takes in memory, a little more than `python benchmarks/sizes.py --whole` measured.
BYTES_TO_START, BYTES_A_PIXEL, BYTES_A_PIXEL_AND_FILTER = 10**9, 150, 6

PAGE = common.HERE / "06_sketch_pad.html"
MAX_BODY = 20 * 2**20  # bytes of a request
CONNECTIONS = 64  # that may wait without having shown the secret
PATIENCE = 10.0  # seconds to wait for the next piece of a request
HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
HEADERS |= {"Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"}

# === Files: read, cleaned and coloured =======================================


def limit_size(picture, longest=WORK):
    """Makes (height, width, 3) at most so high and wide."""
    scale = min(1.0, longest / max(picture.shape))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    return tf.image.resize(picture, size, antialias=True)


def pool(picture, size, kind="AVG"):
    """Returns the mean (or "MAX") of size x size pixels around each of (1, height, width, 1)."""
    return tf.nn.pool(picture, (size, size), kind, padding="SAME")


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


def of_256(size):
    """Returns what a pixel of (height, width) becomes wide when that is squashed to 256x256, on average."""
    return 256 / math.sqrt(size[0] * size[1])


def thicken(gray, line_width):
    """Widens lines that are thinner than the training sketches'.

    Args:
        gray: (height, width, 1) in [0, 1], black on white.
        line_width: of the run's sketches, in pixels of 256.
    """
    # Steeper, lest what is left of the paper's grain grows with the lines.
    ink = tf.clip_by_value((0.75 - gray) / 0.5, 0.0, 1.0)
    width = common.line_width([1.0 - ink])
    wanted = line_width / of_256(gray.shape[:2])
    if width > 0.6 * wanted:
        return gray
    radius = round((wanted - width) / 2.0)
    axis = tf.range(-radius, radius + 1)
    disk = tf.where(axis[:, tf.newaxis] ** 2 + axis**2 <= radius**2, 0.0, -1.0)[..., tf.newaxis]
    return 1.0 - tf.nn.dilation2d(ink[tf.newaxis], disk, [1] * 4, "SAME", "NHWC", [1] * 4)[0]


def condition_of(run):
    """Returns what a run's options.json says of its conditions; a run that does not say has sketches.

    Returns:
        {"kind": "sketch", "labels" or "picture", "size": (height, width), "line_width": in pixels
        of that, "colours": [["#rrggbb", the class's name or nothing], ...]}, and where label maps
        had class numbers, "classes"; see stage 5.
    """
    options, _ = common.read_run(run)
    found, size = options["data"].get("condition", {}), common.image_size(options["flags"]["--size"])
    usual = {"kind": "sketch", "size": size, "line_width": BRUSH / of_256(size), "colours": []}
    return usual | {name: value for name, value in found.items() if value}


def read_condition(path, conditions, as_is, whole=False):
    """Reads a picture file as training read the conditions of a run.

    Args:
        path: of the file, or a Sent.
        conditions: as `condition_of` returns them.
        as_is: whether sketches are not cleaned.
        whole: whether the picture keeps its own size.

    Returns:
        (1, 256, 256, 3) in [-1, 1], or of the run's size; and the file's own (width, height).

    Raises:
        UnreadableError: no picture, or a label map with classes that the run does not know.
    """
    size = common.picture_size(path)
    kept = size if whole else common.kept_size(size, conditions["size"])
    if conditions["kind"] == "labels":
        picture = read_labels(path, conditions, kept)
    else:
        picture = common.read_picture(path, kept)
    return treat(picture, conditions, as_is, whole), size


def read_labels(path, conditions, size):
    """Reads a label map in the run's colours, (height, width, 3) uint8; warns of colours it does not know."""
    classes, colours = conditions.get("classes"), [colour for colour, _ in conditions["colours"]]
    codes, is_colours = common.read_label_map(path, size, numbers=classes is not None)
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


def treat(picture, conditions, as_is, whole=False):
    """Does with a picture what training did with conditions; of sketches, cleans it first.

    Args:
        picture: (height, width, 3) uint8, of any height and width.
        whole: whether it keeps them.

    Returns:
        (1, 256, 256, 3) in [-1, 1], or of the run's size.
    """
    picture = tf.cast(picture, tf.float32) / 255.0
    size = picture.shape[:2] if whole else conditions["size"]
    if conditions["kind"] == "labels":
        picture = tf.image.resize(picture, size, "nearest")
    elif conditions["kind"] == "sketch" and not as_is:
        picture = limit_size(picture, 2 * max(size))
        picture = clean_photograph(picture, conditions["line_width"] * of_256(size))
    return resize(picture, size)[tf.newaxis] * 2.0 - 1.0


def read_half(path, conditions, direction, whole=False):
    """Reads the half of a pair that the direction starts from; returns what `read_condition` does."""
    for problem in common.find_unreadable([path]).values():
        raise common.UnreadableError(path, problem)
    stack = common.read_stack(path, direction)
    size = stack.shape[:2] if whole else conditions["size"]
    condition, _ = split_stack(resize(stack, size, conditions["kind"] == "labels"))
    return condition[tf.newaxis], (stack.shape[1], stack.shape[0])


def to_proportions(picture, size):
    """Enlarges one side of a result, (1, 256, 256, 3), so that it has the proportions of (width, height)."""
    scales = picture.shape[2] / size[0], picture.shape[1] / size[1]
    scale = min(max(scales), 16 * min(scales))
    width, height = (max(1, round(scale * side)) for side in size)
    if picture.shape[1:3] == (height, width):
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


def make_colour_function(generator, size):
    """Returns the forward pass, traced: (1, *size, 3) in [-1, 1], and dropout's seed, to the same."""
    signature = [tf.TensorSpec((1, *size, 3), name="sheet"), tf.TensorSpec((), tf.int32)]
    return tf.function(lambda sheet, seed=0: generate(generator, sheet, seed), input_signature=signature)


def colour_files(plan, colour, read, left_out, memory=None):
    """Colours the files of a plan, one after the other.

    Args:
        read: function of a path, `read_condition` or `read_half`.
        left_out: a LeftOut, for those that turn out damaged.
        memory: bytes that each takes, by its path; told for each, with the time, if given.
    """
    bar = keras.utils.Progbar(len(plan), unit_name="file") if sys.stdout.isatty() and not memory else None
    done = 0
    for count, (result, path) in enumerate(plan.items(), start=1):
        started = time.perf_counter()
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
        elif memory:
            took = f"{time.perf_counter() - started:.1f} s, {memory[path] / 1e9:.1f} GB of memory at most"
            print(f"{result}  {size[0]}x{size[1]}: {took}", flush=True)
        else:
            print(result, flush=True)
    left_out.tell(f"{done} pictures coloured")
    if not done:
        raise common.UserError("--colour: none of the files can be read")


# === Whole pictures, in their own size =======================================


def make_whole_function(generator):
    """Returns the forward pass for pictures of any size: (1, height, width, 3) in [-1, 1], to the same."""
    colour = tf.function(lambda sheet: generate(generator, sheet))  # with it, skips are freed early

    def colour_whole(sheet):
        _, height, width, _ = sheet.shape
        picture = colour(mirror_sides(mirror_sides(sheet, axis=1), axis=2))
        top, left = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
        return picture[:, top : top + height, left : left + width]

    return colour_whole


def mirror_sides(picture, axis):
    """Continues a picture on both sides by its reflection, to the next multiple of 256 pixels.

    Not tf.pad, which cannot continue a small picture by more than its own size.
    """
    side = picture.shape[axis]
    more = -side % common.SIDE_STEP
    # Of 4 pixels, at the places -5 to 8: 1 2 3 2 1 | 0 1 2 3 | 2 1 0 1 2
    places = tf.range(-(more // 2), side + more - more // 2) % max(1, 2 * side - 2)
    return tf.gather(picture, tf.minimum(places, 2 * side - 2 - places), axis=axis)


def whole_memory(path, filters, half):
    """Returns how many bytes it takes to colour a file's whole picture.

    Args:
        half: whether the file is a pair.
    """
    width, height = common.picture_size(path)
    padded = [side + -side % common.SIDE_STEP for side in (width // 2 if half else width, height)]
    return BYTES_TO_START + math.prod(padded) * (BYTES_A_PIXEL + BYTES_A_PIXEL_AND_FILTER * filters)


def leave_out_too_large(plan, memory, left_out):
    """Takes the pictures out of a plan that there is no memory for, before any is tried.

    Args:
        memory: {path: bytes}.
        left_out: a LeftOut.

    Raises:
        UserError: there is none left.
    """
    free = common.free_memory()
    for result, path in list(plan.items()):
        if memory[path] > free:
            sizes = "{}x{}".format(*common.picture_size(path))
            needed = f"{memory[path] / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
            problem = f"too large: {sizes} would take {needed}; make it smaller, or leave out --whole"
            if len(plan) == 1:
                raise common.UserError(f"--colour {path}: {problem}")
            left_out.add(path, problem)
            del plan[result]


# === The pad: a page that its owner alone reaches ============================


decode_data = tf.function(common.decode_data, input_signature=[tf.TensorSpec((), tf.string)])  # 10x faster
Run = namedtuple("Run", ["folder", "colour", "flags", "condition"])  # colour: its generator, traced


def load_run(folder):
    generator, flags = common.load_generator(folder)
    condition = condition_of(folder)
    colour = make_colour_function(generator, condition["size"])
    colour(tf.ones((1, *condition["size"], 3)))  # traces it, lest the first stroke waits for that
    return Run(str(folder), colour, flags, condition)


class Sent(io.BytesIO):
    """A file that the page has sent."""

    def __str__(self):
        return "the opened file"


def to_png(picture):
    """Returns (height, width, 3) uint8 as the bytes of a PNG."""
    file, (height, width, _) = io.BytesIO(), picture.shape
    Image.frombytes("RGB", (width, height), memoryview(picture)).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Pad(ThreadingHTTPServer):
    """Serves the page and colours what it sends, at 127.0.0.1 alone. Port 0 is any that is free."""

    daemon_threads, block_on_close = True, False  # Ctrl-C waits for nobody
    allow_reuse_address = not common.WINDOWS  # which would let another program share the port
    request_queue_size = 256

    def __init__(self, runs, port=0):
        self.runs = runs
        self.network = threading.Lock()  # one picture at a time
        self.secret = secrets.token_urlsafe(24)
        self.strangers = {}  # connections that have not shown the secret, the oldest first
        super().__init__(("127.0.0.1", port), Request)
        self.hosts = [f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")]
        self.address = f"http://{self.hosts[0]}/{self.secret}/"

    def process_request(self, request, client_address):
        self.strangers[request] = True
        for oldest in list(self.strangers)[:-CONNECTIONS]:  # the owner always finds a place
            self.strangers.pop(oldest, None)
            with contextlib.suppress(OSError):
                oldest.send(b"HTTP/1.0 503 Too many connections\r\n\r\n")
                oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and ends
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        # Closing a connection with unread bytes resets it, and the answer may be lost on the way.
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(1.0)
            end = time.monotonic() + 2.0
            while time.monotonic() < end and request.recv(2**16):
                pass
        self.strangers.pop(request, None)
        self.close_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # one who hangs up early is no news
            super().handle_error(request, client_address)


class Refused(Exception):
    """A request that gets a status of HTTP and a reason."""


@contextlib.contextmanager
def refusing_damage():
    """Refuses the request if a picture cannot be read in the block."""
    try:
        yield
    except common.UnreadableError as error:
        raise Refused(415, error.problem) from error
    except common.NO_MEMORY:  # the picture is not to blame
        raise
    except Exception as error:  # Pillow and TensorFlow know many kinds of damage
        raise Refused(415, "not a PNG or JPEG picture, or damaged") from error


class Request(BaseHTTPRequestHandler):
    """One request; the connection ends with its answer."""

    timeout = PATIENCE

    def reply(self):
        """Answers with what the route's function returns: body, type and further headers."""
        routes = {"GET ": self.page, "GET about": self.about, "GET example": self.example}
        routes |= {"POST colour": self.colour, "POST open": self.open}
        try:
            route = f"{self.command} {self.admit()}"
            if route not in routes:
                raise Refused(404, "nothing is here")
            self.answer(200, *routes[route]())
        except Refused as refused:
            self.answer(refused.args[0], refused.args[1].encode())
        except common.UserError as error:
            self.answer(422, str(error).encode())
        except common.NO_MEMORY:
            self.answer(503, b"out of memory: close other programs, or use a run of fewer --filters")
        except TimeoutError:
            self.answer(408, b"too slow")

    do_GET = do_POST = reply

    def admit(self):
        """Lets the owner's page pass, and nobody else; returns the route."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:  # a foreign name that leads to here
            raise Refused(403, "this host is not served")
        path, _, query = self.path.partition("?")
        secret, _, route = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            raise Refused(403, "open the address that was printed: it holds a secret")
        if origins != [f"http://{hosts[0]}"] and (origins or self.command == "POST"):
            raise Refused(403, "not the pad's own page")
        self.server.strangers.pop(self.connection, None)
        self.query = dict(parse_qsl(query))
        return route

    def number(self, name, limit=10**9):
        """Returns a whole number of the query, below a limit; 0 if it is missing."""
        value = self.query.get(name, "0")
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) >= limit:
            raise Refused(400, f"{name}: a whole number below {limit}")
        return int(value)

    def body(self):
        """Returns the picture file that is sent, a Sent; only its header has been looked at."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,20}", length):
            raise Refused(411, "say how long it is")
        if int(length) > MAX_BODY:
            raise Refused(413, f"more than {MAX_BODY // 2**20} MB")
        body = Sent(self.rfile.read(int(length)))
        with refusing_damage(), Image.open(body, formats=["PNG", "JPEG"]) as image:
            pixels = image.width * image.height
        if pixels > common.MAX_PIXELS:
            raise Refused(413, f"more than {common.MAX_PIXELS:,} pixels")
        return body

    def page(self):
        nonce = secrets.token_urlsafe(16)  # names the page's own style and script: no others run
        policy = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:"
        policy += "; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        page = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        return page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy}

    def about(self):
        """What the page has to know: the runs, and what their conditions are."""
        runs = [{"name": run.folder, "loss": run.flags.get("--loss", "")} for run in self.server.runs]
        return json.dumps(self.server.runs[0].condition | {"runs": runs}).encode(), "application/json"

    def example(self):
        """A validation pair as one PNG: the condition, and to the right of it the real picture."""
        _, _, flags, condition = self.server.runs[0]
        paths = common.find_pairs(flags["--dataset"])["val"]
        path = paths[self.number("n") % len(paths)]
        common.refuse_unreadable("example", common.find_unreadable([path]))
        stack = common.read_stack(path, flags["--direction"])
        pair = split_stack(resize(stack, condition["size"], condition["kind"] == "labels"))
        return to_png(common.to_uint8(tf.concat(pair, axis=1)[tf.newaxis])), "image/png"

    def colour(self):
        """The generator's picture for a sheet, PNG to PNG: what --colour --as-is makes of it."""
        run = self.server.runs[self.number("run", len(self.server.runs))]
        seed, body = self.number("seed"), self.body()
        with refusing_damage():
            picture = decode_data(body.getvalue())
        height, width = run.condition["size"]
        if picture.shape != (height, width, 3):
            raise Refused(400, f"a sheet is {height} high and {width} wide")
        sheet = treat(picture, run.condition, as_is=True)
        with self.server.network:
            started = time.perf_counter()
            picture = common.to_uint8(run.colour(sheet, seed))
            took = 1000.0 * (time.perf_counter() - started)
        return to_png(picture), "image/png", {"Server-Timing": f"network;dur={took:.1f}"}

    def open(self):
        """The sheet that a picture file becomes, as PNG: the treatment of --colour."""
        as_is, body = not self.number("clean"), self.body()
        with refusing_damage():
            sheet, _ = read_condition(body, self.server.runs[0].condition, as_is)
        return to_png(common.to_uint8(sheet)), "image/png"

    def answer(self, status, body, kind="text/plain; charset=utf-8", headers=()):
        headers = HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))} | dict(headers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):  # the terminal is for what the owner has to know
        pass


def serve(pad, out, open_browser):
    """Prints the pad's address, opens it in a browser where there is one, and serves until Ctrl-C."""
    forward = f"{pad.server_port}:127.0.0.1:{pad.server_port}"
    print(f"{pad.address}\nWhoever has this address can draw here; Ctrl-C ends the pad.")
    print(f"To open it on another computer, first run there: ssh -N -L {forward} NAME_OF_THIS_COMPUTER")
    print("To open it outside of a container: start that with --network host", flush=True)
    with contextlib.ExitStack() as stack:
        screen = sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
        if open_browser and screen:
            # All who use this computer see a browser's command line. Only the owner reads this file.
            out.mkdir(parents=True, exist_ok=True)
            file, name = tempfile.mkstemp(".html", dir=out)
            stack.callback(Path(name).unlink, missing_ok=True)
            with open(file, "w", encoding="utf-8") as lead:  # closed, or Windows shows it to nobody
                print(f'<meta http-equiv="refresh" content="0; url={pad.address}">', file=lead)
            url = Path(name).resolve().as_uri()
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()  # some wait
        stack.callback(pad.network.acquire, timeout=1.0)  # then no thread computes while Python ends
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        pad.serve_forever()


def colour_sketches(args):
    """Does what --colour asks for. Mistakes come first: loading takes a while."""
    common.return_memory()
    left_out = common.LeftOut()
    conditions, (options, _) = condition_of(args.run[0]), common.read_run(args.run[0])
    flags = options["flags"]
    plan = plan_results(args.sketch, args.out, args.force, left_out)
    memory = None
    if args.whole:
        memory = {path: whole_memory(path, flags["--filters"], args.pairs) for path in plan.values()}
        leave_out_too_large(plan, memory, left_out)
    generator, _ = common.load_generator(args.run[0])
    kind = {"direction": flags["--direction"]} if args.pairs else {"as_is": args.as_is}
    kind |= {"conditions": conditions, "whole": args.whole}
    read = functools.partial(read_half if args.pairs else read_condition, **kind)
    if args.whole:
        colour = make_whole_function(generator)
    else:
        colour = make_colour_function(generator, conditions["size"])
    colour_files(plan, colour, read, left_out, memory)


def main():
    parser = common.Parser(__doc__)
    add, file_path = parser.first.add_argument, common.file_path
    run, out = Path("runs", "05_pix2pix"), Path("runs", "06_sketch_pad")
    add("--run", type=file_path, nargs="+", default=[run], metavar="DIR", help=f"trained runs ({run})")
    help_text = "colour files and folders, without the page"
    add("--colour", "--sketch", dest="sketch", type=file_path, nargs="+", metavar="FILE", help=help_text)
    add("--out", type=file_path, default=out, metavar="DIR", help=f"folder for --colour ({out})")
    add = parser.others.add_argument
    add("--port", type=common.number(0, 65535, int), default=8988, help="of the page (8988); 0: any")
    add("--no-browser", action="store_true", help="print the page's address, and open nothing")
    add("--as-is", action="store_true", help="with --colour: do not clean photographs of drawings")
    add("--pairs", action="store_true", help="with --colour: the files are pairs; colour their conditions")
    help_text = "with --colour: whole pictures in their own size, not squashed to the size of training"
    add("--whole", action="store_true", help=help_text)
    add("--force", action="store_true", help="let --colour overwrite earlier results")
    add("--export", type=file_path, help=argparse.SUPPRESS)  # what it did has become stage 8
    args = parser.parse_args()
    if args.export:
        stage8 = f"python 08_export.py --run {args.run[0]} --out {args.export}"
        raise common.UserError(f"--export: this is now the work of stage 8: {stage8}")
    for flag, given in {"--pairs": args.pairs, "--whole": args.whole}.items():
        if given and not args.sketch:
            parser.error(f"{flag}: goes with --colour only")
    if args.sketch:
        if len(args.run) > 1:
            parser.error("--colour takes one --run")
        colour_sketches(args)
        return
    runs = [load_run(folder) for folder in args.run]
    for name, problem in {
        "kind": "colour different things",
        "colours": "colour different things",
        "size": "are of different --size",
    }.items():
        if any(run.condition[name] != runs[0].condition[name] for run in runs):
            raise common.UserError(f"--run {' '.join(run.folder for run in runs)}: they {problem}")
    try:
        pad = Pad(runs, args.port)
    except OSError as error:
        raise common.UserError(f"--port {args.port}: taken, or not allowed; --port 0 finds one") from error
    serve(pad, args.out, not args.no_browser)


if __name__ == "__main__":
    common.run_main(main)
