import numpy as np
import pytest

from wasser_tf import models, smoothing


def test_a_blur_in_front_is_a_mean_over_neighbours(tmp_path):
    classifier = models.build("linear", (6, 5, 1), 3, seed=0)
    image = np.random.default_rng(0).random((1, 6, 5, 1), np.float32)
    once = np.zeros_like(image)
    for y in range(6):
        for x in range(5):
            once[0, y, x] = image[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean()
    blurred = smoothing.blurred(classifier, 1)
    np.testing.assert_allclose(blurred(image), classifier(once), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(smoothing.blurred(classifier, 2)(image), blurred(once), rtol=1e-5, atol=1e-6)
    assert smoothing.blurred(classifier, 0) is classifier and models.returns_logits(blurred) is True
    blurred.save(tmp_path / "blurred.keras")
    np.testing.assert_array_equal(models.load_classifier(tmp_path / "blurred.keras")(image), blurred(image))
    with pytest.raises(ValueError, match="blur must be a whole number of passes from 0 to 100, got -1"):
        smoothing.blurred(classifier, -1)


def test_shifts_average_the_answers_to_shifted_images(tmp_path):
    classifier = models.build("mlp", (6, 5, 2), 3, seed=0)
    image = np.random.default_rng(0).random((4, 6, 5, 2), np.float32)
    padded = np.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    offsets = [(0, 0), (1, 0), (-1, 0), (2, 0), (-2, 0), (0, 1), (0, -1), (0, 2), (0, -2)]
    each = [classifier(padded[:, 2 + y : 8 + y, 2 + x : 7 + x]) for y, x in offsets]
    averaged = smoothing.shift_averaged(classifier, 2)
    np.testing.assert_allclose(averaged(image), np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    assert smoothing.shift_averaged(classifier, 0) is classifier and models.returns_logits(averaged) is True
    # Each image by itself, whatever its company.
    np.testing.assert_allclose(averaged(image[:1]), averaged(image)[:1], rtol=1e-5, atol=1e-6)
    averaged.save(tmp_path / "averaged.keras")
    np.testing.assert_array_equal(models.load_classifier(tmp_path / "averaged.keras")(image), averaged(image))
    with pytest.raises(ValueError, match="shifts must be a whole number of pixels, got 0.5"):
        smoothing.shift_averaged(classifier, 0.5)
    with pytest.raises(ValueError, match="below the sides of images, 6 and 5 pixels, got 5"):
        smoothing.shift_averaged(classifier, 5)
