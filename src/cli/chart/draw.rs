//! A plot drawn as SVG. Curves carry their values, so that a page's script has only to show them.

use std::fmt::Write;

use super::{COLORS, Curve, Mark, Plot, Style, Width};

/// How plots look, wherever they are.
pub(in super::super) const CHART_CSS: &str = include_str!("chart.css");
/// Their colours on white paper: in a file, and in a page of the light scheme.
pub(in super::super) const LIGHT_CSS: &str = include_str!("light.css");
/// Height of a line of text beside a curve.
const LINE: f64 = 17.0;
/// Width of a character, about.
const CHARACTER: f64 = 7.4;

/// Where things are on a plot, in its own units.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    ticks: usize,
}

impl Frame {
    fn of(plot: &Plot, width: Width) -> Self {
        let longest = |words: &mut dyn Iterator<Item = usize>| words.max().unwrap_or(0) as f64 * CHARACTER;
        let has_names = named(plot).count() > 1;
        let names =
            if has_names { longest(&mut named(plot).map(|(_, curve)| curve.name.chars().count())) } else { 0.0 };
        let left = longest(&mut plot.y.ticks(5).iter().map(|tick| plot.y.tick(*tick).chars().count())) + 16.0;
        let (width, height, ticks) = match width {
            Width::Full => (1040.0, 420.0, 10),
            Width::Half => (600.0, 350.0, 6),
            Width::Narrow => return Self { right: 352.0, ..Self::within(380.0, 320.0, left, 4) },
        };
        let right = width - names + if names > 0.0 { -40.0 } else { -28.0 };
        Self { right, ..Self::within(width, height, left, ticks) }
    }

    fn within(width: f64, height: f64, left: f64, ticks: usize) -> Self {
        Self { width, height, left, right: width, top: 52.0, bottom: height - 52.0, ticks }
    }

    fn x(&self, plot: &Plot, value: f64) -> f64 {
        self.left + plot.x.place(value) * (self.right - self.left)
    }

    fn y(&self, plot: &Plot, value: f64) -> f64 {
        self.bottom - plot.y.place(value) * (self.bottom - self.top)
    }
}

/// The plot as an `<svg>` of a page, whose style and script it shares.
pub(in super::super) fn svg(plot: &Plot, width: Width) -> String {
    drawn(plot, width, "")
}

/// The plot as a file of its own.
pub(in super::super) fn file(plot: &Plot) -> String {
    let style = format!(
        "<style>svg {{ {LIGHT_CSS} }}\n{CHART_CSS}</style><rect fill=\"var(--paper)\" width=\"100%\" height=\"100%\"/>"
    );
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", drawn(plot, plot.width, &style))
}

