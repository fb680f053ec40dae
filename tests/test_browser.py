"""The pad's page in headless Chromium, driven over the DevTools protocol."""

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

import keras
import pytest
import tensorflow as tf
from conftest import same
from test_pad import make_pad, make_runs, parts  # noqa: F401

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="needs Chromium")]


class Chromium:
    """A browser that reads from descriptor 3 and answers on 4; a zero byte ends each message."""

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

    def call(self, method, session=(), **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params} | dict(session)
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


class Page:
    """A page, with a mouse, fingers and a keyboard; `before` is a script that runs first."""

    def __init__(self, browser, address, *, size, language, dark, touch, before):
        self.browser, self.address = browser, address
        target = browser.call("Target.createTarget", url="about:blank")
        session = browser.call("Target.attachToTarget", flatten=True, **target)
        self.call = functools.partial(browser.call, session=session)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        browser.events.clear()
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=2)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Network.setUserAgentOverride", userAgent="Chromium", acceptLanguage=language)
        self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("Page.navigate", url=address)
        until(lambda: self.run("document.readyState") == "complete")

    def close(self):
        """Asserts that the console, the Worker's too, is empty and nothing else was requested."""
        self.run("1")  # waiting for its answer also reads all earlier events
        for event in self.browser.events:
            told = "consoleAPICalled|exceptionThrown|entryAdded"
            assert not re.search(told, event["method"]), event
            url = event["params"].get("request", {}).get("url", self.address)
            assert re.match(f"{re.escape(self.address)}$|data:|blob:", url), event
        self.call("Page.close")

    def run(self, script):
        """Returns the value of a script on the page; awaits it if it is a promise."""
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
        box = self.run("$('sheet').getBoundingClientRect().toJSON()")
        left, top, scale = box["x"], box["y"], box["width"] / self.run("WIDTH")
        return {"x": left + x * scale, "y": top + y * scale}

    def draw(self, *points, lift=True):
        """Draws with the mouse; one point is a click. Without `lift` the pen stays down."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, place in zip(kinds if lift else kinds[:-1], [*points, points[-1]]):
            options = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **self.at(*place), **options)

    def touch(self, *fingers):
        """Draws with fingers: a list of points for each, all of the same length."""
        kinds = ["touchStart", *["touchMove"] * (len(fingers[0]) - 1), "touchEnd"]
        for kind, places in itertools.zip_longest(kinds, zip(*fingers), fillvalue=()):
            points = [{"id": n} | self.at(*place) for n, place in enumerate(places)]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def key(self, key, code="", modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=modifiers)

    def give(self, file, chosen=False):
        """Opens a file: drops it or, if `chosen`, picks it in the button's dialogue."""
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

    def settle(self):  # waits until all pictures show the current sheet
        until(lambda: self.run("coloured === version"))


@pytest.fixture(scope="module")
def open_page(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"))

    @contextlib.contextmanager
    def opened(address, **options):
        usual = {"size": (1100, 900), "language": "en", "dark": False, "touch": False, "before": ""}
        page = Page(browser, address, **usual | options)
        yield page
        page.close()

    yield opened
    browser.process.terminate()
    browser.process.wait()


def until(ready):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.05)


def shades(picture, other):
    """Returns the mean and the largest difference of two pictures, on the scale 0 to 255."""
    apart = tf.abs(tf.cast(picture, tf.float32) - tf.cast(other, tf.float32))
    return float(tf.reduce_mean(apart)), float(tf.reduce_max(apart))


def check_picture(page, file, run, precision="int8", number=0):
    """Compares the page's picture with those of its TFLite file and of Keras; returns it."""
    page.settle()
    shown = page.pixels(f"pictures[{number}].context")
    condition = tf.cast(page.pixels(), tf.float32)[tf.newaxis] / 127.5 - 1.0
    with pytest.warns(UserWarning, match="deprecated"):
        interpreter = tf.lite.Interpreter(model_content=parts(file)[3 + number])
    lite = interpreter.get_signature_runner()(condition=condition)["picture"]
    ours = common.generate(common.load_generator(run)[0], condition)
    lite, ours = (keras.utils.img_to_array(common.to_image(picture)) for picture in (lite, ours))
    assert shades(shown, lite)[1] <= 1
    mean, most = shades(shown, ours)
    assert mean < 1 and most <= (16 if precision == "int8" else 1)
    return shown


