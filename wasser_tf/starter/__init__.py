"""The command `wasser-tf`, whose subcommands are the modules of wasser_tf/commands/.

It works before TensorFlow is imported: it lists the commands at once, and sets what TensorFlow and the C library read
only at their start. `import wasser_tf` imports TensorFlow, except in this program, where `run_command` does.
"""

import ast
import difflib
import importlib
import importlib.machinery
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Sequence

from wasser_tf.version import __version__

# `wasser-tf demo` is training with these flags. Flags that the user adds come later and win.
DEMO = (
    "--dataset=digits",
    "--certified",
    "--certified_epsilon=0.05",
    "--certified_epochs=60",
    "--epochs=25",
    "--output_dir=runs/demo",
    "--overwrite",
)
_DEMO_LINE = "Trains on the embedded 8×8 digits with and without WasserTrain, and attacks both classifiers (5 minutes)."
_SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "wasser-tf"
_PACKAGE = pathlib.Path(__file__).parents[1]


def is_starting() -> bool:
    """Returns whether this process is `wasser-tf` or `python -m wasser_tf`, and has not started a command yet.

    The files of bin/ in a clone name the program `wasser-tf` while they import the package.
    """
    if not sys.argv:
        return False
    if sys.argv[0] == "-m":
        # Python imports the package of the module that it will run. This may be another package that imports this one.
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "wasser_tf"
    return os.path.basename(sys.argv[0]) == _PROGRAM


def main() -> None:
    """Runs `wasser-tf COMMAND --flag=value …`, the entry point of the installed program."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    described = commands()
    if name in ("--help", "-h", "help"):
        print(_help(described))
    elif name == "--version":
        print(f"wasser_tf {__version__}")
    elif name == "completion":
        print(completion(arguments, described))
    elif name == "demo":
        run_command("train", ["wasser-tf demo", *DEMO, *arguments])
    elif name in described:
        run_command(name, [f"wasser-tf {name}", *arguments])
    else:
        sys.exit(_unknown(name, described))


def commands() -> dict[str, str]:
    """Returns the name and the first sentence of every command, without importing any of them."""
    described = {
        path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
        for path in sorted((_PACKAGE / "commands").glob("[a-z]*.py"))
    }
    return {"demo": _DEMO_LINE, **described}


def run_command(name: str, argv: Sequence[str]) -> None:
    """Runs a command in this process, as its main module.

    absl prints the docstring and the flags of the main module for `--help`.

    Args:
      name: A module of wasser_tf/commands/.
      argv: The program, as its messages name it, and the arguments.
    """
    from wasser_tf.starter import quiet  # noqa: F401

    sys.argv = list(argv)
    # The package's names, which it leaves out while the program starts.
    importlib.reload(sys.modules["wasser_tf"])
    path = str(_PACKAGE / "commands" / f"{name}.py")
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    loader.exec_module(module)


def completion(arguments: Sequence[str], names: Iterable[str]) -> str:
    """Returns a script that completes the names of the commands; after them, the shell completes files.

    Args:
      arguments: The shell: bash, zsh or fish.
      names: The commands.
    """
    words = " ".join(names)
    shell = arguments[0] if len(arguments) == 1 else ""
    if shell == "fish":
        return f"complete -c wasser-tf -n __fish_use_subcommand -f -a '{words}'"
    if shell == "zsh":
        body = f"_arguments '1:command:({words})' '*:file:_files'"
        return f"#compdef wasser-tf\n_wasser_tf() {{ {body} }}\ncompdef _wasser_tf wasser-tf"
    if shell == "bash":
        body = f'[ "$COMP_CWORD" -eq 1 ] && COMPREPLY=($(compgen -W "{words}" -- "${{COMP_WORDS[1]}}"))'
        return f"_wasser_tf() {{ {body}; }}\ncomplete -o default -F _wasser_tf wasser-tf"
    sys.exit(
        f"wasser-tf: completion needs the name of a shell, one of {', '.join(_SHELLS)}, got {' '.join(arguments)!r}. "
        'For bash, add this line to ~/.bashrc: eval "$(wasser-tf completion bash)"'
    )


def _help(described: dict[str, str]) -> str:
    width = max(map(len, described))
    lines = [f"  {name:{width}}  {line}" for name, line in described.items()]
    return "\n".join(
        [
            "Wasserstein adversarial attacks and training for Keras image classifiers.",
            "",
            "  wasser-tf COMMAND --flag=value …",
            "",
            *lines,
            "",
            "wasser-tf COMMAND --help lists the flags of a command. wasser-tf --version prints the version.",
            "wasser-tf completion bash|zsh|fish prints a script that completes the commands in a shell.",
        ]
    )


def _unknown(name: str, described: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, described, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if len(near) > 1 else f"the nearest is {near[0]}" if near else ""
    hint = hint or f"the commands are {', '.join(described)}"
    return f"wasser-tf: there is no command {name!r}; {hint}. wasser-tf --help describes all commands."
