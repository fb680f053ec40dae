"""What two or more of the numbered scripts run, and nothing else.

Read it top to bottom: command line and run, data, layers and networks, losses,
training, figures. The lessons themselves are in the numbered scripts.
"""

import argparse
import contextlib
import csv
import ctypes
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


@contextlib.contextmanager
def without_chatter():
    """Keeps TensorFlow's notes off the screen; warnings and errors still get there.

    The C++ side writes to file descriptor 2, at start-up before its log level is read,
    so the descriptor itself is diverted. Besides notes, what is left out is: cuInit's
    code 303 (the machine has no CUDA driver), and words on an error that is raised too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # no notes from here on either
    chatter = re.compile(
        r"I\d{4} |WARNING: All log messages before absl|\s*$|.*cuInit.*\(303\)"
        r"|W\d{4} .*(local_rendezvous|op_kernel)|E\d{4} .*jpeg_mem|W\d{4} .*tensor_slice_reader"
        r"|W\d{4} .*tf_tfl_flatbuffer_helpers|INFO: Created TensorFlow Lite"
    )
    try:
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115
    except OSError:  # the disk is full; there are better places to say so
        yield
        return
    with log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            sys.stderr.writelines(line for line in log if not chatter.match(line))


# Python's own answer to Ctrl-C would be a traceback through TensorFlow's modules.
interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
with without_chatter():
    import keras
    import matplotlib
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure

    tf.config.list_physical_devices()  # looks for a GPU, with notes of its own
signal.signal(signal.SIGINT, interrupt)


# =============================================================================
# 1. Command line and run
# =============================================================================

HERE = Path(__file__).parent


FILE_ERRORS = (tf.errors.NotFoundError, tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)
# What TensorFlow raises when another process has gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class UserError(Exception):
    """A mistake by the user; the message names the file or flag and the cure."""


def run_main(main):
    """Runs `main()`. What the user can mend ends in one line and exit status 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # tidies up on the way
    try:
        return main()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on, or begins again.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except UserError as error:
        message = str(error)
    except (OSError, tf.errors.OpError) as error:  # TensorFlow's own file system raises the second
        if "No space left" in str(error) or "Disk quota" in str(error):
            message = "the disk is full: make room, and go on by the same command, without --fresh"
        elif isinstance(error, OSError):
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        elif isinstance(error, FILE_ERRORS):
            message = re.sub(r"\{\{.*?\}\} ?", "", error.message).partition("\n")[0]
        elif isinstance(error, LOST) and isinstance(tf.distribute.get_strategy(), Workers):
            message = (
                "TF_CONFIG: another process has ended, or cannot be reached: see its last lines. Start all "
                f"by the same command, and the run goes on ({error.message.strip().partition(chr(10))[0]})"
            )
        else:
            raise
    # File names may hold line breaks, and bytes that are no letters.
    message = message.replace("\n", "\\n").encode(errors="backslashreplace").decode()
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(2)


def number(low, high, kind=float):
    """Returns an argparse type: a number, of int or float kind, from `low` to `high`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name} from {low} to {high}")
        return value

    return parse


def devices(text):
    """Argparse type of --devices."""
    return text if text == "all" else number(1, 1024, int)(text)


def trainer_arguments(docstring, *, epochs, batch_size, out):
    """Returns a parser with the flags that all trainers share."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=number(1, 10**6, int), default=epochs, help=f"epochs wanted in all ({epochs})")
    add("--batch-size", type=number(1, 10**5, int), default=batch_size, help=f"examples ({batch_size})")
    add("--steps-per-epoch", type=number(1, 10**9, int), metavar="N", help="cap, for a quick look")
    add("--seed", type=number(0, 2**31 - 1, int), default=0, help="of weights, noise, order (0)")
    precisions = ["float32", "mixed_bfloat16", "mixed_float16"]
    add("--precision", choices=precisions, default="float32", help="of the arithmetic (float32)")
    add(
        "--devices",
        type=devices,
        default=1,
        metavar="all|N",
        help="GPUs, or parts of the processor (1); TF_CONFIG: machines",
    )
    add("--out", type=Path, default=Path("runs") / out, metavar="DIR", help=f"folder of the run (runs/{out})")
    add(
        "--checkpoint-minutes",
        type=number(0, 1e4),
        default=10,
        metavar="N",
        help="how often to save within an epoch; after each one, too (10)",
    )
    add("--fresh", action="store_true", help="start over; an earlier run in DIR is moved aside")
    return parser


def pair_arguments(parser):
    """Adds the flags that name the paired data and say which half is the condition."""
    add = parser.add_argument
    add("--dataset", default="openmoji", metavar="NAME|DIR", help="folder with train/ and val/ (openmoji)")
    add("--direction", choices=["AtoB", "BtoA"], help="AtoB: left half to right half (the dataset's own)")


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """One process a machine, with two things that Keras 3.15 takes for granted in `reduce`.

    It reduces a step's losses along axis 0, which scalars lack, and whole batches at once.
    """

    def reduce(self, reduce_op, value, axis):
        def reduce_one(value):
            scalar = self.experimental_local_results(value)[0].shape.rank == 0
            return super(Workers, self).reduce(reduce_op, value, None if scalar else axis)

        return tf.nest.map_structure(reduce_one, value)


def set_devices(args):
    """Has tf.distribute share the training out, over --devices and the machines of TF_CONFIG.

    Each replica, one a device, takes its slice of every batch; their gradients are averaged.
    Batchnorm takes the replica's own pictures, and its moving averages are the first's.
    Without a GPU, --devices N makes N devices of the processor, to try this out. Must come
    before TensorFlow has computed anything.

    Raises:
        UserError: so many devices are not there, or the batch cannot be shared out evenly.
    """
    gpus, count = tf.config.list_physical_devices("GPU"), args.devices
    if count == "all":
        count = len(gpus) or 1
    if gpus and count > len(gpus):
        raise UserError(f"--devices {count}: there are only {len(gpus)} GPUs here")
    if count > (most := max(2, os.cpu_count())) and not gpus:
        raise UserError(f"--devices {count}: without GPUs, at most {most} parts of the processor")
    if os.environ.get("TF_CONFIG") and count > 1 and not gpus:
        raise UserError(f"--devices {count}: a process of TF_CONFIG has the whole processor, or GPUs")
    refuse_uneven(args.batch_size, count)
    tf.config.set_visible_devices(gpus[:count], "GPU")
    strategy = None
    if os.environ.get("TF_CONFIG"):
        handler = signal.getsignal(signal.SIGTERM)
        try:
            strategy = Workers()
            signal.signal(signal.SIGTERM, handler)  # TensorFlow has taken it
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise UserError(f"TF_CONFIG: {' '.join(str(error).split())}") from error
        refuse_uneven(args.batch_size, strategy.num_replicas_in_sync)
    elif count > 1:
        if not gpus:
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        strategy = tf.distribute.MirroredStrategy(tf.config.list_logical_devices("GPU" if gpus else "CPU"))
    tf.distribute.experimental_set_strategy(strategy)


