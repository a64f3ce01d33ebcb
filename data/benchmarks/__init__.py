"""VIST, VisDial, PartiPrompts and contexts made from the data."""
