"""What the models under test read of a context, and how they are named."""

from tasks.evaluation.baselines import only_text, slug, text_of


def test_the_generator_reads_all_text():
    assert text_of(("a dog .", "a cat .")) == "a dog . a cat ."
    assert slug("5 captions, 4 images") == "5_captions_4_images"
    assert slug("owner/Some-Model") == "some_model"


def test_a_context_with_an_image_is_not_only_text():
    assert only_text(("a", "b"))
    assert only_text(())
    assert not only_text(("a", object()))
