//! What is written to NVMe, and when: a value, so that daemon and simulation can be asked for each.

/// When a block that RAM has is written to NVMe. Under each, ancestors are written first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdmissionKind {
    /// When its bytes come in: a crash at any time leaves chains' heads on the drive.
    #[default]
    Always,
    /// When it is used a second time: what is used once never wears the drive.
    SecondUse,
    /// When RAM lets it go: the fewest writes of what lives short, and a cold drive after a crash.
    RamEviction,
}

impl AdmissionKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Always, Self::SecondUse, Self::RamEviction];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::SecondUse => "second-use",
            Self::RamEviction => "ram-eviction",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
