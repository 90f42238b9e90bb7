import pytest

from wasser_tf.runtime import storage
from wasser_tf.runtime.run_files import Schema, read_document, write_document


def test_a_document_is_read_by_its_own_schema_only(tmp_path):
    path = tmp_path / "report.json"
    write_document(path, Schema.ATTACK_REPORT, {"a": [1, 2]})
    assert storage.read_json(path) == {"schema": "wasser_tf.attack_report/1", "a": [1, 2]}
    assert read_document(path, Schema.ATTACK_REPORT) == {"a": [1, 2]}
    for other in set(Schema) - {Schema.ATTACK_REPORT}:
        with pytest.raises(ValueError, match=f"document of schema {other}, got wasser_tf.attack_report/1"):
            read_document(path, other)


@pytest.mark.parametrize("value", [{}, {"a": 1}, [1], "text"])
def test_a_document_without_a_schema_is_rejected(tmp_path, value):
    storage.write_json(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match="got none: give the folder of a run of the right kind"):
        read_document(tmp_path / "a.json", Schema.EVALUATION_REPORT)


def test_every_schema_is_distinct():
    assert len({str(schema).partition("/")[0] for schema in Schema}) == len(Schema) == 6
