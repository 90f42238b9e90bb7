"""The mutation tool on a toy package: mutations, choice of tests and verdicts."""

import json
import pathlib
import subprocess
import sys

import pytest

from reliability import concerned, cuts, mutations

_ROOT = pathlib.Path(__file__).parents[2]

_SUMS = '''"""Sums."""


def tested(one: int, two: int) -> int:
    """Adds two numbers."""
    return 100 * one + two


def by_a_program(one: int, two: int) -> int:
    return one - two


def called(one: int, two: int) -> int:
    return one * two


def untested(one: int, two: int) -> int:
    return one / two


def counted(count: int) -> int:
    steps = 0
    while count > 0:
        steps = steps + 1
        count = count - 1
    return steps
'''

_TEST = """
import pathlib
import subprocess
import sys

from toy import sums


def test_tested():
    sums.called(2, 3)
    assert sums.tested(1, 2) == 102 and sums.counted(2) == 2


def test_a_program():
    program = pathlib.Path(__file__).resolve().parents[1] / "program.py"
    assert subprocess.run([sys.executable, program], capture_output=True, text=True, check=True).stdout == "3\\n"
"""


@pytest.fixture
def toy(tmp_path):
    for name, content in {
        "toy/__init__.py": "",
        "toy/sums.py": _SUMS,
        "tests/sums_test.py": _TEST,
        "tests/broken_test.py": "from toy import sums\n\n\ndef test_broken():\n    assert sums.untested(1, 1) == 2\n",
        "program.py": "from toy import sums\n\nprint(sums.by_a_program(5, 2))\n",
    }.items():
        (tmp_path / "toy_project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy_project" / name).write_text(content)
    return tmp_path / "toy_project"


def _run(toy, *flags):
    command = [sys.executable, _ROOT / "reliability" / "mutants.py", f"--root={toy}", "--package=toy", *flags]
    command += ["--kinds=operand dropped", f"--output_dir={toy.parent / 'out'}", "--patience=1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    lines = (toy.parent / "out" / "results.jsonl").read_text().splitlines()
    return done.stdout, [json.loads(line) for line in lines if line.endswith("}")]


def _verdicts(results):
    """The verdicts by the function that is mutated, or by the variable."""
    names = {6: "tested", 10: "by_a_program", 14: "called", 18: "untested", 24: "steps", 25: "count"}
    return {names[int(result["place"].split(":")[1])]: result["verdict"] for result in results}


def test_only_mutations_of_tested_lines_are_killed_and_a_killed_run_resumes(toy):
    before = {path: path.read_bytes() for path in toy.rglob("*.py")}
    text, results = _run(toy, "--sample=100")
    # Without `- 1` the loop never ends: a time-out, unless `count` alone is dropped.
    assert _verdicts(results).pop("count") in ("timed out", "killed")
    assert _verdicts(results) == {
        "tested": "killed",
        "by_a_program": "killed",
        "called": "survived",
        "untested": "survived",
        "steps": "killed",
        "count": _verdicts(results)["count"],
    }
    assert "6 mutations" in text and "2 survived: 67 % killed" in text
    assert "Fail without a mutation and were not used: tests/broken_test.py." in text
    assert "toy/sums.py:14: operand dropped\n-    return one * two\n+    return " in text
    by_name = dict(zip(_verdicts(results), results, strict=True))
    assert by_name["tested"]["test"] == "tests/sums_test.py::test_tested"
    assert by_name["by_a_program"]["test"] == "tests/sums_test.py::test_a_program"
    # No test enters it, so none is run.
    assert by_name["untested"]["files"] == [] and by_name["called"]["files"] == ["tests/sums_test.py"]
    assert {path: path.read_bytes() for path in toy.rglob("*.py")} == before

    # A killed run has left five results and a half.
    path = toy.parent / "out" / "results.jsonl"
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:5]) + kept[5][:40])
    _, resumed = _run(toy, "--sample=100")
    assert resumed[:5] == results[:5] and len(resumed) == 6
    assert resumed[5]["key"] == results[5]["key"] and resumed[5]["verdict"] == results[5]["verdict"]
    # With other sources none of them holds.
    (toy / "tests" / "sums_test.py").write_text(_TEST + "\n\ndef test_called():\n    assert sums.called(2, 3) == 6\n")
    _, again = _run(toy, "--sample=100", "--jobs=2")
    assert len(again) == 12 and _verdicts(again[6:])["called"] == "killed"


