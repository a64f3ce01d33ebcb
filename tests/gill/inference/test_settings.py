"""Each setting of inference is refused out of its range, by name, and room is counted."""

import math

import pytest

from gill.inference.settings import DecodingSettings, Settings

WRONG = {
    "max_new_tokens": (0,), "min_new_tokens": (-1, 99), "temperature": (-1.0, math.inf, math.nan),
    "top_p": (0.0, 1.5, math.nan), "image_bias": (math.nan,), "max_images": (-1,),
    "num_images": (0,), "guidance_scale": (math.inf, math.nan),
    "steps": (0, 1001), "batch_size": (0,),
    "seed": (10**22, 2**63),
    "choice": ("draw", ""), "end_of_text": ("never", ""),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_setting_out_of_range_is_named_with_its_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; it must be "):
        Settings(**{name: value})


def test_every_setting_has_a_range_or_takes_any_value():
    assert set(Settings.model_fields) - set(WRONG) == {"truncate_left"}


def test_the_ends_of_the_ranges_are_allowed():
    Settings(max_new_tokens=1, min_new_tokens=1, temperature=0, top_p=1, max_images=0)
    Settings(image_bias=math.inf, choice="retrieve", seed=-1)
    Settings(image_bias=-math.inf, choice=None)


def test_room_counts_forced_tokens():
    assert DecodingSettings(max_new_tokens=10, max_images=2).room(4) == 16
    assert DecodingSettings(max_new_tokens=1, max_images=2).room(4) == 4
