//! Claims about a store on several drives, each a folder of its own here.

use super::tests::{contents, open_on, start};
use super::*;
use crate::index::{CODEC_RAW, Row, ShardRow};
use crate::vocab::{ByteCount, Owner, SlotClass, SlotId};

const MIB: u64 = 1 << 20;

/// A data folder, and folders that stand for mount points.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for name in ["a", "b", "c"] {
            std::fs::create_dir(host.0.path().join(name)).unwrap();
        }
        host
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn drive(&self, name: &str, mib: u64) -> DriveSpec {
        let dir = (name != "data").then(|| self.dir(name));
        DriveSpec { dir, bytes: ByteCount(mib * MIB) }
    }

    fn drives(&self, names: &[&str]) -> Vec<DriveSpec> {
        names.iter().map(|name| self.drive(name, 4)).collect()
    }

    fn start(&self, names: &[&str]) -> Result<Folder, FolderError> {
        start(&self.data(), &self.drives(names))
    }

    /// The folder of the store's own on a drive.
    fn own(&self, name: &str, store: &StoreId) -> PathBuf {
        self.dir(name).join(format!("kvtier-{store}"))
    }

    fn refused(&self, names: &[&str]) -> String {
        let before = contents(self.0.path());
        let said = self.start(names).unwrap_err().to_string();
        assert!(contents(self.0.path()) == before, "{said}: nothing is changed");
        said
    }
}

/// Bytes of each drive in the shape.
fn sizes(folder: &Folder) -> Vec<u64> {
    let mut sizes: Vec<u64> = folder.shape().drives().map(|bytes| bytes / MIB).collect();
    sizes.truncate(folder.drives().count());
    sizes
}

/// Why each drive is missing; empty for one that is not.
fn missing(folder: &Folder) -> Vec<String> {
    folder.drives().map(|place| place.missing.unwrap_or_default()).collect()
}

#[test]
fn a_drive_is_known_by_its_directory_whatever_the_order_and_one_can_be_added() {
    let host = Host::new();
    let folder = host.start(&["data", "a"]).unwrap();
    let store = folder.store().clone();
    assert_eq!(sizes(&folder), [4, 4]);
    assert!(host.data().join("slots/0.kv").exists() && host.own("a", &store).join("1.kv").exists());
    drop(folder);
    let drives = [host.drive("b", 8), host.drive("a", 2), host.drive("data", 4)];
    let folder = start(&host.data(), &drives).unwrap();
    assert_eq!((sizes(&folder), folder.store()), (vec![4, 2, 8], &store));
    let dirs: Vec<_> = folder.drives().map(|place| place.dir).collect();
    assert_eq!(dirs, [host.data(), host.dir("a"), host.dir("b")]);
    drop(folder);
    let looked = Folder::inspect(&host.data()).unwrap();
    assert_eq!(sizes(&looked), [4, 2, 8]);
}

#[test]
fn a_store_has_no_more_drives_than_its_numbers_allow() {
    let host = Host::new();
    drop(host.start(&["data"]).unwrap());
    let format = host.data().join(FORMAT);
    let text = std::fs::read_to_string(&format).unwrap().replace("\"stride\": 16", "\"stride\": 1");
    std::fs::write(&format, text).unwrap();
    let said = host.refused(&["data", "a"]);
    assert!(said.contains("would be drive 2 of data folder") && said.contains("numbered for 1 at most"), "{said}");
}

#[test]
fn a_drive_that_is_not_given_or_not_there_is_left_out_and_comes_back() {
    let host = Host::new();
    let store = host.start(&["data", "a", "b"]).unwrap().store().clone();
    let folder = host.start(&["data", "b"]).unwrap();
    assert_eq!((sizes(&folder), missing(&folder)[1].as_str()), (vec![4, 0, 4], "it is not among the drives given"));
    drop(folder);
    // As after a mount that failed: the mount point is there, and empty.
    std::fs::rename(host.dir("a"), host.dir("aside")).unwrap();
    std::fs::create_dir(host.dir("a")).unwrap();
    let folder = host.start(&["data", "a", "b"]).unwrap();
    assert_eq!(sizes(&folder), [4, 0, 4]);
    let own = host.own("a", &store).display().to_string();
    assert!(missing(&folder)[1].ends_with(&format!("run: mkdir {own}")), "{:?}", missing(&folder));
    assert!(contents(&host.dir("a")).is_empty(), "nothing is written to what lies below the mount point");
    drop(folder);
    std::fs::remove_dir(host.dir("a")).unwrap();
    assert_eq!(
        sizes(&host.start(&["data", "a", "b"]).unwrap()),
        [4, 0, 4],
        "nor is a missing mount point a reason to stop"
    );
    std::fs::rename(host.dir("aside"), host.dir("a")).unwrap();
    let folder = host.start(&["data", "a", "b"]).unwrap();
    assert_eq!((sizes(&folder), missing(&folder)), (vec![4, 4, 4], vec![String::new(); 3]));
}

#[test]
fn a_drive_whose_file_is_gone_or_can_not_be_opened_is_left_out() {
    let host = Host::new();
    let store = host.start(&["data", "a"]).unwrap().store().clone();
    let file = host.own("a", &store).join("1.kv");
    std::fs::remove_file(&file).unwrap();
    let folder = host.start(&["data", "a"]).unwrap();
    assert_eq!(sizes(&folder), [4, 0]);
    assert!(missing(&folder)[1].contains("to begin the drive anew, remove"), "{:?}", missing(&folder));
    drop(folder);
    std::fs::create_dir(&file).unwrap();
    let mut folder = open_on(&host.data(), &host.drives(&["data", "a"])).unwrap();
    let devices = folder.open_devices(IoOptions::default(), None).unwrap();
    assert_eq!((sizes(&folder), devices.iter().map(Option::is_some).collect()), (vec![4, 0], vec![true, false]));
    assert!(missing(&folder)[1].contains("1.kv: open: "), "{:?}", missing(&folder));
}

