//! The dashboard: one HTML page with charts in SVG, without a script and without anything from elsewhere.
//!
//! Every text comes out of tables that strangers write to (file names, user names, notes): maud escapes all that is put
//! into its templates, and the page's own policy forbids scripts and loading.

mod chart;
mod number;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use number::grouped;

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
pub fn render(mut data: Value) -> Result<String, PageError> {
    show_controls(&mut data);
    let data: Data = serde_json::from_value(data)?;
    Ok(page(&data).into_string() + "\n")
}

/// Puts U+FFFD in the place of characters that are none to look at: control characters, which no page may hold, and
/// bidirectional overrides, by which a name would rewrite the line that it stands in.
fn show_controls(data: &mut Value) {
    match data {
        Value::String(text) => {
            let unfit = |c: char| {
                c.is_control() && !matches!(c, '\n' | '\t')
                    || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            if text.contains(unfit) {
                *text = text.replace(unfit, "\u{fffd}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(show_controls),
        Value::Object(fields) => fields.values_mut().for_each(show_controls),
        _ => {}
    }
}

const STYLE: &str = include_str!("page.css");
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

fn page(data: &Data) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "copymatch" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "copymatch" }
                    p {
                        "database " (data.database) ", as " (data.user) " sees it, " (data.generated)
                        " (" (data.time_zone) ")"
                    }
                }
                (tiles(&data.totals))
                (section("Findings by day", chart::daily(&data.daily)))
                div.pair {
                    (section("Precision, from reviews", precision(&data.precision)))
                    (section("Open findings by age", bars(&data.ages)))
                    (section("References found most often", bars(&data.references)))
                    (section("Uploaders with most findings", bars(&data.uploaders)))
                    (section("Reviewers", bars(&data.reviewers)))
                }
                (section("Latest findings", findings(&data.findings)))
            }
        }
    }
}

fn section(title: &str, body: Markup) -> Markup {
    html! { section { h2 { (title) } (body) } }
}

fn tiles(totals: &Totals) -> Markup {
    let tile = |name: &str, value: &str, class: &str| html! { div class={ "tile " (class) } { b { (value) } (name) } };
    html! {
        div.tiles {
            (tile("open", &grouped(totals.open), "open"))
            (tile("confirmed", &grouped(totals.confirmed), "confirmed"))
            (tile("dismissed", &grouped(totals.dismissed), "dismissed"))
            @if let Some(waiting) = totals.waiting {
                (tile("waiting in the queue", &grouped(waiting), ""))
            }
            @if let Some(failed) = totals.failed {
                (tile("failed in the queue", &grouped(failed), if failed > 0 { "alarm" } else { "" }))
            }
            @if let Some(lag) = &totals.lag {
                (tile("queue lag", lag, ""))
            }
        }
    }
}

const STATES: [&str; 3] = ["open", "confirmed", "dismissed"];

fn nothing(why: &str) -> Markup {
    html! { p.none { (why) } }
}

fn bars(bars: &[Bar]) -> Markup {
    let most = bars.iter().map(|bar| bar.findings).max().unwrap_or(0);
    if most <= 0 {
        return nothing("None.");
    }
    let share = |bar: &Bar| 100.0 * bar.findings.max(0) as f64 / most as f64;
    html! {
        ul.bars {
            @for bar in bars {
                (row(&bar.name, &grouped(bar.findings), chart::bar("open", share(bar))))
            }
        }
    }
}

/// A name and its figures in one line, and the bar below it: neither takes the other's room, however long a name is.
fn row(name: &str, figures: &str, drawn: Markup) -> Markup {
    html! { li { p { span { (name) } b { (figures) } } (chart::line_of(drawn)) } }
}

