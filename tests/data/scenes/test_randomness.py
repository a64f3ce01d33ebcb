"""Random numbers against the published generator, the same in every process."""

from collections import Counter

from data.scenes.randomness import GOLDEN, Draws, mix, text_hash

# The first outputs of splitmix64 from the state 0 (Steele, Lea and Flood's own program).
PUBLISHED = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)


def test_the_generator_is_the_published_one():
    assert tuple(mix(n * GOLDEN) for n in (1, 2, 3)) == PUBLISHED
    draws = Draws()
    assert tuple(draws.below(1 << 32) for _ in range(3)) == tuple(p >> 32 for p in PUBLISHED)


def test_a_string_has_one_number_on_every_machine():
    """Which scenes are held out goes by it, so it may never change."""
    assert text_hash("") == GOLDEN
    assert text_hash("cat+dog") == 118797955423136
    assert text_hash("dog+cat") != text_hash("cat+dog")


def stream(*keys):
    draws = Draws(*keys)
    return tuple(draws.below(1000) for _ in range(5))


def test_each_pair_of_keys_has_a_stream_of_its_own():
    streams = {stream(a, b) for a in range(9) for b in range(-1, 9)}
    assert len(streams) == 90
    assert stream(4, 2) == stream(4, 2)


def test_numbers_are_below_their_bound_and_all_occur_alike():
    draws = Draws(7)
    seen = Counter(draws.below(5) for _ in range(5000))
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert all(900 < count < 1100 for count in seen.values())  # deviation about 28
    assert {draws.choice("abc") for _ in range(50)} == set("abc")


def test_chances_are_in_hundred():
    draws = Draws(1)
    assert not any(draws.percent(0) for _ in range(200))
    assert all(draws.percent(100) for _ in range(200))
    assert 200 < sum(draws.percent(25) for _ in range(1000)) < 300