def refuse_uneven(batch_size, replicas):
    """Raises UserError if a batch cannot be shared out evenly."""
    if batch_size % replicas:
        raise UserError(f"--batch-size {batch_size}: cannot be shared out evenly over {replicas} devices")


def refuse_disagreement(now):
    """Raises UserError when the processes of TF_CONFIG were started with other flags or data."""
    same = json.dumps({k: v for k, v in now.items() if k not in FREE_FLAGS | {"--dataset"}})
    mine = tf.constant(int(hashlib.sha256(same.encode()).hexdigest()[:8], 16), tf.int64)
    if int(from_chief([mine])[0]) != int(mine):
        raise UserError("TF_CONFIG: the chief has other flags or data; start all by the same command")


def from_chief(tensors):
    """Returns the chief's values of a list of tensors, in every process of TF_CONFIG."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, Workers):
        return tensors

    @tf.function
    def collect():
        replica = tf.distribute.get_replica_context()
        first = replica.replica_id_in_sync_group == 0
        return [replica.all_reduce("SUM", t if first else tf.zeros_like(t)) for t in tensors]

    return [strategy.experimental_local_results(t)[0] for t in strategy.run(collect)]


def is_chief():
    """Returns whether this process keeps the run: always, but for machines after the first."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def epoch_steps(args, examples):
    """Returns how many batches make an epoch under the flags, for so many examples."""
    if args.batch_size > examples:
        raise UserError(f"--batch-size {args.batch_size}: there are only {examples} training examples")
    return min(examples // args.batch_size, args.steps_per_epoch or examples)


def in_threads(function, items):
    """Yields `function(item)` of each item, in order, with a bar if it takes over a second."""
    started, bar = time.monotonic(), keras.utils.Progbar(len(items), interval=0.5, unit_name="file")
    with ThreadPoolExecutor() as pool:
        for done, result in enumerate(pool.map(function, items), start=1):
            if sys.stdout.isatty() and time.monotonic() - started > 1.0:
                bar.update(done)
            yield result


def contents_of(files):
    """Returns {file: hash of its contents}, to know them again."""
    hashes = in_threads(lambda file: hashlib.sha256(Path(file).read_bytes()).hexdigest(), files)
    return dict(zip(files, hashes))


def start_run(args, data, contents):
    """Opens the run's folder `args.out`, new or to go on with; sets seed and precision.

    Args:
        args: the parsed flags.
        data: dict of names and counts, kept with the flags.
        contents: the files of the data, by `contents_of`. With others, a run does not go on.

    Raises:
        UserError: the folder holds something else, or a run with other flags or data,
            or another process is training in it.
    """
    contents = hashlib.sha256("".join(contents.values()).encode()).hexdigest()[:16]
    data = {"script": Path(sys.argv[0]).name} | data | {"contents of the data": contents}
    flags = {f"--{k.replace('_', '-')}": str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    refuse_disagreement(flags | data)
    if is_chief():
        open_run(args.out, args.fresh, flags, data)
    keras.config.set_dtype_policy(args.precision)
    keras.utils.set_random_seed(args.seed)
    tf.config.experimental.enable_op_determinism()
    keep_memory()
    return args.out


def open_run(run, fresh, flags, data):
    """Makes the run's folder this process's own, with options.json in it."""
    options_file = run / "options.json"
    strange = run.is_file() or run.is_dir() and any(p.name[0] != "." for p in run.iterdir())
    if strange and not options_file.exists():
        raise UserError(f"--out {run}: exists and is not the folder of a run; give another one")
    run.mkdir(parents=True, exist_ok=True)
    lock(run)
    if fresh and options_file.exists():
        home = run.resolve()  # `run` may be a link to it
        names = (home.with_name(f"{home.name}.{n}") for n in range(1, 10**6))
        aside = next(name for name in names if not name.exists())
        home.rename(aside)
        print(f"Starting over. The earlier run is now {aside}")
        home.mkdir()
        lock(run)
    if options_file.exists():
        refuse_changes(options_file, flags | data)
    versions = {module.__name__: module.__version__ for module in (tf, keras, matplotlib)}
    versions["python"] = platform.python_version()
    with replacing(options_file) as path:
        path.write_text(json.dumps({"flags": flags, "data": data, "versions": versions}, indent=2) + "\n")
    (run / "samples").mkdir(exist_ok=True)


def keep_memory():
    """Has the C library keep freed memory for the next step, where it is glibc.

    Left to itself it returns every large block to the system and fetches it again, page by
    page: 50,000 to 80,000 page faults in a Pix2Pix step, which take a tenth of its time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # MMAP_MAX, TRIM_THRESHOLD, TOP_PAD
            mallopt(option, value)


FREE_FLAGS = {"--out", "--fresh", "--checkpoint-minutes", "--devices"}  # may change on the way


def refuse_changes(options_file, now):
    """Raises UserError naming each flag, or fact about the data, that the run did not begin with."""
    try:
        earlier = json.loads(options_file.read_text())
        was = earlier["flags"] | earlier["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{options_file}: damaged; give another --out, or --fresh") from error
    free = FREE_FLAGS | {"--epochs"}
    if was.get("contents of the data") == now["contents of the data"]:
        free.add("--dataset")  # the same data in another place
    changes = [f"{k} {was.get(k)} -> {now.get(k)}" for k in was | now if was.get(k) != now.get(k)]
    changes = [change for change in changes if change.split()[0] not in free]
    if changes:
        raise UserError(
            f"{options_file.parent} holds a run with other settings ({', '.join(changes)}): "
            "use those, or give another --out, or start over with --fresh"
        )


def lock(folder):
    """Keeps other processes out of a folder until this one ends, however it ends."""
    file = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o644)  # open as long as the process lives
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another process is at work in it; wait, or give another --out") from error


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path to write to; moved to `path` when the block ends well."""
    temporary = path.with_name(f".new.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename and str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


# =============================================================================
# 2. Data
# =============================================================================

MNIST = HERE / "data" / "mnist"
MNIST_FILES = [MNIST / "train-images-idx3-ubyte.gz", MNIST / "train-labels-idx1-ubyte.gz"]


def read_idx(path, magic):
    """Reads a gzipped IDX file of unsigned bytes.

    Args:
        path: the file. Its header is big-endian: the magic number, then the shape.
        magic: 2049 for a list (1 dimension), 2051 for pictures (3 dimensions).

    Returns:
        uint8 tensor of the shape in the header.

    Raises:
        UserError: missing, damaged, cut short, or another kind of file.
    """
    start = 4 + 4 * (magic % 256)  # the last byte of the magic number counts the dimensions
    try:
        data = tf.io.decode_compressed(tf.io.read_file(str(path)), "GZIP")
        header = tf.strings.substr(data, 0, start)
        found, *shape = [int(n) for n in tf.io.decode_raw(header, tf.int32, little_endian=False)] or [None]
    except tf.errors.NotFoundError as error:
        raise UserError(f"{path}: missing; it belongs to the repository") from error
    except tf.errors.OpError as error:
        raise UserError(f"{path}: damaged; take it from the repository again") from error
    if found != magic:
        raise UserError(f"{path}: no IDX file with magic number {magic} (but {found})")
    values = tf.io.decode_raw(data, tf.uint8)[start:]
    if len(values) != math.prod(shape):
        raise UserError(f"{path}: damaged, {len(values)} values and not {math.prod(shape)}")
    return tf.reshape(values, shape)


def load_mnist(files=MNIST_FILES):
    """Reads the training digits of MNIST.

    Returns:
        Digits (60000, 28, 28, 1) and labels (60000,), both uint8, 0 to 255 and 0 to 9.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    digits, labels = read_idx(files[0], 2051), read_idx(files[1], 2049)
    if digits.shape[1:] != (28, 28) or len(digits) != len(labels):
        raise UserError(f"{files[0]}: {digits.shape} digits do not go with {len(labels)} labels")
    return digits[..., tf.newaxis], labels


ALONE = tf.distribute.InputContext()  # one process, one replica


def places_of_steps(first_step, last_step, batch_size, context):
    """Returns a dataset of the places in an endless shuffled sequence that the steps take.

    Step k takes those from k * batch_size on. Each element is one replica's slice of a
    step, of the replicas in this process.
    """
    mine = batch_size // context.num_input_pipelines
    places = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size).batch(mine)
    slices = places.shard(context.num_input_pipelines, context.input_pipeline_id)
    return slices.rebatch(context.get_per_replica_batch_size(batch_size))


def training_digits(digits, labels, context=ALONE, *, batch_size, seed, first_step, last_step):
    """Returns the training batches of steps `first_step` to `last_step` - 1.

    The batch of step k is a pure function of (seed, k). The `context` is tf.distribute's:
    with several replicas, each is given its slice of the batch.

    Returns:
        A dataset of digits (batch_size, 28, 28, 1) in [-1, 1] and one-hot labels
        (batch_size, 10), both float32.
    """

    def batch(places):
        chosen = shuffled(places, len(digits), seed)
        scaled = tf.cast(tf.gather(digits, chosen), tf.float32) / 127.5 - 1.0
        return scaled, tf.one_hot(tf.gather(labels, chosen), 10)

    slices = places_of_steps(first_step, last_step, batch_size, context)
    return slices.map(batch).prefetch(tf.data.AUTOTUNE)


IMAGE_SIZE = 256  # height and width of the pictures that Pix2Pix takes and gives
MAX_PIXELS = 2**25  # of a file: 33 million, lest a few damaged bytes ask for all memory
PNG_SIZE = struct.Struct(">16xII")  # where a PNG file has its width and height


def dataset_folder(dataset):
    """Returns the folder that --dataset means: a path, or the name of one under data/."""
    for folder in (Path(dataset), HERE / "data" / dataset):
        if folder.is_dir():
            return folder
    raise UserError(f"--dataset {dataset}: no such folder; give a path, or openmoji for the pairs here")


def usual_direction(dataset):
    """Returns the direction that a dataset says of itself in direction.txt, else AtoB."""
    file = dataset_folder(dataset) / "direction.txt"
    direction = file.read_text(errors="replace").strip() if file.exists() else "AtoB"
    if direction not in {"AtoB", "BtoA"}:
        raise UserError(f"{file}: neither AtoB nor BtoA; mend it, or give --direction")
    return direction


def list_pictures(folder):
    """Returns the paths of the .jpg, .jpeg and .png files in a folder, sorted; hidden ones left out."""
    return sorted(
        str(path)
        for path in Path(folder).iterdir()
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"} and not path.name.startswith(".")
    )


def find_pairs(dataset):
    """Lists the side-by-side pictures of a dataset.

    Args:
        dataset: the path of a folder anywhere, or the name of one under data/, with
            train/ and val/ (or test/) in it.

    Returns:
        {"train": paths, "val": paths}, sorted by name.

    Raises:
        UserError: no such folder, or a split is missing or empty.
    """
    folder = dataset_folder(dataset)
    pairs = {}
    for split, names in {"train": ["train"], "val": ["val", "test"]}.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if not found:
            needed = "a folder with train/ and val/ (or test/), full of pairs"
            raise UserError(f"--dataset {dataset}: no {' or '.join(names)} in {folder}; give {needed}")
        pairs[split] = next(filter(None, map(list_pictures, found)), [])
        if not pairs[split]:
            raise UserError(f"--dataset {dataset}: no .jpg, .jpeg or .png in {found[0]}")
    return pairs


def decode_picture(path):
    """Reads a picture; transparency becomes white.

    Args:
        path: scalar string tensor; a JPEG or PNG file of any size.

    Returns:
        (height, width, 3) uint8, 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: not a readable picture.
    """
    data = tf.io.read_file(path)
    if tf.io.is_jpeg(data):
        return tf.io.decode_jpeg(data, channels=3)
    # Gray, gray and alpha, RGB or RGBA. Asked for four channels, TensorFlow 2.21 makes a PNG
    # of 1, 2 or 4 bits, as line drawings often are, nearly transparent.
    picture = tf.io.decode_png(data)
    colours = tf.shape(picture)[2] - 1 | 1  # 1 or 3
    if colours < tf.shape(picture)[2]:
        alpha = tf.cast(picture[..., -1:], tf.float32) / 255.0
        on_white = tf.cast(picture, tf.float32) * alpha + 255.0 * (1.0 - alpha)
        picture = tf.cast(tf.round(on_white), tf.uint8)
    return picture[..., :colours] + tf.zeros(3, tf.uint8)  # gray three times


def decode_pair(path):
    """Reads a side-by-side picture and splits it at the middle.

    Returns:
        The left and the right half, (height, width // 2, 3) uint8, 0 to 255. Of an odd
        width the middle column is dropped.
    """
    picture = decode_picture(path)
    half = tf.shape(picture)[1] // 2
    return picture[:, :half], picture[:, -half:]


def stack_pair(left, right, direction):
    """Puts both halves into one stack, so that whatever is done to it is done to both.

    Args:
        left, right: (height, width, 3) uint8.
        direction: "AtoB": the condition is the left half; "BtoA": the right one.

    Returns:
        (256, 256, 6) float32 in [-1, 1]: the condition's channels, then the target's.
    """
    halves = [left, right] if direction == "AtoB" else [right, left]
    halves = [tf.image.resize(half, (IMAGE_SIZE, IMAGE_SIZE), antialias=True) for half in halves]
    return tf.ensure_shape(tf.concat(halves, axis=-1) / 127.5 - 1.0, (IMAGE_SIZE, IMAGE_SIZE, 6))


def warn_of_shared(pairs, contents):
    """Says so when a picture to be tested with is trained on: the scores would flatter.

    Args:
        contents: of all these pictures, by `contents_of`.
    """
    train = {contents[path]: path for path in pairs["train"]}
    shared = [path for path in pairs["val"] if contents[path] in train]
    if shared:
        first = f"{shared[0]} is {train[contents[shared[0]]]}"
        print(f"Warning: trained on and tested with: {len(shared)} pictures, e.g. {first}", file=sys.stderr)


def unreadable(paths, upright=True):
    """Decodes every picture, so that none ends a long training.

    Args:
        upright: whether one that its EXIF tag turns cannot be used.

    Returns:
        dict: path -> what is wrong with it, of those that cannot be used.
    """
    find = functools.partial(find_problem, upright=upright)
    with without_chatter():
        return {path: problem for path, problem in zip(paths, in_threads(find, paths)) if problem}


def refuse_unreadable(flag, problems):
    """Raises UserError naming all files in `problems`, if any, and the flag that led to them."""
    if problems:
        named = "; ".join(f"{path} ({problem})" for path, problem in problems.items())
        raise UserError(f"{flag}: mend or remove {named}")


def find_problem(path, upright=True):
    """Returns what makes a picture file unusable as a pair, or None."""
    try:
        path.encode()
        data = Path(path).read_bytes()
        if data.startswith(b"\xff\xd8"):
            if upright and exif_orientation(data) != 1:
                return "an EXIF tag turns it: save it upright"
            size = tf.io.extract_jpeg_shape(data)[:2]
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            size = PNG_SIZE.unpack_from(data)
        else:
            return "not PNG or JPEG"
        if math.prod(int(n) for n in size) > MAX_PIXELS:
            return f"more than {MAX_PIXELS:,} pixels"
        left, _ = decode_pair(path)
    except OSError as error:
        return error.strerror
    except UnicodeError:
        return "TensorFlow takes no such name, it is not UTF-8: rename it"
    except (tf.errors.OpError, struct.error):
        return "damaged"
    return None if left.shape[1] else "less than 2 pixels wide"


def exif_orientation(data):
    """Returns tag 0x0112 of a JPEG file's first EXIF directory: 1 is upright, 2 to 8 are not."""
    start = data.find(b"Exif\0\0", 0, 2**16) + 6
    order = {b"II": "<", b"MM": ">"}.get(data[start : start + 2])
    try:
        directory = start + struct.unpack_from(f"{order}4xI", data, start)[0]
        for n in range(*struct.unpack_from(f"{order}H", data, directory)):
            tag, value = struct.unpack_from(f"{order}H6xH", data, directory + 2 + 12 * n)
            if tag == 0x0112:
                return value
    except struct.error:  # no EXIF, or none that makes sense
        pass
    return 1


def jitter(stack, seed):
    """The paper's augmentation (section 6.2): enlarge, crop at random, mirror half the time.

    Args:
        stack: (256, 256, channels) float32.
        seed: (2,) int64; the same seed gives the same picture.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    stack = tf.image.resize(stack, (286, 286))
    stack = tf.image.stateless_random_crop(stack, (IMAGE_SIZE, IMAGE_SIZE, stack.shape[-1]), crop_seed)
    return tf.image.stateless_random_flip_left_right(stack, flip_seed)


def course(stack, seed):
    """The course's augmentation: shift with padding, mirror both ways, quarter turns.

    The border of 30 pixels is a reflection or white, half the time each. Arguments
    and result as for `jitter`.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))

    def chance(seed):
        return tf.random.stateless_uniform((), seed) < 0.5

    border = [[30, 30], [30, 30], [0, 0]]
    white = tf.pad(stack, border, constant_values=1.0)
    stack = tf.where(chance(seeds[0]), tf.pad(stack, border, "REFLECT"), white)
    stack = tf.image.stateless_random_crop(stack, (IMAGE_SIZE, IMAGE_SIZE, stack.shape[-1]), seeds[1])
    stack = tf.image.stateless_random_flip_left_right(stack, seeds[2])
    stack = tf.image.stateless_random_flip_up_down(stack, seeds[3])
    turns = tf.random.stateless_uniform((), seeds[4], minval=1, maxval=4, dtype=tf.int32)
    return tf.image.rot90(stack, tf.where(chance(seeds[5]), turns, 0))


AUGMENTATIONS = {"none": lambda stack, seed: stack, "jitter": jitter, "course": course}


def shuffled(positions, count, seed):
    """The examples at positions of an endless sequence of shuffled passes over the data.

    A pure function, where a shuffle buffer would have a past: training can begin at
    any step and sees what it would have seen.

    Args:
        positions: (B,) int64, ascending, at most `count` of them.
        count: number of examples.

    Returns:
        (B,) int64, from 0 to count - 1; each once in `count` positions.
    """

    def in_pass(number):
        seeds = tf.stack([tf.cast(seed, tf.int64), number])
        return tf.random.experimental.index_shuffle(positions % count, seeds, max_index=count - 1)

    passes = positions // count  # a batch reaches into the next pass at most
    return tf.where(passes == passes[0], in_pass(passes[0]), in_pass(passes[-1]))


def training_pairs(paths, context=ALONE, *, batch_size, seed, direction, augment, first_step, last_step):
    """Returns the training batches of steps `first_step` to `last_step` - 1.

    The batch of step k is a pure function of (seed, k); `context` as in `training_digits`.

    Returns:
        A dataset of (condition, target), each (batch_size, 256, 256, 3) in [-1, 1].
    """
    files = tf.constant(paths)

    def example(place):
        (chosen,) = tf.unstack(shuffled(place[tf.newaxis], len(paths), seed))
        left, right = decode_pair(files[chosen])
        stack = stack_pair(left, right, direction)
        return split_stack(AUGMENTATIONS[augment](stack, seed=tf.stack([seed, place])))

    slices = places_of_steps(first_step, last_step, batch_size, context)
    pairs = slices.unbatch().map(example, num_parallel_calls=tf.data.AUTOTUNE)
    size = context.get_per_replica_batch_size(batch_size)
    return pairs.batch(size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def split_stack(stack):
    """Splits (..., 6) into the condition's and the target's (..., 3)."""
    return stack[..., :3], stack[..., 3:]


# =============================================================================
# 3. Layers and networks
# =============================================================================


EPSILON = 1e-5  # of batchnorm, as in the authors' code; Keras' 1e-3 mutes the faint second layer


def normal():
    """The paper's initialisation. One object a layer: shared, it would repeat its values."""
    return keras.initializers.RandomNormal(0.0, 0.02)


class EncodeBlock(layers.Layer):
    """4x4 convolution, batchnorm, LeakyReLU: C64, C128, ... of the paper's appendix 6.1."""

    def __init__(self, filters, strides=2, padding="same", batchnorm=True, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(filters, 4, strides, padding, use_bias=False, kernel_initializer=normal())
        self.batchnorm = layers.BatchNormalization(epsilon=EPSILON) if batchnorm else None
        self.activation = layers.LeakyReLU(negative_slope=0.2)

    def call(self, x, training):
        x = self.conv(x)
        if self.batchnorm:
            x = self.batchnorm(x, training=training)
        return self.activation(x)


class DecodeBlock(layers.Layer):
    """4x4 transposed convolution to twice the size, batchnorm, dropout (CD512, ...), ReLU."""

    def __init__(self, filters, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2DTranspose(filters, 4, 2, "same", use_bias=False, kernel_initializer=normal())
        self.batchnorm = layers.BatchNormalization(epsilon=EPSILON)
        self.dropout = layers.Dropout(dropout) if dropout else None
        self.activation = layers.ReLU()

    def call(self, x, training):
        x = self.batchnorm(self.conv(x), training=training)
        if self.dropout:
            x = self.dropout(x, training=training)
        return self.activation(x)


def encoder_blocks():
    """The half that shrinks the picture to one vector of 512 numbers.

    No batchnorm in the first block (the paper's appendix) nor in the last: over a
    batch of one its 1x1 map is a single value per channel, which batchnorm turns
    into zero, cutting the path (the paper's erratum).
    """
    return [
        EncodeBlock(64, batchnorm=False, name="encode_1"),  # (B, 128, 128, 64)
        EncodeBlock(128, name="encode_2"),  # (B, 64, 64, 128)
        EncodeBlock(256, name="encode_3"),  # (B, 32, 32, 256)
        EncodeBlock(512, name="encode_4"),  # (B, 16, 16, 512)
        EncodeBlock(512, name="encode_5"),  # (B, 8, 8, 512)
        EncodeBlock(512, name="encode_6"),  # (B, 4, 4, 512)
        EncodeBlock(512, name="encode_7"),  # (B, 2, 2, 512)
        EncodeBlock(512, batchnorm=False, name="encode_8"),  # (B, 1, 1, 512)
    ]


def decoder_blocks():
    """The half that grows the picture again; dropout is its only source of noise."""
    return [
        DecodeBlock(512, dropout=0.5, name="decode_1"),  # (B, 2, 2, 512)
        DecodeBlock(512, dropout=0.5, name="decode_2"),  # (B, 4, 4, 512)
        DecodeBlock(512, dropout=0.5, name="decode_3"),  # (B, 8, 8, 512)
        DecodeBlock(512, name="decode_4"),  # (B, 16, 16, 512)
        DecodeBlock(256, name="decode_5"),  # (B, 32, 32, 256)
        DecodeBlock(128, name="decode_6"),  # (B, 64, 64, 128)
        DecodeBlock(64, name="decode_7"),  # (B, 128, 128, 64)
    ]


def to_picture():
    """The last layer of a generator: (B, 128, 128, channels) -> (B, 256, 256, 3) in [-1, 1]."""
    return layers.Conv2DTranspose(
        3, 4, 2, "same", activation="tanh", kernel_initializer=normal(), dtype="float32", name="to_picture"
    )


class UNet(keras.Model):
    """Generator: (B, 256, 256, 3) -> (B, 256, 256, 3), both in [-1, 1].

    An encoder-decoder whose decoder also sees, at each size, what the encoder had
    there (Isola et al. 2017, section 3.2.1 and appendix 6.1).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder_blocks()
        self.decoder = decoder_blocks()
        self.joins = [layers.Concatenate(name=f"skip_{n}") for n in range(7, 0, -1)]
        self.to_picture = to_picture()

    def call(self, x, training):
        skips = []
        for block in self.encoder:
            x = block(x, training=training)
            skips.append(x)
        # The deepest map is the decoder's input; the rest are met again on the way up.
        for block, join, skip in zip(self.decoder, self.joins, reversed(skips[:-1])):
            x = join([block(x, training=training), skip])  # twice the block's channels
        return self.to_picture(x)


def generate(generator, sketch, seed=0):
    """Runs a Pix2Pix generator as at test time, leaving it as it was.

    The paper (section 3.4) tests with the network as it trains: batchnorm over the
    picture itself, dropout on. So pass one picture at a time. Moving averages and
    random state stay untouched, and the same seed drops the same values.

    Args:
        sketch: (1, 256, 256, 3) in [-1, 1].

    Returns:
        (1, 256, 256, 3) in [-1, 1].
    """
    state = [
        tf.constant([seed, place], variable.dtype) if "seed_generator" in variable.path else variable
        for place, variable in enumerate(generator.non_trainable_variables)
    ]
    picture, _ = generator.stateless_call(generator.trainable_variables, state, sketch, training=True)
    return picture


class PatchGAN(keras.Model):
    """Discriminator: is this the real picture for this sketch? Asked of each 70x70 patch.

    (sketch, picture), each (B, 256, 256, 3) in [-1, 1] -> (B, 30, 30, 1) logits,
    positive for real (Isola et al. 2017, section 3.2.2).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.join = layers.Concatenate()  # (B, 256, 256, 6)
        self.blocks = [
            EncodeBlock(64, batchnorm=False, name="encode_1"),  # (B, 128, 128, 64)
            EncodeBlock(128, name="encode_2"),  # (B, 64, 64, 128)
            EncodeBlock(256, name="encode_3"),  # (B, 32, 32, 256)
        ]
        self.pad = layers.ZeroPadding2D()  # (B, 34, 34, 256)
        self.last_block = EncodeBlock(512, strides=1, padding="valid", name="encode_4")  # (B, 31, 31, 512)
        self.last_pad = layers.ZeroPadding2D()  # (B, 33, 33, 512)
        self.to_logits = layers.Conv2D(1, 4, kernel_initializer=normal(), dtype="float32", name="to_logits")

    def call(self, sketch, picture, training):
        x = self.join([sketch, picture])
        for block in self.blocks:
            x = block(x, training=training)
        x = self.last_block(self.pad(x), training=training)
        return self.to_logits(self.last_pad(x))  # (B, 30, 30, 1)


# =============================================================================
# 4. Losses
# =============================================================================
# Each is a mean of -log(probability given to the wanted answer), from logits. A
# discriminator that cannot tell says 1/2 everywhere: each is then log 2 = 0.693.


def adversarial_loss(logits, real):
    """Mean cross-entropy of logits of any shape against the answer real or fake."""
    answers = tf.ones_like(logits) if real else tf.zeros_like(logits)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(answers, logits))


def generator_loss(fake_logits):
    """The generator wants its pictures taken for real.

    -log D(G(z)) instead of the minimax game's log(1 - D(G(z))), whose gradient
    vanishes while the discriminator wins (Goodfellow et al. 2014, section 3).
    """
    return adversarial_loss(fake_logits, real=True)


def discriminator_losses(real_logits, fake_logits):
    """The discriminator wants real called real and fake called fake; their sum is its loss."""
    return adversarial_loss(real_logits, real=True), adversarial_loss(fake_logits, real=False)


# =============================================================================
# 5. Training
# =============================================================================


class CompiledAdam(keras.optimizers.Adam):
    """Keras' Adam with its update compiled: one pass over the parameters instead of a dozen.

    Not with replicas, as they meet in it: Keras sums their gradients, and what is wanted is
    the gradient of the mean over the whole batch.
    """

    def apply(self, grads, trainable_variables=None):
        if tf.distribute.has_strategy():
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            grads = [None if grad is None else grad / replicas for grad in grads]
            return super().apply(grads, trainable_variables)
        if not self.built:
            self.build(trainable_variables)
        update = tf.function(lambda grads: super(CompiledAdam, self).apply(grads), jit_compile=True)
        return update(grads)  # without the variables, those of `build`: tf.function would copy them


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for several replicas: Keras 3.15 asks the first alone if its gradients are finite."""

    def check_finite(self, grads):
        finite = tf.cast(super().check_finite(grads), tf.float32)
        return tf.distribute.get_replica_context().all_reduce("MEAN", finite) == 1.0


def adam(learning_rate, beta_1):
    """Adam; for float16's narrow range with loss scaling, so that small gradients survive."""
    optimizer = CompiledAdam(learning_rate, beta_1=beta_1)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = LossScale(optimizer)
    return optimizer


class AdversarialModel(keras.Model):
    """A generator and a discriminator, set by the subclass, with an optimiser each."""

    def compile(self, generator_optimizer, discriminator_optimizer, steps_per_execution=1):
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            steps_per_execution = 1  # Keras' loop over steps fails with several devices
        # By default Keras would compile the step with XLA, which is slower on a processor.
        super().compile(optimizer=None, jit_compile=False, steps_per_execution=steps_per_execution)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)

    def noise(self, count, latent):
        """Returns (count, latent) numbers from N(0, 1), by the subclass's `random`.

        With several replicas all draw the same for all, and each takes its own.
        """
        replica = tf.distribute.get_replica_context()
        numbers = keras.random.normal((replica.num_replicas_in_sync * count, latent), seed=self.random)
        return numbers[replica.replica_id_in_sync_group * count :][:count]

    def state(self):
        """All variables. tf.train.Checkpoint, given a model, would leave out its random state."""
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        return [v.value for owner in (self, *optimizers) for v in owner.variables]


def fit(model, run, batches, args, *, steps_per_epoch, draw, log_every=10, validation_data=None):
    """Trains with `Model.fit` up to `args.epochs` epochs, from the run's last checkpoint if any.

    Writes losses.csv, metrics.csv (with validation data), losses.png, samples/,
    checkpoints/ and generator.weights.h5. Ctrl-C and SIGTERM end it after the step under
    way, with a checkpoint and exit status 130 or 143; of several processes, send them to
    the chief alone, and the others end with it.

    Args:
        model: a compiled AdversarialModel.
        run: the run's folder.
        batches: called with tf.distribute's InputContext, first_step and last_step, returns
            the dataset of those steps.
        args: the parsed flags.
        draw: path -> None, draws the sample picture of the current state.
        log_every: steps between two rows of losses.csv.

    Raises:
        UserError: a loss is no longer a number, or no checkpoint can be read.
    """
    strategy = tf.distribute.get_strategy()
    checkpoints = Checkpoints(run, model.state())
    step, last_step = checkpoints.restore(), args.epochs * steps_per_epoch
    if is_chief():
        keep_rows(run / "losses.csv", "step", step)
        keep_rows(run / "metrics.csv", "epoch", step // steps_per_epoch)
        if step >= last_step:
            done = step // steps_per_epoch
            print(f"{run} has its {done} epochs; --epochs {done + 1} or more trains on.")
        elif step:
            print(f"{run} goes on after step {step} ({step / steps_per_epoch:.2f} epochs).")
    tests = validation_data and functools.partial(all_for_each_replica, validation_data)
    record = Record(run, checkpoints, args, steps_per_epoch=steps_per_epoch, log_every=log_every, draw=draw)
    with record.heeding_signals():
        while step < last_step:
            epoch, done = divmod(step, steps_per_epoch)
            last_epoch = epoch + 1 if done else args.epochs  # an epoch that was begun is ended first
            share = functools.partial(batches, first_step=step, last_step=last_epoch * steps_per_epoch)
            model.fit(
                strategy.distribute_datasets_from_function(share),
                initial_epoch=epoch,
                epochs=last_epoch,
                steps_per_epoch=steps_per_epoch - done,
                validation_data=tests and strategy.distribute_datasets_from_function(tests),
                validation_steps=tests and len(validation_data),
                shuffle=False,  # `batches` has shuffled
                callbacks=[record],
                verbose=(1 if sys.stdout.isatty() else 2) if is_chief() else 0,
            )
            step = last_epoch * steps_per_epoch
        if is_chief():
            if shutil.disk_usage(run).free < 5 * model.generator.count_params():
                raise OSError("No space left for the weights")  # out of room, HDF5 would crash
            with replacing(run / "generator.weights.h5") as path:
                model.generator.save_weights(path)
            draw_curves(run)
        from_chief([tf.constant(0)])  # the others wait until all is saved
    if not is_chief():
        print("This process has done its part. The chief keeps the run.")
        sys.exit()


def all_for_each_replica(dataset, context):
    """Has every replica test with everything: shared out, some would have nothing in the last step."""
    replicas = context.num_replicas_in_sync // context.num_input_pipelines
    copies = dataset.flat_map(lambda *example: tf.data.Dataset.from_tensors(example).repeat(replicas))
    return copies.repeat()  # for the next epoch


class Checkpoints:
    """The last two states of a run, each in a folder `checkpoints/step_00000200`.

    Written by tf.train.Checkpoint, which keeps a checksum of every variable.
    """

    def __init__(self, run, variables):
        self.run, self.folder = run, run / "checkpoints"
        self.step = tf.Variable(0, dtype=tf.int64)
        self.variables = variables
        self.checkpoint = tf.train.Checkpoint(step=self.step, variables=variables)

    def save(self, step):
        """Writes to a folder aside that gets its name when all is there; the third last goes."""
        floats = [v for v in self.variables if v.dtype.is_floating]
        if not all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in floats):
            raise not_a_number(f"step {step}", "a weight", self.names())
        aside, folder = self.folder / "unfinished", self.folder / f"step_{step:08d}"
        self.step.assign(step)
        try:
            with without_chatter():
                self.checkpoint.write(str(aside / "state"))
            os.sync()  # so that a power cut does not leave the name without the contents
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for name in self.names()[:-2]:
            shutil.rmtree(self.folder / name)

    def restore(self):
        """Goes on from the newest checkpoint that is whole, in all processes; or makes the first.

        Returns:
            The number of steps that it has behind it.

        Raises:
            UserError: there is a run, but no whole checkpoint of it.
        """
        if is_chief():
            self.read()
        state = [self.step, *self.variables]
        for variable, value in zip(state, from_chief(state)):
            if value is not variable:  # alone, there is nothing to copy
                variable.assign(value)
        return int(self.step.read_value())

    def read(self):
        """Reads the newest checkpoint that is whole, or makes the first one."""
        names = self.names()
        for name in reversed(names):
            try:
                with without_chatter():
                    self.checkpoint.read(str(self.folder / name / "state")).assert_consumed()
                for damaged in names[names.index(name) + 1 :]:
                    shutil.rmtree(self.folder / f"damaged_{damaged}", ignore_errors=True)
                    (self.folder / damaged).rename(self.folder / f"damaged_{damaged}")
                return
            except Exception as error:  # TensorFlow's reader knows many kinds of damage
                words = f"{self.folder / name} is damaged ({type(error).__name__}); trying the one before."
                print(words, file=sys.stderr)
        if names or (self.run / "losses.csv").exists():
            raise UserError(f"{self.folder}: no whole checkpoint to go on from; --fresh starts over")
        self.save(0)  # from here on, a run without a checkpoint is a damaged one

    def names(self):
        """Returns the folders' names, the oldest first."""
        names = [path.name for path in self.folder.glob("step_*") if path.name[5:].isdigit()]
        return sorted(names, key=lambda name: int(name[5:]))


class Record(keras.callbacks.Callback):
    """Keeps what a run leaves behind: the two tables, the samples, the checkpoints."""

    def __init__(self, run, checkpoints, args, *, steps_per_epoch, log_every, draw):
        super().__init__()
        self.run, self.checkpoints, self.args, self.draw = run, checkpoints, args, draw
        self.steps_per_epoch, self.log_every = steps_per_epoch, log_every
        self.signal, self.saved_at = None, time.monotonic()

    @contextlib.contextmanager
    def heeding_signals(self):
        """Within it, Ctrl-C and the like wait for the step under way; a second one does not."""

        def note(number, frame):
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number
            with contextlib.suppress(OSError):  # of a terminal that is gone
                os.write(2, b"\nStopping after this step, or the validation under way ...\n")

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
        heeded = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]  # as under nohup
        earlier = {number: signal.signal(number, note) for number in heeded}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def set_params(self, params):
        super().set_params(params)
        params["epochs"] = self.args.epochs  # for the bar, while an epoch that was begun is ended

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        left = self.params["steps"] - batch - 1  # of the epoch
        step = (self.epoch + 1) * self.steps_per_epoch - left
        bad = [name for name, loss in logs.items() if not math.isfinite(loss)]
        if bad:
            steps = self.model.steps_per_execution
            where = f"steps {step - steps + 1} to {step}" if steps > 1 else f"step {step}"
            raise not_a_number(where, ", ".join(bad), self.checkpoints.names())
        if not is_chief():
            if left and self.signal:
                sys.exit(128 + self.signal)
            return
        if (self.steps_per_epoch - left) % self.log_every == 0 or not left:
            append_row(self.run / "losses.csv", {"epoch": self.epoch + 1, "step": step} | logs)
        due = time.monotonic() - self.saved_at > 60 * self.args.checkpoint_minutes
        if left and (due or self.signal):
            self.save(step)

    def on_epoch_end(self, epoch, logs=None):
        if not is_chief():
            if self.signal:
                sys.exit(128 + self.signal)
            return
        rows = [row for row in read_rows(self.run / "losses.csv") if row["epoch"] == epoch + 1]
        scores = {name: score for name, score in logs.items() if name.startswith("val_")}
        for name in logs.keys() - scores.keys():  # for Keras to show, instead of the last step's
            logs[name] = sum(row[name] for row in rows) / len(rows)
        if scores:
            append_row(self.run / "metrics.csv", {"epoch": epoch + 1} | scores)
        self.draw(self.run / "samples" / f"epoch_{epoch + 1:04d}.png")
        self.save((epoch + 1) * self.steps_per_epoch)  # last: what is checkpointed is recorded

    def save(self, step):
        self.checkpoints.save(step)
        self.saved_at = time.monotonic()
        if self.signal:
            words = f"Stopped and saved at step {step}. Go on by the same command, without --fresh."
            print(words, file=sys.stderr)
            sys.exit(128 + self.signal)


def not_a_number(where, name, checkpoints):
    """Returns the error for a training that has come apart."""
    last = checkpoints[-1] if checkpoints else "the chief's"
    return UserError(
        f"{where}: NaN or infinite: {name}; the last good checkpoint is {last}. "
        "The same command would meet it again: --fresh with other flags, --precision float32 first"
    )


def steps_per_execution(steps):
    """Returns how many steps Keras should run at a time: an equal part of an epoch, 50 at most.

    For steps so small that returning to Python after each would cost as much as the step.
    """
    return max(n for n in range(1, 51) if steps % n == 0)


def append_row(path, row):
    """Adds a row to a CSV file, under a header when the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})


def read_rows(path, column="epoch"):
    """Returns a CSV file's rows as dicts of numbers; none when there is no file.

    A last row without its line break was cut in writing, and is left out.

    Raises:
        UserError: something in it is not a number, or it has no such column.
    """
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    try:
        rows = [{name: float(value) for name, value in row.items()} for row in rows]
        if rows and column not in rows[0]:
            raise ValueError(f"no column {column}")
        return rows
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged; mend it, or remove it and go on without") from error


def keep_rows(path, column, last):
    """Cuts off rows beyond the checkpoint, to be computed again."""
    kept = sum(row[column] <= last for row in read_rows(path, column))
    if kept:
        lines = path.read_text().splitlines(keepends=True)
        with replacing(path) as temporary:
            temporary.write_text("".join(lines[: 1 + kept]))  # the header, and rows in order
    else:
        path.unlink(missing_ok=True)


# =============================================================================
# 6. Figures
# =============================================================================


def save_figure(figure, path):
    """Writes a Matplotlib figure as PNG, 100 pixels an inch."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name in a script that the font lacks
        figure.savefig(temporary, format="png", dpi=100)


def save_grid(path, rows, *, titles=(), row_titles=(), scale=1.0):
    """Draws pictures in a grid.

    Args:
        rows: list of lists of (height, width, 3 or 1) tensors in [-1, 1], all of one size.
        titles: one for each column.
        row_titles: one for each row.
        scale: size of a picture's pixel on the page.
    """
    gap = 2
    border = [[gap, gap], [gap, gap], [0, 0]]
    tiles = [[tf.pad(picture, border, constant_values=0.6) for picture in row] for row in rows]
    page = tf.concat([tf.concat(row, axis=1) for row in tiles], axis=0)
    height, width = page.shape[:2]
    figure = Figure((scale * width / 100 + 0.3, scale * height / 100 + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(tf.clip_by_value(page * 0.5 + 0.5, 0.0, 1.0), cmap="gray", vmin=0, vmax=1)
    tile_height, tile_width = tiles[0][0].shape[:2]
    axis.set_xticks([(n + 0.5) * tile_width for n in range(len(titles))], titles)
    axis.set_yticks([(n + 0.5) * tile_height for n in range(len(row_titles))], row_titles)
    axis.tick_params(top=False, labeltop=True, bottom=False, labelbottom=False, left=False, labelsize=11)
    axis.spines[:].set_visible(False)
    save_figure(figure, path)


def draw_curves(run):
    """Draws losses.png from losses.csv and metrics.csv, L1 and each score in its own panel."""
    losses, metrics = read_rows(run / "losses.csv"), read_rows(run / "metrics.csv")
    names = list(losses[0])[2:] if losses else []
    adversarial = [name for name in names if name != "g_l1"]
    panels = [("L1, training", losses, "step", ["g_l1"])] if "g_l1" in names else []
    panels += [("adversarial losses, training", losses, "step", adversarial)] if adversarial else []
    scores = list(metrics[0])[1:] if metrics else []
    panels += [(f"{score}, validation", metrics, "epoch", [score]) for score in scores]
    if not panels:
        return
    figure = Figure((4.2 * len(panels), 3.6), layout="constrained")
    for axis, (title, rows, x, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for name in names:
            marker = "." if len(rows) < 40 else None
            axis.plot([r[x] for r in rows], [r[name] for r in rows], label=name, linewidth=1, marker=marker)
        if names == adversarial:
            if "d_wrong" not in names:  # with two kinds of fake, not to know is another number
                axis.axhline(math.log(2), color="gray", linestyle=":", label="log 2: cannot tell")
            axis.legend(fontsize=9)
        axis.set(title=title, xlabel=x)
        axis.grid(alpha=0.3)
    save_figure(figure, run / "losses.png")
