import pytest

from wasser_tf import ThreatModel, attacks, models
from wasser_tf.data.selection import ImageSource
from wasser_tf.publishing.leaderboard import Board
from wasser_tf.reporting import report
from wasser_tf.runtime import storage
from wasser_tf.training.config import TrainConfig


@pytest.fixture(scope="session")
def random_plan():
    # One object, so that its compiled function is shared.
    return attacks.make("random_plan", ThreatModel(epsilon=0.0))


@pytest.fixture
def board(random_plan, tmp_path, monkeypatch):
    # Figures take longer than all the rest.
    monkeypatch.setattr(report, "_draw", lambda *_: {})
    return Board(
        source=ImageSource(num_examples=16),
        attacks={"random_plan": random_plan},
        output_dir=str(tmp_path / "evaluations"),
        results_dir=str(tmp_path / "page"),
        radii=(0.1, 1.0),
        batch_size=16,
    )


@pytest.fixture
def run(tmp_path):
    """The folder of a training run, without the training."""
    ball = ThreatModel(epsilon=0.3, p=2.0)
    config = TrainConfig(
        output_dir="x", attack=attacks.make("mirror_ascent", ball, iterations=7), model="linear", seed=5, omega=0.5
    )
    folder = tmp_path / "run"
    metadata = {
        "config": config.identity(),
        "threat_model_in_words": str(ball),
        "versions": {"keras": "3"},
        "commit": "c" * 40,
    }
    storage.write_json(folder / "config.json", metadata)
    models.build("linear", (8, 8, 1), 10, seed=0).save(folder / "best.keras")
    return folder
