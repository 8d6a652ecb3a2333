//! A plan as one page of HTML that needs nothing else: plots as SVG, tables, how it was made, and its data as JSON.

use std::env;
use std::fmt::Write;

use super::super::chart::{self, Plot, Style, Width, escape};
use super::super::table::{percent, thousands};
use super::report::Report;
use super::sheets::{self, Sheet, sized};
use super::{Both, CliError, summary};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The whole page.
pub(super) fn page(both: &Both, plots: &[Plot]) -> Result<String, CliError> {
    let report = &both.plan;
    let json = serde_json::to_string(both).map_err(|error| CliError::Stdout(error.into()))?;
    let style = format!(":root {{ {} }}\n{STYLE}\n{}", chart::LIGHT_CSS, chart::CHART_CSS);
    let parts = [
        ("title", escape(&format!("Cache plan: {}", report.trace))),
        ("style", style),
        ("trace", escape(&report.trace)),
        ("advice", escape(&summary::advice(report))),
        ("lead", escape(&summary::trace(report))),
        ("facts", facts(report)),
        ("plots", plots.iter().map(figure).collect()),
        ("tables", tables(both)),
        ("made", made(report)),
        // A `<` would end the script element, wherever it stands.
        ("data", json.replace('<', "\\u003c")),
        ("script", SCRIPT.to_owned()),
    ];
    Ok(filled(&parts))
}

/// The template with its parts, in one pass: what is put in is not looked at again.
fn filled(parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    for (nth, piece) in TEMPLATE.split("{{").enumerate() {
        let (name, rest) = if nth == 0 { ("", piece) } else { piece.split_once("}}").unwrap_or(("", piece)) };
        page += parts.iter().find(|(known, _)| *known == name).map_or("", |(_, part)| part);
        page += rest;
    }
    page
}

/// The few figures that one looks for first.
fn facts(report: &Report) -> String {
    let mut facts = vec![
        (percent(report.infinite_hit_rate), "of prompt tokens can be hit at most".to_owned()),
        (sized(report, report.blocks_for_90_percent), "hits nine tenths of that".to_owned()),
    ];
    let knee = report.knee_blocks.and_then(|knee| Some((knee, report.size(knee)?)));
    facts.extend(knee.map(|(knee, size)| (sized(report, knee), format!("is the knee: {} hit", percent(size.lru)))));
    let best = report.size(report.advice.blocks());
    let left = best.and_then(|size| size.net_per_day);
    facts.extend(left.map(|left| (summary::money(report, left), "net a day at the size to buy".to_owned())));
    let next = summary::beyond_knee(report).and_then(|size| size.net_per_tb_day);
    facts.extend(next.map(|net| (summary::money(report, net), "net a day of a TB more than the knee".to_owned())));
    let cost = report.target.as_ref().and_then(|target| target.mixes.first());
    facts.extend(cost.map(|mix| (summary::money(report, mix.cost_month), "a month for the cheapest tiers".to_owned())));
    facts.iter().fold(String::new(), |mut html, (figure, words)| {
        put(
            &mut html,
            format_args!("<div class=\"fact\"><b>{}</b><span>{}</span></div>", escape(figure), escape(words)),
        );
        html
    })
}

fn figure(plot: &Plot) -> String {
    let (title, note) = (escape(&plot.title), escape(&plot.note));
    let key = |(at, curve): (usize, &chart::Curve)| {
        let class = if curve.style == Style::Dashed { "swatch dashed" } else { "swatch" };
        format!(
            "<button type=\"button\" class=\"c{}\" data-key=\"{at}\" aria-pressed=\"true\"><i class=\"{class}\"></i>{}</button>",
            curve.color % chart::COLORS,
            escape(&curve.name)
        )
    };
    let keys: String = plot.curves.iter().enumerate().map(key).collect();
    let keys = if plot.curves.len() < 2 {
        String::new()
    } else {
        format!("<div class=\"keys\" role=\"group\" aria-label=\"Curves\">{keys}</div>")
    };
    let class = if plot.width == Width::Full { "plot full" } else { "plot" };
    let [wide, narrow] = [plot.width, Width::Narrow].map(|width| chart::svg(plot, width));
    format!(
        "<figure id=\"{}\" class=\"{class}\"><figcaption><h2>{title}</h2><p>{note}</p></figcaption>{keys}\
         <div class=\"stage\" tabindex=\"0\" aria-label=\"{title}: left and right show the values\">{wide}{narrow}\
         <div class=\"tip\" role=\"status\" hidden></div></div></figure>\n",
        plot.id
    )
}

