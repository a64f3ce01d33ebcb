"""Image metrics against torch-fidelity and lpips, and how given weights are read."""

import os
import pickle

import lpips
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision.models import alexnet, inception_v3

from gill.backbones.metric_networks import load_inception, load_lpips, weights_file
from gill.backbones.testing import micro_models
from gill.evaluation.captioning import caption_scores, meteor_exact
from gill.evaluation.images import frechet_distance, perceptual_distance

CPU = torch.device("cpu")


def test_frechet_distance_is_torch_fidelitys():
    torch.manual_seed(0)
    a, b = torch.randn(40, 12), torch.randn(50, 12) * 1.5 + 0.3
    both = [fid_features_to_statistics(x.double()) for x in (a, b)]
    theirs = fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-5)


def test_perceptual_distance_is_that_of_the_lpips_package_without_its_weights():
    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False).eval()
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs = network(a, b, normalize=True).flatten()
        maps = [list(network.net(network.scaling_layer(2 * x - 1))) for x in (a, b)]
    assert torch.allclose(perceptual_distance(*maps), theirs, atol=1e-5)


def test_the_layers_of_the_scorer_tell_images_apart():
    encoder = micro_models.vision_encoder()
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    maps = [encoder.stages(encoder.prepare_tensor(x)) for x in (a, b)]
    assert [tuple(m.shape) for m in maps[0]] == [(2, 32, 4, 4)] * 2
    assert (perceptual_distance(*maps) > 0).all()
    assert perceptual_distance(maps[0], maps[0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_lpips_takes_torchvisions_weights(tmp_path, kind):
    torch.manual_seed(0)
    weights = alexnet().state_dict()
    path = tmp_path / f"alexnet.{kind}"
    save_file(weights, path) if kind == "safetensors" else torch.save(weights, path)
    distance = load_lpips(str(path), CPU)
    plain = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for name in plain.net.state_dict():
        own = weights[f"features.{name.split('.', 1)[1]}"]
        plain.net.get_parameter(name).data.copy_(own)
    a, b = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        expected = plain(2 * a - 1, 2 * b - 1).flatten()
    assert torch.allclose(distance(a, b), expected, atol=1e-6)
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not torchvision's AlexNet: it lacks"):
        load_lpips(str(tmp_path / "other.pth"), CPU)


def test_fid_features_come_from_the_given_weights(tmp_path):
    torch.manual_seed(0)
    weights = inception_v3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    torch.save(weights, tmp_path / "inception.pth")
    features = load_inception(str(tmp_path / "inception.pth"), CPU)
    images = torch.rand(2, 3, 32, 32)
    found = features(images)
    assert found.shape == (2, 2048)
    weights["Conv2d_1a_3x3.conv.weight"] *= 2
    weights["Conv2d_1a_3x3.bn.bias"] += 1
    torch.save(weights, tmp_path / "changed.pth")
    assert not torch.equal(load_inception(str(tmp_path / "changed.pth"), CPU)(images), found)


def test_a_pickle_with_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harmed"),))

    path = tmp_path / "bad.pth"
    path.write_bytes(pickle.dumps({"x": Harm()}))
    with pytest.raises(pickle.UnpicklingError):
        load_inception(str(path), CPU)
    assert not (tmp_path / "harmed").exists()


def test_weights_that_are_nowhere():
    with pytest.raises(ValueError, match=r"no file '/nowhere/x.pth'"):
        weights_file("/nowhere/x.pth")


def test_meteor_by_hand():
    # 6 of 7 and 6 of 6 words in two chunks: 10 P R / (R + 9 P) less half of (2 / 6)^3.
    precision = 6 / 7
    mean = 10 * precision / (1 + 9 * precision)
    found = meteor_exact("the cat was sat on the mat", "the cat sat on the mat")
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 6) ** 3))
    # "on the mat", "the cat" and "sat": three chunks of six matches.
    found = meteor_exact("on the mat sat the cat", "the cat sat on the mat")
    assert found == pytest.approx(1 - 0.5 * (3 / 6) ** 3)
    assert meteor_exact("dog", "cat") == meteor_exact("", "cat") == 0.0
    both = caption_scores(["dog", "a cat"], ["cat", "a cat"])["meteor_exact"]
    assert both == pytest.approx((1 - 0.5 / 8) / 2)
