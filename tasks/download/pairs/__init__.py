"""What the pairs are like that a training is to learn from: figures, leaks, a page to read."""
