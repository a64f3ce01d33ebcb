"""Configuration of the frozen parts and of each stage: frozen, typed, unknown keys refused."""
