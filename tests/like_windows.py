"""Runs a script as if on Windows, as far as Linux can play it: python like_windows.py SCRIPT [flags]

Modules, signals and functions that Windows lacks are gone; msvcrt locks; a folder cannot be
opened; what is flushed must be open for writing; a file that someone has open, or a folder with
such a file in it, is neither renamed nor removed; a text file opened without an encoding is an
error. The rest of Windows (its paths, its console, its TensorFlow) is not played.
"""

import contextlib
import fcntl
import functools
import os
import signal
import subprocess  # noqa: F401 (later, it would take the made-up msvcrt for a sign of Windows)
import sys
import types

GONE = {
    os: "O_DIRECTORY fork forkpty geteuid getuid kill killpg mkfifo mknod nice pwrite sched_getaffinity "
    "sched_setaffinity setsid sync wait",
    signal: "SIGHUP SIGQUIT SIGKILL SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE alarm pause setitimer",
}
MODULES = "fcntl grp pwd resource termios tty"
plain = {name: getattr(os, name) for name in ("open", "fsync", "rename", "unlink", "rmdir")}


def files_open():
    """The paths of the files that this process has open, or mapped into its memory."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them is closed
            yield os.readlink(f"/proc/self/fd/{number}")
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        yield from (line.rstrip("\n").split(maxsplit=5)[5] for line in lines if "/" in line)


def refuse_open(*paths):
    for path in map(os.path.realpath, paths):
        if any(file == path or file.startswith(f"{path}{os.sep}") for file in files_open()):
            raise PermissionError(13, "used by another process", path)


def move(function, path, new_path):
    refuse_open(path, new_path)
    return function(path, new_path)


def remove(function, path, **options):
    if options.get("dir_fd") is None:
        refuse_open(path)
    return function(path, **options)


def open_file(path, flags, *arguments, **options):
    if os.path.isdir(path) and flags & os.O_TMPFILE != os.O_TMPFILE:  # not Python's temporary files
        raise PermissionError(13, "Permission denied", path)
    return plain["open"](path, flags, *arguments, **options)


def flush(file):
    if not fcntl.fcntl(file, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
        raise OSError(9, "Bad file descriptor")
    plain["fsync"](file)


def lock(file, mode, count):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


def hide():
    """Takes away what Windows lacks; before anything else is imported, or it would keep a copy."""
    for module, names in GONE.items():
        for name in names.split():
            delattr(module, name)
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=lock, LK_NBLCK=2)
    sys.modules |= dict.fromkeys(MODULES.split())  # None: cannot be imported
    os.open, os.fsync = open_file, flush
    # partial, because pathlib of Python 3.10 would make methods of functions.
    os.rename = os.replace = functools.partial(move, plain["rename"])
    os.unlink = os.remove = functools.partial(remove, plain["unlink"])
    os.rmdir = functools.partial(remove, plain["rmdir"])


def main():
    hide()
    import runpy  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    warnings.filterwarnings("ignore", category=EncodingWarning)  # of the libraries
    warnings.filterwarnings("error", category=EncodingWarning, module="__main__|common|[0-9]{2}_")
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
