//! A graph as a picture that needs nothing beside it: no script, no font, no link.

use std::fmt::Write as _;

use super::text::{fit, two_lines, width_of, xml};
use super::{Checked, Error, State, layout};

const BOX: (f64, f64) = (224.0, 58.0);
/// What fits on a line of a box in the widest of the fonts that a viewer may take.
const NAME: f64 = 20.0;
const LINE: f64 = 25.0;
/// Between layers, and between tasks of one.
const GAPS_ACROSS: (f64, f64) = (62.0, 18.0);
const GAPS_DOWN: (f64, f64) = (52.0, 26.0);
const MARGIN: f64 = 28.0;
const HEAD: f64 = 46.0;
const FOOT: f64 = 44.0;
/// A picture this much wider than a page is turned.
const PAGE: f64 = 1.5;

pub(super) fn write(graph: &Checked<'_>) -> Result<String, Error> {
    let work: Vec<usize> = graph.leaves().collect();
    let mut place = vec![0; graph.graph.tasks.len()];
    for (i, &task) in work.iter().enumerate() {
        place[task] = i;
    }
    let edges: Vec<(usize, usize)> =
        graph.work_edges()?.into_iter().map(|(from, to)| (place[from], place[to])).collect();
    let layout = layout::place(work.len(), &edges);
    let canvas = Canvas::fitting(&layout);
    let mut out = String::new();
    let (width, height) = canvas.size(&layout);
    open(&mut out, width, height, &graph.graph.title);
    let done = work.iter().filter(|&&task| graph.graph.tasks[task].state == State::Completed).count();
    heading(&mut out, &graph.graph.title, &format!("{done} of {} completed", work.len()), width);
    out.push_str("<g class=\"edges\">\n");
    for (&(from, to), bends) in edges.iter().zip(&layout.bends) {
        let state = graph.graph.tasks[work[from]].state;
        let class = if state == State::Completed { "e d" } else { "e" };
        let path = canvas.path(layout.tasks[from], bends, layout.tasks[to]);
        _ = writeln!(out, "<path class=\"{class}\" marker-end=\"url(#a)\" d=\"{path}\"/>");
    }
    out.push_str("</g>\n");
    for (i, &task) in work.iter().enumerate() {
        let (x, y) = canvas.middle(layout.tasks[i]);
        node(&mut out, graph, task, x - BOX.0 / 2.0, y - BOX.1 / 2.0);
    }
    let states = State::ALL.map(|state| (state, work.iter().filter(|&&t| graph.graph.tasks[t].state == state).count()));
    legend(&mut out, &states, height - 16.0);
    out.push_str("</svg>\n");
    Ok(out)
}

/// How layers become places.
struct Canvas {
    /// Layers follow each other downward.
    down: bool,
}

impl Canvas {
    fn fitting(layout: &layout::Layout) -> Self {
        let across = Self { down: false }.size(layout);
        let down = Self { down: true }.size(layout);
        // Whichever needs less of a screen.
        let extent = |(width, height): (f64, f64)| width.max(PAGE * height);
        Self { down: extent(down) < extent(across) }
    }

    fn steps(&self) -> (f64, f64) {
        if self.down {
            (BOX.1 + GAPS_DOWN.0, BOX.0 + GAPS_DOWN.1)
        } else {
            (BOX.0 + GAPS_ACROSS.0, BOX.1 + GAPS_ACROSS.1)
        }
    }

    fn size(&self, layout: &layout::Layout) -> (f64, f64) {
        let (step, beside) = self.steps();
        let along = layout.layers.saturating_sub(1) as f64 * step;
        let across = layout.width * beside;
        let (w, h) = if self.down { (across, along) } else { (along, across) };
        // Room for the heading and the legend of the narrowest too.
        ((w + BOX.0 + 2.0 * MARGIN).max(520.0), h + BOX.1 + HEAD + FOOT + MARGIN)
    }

    fn middle(&self, (layer, across): (usize, f64)) -> (f64, f64) {
        let (step, beside) = self.steps();
        let (along, across) = (layer as f64 * step, across * beside);
        let (x, y) = if self.down { (across, along) } else { (along, across) };
        (x + MARGIN + BOX.0 / 2.0, y + HEAD + MARGIN / 2.0 + BOX.1 / 2.0)
    }

