"""`wasser-tf` lists, starts and completes the commands, and each file of bin/ starts the command of its name."""

import os
import pathlib
import subprocess
import sys

import pytest

import wasser_tf
from wasser_tf import starter
from wasser_tf.commands import _run
from wasser_tf.starter import commands, completion, main

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch):
    """Returns the commands that main starts, each as (module, argv)."""
    calls = []
    monkeypatch.setattr(starter, "run_command", lambda name, argv: calls.append((name, argv)))
    return calls


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/wasser-tf", *arguments])
    main()


def test_every_binary_is_a_command_with_a_sentence():
    described = commands()
    assert set(described) == {path.stem for path in (ROOT / "bin").glob("[a-z]*.py")} | {"demo"}
    assert all(line[0].isupper() and line.endswith(".") and len(line) < 110 for line in described.values())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(monkeypatch, capsys, started, arguments):
    call(monkeypatch, *arguments)
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown and line in shown for name, line in commands().items()) and not started


def test_version(monkeypatch, capsys):
    call(monkeypatch, "--version")
    assert capsys.readouterr().out == f"wasser_tf {wasser_tf.__version__}\n"


def test_a_command_is_started_with_its_arguments(monkeypatch, started):
    call(monkeypatch, "train", "--epochs=2", "--resume")
    assert started == [("train", ["wasser-tf train", "--epochs=2", "--resume"])]


def test_the_demo_is_training_and_later_flags_win(monkeypatch, started):
    call(monkeypatch, "demo", "--output_dir=here")
    ((name, argv),) = started
    assert name == "train" and argv[0] == "wasser-tf demo" and "--dataset=digits" in argv
    assert [word for word in argv if word.startswith("--output_dir")] == ["--output_dir=runs/demo", "--output_dir=here"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trian", "there is no command 'trian'; the nearest is train. wasser-tf --help"),
        ("evalute", "there is no command 'evalute'; the nearest is evaluate. "),
        ("averag", "there is no command 'averag'; the nearest is average. "),
        ("xyzzy", "there is no command 'xyzzy'; the commands are demo, attack, "),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest_names(monkeypatch, started, given, message):
    with pytest.raises(SystemExit) as leaving:
        call(monkeypatch, given)
    assert message in leaving.value.code and "\n" not in leaving.value.code and not started


def test_bash_completes_commands():
    script = (
        completion(["bash"], ["attack", "average", "train"]) + "\nCOMP_WORDS=(wasser-tf a) COMP_CWORD=1\n_wasser_tf\n"
    )
    done = subprocess.run(["bash", "-c", script + 'echo "${COMPREPLY[@]}"'], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["attack", "average"] and not done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_names(shell):
    assert "attack train" in completion([shell], ["attack", "train"])


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_refused(arguments):
    with pytest.raises(SystemExit, match="needs the name of a shell, one of bash, zsh, fish, got"):
        completion(arguments, ["train"])


def run(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, **options)


def test_the_list_of_commands_needs_no_tensorflow():
    # -S: without installed packages.
    done = run("-S", "-m", "wasser_tf", cwd=ROOT)
    assert done.returncode == 0 and "\n  leaderboard  " in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["/somewhere/bin/wasser-tf", "train"], ["python", "/somewhere/bin/wasser-tf", "train"], True),
        (["-m", "train"], ["python", "-X", "dev", "-m", "wasser_tf", "train"], True),
        (["-m"], ["python", "-mwasser_tf"], True),
        # Another package that imports this one.
        (["-m", "wasser_tf"], ["python", "-m", "mine", "wasser_tf"], False),
        (["wasser-tf train"], ["python", "-m", "wasser_tf", "train"], False),
        (["mine.py", "wasser-tf"], ["python", "mine.py", "wasser-tf"], False),
        ([], ["python"], False),
    ],
)
def test_only_the_program_waits_with_tensorflow(monkeypatch, argv, original, expected):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert starter.is_starting() is expected


def test_importing_the_package_registers_the_classes_of_saved_models():
    path = ROOT / "wasser_tf" / "pretrained" / "digits_certified.keras"
    load = f"import wasser_tf, keras; print(keras.models.load_model({str(path)!r}).output_shape)"
    done = run("-c", load, cwd=ROOT)
    assert done.stdout == "(None, 10)\n", done.stderr


def test_a_command_has_all_names_of_the_package(tmp_path):
    # A module of the user's own, which --import loads.
    (tmp_path / "mine.py").write_text("import wasser_tf\nprint(sorted(set(wasser_tf.__all__) - set(dir(wasser_tf))))\n")
    given = ["--import=mine", "--models=none.keras,two.keras", "--output=a.keras"]
    done = run("-m", "wasser_tf", "average", *given, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "[]\n" and done.stderr.startswith("wasser-tf average: "), done.stderr


@pytest.mark.parametrize("command", [["-m", "wasser_tf", "average"], [str(ROOT / "bin" / "average.py")]])
def test_help_of_a_command_has_its_description_and_flags(command):
    done = run(*command, "--help", cwd=ROOT)
    # absl exits with 1 after help.
    assert "Averages classifiers: the weights" in done.stdout and "--models:" in done.stdout, done.stderr
    assert "--import:" in done.stdout and "--output:" in done.stdout


@pytest.mark.parametrize(
    ("command", "program"),
    [(["-m", "wasser_tf", "average"], "wasser-tf average"), ([str(ROOT / "bin" / "average.py")], "average.py")],
)
def test_errors_name_the_program(command, program, tmp_path):
    given = [f"--models={tmp_path}/none.keras,{tmp_path}/two.keras", f"--output={tmp_path}/a.keras"]
    done = run(*command, *given, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"{program}: ")
    assert "Traceback" not in done.stderr


def test_every_command_has_a_flag_for_silence():
    done = run(str(ROOT / "bin" / "average.py"), "--help", cwd=ROOT)
    assert "--[no]quiet: Whether to print results and warnings only" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--base_dir is needed; --model is needed; --name is needed; --help lists the flags."),
        (["--nope=1"], "Unknown command line flag 'nope'; --help lists the flags."),
        (["--model=m", "--name=n", "--base_dir=b", "--version=x"], "flag --version=x: "),
        (["--model=m", "--name=n", "--base_dir=b", "more"], "flags begin with --, got more; --help lists them."),
    ],
)
def test_bad_flags_are_reported_in_one_line(load, monkeypatch, arguments, message):
    load("export")
    monkeypatch.setattr(sys, "argv", ["bin/export.py", *arguments])
    # What absl does around a main, without what it sets for the whole process.
    monkeypatch.setattr(_run.app, "run", lambda main, flags_parser: main(flags_parser(sys.argv)))
    with pytest.raises(SystemExit) as leaving:
        _run.run(lambda: None)
    assert leaving.value.code.startswith("export.py: ") and message in leaving.value.code
    assert "\n" not in leaving.value.code


def test_a_folder_without_a_name_is_refused(load, monkeypatch):
    load("attack")
    monkeypatch.setattr(sys, "argv", ["bin/attack.py", "--model=m", "--output_dir="])
    monkeypatch.setattr(_run.app, "run", lambda main, flags_parser: main(flags_parser(sys.argv)))
    with pytest.raises(SystemExit, match="attack.py: flag --output_dir=: the folder has no name; give . for"):
        _run.run(lambda: None)
