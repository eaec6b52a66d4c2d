//! A run as bars on an axis of time: when each step could have begun, when it ran, how often it was tried.

use std::fmt::Write as _;
use std::time::Duration;

use super::svg::{heading, legend, open};
use super::text::{fit, one_line, xml};
use super::{Error, MOST_BARS, MOST_TASKS, State};

const NAMES: f64 = 190.0;
const PLOT: f64 = 720.0;
const TIMES: f64 = 118.0;
const MARGIN: f64 = 28.0;
const HEAD: f64 = 78.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
const FOOT: f64 = 52.0;

#[derive(Debug, Clone, Default)]
pub struct Timeline {
    pub title: String,
    /// From the start of the run until now, or until its end.
    pub length: Duration,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
pub struct Row {
    pub id: String,
    pub label: String,
    /// Attempts, in order.
    pub bars: Vec<Bar>,
}

/// Times are counted from the start of the run.
#[derive(Debug, Clone)]
pub struct Bar {
    pub queued: Duration,
    pub started: Option<Duration>,
    pub ended: Option<Duration>,
    pub end: End,
    pub worker: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// It has not begun, or it is at it.
    #[default]
    Open,
    Completed,
    Failed,
    Cancelled,
}

impl Bar {
    fn state(&self) -> State {
        match self.end {
            End::Open if self.started.is_some() => State::Running,
            End::Open => State::Ready,
            End::Completed => State::Completed,
            End::Failed => State::Failed,
            End::Cancelled => State::Cancelled,
        }
    }
}

/// Steps by when they could begin.
pub fn timeline(run: &Timeline) -> Result<String, Error> {
    let limit = |what, found, most| if found > most { Err(Error::TooLarge { what, found, most }) } else { Ok(()) };
    limit("tasks", run.rows.len(), MOST_TASKS)?;
    limit("attempts", run.rows.iter().map(|row| row.bars.len()).sum(), MOST_BARS)?;
    let mut rows: Vec<&Row> = run.rows.iter().collect();
    rows.sort_by_key(|row| row.bars.first().map_or(Duration::MAX, |bar| bar.queued));
    let last = run.rows.iter().flat_map(|row| &row.bars).filter_map(|bar| bar.ended.or(bar.started)).max();
    let length = run.length.max(last.unwrap_or_default()).max(Duration::from_micros(1));
    let axis = Axis { length: length.as_secs_f64() };
    let (width, height) = (2.0 * MARGIN + NAMES + PLOT + TIMES, HEAD + FOOT + ROW * rows.len() as f64);
    let mut out = String::new();
    open(&mut out, width, height, &run.title);
    heading(&mut out, &run.title, &span(length.as_secs_f64()), width);
    for (i, _) in rows.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
        let (x, y, w) = (MARGIN - 8.0, HEAD + ROW * i as f64, width - 2.0 * MARGIN + 16.0);
        _ = writeln!(out, "<rect class=\"row\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{ROW}\" rx=\"5\"/>");
    }
    for tick in axis.ticks() {
        let (x, bottom) = (axis.at(tick), HEAD + ROW * rows.len() as f64);
        _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>",
            HEAD - 6.0
        );
        _ = writeln!(
            out,
            "<text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEAD - 12.0,
            span(tick)
        );
    }
    for (i, row) in rows.iter().enumerate() {
        self::row(&mut out, row, &axis, HEAD + ROW * (i as f64 + 0.5));
    }
    let bars: Vec<&Bar> = run.rows.iter().flat_map(|row| &row.bars).collect();
    let states = State::ALL.map(|state| (state, bars.iter().filter(|bar| bar.state() == state).count()));
    legend(&mut out, &states, height - 18.0);
    _ = writeln!(
        out,
        "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">attempts; a thin line is waiting for a worker, dots \
         are the pause before a retry</text>",
        width - MARGIN,
        height - 18.0
    );
    out.push_str("</svg>\n");
    Ok(out)
}

struct Axis {
    length: f64,
}

