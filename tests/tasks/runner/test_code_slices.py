"""What bears on a stage in small projects: what its code leads to, and nothing else."""

import pytest

from tasks.runner.code_slices import slices, version

STAGE = """
from gill.maths import used

def run(context):
    return used(context)
"""
MATHS = """
import math

LIMIT = 3
OTHER = 4

def used(x):
    '''Add.'''
    return helper(x) + LIMIT

def helper(x):
    return math.sqrt(x)

def unused(x):
    return x * OTHER
"""


@pytest.fixture
def project(tmp_path):
    """Writes files, by path without suffix, and gives the hashes of the stage ``one``."""

    def write(**files):
        given = {"tasks/stages/one": STAGE, "gill/maths": MATHS, "tasks/runner/places": ""}
        given |= {n if "/" in n else n.replace("__", "/"): text for n, text in files.items()}
        for name, text in given.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return slices("one", tmp_path)

    return write


def changed(project, before, after, name="gill__maths", **files):
    """Whether the stage is asked about after a change of one file."""
    assert before in MATHS or name != "gill__maths"
    base = files.pop("base", MATHS)
    assert base.count(before) == 1
    first = project(**{name: base}, **files)
    return project(**{name: base.replace(before, after)}, **files) != first


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("helper(x) + LIMIT", "helper(x) - LIMIT"),
        ("math.sqrt(x)", "math.exp(x)"),  # two calls away
        ("LIMIT = 3", "LIMIT = 4"),
    ],
)
def test_what_the_stage_leads_to_counts(project, before, after):
    assert changed(project, before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x * OTHER", "x / OTHER"),  # beside it in the same module
        ("OTHER = 4", "OTHER = 5"),
        ("'''Add.'''", "'''Add with care.'''"),
        ("def helper(x):", "# The root.\n\n\ndef helper( x ):"),
    ],
)
def test_what_it_does_not_lead_to_and_words_about_it_do_not(project, before, after):
    assert not changed(project, before, after)


def test_modules_are_named(project):
    assert {"tasks.stages.one", "gill.maths"} <= set(project())


def test_imports_inside_functions_and_through_packages_are_followed(project):
    stage = "def run(context):\n    from gill.package import thing\n    return thing()\n"
    package = "from gill.package.inner import thing\n"
    inner = "def thing():\n    return 1\n"
    assert changed(
        project, "return 1", "return 2", "gill__package__inner", base=inner,
        tasks__stages__one=stage, **{"gill/package/__init__": package},
    )  # fmt: skip


CLASS = """
class Thing:
    size = 3

    def __init__(self):
        self.x = 1

    def used(self):
        return self.x

    def apart(self):
        return 0
"""


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("size = 3", "size = 4", True),
        ("self.x = 1", "self.x = 2", True),
        ("return self.x", "return -self.x", True),
        ("return 0", "return 1", False),  # nobody calls it
    ],
)
def test_of_a_class_count_its_fields_and_the_methods_that_are_named(project, before, after, counts):
    stage = "from gill.things import Thing\n\ndef run(context):\n    return Thing().used()\n"
    found = changed(project, before, after, "gill__things", base=CLASS, tasks__stages__one=stage)
    assert found == counts


def test_a_module_that_is_started_as_a_process_counts(project):
    stage = "def run(context):\n    return ['-m', 'gill.worker']\n"
    assert changed(
        project, "return 1", "return 2", "gill__worker", base="def main():\n    return 1\n",
        tasks__stages__one=stage,
    )  # fmt: skip


def test_settings_count_by_their_values_not_by_their_declarations(project):
    stage = "from tasks.config.x import XConfig\n\ndef run(context: XConfig):\n    return 1\n"
    assert not changed(
        project, "steps: int = 3", "steps: int = 4", "tasks__config__x",
        base="class XConfig:\n    steps: int = 3\n", tasks__stages__one=stage,
    )  # fmt: skip


def test_what_only_records_does_not_count(project):
    stage = "from tasks.tracking.log import say\n\ndef run(context):\n    say(1)\n"
    assert not changed(
        project, "return x", "return -x", "tasks__tracking__log",
        base="def say(x):\n    return x\n", tasks__stages__one=stage,
    )  # fmt: skip


def test_a_version_is_read_without_importing(tmp_path):
    path = tmp_path / "tasks" / "stages" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text("import not_there\n\nSTAGE = StageDeclaration(version=7, description='x')\n")
    assert version("one", tmp_path) == 7
    path.write_text("STAGE = StageDeclaration(description='x')\n")
    with pytest.raises(ValueError, match=r"one\.py has no STAGE = StageDeclaration\(version="):
        version("one", tmp_path)