def test_the_tests_that_concern_a_module(tmp_path):
    for name, content in {
        "tests/attacks/base_test.py": "",
        "tests/attacks/other_test.py": "",
        "tests/transport/plan_test.py": "def test():\n    from package.attacks import base\n",
        "tests/models_test.py": "import package.attacks.base\n",
        "tests/data_test.py": "from package.attacks.bases import one\n",
        "tests/end_to_end/train_test.py": "from package.attacks.base import Attack\n",
        "package/attacks/base.py": "",
        "package/_data.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert concerned.concerned(tmp_path, "package/attacks/base.py") == [
        ["tests/attacks/base_test.py"],
        ["tests/models_test.py", "tests/transport/plan_test.py"],
        ["tests/attacks/other_test.py"],
        ["tests/end_to_end/train_test.py"],
    ]
    groups = concerned.concerned(tmp_path, "package/_data.py")
    assert groups == [["tests/data_test.py"], [], [], ["tests/end_to_end/train_test.py"]]


def _cuts(source):
    """All cuts of a source that do not hit what is equivalent by construction, {kind: the mutated sources}."""
    module, found = cuts.Source(source), {}
    for kind, start, _, way in cuts.cuts(module):
        if not module.is_excluded(start):
            found.setdefault(kind, []).append(way())
    return found


def test_cuts():
    assert _cuts("g(abs(x - y), (a + b))") == {
        "call left out": ["g((x - y), (a + b))"],
        "arguments swapped": ["g(a + b, (abs(x - y)))"],
        "operand dropped": ["g(abs(x - y), (a))", "g(abs(x - y), (b))", "g(abs(x), (a + b))", "g(abs(y), (a + b))"],
    }
    assert _cuts("f(a, k=(1), m=2)")["argument not handed on"] == ["f(a, m=2)", "f(a, k=(1))"]
    assert _cuts("f(k=é, m=2)")["argument not handed on"] == ["f(m=2)", "f(k=é)"]
    assert _cuts("x = [one(), two(),]")["element dropped"] == ["x = [two(),]", "x = [one(),]"]
    assert _cuts("z = x or y") == {"condition dropped": ["z = x", "z = y"]}
    body = "def f(x: int, y: int, s):\n    {}\n"
    assert _cuts(body.format("s.add(x)"))["statement dropped"] == [body.format("pass")]
    assert _cuts(body.format("s(x)"))["another variable"] == [body.format("s(y)")]
    two = "g(s.test); h(s.train)"
    assert _cuts(body.format(two))["another attribute"] == [
        body.format("g(s.train); h(s.train)"),
        body.format("g(s.test); h(s.test)"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: 'int' = None) -> g(a, b): ...",
        "@cache(size=3)\ndef f(): ...",
        "raise ValueError(g(a, b, c=3))",
        "print(a, f(b, c))",
        "x: dict[a, b]",
        "__all__ = [a, b]",
        "f = g(h, jit_compile=True)",
        "class A:\n    @abstractmethod\n    def f(self, x):\n        g(x, self)\n",
        "class A:\n    def __repr__(self):\n        return g(self, h)\n",
    ],
)
def test_equivalent_mutations_are_left_out(source):
    assert _cuts(source) == {}


def test_the_innermost_function_of_a_line_is_found():
    functions = mutations.Functions(
        '"""Doc."""\nx = 1\ndef f():\n    y = 2\n    def g():\n        return 3\n    return g\nz = 4\n'
    )
    assert functions.starts == [2, 4, 6]
    assert [functions.at(line) for line in (1, 2, 3, 4, 5, 6, 7, 8)] == [0, 0, 0, 1, 1, 2, 1, 0]


def test_operators_of_cosmic_ray_are_drawn_by_the_seed(toy):
    pytest.importorskip("cosmic_ray", reason="pip install -e '.[mutation]'")
    paths = [toy / "toy" / "sums.py"]
    draws = [mutations.sample(toy, paths, seed, 4) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    places = [(mutation.path, mutation.line) for mutation in mutations.sample(toy, paths, 0, 100)]
    assert len(set(places)) == len(places) > 5
    (drawn,) = mutations.sample(toy, paths, 0, 100, ["comparison"])
    assert drawn.diff.startswith("toy/sums.py:23: comparison\n-    while count > 0:\n+    while count ")


def test_unknown_kinds_are_refused(toy):
    with pytest.raises(ValueError, match="kinds must be some of binary operator"):
        mutations.sample(toy, [toy / "toy" / "sums.py"], 0, 1, ["loops"])
