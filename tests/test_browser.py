"""The pad's page in Chromium without a screen, driven over its DevTools protocol."""

import contextlib
import functools
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time

import common

import pytest
import tensorflow as tf
from test_pad import make_pad, make_runs, parts  # noqa: F401

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
needed = pytest.mark.skipif(not BROWSER, reason=f"none of {', '.join(NAMES)} is installed")
pytestmark = [pytest.mark.slow, needed, pytest.mark.usefixtures("make_runs")]


class Chromium:
    """A browser, which listens and answers on its descriptors 3 and 4: texts with a zero behind."""

    def __init__(self, folder):
        flags = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        flags += ["--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot have one
        (reads, self.to), (self.answers, writes) = os.pipe(), os.pipe()
        reads, writes = os.dup(reads), os.dup(writes)  # neither is 3 or 4
        connect = lambda: (os.dup2(reads, 3), os.dup2(writes, 4))  # noqa: E731
        options = {"preexec_fn": connect, "pass_fds": (3, 4), "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([BROWSER, *flags], **options)
        self.numbers, self.events, self.buffer = itertools.count(), [], b""

    def call(self, method, session=None, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                self.buffer += os.read(self.answers, 2**20)
            text, _, self.buffer = self.buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.process.terminate()
    browser.process.wait()


class Page:
    """A page of a browser, with a mouse, fingers and a keyboard."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        target = browser.call("Target.createTarget", url="about:blank")
        found = browser.call("Target.attachToTarget", flatten=True, **target)
        self.call = functools.partial(browser.call, session=found["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        browser.events.clear()

    def open(self, size=(1100, 900), language="en", dark=False, touch=False, before=""):
        """Opens the address; `before` is a script that runs before the page's own."""
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=2)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Network.setUserAgentOverride", userAgent="Chromium", acceptLanguage=language)
        self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("Page.navigate", url=self.address)
        until(lambda: self.run("document.readyState") == "complete")

    def close(self):
        """Refuses words in the console, the Worker's too, and requests to anywhere else."""
        self.run("1")  # what was told until now is read on the way
        for event in self.browser.events:
            params, told = event["params"], "consoleAPICalled|exceptionThrown|entryAdded"
            assert not re.search(told, event["method"]), params
            url = params.get("request", {}).get("url", self.address)
            assert re.match(f"{re.escape(self.address)}$|data:|blob:", url), params
        self.call("Page.close")

    def run(self, script):
        """Returns what a script on the page gives, after any promise."""
        options = {"returnByValue": True, "awaitPromise": True, "replMode": True}
        result = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def pixels(self, context="sheet"):
        """Returns what a canvas shows, (height, width, 3) uint8."""
        height, width = self.run(f"[{context}.canvas.height, {context}.canvas.width]")
        text = f"[...read({context}).data].map((n) => String.fromCharCode(n)).join('')"
        data = tf.io.decode_raw(self.run(text).encode("latin-1"), tf.uint8)
        return tf.reshape(data, (height, width, 4))[..., :3]

    def at(self, x, y):
        """Returns where a point of the sheet is on the page."""
        self.run("$('sheet').scrollIntoView({block: 'nearest'})")
        box = "(({x, y, width}) => [x, y, width / WIDTH])($('sheet').getBoundingClientRect())"
        left, top, scale = self.run(box)
        return {"x": left + x * scale, "y": top + y * scale}

    def draw(self, *points):
        """Draws with the mouse; one point is a click."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, place in zip(kinds, [*points, points[-1]]):
            options = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **self.at(*place), **options)

    def touch(self, *fingers):
        """Draws with one finger, or more at once: each a list of as many points."""
        kinds = ["touchStart", *["touchMove"] * (len(fingers[0]) - 1), "touchEnd"]
        for kind, places in itertools.zip_longest(kinds, zip(*fingers), fillvalue=()):
            points = [{"id": n} | self.at(*place) for n, place in enumerate(places)]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def key(self, key, code="", modifiers=0):
        for kind in ("keyDown", "keyUp"):
            options = {"key": key, "code": code, "modifiers": modifiers}
            self.call("Input.dispatchKeyEvent", type=kind, **options)

    def give(self, file, chosen=False):
        """Opens a file, by dropping it or, chosen, by the button's dialogue."""
        before = self.run("steps.length")
        if chosen:
            root = self.call("DOM.getDocument")["root"]["nodeId"]
            node = self.call("DOM.querySelector", nodeId=root, selector="#file")
            self.call("DOM.setFileInputFiles", files=[str(file)], **node)
        else:
            data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
            for kind in ("dragEnter", "dragOver", "drop"):
                self.call("Input.dispatchDragEvent", type=kind, **self.at(128, 128), data=data)
        until(lambda: self.run("steps.length") > before)

    def settle(self):
        """Waits until all pictures are those of the sheet."""
        until(lambda: self.run("coloured === version && !busy"))


@pytest.fixture
def open_page(chromium):
    @contextlib.contextmanager
    def opened(address, **options):
        page = Page(chromium, address)
        page.open(**options)
        yield page
        page.close()

    return opened


def until(ready):
    """Waits until a function returns something true."""
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.05)


def shades(picture, other):
    """Returns how far two pictures are from each other, in shades of 255: mean and most."""
    apart = tf.abs(tf.cast(picture, tf.float32) - tf.cast(other, tf.float32))
    return float(tf.reduce_mean(apart)), float(tf.reduce_max(apart))


def same(picture, other):
    return shades(picture, other)[1] == 0


def check_picture(page, file, run, precision="int8", number=0):
    """Compares the picture of a page's sheet with its own TFLite file's, and Keras'; returns it."""
    page.settle()
    shown = page.pixels(f"pictures[{number}].context")
    condition = tf.cast(page.pixels(), tf.float32)[tf.newaxis] / 127.5 - 1.0
    lite = common.run_tflite(parts(file)[3 + number])(condition=condition)["picture"]
    keras = common.generate(common.load_generator(run)[0], condition)
    # With weights of int8, each layer's input is rounded: a last bit may tip it the other way.
    mean, most = shades(shown, common.to_uint8(lite))
    assert (mean < 0.1 and most <= 5) if precision == "int8" else most <= 1
    mean, most = shades(shown, common.to_uint8(keras))
    assert mean < 1 and most <= (16 if precision == "int8" else 1)
    return shown


@pytest.mark.parametrize("hand, precision", [("mouse", "int8"), ("touch", "float16")])
def test_draw(hand, precision, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a stroke is not where the hand was, as wide as the run's lines, and coloured."""
    file = make_pad("run", precision=precision)
    with open_page(file.as_uri(), touch=hand == "touch") as page:
        draw = page.draw if hand == "mouse" else lambda *points: page.touch(points)
        blank, width = page.pixels(), page.run("about.line_width")
        assert int(tf.reduce_min(blank)) == 255 and width == pytest.approx(7.5, abs=1)
        draw((50, 100), (100, 100), (150, 100), (200, 100))
        line = page.pixels()
        ink = 1 - tf.cast(line[:, 120, 0], tf.float32) / 255
        assert float(tf.reduce_sum(ink)) == pytest.approx(width, abs=0.4)
        middle = float(tf.reduce_sum(ink * (tf.range(256.0) + 0.5)) / tf.reduce_sum(ink))
        assert middle == pytest.approx(100, abs=0.5)
        draw((30, 30))
        dot = page.pixels()
        assert int(dot[30, 30, 0]) == 0 and int(dot[30, 36, 0]) == 255, "no dot"
        # The second is the same key on a keyboard that writes Korean; 2 is Ctrl, 8 is Shift.
        keys = [("z", 0, line), ("ㅋ", 0, blank), ("z", 0, blank), ("y", 0, line), ("Z", 10, dot)]
        for key, modifiers, wanted in [*keys, ("z", 2, line), ("c", 0, blank), ("z", 0, line)]:
            page.key(key, "KeyZ", modifiers)
            assert same(page.pixels(), wanted), (key, modifiers)
        page.run("$('eraser').click(); $('larger').click()")
        draw((100, 90), (100, 110))
        assert [int(page.pixels()[100, x, 0]) for x in (90, 100, 110)] == [0, 255, 0]
        page.key("b", "KeyB")
        draw((128, 200), (128, 240), (300, 240))
        assert int(page.pixels()[240, 255, 0]) == 0, "a stroke that leaves the sheet is cut off"
        pictures = {"picture_run": check_picture(page, file, tmp_path / "run", precision)}
        allow = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
        page.browser.call("Browser.setDownloadBehavior", **allow)
        for number, (name, shown) in enumerate(({"sketch": page.pixels()} | pictures).items()):
            page.run(f"document.querySelectorAll('figcaption button')[{number}].click()")
            saved = tmp_path / "saved" / f"{name}.png"
            until(saved.exists)
            assert same(common.read_picture(saved), shown)


def test_two_runs(open_page, make_pad, few_pairs, tmp_path):  # noqa: F811
    """Broken if, on a static host, a run lacks its own picture, or an example the real one."""
    file = make_pad("l1", "cgan")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=file.parent)
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{host.server_port}/{file.name}"
    with host, open_page(address, size=(1600, 900)) as page:
        page.key("n", "KeyN")
        until(lambda: page.run("real.figure.checkVisibility()"))
        pair = common.read_picture(common.find_pairs(few_pairs)["val"][0])
        l1 = check_picture(page, file, tmp_path / "l1")
        assert not same(l1, check_picture(page, file, tmp_path / "cgan", number=1))
        assert same(page.pixels(), pair[:, :256])
        assert shades(page.pixels("real.context"), pair[:, 256:])[0] < 3, "more than JPEG loses"
        boxes = "[...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().x)"
        assert len(set(page.run(boxes))) == 4, "not side by side"
        page.key("c", "KeyC")
        assert not page.run("real.figure.checkVisibility()")
        host.shutdown()


@pytest.mark.parametrize("height, width", [(256, 512), (512, 256)])
def test_labels(height, width, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a label map gets colours of no class, or goes astray where it is no square."""
    colours = [["#000000", "road"], ["#ff0000", "car"], ["#0000ff", "</script>"]]
    file = make_pad("run", kind="labels", colours=colours, size=(height, width))
    with open_page(file.as_uri()) as page:
        words = page.run("$('colours').innerText").split()
        assert words == ["road", "1", "car", "2", "</script>", "3"]
        page.draw((0, height - 60), (width - 1, height - 66))
        page.key("3", "Digit3")
        page.key("g", "KeyG")
        page.draw((width - 2, 2))
        drawn = page.pixels()
        found = tf.raw_ops.UniqueV2(x=tf.reshape(drawn, (-1, 3)), axis=[0]).y
        found = {tuple(int(n) for n in colour) for colour in found}
        assert found == {(0, 0, 0), (255, 0, 0), (0, 0, 255)}, "mixed colours"
        blue = [int(drawn[y, x, 2]) for y in (0, -1) for x in (0, -1)]
        assert blue == [255, 255, 0, 0], "the other part was filled"
        assert check_picture(page, file, tmp_path / "run").shape == (height, width, 3)
        large = tf.repeat(tf.repeat(drawn, 2, axis=0), 3, axis=1)
        tf.io.write_file("map.png", tf.io.encode_png(large))
        page.key("c", "KeyC")
        page.give(tmp_path / "map.png")
        assert same(page.pixels(), drawn), "not squashed without mixing colours"


def test_files(open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a file is not on the sheet, or cannot be moved, zoomed, and cleaned if a photo."""
    x, y = tf.meshgrid(tf.range(512.0) - 256.0, tf.range(512.0) - 256.0)
    circle = tf.abs(tf.sqrt(x**2 + y**2) - 150.0)  # from its line, which is thin and gray
    ink = 0.65 * tf.clip_by_value(2.5 - circle, 0.0, 1.0)[..., tf.newaxis]
    grain = tf.random.stateless_normal((512, 512, 1), (0, 0), stddev=0.015)
    light = tf.linspace(0.55, 0.9, 512)[:, tf.newaxis, tf.newaxis] * tf.constant([1.0, 0.97, 0.9])
    photo = tf.clip_by_value(light * (1.0 - ink + grain), 0.0, 1.0)
    tf.io.write_file("photo.png", tf.io.encode_png(tf.cast(photo * 255, tf.uint8)))
    tf.io.write_file("wide.png", tf.io.encode_png(tf.ones((100, 400, 3), tf.uint8)))
    with open_page(make_pad("run").as_uri()) as page:
        for chosen in (True, False):
            page.key("c", "KeyC")
            page.give(tmp_path / "photo.png", chosen)
            assert int(tf.reduce_max(page.pixels())) < 250
        page.key("k", "KeyK")
        cleaned = page.pixels()[..., 0]
        ink = 1 - tf.cast(cleaned, tf.float32) / 255
        wanted = 2 * 3.1416 * 75 * page.run("about.line_width")
        assert float(tf.reduce_sum(ink)) == pytest.approx(wanted, rel=0.2), "width"
        assert float(tf.reduce_max(ink[circle[::2, ::2] > 16])) < 0.1, "the paper is not white"
        page.draw((128, 128), (148, 128), (168, 128))
        assert same(page.pixels()[:, 45:, 0], cleaned[:, 5:216]), "not moved"
        zoom = page.run("photo.zoom")
        page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        page.touch([(118, 128), (98, 128)], [(138, 128), (158, 128)])
        assert page.run("photo.zoom") == pytest.approx(3 * zoom, rel=0.05)
    with open_page(make_pad("photos", kind="picture").as_uri()) as page:
        page.give(tmp_path / "wide.png")
        assert int(tf.reduce_max(page.pixels())) == 1, "does not fill the frame"
        assert not page.run("$('pen').checkVisibility() || $('clean').checkVisibility()")


SLOW = """globalThis.sent = 0;
const post = worker.postMessage.bind(worker);
worker.postMessage = (...message) => { sent += 1; setTimeout(() => post(...message), 1500); };"""


def test_slow_network(open_page, make_pad):  # noqa: F811
    """Broken if a stroke waits for the network, sheets pile up, or the last is not coloured."""
    with open_page(make_pad("run").as_uri()) as page:
        page.settle()
        page.run(SLOW)
        page.draw(*((20 + 3 * n, 60 + n) for n in range(60)))
        assert int(page.pixels()[90, 110, 0]) == 0 and page.run("busy"), "no ink until it answers"
        page.settle()
        assert page.run("sent") <= 5, "sheets in between were sent"
        shown = page.pixels("pictures[0].context")
        page.run("follow()")
        page.settle()
        assert same(shown, page.pixels("pictures[0].context")), "the last sheet was not coloured"


LACKS = {
    "delete globalThis.DecompressionStream": "too old",
    "Worker = class { constructor() { throw Error('no Worker'); } }": "no Worker",
    """CanvasRenderingContext2D.prototype.getImageData =
        (x, y, width, height) => new ImageData(width, height)""": "hides pictures",
}


@pytest.mark.parametrize("before", LACKS)
def test_lacking(before, open_page, make_pad):  # noqa: F811
    """Broken if the page does not say plainly what the browser lacks, or cannot be drawn on."""
    with open_page(make_pad("run").as_uri(), before=before) as page:
        until(lambda: LACKS[before] in page.run("$('message').textContent"))
        page.draw((50, 50), (90, 90))
        assert page.run("steps.length") == 2


# The least contrast of a text with what is behind it, by WCAG 2.
CONTRAST = r"""(() => {
    const light = (...colours) => { // of the last, on the others
        const one = newContext(1, 1);
        for (one.fillStyle of colours) one.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...read(one).data].map((v) => ((v / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const back = (e) => e ? [...back(e.parentElement), getComputedStyle(e).backgroundColor] : [];
    return Math.min(...[...document.querySelectorAll("h1, p, b, button:enabled, kbd")].map((e) => {
        const ratio = light(getComputedStyle(e).color) / light(...back(e));
        return Math.max(ratio, 1 / ratio);
    }));
})()"""


@pytest.mark.parametrize("width, dark", [(360, True), (800, False), (1600, True)])
def test_looks(width, dark, open_page, make_pad):  # noqa: F811
    """Broken if something is cut off, hard to read, nameless to a screen reader, or in English."""
    options = {"language": "ko-KR" if dark else "en-US", "touch": width < 500}
    with open_page(make_pad("run").as_uri(), size=(width, 900), dark=dark, **options) as page:
        page.settle()
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run(CONTRAST) >= 4.5
        assert page.run("$('undo').firstChild.data") == ("실행 취소" if dark else "Undo")
        assert page.run("document.documentElement.lang") == options["language"][:2]
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "slider", "image"}
        nodes = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
        assert len(nodes) >= 12 and all(node["name"]["value"] for node in nodes)
        page.run("$('pen').focus()")
        page.key("Tab", "Tab")
        assert page.run("getComputedStyle(document.activeElement).outlineWidth") == "3px"
