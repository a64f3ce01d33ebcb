"""Values without sense are refused, each with the setting's name, the value and what is right."""

import math

import pytest

from flows.overrides import ConfigError, parsed
from flows.recipes import resolve, tiny
from flows.settings_list import lines_of

HUGE = 10**30
ODD = {
    # Counts: below the least, far beyond any use, no numbers, other kinds.
    "mapper.steps": (0, -1, 1e30, HUGE, 10.5, "many", "100", True, None, [5], math.nan, math.inf),
    "adapters.batch_size": (0, -8, HUGE, False, 2.5, {"a": 1}),
    "adapters.warmup_steps": (-1, 1e30, "0"),
    "adapters.decay_every": (-5, 0.5),
    "adapters.log_every": (0, HUGE),
    "adapters.checkpoint_every": (0, -1),
    "adapters.validate_every": (0,),
    "adapters.keep_checkpoints": (0,),
    "adapters.validation_pairs": (-1,),
    "adapters.early_stopping": (-1,),
    "adapters.num_img_tokens": (0, -1, 10**6),
    "adapters.num_visual_tokens": (0, 10**6),
    "adapters.retrieval_dim": (0, -256, 10**7),
    "adapters.max_tokens": (1, 0, 10**8),
    "adapters.refine_steps": (-1,),
    "adapters.refine_batch_size": (1,),
    "adapters.seed": (-1, 2**40, 10**22, True, "0"),
    "clip_features.batch_size": (0, HUGE),
    "clip_features.shards_per_task": (0,),
    "clip_features.gpus_per_task": (-1, math.inf, 1000),
    "decision.votes": (0, 1, 2, -3),
    "decision.train_prompts": (0, -1),
    "decision.validation_prompts": (0,),
    "evaluate.images": (0, -2, HUGE),
    "evaluate.gallery": (-1,),
    "evaluate.seed": (-1, 10**22),
    "evaluate.contexts.cases": (0,),
    "evaluate.contexts.seeds": (0,),
    "download.limit": (0, -1, 1.5, "all"),
    "download.shard_size": (0, -1, HUGE),
    "download.redirects": (-1, HUGE),
    "download.processes": (-1,),
    "download.in_flight": (0,),
    "download.quality": (0, 101),
    "download.size": (0, 10**9),
    "download.placeholder_addresses": (1,),
    "parts.generator.steps": (0, 1001, 1e30),
    "runtime.threads": (-1, HUGE),
    "runtime.workers": (0, -1, 10**6),
    "runtime.minimum_free_bytes": (-1,),
    # Sizes of the mapper.
    "mapper.hidden_dim": (-1, 0, 10**9, "512"),
    "mapper.heads": (0, -4, 3),
    "mapper.layers": (0, -1, 10**4),
    "mapper.feedforward_dim": (0, -1),
    # Fractions, rates and weights.
    "mapper.learning_rate": (0, -1e-3, math.nan, math.inf, 1e30, True, "1e-3"),
    "mapper.betas": ([0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.95, 0.99], 0.9, [True, 0.9], []),
    "mapper.weight_decay": (-0.1, math.nan, 1e30),
    "mapper.gradient_clip": (0, -1, math.nan, math.inf),
    "mapper.decay_factor": (0, -1, 2, math.nan),
    "mapper.accumulate": (0, -1, 1000),
    "mapper.checkpoint_minutes": (0, -1, math.inf),
    "adapters.packing_probability": (-0.1, 1.5, math.nan),
    "adapters.captioning_rate": (0, -1),
    "adapters.captioning_weight": (-1, math.nan, math.inf),
    "adapters.refine_noise": (-1, math.nan),
    "decision.dropout": (-0.1, 1, 1.5, math.nan),
    "decision.margin": (-1, 3, math.nan),
    "generation_weight": (-1, math.nan, math.inf),
    "parts.generator.guidance_scale": (-1, math.nan, math.inf, 1e30),
    "download.widest": (0.5, math.nan),
    "download.deadline": (0, -1, math.inf, 1e30),
    "download.longest_pause": (0, math.nan),
    # Choices and switches.
    "schedule": ("stagd", "", None, 1),
    "mapper.kind": ("conv", "", ["gill"], None),
    "mapper.baselines": ("linear", ["conv"], ["mlp", "mlp"], [None]),
    "adapters.precision": ("float8", "fp16", 16),
    "adapters.keep_best": (1, 0, "yes", "true", None),
    "runtime.own_process": (1, "false"),
    "download.source": ("cc12m", ""),
    "download.duplicates": (True, "none"),
    "download.retries": (["always"], "transient", [1], ["all"] * 50),
    "text_targets.form": ("int4",),
    "evaluate.suites": ([], ["vqa"], "captioning", ["captioning", "captioning"]),
    "evaluate.contexts.models": ([], ["clip"]),
    "evaluate.contexts.rounds": ([], [0], [11], [1, 1], [1.5]),
    "evaluate.contexts.pipelines": ([""], ["a\nb"], "sdxl"),
    # Texts: parts of paths, line breaks, NUL, blanks, halves of surrogate pairs.
    "decision.split": ("", "../test", "a/b", "va lidation", "*", "val\n", "x" * 100, 1),
    "index.splits": ([], ["../train"], ["train", "train"], ["tr/ain"], "train", [""], [None]),
    "download.paths": ({"../train": "a.tsv"}, {"": "a.tsv"}, {"train": ""}, {"train": " "},
                       {"train": "a\n.tsv"}, {"train": None}, {"train": "a.tsv[5:2]"},
                       {"train": "a.tsv[x:2]"}, {"train": "a.tsv[3:3]"}, ["a.tsv"], "a.tsv"),
    "download.contact": ("a@b.c\r\nX-Evil: 1", "a@b.c\n", "caf\u00e9@b.c", "x" * 999, 5, None),
    "download.allowed_networks": (["localhost"], ["10.0.0.0/99"], "127.0.0.0/8", [""]),
    "download.columns": ({"caption": ""}, {"": "text"}, {"caption": "a\nb"}),
    "download.revision": ("", " ", "a\nb", 7),
    "download.store": ("s3://a\nb", None),
    "download.images": ("a\0b", "a\ud800"),
    "adapters.initial_prompt": ("\ud800", "\0", 3, None),
    "clip_features.ray_address": ("ray://a\n",),
    "parts.language.name": ("", " ", "a\nb", " tiny", None, 3),
    "parts.vision.pretrained": ("open\nai", None),
    "runtime.device": ("", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,cuda:0", "cpu,cpu",
                       "cuda:0,", "CPU", 0, None, "tpu", "cuda:9999999"),
    "evaluate.metric_networks.clip": ("a\nb",),
    "evaluate.metric_networks.perceptual": (1,),
}  # fmt: skip
CASES = [(key, value) for key, values in ODD.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_a_value_without_sense_is_refused(key, value):
    with pytest.raises(ConfigError) as refused:
        resolve("tiny", {key: value})
    message = str(refused.value)
    assert key.rpartition(".")[2] in message
    assert "must " in message, message
    assert len(message.splitlines()) == 1
    shown = value
    for kind in (list, dict):  # of a list, what is wrong in it is named
        if isinstance(shown, kind) and shown:
            assert any(
                repr(x)[:60] in message for x in (shown, *shown, *getattr(shown, "values", list)())
            )
            return
    assert repr(shown)[:60] in message, message


def test_most_settings_are_tried():
    keys = {line.key for line in lines_of(tiny())}
    assert set(ODD) <= keys
    assert len(CASES) >= 65


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mapper.hidden_dim": 30, "mapper.heads": 4}, "heads is 4; it must divide hidden_dim"),
        ({"runtime.workers": 9}, r"runtime\.workers is 9; it must be at most adapters\.batch_size"),
        ({"adapters.accumulate": 9}, "accumulate is 9; it must be at most batch_size, which is 8"),
        ({f"adapters.{n}_weight": 0 for n in ("captioning", "img_prediction", "retrieval")},
         "one must be above 0"),
        ({"evaluate.suites": ["vist"]}, r"evaluate\.contexts\.vist_stories and .*vist_images must"),
        ({"download.smallest": 4000, "download.most_pixels": 1000}, "no image is as large"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve("tiny", overrides)


def test_sensible_values_at_the_ends_are_taken():
    resolve("tiny", {"mapper.steps": 1e3, "mapper.learning_rate": 1, "decision.dropout": 0})
    resolve("tiny", {"runtime.device": "cuda:0,cuda:3", "index.splits": ["train", "my-split_2"]})
    resolve("tiny", {"mapper.baselines": [], "adapters.packing_probability": 1})
    rows = {"validation": "v.tsv[:6]", "test": "v.tsv[6:]", "train": "a[0-9].tsv"}
    config = resolve("tiny", {"download.source": "webdataset", "download.paths": rows})
    assert config.download.paths == rows


def test_texts_become_values():
    words = [
        "a.b=5e-4",
        "c=word",
        'd=["x"]',
        "e=null",
        "f=true",
        f"g={'9' * 5000}",
        "h=" + "[" * 9**5,
    ]
    found = parsed(words)
    assert (found["a.b"], found["c"], found["d"], found["e"], found["f"]) == (
        5e-4, "word", ["x"], None, True,
    )  # fmt: skip
    assert isinstance(found["g"], str)
    assert isinstance(found["h"], str)


@pytest.mark.parametrize("wrong", [["a"], ["a=1", "a=2"], ['p={"x": 1, "x": 2}']])
def test_what_is_no_setting_or_given_twice_is_refused(wrong):
    with pytest.raises(ConfigError):
        parsed(wrong)
