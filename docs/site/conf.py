"""Configuration of Sphinx for the site; docs/site/build.py prepares the sources and runs it."""

import re
from typing import Any

from wasser_tf.version import __version__ as release  # noqa: E402, F401

project = "wasser_tf"
author = "The wasser_tf authors"
project_copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = "wasser_tf"
html_static_path = ["_static"]
html_css_files = ["leaderboard.css"]
html_show_sourcelink = False
exclude_patterns = ["**/notes.md", "**/frontier.md", "reliability/*", "_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
# Pages that are read on their own may begin below the first level. The language of notebooks that were not executed is
# unknown. A name such as threat_model in the type of a field is that of several classes.
suppress_warnings = ["myst.header", "misc.highlighting_failure", "mystnb.lexer", "myst-nb.lexer", "ref.python"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_excludepatterns: list[str] = []
# TensorFlow reports on its start.
nb_remove_stderr = True
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Libraries of the bridges, which the environment of the documentation does not have.
autodoc_mock_imports = ["art", "eagerpy", "foolbox", "huggingface_hub", "torch"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

_CODE = re.compile(r"(`[^`]*`)")
_DOCTEST = re.compile(r"^\s*(>>>|\.\.\.)( |$)")


def to_restructured_text(lines: list[str]) -> list[str]:
    """Returns a docstring, which is written in Markdown, as reStructuredText.

    Code between single backticks becomes a literal, a fenced block a literal block, and characters with a meaning in
    reStructuredText are escaped. Examples (`>>>`) up to the next empty line stay unchanged.

    Args:
      lines: The docstring.
    """
    found: list[str] = []
    fence: str | None = None
    example = False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            found += ["", f"{indent}::", ""] if fence is None else [""]
            fence = indent if fence is None else None
        elif fence is not None:
            found.append(f"    {line}" if stripped else "")
        else:
            # An example ends at an empty line; its first line begins with >>>.
            example = bool(stripped) and (example or bool(_DOCTEST.match(line)))
            if example and line.strip().startswith(">>>") and found and found[-1].strip() == "Example:":
                found.append("")
            found.append(line if example else _escaped(line))
    return found


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f"``{part.strip('`').strip()}``"
        else:
            # A backslash first, then the marks of emphasis, substitutions and references.
            part = part.replace("\\", "\\\\")
            part = re.sub(r"([*|])", r"\\\1", part)
            parts[place] = re.sub(r"_(?=\W|$)", r"\\_", part)
    return "".join(_separated(parts))


def _separated(parts: list[str]) -> list[str]:
    """Separates literals, which have the odd places, from words before and after them."""
    for place in range(1, len(parts), 2):
        before = "\\ " if re.search(r"\w$", parts[place - 1]) else ""
        after = "\\ " if re.match(r"\w", parts[place + 1]) else ""
        parts[place] = f"{before}{parts[place]}{after}"
    return parts


def setup(app: Any) -> None:
    """Connects the conversion of docstrings; napoleon comes after it."""

    def convert(app: Any, what: str, name: str, subject: Any, options: Any, lines: list[str]) -> None:
        lines[:] = to_restructured_text(lines)

    app.connect("autodoc-process-docstring", convert, priority=400)
