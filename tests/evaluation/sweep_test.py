import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.attacks import RandomPlan
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.fingerprint import fingerprint, safe_name
from wasser_tf.evaluation.rescoring import rescore
from wasser_tf.evaluation.sweep import Model, Sweep
from wasser_tf.evaluation.worst_case import worst_case
from wasser_tf.runtime import provenance


class Counted(RandomPlan):
    """Counts its calls, and stops the program at one of them."""

    calls = 0
    stop_at = None

    def __call__(self, *arguments, **options):
        Counted.calls += 1
        if Counted.calls == self.stop_at:
            raise KeyboardInterrupt
        return super().__call__(*arguments, **options)


@pytest.fixture
def counted():
    Counted.calls, Counted.stop_at = 0, None
    return Counted(ThreatModel(epsilon=0.3))


def make_sweep(folder, attack, classifier, digits, *, radii=(0.1, 0.4), name="mlp", print_of="a", chunk_size=8):
    models = [Model(name, print_of, classifier)]
    return Sweep(folder, models, {"random_plan": attack}, radii, digits, chunk_size=chunk_size), models[0]


def test_stored_cells_are_not_attacked_again(tmp_path, counted, classifier, digits):
    told = []
    sweep, model = make_sweep(tmp_path, counted, classifier, digits)
    assert len(sweep.missing()) == 4
    sweep.run(told.append)
    assert counted.calls == 4 and not sweep.missing()
    assert told[-1].startswith("[4/4] mlp, random_plan, ε = 0.4: ") and told[-1].endswith("0 s left")
    make_sweep(tmp_path, counted, classifier, digits)[0].run()
    assert counted.calls == 4
    make_sweep(tmp_path, counted, classifier, digits, radii=(0.1, 0.2, 0.4))[0].run()
    assert counted.calls == 6
    make_sweep(tmp_path, counted, classifier, digits, print_of="b")[0].run()
    assert counted.calls == 10


def test_another_setting_or_image_is_another_cell(tmp_path, counted, classifier, digits):
    cells = set(make_sweep(tmp_path, counted, classifier, digits)[0].missing())
    seeded = Counted(ThreatModel(epsilon=0.3), seed=1)
    wider = Counted(ThreatModel(epsilon=0.3, kernel_size=3))
    darker = digits._replace(images=digits.images / 2)
    assert not cells & set(make_sweep(tmp_path, seeded, classifier, digits)[0].missing())
    assert not cells & set(make_sweep(tmp_path, wider, classifier, digits)[0].missing())
    assert not cells & set(make_sweep(tmp_path, counted, classifier, darker)[0].missing())
    # The threat model's own epsilon is not used, the radius is.
    other = Counted(ThreatModel(epsilon=2.0))
    assert cells == set(make_sweep(tmp_path, other, classifier, digits)[0].missing())


def test_an_interrupted_sweep_resumes(tmp_path, counted, classifier, digits):
    sweep, model = make_sweep(tmp_path, counted, classifier, digits)
    Counted.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert len(sweep.missing()) == 2
    with pytest.raises(ValueError, match="cannot be read"):
        list(sweep.results(model, 0.4))
    Counted.stop_at = None
    sweep.run()
    assert counted.calls == 3 + 2
    other, same_model = make_sweep(tmp_path / "other", counted, classifier, digits)
    other.run()
    for radius in (0.1, 0.4):
        interrupted, whole = next(sweep.results(model, radius)), next(other.results(same_model, radius))
        # Not exactly: threads may add in another order.
        np.testing.assert_allclose(
            interrupted.examples.result.adversarial, whole.examples.result.adversarial, atol=1e-5
        )


def test_a_resumed_sweep_knows_the_commits_of_all_its_cells(tmp_path, counted, classifier, digits, monkeypatch):
    sweep, model = make_sweep(tmp_path, counted, classifier, digits)
    Counted.stop_at = 2
    monkeypatch.setattr(provenance, "commit", lambda: "b" * 40)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    Counted.stop_at = None
    monkeypatch.setattr(provenance, "commit", lambda: "a" * 40)
    sweep.run()
    assert [next(sweep.results(model, radius)).commits for radius in sweep.radii] == [("a" * 40, "b" * 40), ("a" * 40,)]
    # Outside a checkout none is known.
    monkeypatch.setattr(provenance, "commit", lambda: None)
    other, model = make_sweep(tmp_path / "other", counted, classifier, digits)
    other.run()
    assert next(other.results(model, 0.1)).commits == ()


def test_chunks_change_nothing(tmp_path, random_plan, classifier, digits):
    # 12 images in chunks of 8, of which the last is filled up.
    few = Selection(digits.name, digits.index[:12], digits.images[:12], digits.labels[:12], None)
    sweep, model = make_sweep(tmp_path, random_plan, classifier, few, radii=(0.3,))
    sweep.run()
    found = next(sweep.results(model, 0.3))
    np.testing.assert_array_equal(found.examples.index, few.index)
    assert found.seconds > 0
    direct = random_plan(classifier, few.images, few.labels, radius=0.3)
    np.testing.assert_allclose(found.examples.result.adversarial, direct.adversarial, atol=1e-5)


