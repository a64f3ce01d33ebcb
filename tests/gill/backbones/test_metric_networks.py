"""The networks of FID and LPIPS, and how given weights are read."""

import os
import pickle

import lpips
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import alexnet, inception_v3

from gill.backbones.metric_networks import load_inception, load_lpips, weights_file
from gill.backbones.testing import micro_models
from gill.evaluation.images import perceptual_distance

CPU = torch.device("cpu")


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


@pytest.mark.slow  # three Inceptions are built
def test_fid_features_come_from_the_given_weights(tmp_path):
    torch.manual_seed(0)
    weights = inception_v3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    torch.save(weights, tmp_path / "inception.pth")
    features = load_inception(str(tmp_path / "inception.pth"), CPU)
    images = torch.rand(2, 3, 32, 32)
    found = features(images)
    assert found.shape == (2, 2048)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = str(tmp_path / "inception.pth")
    plain = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path)
    expected = plain((images * 255).round().byte())[0]  # the bytes of the image file
    assert torch.equal(found, expected)  # an untrained network hardly tells images apart
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
