//! The dashboard: one HTML page with charts in SVG, without a script and without anything from elsewhere.
//!
//! Every text comes out of tables that strangers write to (file names, user names, notes), so that all of it passes
//! [`escape`], and the page's own policy forbids scripts and loading.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Data that make no page.
#[derive(Debug, Error)]
#[error("the dashboard's data are not as expected: {0}")]
pub struct PageError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Data {
    database: String,
    user: String,
    generated: String,
    time_zone: String,
    totals: Totals,
    daily: Vec<Day>,
    precision: Vec<Precision>,
    ages: Vec<Bar>,
    references: Vec<Bar>,
    uploaders: Vec<Bar>,
    reviewers: Vec<Bar>,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Totals {
    open: i64,
    confirmed: i64,
    dismissed: i64,
    /// None where the reader may not see the queue.
    waiting: Option<i64>,
    failed: Option<i64>,
    lag: Option<String>,
}

#[derive(Deserialize)]
struct Day {
    day: String,
    open: i64,
    confirmed: i64,
    dismissed: i64,
}

#[derive(Deserialize)]
struct Precision {
    reference_set: String,
    verdict: String,
    reviewed: i64,
    precision: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Bar {
    name: String,
    findings: i64,
}

#[derive(Deserialize)]
struct Finding {
    id: i64,
    found: String,
    reference_set: String,
    upload: String,
    reference: String,
    probability: f64,
    verdict: String,
    state: String,
    uploader: Option<String>,
    note: Option<String>,
    /// JPEG in base64; None where the reader may not see the picture.
    upload_image: Option<String>,
    reference_image: Option<String>,
}

/// Renders the page from the JSON that `copymatch.dashboard()` collects.
///
/// # Errors
/// A field is missing or of another type.
pub fn render(data: Value) -> Result<String, PageError> {
    let data: Data = serde_json::from_value(data)?;
    let mut page = String::with_capacity(64 * 1024);
    page.push_str(HEAD);
    write(
        &mut page,
        format_args!(
            "<header><h1>copymatch</h1><p>database {}, as {} sees it, {} ({})</p></header>\n",
            escape(&data.database),
            escape(&data.user),
            escape(&data.generated),
            escape(&data.time_zone)
        ),
    );
    tiles(&mut page, &data.totals);
    section(&mut page, "Findings by day", |page| daily(page, &data.daily));
    page.push_str("<div class=\"pair\">");
    section(&mut page, "Precision, from reviews", |page| {
        precision(page, &data.precision)
    });
    section(&mut page, "Open findings by age", |page| bars(page, &data.ages));
    section(&mut page, "References found most often", |page| {
        bars(page, &data.references)
    });
    section(&mut page, "Uploaders with most findings", |page| {
        bars(page, &data.uploaders)
    });
    section(&mut page, "Reviewers", |page| bars(page, &data.reviewers));
    page.push_str("</div>");
    section(&mut page, "Latest findings", |page| findings(page, &data.findings));
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn write(page: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = page.write_fmt(arguments);
}

/// Text for HTML content and for attributes in double quotes. Control characters, which no page may hold, become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Bidirectional overrides would let a name rewrite the line that it stands in.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn section(page: &mut String, title: &str, body: impl FnOnce(&mut String)) {
    write(page, format_args!("<section><h2>{}</h2>\n", escape(title)));
    body(page);
    page.push_str("</section>\n");
}

fn tiles(page: &mut String, totals: &Totals) {
    page.push_str("<div class=\"tiles\">");
    let mut tile = |name: &str, value: String, class: &str| {
        write(
            page,
            format_args!("<div class=\"tile {class}\"><b>{}</b>{name}</div>", escape(&value)),
        );
    };
    tile("open", grouped(totals.open), "open");
    tile("confirmed", grouped(totals.confirmed), "confirmed");
    tile("dismissed", grouped(totals.dismissed), "dismissed");
    if let Some(waiting) = totals.waiting {
        tile("waiting in the queue", grouped(waiting), "");
    }
    if let Some(failed) = totals.failed {
        tile(
            "failed in the queue",
            grouped(failed),
            if failed > 0 { "alarm" } else { "" },
        );
    }
    if let Some(lag) = &totals.lag {
        tile("queue lag", lag.clone(), "");
    }
    page.push_str("</div>\n");
}

/// 1234567 as 1,234,567.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 30000 as 30k, 1500000 as 1.5M: what fits beside an axis on a telephone, too.
fn short(number: i64) -> String {
    let in_units = |unit: i64, letter: &str| match (number / unit, number % unit * 10 / unit) {
        (whole, 0) => format!("{whole}{letter}"),
        (whole, tenths) => format!("{whole}.{}{letter}", tenths.abs()),
    };
    match number.abs() {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => in_units(1_000, "k"),
        1_000_000..1_000_000_000 => in_units(1_000_000, "M"),
        _ => in_units(1_000_000_000, "G"),
    }
}

const STATES: [&str; 3] = ["open", "confirmed", "dismissed"];

/// Stacked columns, one a day.
fn daily(page: &mut String, days: &[Day]) {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 240.0;
    const LEFT: f64 = 60.0;
    const BOTTOM: f64 = 34.0;
    /// Room above the uppermost line for half of its label.
    const TOP: f64 = 18.0;
    if days.is_empty() {
        page.push_str("<p class=\"none\">None.</p>");
        return;
    }
    let most = days
        .iter()
        .map(|day| day.open + day.confirmed + day.dismissed)
        .max()
        .unwrap_or(0);
    let top = round_up(most);
    let scale = (HEIGHT - BOTTOM - TOP) / top as f64;
    let step = (WIDTH - LEFT) / days.len() as f64;
    write(
        page,
        format_args!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"findings by day and state\">"),
    );
    for part in 0..=2 {
        let value = top * part / 2;
        let y = HEIGHT - BOTTOM - value as f64 * scale;
        write(
            page,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                short(value)
            ),
        );
    }
    let every = days.len().div_ceil(10);
    for (at, day) in days.iter().enumerate() {
        let x = LEFT + at as f64 * step;
        write(
            page,
            format_args!(
                "<g><title>{}: {} open, {} confirmed, {} dismissed</title>",
                escape(&day.day),
                grouped(day.open),
                grouped(day.confirmed),
                grouped(day.dismissed)
            ),
        );
        let mut y = HEIGHT - BOTTOM;
        for (state, count) in STATES.iter().zip([day.open, day.confirmed, day.dismissed]) {
            let height = count as f64 * scale;
            y -= height;
            write(
                page,
                format_args!(
                    "<rect class=\"{state}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                    x + 1.0,
                    (step - 2.0).max(1.0)
                ),
            );
        }
        page.push_str("</g>");
        if at % every == 0 {
            // Month and day: the year stands above the page's fold already.
            let label = day.day.get(5..).unwrap_or(&day.day);
            write(
                page,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                    x + step / 2.0,
                    HEIGHT - 8.0,
                    escape(label)
                ),
            );
        }
    }
    page.push_str("</svg><p class=\"legend\">");
    for state in STATES {
        write(page, format_args!("<span class=\"key {state}\"></span>{state} "));
    }
    page.push_str("</p>\n");
}

