//! What a start has made so far: removed again unless it succeeds, so that a refusal leaves nothing behind.

use std::io;
use std::path::{Path, PathBuf};

/// Folders and files made, in the order of their making. Dropped before [`keep`](Self::keep), it removes them; a folder
/// that somebody else has put something into stays.
#[derive(Debug, Default)]
pub(super) struct Begun(Vec<PathBuf>);

impl Begun {
    /// Makes a folder, and those above it that are missing.
    pub(super) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let missing = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        for folder in missing.collect::<Vec<_>>().into_iter().rev() {
            match std::fs::create_dir(folder) {
                Ok(()) => self.0.push(folder.into()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file is about to be made, unless it is there.
    pub(super) fn file(&mut self, path: &Path) {
        if !path.exists() {
            self.made(path);
        }
    }

    /// A file was made.
    pub(super) fn made(&mut self, path: &Path) {
        self.0.push(path.into());
    }

    /// Takes over what another has made.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// What was made stays.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            // Neither a folder in use nor a file that never came to be is a reason to complain: the refusal is.
            drop(if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_again_and_what_others_have_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (deep, file) = (folder.path().join("a/b/c"), folder.path().join("a/b/f"));
        let begin = || {
            let mut begun = Begun::default();
            begun.folder(&deep).unwrap();
            begun.file(&file);
            std::fs::write(&file, b"").unwrap();
            begun
        };
        drop(begin());
        assert!(!folder.path().join("a").exists());
        let begun = begin();
        std::fs::write(folder.path().join("a/theirs"), b"").unwrap();
        drop(begun);
        assert!(folder.path().join("a/theirs").exists() && !folder.path().join("a/b").exists());
        begin().keep();
        drop(begin());
        assert!(deep.exists() && file.exists(), "what was there before stays");
    }
}
