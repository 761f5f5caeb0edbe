"""The demo's result as one self-contained HTML page: no script, no external resource, light and dark."""

import base64
import html
import io

import plan
from PIL import Image, ImageOps

THUMBNAIL = 360
EXPLANATIONS = [
    ("similarity", "cosine of the angle between the two descriptors: 1 is the same picture to the network."),
    (
        "background",
        "how alike the query is to unrelated pictures: its mean similarity to its 5 nearest background descriptors.",
    ),
    (
        "score",
        "the stretched score −‖2.5·m·q − r‖², m being the background within its clamp: comparable between queries.",
    ),
    ("probability", "of being a copy, from a logistic calibration over similarity and background."),
    ("verdict", "“copy” and “review” are the probabilities above the calibration's two thresholds; else “different”."),
]


def render(outcomes, names, pictures, summary, runtime) -> str:
    """The page. `outcomes`, `summary` as in demo.py; `names`: the photographs by file; `pictures`: their bytes."""
    thumbnails = {
        name: thumbnail(pictures[name])
        for name in {outcome.title for outcome in outcomes} | {*plan.ORIGINALS, *plan.BYSTANDERS}
        if name
    }
    copies = [outcome for outcome in outcomes if outcome.query.stored]
    strangers = [outcome for outcome in outcomes if not outcome.query.stored]
    verdict = "good" if summary.is_good else "bad"
    figures = [
        (f"{summary.found}<small>/{summary.copies}</small>", "edited copies traced to their original", verdict),
        (f"{summary.called_copy}", f"of them called “copy”, {summary.called_review} “review”", ""),
        (f"{summary.false_alarms}", "false alarms at verdict “copy”", "bad" if summary.false_alarms else "good"),
        (f"{summary.median_milliseconds:.0f}<small> ms</small>", "median time of copy_match, picture to answer", ""),
    ]
    tiles = "".join(
        f'<div class="figure {kind}"><strong>{number}</strong><span>{label}</span></div>'
        for number, label, kind in figures
    )
    terms = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in EXPLANATIONS)
    shelf = "".join(
        f'<figure><img src="{thumbnails[name]}" alt="" loading="lazy"><figcaption>{escape(names[name].title)}'
        f"</figcaption></figure>"
        for name in plan.ORIGINALS + plan.BYSTANDERS
    )
    credits = "".join(
        f"<li><b>{escape(photograph.title)}</b> {escape(photograph.credit)} "
        f"<span>({escape(photograph.licence)}; in {escape(photograph.package)})</span></li>"
        for photograph in names.values()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>copymatch demo: {summary.found} of {summary.copies} found</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="runtime">{escape(runtime)}</p>
<h1>Where does this picture come from?</h1>
<p class="lead">{summary.copies} edited copies of {len(plan.ORIGINALS)} photographs, and {summary.strangers} pictures
that are copies of nothing, each looked up with <code>SELECT * FROM copy_match(image, k =&gt; 1)</code> among
{len(plan.ORIGINALS) + len(plan.BYSTANDERS)} references. Edits, strengths and seeds were fixed beforehand.</p>
<div class="figures">{tiles}</div>
</header>
<main>
<section aria-labelledby="scores">
<h2 id="scores">All queries on one scale</h2>
{strip_plot(outcomes, names)}
<details><summary>What the columns of copy_match mean</summary><dl>{terms}</dl></details>
</section>
<section class="filtered" aria-labelledby="copies">
<h2 id="copies">Edited copies</h2>
{filters(copies)}
<div class="cards">{"".join(card(outcome, names, thumbnails) for outcome in copies)}</div>
</section>
<section aria-labelledby="strangers">
<h2 id="strangers">Copies of nothing</h2>
<p>None of these is among the references. What is shown beside each is merely the nearest one.</p>
<div class="cards">{"".join(card(outcome, names, thumbnails) for outcome in strangers)}</div>
</section>
<section aria-labelledby="references">
<h2 id="references">The references</h2>
<div class="shelf">{shelf}</div>
</section>
</main>
<footer>
<h2>Photographs</h2>
<ul>{credits}</ul>
<p>The edits on this page were made by <code>copy_edit</code>; pictures are shown reduced.</p>
</footer>
</body>
</html>
"""


def escape(text: str) -> str:
    return html.escape(text, quote=True)


def thumbnail(data: bytes) -> str:
    """A data URI of the picture, at most THUMBNAIL pixels a side."""
    with Image.open(io.BytesIO(data)) as picture:
        small = ImageOps.exif_transpose(picture).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def status(outcome) -> str:
    """One of found, wrong, alarm, quiet, refused: what the card's frame says."""
    if outcome.match is None:
        return "refused"
    if outcome.is_false_alarm:
        return "alarm"
    if outcome.query.stored:
        return "found" if outcome.is_right else "wrong"
    return "quiet"


STATUS_TEXT = {
    "found": "its original",
    "wrong": "not its original",
    "alarm": "false alarm",
    "quiet": "nearest reference",
    "refused": "no match",
}


def card(outcome, names, thumbnails) -> str:
    query, match, state = outcome.query, outcome.match, status(outcome)
    title = escape(names[query.photograph].title)
    verdict = match.verdict if match else "refused"
    if match:
        found = escape(names[outcome.title].title)
        right = f'<img src="{thumbnails[outcome.title]}" alt="Reference: {found}" loading="lazy">'
        numbers = (
            f'<div class="meter" role="img" aria-label="probability {match.probability:.3f}">'
            f'<i style="width:{100 * match.probability:.1f}%"></i></div>'
            f"<dl><div><dt>probability</dt><dd>{match.probability:.3f}</dd></div>"
            f"<div><dt>score</dt><dd>{minus(match.score)}</dd></div>"
            f"<div><dt>similarity</dt><dd>{minus(match.similarity)}</dd></div>"
            f"<div><dt>background</dt><dd>{minus(match.background)}</dd></div></dl>"
        )
    else:
        found, numbers = "none", f'<p class="refusal">{escape(outcome.refusal or "no reference is near")}</p>'
        right = '<span class="nothing">∅</span>'
    return f"""
<article class="card {state}" data-verdict="{verdict}">
<div class="pair">
<figure><img src="{thumbnail(outcome.image)}" alt="Query {outcome.number}: {title}" loading="lazy">
<figcaption>query {outcome.number}</figcaption></figure>
<figure>{right}<figcaption>{found}</figcaption></figure>
</div>
<div class="facts">
<h3>{title} <em>{query.label}</em></h3>
<p class="said"><b class="pill {verdict}">{verdict}</b> <span>{STATUS_TEXT[state]}</span></p>
{numbers}
</div>
</article>"""


def minus(value: float, decimals: int = 3) -> str:
    """Fixed decimals with a true minus sign, and none before zero."""
    return f"{value:z.{decimals}f}".replace("-", "−")


def filters(copies) -> str:
    """Radio buttons that show one kind of card; the style sheet does the rest."""
    kinds = [("all", "all", len(copies))]
    for verdict in ("copy", "review", "different", "refused"):
        count = sum((outcome.match.verdict if outcome.match else "refused") == verdict for outcome in copies)
        if count:
            kinds.append((verdict, verdict, count))
    missed = sum(not outcome.is_right for outcome in copies)
    if missed:
        kinds.append(("missed", "missed", missed))
    buttons = "".join(
        f'<label><input type="radio" name="show" value="{value}"{" checked" if value == "all" else ""}>'
        f"<span>{label} <small>{count}</small></span></label>"
        for value, label, count in kinds
    )
    return f'<fieldset class="filters"><legend>Show verdict</legend>{buttons}</fieldset>'


def strip_plot(outcomes, names) -> str:
    """Every query's score on one axis, copies above and strangers below, as SVG."""
    scored = [outcome for outcome in outcomes if outcome.match is not None]
    if not scored:
        return ""
    scores = [outcome.match.score for outcome in scored]
    low, high = min(scores), max(scores)
    margin = max(0.05 * (high - low), 0.02)
    low, high = low - margin, high + margin
    left, right = 96, 984

    def place(score: float) -> float:
        return left + (right - left) * (score - low) / (high - low)

    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / step <= 10)
    ticks = [step * index for index in range(round(low / step) - 1, round(high / step) + 2)]
    axis = "".join(
        f'<line x1="{place(tick):.1f}" x2="{place(tick):.1f}" y1="14" y2="166"/>'
        f'<text x="{place(tick):.1f}" y="186" text-anchor="middle">{minus(tick, 1 if step >= 0.1 else 2)}</text>'
        for tick in ticks
        if low <= tick <= high
    )
    rows = {True: [], False: []}
    for outcome in sorted(scored, key=lambda outcome: outcome.match.score):
        rows[outcome.query.stored].append(outcome)
    dots = []
    for stored, middle in ((True, 58), (False, 132)):
        beyond: dict[int, float] = {}
        for outcome in rows[stored]:
            x = place(outcome.match.score)
            # Dots that would touch stand in lanes around the middle of their row.
            lane = next(lane for lane in range(99) if x - beyond.get(lane, -99) > 11)
            beyond[lane] = x
            lane %= 7
            y = middle + 10.5 * ((lane + 1) // 2) * (1 if lane % 2 else -1)
            query = outcome.query
            label = f"{names[query.photograph].title}, {query.label}: {minus(outcome.match.score)}"
            kind = f"{outcome.match.verdict} {'odd' if status(outcome) in ('wrong', 'alarm') else ''}"
            dots.append(
                f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(label)}</title></circle>'
            )
    legend = "".join(f'<span><i class="{kind}"></i>{kind}</span>' for kind in ("copy", "review", "different"))
    return f"""<p class="legend">Verdict: {legend}<span><i class="odd"></i>ringed: the wrong reference</span></p>
<div class="plot"><svg viewBox="0 0 1000 212" role="img" aria-label="Scores of copies and of strangers on one axis">
<g class="grid">{axis}</g>
<text x="0" y="62">copies</text><text x="0" y="136">strangers</text>
<text x="{(left + right) / 2}" y="207" text-anchor="middle">stretched score of the nearest reference</text>
{"".join(dots)}</svg></div>"""


