"""Stage 7: servers that misbehave, archives that are traps, folders that do not match."""

import errno
import gzip
import http.server
import io
import os
import random
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image  # comes with Matplotlib

HERE = Path(__file__).parent.parent.parent
SPLITS = {"train": 3, "val": 2, "test": 1}


def png(colours=((200, 30, 30), (20, 40, 220)), size=(8, 4)):
    """A picture of one colour, or of several side by side."""
    image = Image.new("RGB", size)
    for n, colour in enumerate(colours):
        image.paste(colour, (n * size[0] // len(colours), 0, size[0], size[1]))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pictures(root="facades/"):
    return {f"{root}{split}/{n}.png": png() for split, count in SPLITS.items() for n in range(count)}


def archive(contents, extra=(), noise=0):
    """A .tar.gz; `extra` are members of other kinds, `noise` bytes that do not shrink go first."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        if noise:
            contents = {"facades/README": random.Random(0).randbytes(noise)} | contents
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)
    return file.getvalue()


def member(name, kind=tarfile.REGTYPE, target="", **headers):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, target, headers
    return info


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`, except as `server.plan` says: one entry a request, then normally."""

    def do_GET(self):
        data, server = self.server.data, self.server
        server.asked.append(self.headers.get("Range"))
        plan = server.plan.pop(0) if server.plan else {}
        if "status" in plan:
            self.send_error(plan["status"])
            return
        if plan.get("redirect"):
            self.send_response(302)
            self.send_header("Location", "/elsewhere.tar.gz")
            self.end_headers()
            return
        start = 0
        if self.headers.get("Range") and server.ranges and not plan.get("web page"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if plan.get("web page"):
            data, start = b"<html>Please log in</html>", 0
            self.send_header("Content-Type", "text/html; charset=utf-8")
        body = data[start:]
        if not plan.get("no_length"):
            self.send_header("Content-Length", str(len(body) + server.lie))
        self.end_headers()
        body = body[: plan.get("cut", len(body))]
        step = plan.get("trickle", len(body)) or 1
        for position in range(0, len(body), step):
            self.wfile.write(body[position : position + step])
            self.wfile.flush()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.plan, server.asked, server.ranges, server.lie = [], [], True, 0
        server.data = archive(pictures(), noise=50_000)
        server.url = f"http://127.0.0.1:{server.server_port}/facades.tar.gz"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(server, stage7, tmp_path, monkeypatch):
    """Downloads from the server; the waiting between tries is left out."""
    monkeypatch.setattr(stage7, "BACK_OFF", 0.0)
    return lambda: stage7.download_dataset("facades", server.url, tmp_path / "data" / "facades")


def check_whole(tmp_path):
    """The whole dataset, as it was served, and nothing else."""
    found = {
        str(p.relative_to(tmp_path / "data")): p.read_bytes() for p in (tmp_path / "data").rglob("*.png")
    }
    assert found == pictures()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["facades"]
    names = {path.name for path in (tmp_path / "data" / "facades").iterdir()} - {"README"}
    assert names == {*SPLITS, "dataset.json"}
    about = common.describe_dataset(tmp_path / "data" / "facades")
    assert (about["direction"], about["condition"]) == ("BtoA", "labels")


def check_clean(tmp_path, part=False):
    """Nothing that looks like a dataset; at most what a later try goes on from."""
    left = {path.name for path in tmp_path.rglob("*")} - {"data"}
    assert left == ({".facades.tar.gz.part"} if part else set())


def test_download(call_main, server, tmp_path):
    """Broken if the main path fails: fetch, unpack, check, warn of the counts, say how to go on."""
    flags = ["--download", "facades", "--url", server.url, "--out", tmp_path / "data" / "facades"]
    done = call_main("07_get_pairs.py", *flags)
    assert done.returncode == 0, done.stderr
    for split, known in (("train", 400), ("val", 100), ("test", 106)):
        assert f"facades has {SPLITS[split]} pairs in {split}, but is known to have {known}" in done.stderr
    summary = done.stdout[done.stdout.index("Dataset:") :]
    assert "3 in train, 2 in val, 1 in test" in summary
    assert "BtoA: condition = right half, target = left half" in summary
    check_whole(tmp_path)
    done = call_main("07_get_pairs.py", *flags)
    assert done.returncode == 0 and "is already there" in done.stdout and len(server.asked) == 1
    assert done.stdout.endswith(summary)


def test_the_next_commands(call_main, tmp_path):
    """Broken if the commands that the last lines name do not find the dataset."""
    write(tmp_path / "photos", {f"{n}.png": png() for n in "abcde"})
    done = call_main("07_get_pairs.py", "--edges", "photos", "--out", "my data/it's mine")
    assert done.returncode == 0, done.stderr
    look, train = (shlex.split(line) for line in done.stdout.splitlines()[-2:])
    assert train[:2] == ["python", "05_pix2pix_train.py"] and train[-2:] == ["--out", "runs/it's mine"]
    assert train[2:4] == look[2:4] == ["--dataset", "my data/it's mine"]
    done = call_main(*look[1:])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "03_pix2pix_data" / "pairs.png").exists()


def test_usual_direction_and_another(call_main, stage7, tmp_path, monkeypatch):
    """Broken if stage 5 does not take a dataset's own direction, or --direction does not overrule it."""
    (tmp_path / "archive").write_bytes(archive(pictures()))
    stage7.download_dataset("facades", str(tmp_path / "archive"), tmp_path / "mine")
    taken = []

    class Enough(Exception):
        pass

    def start_run(args, *rest):
        taken.append(args.direction)
        raise Enough

    monkeypatch.setattr(common, "start_run", start_run)
    for flags in ([], ["--direction", "AtoB"]):
        with pytest.raises(Enough):
            call_main("05_pix2pix_train.py", "--dataset", tmp_path / "mine", *flags)
    assert taken == ["BtoA", "AtoB"]
    (tmp_path / "mine" / "dataset.json").unlink()  # as older versions left it
    (tmp_path / "mine" / "direction.txt").write_text("BtoA\n")
    assert common.usual_direction(tmp_path / "mine") == "BtoA"
    (tmp_path / "mine" / "direction.txt").write_text("left")
    done = call_main("05_pix2pix_train.py", "--dataset", tmp_path / "mine")
    assert done.returncode == 2 and "direction.txt: says neither AtoB nor BtoA" in done.stderr


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_connections(ranges, server, download, tmp_path, stage7):
    """Broken if a connection cut at some byte damages the archive, or all of it is fetched again."""
    server.ranges = ranges
    size = len(server.data)
    server.plan = [{"cut": cut} for cut in (0, 1, size // 3, 7, size // 5)]
    if not ranges:
        server.plan = [{"cut": cut} for cut in (0, 1, size // 3, size - 1)]
    download()
    check_whole(tmp_path)
    if ranges:
        assert server.asked[2:5] == ["bytes=1-", f"bytes={1 + size // 3}-", f"bytes={8 + size // 3}-"]


def test_interrupted_and_run_again(server, download, tmp_path, stage7):
    """Broken if the next command starts over what an interrupted one had fetched."""
    server.plan = [{"cut": 20_000}] + [{"status": 503}] * stage7.TRIES
    with pytest.raises(common.UserError, match="503.*run the command again"):
        download()
    check_clean(tmp_path, part=True)
    server.asked.clear()
    server.plan.clear()
    download()
    assert server.asked == ["bytes=20000-"]
    check_whole(tmp_path)


def test_a_web_page_instead(server, download, tmp_path, stage7):
    """Broken if the page of a hotel's network takes the place of what was fetched before."""
    server.plan = [{"cut": 20_000}] + [{"web page": True}] * stage7.TRIES
    with pytest.raises(common.UserError, match="sends a web page, not an archive"):
        download()
    server.plan.clear()
    download()
    assert server.asked[-1] == "bytes=20000-"
    check_whole(tmp_path)


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk(server, download, tmp_path, stage7, monkeypatch):
    """Broken if a full disk is taken for a connection that may come back, or is not reported as one."""
    monkeypatch.setattr(stage7, "receive", full_disk)
    with pytest.raises(OSError, match="No space left"):
        download()
    assert len(server.asked) == 1


def test_full_disk_while_unpacking(server, call_main, tmp_path, stage7, monkeypatch):
    """Broken if a full disk is taken for a damaged archive, and what was fetched is thrown away."""
    monkeypatch.setattr(stage7.shutil, "copyfileobj", full_disk)
    flags = ["--download", "facades", "--url", server.url, "--out", "data/facades"]
    done = call_main("07_get_pairs.py", *flags)
    assert done.returncode == 2 and "the disk is full" in done.stderr
    check_clean(tmp_path, part=True)


@pytest.mark.slow
def test_two_at_a_time(server, download, tmp_path):
    """Broken if two processes write one dataset together, or a killed one is in the way for good.

    The first one has a file in the new dataset when it is killed; the next try may not keep it.
    """
    holder = """
import importlib, pathlib, sys
with importlib.import_module("07_get_pairs").new_dataset(pathlib.Path(sys.argv[1]), "AtoB") as folder:
    (folder / "leftover.txt").write_text("of the first try")
    print(flush=True)
    input()
"""
    command = [sys.executable, "-c", holder, tmp_path / "data" / "facades"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(common.UserError, match="another process is at work in it"):
            download()
        assert not server.asked, "both write what they fetch to the same file"
        process.kill()
    assert len([*tmp_path.rglob("leftover.txt")]) == 1
    download()
    check_whole(tmp_path)


def test_all_had_been_fetched(server, download, tmp_path):
    """Broken if a complete part file, of a run killed before unpacking, ends in an error."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".facades.tar.gz.part").write_bytes(server.data)
    download()
    check_whole(tmp_path)


def test_part_of_something_else(server, download, tmp_path):
    """Broken if a part file of another archive, even a longer one, gets in the way for good."""
    part = tmp_path / "data" / ".facades.tar.gz.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(server.data) + 10))
    download()
    check_whole(tmp_path)
    (tmp_path / "data" / "facades").rename(tmp_path / "elsewhere")
    part.write_bytes(bytes(1000))
    with pytest.raises(common.UserError, match="damaged"):
        download()
    assert not part.exists()
    download()


@pytest.mark.parametrize("data", [None, b"no archive"])
def test_another_source_keeps_what_was_fetched(data, server, download, stage7, tmp_path):
    """Broken if a mistyped path, or an archive that is damaged, costs what a server had sent before."""
    server.plan = [{"cut": 20_000}] + [{"status": 503}] * stage7.TRIES
    with pytest.raises(common.UserError, match="503"):
        download()
    if data:
        (tmp_path / "mine.tgz").write_bytes(data)
    with pytest.raises(common.UserError, match="mine.tgz: damaged" if data else "mine.tgz: no such file"):
        stage7.download_dataset("facades", str(tmp_path / "mine.tgz"), tmp_path / "data" / "facades")
    server.asked.clear()
    server.plan.clear()
    download()
    assert server.asked == ["bytes=20000-"]
    check_whole(tmp_path)


@pytest.mark.parametrize(
    "plan",
    [
        [{"status": 500}, {"status": 503}, {"status": 429}],
        [{"redirect": True}],
        [{"trickle": 997}],
        [{"no_length": True}],
    ],
)
def test_bad_but_willing_servers(plan, server, download, tmp_path):
    """Broken if errors that pass, a redirect, a slow or a terse server end the download."""
    server.plan = plan
    download()
    check_whole(tmp_path)


def test_unwilling_servers(server, download, stage7, tmp_path):
    """Broken if an error that stays is not reported in a line, or leaves something behind."""
    server.plan = [{"status": 404}]
    with pytest.raises(common.UserError, match=r"404 Not Found; give a mirror with --url"):
        download()
    assert len(server.asked) == 1, "a 404 does not get better"
    check_clean(tmp_path)
    server.lie = 1000  # announces more than it sends
    server.ranges = False
    with pytest.raises(
        common.UserError, match=rf"{len(server.data)} of {len(server.data) + 1000} bytes came"
    ):
        download()
    check_clean(tmp_path, part=True)
    (tmp_path / "data" / ".facades.tar.gz.part").unlink()
    server.lie = -1000  # and less
    with pytest.raises(common.UserError, match="damaged"):
        download()
    check_clean(tmp_path)
    for url in (
        "http://127.0.0.1:1/facades.tar.gz",
        "nonsense://x",
        "http://[",
        "http://no.such.host.invalid/x",
    ):
        with pytest.raises(common.UserError, match="url|--url"):
            stage7.download_dataset("facades", url, tmp_path / "data" / "facades")
        check_clean(tmp_path)


def test_names_cannot_act_on_the_terminal(call_main, tmp_path):
    """Broken if a name from outside can clear the screen, or write lines of its own."""
    escape = "\x1b[2J\n"
    trap = archive(pictures() | {f"facades/train/{escape}.png": b"no picture"})
    (tmp_path / "pictures.tgz").write_bytes(trap)
    (tmp_path / "links.tgz").write_bytes(archive({}, [member(escape, tarfile.SYMTYPE, "x")]))
    write(tmp_path / "sketches", {f"{name}.png": png() for name in ["a", "b", "c", escape]})
    write(tmp_path / "photos", {f"{name}.png": png() for name in "abc"})
    for flags, message in (
        (["--download", "facades", "--url", f"http://127.0.0.1:1/{escape}"], "control characters"),
        (["--download", "facades", "--url", f"{escape}.tgz"], "no such file"),
        (["--download", "facades", "--url", "pictures.tgz"], "not PNG or JPEG"),
        (["--download", "facades", "--url", "links.tgz"], "a link"),
        (["--pair", "sketches", "photos", "--val-share", 0.4], "without a partner in photos"),
    ):
        done = call_main("07_get_pairs.py", *flags, "--out", "data/new")
        assert message in done.stderr and "\x1b" not in done.stderr + done.stdout
        assert len(done.stderr.splitlines()) == 1


good = archive(pictures(), noise=3000)
# A file of 1 MB, all of it a hole.
SPARSE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**6), "GNU.sparse.name": "facades/s.png"}
GLOBAL_HEADER = tarfile.TarInfo.create_pax_global_header({"comment": "none"})
TRAPS = {
    "truncated": (good[: len(good) // 2], "damaged"),
    "without its last bytes": (good[:-4], "damaged"),
    "corrupt": (good[:2000] + bytes([good[2000] ^ 255]) + good[2001:], "damaged"),
    "no archive": (b"<html>Sorry</html>", "damaged, or not a .tar.gz"),
    "empty": (b"", "damaged, or not a .tar.gz"),
    "climbs up": (archive(pictures() | {"../evil.png": png()}), "'../evil.png'.*outside"),
    "climbs up inside": (archive(pictures() | {"facades/../../evil.png": png()}), "evil.png'.*outside"),
    "absolute": (archive(pictures() | {"/tmp/evil.png": png()}), "'/tmp/evil.png'.*outside"),
    "link": (archive(pictures(), [member("facades/train/l.png", tarfile.SYMTYPE, "/etc/passwd")]), "a link"),
    "hard link": (archive(pictures(), [member("facades/h.png", tarfile.LNKTYPE, "facades/x")]), "a link"),
    "device": (archive(pictures(), [member("facades/null", tarfile.CHRTYPE)]), "a device"),
    "pipe": (archive(pictures(), [member("facades/pipe", tarfile.FIFOTYPE)]), "a device"),
    "sparse": (archive(pictures(), [member("facades/s.png", **SPARSE)]), "holds 'facades/s.png'"),
    "deep": (archive(pictures() | {"facades/" + "a/" * 1500: b""}), "too deep"),
    "a file that should be a folder": (archive({"facades/train": b""} | pictures()), "damaged"),
    "a folder that should be a file": (archive(pictures() | {"facades/train": b""}), "damaged"),
    "a name that is too long": (archive(pictures() | {f"facades/{'n' * 300}.png": b""}), "damaged"),
    "header after header": (gzip.compress(GLOBAL_HEADER * 3000), "damaged"),
    "bomb": (archive(pictures() | {"facades/train/zeros.png": bytes(50_000_000)}), "far more than its size"),
    "no pictures": (archive({"facades/train/notes.txt": b"none"}), "holds no pictures in train"),
    "no train": (archive({"facades/val/1.png": png()}), "holds no pictures in train"),
    "no val": (archive({"facades/train/1.png": png()}), "none in val and test"),
    "a bad picture": (archive(pictures() | {"facades/test/9.png": png()[:50]}), r"test/9.png \(damaged\)"),
    "another": (archive(pictures() | {"facades/train/9.png": png()[:50]}), r"train/9.png \(damaged\)"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps(trap, server, download, tmp_path):
    """Broken if an archive that is no clean dataset gets anywhere near the disk."""
    server.data, message = TRAPS[trap]
    with pytest.raises(common.UserError, match=message):
        download()
    check_clean(tmp_path)


def raw_archive(*parts):
    """A .tar.gz of bytes, two empty blocks after them."""
    return gzip.compress(b"".join(parts) + bytes(1024))


def header(kind, size):
    """The header of a member that is itself a header of the next member."""
    info = member("././@LongLink", kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


LONG = 30_000_000  # bytes; they shrink to 30 kB, for which 10.6 MB may be unpacked
BOMBS = {
    "a long name": lambda: raw_archive(header(tarfile.GNUTYPE_LONGNAME, LONG), bytes(LONG)),
    "a long link": lambda: raw_archive(header(tarfile.GNUTYPE_LONGLINK, LONG), bytes(LONG)),
    "a PAX header": lambda: raw_archive(header(tarfile.XHDTYPE, LONG), bytes(LONG)),
    "a header of every byte that follows": lambda: raw_archive(header(tarfile.XGLTYPE, -512), bytes(LONG)),
    "headers of a bearable size": lambda: raw_archive(
        *[header(tarfile.XHDTYPE, 200_000), bytes(200_192), member("a").tobuf()] * (LONG // 200_000)
    ),
    "padding after the end": lambda: raw_archive(bytes(LONG)),
    "20,000 empty files": lambda: archive({f"facades/train/{n}.png": b"" for n in range(20_000)}),
    "20,000 empty folders": lambda: archive({}, [member(f"{n}", tarfile.DIRTYPE) for n in range(20_000)]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb, stage7, tmp_path, monkeypatch):
    """Broken if anything in an archive, and not only its pictures, escapes the limit.

    Watched: how much is asked of the decompressor at once, and how much in all, and how
    many files and folders reach the disk before the archive is refused.
    """
    asked, read, written = [], gzip.GzipFile.read, []

    def watched(self, size=-1):
        data = read(self, size)
        asked.append((size, len(data)))
        return data

    unpack_member = stage7.unpack_member
    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    monkeypatch.setattr(stage7, "unpack_member", lambda *rest: written.append(1) or unpack_member(*rest))
    file = tmp_path / "bomb.tgz"
    file.write_bytes(BOMBS[bomb]())
    size = file.stat().st_size
    with pytest.raises(common.UserError, match="far more than its size|a header of"):
        stage7.download_dataset("facades", str(file), tmp_path / "data" / "facades")
    sizes, lengths = zip(*asked)
    assert min(sizes) >= 0 and max(sizes) <= 2**20
    assert sum(lengths) <= 10**7 + 20 * size + 2**20
    assert len(written) <= 1000 + size / 1000
    assert not [*(tmp_path / "data").iterdir()]


def test_many_members(stage7, tmp_path):
    """Broken if a dataset of many small pictures is taken for a bomb."""
    noise = random.Random(0)
    small = {f"{s}/{n}.png": png() + noise.randbytes(1000) for s in ("train", "val") for n in range(600)}
    (tmp_path / "archive").write_bytes(archive(small))
    (tmp_path / "maps").mkdir()
    stage7.unpack(tmp_path / "archive", tmp_path / "maps")
    assert {str(path.relative_to(tmp_path / "maps")) for path in tmp_path.rglob("*.png")} == small.keys()


@pytest.mark.parametrize("root", ["", "facades/", "./facades/", "another name/"])
def test_layouts_of_archives(root, stage7, tmp_path):
    """Broken if the folder in the archive has to have a certain name."""
    (tmp_path / "archive").write_bytes(archive(pictures(root)))
    stage7.download_dataset("facades", str(tmp_path / "archive"), tmp_path / "data" / "facades")
    check_whole(tmp_path)
    assert (tmp_path / "archive").exists(), "the user's own file"


def test_local_file_missing(call_main, tmp_path):
    """Broken if a missing archive is not named."""
    done = call_main("07_get_pairs.py", "--download", "facades", "--url", "gone.tgz", "--out", "d/facades")
    assert done.returncode == 2 and "gone.tgz: no such file" in done.stderr


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


RED, BLUE = [(200, 30, 30)], [(20, 40, 220)]


def test_pair(call_main, tmp_path):
    """Broken if two folders are not joined by name, with the condition on the left."""
    write(tmp_path / "sketches", {f"{n}.png": png(RED) for n in "abcdef"})
    write(tmp_path / "photos", {f"{n}.jpeg": png(BLUE) for n in "abcdeg"})  # the contents count
    flags = ["--pair", "sketches", "photos", "--out", "data/mine", "--val-share", 0.4]
    done = call_main("07_get_pairs.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "without a partner in photos: sketches/f.png" in done.stderr
    assert "without a partner in sketches: photos/g.jpeg" in done.stderr
    pairs = common.find_pairs(tmp_path / "data" / "mine")
    assert (len(pairs["train"]), len(pairs["val"])) == (3, 2)
    left, right = common.decode_pair(pairs["val"][0])
    assert [int(v) for v in left[0, 0]] == [*RED[0]] and [int(v) for v in right[-1, -1]] == [*BLUE[0]]
    done = call_main("07_get_pairs.py", *flags)
    assert done.returncode == 2 and "data/mine: already exists" in done.stderr


def test_the_seed_chooses(call_main, tmp_path):
    """Broken if the pairs in val/ are not those of the seed, or without flags not those of 0 and 0.2."""
    write(tmp_path / "sketches", {f"{n}.png": png() for n in range(20)})
    chosen = {}
    for out, flags in {
        "default": [],
        "same": ["--seed", 0, "--val-share", 0.2],
        "other": ["--seed", 1],
    }.items():
        done = call_main("07_get_pairs.py", "--pair", "sketches", "sketches", "--out", out, *flags)
        assert done.returncode == 0, done.stderr
        chosen[out] = {path.name for path in (tmp_path / out / "val").iterdir()}
        assert len(chosen[out]) == 4
    assert chosen["default"] == chosen["same"] != chosen["other"]


MISMATCHES = {
    "a name twice": (
        {"a.jpg": png(RED)},
        {},
        "--pair sketches: more than one file of a name, keep one: sketches/a.jpg, sketches/a.png",
    ),
    "nothing that can be read": ({}, {f"{n}.png": b"no" for n in "abc"}, "--pair photos: no picture in it"),
    "all of other proportions": (
        {f"{n}.png": png(RED, (8, 8)) for n in "abc"},
        {},
        "of other proportions than its partner (8x8, 8x4): crop one: sketches/a.png, sketches/b.png",
    ),
    "no name in common": (None, {}, "no file in sketches has the name of one in photos"),
    "too few to share": ({}, None, "--val-share 0.2: 0 of 1 pairs would be in val"),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_pair_mismatches(mismatch, call_main, tmp_path):
    """Broken if folders that do not fit are joined all the same, or the misfit is not named."""
    sketches, photos, message = MISMATCHES[mismatch]
    names = "a" if photos is None else "abc"
    left = {f"{n}.png": png(RED) for n in names}
    write(tmp_path / "sketches", left | sketches if sketches is not None else {"z.png": png(RED)})
    write(tmp_path / "photos", {f"{n}.png": png(BLUE) for n in names} | (photos or {}))
    done = call_main("07_get_pairs.py", "--pair", "sketches", "photos", "--out", "mine")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "sketches"}


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("flags", [["--pair", "pictures", "pictures"], ["--edges", "pictures"]])
def test_a_pipe_is_no_picture(flags, tmp_path):
    """Broken if a named pipe among the pictures has the script wait for ever."""
    write(tmp_path / "pictures", {f"{n}.png": png() for n in "abc"})
    os.mkfifo(tmp_path / "pictures" / "x.png")
    command = [sys.executable, HERE / "07_get_pairs.py", *flags, "--out", "mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "left out, not a file: pictures/x.png" in done.stderr
    assert "3 pairs made" in done.stdout


def test_edges(call_main, tmp_path):
    """Broken if a folder of photographs does not become pairs of edges and photograph.

    A white disc on black: in the sketch the rim is dark, inside and outside are white.
    """
    y, x = tf.meshgrid(tf.range(300.0), tf.range(400.0), indexing="ij")
    disc = tf.cast((x - 200.0) ** 2 + (y - 150.0) ** 2 < 100.0**2, tf.uint8) * 255
    data = tf.io.encode_jpeg(tf.repeat(disc[..., tf.newaxis], 3, axis=-1))
    for name in "abcde":
        (tmp_path / "photos").mkdir(exist_ok=True)
        tf.io.write_file(str(tmp_path / "photos" / f"{name}.jpg"), data)
    done = call_main("07_get_pairs.py", "--edges", "photos", "--out", "mine")
    assert done.returncode == 0, done.stderr
    pairs = common.find_pairs(tmp_path / "mine")
    assert (len(pairs["train"]), len(pairs["val"])) == (4, 1)
    sketch, photo = common.decode_pair(pairs["train"][0])
    assert sketch.shape == photo.shape == (256, 256, 3)
    assert int(photo[128, 128, 0]) > 250 and int(photo[5, 5, 0]) < 5
    rim = sketch[128, :, 0]  # crossed at 128 -+ 100 * 256 / 400 = 64 and 192
    assert int(tf.reduce_min(rim[60:69])) < 30 and int(tf.reduce_min(rim[188:197])) < 30
    assert min(int(rim[10]), int(rim[128]), int(rim[245])) == 255


def test_edges_of_one_colour(call_main, tmp_path):
    """Broken if a picture without any edge ends in a division by zero, or in a black sketch."""
    grays = {f"{name}.png": png([(level,) * 3], (40, 30)) for name, level in zip("abc", (0, 90, 255))}
    write(tmp_path / "photos", grays | {"d.png": png(RED), "e.png": png(BLUE, (1000, 2))})
    done = call_main("07_get_pairs.py", "--edges", "photos", "--out", "mine")
    assert done.returncode == 0, done.stderr
    pairs = common.find_pairs(tmp_path / "mine")
    for path in pairs["train"] + pairs["val"]:
        sketch, _ = common.decode_pair(path)
        assert sketch.shape == (256, 256, 3) and int(tf.reduce_min(sketch)) == 255


def test_cityscapes(call_main, tmp_path):
    """Broken if Cityscapes' own layout is not paired by city and frame, photograph on the left."""
    files = {}
    for split, frames in (("train", ("ulm_0", "ulm_1", "bonn_0")), ("val", ("bonn_1", "bonn_2"))):
        for frame in frames:
            city = frame.split("_")[0]
            files[f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png"] = png(BLUE, (64, 32))
            files[f"gtFine/{split}/{city}/{frame}_gtFine_color.png"] = png(
                [(128, 64, 128), (70, 70, 70)], (64, 32)
            )
            files[f"gtFine/{split}/{city}/{frame}_gtFine_labelIds.png"] = png(RED, (64, 32))
    del files["gtFine/val/bonn/bonn_2_gtFine_color.png"]
    files["gtFine/train/bonn/bonn_9_gtFine_color.png"] = png(RED)
    write(tmp_path / "licensed", files)
    done = call_main("07_get_pairs.py", "--import-cityscapes", "licensed", "--out", "data/city")
    assert done.returncode == 0, done.stderr
    left_out = "licensed/leftImg8bit/val/bonn/bonn_2_leftImg8bit.png"
    assert f"left out, without a partner in licensed/gtFine: {left_out}" in done.stderr
    left_out = "licensed/gtFine/train/bonn/bonn_9_gtFine_color.png"
    assert f"left out, without a partner in licensed/leftImg8bit: {left_out}" in done.stderr
    assert "BtoA: condition = right half, target = left half" in done.stdout
    pairs = common.find_pairs(tmp_path / "data" / "city")
    assert [Path(path).name for path in pairs["train"]] == ["bonn_0.png", "ulm_0.png", "ulm_1.png"]
    photo, label = common.decode_pair(pairs["val"][0])
    assert photo.shape == (256, 256, 3) and [int(v) for v in photo[0, 0]] == [*BLUE[0]]
    colours = {tuple(int(v) for v in pixel) for pixel in tf.reshape(label[::8, ::8], (-1, 3))}
    assert colours == {(128, 64, 128), (70, 70, 70)}, "colours of no class, mixed where two meet"
    done = call_main("07_get_pairs.py", "--import-cityscapes", "data", "--out", "other")
    assert done.returncode == 2 and "leftImg8bit/train/CITY" in done.stderr


def test_hint_at_exchanged_halves(call_main, few_pairs, monkeypatch, tmp_path):
    """Broken if a dataset used the wrong way round goes unnoticed, or the right way is doubted."""
    monkeypatch.setattr(common, "save_figure", lambda *_: None)
    for direction, other in (("AtoB", "BtoA"), ("BtoA", "AtoB")):
        done = call_main("03_pix2pix_data.py", "--dataset", few_pairs, "--direction", direction)
        assert done.returncode == 0
        assert (f"--direction {other}" in done.stdout) == (direction == "BtoA")
    labels = shutil.copytree(few_pairs, tmp_path / "labels")
    (labels / "dataset.json").write_text('{"direction": "BtoA", "condition": "labels"}')
    done = call_main("03_pix2pix_data.py", "--dataset", labels)
    assert "Conditions: labels" in done.stdout and "--direction AtoB" not in done.stdout


def test_one_source_at_a_time(call_main, tmp_path):
    """Broken if flags that exclude each other are taken together, or one without what it needs."""
    for flags, message in (
        (["--edges", "x", "--download", "maps"], "not allowed with"),
        (["--edges", "x"], "--out: name the folder of the new dataset"),
        (["--edges", "x", "--url", "x", "--out", "x"], "--url: goes with --download"),
        (["--download", "maps", "--seed", 0], "--seed: goes with --pair and --edges only"),
        (["--download", "maps", "--val-share", 0], "--val-share: goes with --pair and --edges only"),
        (["--import-cityscapes", "x", "--seed", 1], "--seed: goes with --pair and --edges only"),
        (["--pair", "x"], "--pair: expected 2 arguments"),
        ([], "one of the arguments --download --pair --edges --import-cityscapes is required"),
    ):
        done = call_main("07_get_pairs.py", *flags)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
    assert not [*tmp_path.iterdir()]


def test_moved_flags(call_main, tmp_path):
    """Broken if a command from before stage 7 is not answered by the one that does it now."""
    for flags, command in (
        (["--download", "facades"], "--download has moved: python 07_get_pairs.py --download facades"),
        (["--download=maps"], "--download has moved: python 07_get_pairs.py --download=maps"),
        (["--pair", "a b", "c", "--out", "d"], "python 07_get_pairs.py --pair 'a b' c --out d"),
        (["--out", "d", "--edges", "x"], "--edges has moved: python 07_get_pairs.py --out d --edges x"),
        (["--import-cityscapes", "x"], "python 07_get_pairs.py --import-cityscapes x"),
        (["--val-share", "0.1"], "--val-share has moved: python 07_get_pairs.py"),
        (["--url", "x"], "--url has moved: python 07_get_pairs.py"),
    ):
        done = call_main("03_pix2pix_data.py", *flags)
        assert done.returncode == 2 and not done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith("03_pix2pix_data.py: error: --") and command in line
    assert not [*tmp_path.iterdir()]
