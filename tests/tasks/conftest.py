"""The artifacts of the tiny recipe, made once without Prefect and MLflow, for the stage tests."""

import importlib
import os

import pytest

from data.artifacts import Artifact, Manifest, describe_files, write_manifest
from flows.recipes import tiny
from tasks.registry import STAGES
from tasks.stage import StageContext
from tasks.tracking import ConsoleLog


class RecordingLog(ConsoleLog):
    """Keeps figures, documents and notes as well."""

    def __init__(self):
        super().__init__()
        self.figures, self.documents, self.notes = {}, {}, []

    def figure(self, name, figure):
        self.figures[name] = figure

    def document(self, name, text):
        self.documents[name] = text

    def note(self, text):
        self.notes.append(text)


class TinyRun:
    """Runs stages of the tiny recipe in a folder, each on the artifacts before it."""

    def __init__(self, folder):
        self.folder, self.config, self.artifacts = folder, tiny(), {}

    def run(self, name, out=None, **changes):
        """Run a stage, with some of its settings changed; returns its context and metrics."""
        config = getattr(self.config, name).model_copy(update=changes)
        out = out or self.folder / name
        out.mkdir(parents=True, exist_ok=True)
        context = StageContext(
            config,
            self.config.parts,
            self.config.runtime,
            {need: self.artifacts[need] for need in STAGES[name].needs},
            out,
            RecordingLog(),
        )
        metrics = importlib.import_module(f"tasks.{name}").run(context)
        return context, metrics

    def make(self, name, **changes):
        """Run a stage and keep its artifact for the stages that follow."""
        context, metrics = self.run(name, **changes)
        manifest = Manifest(
            stage=name, version=0, fingerprint=name, config=context.config.model_dump(mode="json"),
            inputs={}, metrics=metrics, files=describe_files(context.out),
        )  # fmt: skip
        write_manifest(context.out, manifest)
        self.artifacts[name] = Artifact(name, name, context.out)
        return context, metrics

    def but(self, **artifacts):
        """A copy that sees other artifacts for some stages."""
        copy = TinyRun(self.folder)
        copy.artifacts = {**self.artifacts, **artifacts}
        return copy


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Every stage of the tiny recipe up to ``decision``."""
    folder = tmp_path_factory.mktemp("tiny")
    before = os.environ.get("GILL_VAR")
    os.environ["GILL_VAR"] = str(folder / "var")
    made = TinyRun(folder)
    made.contexts = {}
    for name in STAGES:
        if name != "evaluate":
            made.contexts[name] = made.make(name)[0]
    if before is None:
        del os.environ["GILL_VAR"]
    else:
        os.environ["GILL_VAR"] = before
    return made
