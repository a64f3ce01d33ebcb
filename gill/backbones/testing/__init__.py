"""Micro models with random weights, for tests."""
