"""A trained model for use."""
