"""The pad in a real browser: Chromium without a screen, driven over its DevTools protocol.

python tests/test_browser.py runs/05_pix2pix docs/pad.png   # draws the README's picture
"""

import base64
import contextlib
import importlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402
from test_sketch_pad import SmallUNet, serving  # noqa: E402

stage6 = importlib.import_module("06_sketch_pad")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
SECONDS = 60  # until an answer is late


class WebSocket:
    """As much of RFC 6455 as DevTools needs: texts to and from a server on this computer."""

    def __init__(self, url):
        port, path = re.fullmatch(r"ws://127\.0\.0\.1:(\d+)(/.*)", url).groups()
        self.connection = socket.create_connection(("127.0.0.1", int(port)), SECONDS)
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
        host = f"Host: 127.0.0.1:{port}\r\n"
        self.connection.sendall(f"GET {path} HTTP/1.1\r\n{host}{upgrade}{key}\r\n".encode())
        self.file = self.connection.makefile("rb")
        assert b" 101 " in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass

    def send(self, text):
        data = text.encode()
        # The last fragment, a text; a length of 8 bytes; masked, by zeros.
        self.connection.sendall(struct.pack("!BBQI", 0x81, 0xFF, len(data), 0) + data)

    def receive(self):
        data, last = b"", False
        while not last:
            first, length = self.file.read(2)
            last = first & 0x80
            if length > 125:  # it stands in the next 2 or 8 bytes
                length = int.from_bytes(self.file.read(2 if length == 126 else 8), "big")
            data += self.file.read(length)
        return data.decode()


