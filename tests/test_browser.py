"""The pad in a real browser: Chromium without a screen, driven over its DevTools protocol.

python tests/test_browser.py runs/05_pix2pix docs/pad.png   # draws the README's picture
"""

import asyncio
import base64
import contextlib
import importlib
import itertools
import json
import os
import shutil
import socket
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
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
SECONDS = 60  # until an answer is late


class Page:
    """A page in a browser of its own, with a mouse."""

    def __init__(self, socket):
        self.socket, self.numbers = socket, itertools.count()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, address, width, height):
        from tornado.websocket import websocket_connect  # noqa: PLC0415

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
            flags += [f"--window-size={width},{height}", "--hide-scrollbars", "--no-first-run"]
            flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot have one
            process = subprocess.Popen(
                [BROWSER, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                file = Path(folder) / "DevToolsActivePort"
                await until(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
                tabs = f"http://127.0.0.1:{file.read_text().split()[0]}/json/list"
                (tab,) = [t for t in json.load(urllib.request.urlopen(tabs)) if t["type"] == "page"]
                page = cls(await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=2**28))
                await page.call("Page.navigate", url=address)
                yield page
            finally:
                process.terminate()
                process.wait()

    async def call(self, method, **params):
        number = next(self.numbers)
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(await asyncio.wait_for(self.socket.read_message(), SECONDS))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def canvas(self):
        """Returns where the figure is on the page: x, y, width, height."""
        script = "JSON.stringify(document.querySelector('canvas.mpl-canvas')?.getBoundingClientRect())"
        result = (await self.call("Runtime.evaluate", expression=script))["result"]
        return json.loads(result["value"]) if "value" in result else None

    async def screenshot(self):
        """Returns the figure, (height, width, 3) uint8, and as PNG."""
        box = {name: value for name, value in (await self.canvas()).items() if name in BOX}
        shot = await self.call("Page.captureScreenshot", clip=box | {"scale": 1})
        png = base64.b64decode(shot["data"])
        return tf.io.decode_png(png, channels=3), png

    async def mouse(self, kind, x, y):
        box = await self.canvas()
        held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        if kind == "mouseMoved" and not self.down:
            held = {}
        self.down = kind != "mouseReleased" and bool(held)
        await self.call("Input.dispatchMouseEvent", type=kind, x=box["x"] + x, y=box["y"] + y, **held)

    down = False


BOX = ("x", "y", "width", "height")


async def until(ready):
    """Waits for a function, which may be a coroutine's, to return something true; returns that."""
    started = time.monotonic()
    while time.monotonic() - started < SECONDS:
        answer = ready()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if answer is not None and answer is not False:
            return answer
        await asyncio.sleep(0.1)
    raise TimeoutError


@contextlib.contextmanager
def served(run, out):
    """Runs the pad as a web page; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, HERE / "06_sketch_pad.py", "--web", "--run", run, "--out", out]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(2)  # Ctrl-C
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0


class Layout:
    """Tells where things are in the figure, in pixels from its top left, by a pad without a browser."""

    def __init__(self):
        stage6 = importlib.import_module("06_sketch_pad")
        figure = Figure(stage6.FIGURE, dpi=100)
        FigureCanvasAgg(figure)
        self.pad = stage6.SketchPad(figure, lambda sheet: sheet, {}, Path())
        self.height = round(figure.bbox.height)

    def on_sheet(self, x, y):
        x, y = self.pad.sketch.axes.transData.transform((x, y))
        return float(x), float(self.height - y)

    def crop(self, screenshot, axes):
        left, bottom, right, top = (round(edge) for edge in axes.bbox.extents)
        return screenshot[self.height - top + 3 : self.height - bottom - 3, left + 3 : right - 3]


async def draw(page, layout, stroke):
    """Draws a stroke, [(x, y), ...] in pixels of 256; returns the screenshot that shows it coloured."""
    before, _ = await page.screenshot()
    await page.mouse("mouseMoved", *layout.on_sheet(*stroke[0]))
    await page.mouse("mousePressed", *layout.on_sheet(*stroke[0]))
    for point in stroke[1:]:
        await page.mouse("mouseMoved", *layout.on_sheet(*point))
        await asyncio.sleep(0.03)
    await page.mouse("mouseReleased", *layout.on_sheet(*stroke[-1]))

    async def coloured():
        after, png = await page.screenshot()
        old, new = (layout.crop(shot, layout.pad.picture.axes) for shot in (before, after))
        same = old.shape == new.shape and not bool(tf.reduce_any(old != new))
        return None if same else (after, png)

    return await until(coloured)


async def begin(page, layout):
    """Waits for the figure to be there and drawn."""

    async def there():
        box = await page.canvas()
        if not box or box["width"] < 900:
            return None
        shot, _ = await page.screenshot()
        button = layout.crop(shot, layout.pad.buttons[0].ax)
        return shot if int(tf.reduce_min(button)) < 100 else None  # its name is written

    return await until(there)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")
def test_browser(make_run, tmp_path):
    """Broken if the web page does not take strokes of a real pointer, or does not colour them."""
    pytest.importorskip("tornado", reason="tornado is missing: pip install -r requirements-web.txt")
    common.keras.utils.set_random_seed(0)
    run, layout = make_run(tmp_path / "run", common.UNet()), Layout()

    async def play(address):
        async with Page.opened(address, 1100, 1000) as page:
            blank = await begin(page, layout)
            assert int(tf.reduce_min(layout.crop(blank, layout.pad.sketch.axes))) == 255, "not blank"
            for stroke in ([(100, 100)], smooth([(20, 60), (100, 200), (150, 60), (230, 230)], steps=20)):
                shot, png = await draw(page, layout, stroke)
            (tmp_path / "pad.png").write_bytes(png)
            await page.call("Input.dispatchKeyEvent", type="keyDown", key="s", text="s")
            await until((tmp_path / "out" / "result_001.png").exists)
            return shot

    with served(run, tmp_path / "out") as address:
        shot = asyncio.run(play(address))
    sketch = common.decode_picture(str(tmp_path / "out" / "sketch_001.png"))
    values = [int(sketch[y, x, 0]) for x, y in ((100, 100), (20, 60), (100, 200), (150, 60), (200, 20))]
    assert values == [0, 0, 0, 0, 255], "other strokes than the pointer's"
    on_screen = layout.crop(shot, layout.pad.sketch.axes)
    scale = (256 / layout.pad.sketch.axes.bbox.width) ** 2
    black = [float(tf.reduce_sum(tf.cast(picture < 128, tf.float32))) for picture in (sketch, on_screen)]
    assert black[1] * scale == pytest.approx(black[0], rel=0.01), (
        "the browser does not show all of the stroke"
    )


def apple():
    """Returns an apple, in strokes."""
    side = [(128, 92), (112, 80), (92, 76), (70, 84), (56, 104), (52, 132), (60, 166), (78, 200)]
    side += [(100, 218), (116, 220), (128, 214)]
    body = side + [(256 - x, y) for x, y in reversed(side)]
    leaf = [(132, 66), (144, 44), (166, 34), (190, 36), (182, 56), (162, 68), (132, 66)]
    return [body, [(128, 92), (126, 70), (118, 46)], leaf]


def smooth(points, steps=5):
    """Returns a Catmull-Rom curve through points, as a hand would draw it."""
    ends = [points[0], *points, points[-1]]
    curve = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:]):
        for n in range(steps):
            t = n / steps
            terms = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            curve.append(tuple(sum(w * p[i] for w, p in zip(terms, (a, b, c, d))) / 2 for i in (0, 1)))
    return [*curve, points[-1]]


def main():
    run, picture = Path(sys.argv[1]), Path(sys.argv[2])

    async def play(address):
        layout = Layout()
        async with Page.opened(address, 1100, 1000) as page:
            await begin(page, layout)
            for stroke in apple():
                _, png = await draw(page, layout, smooth(stroke))
        picture.write_bytes(png)

    with tempfile.TemporaryDirectory() as out, served(run, out) as address:
        asyncio.run(play(address))


if __name__ == "__main__":
    main()
