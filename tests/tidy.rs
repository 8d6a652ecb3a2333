//! The house rules that a compiler does not see: which room knows which, what belongs where, and how long a file gets.
//!
//! Reads the sources as text, line by line. Crude on purpose: a rule that needs a parser is one that nobody maintains.
//! Every check is shown to fail on a bad sample, at the end of this file.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Every room from the ground up, and the rooms that it may import: only ones above it in this list, so that the list
/// can't hold a ring. `ARCHITECTURE.md` says what each is.
const ROOMS: &[(&str, &[&str])] = &[
    ("vocab", &[]),
    ("copy", &["vocab"]),
    ("proto", &[]),
    ("plan", &["vocab"]),
    ("watch", &["vocab"]),
    ("media", &["vocab", "copy", "watch"]),
    ("index", &["vocab"]),
    ("ledger", &["vocab", "watch"]),
    ("access", &["vocab"]),
    ("tiers", &["vocab", "watch", "media", "index"]),
    ("session", &["vocab", "plan", "media"]),
    ("cache", &["vocab", "plan", "watch", "tiers", "session", "ledger"]),
    ("rpc", &["vocab", "proto", "watch", "ledger", "access", "session", "cache"]),
    ("handover", &["vocab", "session"]),
    ("client", &["vocab", "copy", "proto"]),
    ("replay", &["vocab", "plan", "client", "ledger"]),
    ("offline", &["vocab", "index", "ledger", "tiers"]),
    (
        "daemon",
        &[
            "vocab", "proto", "plan", "watch", "media", "index", "ledger", "access", "tiers", "session", "cache",
            "rpc", "handover", "client", "replay", "offline",
        ],
    ),
    ("bench", &["vocab", "media", "index", "tiers", "client", "daemon"]),
    ("cli", &["vocab", "watch", "ledger", "access", "client", "replay", "offline", "bench", "daemon"]),
];

/// The two files at the root, which name every room.
const ROOTS: &[&str] = &["lib", "main"];

/// Where something may be written.
enum Homes {
    /// In these rooms and nowhere else.
    Only(&'static [&'static str]),
    /// Anywhere but in these.
    Not(&'static [&'static str]),
    Nowhere,
}

/// (text, where it may be, what to use instead). A path that ends in a name is found inside of `{…}`, too.
const BELONGS: &[(&str, Homes, &str)] = &[
    ("unsafe ", Homes::Only(&["copy", "media", "client"]), "a safe function of `media`"),
    ("rocksdb::", Homes::Only(&["index", "ledger"]), "the types of `index` and `ledger`"),
    ("tonic::", Homes::Only(&["proto", "rpc", "client", "replay", "daemon", "cli"]), "`rpc` or `client`"),
    ("SystemTime::now", Homes::Only(&["vocab"]), "`vocab::Clock`"),
    ("Instant::now", Homes::Not(&["vocab", "plan"]), "the time of the event"),
    ("std::env", Homes::Only(&["cli", "main", "daemon"]), "an argument"),
    (
        "std::fs",
        Homes::Only(&["media", "tiers", "index", "ledger", "replay", "offline", "bench", "daemon", "cli"]),
        "`media::Device`, or bytes as an argument",
    ),
    ("std::thread", Homes::Not(&["vocab", "plan"]), "a plain function: decisions have no tasks"),
    (".await", Homes::Not(&["vocab", "plan", "media", "index", "tiers"]), "a plain function, or a thread"),
    ("collections::HashMap", Homes::Not(&["plan"]), "a map with a fixed hasher: same events, same commands"),
    ("collections::HashSet", Homes::Not(&["plan"]), "a set with a fixed hasher: same events, same commands"),
    ("unbounded_channel", Homes::Nowhere, "a channel with a limit of `vocab::limits`"),
    ("mpsc::channel()", Homes::Nowhere, "`sync_channel` with a limit of `vocab::limits`"),
];

/// (text, the files that may have it, what to use instead): for memory that the daemon, an engine, the kernel and other processes
/// write, there is no slice. The two files have slices of what nobody else writes while it is borrowed, and say why.
const FILES: &[(&str, &[&str], &str)] = &[
    (
        "from_raw_parts",
        &["src/media/buffer.rs", "src/media/slot.rs"],
        "`copy::Span`, which has no reference to the bytes",
    ),
    ("slice_from_raw_parts", &[], "`copy::Span`, which has no reference to the bytes"),
];