fn precision(rows: &[Precision]) -> Markup {
    if rows.is_empty() {
        return nothing("Nothing reviewed yet.");
    }
    html! {
        ul.bars {
            @for reviewed in rows {
                @let [at, low, high] = [reviewed.precision, reviewed.low, reviewed.high].map(|part| 100.0 * part);
                (row(
                    &format!("{} · {}", reviewed.reference_set, reviewed.verdict),
                    &format!("{at:.1} % ({low:.1}–{high:.1}) of {}", grouped(reviewed.reviewed)),
                    html! { (chart::bar("confirmed", at)) (chart::interval(low, high)) },
                ))
            }
        }
        p.none { "Confirmed of all reviewed, with the 95 % interval (Clopper and Pearson)." }
    }
}

fn findings(findings: &[Finding]) -> Markup {
    if findings.is_empty() {
        return nothing("None.");
    }
    html! { div.findings { @for finding in findings { (article(finding)) } } }
}

fn article(finding: &Finding) -> Markup {
    let Finding {
        id,
        found,
        reference_set,
        upload,
        reference,
        verdict,
        state,
        ..
    } = finding;
    html! {
        article {
            div.pictures {
                (picture("upload", finding.upload_image.as_deref()))
                (picture("reference", finding.reference_image.as_deref()))
            }
            p {
                b { "#" (id) } " " span class={ "state " (class(state)) } { (state) } " "
                (verdict) (format_args!(" · {:.1} %", 100.0 * finding.probability))
            }
            p { "upload " (upload) br; "reference " (reference) " of " (reference_set) }
            p.none {
                (found)
                @if let Some(uploader) = &finding.uploader { " · by " (uploader) }
            }
            @if let Some(note) = finding.note.as_deref().filter(|note| !note.is_empty()) { p.note { (note) } }
        }
    }
}

fn picture(what: &str, base64: Option<&str>) -> Markup {
    html! {
        @if let Some(data) = base64 {
            img alt=(what) src={ "data:image/jpeg;base64," (data) };
        } @else {
            div.absent { (what) " not shown" }
        }
    }
}

/// A state as the name of a CSS class: one of ours, or none.
fn class(state: &str) -> &'static str {
    STATES.into_iter().find(|known| *known == state).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// With this text wherever there is one.
    fn page_of(text: &str) -> Result<String, PageError> {
        render(json!({
            "database": text, "user": text, "generated": text, "time_zone": text,
            "totals": {"open": 1234567, "confirmed": 2, "dismissed": 3, "waiting": 4, "failed": 0, "lag": text},
            "daily": [{"day": text, "open": 1, "confirmed": 2, "dismissed": 3}],
            "precision": [{
                "reference_set": text, "verdict": text, "reviewed": 5, "precision": 0.4, "low": 0.1, "high": 0.8,
            }],
            "ages": [{"name": text, "findings": 3}], "references": [{"name": text, "findings": 9}],
            "uploaders": [{"name": text, "findings": 0}],
            "reviewers": [{"name": text, "findings": 5}],
            "findings": [{
                "id": 1, "found": text, "reference_set": text, "upload": text, "reference": text, "probability": 0.5,
                "verdict": text, "state": text, "uploader": text, "note": text, "upload_image": text,
                "reference_image": "QUJD",
            }],
        }))
    }

    #[test]
    fn page_is_whole_and_loads_nothing() -> Result<(), PageError> {
        let page = page_of("plain")?;
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("1,234,567") && page.contains("data:image/jpeg;base64,QUJD"));
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
        Ok(())
    }

    #[test]
    fn a_long_name_stands_above_its_bar_and_leaves_the_figures_their_room() -> Result<(), PageError> {
        let page = page_of("a name")?;
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
        fn no_text_adds_a_tag_or_an_attribute(text in "[<>\"'&a-z/= \u{202e}\u{7}]{1,24}") {
            // Whatever a stranger's text is, the page has the tags and quotes that it has with a harmless one.
            let count = |page: &str, character: char| page.matches(character).count();
            let (harmless, hostile) = (page_of("!")?, page_of(&text)?);
            for character in ['<', '>', '"'] {
                prop_assert_eq!(count(&harmless, character), count(&hostile, character));
            }
            let unfit = hostile.contains(['\u{202e}', '\u{7}']);
            prop_assert!(!unfit);
        }
    }
}
