"""The pad in a real browser: Chromium without a screen, driven over its DevTools protocol.

python tests/test_browser.py runs/05_pix2pix docs/pad.png   # draws the README's picture
"""

import base64
import contextlib
import importlib
import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

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
            if length > 125:
                (length,) = struct.unpack(
                    *(("!H", self.file.read(2)) if length == 126 else ("!Q", self.file.read(8)))
                )
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
    def opened(cls, address, width=1100, height=900, language="en", dark=False, touch=False):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
            flags += ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
            flags += ["--disable-component-update", "--hide-scrollbars"]
            flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot have one
            silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen([BROWSER, *flags, "about:blank"], **silence)
            try:
                file = Path(folder) / "DevToolsActivePort"
                until(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
                tabs = f"http://127.0.0.1:{file.read_text().split()[0]}/json/list"
                (tab,) = [t for t in json.load(urllib.request.urlopen(tabs)) if t["type"] == "page"]
                page = cls(tab["webSocketDebuggerUrl"])
                for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                    page.call(f"{domain}.enable")
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
                page.call("Emulation.setDeviceMetricsOverride", **size)
                page.call("Emulation.setTouchEmulationEnabled", enabled=touch)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                page.call("Emulation.setEmulatedMedia", features=[scheme])
                page.call("Network.setUserAgentOverride", userAgent="Chromium", acceptLanguage=language)
                page.call("Page.navigate", url=address)
                page.settle()
                yield page
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

    def run(self, script):
        """Returns what a script on the page gives, after any promise."""
        options = {"returnByValue": True, "awaitPromise": True, "replMode": True}
        result = self.call("Runtime.evaluate", expression=script, **options)
        return result["result"].get("value")

    def pixels(self, canvas):
        """Returns what a canvas shows, (256, 256, 4) uint8."""
        script = f"[...{canvas}.getContext('2d').getImageData(0, 0, 256, 256).data]"
        return tf.reshape(tf.constant(self.run(script), tf.uint8), (256, 256, 4))[..., :3]

    def at(self, x, y):
        """Returns where a point of the sheet is on the page."""
        self.run("$('sheet').scrollIntoView({block: 'nearest'})")
        box = self.run("(({x, y, width}) => [x, y, width])($('sheet').getBoundingClientRect())")
        return box[0] + x * box[2] / 256, box[1] + y * box[2] / 256

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
        for kind, n in (
            ("touchStart", 0),
            *(("touchMove", n) for n in range(1, len(fingers[0]))),
            ("touchEnd", None),
        ):
            places = [] if n is None else [self.at(*finger[n]) for finger in fingers]
            points = [{"x": x, "y": y, "id": id} for id, (x, y) in enumerate(places)]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def key(self, key, code="", modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=modifiers)

    def settle(self):
        """Waits until all pictures are those of the sheet."""
        until(
            lambda: self.run(
                "typeof steps !== 'undefined' && steps.length && !following && coloured === version"
            )
        )

    def screenshot(self, path=None):
        data = base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        if path:
            Path(path).write_bytes(data)
        return data


def until(ready):
    """Waits for a function to return something true; returns that."""
    started = time.monotonic()
    while time.monotonic() - started < SECONDS:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.05)
    raise TimeoutError


@contextlib.contextmanager
def serving(runs, **options):
    """Serves a pad from this process."""
    pad = stage6.Pad(runs, **options)
    thread = threading.Thread(target=pad.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield pad
    finally:
        pad.shutdown()
        thread.join()
        pad.server_close()