/// A file is one idea.
const FILE_LINES_MAX: usize = 500;

/// One source file.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The folder under `src`, or the name of a file at its root; nothing for tests and benches.
    fn room(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src").ok()?.components().next()?;
        first.as_os_str().to_str().map(|name| name.trim_end_matches(".rs"))
    }

    /// How many `super::` lead from here to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.components().count() - 1;
        if self.path.ends_with("mod.rs") { parts - 1 } else { parts }
    }

    /// What runs outside of tests, with comments made blank, so that places stay what they are.
    fn production(&self) -> String {
        let code = self.text.split("\nmod tests {").next().unwrap_or_default();
        let without_comment = |line: &str| {
            let end = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" // ") };
            line[..end.unwrap_or(line.len())].to_owned()
        };
        code.lines().map(without_comment).collect::<Vec<_>>().join("\n")
    }

    fn finding(&self, line: usize, words: &str) -> String {
        format!("{}:{line}: {words}", self.path.display())
    }
}

/// Files below a folder whose names end so, sorted; none where the folder is absent.
fn read_sources(folder: &Path, extension: &str) -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let entries = if folder.exists() { fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()? } else { Vec::new() };
    for path in entries.into_iter().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(read_sources(&path, extension)?);
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(Source { text: fs::read_to_string(&path)?, path });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Where a text occurs and is not the end of a longer name.
fn places<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = usize> {
    let whole = move |at: &usize| !what.starts_with(is_name) || !text[..*at].ends_with(is_name);
    text.match_indices(what).map(|(at, _)| at).filter(whole)
}

/// The name at `at`, or all names of a `{…}` that starts there, also of `{a::X, b::{Y, Z}}`: each with its place.
fn names_at(text: &str, at: usize) -> Vec<(usize, &str)> {
    let mut starts = vec![at];
    if text[at..].starts_with('{') {
        starts.clear();
        let mut depth = 0;
        for (offset, character) in text[at..].char_indices() {
            depth += i32::from(character == '{') - i32::from(character == '}');
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(character, '{' | ',') {
                starts.push(at + offset + 1);
            }
        }
    }
    let name = |start: usize| {
        let rest = text[start..].trim_start();
        let end = rest.find(|character| !is_name(character) && character != '*').unwrap_or(rest.len());
        (text.len() - rest.len(), &rest[..end])
    };
    starts.into_iter().map(name).filter(|(_, name)| !name.is_empty()).collect()
}

fn check_order(rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, (room, imports)) in rooms.iter().enumerate() {
        for import in *imports {
            if !rooms[..at].iter().any(|(above, _)| above == import) {
                findings.push(format!("ROOMS: `{room}` names `{import}`, which is not above it"));
            }
        }
    }
    findings
}

/// Names that follow the crate's root, however it is written: `crate::` or as many `super::` as lead there.
fn check_imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|room| !ROOTS.contains(room)) else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
        return vec![source.finding(1, &format!("`{room}` is no room of ROOMS in tests/tidy.rs"))];
    };
    let text = source.production();
    let supers = "super::".repeat(source.depth());
    let mut findings = Vec::new();
    for root in ["crate::", &supers] {
        for (at, name) in places(&text, root).flat_map(|at| names_at(&text, at + root.len())) {
            let is_room = name == "*" || ROOMS.iter().any(|(known, _)| *known == name);
            if is_room && name != room && !allowed.contains(&name) {
                findings.push(source.finding(line_of(&text, at), &format!("`{room}` may not import `{name}`")));
            }
        }
    }
    findings
}

fn check_belongings(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let text = source.production();
    let mut findings = Vec::new();
    for (what, homes, instead) in BELONGS {
        let (at_home, words) = match homes {
            Homes::Only(rooms) => (rooms.contains(&room), format!("lives in {rooms:?}")),
            Homes::Not(rooms) => (!rooms.contains(&room), format!("is not for {rooms:?}")),
            Homes::Nowhere => (false, "is for nobody".to_owned()),
        };
        if at_home {
            continue;
        }
        for at in occurrences(&text, what) {
            findings.push(source.finding(line_of(&text, at), &format!("`{what}` {words}; use {instead}")));
        }
    }
    findings
}