/// The next number with one digit that is not zero, at least 2 and even.
fn round_up(most: i64) -> i64 {
    let mut unit = 1;
    while most / unit >= 10 {
        unit *= 10;
    }
    let rounded = most.div_euclid(unit) * unit + if most % unit == 0 { 0 } else { unit };
    (rounded + rounded % 2).max(2)
}

fn bars(page: &mut String, bars: &[Bar]) {
    let most = bars.iter().map(|bar| bar.findings).max().unwrap_or(0);
    if most <= 0 {
        page.push_str("<p class=\"none\">None.</p>");
        return;
    }
    page.push_str("<ul class=\"bars\">");
    for bar in bars {
        let width = 100.0 * bar.findings.max(0) as f64 / most as f64;
        let drawn = format!("<rect class=\"open\" width=\"{width:.1}\" height=\"10\"/>");
        row(page, &bar.name, &grouped(bar.findings), &drawn);
    }
    page.push_str("</ul>\n");
}

/// A name and its figures in one line, and the bar below it: neither takes the other's room, however long a name is.
fn row(page: &mut String, name: &str, figures: &str, drawn: &str) {
    write(
        page,
        format_args!(
            "<li><p><span>{}</span><b>{}</b></p>\
             <svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{drawn}</svg></li>",
            escape(name),
            escape(figures)
        ),
    );
}

