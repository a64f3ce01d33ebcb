"""Settings of the evaluation that do not fit together are refused before a run."""

import pytest

from tasks.config.evaluation import ContextsConfig, EvaluateConfig


@pytest.mark.parametrize(
    ("suite", "given", "missing"),
    [
        ("vist", {}, r"contexts\.vist_stories and evaluate\.contexts\.vist_images must name"),
        ("vist", {"vist_stories": "x.json"}, r"error, evaluate\.contexts\.vist_images must name"),
        ("visdial", {"visdial_images": "x"}, r"evaluate\.contexts\.visdial_dialogues must name"),
    ],
)
def test_suites_name_the_files_that_they_lack(suite, given, missing):
    with pytest.raises(ValueError, match=missing):
        EvaluateConfig(suites=(suite,), contexts=ContextsConfig(**given))
