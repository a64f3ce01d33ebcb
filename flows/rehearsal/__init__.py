"""A recipe rehearsed: all of its stages at real widths, on stand-ins, for a few steps."""
