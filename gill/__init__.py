"""GILL: a frozen language model that reads and answers with text and images."""
