"""After damage and mistakes a run is intact, or a clear message says what to do."""

import errno
import os
import shutil
import subprocess
import sys

import common

import pytest
import tensorflow as tf
from conftest import HERE


class Run:
    """A run with a checkpoint of step 10 and one of step 20; `weight` was 1.0 and 2.0 then."""

    def __init__(self, folder):
        self.weight = tf.Variable(tf.zeros(50))
        self.tables = self.losses, self.metrics = folder / "losses.csv", folder / "metrics.csv"
        self.checkpoints = common.Checkpoints(folder / "saved", [self.weight], self.tables)

    def save(self, step, value):
        self.weight.assign(tf.fill(self.weight.shape, value))
        common.append_row(self.losses, {"epoch": 1, "step": step, "d_real": 0.25})
        common.append_row(self.metrics, {"epoch": step // 10, "val_l1": 0.125})
        self.checkpoints.save(step)

    def saved(self):
        return sorted(path.name for path in self.checkpoints.folder.glob("step_" + 8 * "[0-9]"))

    def restore(self):
        return self.checkpoints.restore(), float(tf.reduce_mean(self.weight))


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    assert run.restore() == (0, 0.0)
    run.save(10, 1.0)
    run.save(20, 2.0)
    shutil.copytree(tmp_path / "saved" / "step_00000020", tmp_path / "saved" / "step_2-backup")
    assert run.saved() == ["step_00000010", "step_00000020"], "the last two are kept"
    return run


def damages(content):
    """Yields the contents of a file after various kinds of damage; None if the file is gone."""
    yield from (None, b"", bytes(len(content)), content[: len(content) // 2], content[:-1])
    for place in range(0, len(content), 17):
        yield content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001"])
def test_damaged_checkpoint(part, run, tmp_path, capsys):
    """Broken if a damaged checkpoint is used, or ends a run that has an earlier, intact one."""
    shutil.copytree(run.checkpoints.folder, tmp_path / "whole")
    path, fell_back = run.checkpoints.folder / "step_00000020" / part, 0
    for left in damages(path.read_bytes()):
        shutil.rmtree(run.checkpoints.folder)
        shutil.copytree(tmp_path / "whole", run.checkpoints.folder)
        path.unlink() if left is None else path.write_bytes(left)
        step, value = run.restore()
        told = "step_00000020 is damaged" in capsys.readouterr().err
        # Some bytes, such as those between two blocks, do not matter; then all values are right.
        assert (step, value, told) in {(10, 1.0, True), (20, 2.0, False)}, left
        fell_back += told
    assert fell_back > 10


def test_no_whole_checkpoint(run, tmp_path):
    """Broken if a run whose checkpoints are all damaged or gone restarts, or loses its table."""
    kept = run.losses.read_text()
    for name in run.saved():
        data = run.checkpoints.folder / name / "state.data-00000-of-00001"
        content = bytearray(data.read_bytes())
        content[content.index(b"\0\0\x80\x3f" if name.endswith("10") else b"\0\0\0\x40")] ^= 1
        data.write_bytes(content)
    refused, again = pytest.raises(common.UserError, match="no intact checkpoint"), Run(tmp_path)
    with refused:
        again.restore()
    assert run.losses.read_text() == kept
    shutil.move(run.losses, tmp_path / "kept")
    with refused:
        again.restore()
    shutil.rmtree(run.checkpoints.folder)
    shutil.move(tmp_path / "kept", run.losses)
    with refused:
        again.restore()
    assert run.losses.read_text() == kept


def test_a_checkpoint_of_other_networks(run, tmp_path, capsys):
    """Broken if a checkpoint of other networks is restored in part, or put aside as damaged."""
    for sizes in ([50, 3], [49], []):
        variables = [tf.Variable(tf.zeros(size)) for size in sizes]
        other = common.Checkpoints(run.checkpoints.folder, variables, run.tables)
        with pytest.raises(common.UserError, match="no intact checkpoint"):
            other.restore()
    assert run.saved() == ["step_00000010", "step_00000020"], "sound checkpoints are gone"


SPOILT = {
    "rows beyond the checkpoint": lambda text: text + "2,30,0.5\n",
    "a last row cut short": lambda text: text + "2,3",
    "a row of junk": lambda text: text.replace("\n", "\njunk\n", 1),
    "a byte order mark": lambda text: "\ufeff" + text,
    "emptied": lambda text: "",
}


@pytest.mark.parametrize("how", SPOILT)
def test_tables_go_back_with_their_checkpoint(how, run, tmp_path):
    """Broken if a damaged or missing table is not restored from its copy in the checkpoint."""
    text = run.losses.read_text()
    assert text == "epoch,step,d_real\n1,10,0.250000\n1,20,0.250000\n"
    run.losses.write_text(SPOILT[how](text))
    run.metrics.unlink()
    again = Run(tmp_path)
    assert again.restore() == (20, 2.0)
    assert run.losses.read_text() == text
    assert common.read_rows(run.metrics) == [{"epoch": n, "val_l1": 0.125} for n in (1, 2)]
    shutil.rmtree(again.checkpoints.folder / "step_00000020")  # to one with fewer rows
    assert again.restore() == (10, 1.0) and run.losses.read_text() == text[:-14]
    (again.checkpoints.folder / "step_00000010" / "losses.csv").unlink()
    assert pytest.raises(FileNotFoundError, again.restore) and run.losses.exists()


def test_rows_before_the_first_checkpoint_go(tmp_path):
    """Broken if a run killed before its first checkpoint keeps rows that it will write again."""
    run = Run(tmp_path)
    run.restore()
    common.append_row(run.losses, {"epoch": 1, "step": 10})
    assert Run(tmp_path).restore() == (0, 0.0) and not run.losses.exists()


NO_ROOM = [
    (MemoryError(), "out of memory"),
    (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "out of memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
]


@pytest.mark.parametrize("error, words", NO_ROOM)
def test_no_room_is_no_damage(error, words, run, monkeypatch):
    """Broken if a sound checkpoint is put aside because memory or disk space ran out."""

    def read(prefix):
        raise error

    monkeypatch.setattr(run.checkpoints.checkpoint, "read", read)
    with pytest.raises(type(error)):
        run.restore()
    assert run.saved() == ["step_00000010", "step_00000020"]
    assert words in common.explain(error)


def put(place, text):
    """Writes a file or, where a folder is wanted (.d), a folder with a file in it."""
    file = place / "a" / "b" if place.suffix == ".d" else place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", ["file", "folder.d"])
def test_a_result_is_replaced_whole_or_not_at_all(name, tmp_path, monkeypatch):
    """Broken if a failed write destroys the earlier result, or leaves a part of the new one."""
    path, replace = tmp_path / name, common.Path.replace
    file = put(path, "earlier")

    def refuse(source, target):
        if source.name.startswith(".new."):
            raise PermissionError
        return replace(source, target)

    for error in (RuntimeError, PermissionError):  # in the block, and when the new one is renamed
        monkeypatch.setattr(common.Path, "replace", refuse)
        with pytest.raises(error), common.replacing(path) as temporary:
            put(temporary, "half")
            if error is RuntimeError:
                raise error
        assert file.read_text() == "earlier" and os.listdir(tmp_path) == [name]
    monkeypatch.undo()
    for start in (".new.", ".old.") if path.is_dir() else ():
        put(tmp_path / f"{start}{name}" / "left", "from a process that was killed")
    with common.replacing(path) as temporary:
        put(temporary, "new")
    assert file.read_text() == "new" and os.listdir(tmp_path) == [name]
    assert not (path / "left").exists()


@pytest.mark.linux
def test_files_are_flushed_before_they_get_their_names(run, tmp_path, monkeypatch):
    """Broken if a power cut can leave a checkpoint or file that has its name but no contents."""
    flushed, flush = [], os.fsync

    def note(file):
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        flush(file)

    monkeypatch.setattr(os, "fsync", note)
    run.checkpoints.save(30)
    parts = ["losses.csv", "metrics.csv", "state.data-00000-of-00001", "state.index"]
    assert sorted(flushed) == [str(tmp_path / "saved" / "unfinished" / part) for part in parts]
    with common.replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")
    assert flushed[4:] == [str(tmp_path / ".new.table.csv")]


GAN = ["01_gan_mnist.py", "--steps-per-epoch", 1]
BYTES = '"data": {"files": "", "bytes": 1}}'
OPTIONS = {
    "": "options.json: damaged. Add --fresh",
    '{"flags": 3}': "options.json: damaged. Add --fresh",
    '{"stage": "cgan", "flags": {"--epochs": 1}, "data": {"files": ""}}': "json: damaged. Add",
    '{"stage": "cgan", "flags": {"--epochs": "1"}, ' + BYTES: "json: damaged. Add --fresh",
    '{"stage": "pix2pix", "flags": {"--epochs": 1}, ' + BYTES: "json: damaged. Add --fresh",
    '{"stage": "cgan", "flags": {"--epochs": 1}, ' + BYTES: "a run of cgan, not",
}


@pytest.mark.parametrize("content", OPTIONS)
def test_damaged_options(content, call_main, tmp_path):
    """Broken if a damaged options.json, or that of another stage, is replaced or not reported."""
    (tmp_path / "options.json").write_text(content)
    done = call_main("01_gan_mnist.py", "--out", tmp_path)
    assert done.returncode == 2 and OPTIONS[content] in done.stderr
    assert (tmp_path / "options.json").read_text() == content


@pytest.mark.slow
def test_one_process_a_run(call_main, tmp_path):
    """Broken if two processes can train in one folder, or a dead one still holds the lock."""
    run, code = tmp_path / "run", "import common, sys; print(common.lock(common.Path(sys.argv[1])))"
    run.mkdir()
    command = [sys.executable, "-uc", f"{code}; input()", run]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=HERE, **pipes)
    process.stdout.readline()
    flags = ["--epochs", 1, "--out", run]
    for extra in ([], ["--fresh"]):
        done = call_main(*GAN, *flags, *extra)
        assert done.returncode == 2 and "another process is working in it" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    process.kill()
    process.communicate()
    assert call_main(*GAN, *flags).returncode == 0


def test_no_locks_on_this_file_system(tmp_path, monkeypatch, capsys):
    """Broken if a file system without locks refuses a run, or is used without a warning."""

    def lockf(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(os, "lockf", lockf)
    os.close(common.lock(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    words = "no locks on this file system (No locks available); start one process only"
    assert line.endswith(words)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on its own file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    can_mount = shutil.which("mount")
    if not can_mount or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk, room):
    """Fills a disk except for `room` bytes."""
    with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - room)


@pytest.mark.slow
def test_full_disk(small_disk, call_main):
    """Broken if a full disk causes a traceback, leaves partial files, or destroys earlier ones.

    First the disk is too small for the first checkpoint of 14 MB; then it has no room for a
    row; then it has room for the table, but not for the 2.3 MB of weights.
    """
    run, flags = small_disk / "run", [*GAN, "--out", small_disk / "run"]
    full = "error: the disk is full. Make room and run the same command again, without --fresh"

    def assert_refused(*more):
        done = call_main(*flags, *more)
        assert done.returncode == 2 and done.stderr == f"01_gan_mnist.py: {full}\n", done.stderr
        assert not (run / "saved" / "unfinished").exists() and not list(run.glob("**/.new*"))

    assert_refused("--epochs", 1)
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    assert call_main(*flags, "--epochs", 1).returncode == 0
    names = ["generator.weights.h5", "losses.csv", "result.png"]
    kept = {name: (run / name).read_bytes() for name in names}
    for room in (0, 1_000_000):
        fill(small_disk, room)
        assert_refused("--epochs", 2)
        assert (run / names[0]).read_bytes() == kept[names[0]]
        assert (run / names[2]).read_bytes() == kept[names[2]]
        (small_disk / "filler").unlink()
    assert call_main(*flags, "--epochs", 2).returncode == 0
    assert (run / "losses.csv").read_bytes().startswith(kept["losses.csv"])
