//! One block, as programs and people see it.

use serde::Serialize;

use super::chain::hex;
use super::size;
use super::table::numbers;
use crate::client::BlockInfo;
use crate::vocab::ByteCount;

/// The blocks of a chain.
#[derive(Serialize)]
pub(super) struct PrefixView {
    pub(super) blocks: Vec<BlockView>,
}

/// What is known of one block. Field names are a contract: add, never rename.
#[derive(Serialize)]
pub(super) struct BlockView {
    key: String,
    readable: bool,
    in_ram: bool,
    on_nvme: bool,
    ram_slot: Option<String>,
    nvme_slot: Option<String>,
    length: u32,
    crc: String,
    parent: Option<String>,
    tenant: String,
    fingerprint: String,
    orphan: bool,
    leases: u32,
    created_s: u32,
}

pub(super) fn of_wire(info: &BlockInfo) -> BlockView {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    BlockView {
        key: hex(&info.key),
        readable: info.readable,
        in_ram: info.in_ram,
        on_nvme: info.on_nvme,
        ram_slot: given(&info.ram_slot),
        nvme_slot: given(&info.nvme_slot),
        length: info.length,
        crc: format!("{:016x}", info.crc),
        parent: given(&hex(&info.parent)),
        tenant: info.tenant.clone(),
        fingerprint: hex(&info.fingerprint),
        orphan: info.orphan,
        leases: info.leases,
        created_s: info.created_s,
    }
}

impl BlockView {
    fn state(&self) -> &'static str {
        match (self.readable, self.orphan, self.in_ram || self.on_nvme) {
            (true, ..) => "readable",
            (false, true, _) => "orphan",
            (false, false, true) => "not readable yet",
            (false, false, false) => "not cached",
        }
    }
}

/// Blocks of a chain, one a line.
pub(super) fn table(blocks: &[BlockView]) -> String {
    let row = |(number, view): (usize, &BlockView)| {
        [
            number.to_string(),
            view.key.clone(),
            view.state().to_owned(),
            view.ram_slot.clone().unwrap_or_default(),
            view.nvme_slot.clone().unwrap_or_default(),
            if view.length == 0 { String::new() } else { size::human(ByteCount(view.length.into())) },
            view.leases.to_string(),
        ]
    };
    let header = ["block", "key", "state", "ram", "nvme", "bytes", "leases"];
    numbers(header, blocks.iter().enumerate().map(row)).to_string()
}

/// Everything about one block.
pub(super) fn text(view: &BlockView) -> String {
    let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let created = jiff::Timestamp::from_second(view.created_s.into()).map_or("-".to_owned(), |time| time.to_string());
    let rows = [
        row("key", &view.key),
        row("state", view.state()),
        row("in ram", &or_none(&view.ram_slot)),
        row("on nvme", &or_none(&view.nvme_slot)),
        row("bytes", &view.length.to_string()),
        row("checksum", &view.crc),
        row("parent", &or_none(&view.parent)),
        row("tenant", &view.tenant),
        row("namespace", &view.fingerprint),
        row("leases", &view.leases.to_string()),
        row("created", &created),
    ];
    numbers(["block", ""], rows).to_string()
}
