"""Build the embedded pack of image-caption pairs from three registry packages.

The pack is committed, so users never run this. To rebuild it, unpack (not install)

    Debian  openclipart-png, openclipart-svg   into  SOURCE/openclipart   (dpkg-deb -x)
    npm     @lobehub/fluent-emoji-3d           into  SOURCE/emoji         (tar xzf)
    npm     emojibase-data                     into  SOURCE/emojidata     (tar xzf)

and run ``python -m data.embedded.build_pack SOURCE``. The result is deterministic.
Every image that is left out is counted by its reason and the counts are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent
IMAGE_SIZE = 128
MAX_PIXELS = 50_000_000
TEST_PAIRS, VALIDATION_PAIRS = 500, 600
MAX_WORDS = 14

# Icon themes, near-identical shapes and textures: pictures that no caption tells apart.
SKIPPED_FOLDERS = (
    "computer/icons",
    "computer/buttons",
    "shapes/stars",
    "shapes/jigsaw",
    "shapes/flowchart",
    "special/gradients",
    "special/patterns",
    "signs_and_symbols/led",
    "recreation/games/cards/bordered",
    "recreation/games/cards/ornamental",
    "recreation/games/cards/white",
)
PUBLIC_DOMAIN = {
    "http://web.resource.org/cc/PublicDomain",
    "http://creativecommons.org/licenses/publicdomain/",
}
# Keywords that say where a picture was filed and not what it shows.
NOISE = {
    "hash", "icon", "icons", "theme", "unsorted", "special", "symbol", "sign", "clip", "art",
    "clipart", "various", "general", "svg", "image", "picture", "mapsym", "appicon", "recreation",
    "signs_and_symbols", "externalsource", "united_nations_member", "mime", "other", "misc",
}  # fmt: skip
RANKS = {"j": "jack", "q": "queen", "k": "king", "a": "ace", "1": "ace"}
SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}


@dataclass
class PackedPair:
    """One candidate: where it came from, what it shows, who made it."""

    key: str
    title: str
    caption: str
    style: str
    origin: str
    creator: str
    licence: str
    image_path: Path


def words(text: str) -> list[str]:
    """Lower-case words of a title, a file name or a keyword."""
    return re.findall(r"[a-z]+|\d+", text.lower().replace("'", ""))


def caption_of(title: str, keywords: list[str], ending: str) -> str:
    """Join the title, the keywords that add a word to it, and the style, within ``MAX_WORDS``."""
    seen = set(words(title)) | set(words(ending))
    parts = [title]
    length = len(words(title)) + len(words(ending))
    for keyword in keywords:
        new = words(keyword)
        if not new or set(new) <= seen or length + len(new) > MAX_WORDS:
            continue
        parts.append(" ".join(new))
        seen |= set(new)
        length += len(new)
    return ", ".join([*parts, ending])


def emoji_pairs(source: Path, dropped: Counter[str]) -> Iterator[PackedPair]:
    """Yield the Fluent 3D emoji that emojibase describes, without skin-tone variants."""
    assets = source / "emoji/package/assets"
    described = json.loads((source / "emojidata/package/en/data.json").read_text())
    groups = json.loads((source / "emojidata/package/meta/groups.json").read_text())
    for entry in described:
        code = entry["hexcode"].lower()
        names = [code, code.replace("-fe0f", ""), f"{code}-fe0f"]
        path = next((assets / f"{n}.webp" for n in names if (assets / f"{n}.webp").exists()), None)
        if path is None:
            dropped["emoji: no picture"] += 1
            continue
        subgroup = groups["subgroups"].get(str(entry.get("subgroup")), "symbol")
        label = entry["label"].lower().replace(": ", " ")
        title = f"flag of {label.removeprefix('flag ')}" if "flag" in subgroup else label
        ending = f"3d emoji of {' '.join(words(subgroup))}"
        yield PackedPair(
            key=f"emoji/{path.stem}",
            title=title,
            caption=caption_of(title, [t.lower() for t in entry.get("tags", [])][:5], ending),
            style="emoji",
            origin=f"npm:@lobehub/fluent-emoji-3d/assets/{path.name}",
            creator="Microsoft Fluent Emoji, packaged by LobeHub",
            licence="MIT",
            image_path=path,
        )


def clipart_title(name: str, title: str, creator: str, common: Counter[str]) -> str:
    """Choose a picture's own title, or the words of its file name where the title is shared."""
    card = re.fullmatch(r"simple_([cdhs])_(\w+)", name)
    if card:
        rank = RANKS.get(card[2], card[2])
        return f"{rank} of {SUITS[card[1]]} playing card"
    own = title.lower()
    if "clipart by" in own and " - " in own:
        own = own.split(" - ", 1)[1]
    elif common[own] > 7 or not words(own):
        own = name
    makers = set(words(creator)) | {"aiga", "benji", "park", "architetto", "francesco", "rollandin"}
    kept = [w for w in words(own.replace("_", " ")) if not w.isdigit()]
    if own == name:
        kept = [w for w in kept if w not in makers]
    return " ".join(kept[:8])


