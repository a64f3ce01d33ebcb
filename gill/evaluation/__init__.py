"""Metrics: pure functions of tensors, texts and labels."""