/// Rooms whose threads and tasks the daemon depends on.
const WATCHED: &[&str] = &["media", "index", "ledger", "tiers", "session", "cache", "handover", "daemon"];
/// How one is started.
const STARTS: &[&str] = &["tokio::spawn(", "thread::Builder::new()", "thread::spawn("];
/// Files that start some of which nobody must hear, and why.
const UNWATCHED: &[(&str, &str)] = &[
    ("src/cache/ticket.rs", "of one request, which is told"),
    ("src/daemon/health.rs", "of one stream, which ends with it"),
    ("src/daemon/signals.rs", "the thread that ends the process, and a test's signal"),
    ("src/index/scan.rs", "joined by the start, which fails with it"),
    ("src/tiers/folder.rs", "joined by the start, which fails with it"),
];

/// A thread or task of the daemon that ends on its own is told: as many parts of a `watch` as starts. Crude, and enough to
/// make whoever adds one think of it.
fn check_watched(source: &Source) -> Vec<String> {
    let is_free = UNWATCHED.iter().any(|(path, _)| source.path == Path::new(path));
    let is_test = source.path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
    if is_free || is_test || !source.room().is_some_and(|room| WATCHED.contains(&room)) {
        return Vec::new();
    }
    let text = source.production();
    let count = |what: &&str| text.matches(*what).count();
    let (starts, parts) = (STARTS.iter().map(count).sum::<usize>(), [".vital(", ".optional("].iter().map(count).sum());
    let words = format!("{starts} threads or tasks are started, {parts} are parts of a `watch`");
    if starts <= parts { Vec::new() } else { vec![source.finding(1, &words)] }
}

fn check_files(source: &Source) -> Vec<String> {
    let text = source.production();
    let mut findings = Vec::new();
    for (what, files, instead) in FILES {
        if !files.iter().any(|file| source.path == Path::new(file)) {
            let found = |at| source.finding(line_of(&text, at), &format!("`{what}` is for {files:?}; use {instead}"));
            findings.extend(places(&text, what).map(found));
        }
    }
    findings
}

fn occurrences(text: &str, what: &str) -> Vec<usize> {
    match what.rsplit_once("::") {
        Some((path, name)) if !name.is_empty() && name.chars().all(is_name) => {
            let path = format!("{path}::");
            let names = places(text, &path).flat_map(|at| names_at(text, at + path.len()));
            names.filter(|(_, found)| *found == name).map(|(at, _)| at).collect()
        }
        _ => places(text, what).collect(),
    }
}

fn check_shape(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(source.finding(lines, &format!("the most is {FILE_LINES_MAX} lines")));
    }
    if !source.text.trim_start().starts_with("//!") {
        findings.push(source.finding(1, "starts without `//!` saying what the file is for"));
    }
    findings
}

/// A file that no `mod` names is not compiled, and nobody notices.
fn check_reachable(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.room().is_none_or(|room| ROOTS.contains(&room))) {
        let own = if source.path.ends_with("mod.rs") { source.path.parent() } else { Some(source.path.as_path()) };
        let (Some(folder), Some(name)) = (own.and_then(Path::parent), own.and_then(Path::file_stem)) else { continue };
        let declaration = format!("mod {};", name.to_string_lossy());
        let is_parent = |other: &Source| {
            [folder.join("mod.rs"), folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")]
                .contains(&other.path)
        };
        let names = |other: &Source| places(&other.text, &declaration).next().is_some();
        // Tests beside a file: `#[path = "file_tests.rs"] mod tests;` in a file of the same folder.
        let by_path = format!("#[path = \"{}.rs\"]", name.to_string_lossy());
        let is_beside = |other: &Source| other.path.parent() == Some(folder) && other.text.contains(&by_path);
        if !sources.iter().any(|other| is_parent(other) && names(other) || is_beside(other)) {
            findings.push(source.finding(1, &format!("no `{declaration}` names it")));
        }
    }
    findings
}

/// The contract is read by people who don't read Rust.
fn check_contract(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut above = "";
    for (at, line) in source.text.lines().enumerate() {
        let line = line.trim();
        let kind = line.split(' ').next().unwrap_or_default();
        if ["service", "rpc", "message", "enum"].contains(&kind) && !above.starts_with("//") {
            findings.push(source.finding(at + 1, &format!("a {kind} without a comment above it")));
        }
        above = line;
    }
    findings
}