/// Text as it may stand in HTML and SVG, also in an attribute.
pub(in super::super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

fn drawn(plot: &Plot, width: Width, head: &str) -> String {
    let frame = Frame::of(plot, width);
    let Frame { left, right, top, bottom, .. } = frame;
    let class = if width == Width::Narrow { "narrow" } else { "wide" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart {class}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"{}\">{head}",
        frame.width,
        frame.height,
        escape(&plot.title),
    );
    if !head.is_empty() {
        text(&mut svg, "title", (10.0, 20.0), &plot.title);
    }
    axes(&mut svg, plot, &frame);
    // What the script needs to know: the box that curves are in.
    put(
        &mut svg,
        format_args!(
            "<rect class=\"area\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            right - left,
            bottom - top
        ),
    );
    plot.marks.iter().for_each(|mark| mark_line(&mut svg, plot, &frame, mark));
    for (at, curve) in plot.curves.iter().enumerate() {
        curve_of(&mut svg, plot, &frame, (at, curve));
    }
    plot.marks.iter().for_each(|mark| mark_words(&mut svg, plot, &frame, mark));
    if width != Width::Narrow {
        names(&mut svg, plot, &frame);
    }
    svg + "</svg>"
}

fn axes(svg: &mut String, plot: &Plot, frame: &Frame) {
    let Frame { left, right, top, bottom, ticks, .. } = *frame;
    for tick in plot.y.ticks(5) {
        let y = frame.y(plot, tick);
        let class = if tick == 0.0 { "zero" } else { "grid" };
        line(svg, class, (left, y), (right, y));
        text(svg, "tick end", (left - 8.0, y + 4.0), &plot.y.tick(tick));
    }
    if plot.y.place(0.0) < 0.0 {
        line(svg, "zero", (left, bottom), (right, bottom));
    }
    for tick in plot.x.ticks(ticks) {
        let x = frame.x(plot, tick);
        line(svg, "zero", (x, bottom), (x, bottom + 5.0));
        text(svg, "tick middle", (x, bottom + 20.0), &plot.x.tick(tick));
    }
    text(svg, "label middle", (f64::midpoint(left, right), bottom + 42.0), &plot.x.label);
    text(svg, "label", (10.0, top - 16.0), &plot.y.label);
}

/// The line of a mark, which lies below the curves.
fn mark_line(svg: &mut String, plot: &Plot, frame: &Frame, mark: &Mark) {
    match mark {
        Mark::Vertical(value, _) => {
            let x = frame.x(plot, *value);
            line(svg, "mark", (x, frame.top - 8.0), (x, frame.bottom));
        }
        Mark::Horizontal(value, _) => {
            let y = frame.y(plot, *value);
            line(svg, "mark", (frame.left, y), (frame.right, y));
        }
    }
}

/// Its words, which lie above them.
fn mark_words(svg: &mut String, plot: &Plot, frame: &Frame, mark: &Mark) {
    match mark {
        Mark::Vertical(value, words) => {
            // Beside its line, on the side where there is room.
            let (x, room) = (frame.x(plot, *value), words.chars().count() as f64 * CHARACTER);
            let (class, at) = if x + room + 6.0 < frame.right { ("marked", x + 6.0) } else { ("marked end", x - 6.0) };
            text(svg, class, (at, frame.top - 2.0), words);
        }
        Mark::Horizontal(value, words) => {
            text(svg, "marked", (frame.left + 8.0, frame.y(plot, *value) + 16.0), words);
        }
    }
}

fn curve_of(svg: &mut String, plot: &Plot, frame: &Frame, (at, curve): (usize, &Curve)) {
    let color = curve.color % COLORS;
    put(svg, format_args!("<g class=\"curve c{color}\" data-curve=\"{at}\" data-name=\"{}\">", escape(&curve.name)));
    let places: Vec<(f64, f64)> = curve.points.iter().map(|(x, y)| (frame.x(plot, *x), frame.y(plot, *y))).collect();
    let bar = (frame.right - frame.left) / places.len().max(1) as f64;
    if curve.style == Style::Bars {
        let base = frame.y(plot, 0.0);
        for (x, y) in &places {
            let (x, width) = (x + bar * 0.12, bar * 0.76);
            let height = base - y;
            put(
                svg,
                format_args!(
                    "<rect class=\"bar\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                ),
            );
        }
    } else {
        let class = if curve.style == Style::Dashed { "line dashed" } else { "line" };
        let steps: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        put(svg, format_args!("<path class=\"{class}\" d=\"M{}\"/>", steps.join("L")));
    }
    for ((x, y), (value, height)) in places.iter().zip(&curve.points) {
        let x = if curve.style == Style::Bars { x + bar / 2.0 } else { *x };
        let (value, height) = (escape(&plot.x.unit.show(*value)), escape(&plot.y.unit.show(*height)));
        put(
            svg,
            format_args!(
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" data-x=\"{value}\" data-y=\"{height}\"/>"
            ),
        );
    }
    svg.push_str("</g>");
}

/// Curves that may have a name beside their end.
fn named(plot: &Plot) -> impl Iterator<Item = (usize, &Curve)> {
    plot.curves.iter().enumerate().filter(|(_, curve)| curve.style != Style::Bars)
}

/// The curves' names at the right, each as near to its curve's end as the others allow: in the order in which the curves lie where
/// they are farthest apart.
fn names(svg: &mut String, plot: &Plot, frame: &Frame) {
    let lines: Vec<(usize, &Curve)> = named(plot).collect();
    if lines.len() < 2 {
        return;
    }
    let height = |curve: &Curve, at: usize| curve.points.get(at).map_or(0.0, |(_, y)| *y);
    let count = lines.iter().map(|(_, curve)| curve.points.len()).max().unwrap_or(0);
    let spread = |at: usize| {
        let heights = || lines.iter().map(|(_, curve)| height(curve, at));
        heights().fold(f64::NEG_INFINITY, f64::max) - heights().fold(f64::INFINITY, f64::min)
    };
    let apart = (0..count).max_by(|one, other| spread(*one).total_cmp(&spread(*other))).unwrap_or(0);
    let end = |curve: &Curve| curve.points.last().map_or(frame.bottom, |(_, y)| frame.y(plot, *y));
    let mut order: Vec<(usize, &Curve, f64)> = lines.into_iter().map(|(at, curve)| (at, curve, end(curve))).collect();
    // By where they end, and where that is one place, by where they lie farthest apart.
    order.sort_by(|(_, one, end), (_, other, other_end)| {
        if (end - other_end).abs() < LINE {
            height(other, apart).total_cmp(&height(one, apart))
        } else {
            end.total_cmp(other_end)
        }
    });
    let mut next = frame.top;
    let room = |below: usize| frame.bottom - below as f64 * LINE;
    let total = order.len();
    for (nth, (at, curve, end)) in order.into_iter().enumerate() {
        let y = end.min(room(total - 1 - nth)).max(next);
        next = y + LINE;
        let x = frame.right + 10.0;
        let class = if curve.style == Style::Dashed { "line dashed" } else { "line" };
        let color = curve.color % COLORS;
        put(
            svg,
            format_args!(
                "<g class=\"name c{color}\" data-of=\"{at}\"><path class=\"{class}\" d=\"M{x:.1} {y:.1}h16\"/>"
            ),
        );
        text(svg, "named", (x + 21.0, y + 4.0), &curve.name);
        svg.push_str("</g>");
    }
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    put(svg, format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), words: &str) {
    put(svg, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(words)));
}

/// A string takes whatever is written to it.
fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    _ = svg.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Scale, Unit};
    use super::*;

    fn plot(names: &[&str]) -> Plot {
        let points = [(1e9, 0.1), (4e9, 0.3), (16e9, 0.374)];
        let curve = |(color, name): (usize, &&str)| {
            let points = points.iter().map(|(x, y)| (*x, y - 0.01 * color as f64)).collect();
            Curve { name: (*name).to_owned(), color, style: Style::Line, points }
        };
        Plot {
            id: "rates",
            width: Width::Full,
            title: "Hit rate <of> \"T\"".to_owned(),
            note: String::new(),
            x: Axis::over("size", (Unit::Bytes, Scale::Log), points.iter().map(|(x, _)| *x)),
            y: Axis::over("hit rate", (Unit::Percent, Scale::Linear), points.iter().map(|(_, y)| *y)),
            curves: names.iter().enumerate().map(curve).collect(),
            marks: vec![Mark::Vertical(4e9, "knee".to_owned()), Mark::Horizontal(0.39, "most".to_owned())],
        }
    }

    /// Values of an attribute, in order.
    fn values(svg: &str, before: &str) -> Vec<f64> {
        svg.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn every_point_lies_in_the_box_and_says_what_it_is() {
        for width in [Width::Full, Width::Half, Width::Narrow] {
            let plot = plot(&["lru", "sieve"]);
            let (svg, frame) = (svg(&plot, width), Frame::of(&plot, width));
            let (xs, ys) = (values(&svg, "cx=\""), values(&svg, "cy=\""));
            assert_eq!((xs.len(), ys.len()), (6, 6), "{svg}");
            assert!(xs.iter().all(|x| (frame.left - 0.1..=frame.right + 0.1).contains(x)), "{xs:?}");
            assert!(ys.iter().all(|y| (frame.top - 0.1..=frame.bottom + 0.1).contains(y)), "{ys:?}");
            assert!((xs[0] - frame.left).abs() < 0.1 && (xs[2] - frame.right).abs() < 0.1, "{xs:?}");
            assert!(svg.contains("data-x=\"3.7 GiB\" data-y=\"30.0 %\""), "{svg}");
            assert!(!svg.contains("NaN") && svg.matches("class=\"line\"").count() >= 2);
        }
    }

    #[test]
    fn names_beside_the_curves_do_not_lie_on_each_other() {
        let names = ["lru", "s3-fifo", "sieve", "w-tinylfu", "arc", "gdsf", "belady"];
        let svg = svg(&plot(&names), Width::Half);
        let mut places: Vec<(f64, &str)> = Vec::new();
        for part in svg.split("<text class=\"named\"").skip(1) {
            let y = values(part, " y=\"")[0];
            places.push((y, part.split(['>', '<']).nth(1).unwrap()));
        }
        assert_eq!(places.iter().map(|(_, name)| *name).collect::<Vec<_>>(), names, "as the curves lie");
        assert!(places.windows(2).all(|pair| pair[1].0 - pair[0].0 >= LINE - 0.1), "{places:?}");
    }

    #[test]
    fn a_file_stands_alone_and_words_can_not_break_out() {
        let file = file(&plot(&["<script>"]));
        assert!(file.starts_with("<?xml") && file.contains("<style>") && file.trim_end().ends_with("</svg>"));
        assert!(!file.contains("<script") && file.contains("Hit rate &lt;of&gt; &quot;T&quot;"), "{file}");
    }
}
