"""Small files of images: of a size, in their shape, and not changing the image."""

from PIL import Image

from tasks.evaluation.thumbnails import opened, thumbnail


def test_the_longer_edge_is_cut_to_size_and_the_shape_kept():
    image = Image.new("RGB", (400, 200), "red")
    small = opened(thumbnail(image, 100))
    assert (small.format, small.size) == ("WEBP", (100, 50))
    assert image.size == (400, 200)
    red, green, blue = small.convert("RGB").getpixel((50, 25))
    assert red > 240
    assert max(green, blue) < 15


def test_small_images_are_not_enlarged():
    assert opened(thumbnail(Image.new("RGB", (30, 20)), 100)).size == (30, 20)
