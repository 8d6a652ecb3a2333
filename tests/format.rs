//! Data folders outlive the program that wrote them: one of an earlier format is read and never misread, one of a later
//! format is refused and left as it is, an index of an unknown schema is begun anew.
//!
//! `fixtures/format-1` is a folder as `kvtier serve` left it when format 1 was the newest; `format/fixture.rs` says what
//! is in it and how it was made.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "whoever makes a fixture is told where it is")]
#![expect(clippy::disallowed_methods, reason = "the environment says where a new fixture goes")]

#[path = "format/fixture.rs"]
mod fixture;
#[path = "shared/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvtier::client::Client;
use kvtier::offline::{audit, verify};
use kvtier::tiers::Catalog;

use fixture::{BLOCKS, SERVE};
use process::Process;

/// The fixture in a folder of its own: `data` in `dir`.
fn copied(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1"), &data);
    data
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_format_1_opens_and_every_block_and_bill_in_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let data = copied(dir.path());
    for start in ["first", "second"] {
        let (mut process, address) = Process::start(dir.path(), &SERVE).await;
        let client = Client::connect(&address).await.unwrap();
        assert_eq!(client.status().await.unwrap().nvme.unwrap().blocks, BLOCKS, "{start} start");
        fixture::check_blocks(&client).await;
        fixture::check_bills(&client).await;
        assert!(!process.log().contains("WARN"), "{start} start:\n{}", process.log());
        process.kill();
        let report = verify(&data, |_, _| {}).unwrap();
        let wrong = (report.corrupt, report.stale, report.orphaned, report.undecodable_rows);
        assert_eq!((report.blocks, wrong), (BLOCKS, (0, 0, 0, 0)), "{start} start: {report:#?}");
        let audit = audit(&data).unwrap();
        let unproven = (audit.deliveries.unproven_records, audit.deliveries.unproven_tokens);
        assert_eq!(
            (audit.differences, unproven),
            (0, (1, 80)),
            "what was settled that day names no request: {audit:?}"
        );
    }
}

#[test]
fn a_folder_of_a_newer_format_is_refused_with_a_clear_sentence_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let data = copied(dir.path());
    let format = data.join("FORMAT");
    let mut fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&format).unwrap()).unwrap();
    fields["format"] = 4_000.into();
    // A later version may have other fields: they are no reason to complain about anything but the number.
    fields["colour"] = "blue".into();
    fields.as_object_mut().unwrap().remove("extent_bytes");
    std::fs::write(&format, fields.to_string()).unwrap();
    let before = contents(&data);
    let socket = format!("--socket={}", dir.path().join("s").display());
    for command in [vec!["serve", &socket], vec!["verify"], vec!["inspect", "namespaces"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_kvtier"));
        let output = program.args(&command).arg("--data-dir").arg(&data).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("has format 4000, and this kvtier reads up to "), "{command:?}: {said}");
        assert!(said.contains("use a newer one, or another folder"), "{command:?}: {said}");
        assert!(contents(&data) == before, "{command:?} changed something");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_an_unknown_schema_is_begun_anew_with_a_warning_and_never_misread() {
    let dir = tempfile::tempdir().unwrap();
    let data = copied(dir.path());
    Catalog::open(&data.join("catalog")).unwrap().catalog.put_meta("schema", b"of another day").unwrap();
    let report = verify(&data, |_, _| {}).unwrap_err().to_string();
    assert!(report.contains("its schema is of another version"), "{report}");

    let (mut process, address) = Process::start(dir.path(), &SERVE).await;
    let client = Client::connect(&address).await.unwrap();
    let warned = process.log().matches("the catalog is unreadable: starting empty").count();
    assert_eq!(warned, 1, "{}", process.log());
    assert_eq!(client.status().await.unwrap().nvme.unwrap().blocks, 0, "all is forgotten");
    assert!(data.join("catalog.damaged").exists(), "and kept for a look");
    // The bytes of old are still in their slots: nothing of them is taken for anything.
    fixture::check_all_missed(&client).await;
    fixture::check_bills_alone(&client).await;
    fixture::store(&client).await;
    fixture::check_blocks(&client).await;
    process.kill();
    let report = verify(&data, |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.corrupt, report.stale), (BLOCKS, 0, 0), "{report:#?}");
}

/// Makes the fixture. Only for a new format: what is checked in is what a program of its day has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes a fixture of today's format in the folder KVTIER_FIXTURE"]
async fn make_a_fixture_of_todays_format() {
    let to = PathBuf::from(std::env::var("KVTIER_FIXTURE").expect("KVTIER_FIXTURE names a folder to be made"));
    let dir = tempfile::tempdir().unwrap();
    let (mut process, address) = Process::start(dir.path(), &SERVE).await;
    let client = Client::connect(&address).await.unwrap();
    fixture::store(&client).await;
    let receipt = fixture::settle(&client).await;
    process.kill();
    // What the databases say about themselves, and about the machine, is no part of the format.
    for database in ["catalog", "ledger"] {
        for path in
            std::fs::read_dir(dir.path().join("data").join(database)).unwrap().map(|entry| entry.unwrap().path())
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("LOG") || name.starts_with("OPTIONS") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    std::fs::write(dir.path().join("data/LOCK"), b"").unwrap();
    copy(&dir.path().join("data"), &to);
    std::fs::write(to.with_extension("receipt"), receipt).unwrap();
    eprintln!("a fixture of today's format is in {}", to.display());
}