fn precision(page: &mut String, rows: &[Precision]) {
    if rows.is_empty() {
        page.push_str("<p class=\"none\">Nothing reviewed yet.</p>");
        return;
    }
    page.push_str("<ul class=\"bars\">");
    for reviewed in rows {
        let [at, low, high] = [reviewed.precision, reviewed.low, reviewed.high].map(|part| 100.0 * part);
        row(
            page,
            &format!("{} · {}", reviewed.reference_set, reviewed.verdict),
            &format!("{at:.1} % ({low:.1}–{high:.1}) of {}", grouped(reviewed.reviewed)),
            &format!(
                "<rect class=\"confirmed\" width=\"{at:.1}\" height=\"10\"/>\
                 <rect class=\"interval\" x=\"{low:.1}\" y=\"3.5\" width=\"{:.1}\" height=\"3\"/>",
                high - low
            ),
        );
    }
    page.push_str(
        "</ul><p class=\"none\">Confirmed of all reviewed, with the 95 % interval (Clopper and Pearson).</p>\n",
    );
}

fn findings(page: &mut String, findings: &[Finding]) {
    if findings.is_empty() {
        page.push_str("<p class=\"none\">None.</p>");
        return;
    }
    page.push_str("<div class=\"findings\">");
    for finding in findings {
        page.push_str("<article><div class=\"pictures\">");
        picture(page, "upload", finding.upload_image.as_deref());
        picture(page, "reference", finding.reference_image.as_deref());
        write(
            page,
            format_args!(
                "</div><p><b>#{}</b> <span class=\"state {}\">{}</span> {} · {:.1} %</p><p>upload {}<br>reference {} of {}</p>",
                finding.id,
                class(&finding.state),
                escape(&finding.state),
                escape(&finding.verdict),
                100.0 * finding.probability,
                escape(&finding.upload),
                escape(&finding.reference),
                escape(&finding.reference_set)
            ),
        );
        write(page, format_args!("<p class=\"none\">{}", escape(&finding.found)));
        if let Some(uploader) = &finding.uploader {
            write(page, format_args!(" · by {}", escape(uploader)));
        }
        page.push_str("</p>");
        if let Some(note) = finding.note.as_deref().filter(|note| !note.is_empty()) {
            write(page, format_args!("<p class=\"note\">{}</p>", escape(note)));
        }
        page.push_str("</article>\n");
    }
    page.push_str("</div>\n");
}

fn picture(page: &mut String, what: &str, base64: Option<&str>) {
    let valid = |text: &&str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
    };
    match base64.filter(valid) {
        Some(data) => write(
            page,
            format_args!("<img alt=\"{what}\" src=\"data:image/jpeg;base64,{data}\">"),
        ),
        None => write(page, format_args!("<div class=\"absent\">{what} not shown</div>")),
    }
}

/// A state as the name of a CSS class: one of ours, or none.
fn class(state: &str) -> &'static str {
    STATES.into_iter().find(|known| *known == state).unwrap_or("")
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>copymatch</title>
<style>
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --paper: #f6f7f9; --card: #fff; --line: #e3e6ec;
  --open: #3b82c4; --confirmed: #c2483d; --dismissed: #a8b0bd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --paper: #14171d; --card: #1d2129; --line: #303642; } }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { margin: 0; font-size: 1.5rem; } h2 { margin: 0 0 .6rem; font-size: 1rem; }
