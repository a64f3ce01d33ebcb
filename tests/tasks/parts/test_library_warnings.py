"""Warnings of libraries reach the log, once each."""

import logging
import warnings

from tasks.parts.library_warnings import libraries_heard


def test_warnings_of_python_and_of_the_libraries_are_logged(caplog):
    with caplog.at_level(logging.WARNING, "gill"), libraries_heard():
        for _ in range(2):
            warnings.warn("QuickGELU mismatch", UserWarning, stacklevel=1)
        logging.getLogger("transformers.modeling_utils").warning("weights %s are new", "a.b")
        logging.getLogger("diffusers").info("nothing to say")
    said = [r.getMessage() for r in caplog.records if r.name == "gill"]
    assert said == [
        "transformers.modeling_utils: weights a.b are new",
        "UserWarning: QuickGELU mismatch",
    ]
    before = list(caplog.records)
    logging.getLogger("transformers").warning("later")
    assert [r for r in caplog.records if r.name == "gill"] == [
        r for r in before if r.name == "gill"
    ]
