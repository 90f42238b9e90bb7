"""Configuration files of a server: models.config, batching parameters, a compose file and a Kubernetes manifest.

models.config lists every model; each export updates it. The other files are templates: they are written once and never
overwritten, so users can edit them. They mount the base_dir at /models in the official image.
"""

import pathlib
import re
import string

from google.protobuf import text_format  # type: ignore[import-untyped]

from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import first_line
from wasser_tf.serving.protos import model_server_config_pb2

CONFIG = "models.config"
IMAGE = "tensorflow/serving:2.19.1"

_BATCHING = """\
# Merges concurrent requests into batches: more images per second, slightly higher latency. Enabled by
# --enable_batching and --batching_parameters_file=/models/batching_parameters.txt. An invalid image then fails the
# whole batch, so enable batching only if all clients check their images (the client of wasser_tf does).
max_batch_size { value: 64 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 256 }
num_batch_threads { value: 4 }
"""

_COMPOSE = """\
# Run `docker compose up` in this folder. REST listens on port 8501, gRPC on 8500.
services:
  tensorflow-serving:
    image: $image
    command:
      - --model_config_file=/models/models.config
      # Loads new models and versions without a restart.
      - --model_config_file_poll_wait_seconds=30
      - --file_system_poll_wait_seconds=5
      # Read batching_parameters.txt before you enable this.
      # - --enable_batching
      # - --batching_parameters_file=/models/batching_parameters.txt
    ports:
      - "8500:8500"
      - "8501:8501"
    volumes:
      - .:/models:ro
    healthcheck:
      # The image contains bash but not curl. A model that is not loaded has no metadata.
      test:
        - CMD
        - bash
        - -c
        - >-
          exec 3<>/dev/tcp/127.0.0.1/8501 &&
          printf 'GET /v1/models/$name/metadata HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 &&
          head -n 1 <&3 | grep -q ' 200 '
      interval: 10s
      timeout: 5s
      retries: 6
      start_period: 30s
    restart: unless-stopped
"""

_KUBERNETES = """\
# Copy the content of this folder to the claim wasser-tf-models, then run `kubectl apply -f kubernetes.yaml`.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: wasser-tf-models
spec:
  accessModes: [ReadWriteMany]
  resources:
    requests:
      storage: 1Gi
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tensorflow-serving
  labels: {app: tensorflow-serving}
spec:
  replicas: 2
  selector:
    matchLabels: {app: tensorflow-serving}
  template:
    metadata:
      labels: {app: tensorflow-serving}
    spec:
      containers:
        - name: tensorflow-serving
          image: $image
          args:
            - --model_config_file=/models/models.config
            - --model_config_file_poll_wait_seconds=30
            - --file_system_poll_wait_seconds=5
          ports:
            - {name: grpc, containerPort: 8500}
            - {name: rest, containerPort: 8501}
          # A model that is not loaded has no metadata. The warm-up requests run before the model counts as loaded.
          startupProbe:
            httpGet: {path: /v1/models/$name/metadata, port: rest}
            periodSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /v1/models/$name/metadata, port: rest}
            periodSeconds: 10
          livenessProbe:
            httpGet: {path: /v1/models/$name, port: rest}
            periodSeconds: 20
            failureThreshold: 3
          resources:
            requests: {cpu: "1", memory: 1Gi}
            limits: {memory: 2Gi}
          volumeMounts:
            - {name: models, mountPath: /models, readOnly: true}
      volumes:
        - name: models
          persistentVolumeClaim: {claimName: wasser-tf-models, readOnly: true}
---
apiVersion: v1
kind: Service
metadata:
  name: tensorflow-serving
spec:
  selector: {app: tensorflow-serving}
  ports:
    - {name: grpc, port: 8500, targetPort: grpc}
    - {name: rest, port: 8501, targetPort: rest}
"""

_TEMPLATES = {
    "batching_parameters.txt": _BATCHING,
    "docker-compose.yaml": _COMPOSE,
    "kubernetes.yaml": _KUBERNETES,
}


def is_version(name: str) -> bool:
    """Returns whether a server loads a folder of this name as a version: a whole number without leading zeros."""
    return re.fullmatch(r"0|[1-9][0-9]*", name) is not None


def check_deployment(base_dir: pathlib.Path) -> None:
    """Checks that models can be written to a base_dir, which need not exist.

    Raises:
      ValueError: The base_dir is a file, or its models.config is not a valid configuration.
    """
    if base_dir.exists() and not base_dir.is_dir():
        raise ValueError(f"base_dir must be a folder, got the file {base_dir}.")
    _read(base_dir)


def write_deployment(base_dir: pathlib.Path, name: str) -> tuple[pathlib.Path, ...]:
    """Adds a model to models.config and writes the templates that do not exist yet.

    Args:
      base_dir: The folder of all models.
      name: Name of the model on the server.

    Returns:
      The paths of models.config and of all templates.

    Raises:
      ValueError: models.config is not a valid configuration.
    """
    with storage.locked(base_dir):
        # below=False, because other exports may be writing to the folders of other models.
        storage.remove_leftovers(base_dir, below=False)
        config = _read(base_dir)
        models = config.model_config_list.config
        if name not in {model.name for model in models}:
            models.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
        storage.write_text(base_dir / CONFIG, text_format.MessageToString(config))
        for file, template in _TEMPLATES.items():
            if not (base_dir / file).exists():
                text = string.Template(template).substitute(image=IMAGE, name=name)
                storage.write_text(base_dir / file, text)
    return tuple(base_dir / file for file in (CONFIG, *_TEMPLATES))


def _read(base_dir: pathlib.Path) -> model_server_config_pb2.ModelServerConfig:
    """Returns the configuration in models.config, or an empty one if the file does not exist."""
    config = model_server_config_pb2.ModelServerConfig()
    if (base_dir / CONFIG).is_file():
        try:
            text_format.Parse((base_dir / CONFIG).read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{base_dir / CONFIG} is not a valid ModelServerConfig ({first_line(error)}): correct it, or move it "
                "away."
            ) from error
    return config
