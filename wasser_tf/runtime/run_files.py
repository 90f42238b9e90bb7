"""The files that runs write: their names, and the schema that each JSON document declares.

bin/train.py, bin/attack.py, bin/evaluate.py and bin/certify.py all write a report.json, each with different keys. Every
such document names its schema, and `read_document` rejects a document of another schema, so that they cannot be
confused.
"""

import enum
import os
from collections.abc import Mapping
from typing import Any

from wasser_tf.runtime import storage

CONFIG = "config.json"
REPORT = "report.json"
REPORT_TEXT = "report.md"
RESULTS = "results.csv"
EXAMPLES = "adversarial.npz"

_KEY = "schema"


class Schema(enum.StrEnum):
    """The JSON documents, by the value of their "schema" key; the number after the slash is the version."""

    # bin/train.py's config.json: the TrainConfig, the threat model and the versions.
    TRAINING_CONFIG = "wasser_tf.training_config/1"
    # bin/train.py's report.json: a record for each classifier and radius, and the run's metadata.
    COMPARISON_REPORT = "wasser_tf.comparison_report/1"
    # bin/attack.py's report.json: one record and its images' source.
    ATTACK_REPORT = "wasser_tf.attack_report/1"
    # bin/evaluate.py's report.json: records, minimal radii and sanity checks of each model.
    EVALUATION_REPORT = "wasser_tf.evaluation_report/1"
    # bin/evaluate.py's config.json: the fields of an EvaluationRun.
    EVALUATION_CONFIG = "wasser_tf.evaluation_config/1"
    # bin/certify.py's report.json: certified radii of each model.
    CERTIFICATION_REPORT = "wasser_tf.certification_report/1"


def write_document(path: str | os.PathLike[str], schema: Schema, values: Mapping[str, Any]) -> None:
    """Writes a JSON document that declares its schema, atomically.

    Args:
      path: The file to write.
      schema: The schema of the values.
      values: Plain Python values.

    Raises:
      OSError: The file cannot be written.
    """
    storage.write_json(path, {_KEY: str(schema), **values})


def read_document(path: str | os.PathLike[str], schema: Schema) -> dict[str, Any]:
    """Reads a JSON document of one schema.

    Args:
      path: A file written by `write_document`.
      schema: The schema it must declare.

    Returns:
      The values, without the schema.

    Raises:
      ValueError: The file is missing, is not JSON, or declares another schema or none.
    """
    values = storage.read_json(path)
    found = values.pop(_KEY, None) if isinstance(values, dict) else None
    if found != schema:
        raise ValueError(
            f"{path} must be a document of schema {schema}, got {'none' if found is None else found}: "
            "give the folder of a run of the right kind, or run it again."
        )
    return values