    /// Straight through the layers of its bends, curved between them.
    fn path(&self, from: (usize, f64), bends: &[(usize, f64)], to: (usize, f64)) -> String {
        let half = if self.down { BOX.1 / 2.0 } else { BOX.0 / 2.0 };
        // Along the layers first, across second, whichever way they go.
        let turned = |(x, y): (f64, f64)| if self.down { (y, x) } else { (x, y) };
        let point = |(along, across): (f64, f64)| {
            let (x, y) = if self.down { (across, along) } else { (along, across) };
            format!("{x:.1} {y:.1}")
        };
        let (start, end) = (turned(self.middle(from)), turned(self.middle(to)));
        let mut at = (start.0 + half, start.1);
        let mut path = format!("M{}", point(at));
        let curve = |path: &mut String, at: (f64, f64), to: (f64, f64)| {
            let bend = (to.0 - at.0) / 2.0;
            let (c1, c2) = ((at.0 + bend, at.1), (to.0 - bend, to.1));
            _ = write!(path, " C{} {} {}", point(c1), point(c2), point(to));
        };
        for &bend in bends {
            let (along, across) = turned(self.middle(bend));
            curve(&mut path, at, (along - half, across));
            _ = write!(path, " L{}", point((along + half, across)));
            at = (along + half, across);
        }
        curve(&mut path, at, (end.0 - half - 7.0, end.1));
        path
    }
}

fn node(out: &mut String, graph: &Checked<'_>, task: usize, x: f64, y: f64) {
    let node = &graph.graph.tasks[task];
    let state = node.state.as_str();
    _ = writeln!(out, "<g class=\"n {state}\" transform=\"translate({x:.1} {y:.1})\">");
    let tip = if node.label.is_empty() { node.id.clone() } else { format!("{}: {}", node.id, node.label) };
    _ = writeln!(out, "<title>{} ({state})</title>", xml(&super::text::one_line(&tip)));
    _ = writeln!(out, "<rect width=\"{}\" height=\"{}\" rx=\"9\"/>", BOX.0, BOX.1);
    sign(out, node.state, 20.0, BOX.1 / 2.0);
    let lines = two_lines(&node.label, LINE);
    let group = graph.parent[task].map(|group| graph.graph.tasks[group].id.as_str());
    let top = match (lines.len(), group) {
        (0, None) => 33.5,
        (0, Some(_)) | (1, None) => 26.0,
        (1, Some(_)) | (2, None) => 20.0,
        _ => 18.0,
    };
    let mut y = top;
    let name = fit(&node.id, NAME);
    // A group is named above what is in it; where that is full it takes the second line's place.
    let shown = if group.is_some() { lines.len().min(1) } else { lines.len() };
    if let Some(group) = group {
        y = if shown == 0 { 23.0 } else { 16.0 };
        _ = writeln!(out, "<text class=\"g\" x=\"38\" y=\"{y}\">{}</text>", xml(&fit(group, LINE)));
        y += 15.0;
    }
    _ = writeln!(out, "<text class=\"i\" x=\"38\" y=\"{y}\">{}</text>", xml(&name));
    let label = if shown == 1 { vec![fit(&node.label, LINE)] } else { lines };
    for line in label.iter().take(shown) {
        y += 14.0;
        _ = writeln!(out, "<text class=\"l\" x=\"38\" y=\"{y}\">{}</text>", xml(line));
    }
    out.push_str("</g>\n");
}

/// A disc with a drawn sign, so that no state is told by its colour alone and no font is asked for it.
pub(super) fn sign(out: &mut String, state: State, x: f64, y: f64) {
    let path = match state {
        State::Waiting => "M-3.5 0h.01M0 0h.01M3.5 0h.01",
        State::Ready => "M0 -4.5V0L3 2.5",
        State::Running => "M-2.2 -4L4 0L-2.2 4Z",
        State::Completed => "M-4 .3L-1.2 3.2L4.2 -3",
        State::Failed => "M-3.2 -3.2L3.2 3.2M3.2 -3.2L-3.2 3.2",
        State::Cancelled => "M-4 4L4 -4",
        State::Skipped => "M-4 0H4",
    };
    let class = state.as_str();
    _ = writeln!(
        out,
        "<g class=\"sign {class}\" transform=\"translate({x:.1} {y:.1})\"><circle r=\"9\"/><path d=\"{path}\"/></g>"
    );
}

