"""Tests mirror the code: each module with logic has a test file at its place, or says where."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "gill", "tasks", "flows")
LOGIC = 15  # statements in functions; a module with more has a file of its own

# Tested elsewhere, mostly through what uses them. Give one a file of its own, then delete its line.
TESTED_IN = {
    "tasks/training/starts.py": "tasks/stages/test_mapper.py",
    "tasks/training/refinement.py": "flows/test_pipeline.py",
    "tasks/training/adapters.py": "tasks/runner/test_launcher.py",
    "tasks/training/adapter_losses.py": "tasks/runner/test_launcher.py",
    "tasks/runner/stage.py": "flows/test_deployments.py",
    "tasks/runner/record.py": "tasks/runner/test_execution.py",
    "tasks/runner/dag.py": "flows/test_deployments.py",
    "tasks/runner/code_slices.py": "tasks/runner/test_versions.py",
    "tasks/download/fetching.py": "tasks/stages/test_download.py",
    "tasks/download/converting.py": "tasks/stages/test_download.py",
    "tasks/download/account.py": "tasks/stages/test_download.py",
    "data/scenes/build_sprites.py": "data/scenes/test_painter.py",
    "data/scenes/randomness.py": "data/scenes/test_grammar.py",
    "data/scenes/scoring.py": "data/scenes/test_truth.py",
    "gill/backbones/embedded/autoencoder.py": "gill/backbones/embedded/test_parts.py",
    "gill/backbones/embedded/captions.py": "gill/backbones/embedded/test_parts.py",
    "gill/backbones/embedded/denoiser.py": "gill/backbones/embedded/test_parts.py",
    "gill/backbones/embedded/generator.py": "gill/backbones/embedded/test_parts.py",
    "gill/backbones/embedded/reader.py": "gill/backbones/embedded/test_parts.py",
    "gill/backbones/embedded/text_encoder.py": "gill/backbones/embedded/test_parts.py",
    "tasks/embedded_training/autoencoder.py": "tasks/embedded_training/test_shipping.py",
    "tasks/embedded_training/common.py": "tasks/embedded_training/test_shipping.py",
    "tasks/embedded_training/heads.py": "tasks/embedded_training/test_shipping.py",
    "tasks/embedded_training/parser.py": "tasks/embedded_training/test_shipping.py",
    "tasks/embedded_training/reader.py": "tasks/embedded_training/test_shipping.py",
    "tasks/embedded_training/sheet.py": "tasks/embedded_training/test_shipping.py",
    "data/benchmarks/synthetic_contexts.py": "data/benchmarks/test_contexts.py",
    "data/benchmarks/visdial.py": "data/benchmarks/test_contexts.py",
    "data/benchmarks/vist.py": "data/benchmarks/test_contexts.py",
    "data/embedded/build_pack.py": "data/sources/test_sources.py",  # run once; the pack is tested
    "data/sources/embedded_pack.py": "data/sources/test_sources.py",
    "data/sources/tar.py": "tasks/stages/test_download.py",
    "flows/cli/runs.py": "flows/test_cli.py",
    "flows/local/databases.py": "flows/test_services.py",
    "flows/local/follow.py": "flows/test_services.py",
    "flows/local/reconcile.py": "flows/test_services.py",
    "flows/local/run.py": "flows/test_services.py",
    "flows/local/services.py": "flows/test_services.py",
    "flows/local/summary.py": "flows/test_summary.py",
    "gill/backbones/fitting.py": "gill/backbones/test_backbones.py",
    "gill/backbones/language.py": "gill/test_model.py",
    "gill/backbones/language_checks.py": "gill/backbones/test_families.py",
    "gill/backbones/testing/families.py": "gill/backbones/test_families.py",
    "gill/backbones/testing/micro_models.py": "gill/test_model.py",
    "gill/backbones/vision.py": "gill/backbones/test_backbones.py",
    "gill/evaluation/captioning.py": "gill/evaluation/test_metrics.py",
    "gill/inference/likelihood.py": "gill/inference/test_engine.py",
    "tasks/config/base.py": "flows/test_config.py",
    "tasks/evaluation/caption_suites.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/context_cases.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/context_suites.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/decision_labels.py": "tasks/stages/test_decision.py",
    "tasks/evaluation/held_out.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/held_out_suites.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/prompt_scores.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/report.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/report_sections.py": "tasks/stages/test_evaluate.py",
    "tasks/evaluation/sweep.py": "flows/test_ablation.py",
    "tasks/parts/loading.py": "tasks/inference/test_loading.py",
    "tasks/parts/retrieval_index.py": "tasks/inference/test_loading.py",
    "tasks/runner/pipeline_run.py": "flows/test_pipeline.py",
    "tasks/runner/registry.py": "flows/test_config.py",
    "tasks/runner/worker.py": "tasks/runner/test_launcher.py",
    "tasks/stages/adapters.py": "tasks/runner/test_launcher.py",
    "tasks/stages/clip_features.py": "tasks/runner/test_shard_map.py",
    "tasks/stages/index.py": "flows/test_pipeline.py",
    "tasks/stages/joint.py": "tasks/runner/test_launcher.py",
    "tasks/stages/text_targets.py": "tasks/runner/test_shard_map.py",
    "tasks/tracking/memory.py": "flows/test_pipeline.py",
    "tasks/tracking/mlflow_log.py": "flows/test_pipeline.py",
    "tasks/tracking/stage_log.py": "tasks/training/test_loop.py",
    "tasks/training/checkpoints.py": "tasks/training/test_loop.py",
    "tasks/training/embedded_backbones.py": "gill/backbones/test_backbones.py",
}


def statements(path):
    """Statements inside the functions of a module."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sum(isinstance(n, ast.stmt) for f in functions for n in ast.walk(f)) - len(functions)


MODULES = {
    path.relative_to(ROOT).as_posix(): statements(path)
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
}


def mirror(module):
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}"


@pytest.mark.parametrize("module", sorted(name for name, n in MODULES.items() if n > LOGIC))
def test_a_module_with_logic_has_a_test_file(module):
    if module not in TESTED_IN:
        assert mirror(module).exists(), f"write {mirror(module).relative_to(ROOT)}"


def test_each_exception_is_needed_and_says_where():
    for module, place in TESTED_IN.items():
        assert module in MODULES, f"{module} is gone: delete its line"
        assert not mirror(module).exists(), f"{module} has a test file now: delete its line"
        assert (ROOT / "tests" / place).exists(), f"{module} is said to be tested in {place}"


def test_each_test_file_is_at_the_place_of_some_code():
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / room).is_dir(), f"{path.relative_to(ROOT)} mirrors no folder"
