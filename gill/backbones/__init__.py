"""The frozen parts: the only place of the project that loads pretrained weights."""