#[test]
fn without_any_drive_left_it_is_an_error() {
    let host = Host::new();
    let store = host.start(&["a", "b"]).unwrap().store().clone();
    for name in ["a", "b"] {
        std::fs::remove_dir_all(host.own(name, &store)).unwrap();
    }
    let said = host.refused(&["a", "b"]);
    assert!(said.starts_with("nvme: no drive can be used: ") && said.matches("run: mkdir").count() == 2, "{said}");
    assert_eq!(sizes(&host.start(&[]).unwrap()), [0, 0], "none given is a choice");
}

#[test]
fn another_drives_folder_is_refused_and_so_are_two_names_of_one() {
    let host = Host::new();
    let store = host.start(&["a", "b"]).unwrap().store().clone();
    for (from, to) in [("a", "aside"), ("b", "a"), ("aside", "b")] {
        std::fs::rename(host.dir(from), host.dir(to)).unwrap();
    }
    let said = host.refused(&["a", "b"]);
    assert!(
        said.contains(&format!("it is drive 1 of store {store}, and drive 0 of store {store} is expected")),
        "{said}"
    );
    for (from, to) in [("a", "aside"), ("b", "a"), ("aside", "b")] {
        std::fs::rename(host.dir(from), host.dir(to)).unwrap();
    }
    let marker = host.own("a", &store).join("DRIVE");
    let own = std::fs::read(&marker).unwrap();
    let other = String::from_utf8(own.clone()).unwrap().replace(&store.to_string(), &"f".repeat(32));
    std::fs::write(&marker, other).unwrap();
    assert!(host.refused(&["a", "b"]).contains("it is drive 0 of store ffffffff"));
    std::fs::write(&marker, own).unwrap();
    std::os::unix::fs::symlink(host.dir("a"), host.dir("alias")).unwrap();
    assert!(host.refused(&["a", "alias"]).contains("says that it is drive 0"));
    assert!(host.refused(&["a", "a"]).ends_with("is given twice"));
    std::os::unix::fs::symlink(host.dir("c"), host.dir("c2")).unwrap();
    assert!(host.refused(&["a", "c", "c2"]).ends_with("is given twice"));
    std::fs::remove_file(&marker).unwrap();
    std::fs::write(host.own("a", &store).join("notes"), b"").unwrap();
    assert!(host.refused(&["a", "b"]).contains("it has no DRIVE, and holds notes"));
}

#[test]
fn drives_of_one_file_system_share_its_room() {
    let host = Host::new();
    let free = media::files::free_bytes(&host.dir("a")).unwrap();
    let most = free / 3 * 2 / MIB;
    let error = open_on(&host.data(), &[host.drive("a", most), host.drive("b", most)]).unwrap_err();
    assert!(matches!(error, FolderError::TooLarge { free: left, .. } if left.0 < free / 2), "{error}");
}

fn row(extent: u16) -> Row {
    Row {
        slot: SlotId { extent, index: 0 },
        class: SlotClass::of_bytes(4096).unwrap(),
        length: 1,
        codec: CODEC_RAW,
        owner: Owner::default(),
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: 1, crc: 0 }],
        parent: None,
        depth: 0,
        retention: 0,
        created_s: 1,
        last_use_s: 1,
        expires_s: 0,
    }
}

#[test]
fn a_replaced_drive_is_begun_anew_where_its_folder_was_made_and_its_rows_are_forgotten() {
    let host = Host::new();
    let folder = host.start(&["data", "a"]).unwrap();
    let (store, stride) = (folder.store().clone(), folder.shape().stride());
    let catalog = Catalog::open(&folder.catalog()).unwrap().catalog;
    let key = |number: u16| BlockKey::from_bytes([number as u8; 32]);
    for extent in [0, 1, stride, stride + 1] {
        catalog.put(key(extent), &row(extent)).unwrap();
    }
    folder.forget_replaced(&catalog).unwrap();
    assert_eq!(catalog.scan(|_, _| {}).unwrap().rows, 4, "a new drive is no replaced one");
    drop(folder);
    std::fs::remove_dir_all(host.own("a", &store)).unwrap();
    std::fs::create_dir(host.own("a", &store)).unwrap();
    let folder = host.start(&["data", "a"]).unwrap();
    assert_eq!((sizes(&folder), missing(&folder)), (vec![4, 4], vec![String::new(); 2]));
    folder.forget_replaced(&catalog).unwrap();
    let left = |extent| catalog.get(key(extent)).unwrap().is_some();
    assert_eq!([0, 1, stride, stride + 1].map(left), [true, false, true, false]);
    drop(folder);
    std::fs::remove_file(host.data().join("slots/0.kv")).unwrap();
    let folder = host.start(&["data", "a"]).unwrap();
    folder.forget_replaced(&catalog).unwrap();
    assert_eq!(catalog.scan(|_, _| {}).unwrap().rows, 0, "the drive in the data folder likewise");
    drop(folder);
    host.start(&["data", "a"]).unwrap().forget_replaced(&catalog).unwrap();
    assert_eq!(contents(&host.own("a", &store)).len(), 2, "its file and its marker");
}
