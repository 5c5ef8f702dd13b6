"""A calibration as people read it: one line for a badge, sentences, bars in a terminal, a plot for a paper.

Promises that the error found always stands beside the error promised and beside what the simulations can tell apart.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

from workbench.errors import StoreError
from workbench.reporting.escaping import to_html
from workbench.reporting.page import STYLE
from workbench.statistics.calibration import AFFECTED, BINS, EFFECT, Calibration

LEVELS = (0.01, 0.02, 0.05, 0.10, 0.20)
BAR = 100  # characters of a bar for a share of 1
WIDTH, HEIGHT, LEFT, TOP, SIDE = 560, 490, 74, 54, 360  # the plotting area is a square
SHOWN = 0.3  # levels beyond decide nothing
CAPTION = (
    "At every level on the horizontal axis, the share of data sets of identical arms whose smallest adjusted "
    "p-value is no larger. On the dashed line the promise is kept exactly; above it, broken."
)
FOUND, PROMISED = "#0072b2", "#8a8a8a"


def badge(calibration: Calibration, harsher: Calibration | None = None) -> str:
    """Say in one line how often identical arms are called different, at which design, and at worst."""
    text = (
        f"identical arms are called different {_percent(calibration.error)} of the time "
        f"({calibration.seeds} seeds, {_count(calibration.arms, 'arm')}, {calibration.simulations:,} simulations)"
    )
    if harsher is None:
        return text
    return f"{text}; {_percent(harsher.error)} if the arms are as unequally noisy as these few runs make them look"


def describe(calibration: Calibration, method: str) -> list[str]:
    """Say in sentences what was asked, what was found, and how far to trust it."""
    c = calibration
    told = [
        f"{method}: {badge(c)}.",
        f"Promised: at most {_percent(c.alpha)} for all arms together. Noise: {c.source}.",
        _compared(c),
        f"In {_percent(c.coverage)} of the data sets all intervals hold the truth (promised: {_percent(1 - c.alpha)}).",
    ]
    if c.power is not None:
        differ = f"{AFFECTED} arms that truly differ" if c.arms >= AFFECTED else "arms that truly differ"
        told.append(
            f"Of {differ} by {EFFECT:g} standard deviations of one run, {_percent(c.power)} are found"
            + (
                f"; beside them an identical arm is called different {_percent(c.error_beside_effects)} of the time."
                if c.error_beside_effects is not None
                else "."
            )
        )
    return told


def terminal_plot(calibration: Calibration) -> list[str]:
    """Draw the share called different at several levels as bars of characters; │ marks the promise."""
    lines = ["level   called different   (│ is the promise)"]
    for level in LEVELS:
        share = calibration.share_called(level)
        mark = round(level * BAR)
        bar = ("█" * round(share * BAR)).ljust(mark)
        lines.append(f"{100 * level:4.0f} %  {_percent(share):>7}  {bar[:mark]}│{bar[mark:]}".rstrip())
    return lines


def p_value_plot(calibration: Calibration, method: str) -> str:
    """Draw the share of data sets called different over the level asked for, as the text of an SVG file.

    The diagonal is the promise: a curve above it calls identical arms different too often, one below wastes power.
    """
    label = to_html(f"p-value plot of {method}: {badge(calibration)}")
    title = f"{method}, {calibration.seeds} seeds, {_count(calibration.arms, 'arm')}"
    noise = f"noise: {calibration.source}"
    points = " ".join(
        f"{_x(k / BINS)},{_y(calibration.share_called(k / BINS))}" for k in range(round(SHOWN * BINS) + 1)
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{label}"><style>text{{font-family:\'Helvetica Neue\',Helvetica,Arial,'
        "'Liberation Sans',sans-serif;font-size:13px;fill:#1a1a1a}.small{font-size:11.5px;fill:#5a5a5a}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<clipPath id="area"><rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}"/></clipPath>',
        *_axes(),
        f'<path d="M{_x(0)} {_y(0)}L{_x(SHOWN)} {_y(SHOWN)}" stroke="{PROMISED}" stroke-dasharray="5 4"/>',
        f'<text class="small" x="{_x(SHOWN) + 8}" y="{_y(SHOWN) + 4}">promised</text>',
        f'<polyline points="{points}" fill="none" stroke="{FOUND}" stroke-width="2" clip-path="url(#area)"/>',
        *_asked(calibration),
        f'<text x="0" y="16">{to_html(title)}</text>',
        f'<text class="small" x="0" y="34">{to_html(shorten(noise, 90, placeholder="…"))}</text>',
    ]
    return "\n".join([*parts, "</svg>\n"])


def html_page(calibration: Calibration, method: str) -> str:
    """Write the sentences and the plot as the text of a self-contained HTML page."""
    told = describe(calibration, method)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Calibration: {to_html(method)}</title><style>{STYLE}</style></head><body><main>",
            '<header><p class="over">Calibration</p>',
            "<h1>How often are identical arms called different?</h1></header>",
            *(f"<p>{to_html(sentence)}</p>" for sentence in told),
            f"<figure>{p_value_plot(calibration, method)}<figcaption>{CAPTION}</figcaption></figure>",
            "</main></body></html>\n",
        ]
    )


def write_calibration(calibration: Calibration, method: str, folder: Path | str) -> list[Path]:
    """Write calibration.svg and calibration.html, and return their paths.

    Raises:
        StoreError: if the folder cannot be written.
    """
    folder = Path(folder)
    texts = {"calibration.svg": p_value_plot(calibration, method), "calibration.html": html_page(calibration, method)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(
            "the plot cannot be written",
            where=folder,
            got=error.strerror or str(error),
            fix="name another folder with --out FOLDER",
        ) from None
    return [folder / name for name in texts]


def _compared(calibration: Calibration) -> str:
    """Say what the error found is to be compared with."""
    if calibration.pool is None:
        return (
            f"So many simulations place the error between {_percent(calibration.low or 0.0)} and "
            f"{_percent(calibration.high or 0.0)} (95 %, Clopper-Pearson)."
        )
    pool = calibration.pool
    only = f"in {pool.splits:,} ways, not independent ones" if pool.splits else "in many ways, not independent ones"
    return (
        f"{pool.runs} runs can be dealt {only}, and fake arms share no seeds: no interval. On pools of {pool.runs} "
        f"normal runs the same method shows {_percent(pool.low)} to {_percent(pool.high)} (nine pools in ten)."
    )


def _axes() -> list[str]:
    foot = TOP + SIDE
    parts = [f'<path d="M{LEFT} {TOP}V{foot}H{LEFT + SIDE}" fill="none" stroke="{PROMISED}"/>']
    for tick in (0.0, 0.1, 0.2, 0.3):
        x, y = _x(tick), _y(tick)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{foot}" y2="{foot + 5}" stroke="{PROMISED}"/>')
        parts.append(f'<text class="small" x="{x}" y="{foot + 19}" text-anchor="middle">{tick:.0%}</text>')
        parts.append(f'<line x1="{LEFT - 5}" x2="{LEFT}" y1="{y}" y2="{y}" stroke="{PROMISED}"/>')
        parts.append(f'<text class="small" x="{LEFT - 9}" y="{y + 4}" text-anchor="end">{tick:.0%}</text>')
    middle = LEFT + SIDE / 2
    parts.append(
        f'<text class="small" x="{middle}" y="{foot + 42}" text-anchor="middle">level asked for (family-wise)</text>'
    )
    parts.append(
        f'<text class="small" transform="translate(20 {TOP + SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "data sets of identical arms called different</text>"
    )
    return parts


def _asked(calibration: Calibration) -> list[str]:
    """Mark the level that verdicts are made at, with the interval of the error there."""
    if calibration.alpha > SHOWN or calibration.error > SHOWN:
        return []
    x, y = _x(calibration.alpha), _y(calibration.error)
    parts = []
    if calibration.low is not None and calibration.high is not None:
        low, high = _y(calibration.low), _y(min(calibration.high, SHOWN))
        parts.append(f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" stroke="{FOUND}" stroke-width="2"/>')
    found = f"{_percent(calibration.error)} at {_percent(calibration.alpha)}"
    return [
        *parts,
        f'<circle cx="{x}" cy="{y}" r="4.5" fill="{FOUND}"/>',
        f'<text x="{x + 12}" y="{y + 16}" style="fill:{FOUND}">{found}</text>',
    ]


def _x(level: float) -> float:
    return round(LEFT + level / SHOWN * SIDE, 2)


def _y(share: float) -> float:
    return round(TOP + SIDE - share / SHOWN * SIDE, 2)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
