//! An admin evicts and purges in the middle of everything.

use kvtier::plan::{Answer, Event, Filter, Inspection, Removed};
use kvtier::vocab::{AccountId, BlockKey, GroupId, NamespaceId};

use super::world::World;

impl World {
    pub(crate) fn evict(&mut self) {
        let key = self.prompts.any_key(&mut self.chance);
        let answer = self.tell(Event::Evict { key });
        let Removed { blocks, bytes, kept } = self.removed(answer);
        assert!(bytes >= blocks * 1_000, "{bytes} bytes of {blocks} blocks");
        let there = self.published.contains_key(&key);
        assert!(kept > 0 || !there, "{key:?} was evicted and is there");
    }

    pub(crate) fn purge(&mut self) {
        let filter = self.filter();
        self.purge_what(filter);
    }

    pub(crate) fn purge_what(&mut self, filter: Filter) {
        let keys = self.prompts.nodes.iter().map(|node| node.key);
        let matched: Vec<BlockKey> = keys.filter(|key| self.matches(&filter, key)).collect();
        self.excuse(|key| matched.contains(key));
        let answer = self.tell(Event::Purge(filter));
        let Removed { kept, .. } = self.removed(answer);
        assert_eq!(kept, 0, "a purge keeps nothing");
        let left = matched.iter().find(|key| self.published.contains_key(key));
        assert_eq!(left, None, "purged and readable");
    }

    pub(crate) fn flush(&mut self) {
        let answer = self.tell(Event::Flush);
        let Answer::Flushing { begun, left } = answer else { panic!("{answer:?} to a flush") };
        let only_in_ram = self.published.values().filter(|told| !told.nvme).count() as u64;
        assert!(begun + left <= only_in_ram, "{begun} and {left} of {only_in_ram} that only RAM has");
    }

    /// A drive goes, unless it is the last.
    pub(crate) fn lose_drive(&mut self) {
        let there = |(drive, bytes): (u16, u64)| (bytes > 0 && !self.lost_drives.contains(&drive)).then_some(drive);
        let drives: Vec<u16> = (0..).zip(self.options.nvme.drives()).filter_map(there).collect();
        if drives.len() < 2 {
            return;
        }
        let drive = self.chance.pick(&drives);
        self.lost_drives.insert(drive);
        let shape = self.options.nvme;
        let on_it = |row: &super::world::Row| shape.drive_of(row.slot.extent) == drive;
        let lost: Vec<BlockKey> = self.rows.iter().filter(|(_, row)| on_it(row)).map(|(key, _)| *key).collect();
        self.excuse(|key| lost.contains(key));
        self.tell(Event::DriveLost { drive });
    }

    fn filter(&mut self) -> Filter {
        let mut filter = Filter::default();
        match self.chance.below(7) {
            0 => filter.namespace = Some(NamespaceId(self.chance.below(3) as u16)),
            1 => filter.account = Some(AccountId(self.chance.below(2) as u16)),
            2 => filter.user = Some(self.chance.below(3) as u32),
            3 => filter.writer = Some(self.chance.below(3) as u32),
            4 => filter.since_s = Some(self.now.seconds().saturating_sub(self.chance.below(20) as u32)),
            5 => filter.group = Some(GroupId(self.chance.below(2) as u8)),
            _ => {}
        }
        if self.chance.chance(1, 2) {
            filter.user = Some(self.chance.below(3) as u32);
        }
        filter
    }

    fn matches(&self, filter: &Filter, key: &BlockKey) -> bool {
        let all = |known: Inspection| {
            let owner = known.owner;
            filter.namespace.is_none_or(|wanted| wanted == owner.namespace)
                && filter.account.is_none_or(|wanted| wanted == owner.account)
                && filter.user.is_none_or(|wanted| wanted == owner.user)
                && filter.writer.is_none_or(|wanted| wanted == owner.writer)
                && filter.group.is_none_or(|wanted| wanted == owner.group)
                && filter.since_s.is_none_or(|since| since <= known.created_s)
        };
        self.planner.inspect(key).is_some_and(all)
    }
}