STYLE = """
:root{color-scheme:light dark;--page:#f6f5f2;--panel:#fff;--ink:#1c1d1f;--soft:#63666b;--line:#dedcd6;
--copy:#1b7f4d;--review:#a86400;--different:#6d7480;--alarm:#c0272d;--accent:#2f55c8;--sunk:#eceae5}
@media(prefers-color-scheme:dark){:root{--page:#131416;--panel:#1d1f22;--ink:#e9e8e4;--soft:#a0a4aa;--line:#33363b;
--copy:#4cc38a;--review:#e5a64a;--different:#8d95a1;--alarm:#ff6a6a;--accent:#8fa8ff;--sunk:#25282c}}
*{box-sizing:border-box;margin:0}
body{background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
padding:clamp(1rem,4vw,3.5rem) clamp(1rem,5vw,4rem) 3rem;max-width:1480px;margin:auto}
h1{font-size:clamp(1.9rem,4.6vw,3.3rem);line-height:1.08;letter-spacing:-.025em;font-weight:680;text-wrap:balance}
h2{font-size:1.35rem;letter-spacing:-.012em;margin:3rem 0 .9rem}
h3{font-size:.98rem;line-height:1.3}
h3 em{font-style:normal;font-weight:450;color:var(--soft);display:block}
h3 em span{font-variant-numeric:tabular-nums}
p{max-width:70ch}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--sunk);padding:.1em .35em;
border-radius:4px;overflow-wrap:anywhere}
.runtime{color:var(--soft);font-size:.9rem;margin-bottom:.7rem}
.lead{margin-top:1rem;font-size:1.08rem;color:var(--soft)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:1px;background:var(--line);
border:1px solid var(--line);border-radius:12px;overflow:hidden;margin-top:2rem}
.figure{background:var(--panel);padding:1.1rem 1.3rem 1.2rem}
.figure strong{display:block;font-size:2.5rem;line-height:1.1;letter-spacing:-.03em;font-weight:640;
font-variant-numeric:tabular-nums}
.figure small{font-size:.5em;color:var(--soft);letter-spacing:0;font-weight:500}
.figure span{color:var(--soft);font-size:.92rem;line-height:1.35;display:block;margin-top:.25rem}
.figure.good strong{color:var(--copy)}.figure.bad strong{color:var(--alarm)}
.plot{background:var(--panel);border:1px solid var(--line);border-radius:12px;padding:1rem 1.1rem .7rem;overflow-x:auto}
.plot svg{display:block;width:100%;min-width:620px}
.plot text{font-size:14px;fill:var(--soft)}
@media(max-width:720px){.plot{padding:.6rem .5rem}.plot svg{min-width:0}.plot text{font-size:22px}}
.grid line{stroke:var(--line);stroke-width:1}
circle{stroke:var(--panel);stroke-width:1.5}
circle.copy{fill:var(--copy)}circle.review{fill:var(--review)}circle.different{fill:var(--different)}
circle.odd{stroke:var(--alarm);stroke-width:3}
.legend{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;color:var(--soft);font-size:.9rem;margin-bottom:.7rem;
max-width:none}
.legend span{display:inline-flex;align-items:center;gap:.4rem}
.legend i{width:.7rem;height:.7rem;border-radius:50%;background:var(--different)}
.legend i.copy{background:var(--copy)}.legend i.review{background:var(--review)}
.legend i.odd{background:none;border:3px solid var(--alarm)}
details{margin-top:.9rem}
summary{cursor:pointer;color:var(--accent);width:fit-content}
details dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.1rem;margin-top:.6rem;max-width:80ch}
details dt{font-weight:600}details dd{color:var(--soft)}
.filters{border:0;padding:0;display:flex;flex-wrap:wrap;gap:.45rem;margin-bottom:1.1rem}
.filters legend{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.filters input{position:absolute;opacity:0}
.filters span{display:block;border:1px solid var(--line);background:var(--panel);border-radius:99px;
padding:.28rem .85rem;cursor:pointer;font-size:.92rem}
.filters small{color:var(--soft);font-size:inherit;font-variant-numeric:tabular-nums}
.filters input:checked+span{background:var(--ink);border-color:var(--ink);color:var(--page)}
.filters input:checked+span small{color:inherit;opacity:.7}
.filters input:focus-visible+span,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.filtered:has([value=copy]:checked) .card:not([data-verdict=copy]),
.filtered:has([value=review]:checked) .card:not([data-verdict=review]),
.filtered:has([value=different]:checked) .card:not([data-verdict=different]),
.filtered:has([value=refused]:checked) .card:not([data-verdict=refused]),
.filtered:has([value=missed]:checked) .card.found{display:none}
section>p{color:var(--soft);margin:-.4rem 0 1.1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,285px),1fr));gap:1rem}
.card{background:var(--panel);border:1px solid var(--line);border-radius:12px;overflow:hidden;display:flex;
flex-direction:column}
.card.wrong,.card.alarm{border-color:var(--alarm);box-shadow:inset 0 0 0 1px var(--alarm)}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1px;background:var(--line)}
.pair figure{background:var(--sunk);display:flex;flex-direction:column}
.pair img,.nothing{width:100%;aspect-ratio:1;object-fit:contain;display:block;padding:.5rem}
.nothing{display:grid;place-items:center;font-size:2.6rem;color:var(--soft)}
figcaption{font-size:.78rem;color:var(--soft);text-align:center;padding:0 .5rem .45rem;line-height:1.2}
.facts{padding:.85rem 1rem 1rem;display:flex;flex-direction:column;gap:.55rem;flex:1}
.said{display:flex;align-items:center;gap:.5rem;font-size:.9rem;color:var(--soft)}
.wrong .said span,.alarm .said span{color:var(--alarm);font-weight:600}
.pill{font-size:.8rem;font-weight:600;padding:.1rem .6rem;border-radius:99px;border:1px solid currentColor;
color:var(--different)}
.pill.copy{color:var(--panel);background:var(--copy);border-color:var(--copy)}
.pill.review{color:var(--review)}
.alarm .pill.copy{background:var(--alarm);border-color:var(--alarm)}
.meter{height:5px;border-radius:3px;background:var(--sunk);overflow:hidden}
.meter i{display:block;height:100%;background:var(--different);border-radius:3px}
[data-verdict=copy] .meter i{background:var(--copy)}[data-verdict=review] .meter i{background:var(--review)}
.alarm .meter i{background:var(--alarm)}
.facts dl{display:grid;grid-template-columns:1fr 1fr;gap:.05rem 1.2rem;font-size:.84rem;margin-top:auto}
.facts dl div{display:flex;justify-content:space-between;gap:.4rem}
.facts dt{color:var(--soft)}.facts dd{font-variant-numeric:tabular-nums}
.refusal{font-size:.88rem;color:var(--soft)}
.shelf{display:grid;grid-template-columns:repeat(auto-fill,minmax(110px,1fr));gap:.8rem}
.shelf figure{background:var(--panel);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.shelf img{width:100%;aspect-ratio:1;object-fit:cover;display:block;margin-bottom:.45rem}
footer{margin-top:3.5rem;border-top:1px solid var(--line);color:var(--soft);font-size:.86rem}
footer h2{font-size:1rem;margin:1.4rem 0 .6rem;color:var(--ink)}
footer ul{list-style:none;padding:0;columns:20rem;column-gap:2.2rem;margin-bottom:1.2rem}
footer li{break-inside:avoid;padding:.14rem 0}
footer b{color:var(--ink);font-weight:550}
@media print{.filters{display:none}.card{break-inside:avoid}}
"""