class Page:
    """A page in a browser of its own, with a mouse, a finger and a keyboard.

    Its `events` are what DevTools tells: requests, words in the console, exceptions.
    """

    def __init__(self, url):
        self.socket, self.numbers, self.events = WebSocket(url), itertools.count(), []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, address, size=(1100, 900), language="en", dark=False, touch=False):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
            flags += ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
            flags += ["--disable-component-update", "--hide-scrollbars"]
            flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot have one
            silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            env = os.environ | {"TMPDIR": folder}  # where it would leave folders of its own
            process = subprocess.Popen([BROWSER, *flags, "about:blank"], env=env, **silence)
            try:
                file = Path(folder) / "DevToolsActivePort"
                until(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
                tabs = f"http://127.0.0.1:{file.read_text().split()[0]}/json/list"
                (tab,) = [t for t in json.load(urllib.request.urlopen(tabs)) if t["type"] == "page"]
                page = cls(tab["webSocketDebuggerUrl"])
                for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                    page.call(f"{domain}.enable")
                screen = dict(zip(("width", "height"), size)) | {"deviceScaleFactor": 1, "mobile": touch}
                page.call("Emulation.setDeviceMetricsOverride", **screen)
                page.call("Emulation.setTouchEmulationEnabled", enabled=touch)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                page.call("Emulation.setEmulatedMedia", features=[scheme])
                page.call("Network.setUserAgentOverride", userAgent="Chromium", acceptLanguage=language)
                page.go(address)
                page.settle()
                yield page
                page.check(address)
            finally:
                process.terminate()
                process.wait()

    def call(self, method, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.receive())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def go(self, address):
        """Opens an address; again if the browser, just started, was still at its first page."""

        def there():
            self.call("Page.navigate", url=address)
            until(lambda: self.run("document.readyState") == "complete")
            return self.run("location.href") == address

        until(there)

    def check(self, address):
        """Refuses words in the console, failed scripts, and requests to anywhere else."""
        self.run("1")  # what was told until now is read on the way
        for event in self.events:
            kind, params = event["method"], event["params"]
            assert kind not in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}, params
            if kind == "Log.entryAdded":  # Chromium advises these tests, which read the pictures often
                assert "Multiple readback" in params["entry"]["text"], params
            if kind == "Network.requestWillBeSent":
                assert re.match(f"{re.escape(address)}|data:|blob:", params["request"]["url"]), params

    def run(self, script):
        """Returns what a script on the page gives, after any promise."""
        options = {"returnByValue": True, "awaitPromise": True, "replMode": True}
        result = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result or "not defined" in str(result), result
        return result["result"].get("value")

    def pixels(self, canvas="sheet.canvas"):
        """Returns what a canvas shows, (256, 256, 3) uint8, or as large as it is."""
        height, width = self.run(f"[{canvas}.height, {canvas}.width]")
        script = f"[...{canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data]"
        return tf.reshape(tf.constant(self.run(script), tf.uint8), (height, width, 4))[..., :3]

    def at(self, x, y):
        """Returns where a point of the sheet is on the page."""
        self.run("$('sheet').scrollIntoView({block: 'nearest'})")
        box = self.run("(({x, y, width}) => [x, y, width / WIDTH])($('sheet').getBoundingClientRect())")
        return box[0] + x * box[2], box[1] + y * box[2]

    def mouse(self, kind, x, y):
        x, y = self.at(x, y)
        held = {"mousePressed": 1, "mouseMoved": self.held, "mouseReleased": 0}[kind]
        self.held = held
        button = "none" if kind == "mouseMoved" and not held else "left"
        options = {"x": x, "y": y, "button": button, "buttons": held, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, **options)

    held = 0

    def draw(self, *points):
        self.mouse("mouseMoved", *points[0])
        self.mouse("mousePressed", *points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
        self.mouse("mouseReleased", *points[-1])

    def touch(self, *fingers):
        """Draws with one finger, or more at once: each a list of as many points."""
        for n, places in enumerate(zip(*fingers)):
            points = [{"id": id} | dict(zip("xy", self.at(*place))) for id, place in enumerate(places)]
            self.call("Input.dispatchTouchEvent", type="touchMove" if n else "touchStart", touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def key(self, key, code="", modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=modifiers)

    def settle(self):
        """Waits until all pictures are those of the sheet."""
        begun = "typeof steps === 'object' && steps.length"
        ready = f"{begun} && coloured === version && !following"
        shown = "String([location, document.readyState, document.body.innerText])"
        until(lambda: self.run(ready), lambda: self.run(shown))

    def screenshot(self, path=None):
        data = base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        if path:
            Path(path).write_bytes(data)
        return data


def until(ready, tell=str):
    """Waits until a function returns something true, and returns it; if that is late, says what tell does."""
    started = time.monotonic()
    while time.monotonic() - started < SECONDS:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.05)
    raise TimeoutError(tell())


@pytest.fixture
def make_pad(make_run, monkeypatch, tmp_path):
    """Serves a pad of untrained runs, one for each name, with what is told of their conditions."""
    monkeypatch.setattr(common, "UNet", SmallUNet)
    with contextlib.ExitStack() as stack:

        def make(*names, flags=None, **condition):
            runs = [make_run(tmp_path / name, SmallUNet(), flags=flags) for name in names]
            runs = [stage6.load_run(run) for run in runs]
            runs = [run._replace(condition=run.condition | condition) for run in runs]
            return stack.enter_context(serving(stage6.Pad(runs)))

        yield make


def same(left, right):
    return bool(tf.reduce_all(left == right))


def by_script(call_main, run, sheet):
    """Returns what --colour writes for a sheet, a PNG file."""
    flags = ["--run", run, "--as-is", "--force", "--out", "by_script", "--colour", sheet]
    done = call_main("06_sketch_pad.py", *flags)
    assert done.returncode == 0, done.stderr
    return common.decode_picture(done.stdout.splitlines()[0])


PASTE = """{
    const bytes = Uint8Array.from(atob("DATA"), (c) => c.charCodeAt(0)), clipboardData = new DataTransfer();
    clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
}"""


def give_file(page, file, how):
    """Opens a file by the chooser, by dropping or by pasting it."""
    before = page.run("version")
    if how == "chooser":
        page.call("Page.setInterceptFileChooserDialog", enabled=True)
        x, y = page.run("(({x, y}) => [x + 5, y + 5])($('open').getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        until(lambda: page.run("1") and any(e["method"] == "Page.fileChooserOpened" for e in page.events))
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    elif how == "drop":
        x, y = page.at(128, 128)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            page.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
    else:
        page.run(PASTE.replace("DATA", base64.b64encode(Path(file).read_bytes()).decode()))
    until(lambda: page.run("version") > before)
    page.settle()


slow = pytest.mark.slow
needed = f"no browser: none of {', '.join(NAMES)} is installed"
pytestmark = pytest.mark.skipif(BROWSER is None, reason=needed)


@slow
@pytest.mark.parametrize("hand", ["mouse", "touch"])
def test_draw(hand, make_pad, call_main, tmp_path):
    """Broken if a stroke is not where the hand was, as wide as the run's lines, coloured as by --colour."""
    pad = make_pad("run", line_width=6)
    with Page.opened(pad.address, touch=hand == "touch") as page:
        draw = page.draw if hand == "mouse" else lambda *points: page.touch(points)
        blank = page.pixels()
        assert int(tf.reduce_min(blank)) == 255
        draw((50, 100), (100, 100), (150, 100), (200, 100))
        line = page.pixels()
        ink = 1 - tf.cast(line[:, 120, 0], tf.float32) / 255
        assert float(tf.reduce_sum(ink)) == pytest.approx(6, abs=0.1)
        middle = float(tf.reduce_sum(ink * (tf.range(256.0) + 0.5))) / 6
        assert middle == pytest.approx(100, abs=0.5)
        assert int(line[100, 48, 0]) < 128 < int(line[97, 47, 0]), "the end is not round"
        draw((30, 30))
        dot = page.pixels()
        assert int(dot[30, 30, 0]) == 0 and int(dot[30, 34, 0]) == 255, "no dot"
        for key, code, modifiers, wanted in (
            ("z", "KeyZ", 0, line),
            ("ㅋ", "KeyZ", 0, blank),  # the same key, on a keyboard that writes Korean
            ("z", "KeyZ", 0, blank),
            ("y", "KeyY", 0, line),
            ("Z", "KeyZ", 2 + 8, dot),  # with Ctrl and Shift
            ("z", "KeyZ", 2, line),
            ("c", "KeyC", 0, blank),
            ("z", "KeyZ", 0, line),
        ):
            page.key(key, code, modifiers)
            assert same(page.pixels(), wanted), (key, modifiers)
        page.run("$('eraser').click(); $('larger').click()")
        assert page.run("Number($('width').value)") == 7.5
        draw((100, 90), (100, 110))
        erased = page.pixels()
        assert [int(erased[100, x, 0]) for x in (90, 100, 110)] == [0, 255, 0]
        page.key("b", "KeyB")
        draw((128, 200), (128, 240), (300, 240))
        assert int(page.pixels()[240, 255, 0]) == 0, "a stroke that leaves the sheet is cut off"
        page.settle()
        downloads = tmp_path / "saved"
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        for button in ("$('save-sheet')", "document.querySelector('#pictures button')"):
            page.run(f"{button}.click()")
        until(lambda: {"sketch.png", "picture_run.png"} <= {file.name for file in downloads.glob("*.png")})
        shown = page.pixels("pictures[0].canvas")
        assert same(common.decode_picture(str(downloads / "sketch.png")), page.pixels())
    assert same(common.decode_picture(str(downloads / "picture_run.png")), shown)
    assert same(by_script(call_main, tmp_path / "run", downloads / "sketch.png"), shown)


@slow
@pytest.mark.parametrize("how", ["chooser", "drop", "paste"])
def test_open(how, make_pad, tmp_path):
    """Broken if a file does not become the sheet that --colour makes of it, or cannot stay uncleaned."""
    photo = Image.new("RGB", (300, 200), (120, 120, 100))
    photo.paste(0, (0, 60, 300, 80))
    photo.save(tmp_path / "photo.png")
    Image.new("RGB", (6000, 6000), "red").save(
        tmp_path / "red.webp", lossless=True
    )  # the browser has to help
    pad = make_pad("run")
    with Page.opened(pad.address) as page:
        give_file(page, tmp_path / "photo.png", how)
        for as_is in (False, True):
            condition = pad.runs[0].condition
            wanted = common.to_uint8(stage6.read_condition(tmp_path / "photo.png", condition, as_is)[0])
            until(lambda wanted=wanted: same(page.pixels(), wanted))
            page.run("$('clean').click()")
        until(lambda: page.run("step") == 3)
        if how == "drop":
            page.run("$('clean').checked = false")
            give_file(page, tmp_path / "red.webp", how)
            assert [int(value) for value in page.pixels()[128, 128]] == [255, 0, 0]
            page.run("openFile(new File(['no picture'], 'bad.png', { type: 'image/png' }))")
            until(lambda: "cannot be read" in page.run("$('message').textContent"))
            assert [int(value) for value in page.pixels()[128, 128]] == [255, 0, 0]


@slow
def test_labels(make_pad, call_main, tmp_path):
    """Broken if a label map cannot be drawn and filled in the run's colours, or gets one of no class."""
    black, road, sky = (0, 0, 0), (128, 64, 128), (70, 130, 180)
    colours = [["#000000", "void"], ["#804080", "road"], ["#4682b4", ""]]
    pad = make_pad("run", kind="labels", colours=colours)
    with Page.opened(pad.address) as page:
        names = page.run("[...$('colours').children].map((button) => button.childNodes[1].data)")
        assert names == ["void", "road", "#4682b4"]
        assert page.run("$('bucket').checkVisibility() && !$('clean-switch').checkVisibility()")
        page.draw((1, 90), (80, 140), (180, 100), (260, 160))
        page.key("3", "Digit3")
        page.key("g", "KeyG")
        page.draw((128, 10))
        sheet = page.pixels()
        found = {tuple(int(v) for v in sheet[y, x]) for y in range(0, 256, 5) for x in range(256)}
        assert found == {black, road, sky}
        places = (2, 2), (128, 0), (253, 2), (128, 250)
        assert [tuple(int(v) for v in sheet[y, x]) for x, y in places] == [sky, sky, sky, black]
        page.key("e", "KeyE")
        page.draw((128, 10))
        assert tuple(int(value) for value in page.pixels()[10, 128]) == black
        page.run("$('clear').click()")
        page.key("b", "KeyB")
        page.draw((128, 1), (128, 258))
        page.key("g", "KeyG")
        for place, filled in ((20, 0), (236, 255)):
            page.draw((place, 100))
            sheet = page.pixels()
            rims = {x: {tuple(int(v) for v in sheet[y, x]) for y in range(0, 256, 5)} for x in (0, 255)}
            assert rims == {filled: {sky}, 255 - filled: {black}}, "it goes on at the other rim"
            page.key("z", "KeyZ")
        page.settle()
        shown, sheet = page.pixels("pictures[0].canvas"), page.pixels()
    (tmp_path / "sheet.png").write_bytes(stage6.to_png(sheet))
    assert same(by_script(call_main, tmp_path / "run", tmp_path / "sheet.png"), shown)


@slow
def test_pictures(make_pad, tmp_path):
    """Broken if a photograph does not fill the frame, or cannot be moved and zoomed in it."""
    photo = Image.new("RGB", (800, 400), "red")
    photo.paste("blue", (400, 0, 800, 400))
    photo.save(tmp_path / "photo.png")
    pad = make_pad("run", kind="picture")
    with Page.opened(pad.address) as page:
        assert not page.run("$('pen').checkVisibility() || $('width').checkVisibility()")

        def seam():  # how many of the pixels in the middle row are red
            row = page.pixels()[128]
            return int(tf.reduce_sum(tf.cast((row[:, 0] > 128) & (row[:, 1] < 128), tf.int32)))

        give_file(page, tmp_path / "photo.png", "drop")
        assert seam() == pytest.approx(128, abs=1)
        page.draw((100, 100), (120, 100), (140, 100))
        assert seam() == pytest.approx(168, abs=2)
        page.draw((100, 100), (250, 100), (600, 100))
        assert seam() == 256, "left a gap"
        page.key("z", "KeyZ")
        assert seam() == pytest.approx(168, abs=2)
        x, y = page.at(168, 128)
        page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-200)
        zoom = page.run("photo.zoom")
        assert zoom == pytest.approx(0.64 * math.exp(0.5)) and seam() == pytest.approx(168, abs=3)
        page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        page.touch([(118, 128), (98, 128)], [(138, 128), (158, 128)])
        assert page.run("photo.zoom") == pytest.approx(3 * zoom, rel=0.05)
        page.run("for (let n = 0; n < 20; n += 1) $('smaller').click()")
        assert [int(v) for v in page.pixels()[10, 128]] == [255, 255, 255], "the whole is not to be had"


@slow
@pytest.mark.parametrize("height, width", [(256, 512), (512, 256)])
def test_sheets_of_another_size(make_pad, height, width):
    """Broken if on a sheet that is no square a stroke, a fill, a file or an example goes astray."""
    colours = [["#000000", ""], ["#ff0000", ""]]
    flags = {"--size": f"{height}x{width}"}
    with Page.opened(make_pad("labels", flags=flags, kind="labels", colours=colours).address) as page:
        assert page.pixels().shape == page.pixels("pictures[0].canvas").shape == (height, width, 3)
        page.draw((0, height - 60), (width, height - 60))
        line = page.pixels()[..., 0]
        assert [int(line[height - 60, x]) for x in (0, width - 1)] == [255, 255] and int(line[60, 60]) == 0
        page.key("g", "KeyG")
        page.draw((width - 2, 2))
        filled = page.pixels()[: height - 60, :, 0]
        assert int(tf.reduce_min(filled)) == 255 and int(page.pixels()[-1, -1, 0]) == 0
        page.key("z", "KeyZ")
        page.draw((2, height - 4))
        sides = [int(page.pixels()[y, x, 0]) for y, x in ((-1, 0), (-1, -1), (0, 0), (0, -1))]
        assert sides == [255, 255, 0, 0], "the other part was filled"
        shape = "(({width, height}) => width / height)($('sheet').getBoundingClientRect())"
        assert page.run(shape) == pytest.approx(width / height, rel=0.01)
        page.key("n", "KeyN")
        until(lambda: not page.run("$('real').disabled"))
        assert page.pixels("real.canvas").shape == (height, width, 3)
    with Page.opened(make_pad("pictures", flags=flags, kind="picture").address) as page:
        page.run("var red = newCanvas(300, 300), context = red.getContext('2d'); context.fillStyle = 'red'")
        page.run("context.fillRect(0, 0, 300, 300)")
        page.run("await openFile(new File([await toPng(red)], 'red.png', { type: 'image/png' }))")
        assert int(tf.reduce_max(page.pixels()[..., 1])) == 0, "does not fill the frame"
        page.draw((100, 100), (100, 1000))
        page.run("for (let n = 0; n < 20; n += 1) $('smaller').click()")
        shown = page.pixels()[..., 1]
        whole = min(height, width)  # a square, moved to the middle of the longer side or along it
        assert int(tf.reduce_sum(tf.cast(shown < 128, tf.int32))) == pytest.approx(whole**2, rel=0.02)


@slow
def test_compare(make_pad, call_main, few_pairs, tmp_path):
    """Broken if one of several runs does not show its own picture, or the real one is not to be had."""
    common.keras.utils.set_random_seed(0)
    pad = make_pad("l1", "cgan")
    with Page.opened(pad.address) as page:
        assert page.run("$('real').disabled")
        page.key("n", "KeyN")
        until(lambda: not page.run("$('real').disabled"))
        page.key("p", "KeyP")
        page.settle()
        pair = common.decode_picture(common.find_pairs(few_pairs)["val"][0])
        shown = [page.pixels(f"pictures[{n}].canvas") for n in (0, 1)]
        assert same(page.pixels(), pair[:, :256]) and not same(*shown)
        assert same(page.pixels("real.canvas"), pair[:, 256:])
        boxes = "[...document.querySelectorAll('figure')].map((figure) => figure.getBoundingClientRect().x)"
        assert len(set(page.run(boxes))) == 4, "not side by side"
        page.key("r", "KeyR")
        page.settle()
        assert not same(page.pixels("pictures[0].canvas"), shown[0]), "another seed changed nothing"
    (tmp_path / "sheet.png").write_bytes(stage6.to_png(pair[:, :256]))
    for name, picture in zip(("l1", "cgan"), shown):
        assert same(by_script(call_main, tmp_path / name, tmp_path / "sheet.png"), picture)


# Notes of each event on the sheet after how many ms, in the next frame, its ink is there.
WATCH = """globalThis.waits = [];
for (const type of ["pointerdown", "pointermove"]) $("sheet").addEventListener(type, (event) => {
    const [x, y] = place(event).map(Math.floor), began = performance.now();
    if (event.buttons) requestAnimationFrame(() => {
        const inked = sheet.getImageData(x, y, 1, 1).data[0] < 128;
        waits.push(inked ? performance.now() - began : 1e9);
    });
}, true);"""


@slow
def test_slow_network(make_pad):
    """Broken if a stroke waits for the network, requests pile up, or the page does not say it is behind."""
    pad = make_pad("run")
    run, asked = pad.runs[0], []

    def colour(sheet, seed):
        asked.append(time.monotonic())
        time.sleep(1.5)
        return run.colour(sheet, seed)

    with Page.opened(pad.address) as page:
        behind = "getComputedStyle(document.querySelector('.behind')).visibility"
        assert page.run(behind) == "hidden"
        pad.runs[0] = run._replace(colour=colour)
        page.run(WATCH)
        page.draw(*((20 + 2 * n, 60 + n) for n in range(100)))
        waits = sorted(page.run("waits"))
        assert len(waits) > 50 and waits[-1] < 1e9, "no ink in the next frame"
        assert waits[len(waits) // 2] < 50, "a frame takes long"
        until(lambda: page.run(behind) == "visible")
        page.settle()
        assert len(asked) <= 3, "sheets in between were sent"
        until(lambda: page.run(behind) == "hidden")
        pad.runs[0] = run
        shown = page.pixels("pictures[0].canvas")
        page.run("changed()")
        page.settle()
        assert same(shown, page.pixels("pictures[0].canvas")), "the last sheet was not coloured"


# The contrast of each text with what is behind it, by WCAG 2.
CONTRAST = r"""(() => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
        .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
    const numbers = (text) => text.match(/[\d.]+/g).map(Number);
    const behind = (element) => {
        const colour = numbers(getComputedStyle(element).backgroundColor);
        return colour[3] === 0 ? behind(element.parentElement) : colour;
    };
    const texts = document.querySelectorAll("h1, p, .name, button:not(:disabled), .switch, kbd, .behind");
    return [...texts].filter((text) => text.checkVisibility() && text.textContent).map((text) => {
        const [a, b] = [light(numbers(getComputedStyle(text).color)), light(behind(text))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.textContent];
    });
})()"""


@slow
@pytest.mark.parametrize("size", [(360, 740), (800, 900), (1600, 900)])
@pytest.mark.parametrize("dark", [False, True])
def test_looks(size, dark, make_pad):
    """Broken if something is cut off, hard to read, nameless to a screen reader, or in another language."""
    pad, language = make_pad("run"), "ko-KR" if dark else "en-US"
    with Page.opened(pad.address, size, language, dark, touch=size[0] < 500) as page:
        assert page.run("document.documentElement.scrollWidth") <= size[0]
        contrasts = page.run(CONTRAST)
        assert len(contrasts) > 10 and min(contrasts)[0] >= 4.5, min(contrasts)
        assert page.run("$('undo').firstChild.data") == ("실행 취소" if dark else "Undo")
        assert page.run("document.documentElement.lang") == language[:2]
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "slider", "checkbox", "image"}
        nodes = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
        assert len(nodes) >= 12 and all(node["name"]["value"] for node in nodes)
        page.run("$('pen').focus()")
        page.key("Tab", "Tab")
        assert page.run("document.activeElement.matches(':focus-visible')")
        assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2


def ring(x, y, radius, start=0.0, end=1.0):
    """Returns part of a circle, in shares of a whole one: clockwise from the right."""
    turns = [2 * math.pi * (start + (end - start) * n / 40) for n in range(41)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def face():
    """Returns a smiling face, in strokes."""
    eyes = [[(x, y) for y in (104, 112)] for x in (97, 159)]
    return [ring(128, 128, 94, 0.75, 1.76), *eyes, ring(128, 128, 54, 0.09, 0.41)]


def main():
    run, picture = Path(sys.argv[1]), Path(sys.argv[2])
    with serving(stage6.Pad([stage6.load_run(run)])) as pad, Page.opened(pad.address, (1100, 600)) as page:
        for stroke in face():
            page.draw(*stroke)
        page.mouse("mouseMoved", 230, 300)
        page.settle()
        page.screenshot(picture)


if __name__ == "__main__":
    main()
