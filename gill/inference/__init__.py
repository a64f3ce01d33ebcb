"""Interleaved inference: prompts in, segments out."""
