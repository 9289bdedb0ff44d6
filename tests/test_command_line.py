"""What all programs share: the options of the settings, the error line and the quiet start."""

import dataclasses
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from siamese_keras._version import __version__
from siamese_keras.command_line import (
    add_config_options,
    config_from_options,
    local_path,
    make_parser,
    run_program,
)
from siamese_keras.config import Config
from siamese_keras.errors import DataError
from siamese_keras.files import atomic_path
from siamese_keras.presets import PRESETS

ROOT = Path(__file__).parents[1]


def parser():
    made = make_parser("program", "It tests.", usage="%(prog)s [options]")
    add_config_options(made)
    return made


def parse(*arguments):
    made = parser()
    return config_from_options(made, made.parse_args(list(map(str, arguments))))


def refused(capsys, *arguments):
    """Return the last line of the error of options that end with status 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    usage, line = err.splitlines()
    assert usage == "usage: program [options]"
    assert line.startswith("program: error: ")
    return line


def test_every_field_is_an_option_that_overrides_the_preset():
    assert parse() == Config() == PRESETS["fast"]
    assert parse("--preset", "classic-mlp") == PRESETS["classic-mlp"]
    config = parse(
        "--preset", "classic-cnn", "--filters", "8, 16", "--no-unit-length", "--margin", "1.5",
        "--epochs", "2", "--unseen-classes", "bag,3", "--units", "", "--unit-length",
        "--hard-epochs", "1, 2",
    )  # fmt: skip
    assert config == dataclasses.replace(
        PRESETS["classic-cnn"],
        filters=(8, 16),
        units=(),
        margin=1.5,
        epochs=2,
        unit_length=True,
        unseen_classes=("bag", "3"),
        hard_epochs=(1, 2),
    )
    assert parse("--hard-epochs", "none").hard_epochs == ()
    assert parse("--unseen-classes", "none").unseen_classes == ("none",)  # a class of this name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "-1"], "`margin` must be greater than 0. Received: margin=-1.0"),
        (["--margin", "nan"], "`margin` must be a finite number. Received: margin=nan"),
        (["--margin", "2.5"], "`margin` must be at most 2"),
        (["--positive-margin", "1.4"], "`positive_margin` must be less than `margin`"),
        (["--epochs", "0"], "`epochs` must be at least 1"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--filters", "8,x"], "argument --filters: invalid list of int value: '8,x'"),
        (["--filters", "8,0"], "`filters` must be at least 1"),
        (["--dropout", "1"], "`dropout` must be at most 0.95"),
        (["--dropout", "nan"], "`dropout` must be a finite number"),
        (["--learning-rate", "inf"], "`learning_rate` must be a finite number"),
        (["--pairs", "some"], "argument --pairs: invalid choice: 'some'"),
        (["--preset", "slow"], "argument --preset: invalid choice: 'slow'"),
        (
            ["--preset", "many-classes", "--margin", "1", "--positive-margin", "0"],
            "--margin: not allowed without --loss contrastive",
        ),
        (
            ["--preset", "pretrained", "--fine-tune-learning-rate", "1e-4"],
            "--fine-tune-learning-rate: not allowed without --fine-tune",
        ),
        (["--hard-epochs", "0"], "`hard_epochs` must be at least 1. Received: hard_epochs=0"),
        (["--hard-epochs", "half"], "argument --hard-epochs: invalid list of int value: 'half'"),
        (
            ["--hard-epochs", "2,5"],
            "argument --hard-epochs: not allowed beyond the last of --epochs",
        ),
        (["--temperature", "0.2"], "--temperature: not allowed without --loss supervised-contrast"),
        (
            ["--preset", "many-classes", "--weighting", "uniform"],
            "--weighting: not allowed without",
        ),
        (["--architecture", "mlp", "--filters", "8"], "--filters: not allowed with --backbone or"),
        (["--preset", "pretrained", "--pooling", "max"], "--pooling: not allowed with --backbone"),
        (
            ["--preset", "pretrained", "--architecture", "mlp"],
            "--architecture: not allowed with --",
        ),
        (
            ["--classes-per-batch", "8", "--batch-size", "8"],
            "--batch-size: not allowed with --clas",
        ),
        (["--margins", "1"], "unrecognized arguments: --margins"),
        (["--marg", "1"], "unrecognized arguments: --marg"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_settings_start_from_the_file_of_a_run(tmp_path):
    settings = dataclasses.replace(PRESETS["classic-cnn"], dataset="idx", filters=(8, 16))
    settings.save(tmp_path / "config.json")
    assert parse("--config", tmp_path / "config.json") == settings
    assert parse("--seed", 3, "--config", tmp_path / "config.json", "--pairs", "all") == (
        dataclasses.replace(settings, seed=3, pairs="all")
    )


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/photos") == tmp_path / "photos"
    assert parse("--backbone", "~/network.keras").backbone == str(tmp_path / "network.keras")


def test_files_of_settings_are_absolute_and_names_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse("--backbone", "network.keras")
    assert config.backbone == str(tmp_path / "network.keras")
    config = parse("--backbone", "mobilenet_v2", "--weights", "files/mobilenet.h5")
    assert (config.backbone, config.weights) == (
        "mobilenet_v2",
        str(tmp_path / "files/mobilenet.h5"),
    )
    for name in ("imagenet", "none"):
        assert parse("--backbone", "mobilenet_v2", "--weights", name).weights == name


def test_a_file_that_is_not_one_of_settings_is_one_line_and_status_2(tmp_path, capsys):
    file = tmp_path / "config.json"
    settings = ("--config", file)
    assert "No such file or directory" in refused(capsys, *settings)
    for text, message in (("{", "Expecting"), ('{"epochs": "2"}', "`epochs` must be a whole")):
        file.write_text(text)
        line = refused(capsys, *settings)
        assert f"`{file}` must hold the settings of a run. " in line
        assert message in line
    assert "Is a directory" in refused(capsys, "--config", tmp_path)
    PRESETS["best"].save(file)
    assert "not allowed with argument --config" in refused(capsys, *settings, "--preset", "best")
    assert "`epochs` must be at least 1" in refused(capsys, *settings, "--epochs", "0")


def test_settings_that_do_not_describe_the_base_model_of_their_run_are_refused(tmp_path, capsys):
    PRESETS["fast"].save(tmp_path / "config.json")
    facts = tmp_path / "model.json"
    facts.write_text('{"training": {"own_base_model": false}}')
    assert parse("--config", tmp_path / "config.json") == PRESETS["fast"]
    facts.write_text('{"training": {"own_base_model": true}}')
    assert "of a run whose base model was given to `fit`" in refused(
        capsys, "--config", tmp_path / "config.json"
    )


def test_help_shows_every_setting_once_in_its_group():
    options, _, _ = parser().format_help().partition("In parentheses:")
    titles = dict.fromkeys(field.metadata["group"] for field in dataclasses.fields(Config))
    # "pairs:\n  --pairs ..." up to the next heading.
    found = dict(re.findall(r"^([a-z ]+):\n((?:  .*\n|\n)+)", options, re.M))
    assert list(found) == ["options", *titles]
    for title in titles:
        expected = [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(Config)
            if field.metadata["group"] == title
        ]
        assert re.findall(r"^  (--[a-z0-9-]+)", found[title], re.M) == expected
    names = re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", options, re.M)
    assert len(names) == len(set(names))
    one_line = " ".join(options.split())
    for field in dataclasses.fields(Config):
        value = field.default
        if isinstance(value, bool):
            shown = "on" if value else "off"
        elif isinstance(value, tuple):
            shown = ",".join(map(str, value)) or "none"
        else:
            shown = str(value) or "none"
        assert f"{' '.join(field.metadata['help'].split())} ({shown})" in one_line


def test_help_shows_the_options_in_which_a_preset_differs_from_the_default():
    text = parser().format_help().partition("differ by:\n\n")[2]
    shown = {}
    for line in text.splitlines():
        name, options = line[:13].strip(), line[13:]
        shown[name or list(shown)[-1]] = shown.get(name or list(shown)[-1], "") + " " + options
    assert list(shown) == [name for name in PRESETS if name != "fast"]
    for name, options in shown.items():
        assert parse(*shlex.split(options)) == PRESETS[name]
        fast = dataclasses.asdict(PRESETS["fast"])
        differing = [k for k, v in dataclasses.asdict(PRESETS[name]).items() if v != fast[k]]
        assert len(re.findall("--", options)) == len(differing)
    assert max(map(len, text.splitlines())) < 80


def test_every_program_has_a_version_and_no_abbreviations(capsys):
    made = make_parser("program", "It tests.")
    with pytest.raises(SystemExit) as stopped:
        made.parse_args(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"siamese-keras {__version__}\n"
    assert made.parse_args([]).traceback is False
    assert made.parse_args(["--traceback"]).traceback is True
    assert [made.parse_args(given).quiet for given in ([], ["--quiet"])] == [False, True]
    with pytest.raises(SystemExit):
        made.parse_args(["--trace"])


def test_a_path_is_one_on_this_machine():
    assert local_path("runs/a b") == Path("runs/a b")
    assert local_path("C:/runs") == Path("C:/runs")
    made = make_parser("program", "It tests.", exit_on_error=False)
    made.add_argument("--output", type=local_path)
    for address in ("gs://bucket/run", "s3://bucket", "file:///tmp/run"):
        with pytest.raises(Exception, match=f"a path on this machine, not '{address}'"):
            made.parse_args(["--output", address])


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (130, 130)])
def test_the_exit_status_is_what_the_program_returns(returned, status):
    assert run_program(lambda: returned) == status


def fail(error):
    def program():
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("two\n  lines"), "error: two lines"),
        (FileNotFoundError(2, "No such file", "x"), "error: x: No such file"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError("not reachable"), "error: not reachable"),
    ],
)
def test_an_error_of_the_user_is_one_line_unless_the_traceback_is_asked_for(error, line, capsys):
    assert run_program(fail(error)) == 1
    assert capsys.readouterr() == ("", line + "\n")
    with pytest.raises(type(error)):
        run_program(fail(error), traceback=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ValueError("shape"), TypeError("bug"), KeyError("x")])
def test_any_other_error_keeps_its_traceback(error, capsys):
    """Also a `ValueError`, as NumPy and Keras raise for our mistakes."""
    with pytest.raises(type(error)):
        run_program(fail(error))
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_ends_with_status_130(capsys):
    assert run_program(fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "\ninterrupted\n")


@pytest.mark.filterwarnings("always")
def test_warnings_and_messages_are_lines_on_standard_error(capsys):
    def program():
        warnings.warn("the labels look inverted", UserWarning, stacklevel=1)
        logging.getLogger("siamese_keras.data").info("looking")
        logging.getLogger("siamese_keras.data").debug("too much")
        logging.getLogger("other").warning("not ours")

    assert run_program(program) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "warning: the labels look inverted\nlooking\n"


def test_quiet_shows_warnings_and_no_messages(capsys):
    def program():
        logging.getLogger("siamese_keras.data").info("looking")
        logging.getLogger("siamese_keras.data").warning("skipping")

    assert run_program(program, quiet=True) == 0
    assert capsys.readouterr() == ("", "skipping\n")


@pytest.mark.parametrize("error", [None, DataError("x"), TypeError("x"), KeyboardInterrupt()])
def test_logging_and_warnings_are_restored(error):
    logger = logging.getLogger("siamese_keras")

    def state():
        return warnings.showwarning, warnings.filters[:], logger.level, logger.handlers[:]

    before = state()
    inside = []

    def program():
        warnings.simplefilter("ignore")
        inside.append(state())
        if error is not None:
            raise error

    if isinstance(error, TypeError):
        with pytest.raises(TypeError):
            run_program(program)
    else:
        run_program(program)
    assert all(a != b for a, b in zip(inside[0], before, strict=True))
    assert state() == before


# Programs in processes of their own, with a stand-in for TensorFlow that is loaded in no time.
NOISY = "import os; os.write(2, b'noise of the C++ libraries\\n')"


@pytest.fixture
def run(tmp_path):
    """Run `code` with the module `tensorflow` given, and return the finished process."""

    def run_code(code, tensorflow=NOISY, *, prefix=(), stdout=subprocess.PIPE, **environment):
        (tmp_path / "tensorflow.py").write_text(tensorflow)
        code = f"import os, sys\nfrom siamese_keras.command_line import run_program\n{code}"
        dropped = ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "PYTHONUNBUFFERED")
        inherited = {key: value for key, value in os.environ.items() if key not in dropped}
        path = f"{tmp_path}{os.pathsep}{ROOT}"
        return subprocess.run(
            [*prefix, sys.executable, "-c", code],
            env={**inherited, "PYTHONPATH": path, **environment},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    return run_code


def test_what_tensorflow_prints_when_it_is_loaded_is_held_back(run):
    code = "def program():\n import tensorflow\n os.write(2, b'ours\\n')\nrun_program(program)"
    assert run(code).stderr == "ours\n"
    assert run(code, TF_CPP_MIN_LOG_LEVEL="0").stderr == "noise of the C++ libraries\nours\n"


def test_what_tensorflow_prints_is_shown_when_it_cannot_be_loaded(run):
    done = run("run_program(lambda: print('not reached'))", NOISY + "\nraise ImportError('no AVX')")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("noise of the C++ libraries\nTraceback")
    assert done.stderr.endswith("ImportError: no AVX\n")


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_program_runs_without_standard_error(run):
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    done = run("sys.exit(run_program(lambda: print('done')))", prefix=closed)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras_in_the_environment_does_not_count(run, backend):
    code = "run_program(lambda: print(os.environ['KERAS_BACKEND']))"
    backend_at_import = "import os; assert os.environ['KERAS_BACKEND'] == 'tensorflow'"
    done = run(code, backend_at_import, KERAS_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tensorflow\n", "")


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("length", [1, 1_000_000], ids=["at the end", "while it prints"])
def test_a_reader_that_has_seen_enough_ends_the_program_without_a_word(run, length):
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does when it has its lines
    done = run(f"sys.exit(run_program(lambda: print('x' * {length})))", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_sigterm_ends_a_program_that_removes_its_temporary_files(tmp_path):
    def program():
        with atomic_path(tmp_path / "out.csv") as temporary:
            temporary.write_text("half")
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_program(program)
    assert ended.value.code == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_names_that_are_not_utf_8_are_printed_as_they_are(capsysbinary):
    assert run_program(lambda: print(os.fsdecode(b"caf\xe9.png"))) == 0
    assert capsysbinary.readouterr().out == b"caf\xe9.png\n"
