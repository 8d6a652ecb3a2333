//! Bytes that must outlive the catalog, which is disposable: keys of this data folder.

use super::ledger::Ledger;
use super::{LedgerError, store};

impl Ledger {
    /// Bytes that are kept as long as the ledger is, under a name of their own: what `make` gives where there are none yet.
    ///
    /// # Errors
    /// When the database can't be read or written.
    pub fn kept_secret(&self, name: &'static str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, LedgerError> {
        if let Some(known) = self.store().secret(name)? {
            return Ok(known);
        }
        let made = make();
        if made.is_empty() {
            return Ok(made);
        }
        let mut rows = store::Rows::default();
        rows.secret(name, &made);
        self.noticing(|store| store.write(rows))?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.kept_secret("a", || vec![1]).unwrap(), [1]);
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.kept_secret("a", || vec![2]).unwrap(), [1]);
        assert_eq!(ledger.kept_secret("b", || vec![2]).unwrap(), [2]);
    }
}
