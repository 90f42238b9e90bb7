r"""Installs a wheel in a fresh environment and runs the commands there, as a user who has no clone.

  python reliability/fresh_install.py dist/wasser_tf-0.1.0-py3-none-any.whl

The environment and the working directory are temporary folders. Nothing of the clone can be imported: PYTHONPATH is
removed, and the commands run outside the clone. pip downloads the dependencies or takes them from its cache.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

# A demo of a minute instead of five.
SMALL = ("--standard_epochs=1", "--epochs=1", "--certified_epochs=1", "--report_iterations=5")
_NO_CLONE = "import pathlib, wasser_tf; print(wasser_tf.__version__, pathlib.Path(wasser_tf.__file__).parent)"


def main() -> None:
    """Checks the wheel on the command line and prints the time of each step."""
    parser = argparse.ArgumentParser(description="Installs a wheel in a fresh environment and runs its commands.")
    parser.add_argument("wheel", type=pathlib.Path, help="The wheel.")
    wheel = parser.parse_args().wheel.resolve()
    if not wheel.is_file():
        sys.exit(f"fresh_install.py: there is no wheel {wheel}: build it with `make dist`.")
    with tempfile.TemporaryDirectory() as folder:
        check(wheel, pathlib.Path(folder))


def check(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Installs a wheel and runs `wasser-tf`.

    Args:
      wheel: The wheel, named wasser_tf-VERSION-….whl.
      folder: An empty folder for the environment and the results.

    Raises:
      RuntimeError: A step failed; its output is in the message.
    """
    environment, work = folder / "environment", folder / "work"
    work.mkdir()
    _timed("create an environment", lambda: venv.create(environment, with_pip=True))
    program = environment / "bin"
    _timed("pip install", lambda: run([program / "python", "-m", "pip", "install", "--quiet", wheel], work))
    version = wheel.name.split("-")[1]
    listed = _timed("wasser-tf --help", lambda: run([program / "wasser-tf", "--help"], work))
    _need("  train  " in listed and "  demo  " in listed, f"wasser-tf --help lists no train and demo: {listed}")
    shown = run([program / "wasser-tf", "--version"], work)
    _need(shown == f"wasser_tf {version}\n", f"wasser-tf --version printed {shown!r}, the wheel is of {version}")
    imported = run([program / "python", "-c", _NO_CLONE], work).split()
    _need(imported[0] == version, f"wasser_tf.__version__ is {imported[0]}, the wheel is of {version}")
    _need(imported[1].startswith(str(environment.resolve())), f"wasser_tf was imported from {imported[1]}")
    shown = _timed("wasser-tf demo", lambda: run([program / "wasser-tf", "demo", *SMALL, "--output_dir=demo"], work))
    _need("| natural " in shown, f"wasser-tf demo printed no table: {shown}")
    pictures = sorted((work / "demo").glob("*.png"))
    _need(any(picture.stat().st_size > 10_000 for picture in pictures), f"wasser-tf demo drew no picture: {pictures}")
    run([program / "python", "-m", "pip", "check"], work)
    load = "import wasser_tf; print(wasser_tf.load_pretrained('mnist_wassertrain').name)"
    _timed("load a packaged classifier", lambda: run([program / "python", "-c", load], work))
    print(f"{wheel.name}: installed, and its commands run")


def run(command, folder: pathlib.Path) -> str:
    """Runs a command without the clone on its path and returns its standard output.

    Raises:
      RuntimeError: It failed.
    """
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([*map(str, command)], cwd=folder, env=variables, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _timed(step: str, work):
    started = time.monotonic()
    result = work()
    print(f"{step}: {time.monotonic() - started:.1f} s", flush=True)
    return result


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


if __name__ == "__main__":
    main()