@pytest.mark.parametrize("hand, precision", [("mouse", "int8"), ("touch", "float16")])
def test_draw(hand, precision, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a stroke, key or tool goes wrong, or a picture that is shown or saved is wrong."""
    file = make_pad("run", precision=precision)
    with open_page(file.as_uri(), touch=hand == "touch") as page:
        draw = page.draw if hand == "mouse" else lambda *points: page.touch(points)
        blank, width = page.pixels(), page.run("about.line_width")
        assert width == pytest.approx(7.5, abs=1), "not the data's"
        draw((50, 100), (100, 100), (150, 100), (200, 100))
        line = page.pixels()
        ink = 1 - tf.cast(line[:, 120, 0], tf.float32) / 255
        middle = float(tf.reduce_sum(ink * (tf.range(256.0) + 0.5)) / tf.reduce_sum(ink))
        assert (float(tf.reduce_sum(ink)), middle) == pytest.approx((width, 100), abs=0.4)
        dot = draw((30, 30)) or page.pixels()
        assert int(dot[30, 30, 0]) == 0 and int(dot[30, 36, 0]) == 255, "no dot"
        # The second is the same key with a Korean layout. Modifiers: 2 is Ctrl, 8 is Shift.
        keys = [("z", 0, line), ("ㅋ", 0, blank), ("z", 0, blank), ("y", 0, line), ("Z", 10, dot)]
        for key, modifiers, wanted in [*keys, ("z", 2, line), ("c", 0, blank), ("z", 0, line)]:
            page.key(key, "KeyZ", modifiers)
            assert same(page.pixels(), wanted), (key, modifiers)
        page.run("$('eraser').click(); $('larger').click()")
        draw((100, 90), (100, 110))
        assert [int(page.pixels()[100, x, 0]) for x in (90, 100, 110)] == [0, 255, 0]
        page.key("b", "KeyB")
        for key in ("Tab", "ArrowDown", "Space"):  # the browser's own: they choose no tool
            page.key(key, key)
        draw((128, 200), (128, 240), (300, 240))
        assert int(page.pixels()[240, 255, 0]) == 0, "a stroke that leaves the sheet ends early"
        shown = check_picture(page, file, tmp_path / "run", precision)
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        for number, picture in enumerate((page.pixels(), shown)):
            page.run(f"document.querySelectorAll('figcaption button')[{number}].click()")
            saved = tmp_path / ("sketch.png", "picture_run.png")[number]
            until(saved.exists)
            assert same(common.read_picture(saved), picture)


CORES = "Object.defineProperty(navigator, 'hardwareConcurrency', {{value: {}}})"


@pytest.mark.parametrize("cores", [1, 2])
def test_lifted(cores, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if the picture of a finished stroke waits for an older one, or is replaced by it."""
    file = make_pad("run")
    with open_page(file.as_uri(), before=CORES.format(cores)) as page:
        until(lambda: page.run("idle.length") == cores)
        page.run("""
            late = [], first = version + 1;
            hold = (e) => (stroke || e.target.version === first ? late.push(e) : hear(e));
            for (const worker of idle) worker.onmessage = hold;
        """)
        page.draw((60, 60), lift=False)
        until(lambda: page.run("late.length") == 2)  # about the stroke's first point
        page.draw((60, 60), (120, 200), (200, 80), (60, 60), lift=False)
        assert page.run("idle.length") == cores - 1, "two workers are busy while the pen moves"
        page.draw((60, 60))
        if cores == 1:
            page.run("late.splice(0).forEach(hear)")
        shown = check_picture(page, file, tmp_path / "run")
        page.run("late.forEach(hear)")
        assert same(page.pixels("pictures[0].context"), shown), "replaced by an older one"
        before = page.run("version")
        page.draw((30, 30))
        assert page.run("version") == before + 1, "an unchanged sheet is coloured again"


def test_a_worker_fails(open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if one failed worker stops the page, or Clear removes the message that all failed."""
    file, fail = make_pad("run"), "hear({target: idle.shift(), data: {error: 'no memory'}})"
    with open_page(file.as_uri(), before=CORES.format(2)) as page:
        until(lambda: page.run("idle.length") == 2)
        page.run(fail)
        page.draw((60, 60), (120, 200), lift=False)
        check_picture(page, file, tmp_path / "run")
        page.draw((60, 60))
        page.settle()
        assert page.run("$('message').textContent") == "Draw here. Nothing leaves this page."
        page.run(fail)
        page.key("c", "KeyC")
        assert page.run("$('message').textContent") == "Stopped; reload the page: no memory"


@pytest.mark.parametrize("filters, size", [(16, (256, 256)), (32, (512, 256)), (64, (256, 256))])
def test_widths(filters, size, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a network of a usual width draws a different picture in the browser."""
    file = make_pad("run", filters=filters, size=size)
    with open_page(file.as_uri()) as page:
        page.draw((60, 60), (120, 200), (200, 80), (60, 60))
        check_picture(page, file, tmp_path / "run")


def test_two_runs(open_page, make_pad, few_pairs, tmp_path):  # noqa: F811
    """Broken if a page on a static host mixes up two runs, or lacks an example's real picture."""
    file = make_pad("l1", "cgan")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=file.parent)
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    with host, open_page(f"http://127.0.0.1:{host.server_port}/l1.html", size=(1600, 900)) as page:
        page.key("n", "KeyN")
        until(lambda: page.run("real.figure.checkVisibility()"))
        assert page.run("$('clear').click(), $('undo').click(), !real.figure.hidden"), "kept apart"
        page.run("for (let n = 0; n < 4; n += 1) $('example').click()")
        until(lambda: page.run("steps.length") == 6)
        kinds = "['image', 'answer'].map((k) => new Set(steps.map((s) => s[k]?.data.join())).size)"
        assert page.run(kinds) == [3, 3], "two pairs and the blank sheet"
        sketch, real = common.decode_pair(common.find_pairs(few_pairs)["val"][-1])
        l1 = check_picture(page, file, tmp_path / "l1")
        assert not same(l1, check_picture(page, file, tmp_path / "cgan", number=1))
        assert same(page.pixels(), sketch)
        assert shades(page.pixels("real.context"), real)[0] < 3, "more than JPEG loses"
        boxes = "[...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().x)"
        assert len(set(page.run(boxes))) == 4, "not side by side"
        host.shutdown()


@pytest.mark.parametrize("height, width", [(256, 512), (512, 256)])
def test_labels(height, width, open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a label map gets colours of no class, or is distorted when it is not square."""
    colours = [["#000000", "road"], ["#ff0000", "car"], ["#0000ff", "</script>"]]
    file = make_pad("run", kind="labels", colours=colours, size=(height, width))
    with open_page(file.as_uri()) as page:
        words = page.run("$('colours').innerText.split(/\\s+/).join()")
        assert words == "road,1,car,2,</script>,3"
        page.draw((0, height - 60), (width - 1, height - 66))
        page.key('"', "Digit3")  # 3 in a French layout
        page.key("g", "KeyG")
        page.draw((width - 2, 2))
        drawn = page.pixels()
        codes = tf.linalg.matvec(tf.cast(drawn, tf.int32), [65536, 256, 1])
        found = {int(code) for code in tf.unique(tf.reshape(codes, [-1])).y}
        assert found == {0, 0xFF0000, 0x0000FF}, "mixed colours"
        assert [int(drawn[y, 9, 2]) for y in (0, -1)] == [255, 0], "the other part was filled"
        page.run("fill([9, HEIGHT])")  # the sheet's lower edge: must end
        assert check_picture(page, file, tmp_path / "run").shape == (height, width, 3)
        large = tf.repeat(tf.repeat(drawn, 2, axis=0), 3, axis=1)
        tf.io.write_file("map.png", tf.io.encode_png(large))
        page.key("c", "KeyC")
        page.give(tmp_path / "map.png")
        assert same(page.pixels(), drawn), "not resized without mixing colours"
        assert page.run("$('message').innerText").strip() == "map.png"
        page.run("about.classes = [0, 1, 2]")
        page.give(tmp_path / "map.png")
        assert "class numbers? Use --colour" in page.run("$('message').innerText")


def test_files(open_page, make_pad, tmp_path):  # noqa: F811
    """Broken if a file does not open on the sheet, or a photo cannot be cleaned, moved, zoomed."""
    x, y = tf.meshgrid(tf.range(512.0) - 256.0, tf.range(512.0) - 256.0)
    circle = tf.abs(tf.sqrt(x**2 + y**2) - 150.0)  # from its line, which is thin and gray
    grain = 1.0 + tf.random.stateless_normal((512, 512), (0, 0), stddev=0.015)
    light = tf.linspace(0.55, 0.9, 512)[:, tf.newaxis] * grain
    photo = 255 * light * (1.0 - 0.65 * tf.clip_by_value(2.5 - circle, 0.0, 1.0))
    tf.io.write_file("photo.png", tf.io.encode_png(tf.cast(photo, tf.uint8)[..., tf.newaxis]))
    tf.io.write_file("wide.png", tf.io.encode_png(tf.ones((100, 400, 3), tf.uint8)))
    with open_page(make_pad("run").as_uri()) as page:
        for chosen in (True, False):
            page.key("c", "KeyC")
            page.give(tmp_path / "photo.png", chosen)
            assert int(tf.reduce_max(page.pixels())) < 250
        page.key("k", "KeyK")
        cleaned, wanted = page.pixels()[..., 0], 2 * 3.1416 * 75 * page.run("about.line_width")
        ink = 1 - tf.cast(cleaned, tf.float32) / 255
        assert float(tf.reduce_sum(ink)) == pytest.approx(wanted, rel=0.2), "width"
        assert float(tf.reduce_max(ink[circle[::2, ::2] > 16])) < 0.1, "the paper is not white"
        kept = page.run("$('sheet').focus(), steps.at(-2).photo.image !== photo.image")
        page.draw((128, 128), (148, 128), (168, 128))
        page.draw((9, 9))  # moves nothing, so it is no step
        page.key("ArrowRight", "ArrowRight")
        assert same(page.pixels()[:, 49:, 0], cleaned[:, 5:212]), "not moved"
        assert kept and page.run("steps.filter((s) => s.photo).length") == 4, "Undo would fail"
        zoom = page.run("photo.zoom")
        page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        page.touch([(118, 128), (98, 128)], [(138, 128), (158, 128)])
        assert page.run("photo.zoom") == pytest.approx(3 * zoom, rel=0.05)
    with open_page(make_pad("photos", kind="picture").as_uri()) as page:
        page.give(tmp_path / "wide.png")
        assert int(tf.reduce_max(page.pixels())) == 1, "it does not fill the frame"
        assert not page.run("$('pen').checkVisibility() || $('clean').checkVisibility()")


HIDDEN = "CanvasRenderingContext2D.prototype.getImageData = (x, y, w, h) => new ImageData(w, h)"
LACKS = [("delete globalThis.DecompressionStream", "too old"), (HIDDEN, "hides pictures")]


LACKS += [("Worker = null", "Worker is not")]
BLOCKED = "Worker = class { postMessage() { setTimeout(() => this.onerror(new Event(''))); } }"
LACKS += [(BLOCKED, "page: Worker")]


@pytest.mark.parametrize("before, words", LACKS)
def test_lacking(before, words, open_page, make_pad):  # noqa: F811
    """Broken if the page does not say what the browser lacks, or no longer lets the user draw."""
    with open_page(make_pad("run").as_uri(), before=before) as page:
        until(lambda: words in page.run("$('message').textContent"))
        page.draw((50, 50), (90, 90), lift=False)
        page.call("Input.dispatchMouseEvent", type="mouseMoved", **page.at(99, 99))  # no button
        assert page.run("steps.length") == 2, "the pen stays down if it is lifted elsewhere"


@pytest.mark.parametrize("width, dark", [(360, True), (800, False), (1600, True)])
def test_looks(width, dark, open_page, make_pad):  # noqa: F811
    """Broken if the page overflows, a control has no accessible name, or the language is wrong."""
    options = {"language": "ko-KR" if dark else "en-US", "dark": dark, "touch": width < 500}
    with open_page(make_pad("run").as_uri(), size=(width, 900), **options) as page:
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("$('undo').firstChild.data") == ("실행 취소" if dark else "Undo")
        assert page.run("document.documentElement.lang") == options["language"][:2]
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "slider", "image"}
        nodes = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
        assert len(nodes) >= 12 and all(node["name"]["value"] for node in nodes)
