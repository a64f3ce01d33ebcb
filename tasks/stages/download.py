"""Stage 1: image-caption pairs into image shards, with an account of what was lost and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.download.duplicates import settle_duplicates
from data.shards import shard_names
from data.sources.base import SourceError
from tasks.config.download import DownloadConfig
from tasks.download.account import account, check_kept
from tasks.download.checks import check_source
from tasks.download.converting import convert
from tasks.download.fetching import adopt, fetch
from tasks.download.sources import source_of
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration


def _identity(config: DownloadConfig) -> dict[str, Any]:
    """What the source's files hold, where the configuration only names them."""
    return {"source": source_of(config).identity()}


def _one_pass_fewer(config: DownloadConfig) -> DownloadConfig | None:
    """A further pass over the failures begins with what the passes before have fetched."""
    if not config.retries or not source_of(config).remote:
        return None
    return config.model_copy(update={"retries": config.retries[:-1]})


STAGE = StageDeclaration(
    version=6,
    description="Pairs into image shards",
    headlines=("train_pairs", "test_pairs", "dropped"),
    identify=_identity,
    begins_with=_one_pass_fewer,
    check=check_source,
)


def run(context: StageContext[DownloadConfig]) -> ImageShards:
    """Write ``images``, ``failures`` and ``stats`` by shard, duplicates and ``stats.json``."""
    config, out = context.config, context.out
    source = source_of(config)
    if source.remote:
        if isinstance(context.earlier, ImageShards) and not config.store:
            adopt(context.earlier, out)
        fetch(config, source, out, context.log)
    else:
        convert(config, source, out, context.log)
    names = [name.removesuffix(".parquet") for name in shard_names(out / ImageShards.FOLDER)]
    if not names:
        raise SourceError(f"the source has no rows: {config.paths or config.source}")
    kinds = {
        *(("url", "content") if config.duplicates == "drop" else ()),
        *(("placeholder",) if config.placeholders == "drop" else ()),
    }
    store = Store(str(out))
    duplicates = settle_duplicates(store, names, config.placeholder_addresses, kinds)
    repeated = Counter(duplicates.column("kind").to_pylist())
    metrics = account(source, out, repeated, context.log)
    check_kept(source, out)
    return ImageShards.made(out, metrics)
