//! A picture of the dashboard from the data of a run, as SVG: Grafana itself has no Go module that a test could build.
//! `TSDP_PICTURE=1 cargo test --test suite -- each_query_of_dashboard` writes it.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use super::{dashboard::Panel, scraper::Prometheus};

const PICTURE: &str = "docs/images/dashboard.svg";
/// Pixels of a unit of Grafana's grid.
const COLUMN: f64 = 50.0;
const ROW: f64 = 22.0;
const COLORS: [&str; 8] = [
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#56d9d9", "#c0c0c0",
];

/// A series: its words, and a value for each point in time (0 to 1).
struct Line {
    words: String,
    points: Vec<(f64, f64)>,
}

pub async fn write(prometheus: &Prometheus, panels: &[Panel], seconds: u64) {
    let height = panels
        .iter()
        .map(|it| it.place[1] + it.place[3])
        .fold(0.0, f64::max)
        * ROW;
    let width = 24.0 * COLUMN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#111217\"/>\n"
    );
    for panel in panels {
        let mut lines = Vec::new();
        for (query, legend) in &panel.queries {
            let seconds = i64::try_from(seconds).unwrap();
            for series in prometheus.over(query, seconds).await.unwrap() {
                lines.push(line(&series, legend, seconds));
            }
        }
        draw(&mut svg, panel, &lines);
    }
    svg.push_str("</svg>\n");
    let file = format!("{}/{PICTURE}", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
    fs::write(file, svg).unwrap();
}

fn line(series: &Value, legend: &str, seconds: i64) -> Line {
    let mut words = legend.to_owned();
    for (label, value) in series["metric"].as_object().into_iter().flatten() {
        words = words.replace(
            &format!("{{{{{label}}}}}"),
            value.as_str().unwrap_or_default(),
        );
    }
    let values = series["values"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_str().and_then(|it| it.parse::<f64>().ok());
    let last = values
        .last()
        .and_then(|it| it[0].as_f64())
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a few minutes")]
    let all = seconds as f64;
    let points = values.iter().filter_map(|it| {
        let value = number(&it[1]).filter(|value| value.is_finite())?;
        Some((1.0 - (last - it[0].as_f64()?) / all, value))
    });
    Line {
        words,
        points: points.collect(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn draw(svg: &mut String, panel: &Panel, lines: &[Line]) {
    let [x, y, w, h] = panel.place;
    let (x, y, w, h) = (x * COLUMN, y * ROW, w * COLUMN, h * ROW);
    let title = escaped(&panel.title);
    if panel.kind == "row" {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" fill=\"#ccccdc\" font-size=\"13\">{title}</text>",
            x + 6.0,
            y + 15.0
        );
        return;
    }
    let _ = writeln!(
        svg,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\" fill=\"#181b1f\"/>\
         <text x=\"{}\" y=\"{}\" fill=\"#ccccdc\">{title}</text>",
        x + 2.0,
        y + 2.0,
        w - 4.0,
        h - 4.0,
        x + 10.0,
        y + 18.0
    );
    match panel.kind.as_str() {
        "stat" => stat(svg, panel, lines, (x, y, w, h)),
        _ => graph(svg, panel, lines, (x, y, w, h)),
    }
}

fn stat(svg: &mut String, panel: &Panel, lines: &[Line], (x, y, w, h): (f64, f64, f64, f64)) {
    let count = lines.len().clamp(1, 4);
    for (number, line) in lines.iter().take(count).enumerate() {
        let Some((_, value)) = line.points.last() else {
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 4")]
        let middle = x + w * (number as f64 + 0.5) / count as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.0}\" y=\"{:.0}\" fill=\"{}\" font-size=\"20\" text-anchor=\"middle\">{}</text>\
             <text x=\"{middle:.0}\" y=\"{:.0}\" fill=\"#8e8e9b\" text-anchor=\"middle\">{}</text>",
            y + h * 0.62,
            COLORS[0],
            shown(*value, &panel.unit),
            y + h * 0.62 + 16.0,
            escaped(&line.words)
        );
    }
}

fn graph(svg: &mut String, panel: &Panel, lines: &[Line], (x, y, w, h): (f64, f64, f64, f64)) {
    let (left, top) = (x + 56.0, y + 28.0);
    let (right, bottom) = (x + w - 12.0, y + h - 40.0);
    let values = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.1));
    let most = values.fold(0.0_f64, f64::max);
    let most = if most > 0.0 { most * 1.1 } else { 1.0 };
    for (share, value) in [(0.0, 0.0), (0.5, most / 2.0), (1.0, most)] {
        let at = bottom - (bottom - top) * share;
        let _ = writeln!(
            svg,
            "<path d=\"M{left:.0} {at:.0}H{right:.0}\" stroke=\"#2c3036\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" fill=\"#8e8e9b\" text-anchor=\"end\">{}</text>",
            left - 5.0,
            at + 4.0,
            shown(value, &panel.unit)
        );
    }
    // The words stand below, in two rows.
    let (mut legend, mut row) = (left, bottom + 16.0);
    for (number, line) in lines.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(time, value)| {
                let (at, up) = (left + (right - left) * time, (bottom - top) * value / most);
                format!("{at:.0},{:.1}", bottom - up)
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.3\"/>",
            points.join(" ")
        );
        #[expect(clippy::cast_precision_loss, reason = "a few words")]
        let length = line.words.chars().count() as f64 * 6.0 + 16.0;
        if legend + length > right && row < bottom + 20.0 {
            (legend, row) = (left, row + 14.0);
        }
        if legend + length <= right {
            let _ = writeln!(
                svg,
                "<text x=\"{legend:.0}\" y=\"{row:.0}\" fill=\"{color}\">{}</text>",
                escaped(&line.words)
            );
            legend += length;
        }
    }
}

/// A value as Grafana shows it.
fn shown(value: f64, unit: &str) -> String {
    match unit {
        "bool_yes_no" if value > 0.0 => "Yes".to_owned(),
        "bool_yes_no" => "No".to_owned(),
        "dateTimeAsIso" => {
            #[expect(clippy::cast_possible_truncation, reason = "a time of today")]
            let time = jiff::Timestamp::from_millisecond(value as i64).unwrap();
            time.strftime("%Y-%m-%d %H:%M").to_string()
        }
        "bytes" => format!("{:.0} MiB", value / 1024.0 / 1024.0),
        "percentunit" => format!("{:.0} %", value * 100.0),
        "s" if value > 0.0 && value < 0.1 => format!("{:.1} ms", value * 1000.0),
        "s" => format!("{value:.1} s"),
        _ if value.fract().abs() < 0.005 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}
