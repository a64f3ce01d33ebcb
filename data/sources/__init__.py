"""Where image-caption pairs come from: one class a source."""