impl Axis {
    fn at(&self, seconds: f64) -> f64 {
        MARGIN + NAMES + PLOT * (seconds / self.length).clamp(0.0, 1.0)
    }

    /// Some five to ten round times.
    fn ticks(&self) -> Vec<f64> {
        let rough = self.length / 6.0;
        let unit = 10f64.powf(rough.log10().floor());
        let minutes = [60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0];
        let step = if rough > 30.0 {
            let days = (rough / 86_400.0).ceil() * 86_400.0;
            minutes.into_iter().find(|step| *step >= rough).unwrap_or(days)
        } else {
            [1.0, 2.0, 5.0, 10.0].map(|k| k * unit).into_iter().find(|step| *step >= rough).unwrap_or(rough)
        };
        (0..20).map(|i| f64::from(i) * step).take_while(|tick| *tick <= self.length * 1.000_1).collect()
    }
}

fn row(out: &mut String, row: &Row, axis: &Axis, y: f64) {
    let tip = if row.label.is_empty() { row.id.clone() } else { format!("{}: {}", row.id, row.label) };
    _ = writeln!(
        out,
        "<g><title>{}</title><text class=\"i\" x=\"{MARGIN}\" y=\"{:.1}\">{}</text></g>",
        xml(&one_line(&tip)),
        y + 4.5,
        xml(&fit(&row.id, 24.0))
    );
    let mut worked = 0.0;
    let mut last_end: Option<f64> = None;
    let mut right: f64 = 0.0;
    for (i, bar) in row.bars.iter().enumerate() {
        let queued = bar.queued.as_secs_f64();
        let started = bar.started.map_or(axis.length, |at| at.as_secs_f64()).max(queued);
        if let Some(end) = last_end {
            let (from, to) = (axis.at(end), axis.at(queued));
            _ = writeln!(out, "<line class=\"r\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        let (from, to) = (axis.at(queued), axis.at(started));
        if to - from > 0.5 {
            _ = writeln!(
                out,
                "<line class=\"q\" x1=\"{:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                from + 1.5
            );
        }
        right = right.max(to);
        if bar.started.is_none() {
            continue;
        }
        let ended = bar.ended.map_or(axis.length, |at| at.as_secs_f64()).max(started);
        let (x, w) = (axis.at(started), (axis.at(ended) - axis.at(started)).max(3.0));
        let state = bar.state().as_str();
        let on = bar.worker.as_deref().map(|worker| format!(" on {worker}")).unwrap_or_default();
        let tip = format!("{}, attempt {}: {state} after {}{on}", row.id, i + 1, span(ended - started));
        _ = writeln!(
            out,
            "<g><title>{}</title><rect class=\"bar {state}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{BAR}\" \
             rx=\"3\"/>",
            xml(&one_line(&tip)),
            y - BAR / 2.0
        );
        if row.bars.len() > 1 && w > 14.0 {
            let (x, y) = (x + w / 2.0, y + 3.6);
            _ = writeln!(out, "<text class=\"b\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", i + 1);
        }
        out.push_str("</g>\n");
        worked += ended - started;
        last_end = Some(ended);
        right = right.max(x + w);
    }
    if row.bars.is_empty() {
        return;
    }
    let tries = if row.bars.len() > 1 { format!(" · {} tries", row.bars.len()) } else { String::new() };
    let text = if last_end.is_some() { format!("{}{tries}", span(worked)) } else { "waits".to_owned() };
    _ = writeln!(out, "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>", right + 7.0, y + 4.0);
}

fn span(seconds: f64) -> String {
    let round = |value: f64, unit: &str| {
        let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
        format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match seconds {
        s if s <= 0.0 => "0".to_owned(),
        s if s < 1e-3 => round(s * 1e6, "µs"),
        s if s < 0.9995 => round(s * 1e3, "ms"),
        s if s < 90.0 => round(s, "s"),
        s if s < 5_400.0 => round(s / 60.0, "min"),
        s => round(s / 3_600.0, "h"),
    }
}