#[test]
fn the_house_is_tidy() -> io::Result<()> {
    let rooms = read_sources(Path::new("src"), "rs")?;
    assert!(!rooms.is_empty(), "run in the folder of Cargo.toml");
    let mut others = read_sources(Path::new("tests"), "rs")?;
    others.extend(read_sources(Path::new("benches"), "rs")?);
    let contract = read_sources(Path::new("proto"), "proto")?;

    let mut findings = check_order(ROOMS);
    findings.extend(rooms.iter().flat_map(check_imports));
    findings.extend(rooms.iter().flat_map(check_belongings));
    findings.extend(rooms.iter().flat_map(check_watched));
    findings.extend(rooms.iter().flat_map(check_files));
    findings.extend(rooms.iter().chain(&others).flat_map(check_shape));
    findings.extend(check_reachable(&rooms));
    findings.extend(contract.iter().flat_map(check_contract));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    Ok(())
}

/// Claims that each check makes, tried on samples that break them.
mod samples {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    fn lines(findings: &[String]) -> Vec<&str> {
        findings.iter().filter_map(|finding| finding.split(": ").next()).collect()
    }

    #[test]
    fn a_ring_of_rooms_can_not_be_listed() {
        assert!(check_order(ROOMS).is_empty());
        assert_eq!(check_order(&[("a", &["b"]), ("b", &["a"])]), ["ROOMS: `a` names `b`, which is not above it"]);
    }

    #[test]
    fn an_import_of_a_room_below_is_found_however_it_is_written() {
        let ways = [
            "use crate::daemon::Config;",
            "use crate::{vocab::TokenCount, daemon::Config};",
            "use crate::{\n    vocab::{ByteCount, TokenCount},\n    daemon,\n};",
            "use super::super::daemon::Config;",
            "fn f() { crate::daemon::run() }",
            "use crate::*;",
        ];
        for way in ways {
            assert_eq!(check_imports(&source("src/tiers/ram.rs", way)).len(), 1, "{way}");
        }
        assert_eq!(check_imports(&source("src/tiers/mod.rs", "use super::daemon::Config;")).len(), 1);
        assert_eq!(check_imports(&source("src/tiers/a/b.rs", "use super::super::super::cli;")).len(), 1);
    }

    #[test]
    fn imports_from_above_from_the_own_room_in_tests_and_in_comments_are_fine() {
        let text = "use crate::media::Device;\nuse super::daemon;\n// crate::daemon\nuse crate::tiers::Ram; // crate::cli\n\
                    mod tests {\n    use crate::daemon::Config;\n}";
        assert_eq!(check_imports(&source("src/tiers/ram.rs", text)), [""; 0]);
        assert_eq!(check_imports(&source("src/main.rs", "use crate::cli;")), [""; 0]);
    }

    #[test]
    fn a_room_that_is_not_listed_is_found() {
        assert_eq!(lines(&check_imports(&source("src/attic/mod.rs", ""))), ["src/attic/mod.rs:1"]);
    }

    #[test]
    fn what_is_out_of_place_is_found_with_its_line() {
        for (path, text) in [
            ("src/tiers/ram.rs", "\nunsafe { read() }"),
            ("src/cache/load.rs", "\nuse rocksdb::DB;"),
            ("src/cache/load.rs", "\nfn f() -> tonic::Status"),
            ("src/daemon/run.rs", "\nSystemTime::now()"),
            ("src/plan/clock.rs", "\nInstant::now()"),
            ("src/ledger/store.rs", "\nuse std::env;"),
            ("src/ledger/store.rs", "\nuse std::{env, fs};"),
            ("src/plan/catalog.rs", "\nuse std::{collections::BTreeMap, fs::File};"),
            ("src/plan/catalog.rs", "\nuse std::thread;"),
            ("src/index/store.rs", "\nread().await;"),
            ("src/plan/catalog.rs", "\nuse std::collections::{BTreeMap, HashMap};"),
            ("src/plan/catalog.rs", "\nuse std::{collections::HashSet, fmt};"),
            ("src/rpc/put.rs", "\nmpsc::unbounded_channel();"),
            ("src/ledger/writer.rs", "\nlet (a, b) = mpsc::channel();"),
        ] {
            let findings = check_belongings(&source(path, text));
            assert_eq!(lines(&findings), [format!("{path}:2")], "{text}");
        }
    }

