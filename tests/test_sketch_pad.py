"""Stage 6: the pad's server and who may not reach it, and files coloured without it.

What happens on the page itself is in test_browser.py.
"""

import contextlib
import http.client
import io
import json
import re
import select
import shutil
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image

SCRIPT = "06_sketch_pad.py"
PHONE = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turned by 90 degrees


class SmallUNet(common.UNet):
    """The U-Net with a thirty-second of its filters: quick to make, to run and to export."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    common.keras.utils.set_random_seed(0)
    return make_run(tmp_path_factory.mktemp("trained") / "run", SmallUNet())


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Has load_generator make small networks."""
    monkeypatch.setattr(common, "UNet", SmallUNet)


@pytest.fixture(scope="module")
def loaded(stage6, run):
    """The run, as the pad has it in memory: to load it takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "UNet", SmallUNet)
        return stage6.load_run(run)


@pytest.fixture
def pad(stage6, loaded):
    """A pad that is served from this process, of a run that each test may change for itself."""
    mine = loaded._replace(flags=dict(loaded.flags), condition=dict(loaded.condition))
    with serving(stage6.Pad([mine])) as pad:
        yield pad


@contextlib.contextmanager
def serving(pad):
    thread = threading.Thread(target=pad.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield pad
    finally:
        pad.shutdown()
        thread.join()
        pad.server_close()


def ask(pad, route, body=None, secret=None, path=None, **headers):
    """Sends a request as the page does, but for what is given; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", pad.server_port, timeout=20)
    known = {} if body is None else {"Origin": f"http://127.0.0.1:{pad.server_port}"}
    headers = known | {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/{pad.secret if secret is None else secret}/{route}" if path is None else path
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    result = answer.status, answer.headers, answer.read()
    connection.close()
    return result


def send_raw(pad, data):
    """Sends bytes as they are; returns the connection."""
    connection = socket.create_connection(("127.0.0.1", pad.server_port), timeout=20)
    connection.sendall(data)
    return connection


def start_of(pad, length):
    """Returns the head of a request by the page with a body of so many bytes."""
    host = f"127.0.0.1:{pad.server_port}"
    lines = [f"POST /{pad.secret}/colour HTTP/1.1", f"Host: {host}", f"Origin: http://{host}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def png(picture):
    """Returns (height, width, 3) uint8 as the bytes of a PNG."""
    file = io.BytesIO()
    Image.frombytes("RGB", picture.shape[1::-1].as_list(), memoryview(picture)).save(file, "PNG")
    return file.getvalue()


SHEET = png(tf.cast(tf.random.stateless_uniform((256, 256, 3), (0, 0), 0, 256, tf.int32), tf.uint8))


def goes_on(pad):
    """Tells whether the pad still serves its owner, and soon."""
    started = time.monotonic()
    status, _, body = ask(pad, "colour", SHEET)
    return (
        status == 200 and common.decode_data(body).shape == (256, 256, 3) and time.monotonic() - started < 2
    )


def read_condition(path):
    """Returns the left half of a pair, (256, 256, 3) in [-1, 1]."""
    stack = common.stack_pair(*common.decode_pair(path), "AtoB")
    return common.split_stack(common.resize(stack))[0]


def test_page(pad):
    """Broken if the page can be framed, stored, or run a script that is not its own."""
    status, headers, page = ask(pad, "")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    nonce = policy["script-src"]
    assert status == 200 and f"<script {nonce[1:-1].replace('nonce-', 'nonce=')}".encode() in page.replace(
        b'"', b""
    )
    assert nonce == policy["style-src"] and nonce not in ask(pad, "")[1]["Content-Security-Policy"]
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"] and policy["connect-src"] == "'self'"
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    assert b"NONCE" not in page and b"http://www.w3.org/2000/svg" in page
    assert page.count(b"http") == 1, "loads something from elsewhere"


def test_about(pad, stage6, make_run, run, tmp_path):
    """Broken if the page is not told what the run's conditions are, or an older run has none."""
    about = json.loads(ask(pad, "about")[2])
    assert about["kind"] == "sketch" and about["line_width"] == 7.0 and about["colours"] == []
    assert [told["name"] for told in about["runs"]] == [str(run)]
    labels = {"kind": "labels", "line_width": None, "colours": [["#804080", "road"]]}
    for more in ({}, {"classes": [7]}):
        folder = make_run(tmp_path / f"run{len(more)}", SmallUNet())
        options = json.loads((folder / "options.json").read_text())
        options["data"]["condition"] = labels | more
        (folder / "options.json").write_text(json.dumps(options))
        assert stage6.condition_of(folder) == labels | {"line_width": 7.0, "size": (256, 256)} | more


def test_colour(pad, call_main, run, tmp_path):
    """Broken if the page does not get what --colour writes for the sheet, or a seed changes nothing."""
    (tmp_path / "sheet.png").write_bytes(SHEET)
    done = call_main(SCRIPT, "--run", run, "--as-is", "--out", "out", "--sketch", "sheet.png")
    assert done.returncode == 0, done.stderr
    written = common.decode_picture(str(tmp_path / "out" / "sheet.png"))
    first, again, other = (ask(pad, f"colour?seed={seed}", SHEET) for seed in (0, 0, 1))
    direct = pad.runs[0].colour(tf.cast(common.decode_data(SHEET)[tf.newaxis], tf.float32) / 127.5 - 1)
    assert bool(tf.reduce_all(common.to_uint8(direct) == written))
    assert bool(tf.reduce_all(common.decode_data(first[2]) == written)) and first[2] == again[2] != other[2]
    assert re.fullmatch(r"network;dur=[0-9.]+", first[1]["Server-Timing"])
    small = png(tf.zeros((256, 128, 3), tf.uint8))
    mistakes = {"colour?run=1": 400, "colour?seed=-1": 400, "colour?seed=" + "9" * 5000: 400, "paint": 404}
    assert {route: ask(pad, route, SHEET)[0] for route in mistakes} == mistakes
    assert ask(pad, "colour", small)[0] == 400 and ask(pad, "colour")[0] == 404


def test_examples(pad, few_pairs, monkeypatch):
    """Broken if an example is not the condition and the real picture of a validation pair."""
    paths = common.find_pairs(few_pairs)["val"]
    for n, path in ((0, paths[0]), (1, paths[1]), (2, paths[0])):
        shown = common.decode_data(ask(pad, f"example?n={n}")[2])
        assert bool(tf.reduce_all(shown == common.decode_picture(path)))
    monkeypatch.setitem(pad.runs[0].flags, "--direction", "BtoA")
    swapped = common.decode_data(ask(pad, "example")[2])
    assert bool(tf.reduce_all(swapped[:, :256] == common.decode_picture(paths[0])[:, 256:]))
    monkeypatch.setitem(pad.runs[0].flags, "--dataset", "gone")
    status, _, message = ask(pad, "example")
    assert status == 422 and b"--dataset gone: no such folder" in message


def test_opened_files(pad, stage6, tmp_path):
    """Broken if a file opened on the page becomes another sheet than --colour makes of it."""
    photo = Image.new("RGB", (60, 40), (120, 120, 100))
    photo.paste(0, (0, 0, 60, 8))
    photo.save(tmp_path / "phone.jpg", exif=PHONE, quality=95)
    for clean in (0, 1):
        condition = pad.runs[0].condition
        wanted = common.to_uint8(stage6.read_condition(tmp_path / "phone.jpg", condition, not clean)[0])
        opened = ask(pad, f"open?clean={clean}", (tmp_path / "phone.jpg").read_bytes())[2]
        assert bool(tf.reduce_all(common.decode_data(opened) == wanted))
    assert bool(tf.reduce_all(common.decode_data(ask(pad, "open", SHEET)[2]) == common.decode_data(SHEET)))
    colours = [[0, 0, 0], [128, 64, 128], [255, 255, 255]]
    labels = tf.constant([[colours[n % 3] for n in range(300)]] * 70, tf.uint8)
    legend = [["#{:02x}{:02x}{:02x}".format(*colour), ""] for colour in colours]
    pad.runs[0].condition.update(kind="labels", colours=legend, classes=[0, 7, 9])
    opened = common.decode_data(ask(pad, "open?clean=1", png(labels))[2])
    found = {tuple(int(value) for value in pixel) for pixel in opened[128]}
    assert opened.shape == (256, 256, 3) and found == {tuple(colour) for colour in colours}
    Image.new("L", (200, 100), 7).save(tmp_path / "numbers.png")
    opened = common.decode_data(ask(pad, "open", (tmp_path / "numbers.png").read_bytes())[2])
    assert bool(tf.reduce_all(opened == tf.constant(colours[1], tf.uint8)))
    Image.new("L", (200, 100), 8).save(tmp_path / "numbers.png")
    status, _, message = ask(pad, "open", (tmp_path / "numbers.png").read_bytes())
    assert status == 415 and message == b"holds classes that the run was not trained on: 8"


def test_foreign_hosts(pad):
    """Broken if a foreign name that was pointed at this computer reaches the pad (DNS rebinding)."""
    port = pad.server_port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"localhost:{port}.",
    ):
        assert ask(pad, "", Host=host)[0] == 403, host
        assert ask(pad, "colour", SHEET, Host=host, Origin=f"http://{host}")[0] == 403, host
    twice = f"GET /{pad.secret}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"
    none = f"GET /{pad.secret}/ HTTP/1.0\r\n\r\n"
    for request in (twice, none):
        assert b" 403 " in send_raw(pad, request.encode()).makefile("rb").readline()
    assert ask(pad, "", Host=f"localhost:{port}")[0] == 200 and goes_on(pad)


def test_foreign_origins(pad):
    """Broken if another page in the owner's browser has the pad colour something."""
    port = pad.server_port
    for origin in (
        "http://evil.example",
        "null",
        "",
        f"https://127.0.0.1:{port}",
        f"http://localhost:{port}",
    ):
        assert ask(pad, "colour", SHEET, Origin=origin)[0] == 403, origin
    assert ask(pad, "example", Origin="http://evil.example")[0] == 403
    missing = start_of(pad, 0).replace(b"Origin", b"X-Origin")
    assert b" 403 " in send_raw(pad, missing).makefile("rb").readline()
    assert goes_on(pad)


@pytest.mark.parametrize("secret", ["", "wrong", "%00", "x" * 60_000])
def test_secrets(pad, secret):
    """Broken if somebody gets in without the secret, or by a wrong one."""
    path = f"/{secret}/"
    for route in ("", "about", "example", "nothing"):
        assert ask(pad, route, path=path + route)[0] == 403
    latin = f"GET /\xe9/ HTTP/1.1\r\nHost: 127.0.0.1:{pad.server_port}\r\n\r\n".encode("latin-1")
    assert b" 403 " in send_raw(pad, latin).makefile("rb").readline()
    assert ask(pad, "", path=f"/{pad.secret[:-1]}/")[0] == ask(pad, "", path=f"/{pad.secret}x/")[0] == 403
    assert ask(pad, "colour", SHEET, path=f"{path}colour")[0] == 403 and goes_on(pad)


def test_paths(pad, tmp_path):
    """Broken if a request makes the pad read a file of this computer."""
    for path in (
        "../README.md",
        "..%2fREADME.md",
        "/etc/passwd",
        "%2e%2e/common.py",
        "example/../../x",
        "06_sketch_pad.py",
    ):
        assert ask(pad, path)[0] == 404, path
        assert ask(pad, path, SHEET)[0] == 404, path
        assert ask(pad, "", path=f"/{path}")[0] == 403, path
    assert ask(pad, "", path="/etc/passwd")[0] == 403
    for value in ("/etc/passwd", "../../x", "0/../1"):
        assert ask(pad, f"example?n={value}")[0] == ask(pad, f"colour?run={value}", SHEET)[0] == 400, value
    assert goes_on(pad)


def test_large_bodies(pad):
    """Broken if a body of 100 MB is read, or not refused by its status: declared, sent, streamed."""
    megabyte = bytes(2**20)
    assert b" 413 " in send_raw(pad, start_of(pad, 100 * 2**20)).makefile("rb").readline()
    assert ask(pad, "open", megabyte * 100)[0] == 413
    assert ask(pad, "colour", (megabyte for _ in range(100)), Transfer_Encoding="chunked")[0] == 411
    assert ask(pad, "open", megabyte * 19)[0] == 415, "refused though it is short enough"
    for length in ("-1", "1e3", "9" * 30, ""):
        assert b" 411 " in send_raw(pad, start_of(pad, length)).makefile("rb").readline()
    assert goes_on(pad)


def test_half_sent_bodies(pad, stage6, monkeypatch):
    """Broken if one who sends half waits for ever, or has others wait."""
    monkeypatch.setattr(stage6.Request, "timeout", 1.0)
    waiting = [send_raw(pad, start_of(pad, len(SHEET)) + SHEET[: len(SHEET) // 2]) for _ in range(20)]
    assert goes_on(pad)
    for connection in waiting:
        assert b" 408 " in connection.makefile("rb").readline()
    cut = send_raw(pad, start_of(pad, len(SHEET)) + SHEET[: len(SHEET) // 2])
    cut.shutdown(socket.SHUT_WR)
    assert b" 415 " in cut.makefile("rb").readline()
    gone = send_raw(pad, start_of(pad, len(SHEET)) + SHEET)
    gone.close()  # before the answer
    assert goes_on(pad)


def test_huge_picture(pad):
    """Broken if a picture of 60,000x60,000 pixels is decoded because its file is small."""

    def chunk(name, data):
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    def lying(width, height):
        header = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return (
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        )

    for route in ("colour", "open"):
        assert ask(pad, route, lying(60_000, 60_000))[0] == 413
        assert ask(pad, route, lying(2**31 - 1, 2**31 - 1))[0] in {413, 415}
    assert goes_on(pad)


@pytest.mark.parametrize("start", [b"", b"GET / HTT", b"POST /x/colour HTTP/1.1\r\nHost: x\r\n"])
def test_many_connections(pad, stage6, start):
    """Broken if 200 connections that wait keep the owner out, or are not bounded."""
    connections = [send_raw(pad, start) for _ in range(200)]
    assert goes_on(pad)
    time.sleep(0.2)
    answered, _, _ = select.select(connections, [], [], 0)
    assert len(answered) == 200 - stage6.CONNECTIONS + 1  # goes_on was one more
    assert all(b" 503 " in connection.makefile("rb").readline() for connection in answered)
    assert threading.active_count() < stage6.CONNECTIONS + 40
    for connection in connections:
        connection.close()
    assert goes_on(pad)


def test_many_requests(pad):
    """Broken if 200 whole requests at once are not all answered."""
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: ask(pad, "about", secret=None if n % 2 else "x")[0], range(200)))
    assert answers == [403, 200] * 100 and goes_on(pad)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\0\x01\n",
        b"\0" * 70_000,
        b"GET\r\n\r\n",
        b"BREW / HTCPCP/1.0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
def test_junk(pad, junk):
    """Broken if what is no request ends the pad, or is not answered."""
    answer = send_raw(pad, junk).makefile("rb").read()
    assert re.search(rb"(HTTP/1\.0 |Error code: |code: )(4|5)\d\d", answer), answer
    for body in (b"", b"junk", SHEET[:200], b"GIF89a" + bytes(100)):
        assert ask(pad, "open", body)[0] == ask(pad, "colour", body)[0] == 415
    assert goes_on(pad)


def test_ends_at_once(pad, stage6, monkeypatch, tmp_path):
    """Broken if Ctrl-C waits for who is connected, or for more than the picture under way."""
    calls = []

    def interrupted():
        calls.append(send_raw(pad, start_of(pad, 1000)))
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(pad, "serve_forever", interrupted)
    started = time.monotonic()
    stage6.serve(pad, tmp_path, open_browser=False)
    assert calls and time.monotonic() - started < 1.5 and pad.network.locked()
    waiting = [thread for thread in threading.enumerate() if "process_request" in thread.name]
    assert waiting and all(thread.daemon for thread in waiting), "Python would wait for them"
    pad.network.release()


def test_printed_address(pad, stage6, monkeypatch, tmp_path, capsys):
    """Broken if the address is not printed, the browser not led to it, or its secret shown to others."""
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(stage6.webbrowser, "open", opened.append)

    def serve_forever():
        while not opened:
            time.sleep(0.01)
        (file,) = (tmp_path / "out").iterdir()
        assert file.as_uri() == opened[0] and file.stat().st_mode & 0o077 == 0
        assert pad.address in file.read_text() and pad.secret not in opened[0]

    monkeypatch.setattr(pad, "serve_forever", serve_forever)
    stage6.serve(pad, tmp_path / "out", open_browser=True)
    pad.network.release()
    assert not list((tmp_path / "out").iterdir())
    printed = capsys.readouterr().out
    assert printed.startswith(pad.address + "\n")
    assert f"ssh -N -L {pad.server_port}:127.0.0.1:{pad.server_port}" in printed
    monkeypatch.setattr(pad, "serve_forever", lambda: None)
    stage6.serve(pad, tmp_path / "out", open_browser=False)
    pad.network.release()
    assert len(opened) == 1


def test_several_runs(call_main, run, tmp_path):
    """Broken if runs with other kinds of conditions are shown on one sheet, or a taken port not told."""
    shutil.copytree(run, tmp_path / "other")
    options = json.loads((run / "options.json").read_text())
    options["data"]["condition"] = {"kind": "picture"}
    (tmp_path / "other" / "options.json").write_text(json.dumps(options))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mistakes = {
            "they colour different things": ["--run", run, "other"],
            f"--port {port}: taken": ["--run", run, "--port", port],
            "--colour takes one --run": ["--run", run, run, "--sketch", "x.png"],
        }
        for message, flags in mistakes.items():
            done = call_main(SCRIPT, *flags)
            assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def photograph(sketch, thinner=0, noise=0.02):
    """Returns a photograph of a sketch (256, 256, 3) in [0, 1]: uneven light, yellow paper, thin lines."""
    ink = tf.image.resize(1 - sketch[tf.newaxis, ..., :1], (600, 800), method="bicubic")
    ink = -tf.nn.max_pool2d(-tf.clip_by_value(ink, 0, 1), 1 + 2 * thinner, 1, "SAME")[0]
    light = 0.45 + 0.4 * tf.linspace(0.0, 1.0, 800)[tf.newaxis, :, tf.newaxis]
    picture = light * (1 - 0.8 * ink) + noise * tf.random.stateless_normal((600, 800, 1), (0, 0))
    return tf.clip_by_value(picture * tf.constant([1, 0.97, 0.88]), 0, 1)


def test_cleaning(stage6, few_pairs):
    """Broken if paper does not come out white and ink black, lines too thin, or a clean sketch changed."""
    left, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    sketch = tf.cast(left, tf.float32) / 255
    assert float(tf.reduce_mean(tf.abs(stage6.clean_photograph(sketch, 7.0) - sketch))) < 0.01
    wanted = tf.image.resize(tf.image.resize(sketch, (600, 800)), (256, 256), antialias=True)
    for thinner in (0, 4):  # of lines that are about 16 wide
        cleaned = stage6.clean_photograph(stage6.limit_size(photograph(sketch, thinner)), 7.0)
        assert cleaned.shape == (384, 512, 3)
        cleaned = tf.image.resize(cleaned, (256, 256), antialias=True)
        assert float(tf.reduce_mean(tf.abs(cleaned - wanted))) < 0.02
        assert float(tf.reduce_mean(cleaned[wanted > 0.99])) > 0.99
    blank = stage6.clean_photograph(stage6.limit_size(photograph(tf.ones((256, 256, 3)), noise=0.03)), 7.0)
    assert float(tf.reduce_min(blank)) == 1, "grain was taken for ink"


def test_files(stage6, call_main, run, tmp_path, few_pairs):
    """Broken if files are not coloured under their names, or anything is overwritten unasked."""
    photo = Image.new("RGB", (60, 40), (120, 120, 100))
    photo.paste(0, (0, 0, 60, 8))  # at the top; at the right for who heeds EXIF
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "phone.jpg", exif=PHONE, quality=95)
    photo.convert("L").save(tmp_path / "in" / "gray.png")
    condition = stage6.condition_of(run)
    sheet = stage6.read_condition(tmp_path / "in" / "phone.jpg", condition, as_is=False)[0][0, ..., 0]
    assert float(sheet[128, 240]) < -0.9 and float(sheet[128, 60]) > 0.9 and float(sheet[128, 10]) == 1
    sheet = stage6.read_condition(tmp_path / "in" / "gray.png", condition, as_is=True)[0][0, ..., 0]
    assert float(sheet[128, 60]) == pytest.approx(117 / 127.5 - 1, abs=0.02)

    pair = common.find_pairs(few_pairs)["val"][0]
    flags = ["--run", run, "--out", "out", "--sketch", "in"]
    done = call_main(SCRIPT, "--run", run, "--out", "out", "--colour", pair, "--pairs")
    assert done.returncode == 0, done.stderr
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 0, done.stderr
    names = ["gray.png", "phone.png", Path(pair).name]
    assert done.stdout.splitlines()[:2] == [f"out/{name}" for name in names[:2]]
    assert done.stdout.splitlines()[2] == "2 pictures coloured, 0 files left out."
    generator, _ = common.load_generator(run)
    condition = read_condition(pair)[tf.newaxis]
    result = tf.cast(common.decode_picture(str(tmp_path / "out" / names[-1])), tf.float32) / 127.5 - 1
    assert float(tf.reduce_max(tf.abs(result - common.generate(generator, condition)[0]))) < 0.01

    (tmp_path / "out" / "gray.png").unlink()
    (tmp_path / "out" / "phone.png").write_text("mine")
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 2 and "out/phone.png: is there already" in done.stderr
    assert not (tmp_path / "out" / "gray.png").exists(), "coloured some before it refused"
    assert call_main(SCRIPT, *flags, "--force").returncode == 0
    assert common.decode_picture(str(tmp_path / "out" / "phone.png")).shape == (384, 256, 3)
    shutil.copy(tmp_path / "in" / "gray.png", tmp_path / "gray.jpg")
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    mistakes = {
        "would have the same result": ["--sketch", "in", "gray.jpg"],
        "in/gray.png: is there already": ["--sketch", "in", "--out", "in", "--force"],
        "--colour bad.png: not a picture": ["--sketch", "in", "bad.png"],
        "--colour none.png: no such file": ["--sketch", "none.png"],
        "--colour empty: no picture in it": ["--sketch", "empty"],
    }
    for message, wrong in mistakes.items():
        done = call_main(SCRIPT, "--run", run, "--out", "new", *wrong)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, message
    assert not (tmp_path / "new").exists()


def test_runs(call_main, run, tmp_path, few_pairs):
    """Broken if a run that is missing, another stage's, unended or damaged is not told in one line."""

    def edit(**changes):
        file = tmp_path / "run" / "options.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    mistakes = {
        "no trained run there; this makes one: python 05": lambda: shutil.rmtree(tmp_path / "run"),
        "a run of 01_gan_mnist.py": lambda: edit(data={"script": "01_gan_mnist.py"}),
        "its first epoch has not ended": (tmp_path / "run" / "generator.weights.h5").unlink,
        "generator.weights.h5: damaged": lambda: (tmp_path / "run" / "generator.weights.h5").write_text("x"),
        "options.json or metrics.csv is damaged": lambda: (tmp_path / "run" / "options.json").write_text("{"),
        "metrics.csv is damaged; the run's command": lambda: edit(flags={}),
    }
    for message, damage in mistakes.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        damage()
        done = call_main(SCRIPT, "--run", "run", "--sketch", few_pairs / "val")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")])
def test_no_memory_is_no_damage(error, call_main, run, tmp_path, monkeypatch):
    """Broken if sound weights are called damaged because memory was short while they were read."""

    def load(*args):
        raise error

    monkeypatch.setattr(SmallUNet, "load_weights", load)
    (tmp_path / "sketch.png").write_bytes(SHEET)
    done = call_main(SCRIPT, "--run", run, "--colour", "sketch.png", "--out", "new")
    assert done.returncode == 2 and "out of memory" in done.stderr and "damaged" not in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")])
def test_no_memory_is_told_to_the_page(error, pad, stage6, monkeypatch):
    """Broken if a picture is called damaged, or nothing is answered, because memory was short."""

    def fail(*args):
        raise error

    for route, owner, name in (
        ("open", stage6, "read_condition"),
        ("colour", stage6, "decode_data"),
        ("colour", pad, "runs"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, [pad.runs[0]._replace(colour=fail)] if owner is pad else fail)
            status, _, message = ask(pad, route, SHEET)
        assert status == 503 and b"out of memory" in message, (route, name, status, message)
    assert goes_on(pad)


def test_export_moved(call_main, run):
    """Broken if the flag of earlier versions is not answered with the command that took its place."""
    done = call_main(SCRIPT, "--run", run, "--export", "new")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"python 08_export.py --run {run} --out new" in done.stderr
