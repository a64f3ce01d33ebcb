"""The frozen parts that a recipe names: loading, devices, identity."""
