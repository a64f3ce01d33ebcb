"""Breaks the code in some seventy places, one at a time, and says which breaks no test notices.

    python tests/mutants.py           apply each in a copy and run the tests named for it
    python tests/mutants.py --check   only look whether each place is still there
    python tests/mutants.py losses    those whose file has this word

Run by hand, five minutes on one quiet core; a survivor is a hole in the tests. An edit whose place
is gone is an error: move it. Name the tests narrowly, so that a run of all stays short.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTPUT = "pytest.log"
PASSED, FAILED = 0, 1  # exit codes of pytest; all others mean that the tests did not run


@dataclass(frozen=True)
class Mutant:
    """An edit of a file, whose old text is there once, and the tests that should notice it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def of(file: str, tests: str, *edits: tuple[str, str]) -> list[Mutant]:
    """Several edits of one file, with the same tests."""
    return [Mutant(file, old, new, tuple(tests.split())) for old, new in edits]


MUTANTS = [
    *of(
        "gill/losses.py",
        "tests/gill/test_losses.py",
        ("(F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2",
         "F.cross_entropy(logits, labels)"),
        ("difference.norm(dim=-1).mean()", "difference.norm(dim=(1, 2)).mean()"),
        ("share.scatter_add_(1, img_at, -(~wanted[rows]).float()[:, None])", "pass"),
    ),
    *of(
        "gill/losses.py",
        "tests/gill/test_data_parallel.py::test_contrastive_parts_by_plain_autograd",
        ("(scale - scale.detach()) * fraction", "(scale - scale.detach())"),
    ),
    *of(
        "gill/training.py",
        "tests/gill/test_training.py",
        ("clip_grad_norm_(self.parameters, self.config.gradient_clip)",
         'clip_grad_norm_(self.parameters, float("inf"))'),
        ("weight_decay=config.weight_decay,", "weight_decay=0.0,"),
        ("config.learning_rate * (step + 1) / config.warmup_steps",
         "config.learning_rate * step / config.warmup_steps"),
        ("config.decay_factor**drops", "config.decay_factor"),
        ("torch.manual_seed(self.config.seed * 1_000_003 + self.step)", "pass"),
        ("if self.after_step is not None:", "if False:"),
        ('self.step = int(state["step"])', "self.step = 0"),
    ),
    *of(
        "gill/retrieval.py",
        "tests/gill/test_retrieval.py",
        ("self.logit_scale.clamp(max=math.log(cap)).exp()", "self.logit_scale.exp()"),
        ("self.text(img_states[:, 0].float())", "self.text(img_states[:, -1].float())"),
        ("F.normalize(self.image(feature.float()), dim=-1)", "self.image(feature.float())"),
    ),
    *of(
        "gill/tokens.py",
        "tests/gill/test_tokens.py",
        ("self.weight.mul_(self.norm / ", "self.weight.mul_(2 * self.norm / "),
        (".clamp(min=1e-12)", ""),
        ("persistent=False", "persistent=True"),
    ),
    *of(
        "gill/captioning.py",
        "tests/gill/test_captioning.py",
        ("mapped.view(len(feature), self.num_visual_tokens, self.llm_dim)",
         "mapped.view(len(feature), self.llm_dim, self.num_visual_tokens).mT"),
    ),
    *of(
        "gill/packing.py",
        "tests/gill/test_packing.py",
        ("ahead + at - 1", "ahead + at"),
        ("if second and bos_id is not None", "if False and bos_id is not None"),
        ("_pad(prefixes, left=True)", "_pad(prefixes, left=False)"),
    ),
    *of(
        "gill/decision.py",
        "tests/gill/test_decision.py",
        ("retrieve <= 1", "retrieve <= 2"),
        ('"ret" if d < -margin', '"ret" if d < margin'),
        ("self(img_states).softmax(-1)", "self(img_states).sigmoid()"),
    ),
    *of(
        "gill/mapper.py",
        "tests/gill/test_mapper.py",
        ("keys * attention.head_dim**-0.5", "keys * 1.0"),
        ("states.float() + img_embeddings.to(states.device)", "states.float()"),
    ),
    *of(
        "gill/initialization.py",
        "tests/gill/test_initialization.py::test_rare_words_weigh_more_by_hand "
        "tests/gill/test_initialization.py::test_ridge_is_least_squares_with_a_penalty",
        ("_COMMON = 0.05", "_COMMON = 0.5"),
        ("weight = weight * ((target - centre).norm() / reached)", "pass"),
        ("penalty * gram.diagonal().mean()", "penalty * gram.diagonal().sum()"),
    ),
    *of(
        "gill/evaluation/retrieval.py",
        "tests/gill/evaluation/test_retrieval.py",
        ("(position < k)", "(position <= k)"),
        ("(scores >= own[:, None]).sum(-1) - 1", "(scores > own[:, None]).sum(-1)"),
    ),
    *of(
        "gill/evaluation/images.py",
        "tests/gill/evaluation/test_images.py::test_a_perceptual_distance_is_between_directions_by_hand",
        ("F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)", "x.float() - y.float()"),
    ),
    *of(
        "gill/evaluation/captioning.py",
        "tests/gill/evaluation/test_captioning.py::test_meteor_by_hand",
        ("10 * precision * recall / (recall + 9 * precision)",
         "10 * precision * recall / (precision + 9 * recall)"),
    ),
    *of(
        "gill/evaluation/decisions.py",
        "tests/tasks/evaluation/test_decision_scores.py "
        "tests/gill/evaluation/test_decisions.py::test_a_score_at_the_threshold_is_retrieved",
        ("if score >= threshold else", "if score > threshold else"),
        ("key=lambda point: point.macro_f1", "key=lambda point: point.recall"),
    ),
    *of(
        "gill/backbones/image_generator.py",
        "tests/gill/backbones/test_image_generator.py"
        "::test_targets_drive_the_pipeline_as_its_own_text_does[sd2]",
        ("torch.Generator().manual_seed(s) for s in", "torch.Generator().manual_seed(0) for s in"),
    ),
    *of(
        "gill/backbones/vision.py",
        "tests/gill/backbones/test_vision.py::test_sampled_images_are_normalised_by_hand",
        ("(resized.to(self.device) - self.mean) / self.std", "resized.to(self.device)"),
        ("antialias=True).clamp(0, 1)", "antialias=True)"),
    ),
    *of(
        "gill/backbones/metric_networks.py",
        "tests/gill/backbones/test_metric_networks.py::test_fid_features_come_from_the_given_weights",
        ("(images.clamp(0, 1) * 255).round()", "(images.clamp(0, 1) * 127).round()"),
    ),
    *of(
        "gill/backbones/metric_networks.py",
        "tests/gill/backbones/test_metric_networks.py"
        "::test_lpips_takes_torchvisions_weights[safetensors]",
        ("normalize=True", "normalize=False"),
    ),
    *of(
        "gill/backbones/language.py",
        "tests/gill/backbones/test_language.py::test_logits_are_capped_by_hand",
        ("self.logit_cap * torch.tanh(logits / self.logit_cap)", "torch.tanh(logits)"),
    ),
    *of(
        "gill/backbones/language.py",
        "tests/gill/backbones/test_language.py"
        "::test_the_attention_implementation_is_what_the_model_supports",
        ('more["attn_implementation"] = "eager"', 'more["attn_implementation"] = "sdpa"'),
    ),
    *of(
        "gill/inference/decoding.py",
        "tests/gill/inference/test_decoding.py",
        ("uniform.to(mass)[:, None] * mass[:, -1:]", "uniform.to(mass)[:, None]"),
    ),
    *of(
        "gill/inference/prompts.py",
        "tests/gill/inference/test_prompts.py",
        ("at = next((i for i, unit in enumerate(units) if unit.feature is None), len(units))",
         "at = 0"),
    ),
    *of(
        "gill/inference/engine.py",
        "tests/gill/inference/test_engine.py::test_img_states_equal_a_plain_pass[opt]",
        ("hidden[:, -len(self.model.adapters.img_tokens) :]",
         "hidden[:, : len(self.model.adapters.img_tokens)]"),
    ),
    *of(
        "gill/inference/index.py",
        "tests/gill/inference/test_index.py",
        ("match.key not in keys", "True"),
    ),
    *of(
        "gill/inference/places.py",
        "tests/gill/inference/test_places.py",
        ("max(named, key=named.__getitem__)", "min(named, key=named.__getitem__)"),
    ),
    *of(
        "gill/inference/likelihood.py",
        "tests/gill/inference/test_likelihood.py::test_likelihoods_equal_a_plain_pass[opt]",
        ("hidden[:, :-1][at]", "hidden[:, 1:][at]"),
    ),
    *of(
        "data/loader.py",
        "tests/data/test_loader.py::test_rows_are_mixed_anew_by_seed_and_epoch",
        ("default_rng([self.seed, epoch, number])", "default_rng([epoch, number])"),
        ("default_rng([self.seed, epoch, number])", "default_rng([self.seed, number])"),
    ),
    *of(
        "data/shards.py",
        "tests/data/test_shards.py",
        ("if keys is not None and found != keys:", "if False:"),
    ),
    *of(
        "data/quantization.py",
        "tests/data/test_quantization.py",
        (".max(-1) / 127)", ".max(-1) / 64)"),
        ("return BLOCK if dim % BLOCK == 0 else dim", "return dim"),
    ),
    *of(
        "data/download/http_client.py",
        "tests/data/download/test_http_client.py",
        ("if not is_public(address[0], self._allowed):", "if False:"),
    ),
    *of(
        "data/faults.py",
        "tests/data/test_faults.py",
        ("MOST_IN_A_ROW = 100", "MOST_IN_A_ROW = 10**9"),
        ("MOST_SHARE, OF_AT_LEAST = 0.2, 100", "MOST_SHARE, OF_AT_LEAST = 0.9, 100"),
        ("        self._in_a_row = 0\n", ""),
    ),
    *of(
        "data/sources/opening.py",
        "tests/data/sources/test_opening.py tests/data/sources/test_webdataset.py",
        ("if self._given > self._most:", "if False:"),
        ('if not path.is_relative_to(whole):', "if False:"),
    ),
    *of(
        "data/sources/webdataset.py",
        "tests/data/sources/test_webdataset.py",
        ('f"{split}/{name}/{stem}"', 'f"{split}-{name}-{stem}"'),
        ("if stem in seen:", "if False:"),
    ),
    *of(
        "data/benchmarks/visdial.py",
        "tests/data/benchmarks/test_visdial.py",
        ('dialog["dialog"][: max(lengths)]', 'dialog["dialog"]'),
    ),
    *of(
        "data/download/addresses.py",
        "tests/data/download/test_addresses.py",
        ("if inner:", "if False:"),
        ("(ip.is_multicast or ip.is_reserved)", "ip.is_multicast"),
        ("(ip.is_multicast or ip.is_reserved)", "ip.is_reserved"),
        ("url = url.with_host(_dotted(host))", "pass"),
    ),
    *of(
        "tasks/training/decision_model.py",
        "tests/tasks/training/test_decision_model.py::test_class_weights_by_hand",
        ("len(labels) / (len(CHOICES) * counts)", "len(labels) / counts.sum().expand(2)"),
    ),
    *of(
        "tasks/training/adapter_losses.py",
        "tests/tasks/training/test_adapter_losses.py",
        ("float(value) * len(part) / count", "float(value) * config.batch_size / count"),
        ("replace(part, packed=False)", "part"),
    ),
    *of(
        "tasks/training/checkpoints.py",
        "tests/tasks/training/test_checkpoints.py",
        ("self.paths()[self.keep :]", "[]"),
        ("if then.get(key) != now.get(key)", "if key in now and then.get(key) != now[key]"),
    ),
    *of(
        "tasks/runner/fingerprint.py",
        "tests/tasks/runner/test_dag.py",
        ('"inputs": dict(inputs),', '"inputs": {},'),
        ('"version": declared.version,', '"version": 1,'),
        ('"parts": {name: identity(name, getattr(parts, name)) for name in declared.parts},', ""),
    ),
    *of(
        "tasks/parts/loading.py",
        "tests/tasks/parts/test_loading.py"
        "::test_a_language_model_is_loaded_in_its_precision_with_exact_attention",
        ("name, config.precision, device, config.attention,", 'name, "float32", device, "sdpa",'),
    ),
    *of(
        "tasks/evaluation/prompt_scores.py",
        "tests/tasks/evaluation/test_prompt_scores.py::test_a_prompt_never_retrieves_its_own_image",
        ("[(key,) for key in own]", "[() for key in own]"),
    ),
    *of(
        "tasks/evaluation/decision_labels.py",
        "tests/tasks/evaluation/test_decision_labels.py"
        "::test_the_gap_comes_from_the_prompts_that_train",
        ("median_gap(scored[:training])", "median_gap(scored)"),
    ),
    *of(
        "tasks/evaluation/context_scores.py",
        "tests/tasks/evaluation/test_context_scores.py",
        ("float(values.std()) / len(values) ** 0.5", "float(values.std())"),
    ),
    *of(
        "tasks/evaluation/report_sections.py",
        "tests/tasks/evaluation/test_report_sections.py",
        ("< 2 * found.error", "< found.error"),
        ('found.measure.endswith("similarity")', "True"),
    ),
    *of(
        "data/scenes/scoring.py",
        "tests/data/scenes/test_scoring.py",
        ("return distance[relation] >= 1", "return distance[relation] > 0"),
    ),
]  # fmt: skip