header p, .none { margin: .2rem 0; color: var(--soft); font-size: .85rem; }
section, .tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem; }
section { margin: 1rem 0 0; overflow: hidden; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin-top: 1rem; }
.tile { flex: 1 1 8rem; color: var(--soft); font-size: .85rem; border-top: 3px solid var(--line); }
.tile b { display: block; font-size: 1.5rem; color: var(--ink); font-variant-numeric: tabular-nums; }
.tile.open { border-top-color: var(--open); } .tile.confirmed, .tile.alarm { border-top-color: var(--confirmed); }
.tile.dismissed { border-top-color: var(--dismissed); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 0 1rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } rect.open, .key.open { fill: var(--open); background: var(--open); }
rect.confirmed, .key.confirmed { fill: var(--confirmed); background: var(--confirmed); }
rect.dismissed, .key.dismissed { fill: var(--dismissed); background: var(--dismissed); }
rect.interval { fill: var(--ink); opacity: .55; }
.legend { margin: .4rem 0 0; font-size: .85rem; } .key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; border-radius: 2px; }
.bars { list-style: none; margin: 0; padding: 0; font-size: .85rem; } .bars li + li { margin-top: .55rem; }
.bars p { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0 0 .15rem; }
.bars span { min-width: 0; overflow-wrap: anywhere; }
.bars b { margin-left: auto; font-weight: normal; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars svg { height: .6rem; background: var(--paper); border-radius: 2px; }
@media (max-width: 640px) { svg text { font-size: 20px; } }
.findings { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .9rem; }
article { border: 1px solid var(--line); border-radius: 8px; padding: .7rem; overflow-wrap: anywhere; font-size: .85rem; }
article p { margin: .4rem 0 0; } .note { border-left: 3px solid var(--line); padding-left: .5rem; white-space: pre-wrap; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; align-items: center; }
img { width: 100%; height: 8rem; object-fit: contain; background: var(--paper); border-radius: 4px; }
.absent { height: 8rem; display: grid; place-items: center; text-align: center; color: var(--soft); background: var(--paper); border-radius: 4px; }
.state { padding: 0 .4em; border-radius: 4px; border: 1px solid var(--line); } .state.open { color: var(--open); } .state.confirmed { color: var(--confirmed); }
</style>
</head>
<body>
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn page(text: &str) -> Result<String, PageError> {
        render(json!({
            "database": text, "user": text, "generated": text, "time_zone": text,
            "totals": {"open": 1234567, "confirmed": 2, "dismissed": 3, "waiting": 4, "failed": 0, "lag": text},
            "daily": [{"day": text, "open": 1, "confirmed": 2, "dismissed": 3}],
            "precision": [{"reference_set": text, "verdict": text, "reviewed": 5, "precision": 0.4, "low": 0.1, "high": 0.8}],
            "ages": [{"name": text, "findings": 3}], "references": [], "uploaders": [{"name": text, "findings": 0}],
            "reviewers": [{"name": text, "findings": 5}],
            "findings": [{"id": 1, "found": text, "reference_set": text, "upload": text, "reference": text, "probability": 0.5,
                "verdict": text, "state": text, "uploader": text, "note": text, "upload_image": text, "reference_image": "QUJD"}],
        }))
    }

    #[test]
    fn page_is_whole_and_loads_nothing() -> Result<(), PageError> {
        let page = page("plain")?;
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("1,234,567") && page.contains("data:image/jpeg;base64,QUJD"));
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
        Ok(())
    }

    #[test]
    fn numbers_are_grouped_and_axes_end_on_round_ones() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(-12345)],
            ["0", "999", "1,000", "-12,345"]
        );
        assert_eq!(
            [round_up(0), round_up(7), round_up(11), round_up(999), round_up(1000)],
            [2, 8, 20, 1000, 1000]
        );
        assert_eq!(
            [short(0), short(999), short(1500), short(30_000), short(2_500_000)],
            ["0", "999", "1.5k", "30k", "2.5M"]
        );
    }

    #[test]
    fn a_long_name_stands_above_its_bar_and_leaves_the_figures_their_room() -> Result<(), PageError> {
        let page = page("a name")?;
        // No columns of a table, which a long figure would leave a letter's width for the name.
        assert!(!page.contains("<table"));
        assert!(page.contains("<li><p><span>a name · a name</span><b>40.0 % (10.0–80.0) of 5</b></p><svg"));
        Ok(())
    }

    #[test]
    fn missing_data_are_named() {
        assert!(render(json!({"database": "x"})).is_err_and(|error| error.to_string().contains("user")));
    }

    proptest! {
        #[test]
        fn no_text_adds_a_tag_or_an_attribute(text in "[<>\"'&a-z/= \u{202e}\u{7}]{0,24}") {
            // Whatever a stranger's text is, the page has the tags and quotes that it has with a harmless one.
            let count = |page: &str, character: char| page.matches(character).count();
            let (harmless, hostile) = (page("!")?, page(&text)?);
            // A text of base64's letters makes an <img>, which has its own quotes.
            prop_assume!(!text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')));
            for character in ['<', '>', '"'] {
                prop_assert_eq!(count(&harmless, character), count(&hostile, character));
            }
            let unfit = hostile.contains(['\u{202e}', '\u{7}']);
            prop_assert!(!unfit);
        }
    }
}
