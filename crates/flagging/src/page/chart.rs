//! The charts, in SVG.

use maud::{Markup, html};

use super::number::{grouped, round_up, short};
use super::{Day, STATES, nothing};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 34.0;
/// Room above the uppermost line for half of its label.
const TOP: f64 = 18.0;

/// A coordinate, to a tenth.
fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// Stacked columns, one a day.
pub fn daily(days: &[Day]) -> Markup {
    let totals = days.iter().map(|day| day.open + day.confirmed + day.dismissed);
    let Some(most) = totals.max() else {
        return nothing("None.");
    };
    let top = round_up(most);
    let scale = (HEIGHT - BOTTOM - TOP) / top as f64;
    let step = (WIDTH - LEFT) / days.len() as f64;
    let every = days.len().div_ceil(10);
    html! {
        svg viewBox=(format_args!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label="findings by day and state" {
            @for value in [0, top / 2, top] {
                (grid(value, HEIGHT - BOTTOM - value as f64 * scale))
            }
            @for (at, day) in days.iter().enumerate() {
                @let x = LEFT + at as f64 * step;
                (column(day, x, step, scale))
                @if at % every == 0 {
                    // Month and day: the year stands above the page's fold already.
                    text x=(tenths(x + step / 2.0)) y=(HEIGHT - 8.0) text-anchor="middle" {
                        (day.day.get(5..).unwrap_or(&day.day))
                    }
                }
            }
        }
        p.legend { @for state in STATES { span class={ "key " (state) } {} (state) " " } }
    }
}

fn grid(value: i64, y: f64) -> Markup {
    html! {
        line.grid x1=(LEFT) x2=(WIDTH) y1=(tenths(y)) y2=(tenths(y)) {}
        text x=(LEFT - 8.0) y=(tenths(y + 4.0)) text-anchor="end" { (short(value)) }
    }
}

fn column(day: &Day, x: f64, step: f64, scale: f64) -> Markup {
    let counts = [day.open, day.confirmed, day.dismissed];
    let [open, confirmed, dismissed] = counts.map(grouped);
    let heights = counts.map(|count| count as f64 * scale);
    let tops = [heights[0], heights[0] + heights[1], heights.iter().sum()].map(|height| HEIGHT - BOTTOM - height);
    html! {
        g {
            title { (day.day) ": " (open) " open, " (confirmed) " confirmed, " (dismissed) " dismissed" }
            @for ((state, height), y) in STATES.iter().zip(heights).zip(tops) {
                rect class=(state) x=(tenths(x + 1.0)) y=(tenths(y)) width=(tenths((step - 2.0).max(1.0)))
                    height=(tenths(height)) {}
            }
        }
    }
}

/// What is drawn in percent of a line's width.
pub fn line_of(drawn: Markup) -> Markup {
    html! { svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" { (drawn) } }
}

pub fn bar(class: &str, percent: f64) -> Markup {
    html! { rect class=(class) width=(tenths(percent)) height="10" {} }
}

pub fn interval(low: f64, high: f64) -> Markup {
    html! { rect.interval x=(tenths(low)) y="3.5" width=(tenths(high - low)) height="3" {} }
}
