"""The results of bench_ops as a picture, drawn with Pillow."""

import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from scripts.bench.candidates import LIMIT, OURS, PLAIN, REFERENCE

SCALE = 2  # drawn larger and shrunk, for smooth edges
WIDTH, ROW, TOP, LEFT, RIGHT = 1000, 40, 90, 290, 60
COLORS = {OURS: "#1b6ca8", PLAIN: "#d9a441", REFERENCE: "#d9a441"}


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes a PNG: nanoseconds of every operation per sample, on a logarithmic axis."""
    rows = [_bars(operation) for operation in results["operations"]]
    values = [value for _, bars, _ in rows for value in bars.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    canvas = _Canvas(WIDTH, TOP + ROW * len(rows) + 50)

    def place(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (max(math.log10(value), low) - low) / (high - low)

    canvas.text(20, 18, "Nanoseconds per sample (shorter is better, logarithmic)", 18)
    canvas.key(
        20, 52, [(COLORS[OURS], "this program"), (COLORS[PLAIN], "plain torch"), ("black", "limit of the machine")]
    )
    for decade in range(low, high + 1):
        x = place(10.0**decade)
        canvas.line(x, TOP, x, TOP + ROW * len(rows), "#dddddd")
        canvas.text(x, TOP + ROW * len(rows) + 8, f"{10.0**decade:,g}", 13, "ma")
    for row, (name, bars, limit) in enumerate(rows):
        y = TOP + ROW * row
        canvas.text(LEFT - 12, y + ROW / 2, name, 14, "rm")
        for line, (candidate, value) in enumerate(bars.items()):
            top = y + 6 + 15 * line
            canvas.bar(LEFT, top, place(value), top + 13, COLORS[candidate])
            canvas.text(place(value) + 6, top + 6, f"{value:,.0f}" if value >= 10 else f"{value:.2g}", 12, "lm")
        if limit is not None:
            canvas.line(place(limit), y + 4, place(limit), y + 36, "black", 2)
    canvas.save(path)


def _bars(operation: dict[str, Any]) -> tuple[str, dict[str, float], float | None]:
    """Name, nanoseconds of ours and of what torch alone does, and of the limit."""
    per_piece = {name: 1e6 * value / operation["size"] for name, value in operation["ms"].items()}
    other = PLAIN if PLAIN in per_piece else REFERENCE
    return operation["name"], {name: per_piece[name] for name in (OURS, other)}, per_piece.get(LIMIT)


class _Canvas:
    """Pillow with a scale."""

    def __init__(self, width: int, height: int):
        self._size = width, height
        self._image = Image.new("RGB", (SCALE * width, SCALE * height), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(self, x: float, y: float, text: str, size: int, anchor: str = "la") -> None:
        font = ImageFont.load_default(SCALE * size)
        self._draw.text((SCALE * x, SCALE * y), text, "#222222", font, anchor)

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str, width: int = 1) -> None:
        self._draw.line([SCALE * x0, SCALE * y0, SCALE * x1, SCALE * y1], color, SCALE * width)

    def bar(self, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
        self._draw.rectangle([SCALE * x0, SCALE * y0, SCALE * max(x1, x0 + 1), SCALE * y1], color)

    def key(self, x: float, y: float, entries: list[tuple[str, str]]) -> None:
        for color, text in entries:
            self.bar(x, y + 3, x + 14, y + 15, color)
            self.text(x + 20, y, text, 14)
            x += 60 + 8 * len(text)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._image.resize(self._size, Image.Resampling.LANCZOS).save(path)
