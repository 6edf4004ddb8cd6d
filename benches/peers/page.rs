//! One page with a plot per job: a dot per round, a bar at the median, on a logarithmic axis.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::measure::{Row, human, ratio};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 190.0;
const LINE: f64 = 26.0;

pub fn write(jobs: &[(String, Vec<Row>)]) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let page = dir.join("index.html");
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&page, html(jobs)));
    match written {
        Ok(()) => println!("\n{}", page.display()),
        Err(error) => eprintln!("cannot write {}: {error}", page.display()),
    }
}

fn html(jobs: &[(String, Vec<Row>)]) -> String {
    let mut text = String::from(
        "<!doctype html><meta charset=utf-8><title>longshore beside its peers</title><style>\
         body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
         td,th{padding:.1em .9em;text-align:right}td:first-child,th:first-child{text-align:left}\
         .skip{color:#777}svg text{font:12px system-ui,sans-serif}</style><h1>longshore beside its peers</h1>\
         <p>A dot is a round, the bar ends at the median; the axis is logarithmic. Shorter is better. All rounds of a job ran in \
         turn, in one sitting.</p>",
    );
    for (title, rows) in jobs {
        let _ = write!(text, "<h2>{}</h2>{}{}", escape(title), plot(rows), table(rows));
    }
    text
}

fn table(rows: &[Row]) -> String {
    let ours = rows.first();
    let mut text = String::from("<table><tr><th><th>min<th>median<th>min / ours<th>median / ours<th>rounds");
    for row in rows {
        let _ = match (row.min(), row.median()) {
            (Some(min), Some(median)) => write!(
                text,
                "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escape(&row.name),
                human(min),
                human(median),
                ratio(min, ours.and_then(Row::min)),
                ratio(median, ours.and_then(Row::median)),
                row.samples.len()
            ),
            _ => write!(
                text,
                "<tr class=skip><td>{}<td colspan=5>{}",
                escape(&row.name),
                escape(row.reason.as_deref().unwrap_or("no samples"))
            ),
        };
    }
    text + "</table>"
}

fn plot(rows: &[Row]) -> String {
    let all = || rows.iter().flat_map(|row| row.samples.iter().copied());
    let (Some(low), Some(high)) = (all().reduce(f64::min), all().reduce(f64::max)) else {
        return String::new();
    };
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let x = |seconds: f64| LEFT + (seconds.log10() - low) / (high - low).max(1.0) * (WIDTH - LEFT - 20.0);
    let height = LINE * (rows.len() as f64 + 1.0);
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {height}' width='100%'>");
    for power in low as i32..=high as i32 {
        let at = x(10_f64.powi(power));
        let _ = write!(
            svg,
            "<line x1='{at:.1}' x2='{at:.1}' y1='0' y2='{:.0}' stroke='#ddd'/><text x='{at:.1}' y='{:.0}' text-anchor='middle' \
             fill='#777'>{}</text>",
            height - LINE,
            height - 8.0,
            human(10_f64.powi(power))
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = LINE * (number as f64 + 0.5);
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.0}' text-anchor='end'>{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escape(&row.name)
        );
        if let Some(median) = row.median() {
            let colour = if number == 0 { "#2a6fb0" } else { "#b9c4ce" };
            let _ = write!(
                svg,
                "<rect x='{LEFT}' y='{:.0}' width='{:.1}' height='14' fill='{colour}'/>",
                y - 7.0,
                (x(median) - LEFT).max(1.0)
            );
        }
        for sample in &row.samples {
            let _ = write!(
                svg,
                "<circle cx='{:.1}' cy='{y:.0}' r='2.2' fill='#222' fill-opacity='.5'/>",
                x(*sample)
            );
        }
    }
    svg + "</svg>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
