//! What is wrong with the cache and its meter while they serve: reasons of health.

use super::Cache;
use crate::watch::{Service, Trouble};

impl Cache {
    /// All that is wrong now. Looks at flags only, so that it may be asked every second.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let of_ledger = self.ledger_trouble().map(|why| Trouble { of: Service::Usage, why });
        let of_blocks = self.drive_troubles().into_iter().map(|why| Trouble { of: Service::Cache, why });
        of_blocks.chain(of_ledger).collect()
    }

    fn drive_troubles(&self) -> Vec<String> {
        // Who wants no drive at all is not told of those that the store knows.
        let Some(nvme) = &self.nvme else { return Vec::new() };
        let dir = |number| self.places.iter().find(|place| place.number == number).map(|place| place.dir.display());
        let at = |number| dir(number).map(|dir| format!(" ({dir})")).unwrap_or_default();
        let missing = self.places.iter().filter_map(|place| Some((place.number, place.missing.as_ref()?)));
        let missing = missing.map(|(number, why)| format!("drive {number}{} is missing: {why}", at(number)));
        let out = nvme.drives().filter(|(_, _, _, out)| *out);
        let out = out.map(|(number, ..)| format!("drive {number}{} is out: it kept failing", at(number)));
        let unwritable = nvme.catalog().is_failing();
        let unwritable = unwritable.then(|| "the catalog can't be written: nothing comes to the drives".to_owned());
        missing.chain(out).chain(unwritable).collect()
    }
}
