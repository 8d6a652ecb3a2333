//! Plots as SVG, for a page and for files: what is to be drawn, and how wide.

mod axis;
mod draw;

pub(super) use axis::{Axis, Scale, Unit};
pub(super) use draw::{CHART_CSS, LIGHT_CSS, escape, file, svg};

/// One plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Its name in addresses and of its file.
    pub(super) id: &'static str,
    /// How wide it is where there is room.
    pub(super) width: Width,
    pub(super) title: String,
    /// What to see in it, in a sentence.
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) curves: Vec<Curve>,
    pub(super) marks: Vec<Mark>,
}

/// One series of a plot.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    /// Which of the colours it has, so that a series has the same one in all plots.
    pub(super) color: usize,
    pub(super) style: Style,
    pub(super) points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Line,
    /// A line that is only for reference.
    Dashed,
    Bars,
}

/// A line across the plot, with words.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// At this x.
    Vertical(f64, String),
    /// At this y.
    Horizontal(f64, String),
}

/// How wide a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Over a whole page.
    Full,
    /// Beside another one.
    Half,
    /// On a phone, where the page's legend names the curves.
    Narrow,
}

/// Colours that series may have; more share them again.
pub(super) const COLORS: usize = 8;
