"""A world of small scenes: described, captioned and painted from (seed, index) alone."""