def clipart_pairs(source: Path, dropped: Counter[str]) -> Iterator[PackedPair]:
    """Yield the Open Clip Art pictures with the title and keywords of their SVG metadata."""
    root = source / "openclipart/usr/share/openclipart"
    found: list[tuple[str, str, list[str], str]] = []
    for path in sorted((root / "svg").rglob("*.svg")):
        name = path.relative_to(root / "svg").with_suffix("").as_posix()
        if name.startswith(SKIPPED_FOLDERS):
            dropped["clip art: icon theme, card back or texture"] += 1
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        licence = re.search(r'<(?:cc:)?license\s+rdf:resource="([^"]*)"', text)
        if licence is None or licence[1] not in PUBLIC_DOMAIN:
            dropped["clip art: licence blank or not public domain"] += 1
            continue
        titles = [t.strip() for t in re.findall(r"<dc:title>(.*?)</dc:title>", text, re.DOTALL)]
        maker = re.search(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", text, re.DOTALL)
        keywords = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", text, re.DOTALL)
        creator = maker[1].strip() if maker else ""
        found.append((name, titles[0] if titles else "", keywords, creator))
    common = Counter(title.lower() for _, title, _, _ in found)
    for name, raw_title, keywords, creator in found:
        folder, _, stem = name.rpartition("/")
        title = clipart_title(stem, raw_title, creator, common)
        if "flags" in folder and "flag" not in title:
            title = f"flag of {title}"
        kept = [k.strip().lower() for k in keywords if k.strip().lower() not in NOISE]
        makers = set(words(creator))
        kept = [k for k in kept if len(k) < 25 and not set(words(k)) & makers]
        if len(title) < 3:
            dropped["clip art: no title"] += 1
            continue
        leaf = " ".join(words(folder.rpartition("/")[2]))
        ending = f"clip art of {leaf}" if leaf not in NOISE else "clip art"
        yield PackedPair(
            key=f"clipart/{name}",
            title=title,
            caption=caption_of(title, sorted(set(kept), key=kept.index), ending),
            style="clipart",
            origin=f"debian:openclipart-png/{name}.png",
            creator=creator or "unknown",
            licence="public domain",
            image_path=root / "png" / f"{name}.png",
        )


def square_webp(path: Path) -> tuple[bytes, np.ndarray] | str:
    """Render a picture on a white square; return its bytes and pixels, or why it is left out."""
    if not path.exists():
        return "no picture"
    Image.MAX_IMAGE_PIXELS = None  # the size is checked below, before any pixel is decoded
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            return f"over {MAX_PIXELS} pixels"
        picture = opened.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None:
        return "blank"
    picture = picture.crop(box)
    picture.thumbnail((IMAGE_SIZE - 8, IMAGE_SIZE - 8), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (IMAGE_SIZE, IMAGE_SIZE), "white")
    corner = ((IMAGE_SIZE - picture.width) // 2, (IMAGE_SIZE - picture.height) // 2)
    canvas.alpha_composite(picture, corner)
    rgb = canvas.convert("RGB")
    pixels = np.asarray(rgb, dtype=np.float32)
    if float(pixels.std()) < 8.0:
        return "blank"
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", quality=82, method=6)
    return buffer.getvalue(), pixels


def split_titles(titles: list[str]) -> dict[str, str]:
    """Assign each title to a split in the order of its hash, so that no title is in two splits."""
    order = sorted(set(titles), key=lambda t: hashlib.sha256(t.encode()).hexdigest())
    counts = Counter(titles)
    assigned: dict[str, str] = {}
    sizes = {"test": TEST_PAIRS, "validation": VALIDATION_PAIRS}
    for title in order:
        # Held-out captions are unique, so that a retrieval has exactly one right answer.
        room = next((s for s, n in sizes.items() if n > 0 and counts[title] == 1), None)
        assigned[title] = room or "train"
        if room:
            sizes[room] -= 1
    return assigned


def build(source: Path, out: Path) -> dict[str, object]:
    """Write ``pairs.parquet`` and ``pack.json`` into ``out`` and return the manifest."""
    dropped: Counter[str] = Counter()
    seen_pictures: set[bytes] = set()
    per_caption: defaultdict[str, int] = defaultdict(int)
    kept: list[tuple[PackedPair, bytes]] = []
    for pair in [*emoji_pairs(source, dropped), *clipart_pairs(source, dropped)]:
        rendered = square_webp(pair.image_path)
        if isinstance(rendered, str):
            dropped[f"{pair.style}: {rendered}"] += 1
            continue
        data, pixels = rendered
        small = pixels.reshape(16, 8, 16, 8, 3).mean(axis=(1, 3))
        fingerprint = (small // 8).astype(np.uint8).tobytes()
        if fingerprint in seen_pictures:
            dropped[f"{pair.style}: duplicate picture"] += 1
            continue
        if per_caption[pair.caption] >= 3:
            dropped[f"{pair.style}: caption used three times"] += 1
            continue
        seen_pictures.add(fingerprint)
        per_caption[pair.caption] += 1
        kept.append((pair, data))

    splits = split_titles([pair.title for pair, _ in kept])
    kept.sort(key=lambda item: hashlib.sha256(item[0].key.encode()).hexdigest())
    columns = ("key", "caption", "title", "style", "origin", "creator", "licence")
    table = pa.table(
        {
            **{name: [getattr(pair, name) for pair, _ in kept] for name in columns},
            "split": [splits[pair.title] for pair, _ in kept],
            "image": pa.array([data for _, data in kept], pa.binary()),
        }
    )
    path = out / "pairs.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=512)
    manifest: dict[str, object] = {
        "version": 1,
        "rows": len(kept),
        "splits": dict(Counter(splits[pair.title] for pair, _ in kept)),
        "styles": dict(Counter(pair.style for pair, _ in kept)),
        "image_size": IMAGE_SIZE,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "dropped": dict(sorted(dropped.items())),
        "made_from": ["openclipart-png 0.18", "openclipart-svg 0.18",
                      "@lobehub/fluent-emoji-3d 1.1.0", "emojibase-data 17.0.0"],
    }  # fmt: skip
    (out / "pack.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.source, arguments.out), indent=2))
