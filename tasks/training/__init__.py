"""The loop around a stage's trainer, and checkpoints."""
