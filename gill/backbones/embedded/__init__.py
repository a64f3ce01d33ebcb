"""The embedded image generator and what judges it: architectures and losses in plain torch."""