fn tables(both: &Both) -> String {
    let report = &both.plan;
    let sheets = [
        Some(sheets::rates(report)),
        sheets::money(report),
        sheets::mixes(report),
        sheets::ram(report),
        both.fleet.as_ref().map(sheets::fleet),
    ];
    sheets.iter().flatten().map(table).collect()
}

fn table(sheet: &Sheet) -> String {
    let cells = |row: &[String], tag: &str| {
        row.iter().fold(String::new(), |mut html, cell| {
            put(&mut html, format_args!("<{tag}>{}</{tag}>", escape(cell)));
            html
        })
    };
    let rows: String = sheet.rows.iter().map(|row| format!("<tr>{}</tr>", cells(row, "td"))).collect();
    let header = cells(&sheet.header, "th scope=\"col\"").replace("</th scope=\"col\">", "</th>");
    format!(
        "<section><h2>{}</h2><div class=\"scroll\"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div></section>\n",
        escape(&sheet.title)
    )
}

/// How the figures came about.
fn made(report: &Report) -> String {
    let command: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let bytes = report.bytes_per_token.map_or_else(
        || "not known: sizes are in blocks".to_owned(),
        |bytes| format!("{} bytes a token, {} tokens a block", thousands(bytes), report.block_tokens),
    );
    let exact = "Exact: every point is a replay of the whole trace on the planner that the daemon runs.".to_owned();
    let items = [
        ("Command", format!("kvtier {}", command.join(" "))),
        ("Version", format!("kvtier {}", report.version)),
        ("Trace", report.trace.clone()),
        ("Size of a block", bytes),
        ("Hit rates", summary::sample(report).unwrap_or(exact)),
        (
            "Knee and tiers",
            [Some(summary::knee(report)), summary::target(report)]
                .into_iter()
                .flatten()
                .collect::<Vec<String>>()
                .join(" "),
        ),
        ("Prices", summary::prices(report).unwrap_or_else(|| "none were given".to_owned())),
    ];
    items.iter().fold(String::new(), |mut html, (name, words)| {
        put(&mut html, format_args!("<dt>{name}</dt><dd>{}</dd>", escape(words)));
        html
    })
}

/// A string takes whatever is written to it.
fn put(html: &mut String, what: std::fmt::Arguments<'_>) {
    _ = html.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_the_page_is_not_looked_at_again() {
        let page = filled(&[("title", "{{style}}".to_owned()), ("style", "STYLE".to_owned())]);
        assert!(page.contains("<title>{{style}}</title>"), "{page}");
        assert_eq!(page.matches("STYLE").count(), 1);
    }

    #[test]
    fn every_part_of_the_template_has_a_name_that_is_filled() {
        let names = ["title", "style", "trace", "advice", "lead", "facts", "plots", "tables", "made", "data", "script"];
        let asked: Vec<&str> = TEMPLATE.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()).collect();
        assert!(names.iter().all(|name| asked.contains(name)), "{asked:?}");
        assert_eq!(asked.len(), names.len());
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        for part in [TEMPLATE, STYLE, SCRIPT] {
            assert!(!part.contains("src=") && !part.contains("@import") && !part.contains("url("), "{part}");
            assert!(!part.contains("fetch(") && !part.contains("https:"), "{part}");
        }
    }
}
