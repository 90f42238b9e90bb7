"""Another backend of Keras is refused when the package is imported; the binaries choose TensorFlow themselves."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from wasser_tf.runtime.keras_backend import check_keras_backend

ROOT = pathlib.Path(__file__).parents[2]


def _python(code, path=ROOT, **environment):
    inherited = {key: value for key, value in os.environ.items() if key not in ("KERAS_BACKEND", "KERAS_HOME")}
    variables = {**inherited, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("where", "imported"), [("environment", "wasser_tf"), ("file", "wasser_tf.transport.plan")])
def test_another_backend_is_refused_in_one_sentence(tmp_path, where, imported):
    if where == "file":
        (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
        done = _python(f"import {imported}", KERAS_HOME=str(tmp_path))
        source = str(tmp_path / "keras.json")
    else:
        done = _python(f"import {imported}", KERAS_BACKEND="jax")
        source = "KERAS_BACKEND"
    # The last line is the error, and nothing was raised from another one.
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"ImportError: wasser_tf needs the TensorFlow backend of Keras, got 'jax' from {source}: set the environment "
        "variable KERAS_BACKEND=tensorflow before Python starts, or os.environ['KERAS_BACKEND'] = 'tensorflow' before "
        "the first import of keras or wasser_tf."
    )


def test_an_imported_keras_determines_the_backend(monkeypatch):
    import keras

    # Set too late to mean anything.
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    check_keras_backend()
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(ImportError, match=r"got 'torch' from KERAS_BACKEND: .*, in a new process, as Keras is"):
        check_keras_backend()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"backend": "tensorflow"}', '{"backend": null}'])
def test_a_keras_config_without_another_backend_is_accepted(tmp_path, monkeypatch, text):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    check_keras_backend()
    (tmp_path / "keras.json").write_text(text)
    check_keras_backend()
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    with pytest.raises(ImportError, match=r"got 'torch' from .*keras\.json"):
        check_keras_backend()
    # The environment comes first, and an empty variable says nothing.
    monkeypatch.setenv("KERAS_BACKEND", "")
    with pytest.raises(ImportError, match=r"got 'torch' from .*keras\.json"):
        check_keras_backend()
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    check_keras_backend()


def test_binaries_always_use_the_tensorflow_backend(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    code = (
        "import sys; sys.argv[0] = 'wasser-tf'; from wasser_tf.starter import quiet; "
        "import keras; print(keras.config.backend())"
    )
    done = _python(code, KERAS_BACKEND="jax", KERAS_HOME=str(tmp_path))
    assert (done.stdout.strip(), done.stderr) == ("tensorflow", "")
    # Every file of bin/ begins with the module that makes this choice.
    files = list((ROOT / "bin").glob("[a-z]*.py"))
    assert len(files) == 10
    for file in files:
        imports = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert imports == ["import _start"], file