    #[test]
    fn what_is_at_home_or_only_looks_alike_is_fine() {
        for (path, text) in [
            ("src/media/segment.rs", "unsafe { map() }; use std::fs;"),
            ("src/media/segment.rs", "#![expect(unsafe_code, reason = \"maps memory\")]"),
            ("src/index/store.rs", "use rocksdb::DB; use std::{fs, io};"),
            ("src/cache/load.rs", "// not tonic::Status, which rpc makes of it"),
            ("src/cache/load.rs", "load(); // std::env is for cli"),
            ("src/cache/load.rs", "use std::collections::HashMap; my_tonic::go(); tokio::sync::mpsc::channel(8);"),
            (
                "src/plan/catalog.rs",
                "use std::collections::BTreeMap;\nmod tests {\n    use std::collections::HashMap;\n}",
            ),
        ] {
            assert_eq!(check_belongings(&source(path, text)), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_thread_or_a_task_that_is_not_watched_is_found() {
        for text in ["tokio::spawn(keep());", "thread::Builder::new().spawn(run)", "std::thread::spawn(run)"] {
            assert_eq!(check_watched(&source("src/cache/start.rs", text)).len(), 1, "{text}");
            assert_eq!(check_watched(&source("src/rpc/put.rs", text)), [""; 0], "a request's");
            let watched = format!("let part = watch.vital(\"time\");\n{text}");
            assert_eq!(check_watched(&source("src/cache/start.rs", &watched)), [""; 0]);
        }
    }

    #[test]
    fn a_slice_of_memory_that_others_write_is_found() {
        for text in [
            "\nlet bytes = unsafe { std::slice::from_raw_parts(base, len) };",
            "\nlet bytes = unsafe { from_raw_parts_mut(base, len) };",
            "\nlet bytes = unsafe { &*ptr::slice_from_raw_parts(base, len) };",
        ] {
            assert_eq!(lines(&check_files(&source("src/media/region.rs", text))), ["src/media/region.rs:2"], "{text}");
            assert_eq!(
                lines(&check_files(&source("src/client/memory.rs", text))),
                ["src/client/memory.rs:2"],
                "{text}"
            );
        }
        let own = "let bytes = unsafe { slice::from_raw_parts_mut(base, len) };";
        assert_eq!(check_files(&source("src/media/slot.rs", own)), [""; 0]);
        assert_eq!(
            check_files(&source("src/media/region.rs", "// from_raw_parts\nmod tests {\n    from_raw_parts()")),
            [""; 0]
        );
    }

    #[test]
    fn a_long_file_and_one_that_does_not_say_what_it_is_for_are_found() {
        assert_eq!(check_shape(&source("src/lib.rs", &"//! Long.\n".repeat(501))).len(), 1);
        assert_eq!(check_shape(&source("src/lib.rs", &"//! Long.\n".repeat(500))), [""; 0]);
        assert_eq!(check_shape(&source("tests/crash.rs", "use std::fs;\n//! Too late.")).len(), 1);
    }

    #[test]
    fn a_file_that_nobody_names_is_found() {
        let named = |by: &str| {
            let sources = [
                source("src/lib.rs", "pub mod tiers;"),
                source("src/tiers/mod.rs", by),
                source("src/tiers/ram.rs", ""),
            ];
            check_reachable(&sources)
        };
        assert_eq!(named("#[cfg(test)]\nmod ram;"), [""; 0]);
        assert_eq!(named("pub(super) mod ram;"), [""; 0]);
        assert_eq!(lines(&named("mod telegram;")), ["src/tiers/ram.rs:1"]);
        assert_eq!(
            lines(&check_reachable(&[source("src/lib.rs", ""), source("src/attic/mod.rs", "")])),
            ["src/attic/mod.rs:1"]
        );
    }

    #[test]
    fn an_rpc_without_a_comment_is_found() {
        let text = "// The meter.\nservice Usage {\n  // Settles.\n  rpc Settle(A) returns (B);\n  rpc Export(A) returns (B);\n}\n\
                    message A {}\n\nenum Outcome {";
        let findings = check_contract(&source("proto/usage.proto", text));
        assert_eq!(lines(&findings), ["proto/usage.proto:5", "proto/usage.proto:7", "proto/usage.proto:9"]);
    }
}