pub(super) fn open(out: &mut String, width: f64, height: f64, title: &str) {
    _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
         {height:.0}\" role=\"img\" aria-label=\"{}\">",
        xml(&super::text::one_line(title))
    );
    out.push_str("<style>\n");
    out.push_str(
        "text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\n\
         .bg{fill:#ffffff;stroke:#d8dee6}.h{font-size:16px;font-weight:600;fill:#1c2430}\
         .s,.x{font-size:12px;fill:#57606a}.i{font-size:13px;font-weight:600;fill:#1c2430}\
         .l{font-size:11px;fill:#4b5563}.g{font-size:10px;fill:#6b7482}\
         .e{fill:none;stroke:#b4bdc9;stroke-width:1.5}.e.d{stroke:#6f7b8a}.head{fill:#8b95a5}\
         .n rect{stroke-width:1.5}.n.running rect{stroke-width:2.5}.n.skipped rect{stroke-dasharray:5 4}\
         .sign path{fill:none;stroke:#fff;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}\
         .grid{stroke:#e5e9ee}.row{fill:#f6f8fa}.q{stroke:#b4bdc9;stroke-width:3;stroke-linecap:round}\
         .r{stroke:#8b95a5;stroke-dasharray:2 3}.b{font-size:10px;font-weight:600;fill:#fff}\n",
    );
    states(out, State::colors);
    out.push_str("@media (prefers-color-scheme:dark){\n");
    out.push_str(
        ".bg{fill:#0f141a;stroke:#2d343d}.h,.i{fill:#e6edf3}.s,.x{fill:#9aa7b4}.l{fill:#b3bdc8}.g{fill:#8b98a5}\
         .e{stroke:#4a5563}.e.d{stroke:#8b98a5}.head{fill:#768390}.sign path{stroke:#0f141a}\
         .grid{stroke:#232a33}.row{fill:#151b22}.q{stroke:#4a5563}.r{stroke:#768390}.b{fill:#0f141a}\n",
    );
    states(out, State::dark_colors);
    out.push_str("}\n</style>\n");
    out.push_str(
        "<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"1\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head\" d=\"M0 .5L8 4L0 7.5Z\"/></marker></defs>\n",
    );
    _ = writeln!(
        out,
        "<rect class=\"bg\" x=\".5\" y=\".5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"12\"/>",
        width - 1.0,
        height - 1.0
    );
}

fn states(out: &mut String, colors: fn(State) -> (&'static str, &'static str)) {
    for state in State::ALL {
        let ((fill, stroke), name) = (colors(state), state.as_str());
        _ = write!(
            out,
            ".n.{name} rect{{fill:{fill};stroke:{stroke}}}.sign.{name} circle,.bar.{name}{{fill:{stroke}}}"
        );
    }
    out.push('\n');
}

pub(super) fn heading(out: &mut String, title: &str, beside: &str, width: f64) {
    let room = (width - 2.0 * MARGIN - 7.0 * width_of(beside)) / 9.0;
    _ = writeln!(out, "<text class=\"h\" x=\"{MARGIN}\" y=\"34\">{}</text>", xml(&fit(title, room.max(12.0))));
    let right = width - MARGIN;
    _ = writeln!(out, "<text class=\"s\" x=\"{right:.0}\" y=\"34\" text-anchor=\"end\">{}</text>", xml(beside));
}

/// The states that are there, each with its sign and how many.
pub(super) fn legend(out: &mut String, states: &[(State, usize)], y: f64) {
    let mut x = MARGIN + 9.0;
    for (state, count) in states.iter().filter(|(_, count)| *count > 0) {
        let text = format!("{} {}", count, state.as_str());
        sign(out, *state, x, y - 4.0);
        _ = writeln!(out, "<text class=\"x\" x=\"{:.1}\" y=\"{y:.1}\">{text}</text>", x + 14.0);
        x += 44.0 + 6.8 * width_of(&text);
    }
}
