import dataclasses

import pytest

from wasser_tf import pretrained
from wasser_tf.paper.classifiers import ClassifierTrainer
from wasser_tf.paper.presets import FULL, QUICK
from wasser_tf.runs import train
from wasser_tf.runtime import storage


@pytest.fixture
def trained(monkeypatch):
    """Replaces training by a stub; returns the record of the configs."""
    configs = []

    def run(config, title):
        assert title == config.output_dir.rpartition("/")[2]
        configs.append(config)
        storage.write_json(f"{config.output_dir}/config.json", {"config": config.identity()})
        storage.write_json(f"{config.output_dir}/report.json", {})

    monkeypatch.setattr(train, "run_training", run)
    return configs


@pytest.fixture
def trainer(tmp_path):
    fields = {"dataset": "digits", "data_dir": None, "download": False, "preset": QUICK["digits"], "seed": 4}
    return ClassifierTrainer(folder=tmp_path, recipe="ours", given={"pgd": "published.npz"}, **fields)


def test_given_classifiers_are_not_trained_and_others_are_trained_once(trainer, trained, tmp_path):
    logged = []
    assert trainer.path("pgd", logged.append) == "published.npz" and not trained
    assert trainer.path("standard", logged.append) == str(tmp_path / "wasser_train" / "standard.keras")
    assert trainer.path("wasser_train", logged.append) == str(tmp_path / "wasser_train" / "best.keras")
    (config,) = trained
    assert config.attack.name == "mirror_ascent" and config.omega == 0.7 and config.seed == 4 and config.resume
    assert (config.standard_epochs, config.epochs) == (15, 15) and config.threat_model.epsilon == 0.1
    assert logged == ["Training wasser_train: 15 standard epochs, then 15 with mirror_ascent, ω = 0.7"]


def test_a_training_with_another_preset_is_not_reused(trainer, trained):
    trainer.path("wasser_train", print)
    longer = dataclasses.replace(trainer, preset=dataclasses.replace(trainer.preset, epochs=99))
    with pytest.raises(ValueError, match="epochs is 15 there and 99 here"):
        longer.path("wasser_train", print)


def test_each_role_trains_as_in_its_paper(trainer, trained):
    alone = dataclasses.replace(trainer, given={"wasser_train": "x.keras"}, preset=FULL["mnist"], recipe="paper")
    assert alone.path("standard", print).endswith("standard/standard.keras")
    alone.path("pgd", print)
    alone.omega_run(0.3, print)
    dataclasses.replace(alone, given={}).path("wasser_train", print)
    standard, pgd, fig3, wasser = trained
    assert standard.omega == 0 and (standard.standard_epochs, standard.epochs) == (5, 1)
    assert pgd.omega == 1 and pgd.attack.name == "projected_sinkhorn" and pgd.attack.schedule is not None
    assert fig3.omega == 0.3 and (fig3.standard_epochs, fig3.epochs) == (0, 50)
    for config in (fig3, wasser):
        assert config.attack.name == "wasser_attack" and config.attack.iterations == 50
        assert config.attack.schedule is not None
    colour = dataclasses.replace(alone, dataset="cifar10", preset=FULL["cifar10"], folder=alone.folder / "colour")
    colour.path("pgd", print)
    assert trained[-1].attack.regularization == 3000 and not trained[-1].random_radius


def test_trainings_take_their_settings_from_the_preset(trainer, trained):
    colour = dataclasses.replace(trainer, dataset="cifar10", preset=FULL["cifar10"], given={})
    colour.path("wasser_train", print)
    (config,) = trained
    assert (config.model, config.augment, config.optimizer, config.momentum) == (
        "resnet_small",
        "crop_flip",
        "sgd",
        0.9,
    )
    assert (config.learning_rate, config.warmup, config.weight_decay) == (0.1, 0.2, 5e-3)
    assert config.ema_momentum == 0.99 and config.random_radius and config.threat_model.epsilon == 0.06
    attack = config.attack
    assert (attack.iterations, attack.step_size, attack.polish, attack.loss) == (10, 8.0, 3, "cross_entropy")

    dataclasses.replace(trainer, dataset="mnist", preset=FULL["mnist"], folder=trainer.folder / "mnist").path(
        "wasser_train", print
    )
    config = trained[-1]
    assert config.warm_start == 0.75 and config.threat_model.epsilon == 1.0 and config.radii == (0.5,)
    assert (config.attack.iterations, config.attack.step_size) == (3, 7.0)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_full_preset_is_the_recipe_of_the_packaged_classifier(trainer, trained, dataset):
    full = dataclasses.replace(trainer, dataset=dataset, preset=FULL[dataset], given={}, seed=0)
    assert full.path("standard", print).endswith("standard/standard.keras")
    full.path("wasser_train", print)
    standard, ours = trained
    assert (standard.width, standard.blur, standard.omega) == (1, 0, 0)
    published = pretrained.card(f"{dataset}_wassertrain")["training"]["config"]
    differing = {name for name, value in ours.identity().items() if name in published and value != published[name]}
    # How the run reports, and what the attack does by default.
    assert differing <= {"attack", "radii", "report_iterations", "num_attack_examples"}
    for name in ("iterations", "step_size", "loss", "polish", "threat_model"):
        wanted = published["attack"]["config"][name]
        got = ours.identity()["attack"]["config"][name]
        assert got == wanted or (name == "polish" and got is None and wanted == ours.attack.iterations), name


def test_the_standard_cifar10_classifier_is_trained_as_the_packaged_one(trainer, trained):
    dataclasses.replace(trainer, dataset="cifar10", preset=FULL["cifar10"], given={}, seed=0).path("standard", print)
    (config,) = trained
    published = pretrained.card("cifar10_standard")["training"]["config"]
    # It has epochs of WasserTrain at ω = 0 instead.
    assert (config.standard_epochs, config.omega) == (published["epochs"], published["omega"])
    ours = {name: value for name, value in config.identity().items() if name in published}
    differing = {name for name, value in ours.items() if value != published[name]}
    reporting = {"radii", "report_iterations", "num_attack_examples", "validation_attack"}
    assert differing == {"attack", "standard_epochs", "epochs", "random_radius"} | reporting


def test_an_unknown_recipe_is_refused(trainer):
    with pytest.raises(ValueError, match="recipe must be one of ours, paper, got 'mine'"):
        dataclasses.replace(trainer, recipe="mine")
    with pytest.raises(ValueError, match="radii must be numbers above 0"):
        dataclasses.replace(QUICK["digits"], radii=())
    with pytest.raises(ValueError, match="omegas must be numbers from 0 to 1"):
        dataclasses.replace(QUICK["digits"], omegas=(2.0,))
    with pytest.raises(ValueError, match="radii must differ"):
        dataclasses.replace(QUICK["digits"], radii=(0.1, 0.1))
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 1, got 0"):
        dataclasses.replace(QUICK["digits"], epochs=0)
