"""Trains the embedded image generator on scenes: ``python -m tasks.embedded_training STEP``."""
