"""The files a server is configured by."""

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from wasser_tf.serving import deployment


def test_models_config_lists_every_model_and_keeps_existing_settings(tmp_path):
    text = 'model_config_list { config { name: "old" base_path: "/elsewhere" model_version_policy { all {} } } }'
    (tmp_path / "models.config").write_text(text)
    deployment.write_deployment(tmp_path, "new")
    deployment.write_deployment(tmp_path, "new")
    config = text_format.Parse(
        (tmp_path / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    assert [(model.name, model.base_path) for model in config] == [("old", "/elsewhere"), ("new", "/models/new")]
    assert config[0].model_version_policy.HasField("all") and config[1].model_platform == "tensorflow"


def test_templates_name_the_model_and_keep_users_changes(tmp_path):
    files = deployment.write_deployment(tmp_path, "digits")
    assert [path.name for path in files] == [
        "models.config",
        "batching_parameters.txt",
        "docker-compose.yaml",
        "kubernetes.yaml",
    ]
    for name in ("docker-compose.yaml", "kubernetes.yaml"):
        text = (tmp_path / name).read_text()
        assert "/v1/models/digits/metadata" in text and deployment.IMAGE in text and "$" not in text
    (tmp_path / "kubernetes.yaml").write_text("mine")
    deployment.write_deployment(tmp_path, "digits")
    assert (tmp_path / "kubernetes.yaml").read_text() == "mine"


def test_versions_are_whole_numbers():
    assert [name for name in ("1", "0", "123", "01", "v1", "1.5", "-1", "") if deployment.is_version(name)] == [
        "1",
        "0",
        "123",
    ]