def test_an_ensemble_gets_cells_of_several_batches_and_finds_the_same(tmp_path, classifier, digits):
    ball = ThreatModel(epsilon=0.3)
    given = []

    class Second(RandomPlan):
        def __call__(self, classifier, images, *arguments, **options):
            given.append((len(images), options["batch_size"]))
            return super().__call__(classifier, images, *arguments, **options)

    ensemble = attacks.Ensemble(ball, members=[RandomPlan(ball), Second(ball, seed=1)])
    # 40 images: a cell of 32 and one of 8.
    many = Selection(digits.name, np.arange(40), *(np.resize(a, (40, *a.shape[1:])) for a in digits[2:4]), None)
    sweep, model = make_sweep(tmp_path, ensemble, classifier, many, radii=(0.3,))
    assert len(sweep.missing()) == 2
    sweep.run()
    found = next(sweep.results(model, 0.3)).examples
    direct = ensemble(classifier, many.images, many.labels, radius=0.3, batch_size=8)
    np.testing.assert_array_equal(found.result.success, direct.success)
    np.testing.assert_allclose(found.result.adversarial, direct.adversarial, atol=1e-5)
    # Of the first cell only as many batches as those that still stand fill.
    not_fooled = int(np.sum(~RandomPlan(ball)(classifier, many.images[:32], many.labels[:32], radius=0.3).success))
    assert given[0] == (-(-not_fooled // 8) * 8, 8) and not_fooled < 32


def test_rescoring_finds_the_same(tmp_path, random_plan, classifier, other_classifier, digits):
    sweep, model = make_sweep(tmp_path, random_plan, classifier, digits, radii=(0.3,))
    sweep.run()
    stored = next(sweep.results(model, 0.3)).examples
    again = rescore(classifier, stored)
    np.testing.assert_array_equal(again.result.success, stored.result.success)
    np.testing.assert_allclose(again.result.loss, stored.result.loss, atol=1e-4)
    np.testing.assert_allclose(again.result.raw_loss, stored.result.raw_loss, atol=1e-4)
    np.testing.assert_array_equal(again.result.feasibility.max_pixel, stored.result.feasibility.max_pixel)
    np.testing.assert_allclose(
        again.result.raw_feasibility.mass_error, stored.result.raw_feasibility.mass_error, atol=1e-6
    )
    np.testing.assert_array_equal(again.result.feasibility.cost, stored.result.feasibility.cost)
    elsewhere = rescore(other_classifier, stored)
    assert np.abs(elsewhere.result.loss - stored.result.loss).max() > 0.1


def test_scores_need_the_images_of_a_few_only(tmp_path, random_plan, classifier, digits):
    sweep, model = make_sweep(tmp_path, random_plan, classifier, digits, radii=(0.3,))
    sweep.run()
    whole = next(sweep.results(model, 0.3)).examples
    # More than a chunk of 8.
    few = next(sweep.results(model, 0.3, images=10)).examples
    for one, two in ((whole.images, few.images), (whole.result.raw, few.result.raw)):
        np.testing.assert_array_equal(one[:10], two)
    np.testing.assert_array_equal(whole.result.loss, few.result.loss)
    worst, wanted = worst_case([few, few]), worst_case([whole, whole])
    np.testing.assert_array_equal(worst.result.success, wanted.result.success)
    np.testing.assert_array_equal(worst.result.adversarial, wanted.result.adversarial[:10])


def test_no_attack_runs_once_all_images_are_fooled(tmp_path, counted, classifier, digits):
    wrong = digits._replace(labels=(classifier(digits.images).numpy().argmax(axis=1) + 1) % 10)
    model = Model("mlp", "a", classifier)
    sweep = Sweep(tmp_path, [model], {"a": counted}, (0.1, 0.4), wrong, chunk_size=8, skip_fooled=True)
    sweep.run()
    assert counted.calls == -(-len(digits.labels) // 8) and not sweep.missing()
    assert len(list(sweep.results(model, 0.1))) == 1 and not list(sweep.results(model, 0.4))


def test_bad_sweeps(tmp_path, classifier, digits):
    plan, model = attacks.make("random_plan", ThreatModel()), Model("m", "a", classifier)
    with pytest.raises(ValueError, match="at least one model"):
        Sweep(tmp_path, [], {"a": plan}, [0.1], digits)
    with pytest.raises(ValueError, match="models of a sweep must differ"):
        Sweep(tmp_path, [model, model], {"a": plan}, [0.1], digits)
    with pytest.raises(ValueError, match="radii of a sweep must differ"):
        Sweep(tmp_path, [model], {"a": plan}, [0.1, 0.1], digits)
    with pytest.raises(ValueError, match="epsilon must be"):
        Sweep(tmp_path, [model], {"a": plan}, [-1.0], digits)


def test_fingerprints_tell_files_and_folders_apart(tmp_path):
    for name, content in (("a", "1"), ("b", "1"), ("c", "2"), ("d/x", "1"), ("e/y", "1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    prints = {name: fingerprint(tmp_path / name) for name in "abcde"}
    assert prints["a"] == prints["b"]
    assert len(set(prints.values())) == 4
    assert safe_name("a/b:c=1 é") == "a_b_c=1_é"