def misplaced() -> list[str]:
    """The edits whose old text is not in its file exactly once."""
    found = []
    for mutant in MUTANTS:
        count = (ROOT / mutant.file).read_text().count(mutant.old)
        if count != 1:
            found.append(f"{mutant.file}: {count} times {mutant.old!r}")
    return found


def run(tree: Path, tests: tuple[str, ...]) -> int:
    """The exit code of pytest in a child, which has the libraries in memory already."""
    child = os.fork()
    if child == 0:
        import pytest

        os.chdir(tree)
        sys.path[0] = str(tree)
        with (tree / OUTPUT).open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        code = pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider"])
        os._exit(int(code))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def judge(tree: Path, mutant: Mutant) -> str:
    """``killed``, ``survived``, or what kept the tests from running."""
    path = tree / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    code = run(tree, mutant.tests)
    path.write_text(whole)
    return {PASSED: "SURVIVED", FAILED: "killed"}.get(code, f"NOT RUN (pytest ended with {code})")


def preload() -> None:
    """Import what is dear once; children share it. Nothing of this project, which changes."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    import aiohttp
    import pytest
    import scipy.stats
    import sklearn.metrics
    import torch
    import transformers

    assert all((aiohttp, pytest, scipy.stats, sklearn.metrics, torch, transformers))


def main(words: list[str]) -> int:
    """Judge the mutants whose file has one of the words; returns the number not killed."""
    if lost := misplaced():
        print("these edits have lost their place:", *lost, sep="\n  ")
        return len(lost)
    if words == ["--check"]:
        print(f"{len(MUTANTS)} edits, each in its place")
        return 0
    chosen = [m for m in MUTANTS if not words or any(word in m.file for word in words)]
    preload()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        skip = shutil.ignore_patterns(".*", "__pycache__", "var", "shared", "docs")
        shutil.copytree(ROOT, tree, ignore=skip)
        for tests in sorted({m.tests for m in chosen}):
            if (code := run(tree, tests)) != PASSED:
                print((tree / OUTPUT).read_text()[-3000:])
                print(f"{' '.join(tests)}: pytest ends with {code} on the code as it is")
                return 1
        alive = 0
        for mutant in chosen:
            found = judge(tree, mutant)
            alive += found != "killed"
            print(f"{found}  {mutant.file}: {mutant.old} -> {mutant.new}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return alive


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 100))
