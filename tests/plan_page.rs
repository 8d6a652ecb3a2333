//! The report of `kvtier plan --html`, opened in a browser: no error in the console, every plot drawn, and pointer, keys and legend
//! do what they should, wide and narrow, light and dark. Skipped with a word where there is no Chromium.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Collects errors from the start.
const COLLECTOR: &str = "<script>window.problems = [];\
    addEventListener('error', (event) => problems.push(event.message));\
    addEventListener('unhandledrejection', (event) => problems.push(String(event.reason)));\
    for (const kind of ['error', 'warn']) console[kind] = (...words) => problems.push(words.join(' '));</script>";
const PROBE: &str = include_str!("plan_page/probe.js");

/// The browser of this machine, or `None` (and a line that says so).
#[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "a skipped test says so; it is told where to look")]
fn chromium() -> Option<PathBuf> {
    let named = std::env::var("KVTIER_CHROMIUM").ok().map(PathBuf::from);
    let folders = std::env::var("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let mut found = std::env::split_paths(&folders).flat_map(|folder| names.map(|name| folder.join(name)));
    let browser = named.or_else(|| found.find(|path| path.is_file()));
    if browser.is_none() {
        eprintln!("skipped: no Chromium here (tools/setup.sh --browser installs one, KVTIER_CHROMIUM names one)");
    }
    browser
}

/// The page as the browser has it in the end, and what it logged.
fn opened(browser: &Path, page: &Path, flags: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let logged = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{logged}");
    (String::from_utf8(output.stdout).unwrap(), logged)
}

/// Lines that the page itself logged, errors of its scripts among them.
fn console(logged: &str) -> Vec<&str> {
    logged.lines().filter(|line| line.contains(":CONSOLE")).collect()
}

/// What the probe found on a page, with what the console was told among its problems.
fn looked_at(browser: &Path, page: &Path, flags: &[&str]) -> Value {
    let html = std::fs::read_to_string(page).unwrap();
    let probed = html.replacen("<head>", &format!("<head>{COLLECTOR}"), 1);
    let (head, tail) = probed.rsplit_once("</body>").unwrap();
    let copy = page.with_extension("probed.html");
    std::fs::write(&copy, format!("{head}<script>{PROBE}</script></body>{tail}")).unwrap();
    let (dom, logged) = opened(browser, &copy, flags);
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the probe did not end: {logged}"));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let mut found: Value = serde_json::from_str(&found).unwrap();
    found["problems"].as_array_mut().unwrap().extend(console(&logged).into_iter().map(Value::from));
    found
}

/// A page with all plots that there are, of a made trace, with a name that needs care.
fn page(folder: &Path) -> PathBuf {
    let (trace, page) = (folder.join("a trace & <more>.jsonl"), folder.join("report.html"));
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/deepseek-fleet.toml");
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prices.toml");
    let kvtier = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kvtier")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let [trace, out] = [&trace, &page].map(|path| path.to_str().unwrap());
    kvtier(&["trace", "generate", "--requests", "400", "-o", trace]);
    let sizes = ["plan", trace, "--model", "llama-3.1-70b", "--points", "9", "--target", "0.2", "--ram-share", "0.5"];
    let money = ["--fleet", fleet, "--book", book, "--book-model", "any", "--book-day", "2026-11-23", "--html", out];
    kvtier(&[&sizes[..], &money[..]].concat());
    page
}

#[test]
fn every_plot_is_drawn_and_answers_and_the_console_stays_empty() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let (dom, logged) = opened(&browser, &page, &[]);
    assert_eq!(console(&logged), [""; 0], "the page as it is");
    assert!(dom.contains("</html>"));
    for (flags, is_dark) in [
        (&["--window-size=1400,900"][..], false),
        (&["--window-size=1400,900", "--blink-settings=preferredColorScheme=0"], true),
        (&["--window-size=500,900"], false),
    ] {
        let found = looked_at(&browser, &page, flags);
        assert_eq!(found["problems"].as_array().map(Vec::as_slice), Some(&[][..]), "{flags:?}: {found}");
        assert_eq!(found["dark"], is_dark, "{found}");
        let plots: Vec<&str> =
            found["plots"].as_array().unwrap().iter().map(|plot| plot["id"].as_str().unwrap()).collect();
        let expected = ["hit-rate", "optimum", "money", "ram", "fleet-nodes", "fleet-margin", "fleet-demand"];
        assert_eq!(plots, expected, "{found}");
        assert!(found["data"].as_u64() >= Some(18) && found["rows"].as_u64() > Some(20), "{found}");
    }
}

/// The test above would be worth nothing if the probe could not tell.
#[test]
fn a_page_that_is_broken_is_told() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let html = std::fs::read_to_string(&page).unwrap();
    let (head, curve) = html.split_once("<path class=\"line\" d=\"M").unwrap();
    let (_, rest) = curve.split_once('"').unwrap();
    let script = html.find("\"use strict\";").unwrap();
    for (broken, said) in [
        (format!("{head}<path class=\"line\" d=\"MNaN NaN\"{rest}"), "hit-rate: lru is not drawn in its box"),
        (
            html.replacen("<path class=\"line\" d=\"M", "<path class=\"line\" d=\"M0 -500L", 1),
            "is not drawn in its box",
        ),
        (html.replace("tip.hidden = false", ""), "0 values are shown of"),
        (html.replace("classList.toggle(\"off\"", "classList.toggle(\"of\""), "a curve stays"),
        (format!("{}\"use strict\";\nmissing();{}", &html[..script], &html[script + 13..]), "missing is not defined"),
    ] {
        assert_ne!(broken, html, "{said}");
        let path = folder.path().join("broken.html");
        std::fs::write(&path, broken).unwrap();
        let words = looked_at(&browser, &path, &["--window-size=1400,900"])["problems"].to_string();
        assert!(words.contains(said), "{said}: {words}");
    }
}
